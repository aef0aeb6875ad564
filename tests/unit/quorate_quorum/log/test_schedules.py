"""Two things at once, and a crash or a full disk at every operation of the disk amid them.

Compaction beside retention of the same segments; a copy of a compacted log that begins inside a
batch and is cut in a gap; a disk that is full for a moment while a roll writes the indexes.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Sequence
from contextlib import suppress
from itertools import count

import pytest

from quorate.errors import StorageError
from quorate.record.batch import BatchBuilder, BatchHeader, parse_header, split
from quorate_quorum.log.checksum import Checksummer, SegmentChecksum
from quorate_quorum.log.disk_errors import TryAgainError
from quorate_quorum.log.log import Log, LogConfig
from quorate_quorum.log.run_file import UNKNOWN
from quorate_testing.simulated.disk import SimulatedDisk
from tests.harness.amounts import few_or_many
from tests.unit.quorate_quorum.log.builders import (
    PATH,
    SAME_BOOT,
    CrashAt,
    Seen,
    append,
    batch,
    new_disk,
)

#: Two batches of 109 bytes: segments begin at 0, 2, 4, 6, 8 and 10.
SMALL = LogConfig(segment_bytes=250, index_interval_bytes=100)
QUIET = ("read", "open")
#: Every third operation is tried, and each one by some case of a test. Writes and syncs alternate,
#: so every second one would always be of the same kind.
STEP = few_or_many(3, 1)


async def offsets(log: Log) -> list[int]:
    """Return the base offsets of all batches that a reader gets from the start on."""
    found: list[int] = []
    start = log.log_start_offset
    while start < log.log_end_offset:
        data = await log.read(start, end=log.log_end_offset, bytes_max=150)
        assert data, start
        for header, _ in split(data):
            found.append(header.base_offset)
            start = header.end_offset
    return found


async def compacted(disk: SimulatedDisk, kept: Sequence[int]) -> SegmentChecksum:
    """Write the cleaned file of segments 0 to 6, as the compactor does."""
    made = Checksummer(0)
    file = await disk.open(f"{PATH}/{0:020d}.log.cleaned", create=True)
    for offset in kept:
        header, pieces = batch(offset)
        made.add(header)
        await file.append(pieces)
    await file.sync()
    await file.close()
    return made.result()


@pytest.mark.parametrize("power", [False, True])
@pytest.mark.parametrize("start", [1, 3, 5, 7])
@pytest.mark.parametrize("is_retention_first", [False, True])
async def test_compaction_beside_retention_of_the_same_segments(
    start: int, *, is_retention_first: bool, power: bool
) -> None:
    """Whichever comes first and wherever a crash is: each record above the start is there, or
    another one of its key; no deleted record comes back once the start has moved.
    """
    run = UNKNOWN if power else SAME_BOOT
    new = [1, 5, *range(6, 12)]
    for number in count(1 + (start // 2 + is_retention_first) % STEP, STEP):
        disk = await new_disk()
        log = await Log.open(disk, PATH, SMALL, observer=Seen())
        await append(log, 12)
        await log.sync()
        cleaned = await compacted(disk, [1, 5])
        crash = CrashAt(disk, number, power=power, quiet=QUIET)
        moved: list[bool] = []

        async def retain(log: Log = log, moved: list[bool] = moved) -> None:
            await log.move_start(start)
            moved.append(True)
            await log.remove_below_start()

        works = [log.compaction.replace_segments(cleaned, log.truncations), retain()]
        if is_retention_first:
            works.reverse()
        await asyncio.gather(*works, return_exceptions=True)
        is_over = not crash.end()
        if not is_over:
            await log.close(clean=False)
            disk.lose_power() if power else disk.crash_process()
            log = await Log.open(disk, PATH, SMALL, run=run, observer=Seen())
        for _ in range(2):
            assert (log.recovered.damaged, log.log_end_offset) == ("", 12), number
            assert log.log_start_offset in ({start} if moved else {0, start}), number
            found = await offsets(log)
            first = log.log_start_offset
            allowed = [[one for one in kind if one >= first] for kind in (list(range(12)), new)]
            assert found in allowed, (number, first)
            assert await log.offset_for_time(6, end=12) == (max(6, first), max(6, first))
            await append(log, 1)
            await log.truncate(12)
            await log.close(clean=False)
            disk.crash_process()
            log = await Log.open(disk, PATH, SMALL, run=run, observer=Seen())
        await log.close(clean=False)
        if is_over:
            break
    assert number > 10


def wide(base: int, records: int, epoch: int = 1) -> tuple[BatchHeader, list[bytes]]:
    builder = BatchBuilder()
    for one in range(records):
        builder.append(base + one, b"key", b"v" * 40)
    data = builder.build(base_offset=base, leader_epoch=epoch)
    return parse_header(data), [data]


@pytest.mark.parametrize("power", [False, True])
@pytest.mark.parametrize("cut", [9, 15, 22, 31])
async def test_a_copy_that_begins_inside_a_batch_and_is_cut_in_a_gap(
    cut: int, *, power: bool
) -> None:
    """A follower begins again below its leader's start, in a log with gaps, and dies."""
    run = UNKNOWN if power else SAME_BOOT
    copied = [wide(4, 5), wide(12, 2), wide(20, 1), wide(30, 3, epoch=2), wide(40, 1, epoch=2)]
    for number in count(1 + (cut // 7) % STEP, STEP):
        disk = await new_disk()
        log = await Log.open(disk, PATH, SMALL, observer=Seen())
        await append(log, 3)
        await log.sync()
        #: Base offsets that a sync has covered and no cut removes.
        durable: list[int] = []
        crash = CrashAt(disk, number, power=power, quiet=QUIET)
        with suppress(StorageError):
            await log.truncate_fully_and_start_at(6)
            await log.compaction.allow_gaps()
            await log.begin_below(4)
            for one in copied[:4]:
                await log.append([one])
            await log.move_start(6)
            await log.sync()
            durable = [one.base_offset for one, _ in copied if one.end_offset <= cut]
            await log.truncate(cut)
            await log.append([copied[4]])
        is_over = not crash.end()
        await log.close(clean=False)
        disk.lose_power() if power else disk.crash_process()
        log = await Log.open(disk, PATH, SMALL, run=run, observer=Seen())
        for _ in range(2):
            assert log.recovered.damaged == "", number
            found = await offsets(log)
            whole = [one.base_offset for one, _ in copied]
            if log.log_start_offset == 0:
                assert found == [0, 1, 2][: len(found)], number
            else:
                assert log.log_start_offset in (4, 6), number
                assert found == [one for one in whole if one in found], number
                assert set(durable) <= set(found), number
            next_base = max(log.log_end_offset, 50)
            if log.compaction.has_gaps and log.log_start_offset:
                await log.append([wide(next_base, 1, epoch=3)])
                await log.truncate(next_base)
            await log.close(clean=False)
            disk.crash_process()
            log = await Log.open(disk, PATH, SMALL, run=run, observer=Seen())
            assert await offsets(log) == found, number
        await log.close(clean=False)
        if is_over:
            break
    assert number > 20


@pytest.mark.parametrize("lasts", [1, 2, 5, 1000])
async def test_a_disk_that_is_full_for_a_moment_while_a_roll_writes_indexes(lasts: int) -> None:
    """The log is as it was, or has rolled; the append is tried again; a crash loses nothing."""
    for number in count(1):
        disk = await new_disk()
        log = await Log.open(disk, PATH, SMALL, observer=Seen())
        await append(log, 2)
        left = [number, lasts]

        def full(name: str, path: str, left: list[int] = left) -> None:
            if name in QUIET or "sync" in name or name in ("remove", "rename", "truncate"):
                return
            left[0] -= 1
            if left[0] < 0 and left[1] > 0:
                left[1] -= 1
                raise OSError(errno.ENOSPC, "no room", path)

        disk.hook = full
        with suppress(TryAgainError):
            await append(log, 3)
        disk.hook = None
        is_over = left[0] >= 0
        found = await offsets(log)
        assert found == list(range(log.log_end_offset)), number
        await append(log, 6 - log.log_end_offset)
        for again in range(6):
            assert await log.offset_for_time(again, end=6) == (again, again), number
        await log.sync()
        await log.close(clean=False)
        disk.lose_power()
        log = await Log.open(disk, PATH, SMALL, run=UNKNOWN, observer=Seen())
        assert (await offsets(log), log.recovered.damaged) == (list(range(6)), ""), number
        await log.close(clean=False)
        if is_over:
            break
    assert number > 3
