"""The start of a log may lie anywhere in it: inside a segment, inside a batch, at the end."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from itertools import product

import pytest

from quorate.errors import OffsetOutOfRangeError, StorageError
from quorate.record.batch import BatchBuilder, parse_header, split
from quorate_quorum.log.log import Log, LogConfig
from quorate_testing.simulated.disk import SimulatedDisk
from tests.unit.quorate_quorum.log.builders import (
    PATH,
    SALVAGE,
    SAME_BOOT,
    CrashAt,
    Seen,
    append,
    new_disk,
)

#: Two batches of 109 bytes a segment.
SMALL = LogConfig(segment_bytes=250)


async def eight_records(disk: SimulatedDisk) -> Log:
    """Return a log with segments at 0, 2, 4 and 6."""
    log = await Log.open(disk, PATH, SMALL)
    await append(log, 8)
    return log


async def three_records(log: Log) -> None:
    """Append one batch of three records; their timestamps are their offsets."""
    builder = BatchBuilder()
    for offset in range(log.log_end_offset, log.log_end_offset + 3):
        builder.append(offset, b"k", b"v")
    data = builder.build(base_offset=log.log_end_offset, leader_epoch=1)
    await log.append([(parse_header(data), (data,))])


@pytest.mark.parametrize("start", range(1, 9))
async def test_the_start_stays_where_it_was_moved_and_whole_segments_below_it_go(
    start: int,
) -> None:
    disk = await new_disk()
    log = await eight_records(disk)
    await log.move_start(start)
    await log.remove_below_start()
    for _ in range(2):
        assert (log.log_start_offset, log.log_end_offset) == (start, 8)
        bases = [one.base_offset for one in await log.segments()]
        assert bases == [base for base in (0, 2, 4, 6) if base + 2 > start or base == 6]
        with pytest.raises(OffsetOutOfRangeError):
            await log.read(start - 1, end=8, bytes_max=1000)
        assert log.epochs.entries == [(1, start)]
        await log.close(clean=False)
        log = await Log.open(disk, PATH, SMALL, run=SAME_BOOT)
    await append(log, 1)
    assert log.log_end_offset == 9


@pytest.mark.parametrize("start", [-1, 0, 3, 9])
async def test_a_start_that_is_not_above_the_start_and_within_the_log_moves_nothing(
    start: int,
) -> None:
    disk = await new_disk()
    log = await eight_records(disk)
    await log.move_start(3)
    await log.remove_below_start()
    names = disk.names(PATH)
    await log.move_start(start)
    await log.remove_below_start()
    assert (log.log_start_offset, disk.names(PATH)) == (3, names)


async def test_the_batch_across_the_start_is_read_and_searched_from_the_start_on() -> None:
    disk = await new_disk()
    log = await Log.open(disk, PATH, SMALL)
    await three_records(log)
    await three_records(log)
    await log.move_start(1)
    await log.remove_below_start()
    batches = list(split(await log.read(1, end=6, bytes_max=1000)))
    assert [header.base_offset for header, _ in batches] == [0, 3]
    assert await log.offset_for_time(0, end=6) == (1, 1)
    assert await log.offset_for_time(4, end=6) == (4, 4)


async def test_a_cut_inside_the_batch_across_the_start_begins_the_log_where_the_batch_did() -> None:
    disk = await new_disk()
    log = await Log.open(disk, PATH, SMALL)
    await three_records(log)
    await three_records(log)
    await log.move_start(4)
    await log.remove_below_start()
    await log.truncate(5)
    for _ in range(2):
        assert (log.log_start_offset, log.log_end_offset) == (3, 3)
        await log.close(clean=False)
        log = await Log.open(disk, PATH, SMALL, run=SAME_BOOT)


async def test_a_power_loss_leaves_no_log_that_ends_below_its_start() -> None:
    """What lies below the start is synced before the start moves: rule start-durable-first."""
    for seed in range(10):  # a power loss keeps any part of what is not synced
        disk = SimulatedDisk(random.Random(seed))
        await disk.make_directory("/data")
        log = await Log.open(disk, PATH, LogConfig())
        await append(log, 8)
        await log.move_start(7)
        disk.lose_power()
        log = await Log.open(disk, PATH, LogConfig())
        assert log.log_start_offset == 7
        assert log.log_end_offset >= 7
        assert not log.recovered.damaged, seed


async def test_a_log_whose_end_is_lost_below_its_start_is_damaged_and_begins_at_its_start() -> None:
    disk = await new_disk()
    log = await eight_records(disk)
    await log.move_start(7)
    await log.remove_below_start()
    await log.close(clean=True)
    disk.put(f"{PATH}/{6:020}.log", b"")
    for _ in range(2):
        log = await Log.open(disk, PATH, SALVAGE, run=SAME_BOOT)
        assert (log.log_start_offset, log.log_end_offset) == (7, 7), "no offset is used again"
        assert log.recovered.damaged
        await log.close(clean=False)


async def test_the_observer_still_knows_the_batches_that_the_first_segment_has() -> None:
    """A producer whose last batch lies below the start must not be forgotten before its time."""
    disk = await new_disk()
    log = await eight_records(disk)
    await log.move_start(7)
    await log.remove_below_start()
    await log.close(clean=False)
    seen = Seen()
    await Log.open(disk, PATH, SMALL, observer=seen)
    assert seen.offsets == [6, 7]


async def three_records_across(log: Log, base_offset: int) -> None:
    builder = BatchBuilder()
    for offset in range(base_offset, base_offset + 3):
        builder.append(offset, b"k", b"v")
    data = builder.build(base_offset=base_offset, leader_epoch=1)
    await log.append([(parse_header(data), (data,))])


async def test_an_empty_log_may_begin_with_a_batch_that_lies_across_its_start() -> None:
    """As a follower's does whose leader begins inside a batch."""
    disk = await new_disk()
    log = await Log.open(disk, PATH, SMALL)
    await log.truncate_fully_and_start_at(5)
    await log.begin_below(4)
    await three_records_across(log, 4)
    await append(log, 1)
    for _ in range(2):
        assert (log.log_start_offset, log.log_end_offset, log.high_watermark) == (5, 8, 5)
        assert log.epochs.entries == [(1, 5)]
        batches = list(split(await log.read(5, end=8, bytes_max=1000)))
        assert [header.base_offset for header, _ in batches] == [4, 7]
        await log.close(clean=False)
        log = await Log.open(disk, PATH, SMALL, run=SAME_BOOT)


