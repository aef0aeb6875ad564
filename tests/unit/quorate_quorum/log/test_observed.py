"""The observer of a log, and the snapshots that keep its reload short."""

from __future__ import annotations

import random
from array import array
from itertools import pairwise

from quorate_quorum.log.log import Log, LogConfig
from quorate_quorum.log.observer import ObserverSnapshots, superfluous
from quorate_testing.simulated.disk import SimulatedDisk
from tests.unit.quorate_quorum.log.builders import (
    BATCHES,
    PATH,
    Seen,
    batch,
    filled,
    new_disk,
)


async def test_a_cut_replays_about_as_much_as_it_takes_away() -> None:
    disk = await new_disk()
    config = LogConfig(snapshot_batches=100)
    log = await filled(disk, config)
    await log.close(clean=False)
    chance = random.Random(1)
    seen = Seen()
    log = await Log.open(disk, PATH, config, observer=seen)
    assert seen.observed <= 100
    for depth in (1, 99, 100, 101, 150, 400, 1000, BATCHES - 1, *chance.sample(range(BATCHES), 9)):
        cut = BATCHES - depth
        await log.truncate(cut)
        assert seen.offsets == list(range(cut))
        assert seen.observed <= 200 + depth, depth
        for offset in range(cut, BATCHES):
            await log.append([batch(offset)])
    await log.close(clean=False)


async def test_a_snapshot_follows_so_many_bytes_too() -> None:
    disk = await new_disk()
    log = await filled(disk, LogConfig(snapshot_bytes=1000), 40)
    assert await ObserverSnapshots(disk, PATH).offsets()
    await log.close(clean=False)


async def test_snapshots_stay_few_however_long_a_segment_is() -> None:
    offsets: list[int] = []
    for end in range(1, 3000):
        offsets.append(end)
        gone = superfluous(offsets, end)
        offsets = [offset for offset in offsets if offset not in gone]
        assert len(offsets) <= 2 * end.bit_length()
        assert offsets[-1] == end
        for older, newer in pairwise(offsets):
            assert newer - older <= max(end - newer, 1), "a cut to just below one replays no more"


async def test_a_snapshot_that_can_not_be_restored_is_passed_over() -> None:
    """Another release wrote it, or it is damaged: the batches still say all that it did."""
    disk = await new_disk()
    config = LogConfig(snapshot_batches=10)
    log = await filled(disk, config, 35)
    await log.close(clean=True)
    snapshots = ObserverSnapshots(disk, PATH)
    newest = (await snapshots.offsets())[-1]
    await snapshots.write(newest, 1, b"odd")
    seen = Seen()
    log = await Log.open(disk, PATH, config, observer=seen)
    assert seen.offsets == list(range(35))
    await log.close(clean=False)


async def test_a_snapshot_of_a_history_that_was_cut_is_not_believed() -> None:
    """A power loss may bring back the file that a cut removed."""
    disk = await new_disk()
    config = LogConfig(snapshot_batches=10)
    log = await filled(disk, config, 20)
    snapshots = ObserverSnapshots(disk, PATH)
    state = await snapshots.read(20)
    assert state is not None
    await log.truncate(15)
    for offset in range(15, 24):
        await log.append([batch(offset, epoch=2)])
    await log.close(clean=False)
    await snapshots.remove_above(15)
    await snapshots.write(20, state[0], array("q", [99]).tobytes())
    seen = Seen()
    log = await Log.open(disk, PATH, config, observer=seen)
    assert seen.offsets == list(range(24))
    await log.close(clean=False)


async def test_a_full_disk_costs_the_snapshot_and_not_the_append() -> None:
    disk = await new_disk()
    config = LogConfig(snapshot_batches=10)
    log = await filled(disk, config, 5)
    pieces = [batch(offset) for offset in range(5, 25)]
    disk.fill(sum(header.size for header, _ in pieces))
    await log.append(pieces)
    assert log.log_end_offset == 25
    disk.fill(None)
    await log.close(clean=False)


async def test_snapshots_of_records_that_are_gone_do_not_come_back() -> None:
    """A power loss took the records, or even the segment, and left a snapshot.

    Later another power loss must not bring its name back: the log is as long again by then.
    """
    for seed in range(40):
        disk = SimulatedDisk(random.Random(seed))
        await disk.make_directory(PATH)
        await disk.sync_directory("/data")
        path = f"{PATH}/{4:020d}.snapshot"
        if seed % 2:
            log = await Log.open(disk, PATH, LogConfig(), observer=Seen())
            await log.append([batch(0)])
            await log.sync()
            await log.close(clean=False)
        snapshots = ObserverSnapshots(disk, PATH)
        await snapshots.write(4, 1, array("q", [7, 8, 9]).tobytes())
        await disk.sync_directory(PATH)
        assert await disk.exists(path)
        log = await Log.open(disk, PATH, LogConfig(), observer=Seen())
        assert not await disk.exists(path)
        await log.close(clean=False)
        disk.lose_power()
        assert not await disk.exists(path), seed
