"""Gaps in the offsets of a log: legal after compaction and in copies of it, and nowhere else."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from itertools import count

import pytest

from quorate.errors import StorageError
from quorate.record.batch import parse_header, split
from quorate_quorum.log.log import Log, LogConfig, LogCorruptError
from quorate_quorum.log.run_file import UNKNOWN
from quorate_quorum.log.segment import LOG, file_name
from quorate_testing.simulated.disk import SimulatedDisk
from tests.unit.quorate_quorum.log.builders import (
    FIRST,
    PATH,
    SALVAGE,
    SAME_BOOT,
    CrashAt,
    Seen,
    batch,
    new_disk,
    reopened,
)

#: Two batches of 109 bytes.
SMALL = LogConfig(segment_bytes=250)
OFFSETS = [3, 4, 10, 11, 12, 20, 29]


async def with_gaps(config: LogConfig = SMALL) -> tuple[SimulatedDisk, Log]:
    """Return a log with the records OFFSETS, as a follower copies them from a compacted log."""
    disk = await new_disk()
    log = await Log.open(disk, PATH, config, observer=Seen())
    await log.compaction.allow_gaps()
    for offset in OFFSETS:
        await log.append([batch(offset, epoch=1 + offset // 10)])
    return disk, log


async def offsets(log: Log, start: int = 0, bytes_max: int = 1) -> list[int]:
    """Return the offsets of all batches that a reader gets from `start` on."""
    found: list[int] = []
    while start < log.log_end_offset:
        data = await log.read(start, end=log.log_end_offset, bytes_max=bytes_max)
        assert data, start
        for header, _ in split(data):
            found.append(header.base_offset)
            start = header.end_offset
    return found


async def test_a_log_that_was_never_compacted_takes_no_gap() -> None:
    log = await Log.open(await new_disk(), PATH, SMALL)
    await log.append([batch(0)])
    with pytest.raises(AssertionError):
        await log.append([batch(2)])


@pytest.mark.parametrize("config", [SMALL, LogConfig()], ids=["segments", "one segment"])
@pytest.mark.parametrize("bytes_max", [1, 1000])
async def test_a_read_in_a_gap_begins_with_the_next_batch(
    config: LogConfig, bytes_max: int
) -> None:
    disk, log = await with_gaps(config)
    for reopen in (False, True):
        if reopen:
            await log.close(clean=True)
            log = await Log.open(disk, PATH, config)
        for start in reversed(range(30)):
            expected = [offset for offset in OFFSETS if offset >= start]
            assert await offsets(log, start, bytes_max) == expected
    await log.close(clean=False)


@pytest.mark.parametrize("verify_all", [False, True])
@pytest.mark.parametrize("power", [False, True])
async def test_gaps_that_were_just_copied_survive_a_kill(*, power: bool, verify_all: bool) -> None:
    disk, log = await with_gaps()
    if power:
        await log.sync()
        disk.lose_power()
    else:
        disk.crash_process()
    again = LogConfig(segment_bytes=250, verify_all=verify_all)
    log = await Log.open(disk, PATH, again, run=UNKNOWN if power else SAME_BOOT, observer=Seen())
    assert await offsets(log) == OFFSETS
    assert (log.recovered.cut_bytes, log.recovered.damaged) == (0, "")
    assert log.epochs.entries == [(1, 3), (2, 10), (3, 20)]
    await log.append([batch(40, epoch=3)])
    assert await offsets(log) == [*OFFSETS, 40]
    await log.close(clean=False)


async def test_a_torn_write_behind_a_gap_is_no_damage() -> None:
    disk, log = await with_gaps(LogConfig())
    disk.crash_process()
    whole = disk.content(FIRST)
    disk.put(FIRST, whole + batch(35, epoch=3)[1][0][:80])
    log = await Log.open(disk, PATH, LogConfig(), run=SAME_BOOT)
    assert (log.recovered.cut_bytes, log.recovered.lossy, log.recovered.damaged) == (80, False, "")
    assert await offsets(log) == OFFSETS
    await log.close(clean=False)


async def test_a_gap_in_a_log_without_the_marker_is_damage() -> None:
    disk, log = await with_gaps(LogConfig())
    await log.sync()
    await log.close(clean=True)
    await disk.remove(f"{PATH}/compacted")
    with pytest.raises(LogCorruptError, match="a batch has offset 3 where 0 should be"):
        await Log.open(disk, PATH, LogConfig(verify_all=True))


@pytest.mark.parametrize("end", range(2, 31))
async def test_a_cut_in_a_gap_keeps_every_record_below_it(end: int) -> None:
    disk, log = await with_gaps()
    await log.truncate(end)
    kept = [offset for offset in OFFSETS if offset < end]
    assert await offsets(log) == kept
    assert log.log_end_offset == (kept[-1] + 1 if kept else 0)
    disk.crash_process()
    log = await Log.open(disk, PATH, SMALL, run=SAME_BOOT)
    assert (log.recovered.damaged, await offsets(log)) == ("", kept)
    await log.append([batch(end, epoch=9)])
    assert await offsets(log) == [*kept, end]
    await log.close(clean=False)


async def test_a_search_by_time_finds_the_next_record_behind_a_gap() -> None:
    _, log = await with_gaps()
    for time in range(30):
        expected = next(offset for offset in OFFSETS if offset >= time)
        assert await log.offset_for_time(time, end=30) == (expected, expected)
    await log.close(clean=False)


@pytest.mark.parametrize(("byte", "bit"), [(7, 3), (7, 6), (5, 0)])
async def test_an_offset_that_leaves_its_segment_is_told(byte: int, bit: int) -> None:
    """Else a reader would wait for that batch for ever, or pass over it."""
    disk, log = await with_gaps()
    await log.close(clean=True)
    log = await Log.open(disk, PATH, SMALL)
    disk.flip_bit(FIRST.replace("00.log", "12.log"), byte, bit)
    with pytest.raises(LogCorruptError):
        await log.read(12, end=30, bytes_max=1)
    await log.close(clean=False)


async def test_the_first_epoch_begins_at_the_start_though_no_batch_is_left_there() -> None:
    disk, log = await with_gaps()
    await log.move_start(7)
    await log.sync()
    await log.close(clean=False)
    await disk.remove(f"{PATH}/leader-epoch-checkpoint")
    log = await Log.open(disk, PATH, SMALL, run=UNKNOWN)
    assert log.log_start_offset == 7
    assert log.epochs.entries == [(2, 7), (3, 20)]
    await log.close(clean=False)


@pytest.mark.parametrize("verify_all", [False, True])
async def test_a_log_that_was_cut_back_to_a_start_in_a_gap_opens_again(*, verify_all: bool) -> None:
    """No batch ends at its end, and none of the epochs below its start counts."""
    again = LogConfig(segment_bytes=250, verify_all=verify_all)
    disk, log = await with_gaps(LogConfig(segment_bytes=10_000))
    await log.sync()
    await log.move_start(16)
    await log.truncate(16)
    assert (log.log_start_offset, log.log_end_offset) == (16, 16)
    for records in ([], [25, 26]):
        for offset in records:
            await log.append([batch(offset, epoch=7)])
        await log.sync()
        await log.close(clean=False)
        disk.crash_process()
        for _ in range(2):  # the first open writes the epochs that the second one compares
            log = await Log.open(disk, PATH, again, run=SAME_BOOT, observer=Seen())
            assert (log.recovered.damaged, log.recovered.cut_bytes) == ("", 0)
            assert log.log_end_offset == (records[-1] + 1 if records else 16)
            assert await offsets(log, 16) == records
    await log.close(clean=False)


async def with_raised(offset: int, byte: int, bit: int) -> SimulatedDisk:
    """Return a disk with a log with gaps that was closed, in which one offset was raised then."""
    disk, log = await with_gaps()
    base = log.segment_base(offset)
    await log.close(clean=True)
    path = f"{PATH}/{file_name(base, LOG)}"
    is_second = parse_header(disk.content(path)).base_offset != offset
    disk.flip_bit(path, byte + 109 * is_second, bit)
    return disk


@pytest.mark.parametrize(("byte", "bit"), [(7, 6), (6, 0), (4, 7)])
@pytest.mark.parametrize("offset", OFFSETS)
async def test_a_salvage_keeps_no_batch_whose_offset_was_raised(
    offset: int, byte: int, bit: int
) -> None:
    """Its end would win a lossy election, and the batch would be served at another offset."""
    disk = await with_raised(offset, byte, bit)
    salvaged = await Log.open(disk, PATH, dataclasses.replace(SALVAGE, segment_bytes=250))
    assert salvaged.log_end_offset <= offset + 1
    assert await offsets(salvaged) == OFFSETS[: len(await offsets(salvaged))]
    await salvaged.close(clean=False)


@pytest.mark.parametrize("power", [False, True])
@pytest.mark.parametrize("offset", [4, 29])
async def test_a_salvage_that_a_crash_interrupts_is_done_again(offset: int, *, power: bool) -> None:
    """The synced end is the witness of the last offset: a start must not find it gone."""
    config = dataclasses.replace(SALVAGE, segment_bytes=250)
    run = UNKNOWN if power else SAME_BOOT
    expected = (await reopened(await with_raised(offset, 7, 6), run, config)).log_end_offset
    for number in count(1):
        disk = await with_raised(offset, 7, 6)
        crash = CrashAt(disk, number, power=power, quiet=("read", "open"))
        with suppress(StorageError):
            await reopened(disk, run, config)
        if not crash.end():
            break
        try:
            log = await reopened(disk, run)
        except LogCorruptError:
            log = await reopened(disk, run, config)
        assert (log.log_end_offset, log.recovered.damaged != "") == (expected, True), number
    assert number > 15
