"""Bytes are verified before a reader gets them for the first time after an open."""

from __future__ import annotations

import asyncio
import random

import pytest

from quorate.record.batch import check, parse_header, split
from quorate_quorum.log import recovery_point
from quorate_quorum.log.checksum import BLOCK_BYTES, Checksummer
from quorate_quorum.log.log import Log, LogConfig, LogCorruptError
from quorate_quorum.log.segment import Segment
from quorate_quorum.log.verified import RANGES_MAX, Verified
from quorate_testing.simulated.disk import SimulatedDisk
from tests.unit.quorate_quorum.log.builders import FIRST, PATH, new_disk
from tests.unit.quorate_quorum.log.damage_builders import (
    CONFIG,
    COUNT,
    batch_at,
    closed_log,
    log_files,
    starts,
    written,
)


async def readable(log: Log, chance: random.Random) -> tuple[dict[int, bytes], int]:
    """Read at every offset, in any order. Return the batches, and how many reads failed."""
    found: dict[int, bytes] = {}
    failed = 0
    offsets = list(range(log.log_start_offset, log.log_end_offset))
    chance.shuffle(offsets)
    for offset in offsets:
        try:
            data = await log.read(
                offset, end=log.log_end_offset, bytes_max=chance.choice((1, 400, 5000))
            )
        except LogCorruptError:
            failed += 1
            continue
        assert data, offset
        found.update((header.base_offset, bytes(one)) for header, one in split(data))
    return found, failed


