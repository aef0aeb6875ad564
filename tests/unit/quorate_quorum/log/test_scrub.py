"""A pass over a log in use finds what is damaged, and writes again what memory knows."""

from __future__ import annotations

import asyncio
import random

import pytest

from quorate_quorum.log.log import Log, LogConfig, LogCorruptError
from quorate_quorum.log.scrub import STEP_BYTES, Scrub
from quorate_testing.simulated.disk import SimulatedDisk
from tests.unit.quorate_quorum.log.builders import FIRST, PATH, Seen, batch, new_disk
from tests.unit.quorate_quorum.log.damage_builders import CONFIG, closed_log, starts


async def scrubbed(log: Log) -> list[str]:
    """Return the reasons of a whole pass."""
    scrub = log.verification.scrub()
    found: list[str] = []
    while not scrub.is_done:
        try:
            await scrub.step()
        except LogCorruptError as error:
            found.append(str(error))
            assert len(found) < 5, found
    return found


def files(disk: SimulatedDisk) -> dict[str, bytes]:
    return {path: disk.content(path) for path, _ in disk.files() if path.startswith(PATH)}


@pytest.mark.parametrize("kind", ["plain", "compacted"])
async def test_a_pass_over_a_good_log_finds_and_changes_nothing(kind: str) -> None:
    disk, _ = await closed_log(kind)
    log = await Log.open(disk, PATH, CONFIG, observer=Seen())
    before = files(disk)
    assert await scrubbed(log) == []
    assert files(disk) == before
    await log.close(clean=False)


@pytest.mark.parametrize("kind", ["plain", "compacted"])
@pytest.mark.parametrize("is_read", [True, False])
async def test_any_flipped_bit_of_an_open_log_is_found_or_mended(
    kind: str, *, is_read: bool
) -> None:
    """Also where the bytes were verified before. In the end only the batches may be bad."""
    whole, _ = await closed_log(kind)
    chance = random.Random(f"{kind} {is_read}")
    for _ in range(150):
        disk = whole.copy()
        log = await Log.open(disk, PATH, CONFIG, observer=Seen())
        await log.append([batch(log.log_end_offset, 3)])
        await log.checkpoint_high_watermark(log.log_end_offset, 3)
        await log.sync()
        if is_read:
            assert await scrubbed(log) == []
        before = files(disk)
        has_witness = [path for path in before if path.replace(".log", ".checksum") in before]
        path = chance.choice([one for one, content in before.items() if content])
        position = chance.randrange(len(before[path]))
        is_batch = path.endswith(".log")
        if is_batch and kind == "compacted" and path not in has_witness:
            position = chance.choice(starts(before[path])) + chance.randrange(16, 100)
        disk.flip_bit(path, position, chance.randrange(8))
        flipped = disk.content(path)
        found = await scrubbed(log)
        now = files(disk)
        case = (path, position)
        if is_batch:
            assert len(found) == 1, case
        elif path.endswith(".snapshot"):
            assert path not in now, case
        elif "0000" in path or path.endswith("checkpoint"):
            # The active segment's index is in memory, and is written when the segment is closed.
            is_active = f"{log.compaction.bases[-1]:020d}" in path
            assert is_active or now[path] != flipped, case
            assert now[path] == before[path] or path.endswith("index"), case
        assert is_batch or not found, case
        if not is_batch:
            assert await scrubbed(log) == []
            assert {one: now.get(one) for one in before if one != path} == {
                one: content for one, content in before.items() if one != path
            }
        await log.close(clean=False)


@pytest.mark.parametrize("name", ["synced", "high-watermark", "log-start"])
async def test_a_damaged_slot_has_its_value_again(name: str) -> None:
    disk, _ = await closed_log("plain")
    log = await Log.open(disk, PATH, CONFIG)
    await log.move_start(7)
    await log.checkpoint_high_watermark(20, 3)
    await log.close(clean=True)
    log = await Log.open(disk, PATH, CONFIG)
    values = log.log_start_offset, log.high_watermark, log.synced_end
    for position in (20, 532):
        disk.flip_bit(f"{PATH}/{name}", position)
    assert await scrubbed(log) == []
    await log.close(clean=False)
    log = await Log.open(disk, PATH, CONFIG)
    assert (log.log_start_offset, log.high_watermark, log.synced_end) == values
    await log.close(clean=False)


async def test_a_pass_beside_appends_cuts_rolls_and_removals_finds_nothing() -> None:
    chance = random.Random(1)
    disk = SimulatedDisk(random.Random(1), latency_max=0.0002)
    await disk.make_directory("/data")
    log = await Log.open(disk, PATH, LogConfig(segment_bytes=3000, index_interval_bytes=200))
    stop = False

    async def scrub_on() -> int:
        passes = 0
        while not stop:
            assert await scrubbed(log) == []
            passes += 1
            await asyncio.sleep(0)
        return passes

    scrubbing = asyncio.create_task(scrub_on())
    epoch = 1
    for _ in range(300):
        draw = chance.random()
        end = log.log_end_offset
        if draw < 0.8:
            await log.append([batch(end + n, epoch) for n in range(chance.randrange(1, 9))])
        elif draw < 0.9:
            epoch += 1
            await log.truncate(chance.randint(max(end - 20, log.log_start_offset), end))
        else:
            await log.move_start(chance.randint(log.log_start_offset, end))
            await log.remove_below_start()
    stop = True
    assert await scrubbing > 3
    await log.close(clean=False)


async def test_one_step_reads_a_bounded_part_of_a_segment() -> None:
    disk = await new_disk()
    log = await Log.open(disk, PATH, LogConfig())
    for offset in range(40):
        await log.append([batch(offset, value=b"v" * 50_000)])
    scrub: Scrub = log.verification.scrub()
    sizes = []
    while not scrub.is_done:
        sizes.append(await scrub.step())
    assert sum(sizes) >= len(disk.content(FIRST))
    assert max(sizes) < 2 * STEP_BYTES
    await log.close(clean=False)
