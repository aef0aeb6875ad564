"""The segments of a log follow one another without a gap, from where the log began."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from quorate.errors import StorageError
from quorate_quorum.log.directory import LOG_START_FILE
from quorate_quorum.log.log import Log, LogConfig, LogCorruptError
from quorate_testing.simulated.disk import SimulatedDisk
from tests.unit.quorate_quorum.log.builders import (
    PATH,
    SALVAGE,
    SAME_BOOT,
    append,
    reopened,
)

#: Two batches of 109 bytes.
SMALL = LogConfig(segment_bytes=250)


def segment(base: int) -> str:
    return f"{PATH}/{base:020d}.log"


async def eight_records(*, clean: bool) -> SimulatedDisk:
    """Return a disk with segments at 0, 2, 4 and 6."""
    disk = SimulatedDisk(random.Random(1))
    await disk.make_directory("/data")
    log = await Log.open(disk, PATH, SMALL)
    await append(log, 8)
    await log.sync()
    await log.close(clean=clean)
    return disk


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("base", [2, 4])
async def test_a_segment_that_is_gone_from_the_middle_is_corruption(
    base: int, *, clean: bool
) -> None:
    disk = await eight_records(clean=clean)
    await disk.remove(segment(base))
    with pytest.raises(LogCorruptError, match=f"ends at {base}, and the next segment begins"):
        await reopened(disk, SAME_BOOT, SMALL)
    log = await reopened(disk, SAME_BOOT, SALVAGE)
    assert (log.log_start_offset, log.log_end_offset) == (0, base)


@pytest.mark.parametrize("has_index", [True, False])
@pytest.mark.parametrize("size", [0, 50, 109, 150])
async def test_a_closed_segment_that_was_cut_short_is_corruption(
    size: int, *, has_index: bool
) -> None:
    disk = await eight_records(clean=True)
    disk.put(segment(2), disk.content(segment(2))[:size])
    if not has_index:
        await disk.remove(segment(2).replace(".log", ".index"))
    with pytest.raises(LogCorruptError):
        await reopened(disk, SAME_BOOT, SMALL)


async def test_a_log_without_its_first_segments_tells_where_it_had_begun() -> None:
    disk = await eight_records(clean=True)
    await disk.remove(segment(0))
    for _ in range(2):
        log = await reopened(disk, SAME_BOOT, SMALL)
        assert (log.log_start_offset, log.lost_start) == (2, 0)
        assert log.recovered.damaged
    with pytest.raises(LogCorruptError):  # a voter does not start
        await reopened(disk, SAME_BOOT, LogConfig(segment_bytes=250, verify_all=True))


async def test_a_start_that_is_accepted_is_told_no_more() -> None:
    disk = await eight_records(clean=True)
    await disk.remove(segment(0))
    log = await Log.open(disk, PATH, SMALL, run=SAME_BOOT)
    await log.damage.forget_damage()
    await log.damage.accept_start()
    await log.close(clean=False)
    log = await reopened(disk, SAME_BOOT, SMALL)
    assert (log.lost_start, log.recovered.damaged) == (None, "")


async def move_start(log: Log) -> None:
    """Move the start of a log in each way that there is."""
    await append(log, 8)
    await log.move_start(5)
    await log.remove_below_start()
    await log.truncate_fully_and_start_at(20)
    await append(log, 4)
    await log.truncate_fully_and_start_at(3)
    await append(log, 6)
    await log.move_start(6)
    await log.remove_below_start()
    await append(log, 3)
    await log.truncate_fully_and_start_at(5)  # below a start that lies inside a segment
    await append(log, 3)
    await log.move_start(6)
    await log.remove_below_start()
    await log.truncate_fully_and_start_at(30)
    await append(log, 3)


@pytest.mark.parametrize("power", [True, False])
async def test_a_start_that_moved_is_no_loss_wherever_a_crash_interrupts_it(*, power: bool) -> None:
    count = 0
    while True:
        disk = SimulatedDisk(random.Random(count))
        await disk.make_directory("/data")
        left = count

        def crash(name: str, path: str) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise OSError(5, "the end")

        disk.hook = crash
        try:
            log = await Log.open(disk, PATH, SMALL)
            await move_start(log)
        except StorageError:
            pass
        disk.hook = None
        if power:
            disk.lose_power()
        else:
            disk.crash_process()
        found = await reopened(disk, SAME_BOOT, SMALL)
        assert found.lost_start is None, count
        assert power or not found.recovered.damaged, count
        if left > 0:
            break
        count += 1
    assert count > 100
    assert await disk.exists(f"{PATH}/{LOG_START_FILE}")


async def test_a_sync_beside_a_move_to_a_lower_start_notes_nothing_above_it() -> None:
    """Such a note outlasts a crash amid the move, and the log would count as corrupt."""
    count, is_over = 0, False
    while not is_over:
        count += 1
        disk = SimulatedDisk(random.Random(count), latency_max=0.0005)
        await disk.make_directory("/data")
        log = await Log.open(disk, PATH, SMALL)
        await log.truncate_fully_and_start_at(20)
        await append(log, 2)
        left = count
        syncs: list[asyncio.Future[int]] = []

        def crash(name: str, path: str, *, log: Log = log, syncs: list[Any] = syncs) -> None:
            nonlocal left
            left -= 1
            if not syncs and path.endswith("log-start"):
                syncs.append(asyncio.ensure_future(log.sync()))
            if left == 0:
                raise OSError(5, "the end")

        disk.hook = crash
        try:
            await log.truncate_fully_and_start_at(3)
            is_over = left > 0
        except StorageError:
            pass
        await asyncio.gather(*syncs, return_exceptions=True)
        disk.hook = None
        disk.lose_power()
        found = await reopened(disk, SAME_BOOT, SMALL)
        assert found.log_end_offset in (3, 20, 21, 22), f"crash {count}"
