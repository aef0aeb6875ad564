"""What an open finds: corruption, a tail, or a lossy log."""

from __future__ import annotations

import asyncio
import random

import pytest

from quorate.errors import StorageError
from quorate.record.batch import split
from quorate_quorum.log.log import Log, LogConfig, LogCorruptError
from quorate_quorum.log.run_file import UNKNOWN
from quorate_testing.simulated.disk import SimulatedDisk
from tests.unit.quorate_quorum.log.builders import (
    FIRST,
    PATH,
    SAME_BOOT,
    batch,
    new_disk,
)

METADATA = LogConfig(track_synced=True, verify_all=True)


async def written(disk: SimulatedDisk, config: LogConfig, synced: int, end: int) -> list[int]:
    """Write a log with a sync at `synced`, leave it as after kill -9; return batch positions."""
    log = await Log.open(disk, PATH, config)
    positions = [0]
    for offset in range(end):
        header, pieces = batch(offset, 1 + offset // 5)
        await log.append([(header, pieces)])
        positions.append(positions[-1] + header.size)
        if offset + 1 == synced:
            await log.sync()
    await log.close(clean=False)
    return positions


HEADER_FIELDS = {"base_offset": 7, "length": 11, "epoch": 15, "magic": 16, "crc": 20, "payload": 70}


@pytest.mark.parametrize("field", HEADER_FIELDS)
@pytest.mark.parametrize("at", [0, 4, 9])
async def test_a_flipped_bit_below_what_was_synced_is_corruption(field: str, at: int) -> None:
    disk = await new_disk()
    positions = await written(disk, METADATA, synced=10, end=14)
    disk.flip_bit(FIRST, positions[at] + HEADER_FIELDS[field], bit=1)
    before = disk.content(FIRST)
    for _ in range(2):
        with pytest.raises(LogCorruptError, match="had survived a sync"):
            await Log.open(disk, PATH, METADATA, run=SAME_BOOT)
    assert disk.content(FIRST) == before, "nothing is cut off a corrupt log"


@pytest.mark.parametrize("field", [name for name in HEADER_FIELDS if name != "epoch"])
@pytest.mark.parametrize("at", [10, 12, 13])
async def test_a_flipped_bit_above_is_cut_with_all_that_follows_and_is_lossy(
    field: str, at: int
) -> None:
    disk = await new_disk()
    positions = await written(disk, METADATA, synced=10, end=14)
    disk.flip_bit(FIRST, positions[at] + HEADER_FIELDS[field], bit=1)
    log = await Log.open(disk, PATH, METADATA, run=SAME_BOOT)
    assert log.log_end_offset == at
    assert log.recovered.cut_bytes == positions[-1] - positions[at]
    assert log.recovered.lossy
    assert log.recovered.damaged
    await log.close(clean=False)


@pytest.mark.parametrize("seed", range(20))
async def test_what_a_sync_has_told_is_never_taken_for_a_tail(seed: int) -> None:
    """A power loss brings no older `synced` back: a damaged record below is seen as damaged."""
    disk = SimulatedDisk(random.Random(seed))
    await disk.make_directory("/data")
    log = await Log.open(disk, PATH, METADATA)
    positions = [0]
    for offset in range(4):
        header, pieces = batch(offset)
        await log.append([(header, pieces)])
        positions.append(positions[-1] + header.size)
        await log.sync()
    disk.lose_power()
    disk.flip_bit(FIRST, positions[3] + HEADER_FIELDS["payload"])
    with pytest.raises(LogCorruptError, match="had survived a sync"):
        await Log.open(disk, PATH, METADATA)


@pytest.mark.parametrize("seed", range(20))
async def test_a_kill_in_the_sync_of_synced_leaves_it_to_be_made_sure_at_open(seed: int) -> None:
    """The open reads it from the page cache. It must sync it before anything is acknowledged."""
    disk = SimulatedDisk(random.Random(seed))
    await disk.make_directory("/data")
    log = await Log.open(disk, PATH, METADATA)
    header, pieces = batch(0)
    await log.append([(header, pieces)])
    await log.sync()
    header, pieces = batch(1)
    await log.append([(header, pieces)])

    def kill(operation: str, path: str) -> None:
        if operation == "sync" and path.endswith("/synced"):
            disk.crash_process()

    disk.hook = kill
    with pytest.raises(StorageError):
        await log.sync()
    disk.hook = None
    log = await Log.open(disk, PATH, METADATA)
    assert log.synced_end == 2, "told to be safe"
    disk.lose_power()
    disk.flip_bit(FIRST, header.size + HEADER_FIELDS["payload"])
    with pytest.raises(LogCorruptError, match="had survived a sync"):
        await Log.open(disk, PATH, METADATA)


async def deleted(log: Log) -> None:
    await log.move_start(3)
    await log.remove_below_start()


async def test_the_oldest_segment_stays_until_the_name_of_the_next_is_durable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a power loss could keep only the removal. A roll may have begun the sync of names."""
    disk = await new_disk()
    log = await Log.open(disk, PATH, LogConfig(segment_bytes=100))
    for offset in range(3):
        header, pieces = batch(offset)
        await log.append([(header, pieces)])
        await log.sync()
        await asyncio.sleep(0)  # the sync that the roll began finds nothing to do
    await log.move_start(1)  # makes log-start, whose name has to be synced too
    await log.remove_below_start()
    oldest = f"{PATH}/{1:020}.log"
    may_go_on = asyncio.Event()
    sync_directory = disk.sync_directory

    async def held(path: str) -> None:
        if f"{3:020}.log" in disk.names(PATH):
            await may_go_on.wait()
        await sync_directory(path)

    monkeypatch.setattr(disk, "sync_directory", held)
    header, pieces = batch(3)
    await log.append([(header, pieces)])
    deleting = asyncio.create_task(deleted(log))
    for _ in range(20):
        await asyncio.sleep(0)
    assert await disk.exists(oldest)
    may_go_on.set()
    await deleting
    assert not await disk.exists(oldest)
    await log.close(clean=False)


async def test_a_log_shorter_than_what_was_synced_is_corrupt() -> None:
    disk = await new_disk()
    positions = await written(disk, METADATA, synced=10, end=10)
    disk.put(FIRST, disk.content(FIRST)[: positions[9]])
    with pytest.raises(LogCorruptError, match="ends at 9"):
        await Log.open(disk, PATH, METADATA)
    await disk.remove(FIRST)
    with pytest.raises(LogCorruptError, match="no segment"):
        await Log.open(disk, PATH, METADATA)


@pytest.mark.parametrize("kept", [1, 11, 12, 60, 61, 80])
async def test_a_torn_last_write_is_not_lossy_if_only_the_process_died(kept: int) -> None:
    for run in (SAME_BOOT, UNKNOWN):
        disk = await new_disk()
        positions = await written(disk, METADATA, synced=3, end=8)
        disk.put(FIRST, disk.content(FIRST)[: positions[7] + kept])
        log = await Log.open(disk, PATH, METADATA, run=run)
        assert (log.log_end_offset, log.recovered.cut_bytes) == (7, kept)
        assert log.recovered.lossy is (run is UNKNOWN)
        assert not log.recovered.damaged
        await log.close(clean=False)


async def test_an_older_epoch_after_a_newer_one_is_cut() -> None:
    """Bytes that were cut, and came back behind new batches, are no part of this log."""
    disk = await new_disk()
    await written(disk, METADATA, synced=0, end=6)
    disk.put(FIRST, disk.content(FIRST) + batch(6, epoch=1)[1][0])
    log = await Log.open(disk, PATH, METADATA)
    assert log.log_end_offset == 6
    await log.close(clean=False)


async def test_opening_a_partition_reads_of_what_was_synced_only_the_end_of_each_segment() -> None:
    disk = await new_disk()
    config = LogConfig(segment_bytes=2700, index_interval_bytes=200)
    log = await Log.open(disk, PATH, config)
    for offset in range(500):
        await log.append([batch(offset)])
    await log.close(clean=True)
    reads: list[str] = []
    disk.hook = lambda name, path: reads.append(path) if name == "read" else None
    log = await Log.open(disk, PATH, config)
    assert log.log_end_offset == 500
    disk.hook = None
    closed = len(await log.segments()) - 1
    assert closed == 20
    assert len([path for path in reads if path.endswith(".log")]) <= 2 * closed + 4
    await log.close(clean=False)


async def test_after_a_failed_sync_nothing_is_acknowledged_until_it_is_written_again() -> None:
    disk = await new_disk()
    log = await Log.open(disk, PATH, METADATA)
    await log.append([batch(0)])
    await log.sync()
    await log.append([batch(1)])
    disk.fail_next_sync()
    for _ in range(2):
        with pytest.raises(StorageError):
            await log.sync()
    with pytest.raises(StorageError):
        await log.append([batch(2)])
    with pytest.raises(StorageError):
        await log.close(clean=True)
    disk.crash_process()
    log = await Log.open(disk, PATH, METADATA, run=SAME_BOOT)
    assert (log.log_end_offset, log.synced_end) == (2, 2)
    await log.close(clean=False)
    disk.lose_power()
    log = await Log.open(disk, PATH, METADATA)
    assert log.log_end_offset == 2, "what was acknowledged after the restart is there"
    assert [h.base_offset for h, _ in split(await log.read(0, end=2, bytes_max=999))] == [0, 1]
    await log.close(clean=False)


async def test_a_full_disk_fails_the_append_and_opens_again_while_still_full() -> None:
    disk = await new_disk()
    log = await Log.open(disk, PATH, METADATA)
    await log.append([batch(0)])
    await log.sync()
    disk.fill(30)
    with pytest.raises(StorageError, match="no space"):
        await log.append([batch(1, epoch=7)])
    assert log.log_end_offset == 1
    assert log.epochs.last == 1, "the log is as it was"
    await log.close(clean=False)
    disk.fill(None)
    log = await Log.open(disk, PATH, METADATA)
    await log.append([batch(1)])
    assert await log.sync() == 2
    await log.close(clean=True)