@pytest.mark.parametrize("power", [True, False])
async def test_a_crash_before_that_batch_leaves_the_log_empty_at_its_start(*, power: bool) -> None:
    count = 0
    left = -1
    while left <= 0:
        disk = await new_disk()
        log = await Log.open(disk, PATH, SMALL)
        await log.truncate_fully_and_start_at(5)
        count += 1
        left = count

        def crash(name: str, path: str) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise OSError(5, "the end")

        disk.hook = crash
        with suppress(StorageError):
            await log.begin_below(4)
            await three_records_across(log, 4)
        disk.hook = None
        if power:
            disk.lose_power()
        else:
            disk.crash_process()
        found = await Log.open(disk, PATH, SMALL, run=SAME_BOOT)
        assert (found.log_start_offset, found.log_end_offset) in ((5, 5), (5, 7)), count
        assert power or not found.recovered.damaged
        assert found.lost_start is None
    assert count > 5


async def test_the_high_watermark_does_not_go_back_while_a_log_begins_again_further_on() -> None:
    disk = await new_disk()
    log = await eight_records(disk)
    await log.checkpoint_high_watermark(8, 1)
    await log.move_start(3)
    seen: list[int] = []
    disk.hook = lambda name, path: seen.append(log.high_watermark)
    await log.truncate_fully_and_start_at(20)
    assert set(seen) <= {8, 20}
    assert log.high_watermark == 20


