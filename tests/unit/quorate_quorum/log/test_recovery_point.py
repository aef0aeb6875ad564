"""After a crash, an open reads only the batches above the recovery point, and trusts only those."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from quorate.errors import StorageError
from quorate_quorum.log import recovery_point
from quorate_quorum.log.log import Log, LogConfig
from quorate_quorum.log.run_file import UNKNOWN, Run
from quorate_testing.simulated.disk import SimulatedDisk, SimulatedFile
from tests.unit.quorate_quorum.log.builders import FIRST, PATH, SAME_BOOT, Seen, batch, new_disk

CONFIG = LogConfig()
#: The bytes of a batch of the builders.
BATCH_BYTES = 109
#: An index has an entry for about so many bytes; an open begins to read at the last entry, and
#: reads the batch of each index's last entry to confirm it.
NEAR_BYTES = 4 * (CONFIG.index_interval_bytes + 8 * 1024)
MANY = 3_000
CLEAN = Run(marker_present=True, boot_id="boot-1", sync_failed=False, same_boot=True)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """The bytes that were read of each file."""
    found: Counter[str] = Counter()
    read_at = SimulatedFile.read_at

    async def counted(file: SimulatedFile, position: int, length: int) -> bytes:
        data = await read_at(file, position, length)
        found[file.path] += len(data)
        return data

    monkeypatch.setattr(SimulatedFile, "read_at", counted)
    return found


async def append(log: Log, count: int, *, epoch: int = 1, value: bytes = b"v" * 40) -> None:
    end = log.log_end_offset
    for start in range(end, end + count, 100):
        stop = min(start + 100, end + count)
        await log.append([batch(offset, epoch, value=value) for offset in range(start, stop)])


async def all_offsets(log: Log) -> list[int]:
    found = Seen()
    offset = log.log_start_offset
    while offset < log.log_end_offset:
        data = await log.read(offset, end=log.log_end_offset, bytes_max=1 << 20)
        at = 0
        while at < len(data):
            offset = int.from_bytes(data[at : at + 8], "big")
            found.offsets.append(offset)
            at += 12 + int.from_bytes(data[at + 8 : at + 12], "big")
        offset += 1
    return found.offsets


async def killed(disk: SimulatedDisk, log: Log) -> None:
    disk.crash_process()
    await log.close(clean=False)


async def test_an_open_after_a_kill_reads_only_what_is_above(read: Counter[str]) -> None:
    disk = await new_disk()
    log = await Log.open(disk, PATH, CONFIG)
    await append(log, MANY)
    await log.recovery_point.move()
    await append(log, 10)
    await killed(disk, log)
    read.clear()
    again = await Log.open(disk, PATH, CONFIG, run=SAME_BOOT)
    assert again.log_end_offset == MANY + 10
    assert read[FIRST] <= NEAR_BYTES + 10 * BATCH_BYTES
    assert await all_offsets(again) == list(range(MANY + 10))


@pytest.mark.parametrize("count", [1, MANY])
async def test_a_clean_start_writes_nothing(count: int) -> None:
    disk = await new_disk()
    log = await Log.open(disk, PATH, CONFIG, observer=Seen())
    await append(log, count)
    log.high_watermark, log.hw_epoch = count, 1
    await log.close(clean=True)
    operations: set[str] = set()
    disk.hook = lambda name, path: operations.add(name)
    again = await Log.open(disk, PATH, CONFIG, observer=Seen(), run=CLEAN)
    assert again.log_end_offset == count
    assert operations <= {"open", "read"}


async def test_a_clean_start_reads_no_batches_but_the_last(read: Counter[str]) -> None:
    disk = await new_disk()
    log = await Log.open(disk, PATH, CONFIG)
    await append(log, MANY)
    await log.close(clean=True)
    read.clear()
    again = await Log.open(disk, PATH, CONFIG, run=CLEAN)
    assert again.log_end_offset == MANY
    assert read[FIRST] <= NEAR_BYTES


async def test_the_observer_is_shown_few_bytes_after_a_kill(
    read: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery_point, "RELOAD_BYTES_MAX", 64 * 1024)
    disk = await new_disk()
    log = await Log.open(disk, PATH, CONFIG, observer=Seen())
    await append(log, MANY)
    await log.recovery_point.move()
    await killed(disk, log)
    read.clear()
    seen = Seen()
    await Log.open(disk, PATH, CONFIG, observer=seen, run=SAME_BOOT)
    assert seen.offsets == list(range(MANY))
    assert seen.observed < 100
    assert read[FIRST] <= NEAR_BYTES


async def test_the_index_files_grow_and_are_not_written_again() -> None:
    disk = await new_disk()
    log = await Log.open(disk, PATH, CONFIG)
    await append(log, MANY)
    await log.recovery_point.move()
    sizes = {name: len(disk.content(f"{PATH}/{name}")) for name in disk.names(PATH)}
    renamed: list[str] = []
    disk.hook = lambda name, path: renamed.append(path) if name == "rename" else None
    for _ in range(3):
        await append(log, MANY // 3)
        await log.recovery_point.move()
    disk.hook = None
    assert renamed == []
    for name in ("00000000000000000000.index", "00000000000000000000.timeindex"):
        assert len(disk.content(f"{PATH}/{name}")) > 1.9 * sizes[name]
    index, times = FIRST.replace(".log", ".index"), FIRST.replace(".log", ".timeindex")
    grown = disk.content(index), disk.content(times)
    await log.close(clean=True)
    assert (disk.content(index), disk.content(times)) == grown, "the same as if written whole"


async def test_after_a_cut_the_index_files_are_those_of_the_new_batches() -> None:
    disk = await new_disk()
    log = await Log.open(disk, PATH, CONFIG)
    await append(log, MANY)
    await log.recovery_point.move()
    await log.truncate(MANY // 2)
    await append(log, MANY, epoch=2, value=b"other" * 20)
    await log.recovery_point.move()
    await killed(disk, log)
    again = await Log.open(disk, PATH, CONFIG, run=SAME_BOOT)
    assert again.log_end_offset == MANY // 2 + MANY
    assert await all_offsets(again) == list(range(MANY // 2 + MANY))


@pytest.mark.parametrize("seed", range(40))
async def test_all_below_the_recovery_point_survives_a_power_loss(seed: int) -> None:
    chance = random.Random(seed)
    disk = SimulatedDisk(chance)
    await disk.make_directory("/data")
    await disk.sync_directory("/")
    log = await Log.open(disk, PATH, CONFIG)
    await append(log, 200)
    await log.recovery_point.move()
    assert log.synced_end == 200
    await append(log, chance.randrange(1, 100))
    if chance.random() < 0.5:
        await log.recovery_point.move()
        point = log.log_end_offset
    else:
        point = 200
    disk.lose_power()
    await log.close(clean=False)
    again = await Log.open(disk, PATH, CONFIG, run=UNKNOWN)
    assert again.log_end_offset >= point
    assert await all_offsets(again) == list(range(again.log_end_offset))


async def test_a_sync_that_fails_does_not_move_it() -> None:
    disk = await new_disk()
    log = await Log.open(disk, PATH, CONFIG)
    await append(log, 10)
    await log.recovery_point.move()
    await append(log, 10)
    disk.fail_next_sync()
    with pytest.raises(StorageError):
        await log.recovery_point.move()
    assert log.synced_end == 10
    assert log.recovery_point.bytes_above == 10 * BATCH_BYTES


async def test_a_full_disk_costs_only_the_files_that_make_the_open_fast() -> None:
    disk = await new_disk()
    log = await Log.open(disk, PATH, CONFIG)
    await append(log, 500)
    disk.fill()
    await log.recovery_point.move()
    assert log.synced_end == 500
    disk.mend()
    await append(log, 500)
    await log.recovery_point.move()
    await killed(disk, log)
    again = await Log.open(disk, PATH, CONFIG, run=SAME_BOOT)
    assert await all_offsets(again) == list(range(1000))


async def test_what_is_appended_during_its_sync_is_above_it() -> None:
    disk = await new_disk()
    log = await Log.open(disk, PATH, CONFIG)
    await append(log, 10)
    syncing = asyncio.Event()
    disk.hook = lambda name, path: syncing.set() if (name, path) == ("sync", FIRST) else None
    disk.slow_sync = 0.01
    moving = asyncio.create_task(log.recovery_point.move())
    await syncing.wait()
    disk.hook = None
    await append(log, 10)
    await moving
    disk.slow_sync = 0.0
    assert log.synced_end == 10
    assert log.recovery_point.bytes_above == 10 * BATCH_BYTES
