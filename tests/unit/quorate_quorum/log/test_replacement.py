"""Compacted segments take the place of others: a crash leaves the old ones or the new one."""

from __future__ import annotations

import asyncio
import random

import pytest

from quorate.errors import StorageError
from quorate.record.batch import split
from quorate_quorum.disk import replace_whole
from quorate_quorum.log.checksum import Checksummer, SegmentChecksum
from quorate_quorum.log.disk_errors import TryAgainError
from quorate_quorum.log.log import Log, LogConfig, LogCorruptError
from quorate_quorum.log.run_file import UNKNOWN
from quorate_testing.simulated.disk import SimulatedDisk
from tests.unit.quorate_quorum.log.builders import (
    PATH,
    SALVAGE,
    SAME_BOOT,
    CrashAt,
    Seen,
    append,
    batch,
)

#: Two batches of 109 bytes: segments begin at 0, 2, 4, 6, 8 and 10.
SMALL = LogConfig(segment_bytes=250)
ALL = list(range(12))
#: What compaction leaves of the segments 0, 2 and 4: the last batch stays.
KEPT = [1, 5]
NEW = [*KEPT, *range(6, 12)]


async def twelve_records(disk: SimulatedDisk) -> Log:
    log = await Log.open(disk, PATH, SMALL, observer=Seen())
    await append(log, 12)
    await log.sync()
    return log


async def clean(
    disk: SimulatedDisk, kept: list[int] = KEPT, base: int = 0, end: int = 6
) -> SegmentChecksum:
    """Write what compaction leaves of [base, end), as the compactor does."""
    made = Checksummer(base)
    path = f"{PATH}/{base:020d}.log.cleaned"
    if await disk.exists(path):
        await disk.remove(path)
    file = await disk.open(path, create=True)
    for offset in kept:
        header, pieces = batch(offset)
        made.add(header)
        await file.append(pieces)
    await file.sync()
    await file.close()
    assert made.result().end_offset == end
    return made.result()


async def replaced(disk: SimulatedDisk) -> Log:
    log = await twelve_records(disk)
    assert await log.compaction.replace_segments(await clean(disk), log.truncations)
    return log


async def offsets(log: Log, start: int = 0) -> list[int]:
    found: list[int] = []
    while start < log.log_end_offset:
        data = await log.read(start, end=log.log_end_offset, bytes_max=150)
        assert data, start
        for header, _ in split(data):
            found.append(header.base_offset)
            start = header.end_offset
    return found


async def disk_of(seed: int = 1) -> SimulatedDisk:
    disk = SimulatedDisk(random.Random(seed))
    await disk.make_directory("/data")
    return disk


async def test_readers_see_the_new_segment_at_once_and_after_a_restart() -> None:
    disk = await disk_of()
    log = await replaced(disk)
    for reopen in (False, True):
        if reopen:
            await log.close(clean=True)
            log = await Log.open(disk, PATH, SMALL, observer=Seen())
        assert [one.base_offset for one in await log.segments()] == [0, 6, 8, 10]
        for start in range(12):
            assert await offsets(log, start) == [one for one in NEW if one >= start]
        assert await log.offset_for_time(2, end=12) == (5, 5)
    await append(log, 1)
    assert await offsets(log) == [*NEW, 12]
    await log.close(clean=False)


@pytest.mark.parametrize("power", [False, True])
async def test_a_crash_at_every_step_leaves_the_old_or_the_new(*, power: bool) -> None:
    found = []
    for count in range(1, 1000):
        disk = await disk_of(count)
        log = await twelve_records(disk)
        new = await clean(disk)
        crash = CrashAt(disk, count, power=power)
        try:
            await log.compaction.replace_segments(new, log.truncations)
        except StorageError:
            assert crash.end()
        if not crash.end():
            break
        await log.close(clean=False)
        for _ in range(2):
            run = UNKNOWN if power else SAME_BOOT
            seen = Seen()
            log = await Log.open(disk, PATH, SMALL, run=run, observer=seen)
            assert (log.recovered.cut_bytes, log.recovered.damaged) == (0, ""), count
            found.append(await offsets(log))
            assert found[-1] in (ALL, NEW), count
            assert not [one for one in disk.names(PATH) if one.endswith((".cleaned", ".swap"))]
            await log.close(clean=False)
            disk.lose_power()
        assert found[-1] == found[-2], count
    assert count > 20
    assert ALL in found
    assert NEW in found


async def test_a_crash_while_an_open_finishes_the_replacement_is_finished_by_the_next() -> None:
    for count in range(1, 1000):
        disk = await disk_of(count)
        log = await replaced(disk)
        await log.close(clean=False)
        content = disk.content(f"{PATH}/{0:020d}.log")
        checksum = disk.content(f"{PATH}/{0:020d}.checksum")
        disk = await disk_of(count)
        log = await twelve_records(disk)
        await log.compaction.allow_gaps()
        await log.close(clean=True)
        for ending, data in ((".checksum.swap", checksum), (".log.swap", content)):
            await replace_whole(disk, f"{PATH}/{0:020d}{ending}", data)
        crash = CrashAt(disk, count, power=True)
        try:
            await Log.open(disk, PATH, SMALL)
        except StorageError:
            assert crash.end()
        if not crash.end():
            break
        log = await Log.open(disk, PATH, SMALL)
        assert await offsets(log) == NEW, count
        await log.close(clean=False)
    assert count > 10