@pytest.mark.parametrize("turns", range(6))
async def test_a_log_that_begins_again_while_it_is_described_has_no_segments(turns: int) -> None:
    """A leader's log is described in several turns, and a later leader may have it cut meanwhile.

    It was an error of the log, and the replica went offline.
    """
    disk = await new_disk()
    await (await eight_records(disk)).close(clean=False)
    log = await Log.open(disk, PATH, SMALL)
    ask = disk.unchanged_ms

    async def slowly(path: str) -> int:
        for _ in range(turns):
            await asyncio.sleep(0)
        return await ask(path)

    disk.unchanged_ms = slowly  # type: ignore[method-assign]
    describing = asyncio.create_task(log.segments())
    await asyncio.sleep(0)
    await log.truncate_fully_and_start_at(100)
    assert await describing == []
    assert [one.base_offset for one in await log.segments()] == [100]
    await log.close(clean=False)


@pytest.mark.parametrize("is_rolled", [True, False])
async def test_a_log_without_records_still_knows_the_epoch_of_the_last_one(
    *, is_rolled: bool
) -> None:
    """A lossy election compares (last epoch, end): without the epoch an older copy would win."""
    disk = await new_disk()
    log = await eight_records(disk)
    await log.move_start(8)
    if is_rolled:
        assert await log.roll_if_due()
    await log.remove_below_start()
    for _ in range(2):
        assert (log.last_epoch, log.log_end_offset) == (1, 8)
        await log.close(clean=False)
        log = await Log.open(disk, PATH, SMALL, run=SAME_BOOT)
    await append(log, 1, epoch=3)
    assert log.epochs.entries == [(3, 8)]
    await log.truncate_fully_and_start_at(20)
    await log.close(clean=False)
    log = await Log.open(disk, PATH, SMALL, run=SAME_BOOT)
    assert log.last_epoch == -1, "its record before 20 never was here"


@pytest.mark.parametrize("config", [SMALL, LogConfig()], ids=["file is there", "no file yet"])
async def test_a_start_that_an_open_went_by_survives_a_power_loss(config: LogConfig) -> None:
    """Also if a kill had interrupted the move, and another one the open after it.

    The move leaves the value, or the name of its file, in the page cache alone.
    """
    seen = set[int]()
    for seed, first, second in product(range(8), range(1, 12), range(1, 7)):
        disk = SimulatedDisk(random.Random(seed))
        await disk.make_directory("/data")
        log = await Log.open(disk, PATH, config)
        await append(log, 8)
        await log.sync()
        if seed % 2:  # a log of an older version, whose first record did not make this file
            await log.close(clean=True)
            await disk.remove(f"{PATH}/log-start")
            await disk.sync_directory(PATH)
            log = await Log.open(disk, PATH, config)
        for step, number in enumerate((first, second)):
            crash = CrashAt(disk, number, power=False, quiet=("read", "open"))
            with suppress(StorageError):
                if step == 0:
                    await log.move_start(5)
                else:
                    log = await Log.open(disk, PATH, config, run=SAME_BOOT)
            crash.end()
            await log.close(clean=False)
            disk.crash_process()
        log = await Log.open(disk, PATH, config, run=SAME_BOOT)
        start = log.log_start_offset
        seen.add(start)
        await log.close(clean=False)
        disk.lose_power()
        log = await Log.open(disk, PATH, config)
        assert log.log_start_offset >= start, (seed, first, second)
        await log.close(clean=False)
    assert seen == {0, 5}


@pytest.mark.parametrize("seed", range(20))
async def test_a_segment_is_not_removed_before_the_next_one_has_its_name(seed: int) -> None:
    """A power loss would leave a log without a segment, which looks damaged."""
    disk = SimulatedDisk(random.Random(seed))
    await disk.make_directory(PATH)
    await disk.sync_directory("/data")
    log = await Log.open(disk, PATH, LogConfig())
    await append(log, 3)
    await log.move_start(3)
    await log.roll_if_due()

    def hook(name: str, path: str) -> None:
        if name == "sync_directory" and f"{0:020d}.log" not in disk.names(PATH):
            disk.lose_power()
            raise OSError(5, "the end")

    disk.hook = hook
    with suppress(StorageError):
        await log.remove_below_start()
    disk.hook = None
    await log.close(clean=False)
    log = await Log.open(disk, PATH, LogConfig())
    assert (log.log_start_offset, log.log_end_offset) == (3, 3)
    assert not log.recovered.damaged
    await log.close(clean=False)