@pytest.fixture(autouse=True)
def _indexes_at_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Close these small logs as larger ones are: with indexes."""
    monkeypatch.setattr(recovery_point, "STOP_BYTES_MAX", 0)


@pytest.mark.parametrize("kind", ["plain", "compacted"])
@pytest.mark.parametrize("seed", range(4))
async def test_no_flipped_bit_of_a_log_reaches_a_reader(kind: str, seed: int) -> None:
    """The flips hit every field of a batch, also those that its CRC leaves out."""
    whole, batches = await closed_log(kind)
    chance = random.Random(seed)
    opened = 0
    for _ in range(60):
        disk = whole.copy()
        path = chance.choice(log_files(disk))
        content = disk.content(path)
        place = chance.choice(starts(content))
        fields = (0, 16) if chance.random() < 0.5 else (16, 150)
        position = place + chance.randrange(*fields)
        bit = chance.randrange(8)
        if position >= len(content):
            continue
        disk.flip_bit(path, position, bit)
        try:
            log = await Log.open(disk, PATH, CONFIG)
        except LogCorruptError:
            continue  # an open looks at the ends of segments
        opened += 1
        found, failed = await readable(log, chance)
        case = (kind, seed, path, position, bit)
        assert failed, f"the flip at {case} was not told"
        wrong = [base for base, data in found.items() if batches.get(base) != data]
        assert not wrong, f"{case}: batches {wrong} are not those that were written"
        await log.close(clean=False)
    assert opened > 30


async def test_an_offset_that_was_changed_within_a_gap_reaches_no_reader() -> None:
    """No neighbour contradicts it. Only the checksum file of the compacted segment does."""
    whole, batches = await closed_log("compacted")
    opened = 0
    for path in log_files(whole):
        for place in starts(whole.content(path)):
            for bit in range(4):
                disk = whole.copy()
                disk.flip_bit(path, place + 7, bit)  # the last byte of base_offset
                try:
                    log = await Log.open(disk, PATH, CONFIG)
                except LogCorruptError:
                    continue
                opened += 1
                found, _ = await readable(log, random.Random(1))
                wrong = [base for base, data in found.items() if batches.get(base) != data]
                assert not wrong, f"{path} at {place}, bit {bit}: {wrong}"
                await log.close(clean=False)
    assert opened > 30


@pytest.mark.parametrize("kind", ["plain", "compacted"])
async def test_all_but_a_bad_batch_is_read(kind: str) -> None:
    """A flipped bit in a record costs this one batch, wherever a read begins."""
    disk, batches = await closed_log(kind)
    content = disk.content(FIRST)
    bad, data = list(split(content))[2]
    disk.flip_bit(FIRST, content.index(data) + 80)
    log = await Log.open(disk, PATH, CONFIG)
    found: dict[int, bytes] = {}
    for base in batches:
        if base == bad.base_offset:
            for _ in range(2):
                with pytest.raises(LogCorruptError):
                    await log.read(base, end=log.log_end_offset, bytes_max=5000)
            continue
        got = await log.read(base, end=log.log_end_offset, bytes_max=5000)
        found.update((header.base_offset, bytes(one)) for header, one in split(got))
    assert found == {base: one for base, one in batches.items() if base != bad.base_offset}
    await log.close(clean=False)


@pytest.mark.parametrize("kind", ["plain", "compacted"])
async def test_bytes_are_verified_once(kind: str) -> None:
    """The second read of the same bytes reads them and nothing else."""
    disk, _ = await closed_log(kind)
    log = await Log.open(disk, PATH, CONFIG)
    reads: list[int] = []
    disk.hook = lambda name, _: reads.append(1) if name == "read" else None
    costs = []
    for _ in range(2):
        reads.clear()
        offset = 0
        while offset < log.log_end_offset:
            data = await log.read(offset, end=log.log_end_offset, bytes_max=400)
            offset = list(split(data))[-1][0].end_offset
        costs.append(len(reads))
    first, second = costs
    assert second < first
    assert all(one.verified.covers(0, one.size) for one in log._segments.all[:-1])
    await log.close(clean=False)


async def test_what_this_process_appended_is_not_verified() -> None:
    disk = await new_disk()
    log = await written(disk)
    assert all(one.verified.covers(0, one.size) for one in log._segments.all)
    await log.close(clean=False)


async def test_a_bad_batch_that_was_verified_before_is_found_when_a_reader_reports_it() -> None:
    disk = await new_disk()
    log = await written(disk)
    at = disk.content(FIRST).index(batch_at(9, 1)[1][0])
    await log.verification.check_batch(9)
    disk.flip_bit(FIRST, at + 70)
    assert await log.read(9, end=12, bytes_max=1), "it counts as verified"
    with pytest.raises(LogCorruptError):
        await log.verification.check_batch(10)
    with pytest.raises(LogCorruptError):
        await log.read(9, end=12, bytes_max=1)
    await log.close(clean=False)


async def test_a_cut_and_new_batches_in_the_place_of_old_ones_are_no_damage() -> None:
    disk, _ = await closed_log("plain")
    log = await Log.open(disk, PATH, CONFIG)
    await readable(log, random.Random(1))
    await log.truncate(30)
    for number in range(10, 20):
        await log.append([batch_at(number * COUNT, epoch=9, value=b"another")])
    found, failed = await readable(log, random.Random(2))
    assert (len(found), failed) == (20, 0)
    await log.close(clean=True)
    log = await Log.open(disk, PATH, CONFIG)
    assert (await readable(log, random.Random(3)))[1] == 0
    await log.close(clean=False)


async def test_a_batch_across_the_start_of_a_log_is_no_damage() -> None:
    disk, _ = await closed_log("plain")
    log = await Log.open(disk, PATH, CONFIG)
    await log.move_start(61)
    await log.close(clean=True)
    log = await Log.open(disk, PATH, CONFIG)
    assert (await readable(log, random.Random(1)))[1] == 0
    await log.close(clean=False)


async def test_the_work_for_one_read_does_not_grow_with_the_segment() -> None:
    disk = await new_disk()
    log = await Log.open(disk, PATH, LogConfig())
    for number in range(400):
        await log.append([batch_at(number * COUNT, epoch=1, value=b"v" * 1000)])
    await log.roll()
    await log.close(clean=True)
    log = await Log.open(disk, PATH, LogConfig())
    await log.read(0, end=900, bytes_max=1)  # loads the index
    reads: list[str] = []
    disk.hook = lambda name, _: reads.append(name) if name == "read" else None
    await log.read(900, end=1200, bytes_max=1)
    assert len(reads) < 15
    await log.close(clean=False)


def test_the_blocks_of_a_checksum_cover_the_whole_segment() -> None:
    made = Checksummer(0)
    sizes = []
    for number in range(200):
        header, _ = batch_at(number * COUNT, 1, value=b"v" * (number * 5))
        made.add(header)
        sizes.append(header.size)
    known = made.result()
    assert len(known.blocks) > 3
    assert known.blocks[-1][0] == known.size == sum(sizes)
    previous = 0
    for stop, _ in known.blocks:
        assert known.block_of(previous)[:2] == known.block_of(stop - 1)[:2] == (previous, stop)
        assert stop - previous >= BLOCK_BYTES or stop == known.size
        previous = stop
    assert type(known).decode(known.encode()) == known


def test_only_a_few_ranges_of_a_segment_are_remembered() -> None:
    known = Verified(1 << 30)
    chance = random.Random(1)
    for _ in range(1000):
        start = chance.randrange(1 << 29)
        known.add(start, start + chance.randrange(1, 1 << 16), 0)
        assert len(known._ranges) <= RANGES_MAX + 1
    known.forget(1 << 30)
    assert not known.covers(0, 1)


async def test_a_scan_at_open_that_checks_all_counts() -> None:
    disk, _ = await closed_log("plain")
    log = await Log.open(disk, PATH, LogConfig(segment_bytes=1500, verify_all=True))
    segments: list[Segment] = log._segments.all
    assert all(one.verified.covers(0, one.size) for one in segments)
    check(await log.read(0, end=3, bytes_max=1))
    await log.close(clean=False)


async def first_reads(log: Log, offset: int) -> dict[int, bytes]:
    """Read near an offset, each time as if nothing had been read before. Return the batches."""
    found: dict[int, bytes] = {}
    for near in range(max(offset - COUNT, 0), min(offset + 2 * COUNT, log.log_end_offset)):
        for segment in log._segments.all:
            segment.verified.forget(segment.size)
        log._reader.forget_older()
        try:
            data = await log.read(near, end=log.log_end_offset, bytes_max=1)
        except LogCorruptError:
            continue
        found.update((header.base_offset, bytes(one)) for header, one in split(data))
    return found


@pytest.mark.parametrize("has_indexes", [True, False])
@pytest.mark.parametrize("kind", ["plain", "compacted"])
async def test_a_batch_at_another_offset_is_not_served(kind: str, *, has_indexes: bool) -> None:
    """Without index files, the index is built from the batches, and must not repeat the fault."""
    whole, batches = await closed_log(kind)
    paths = log_files(whole)
    if not has_indexes:
        for path in [path for path, _ in whole.files() if path.endswith("index")]:
            await whole.remove(path)
    for path in paths:
        for place in starts(whole.content(path)):
            for bit in range(3):
                disk = whole.copy()
                disk.flip_bit(path, place + 7, bit)
                offset = parse_header(disk.content(path), place).base_offset
                try:
                    log = await Log.open(disk, PATH, CONFIG)
                except LogCorruptError:
                    continue
                found = await first_reads(log, offset)
                wrong = [base for base, data in found.items() if batches.get(base) != data]
                assert not wrong, (path, place, bit)
                await log.close(clean=False)


@pytest.mark.parametrize("kind", ["plain", "compacted"])
async def test_a_flipped_bit_of_an_index_costs_no_batch(kind: str) -> None:
    whole, batches = await closed_log(kind)
    chance = random.Random(1)
    paths = [path for path, size in whole.files() if size and path.endswith("index")]
    for _ in range(60):
        disk = whole.copy()
        path = chance.choice(paths)
        disk.flip_bit(path, chance.randrange(len(disk.content(path))), chance.randrange(8))
        log = await Log.open(disk, PATH, CONFIG)
        assert await readable(log, chance) == (batches, 0)
        await log.close(clean=False)


async def read_beside_a_cut(disk: SimulatedDisk, operations: int) -> bytes | None:
    """Read the end of a log, and cut it after some operations. None: the read does not end."""
    log = await Log.open(disk, PATH, CONFIG)
    base = log._segments.bases[-2]
    left = iter(range(operations))
    cut = asyncio.Event()

    def count(name: str, path: str) -> None:
        if next(left, None) is None:
            cut.set()

    disk.hook = count
    reading = asyncio.create_task(log.read(base + 15, end=log.log_end_offset, bytes_max=100_000))
    waiting = asyncio.create_task(cut.wait())
    await asyncio.wait((reading, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    disk.hook = None
    await log.truncate(base + COUNT)
    for _ in range(1_000):
        if reading.done():
            await log.close(clean=False)
            return reading.result()
        await asyncio.sleep(0)
    reading.cancel()
    return None


@pytest.mark.parametrize("kind", ["plain", "compacted"])
async def test_a_read_whose_bytes_are_cut_while_they_are_verified_ends(kind: str) -> None:
    """It asked for ever for bytes above the new end, and kept a core busy."""
    whole, batches = await closed_log(kind)
    for operations in range(12):
        found = await read_beside_a_cut(whole.copy(), operations)
        assert found is not None, operations
        assert all(batches[one.base_offset] == data for one, data in split(found))