async def test_what_a_pass_was_made_of_must_still_be_there() -> None:
    disk = await disk_of()
    log = await twelve_records(disk)
    new = await clean(disk)
    before = log.truncations
    await log.truncate(11)
    assert not await log.compaction.replace_segments(new, before)
    assert not await log.compaction.replace_segments(await clean(disk, [5, 11], 0, 12), 0)
    new = await clean(disk)
    disk.put(f"{PATH}/{0:020d}.log.cleaned", b"half of it")
    assert not await log.compaction.replace_segments(new, log.truncations)
    assert await offsets(log) == ALL[:11]
    assert not [one for one in disk.names(PATH) if one.endswith((".cleaned", ".swap"))]
    await log.close(clean=False)


@pytest.mark.parametrize("end", range(1, 7))
async def test_a_cut_through_a_compacted_segment_leaves_no_checksum(end: int) -> None:
    disk = await disk_of()
    log = await replaced(disk)
    await log.truncate(end)
    assert await offsets(log) == [one for one in KEPT if one < end]
    await log.append([batch(end, epoch=2)])
    disk.crash_process()
    log = await Log.open(disk, PATH, LogConfig(segment_bytes=250, verify_all=True), run=SAME_BOOT)
    assert await offsets(log) == [one for one in KEPT if one < end] + [end]
    await log.close(clean=False)


@pytest.mark.parametrize(("byte", "bit"), [(7, 1), (7, 2), (15, 1)])
async def test_a_changed_offset_or_epoch_in_a_compacted_segment_is_found(
    byte: int, bit: int
) -> None:
    """The CRC of a batch covers neither, and the offset looks like a gap."""
    disk = await disk_of()
    log = await replaced(disk)
    await log.close(clean=True)
    disk.flip_bit(f"{PATH}/{0:020d}.log", byte, bit)
    with pytest.raises(LogCorruptError, match="and had"):
        await Log.open(disk, PATH, LogConfig(verify_all=True))
    log = await Log.open(disk, PATH, SALVAGE, run=SAME_BOOT)
    assert log.recovered.damaged
    await log.close(clean=False)


async def test_a_compacted_segment_of_another_size_is_corruption() -> None:
    disk = await disk_of()
    log = await replaced(disk)
    await log.close(clean=True)
    path = f"{PATH}/{0:020d}.log"
    whole = disk.content(path)
    disk.put(path, whole[len(whole) // 2 :])
    with pytest.raises(LogCorruptError):
        await Log.open(disk, PATH, SMALL, run=SAME_BOOT)


async def test_a_read_under_way_sees_no_mixture() -> None:
    disk = await disk_of()
    log = await twelve_records(disk)
    new = await clean(disk)
    disk.slow = 0.001
    replacing = asyncio.create_task(log.compaction.replace_segments(new, log.truncations))
    reads = [asyncio.create_task(offsets(log)) for _ in range(3)]
    times = [asyncio.create_task(log.offset_for_time(one, end=12)) for one in range(6)]
    for number in range(60):
        await asyncio.sleep(0.0003)
        if number % 3 == 0:
            reads.append(asyncio.create_task(offsets(log)))
            times.append(asyncio.create_task(log.offset_for_time(number % 6, end=12)))
    assert await replacing
    for read in reads:
        found = await read
        assert set(NEW) <= set(found)
        assert found == sorted(set(found))
    for time in times:
        assert await time is not None
    await log.close(clean=False)


async def test_what_was_compacted_is_remembered_until_a_cut() -> None:
    disk = await disk_of()
    log = await replaced(disk)
    await log.compaction.note_cleaned(6)
    await log.close(clean=True)
    log = await Log.open(disk, PATH, SMALL)
    assert log.compaction.cleaned_end == 6
    await log.truncate(8)
    assert log.compaction.cleaned_end == 6
    await log.truncate(3)
    assert log.compaction.cleaned_end == 2
    await log.truncate_fully_and_start_at(1)
    for offset in range(1, 12):
        await log.append([batch(offset)])
    assert log.compaction.cleaned_end <= 1
    await log.close(clean=False)


async def test_a_full_disk_leaves_the_log_in_use_and_as_it_was() -> None:
    disk = await disk_of()
    log = await twelve_records(disk)
    new = await clean(disk)
    disk.fill()
    with pytest.raises(TryAgainError):
        await log.compaction.replace_segments(new, log.truncations)
    assert await offsets(log) == ALL
    disk.fill(None)
    assert await log.compaction.replace_segments(new, log.truncations)
    assert await offsets(log) == NEW
    await log.close(clean=False)
