"""The end of a log's use: what is under way ends first, and a clean stop syncs each log once."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from quorate_quorum.log.log import Log, LogConfig
from quorate_testing.simulated.disk import SimulatedDisk
from tests.unit.quorate_quorum.log.builders import PATH, Seen, append, filled, new_disk

SYNCS = ("sync", "sync_directory")
#: Operations that change the names in a directory.
NAMES = ("create", "rename", "remove")


@pytest.fixture
async def disk() -> SimulatedDisk:
    return await new_disk()


def operations(disk: SimulatedDisk) -> list[str]:
    """Return the list in which the disk notes its operations from now on."""
    found: list[str] = []
    disk.hook = lambda name, path: found.append(name)
    return found


async def test_a_prepared_log_makes_no_file_when_it_is_closed(disk: SimulatedDisk) -> None:
    """A file that was made while other logs were synced waited for their syncs."""
    log = await filled(disk, LogConfig(), 300)
    log.high_watermark, log.hw_epoch = 300, 1
    prepared = operations(disk)
    await log.recovery_point.save()
    assert not {*SYNCS} & {*prepared}
    closed = operations(disk)
    await log.close(clean=True)
    assert not {*NAMES} & {*closed}
    # its records; its names, and its own name in the parent
    assert Counter(name for name in closed if name in SYNCS) == {"sync": 1, "sync_directory": 2}


async def test_a_log_that_was_appended_to_after_it_was_prepared_is_closed_durably(
    disk: SimulatedDisk,
) -> None:
    log = await Log.open(disk, PATH, LogConfig())
    await append(log, 3)
    await log.recovery_point.save()
    await append(log, 4)
    await log.close(clean=True)
    disk.lose_power()
    assert (await Log.open(disk, PATH, LogConfig())).log_end_offset == 7


async def test_a_small_log_gets_no_index_and_no_snapshot_at_a_stop(disk: SimulatedDisk) -> None:
    """One read of the next open finds its batches."""
    log = await Log.open(disk, PATH, LogConfig(), observer=Seen())
    await append(log, 3)
    await log.close(clean=True)
    endings = {name.rpartition(".")[2] for name in await disk.list(PATH)}
    assert not endings & {"index", "timeindex", "snapshot"}


async def test_a_log_whose_recovery_point_is_at_its_end_is_closed_without_a_sync(
    disk: SimulatedDisk,
) -> None:
    log = await filled(disk, LogConfig(), 300)
    await log.recovery_point.move()
    done = operations(disk)
    await log.recovery_point.save()
    await log.close(clean=True)
    assert not {*SYNCS} & {*done}


async def test_a_close_waits_for_the_roll_under_way() -> None:
    """The roll went on, and made the directory again that a deleted topic had left."""
    disk = await new_disk()
    log = await Log.open(disk, PATH, LogConfig())
    await append(log, 3)
    disk.slow = 0.001
    rolling = asyncio.create_task(log.roll())
    await asyncio.sleep(0)
    await log.close(clean=False)
    assert rolling.done()
    disk.slow = 0.0
    await disk.remove_directory(PATH)
    await asyncio.gather(rolling, return_exceptions=True)
    assert not await disk.exists(PATH)
