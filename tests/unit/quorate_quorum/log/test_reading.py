"""Reads that a cut overtakes, and reads of files that are not what they were."""

from __future__ import annotations

import asyncio
import random

import pytest

from quorate.errors import CorruptRecordError, StorageError
from quorate.record.batch import parse_header
from quorate_quorum.log.log import Log, LogConfig
from quorate_quorum.log.parts import Parts
from quorate_quorum.log.reading import Reader
from quorate_testing.simulated.disk import SimulatedDisk
from tests.unit.quorate_quorum.log.test_append_read import append, batch

PATH = "/data/t-0"


async def new_disk() -> SimulatedDisk:
    disk = SimulatedDisk(random.Random(1))
    await disk.make_directory("/data")
    return disk


async def test_a_full_disk_leaves_a_log_as_it_was() -> None:
    disk = await new_disk()
    log = await Log.open(disk, PATH, LogConfig(segment_bytes=300))
    await append(log, 4)
    disk.fill(0)
    for _ in range(3):
        with pytest.raises(StorageError, match="full"):
            await log.append([batch(4, epoch=2)])
    assert (log.log_end_offset, log.last_epoch) == (4, 1)
    disk.fill(None)
    await log.append([batch(4, epoch=3)])
    await log.close(clean=True)
    again = await Log.open(disk, PATH, LogConfig(segment_bytes=300))
    assert (again.log_end_offset, again.epochs.entries) == (5, [(1, 0), (3, 4)])
    await again.close(clean=True)


async def test_a_read_that_a_cut_overtook_leaves_no_position_behind() -> None:
    """A later reader would start in the middle of a batch, and call the log corrupt."""
    disk = await new_disk()
    log = await Log.open(disk, PATH, LogConfig())
    await append(log, 10)
    await log.roll()  # positions in the active segment are known by heart
    disk.slow = 0.01
    cut = asyncio.create_task(log.truncate(1))  # looks twice at the disk before it begins
    await asyncio.sleep(0.005)
    assert await log.read(0, end=10, bytes_max=400) == b"", "it began before the cut"
    await cut
    disk.slow = 0.0
    for offset in range(1, 10):
        await log.append([batch(offset, epoch=2, size=47)])
    await log.roll()
    for offset in reversed(range(10)):  # each read would correct where the next one begins
        assert parse_header(await log.read(offset, end=10, bytes_max=1)).base_offset == offset
    await log.close(clean=False)


async def test_a_read_never_passes_over_records_that_are_not_there() -> None:
    """A segment is shorter than when its index was made: what it lost is not skipped."""
    disk = await new_disk()
    config = LogConfig(segment_bytes=250)
    log = await Log.open(disk, PATH, config)
    await append(log, 8)
    bases = [one.base_offset for one in await log.segments()]
    await log.close(clean=True)
    parts = Parts(disk, PATH, config)
    for base in bases:
        await parts.segments.open(base)
    parts.extent.end = 8
    reader = Reader(parts.segments, parts.extent)
    whole = await reader.read(bases[1], 8, 1, at_least_one=True)
    parts.segments.all[1].size = len(whole)
    lost = parse_header(whole).end_offset
    with pytest.raises(CorruptRecordError, match=f"ends below offset {lost}"):
        await reader.read(lost, 8, 1000, at_least_one=True)
    await parts.close()
