"""The compaction of a broker: which logs, in what order, and what a failure costs."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from quorate_broker.compaction.compactor import Compactor
from quorate_broker.compaction.job import Failed, Job, Report
from quorate_broker.compaction.runner import InlineRunner
from tests.unit.quorate_broker.builders import TOPIC, TOPIC_ID, World, until
from tests.unit.quorate_broker.compaction.builders import final, read

COMPACT = {"cleanup.policy": "compact"}


async def world_with(records: int, **configs: str) -> World:
    """Return a topic on two brokers, with a closed segment for every second record."""
    world = World(brokers=2)
    await world.start(min_isr=1, configs=COMPACT | configs)
    for number in range(records):
        await world.brokers[1].produce(b"%d" % number)
        await world.caught_up(2)
        if number % 2:
            for broker in world.brokers.values():
                await broker.partition.log.roll()
    return world


def compactor_of(world: World, broker_id: int) -> Compactor:
    broker = world.brokers[broker_id]
    return Compactor(broker.replicas, broker.failures.append)


async def run_until(compactor: Compactor, condition: Any) -> None:
    compactor.start()
    try:
        await until(condition)
    finally:
        await compactor.stop()


@pytest.mark.parametrize("broker_id", [1, 2], ids=["leader", "follower"])
async def test_leader_and_follower_compact_their_own_log(broker_id: int) -> None:
    world = await world_with(12)
    partition = world.brokers[broker_id].partition
    await until(lambda: partition.high_watermark == 12)
    expected = final(await read(partition.log))
    log = partition.log
    await run_until(compactor_of(world, broker_id), lambda: log.compaction.cleaned_end == 12)
    assert final(await read(log)) == expected
    batches = [header for header, _ in await read(log)]
    assert sum(header.count for header in batches) == 1
    assert log.compaction.has_gaps
    await world.stop()


async def test_a_new_follower_copies_a_compacted_log_with_its_gaps() -> None:
    world = await world_with(12)
    leader, follower = world.brokers[1], world.brokers[2]
    await follower.stop()
    await world.change(isr=[1])
    log = leader.partition.log
    await run_until(compactor_of(world, 1), lambda: log.compaction.cleaned_end == 12)
    follower.disk.lose_directory("/data")
    await follower.start()
    await world.register(follower)
    await until(lambda: follower.partition.log_end_offset == 12)
    assert await read(follower.partition.log) == await read(log)
    assert follower.partition.log.compaction.has_gaps
    await world.stop()


async def test_nothing_above_the_high_watermark_and_no_active_segment_is_compacted() -> None:
    world = await world_with(4)
    partition = world.brokers[1].partition
    compactor = compactor_of(world, 1)
    for high_watermark, end in ((4, 4), (3, 2), (2, 2), (1, None)):
        partition.log.high_watermark = high_watermark
        plan = await compactor.plan(partition)
        assert (None if plan is None else plan.end) == end
    await world.stop()


async def test_tombstones_stay_while_a_replica_is_out_of_the_isr() -> None:
    """It may have missed the tombstone, and would bring back what that has deleted."""
    world = await world_with(4)
    partition = world.brokers[1].partition
    compactor = compactor_of(world, 1)
    plan = await compactor.plan(partition)
    assert plan is not None
    assert (await compactor.job(partition, plan)).may_drop_tombstones
    await world.change(isr=[1])
    assert not (await compactor.job(partition, plan)).may_drop_tombstones
    await world.stop()


class Failing:
    """A runner whose passes fail, and one that raises what it should not."""

    def __init__(self, *, raises: bool) -> None:
        self.jobs: list[Job] = []
        self._raises = raises

    async def run(self, job: Job) -> AsyncGenerator[Report, None]:
        self.jobs.append(job)
        if self._raises:
            raise RuntimeError("a defect")
        yield Failed("the disk is odd")


class Stopping(InlineRunner):
    """A runner that comes no further than its first new segment."""

    has_cleaned = False

    async def run(self, job: Job) -> AsyncGenerator[Report, None]:
        async with aclosing(super().run(job)) as reports:
            await anext(reports)
            self.has_cleaned = True
            await asyncio.Event().wait()
            yield Failed("it goes on for ever")


@pytest.mark.parametrize("raises", [False, True])
async def test_a_pass_that_fails_costs_its_partition_a_wait_and_nothing_else(
    *, raises: bool
) -> None:
    world = await world_with(4)
    broker = world.brokers[1]
    runner = Failing(raises=raises)
    compactor = Compactor(broker.replicas, broker.failures.append, runner)
    before = await read(broker.partition.log)
    await run_until(compactor, lambda: len(runner.jobs) >= 3)
    (reason,) = compactor.failures.values()
    assert ("a defect" if raises else "the disk is odd") in reason
    assert await read(broker.partition.log) == before
    assert broker.partition.offline is None
    assert broker.failures == []
    await world.stop()


async def test_a_leader_whose_pass_meets_a_damaged_batch_gives_way() -> None:
    """The pass failed for ever, and nothing but the log told of it."""
    world = await world_with(12)
    leader = world.brokers[1]
    leader.disk.flip_bit(f"/data/{TOPIC}-0/{0:020d}.log", 70)
    await run_until(compactor_of(world, 1), lambda: world.state.leader == 2)
    await world.stop()


async def test_a_follower_whose_pass_meets_a_damaged_batch_is_repaired() -> None:
    """Its passes failed for ever, and the others dropped their tombstones meanwhile."""
    world = await world_with(12)
    follower = world.brokers[2]
    damaged = follower.partition
    follower.disk.flip_bit(f"/data/{TOPIC}-0/{0:020d}.log", 70)
    await run_until(compactor_of(world, 2), lambda: len(follower.replicas.losses) == 1)
    await world.change(isr=[1])
    await until(lambda: follower.replicas.find(TOPIC_ID, 0) not in (None, damaged))
    await world.caught_up(2)
    assert await read(follower.partition.log) == await read(world.brokers[1].partition.log)
    await world.stop()


async def test_a_disk_that_fails_in_a_pass_is_told_as_failed() -> None:
    """The controller counted on a replica whose log had failed, and then on its lost tail."""
    world = await world_with(12)
    broker = world.brokers[1]

    def hook(name: str, path: str) -> None:
        if path.endswith("/cleaned"):  # only compaction writes this slot
            raise OSError(errno.EIO, "the disk is broken")

    broker.disk.hook = hook
    compactor = compactor_of(world, 1)
    await run_until(compactor, lambda: broker.partition.offline is not None or compactor.failures)
    assert compactor.failures == {}, "it was taken for a pass to try again"
    assert broker.partition.offline is not None
    assert broker.replicas.failed_directories
    await world.stop()


async def test_a_record_that_waits_too_long_closes_the_active_segment() -> None:
    world = World(brokers=1)
    await world.start(min_isr=1, configs=COMPACT | {"max.compaction.lag.ms": "50"})
    broker = world.brokers[1]
    await broker.produce(b"old", timestamp_ms=1)
    await broker.produce(b"new", timestamp_ms=1)
    log = broker.partition.log
    await run_until(compactor_of(world, 1), lambda: log.compaction.cleaned_end == 2)
    assert len(log.compaction.bases) == 2
    await world.stop()


async def test_a_stop_in_the_middle_of_a_pass_leaves_the_log_whole() -> None:
    world = await world_with(12)
    partition = world.brokers[1].partition
    expected = final(await read(partition.log))
    broker = world.brokers[1]
    runner = Stopping(broker.disk)
    compactor = Compactor(broker.replicas, broker.failures.append, runner)
    await run_until(compactor, lambda: runner.has_cleaned)
    assert final(await read(partition.log)) == expected
    await world.stop()


async def test_a_stop_does_not_interrupt_a_write_into_a_log() -> None:
    """An interrupted write ends the use of the log, and then its stop is not clean."""
    world = await world_with(6)
    broker = world.brokers[1]
    await until(lambda: broker.partition.high_watermark == 6)
    begun = asyncio.Event()

    def hook(name: str, path: str) -> None:
        if path.endswith("/cleaned"):
            begun.set()

    compactor = compactor_of(world, 1)
    broker.disk.latency_max = 0.001
    broker.disk.hook = hook
    compactor.start()
    await begun.wait()
    await compactor.stop()
    log = broker.partition.log
    await broker.partition.close(clean=True)
    assert broker.partition.offline is None
    assert log.synced_end == log.log_end_offset
    await world.stop()


async def test_no_room_for_a_checksum_file_leaves_the_replica_in_use() -> None:
    world = await world_with(6)
    broker = world.brokers[1]
    partition = broker.partition
    await until(lambda: partition.high_watermark == 6)

    def full(name: str, path: str) -> None:
        if name == "append" and ".checksum.swap" in path:
            raise OSError(errno.ENOSPC, "for the test", path)

    broker.disk.hook = full
    compactor = compactor_of(world, 1)
    await run_until(compactor, lambda: compactor.failures or partition.offline)
    assert partition.offline is None
    assert "the disk is full" in compactor.failures[partition.key]
    broker.disk.hook = None
    await run_until(compactor, lambda: partition.log.compaction.cleaned_end == 6)
    await world.stop()
