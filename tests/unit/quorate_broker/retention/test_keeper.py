"""Retention on three replicas: the leader decides, the followers take its start."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator

import pytest

from quorate.errors import OffsetOutOfRangeError
from quorate_broker.replica.leader_replica import LeaderReplica
from quorate_quorum.v1 import events_pb2 as ev
from tests.unit.quorate_broker.builders import (
    NOW_MS,
    TOPIC,
    TOPIC_ID,
    World,
    batch_of,
    until,
)

DAY_MS = 24 * 3600 * 1000


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    await world.start(configs={"retention.ms": str(DAY_MS)})
    yield world
    await world.stop()


async def produced(world: World, *, age_ms: int = 0) -> int:
    """Produce one record of that age; return its offset."""
    leader = world.brokers[world.state.leader].partition.as_leader()
    batch = batch_of(b"value", timestamp_ms=NOW_MS - age_ms)
    queued = leader.queue.produce(batch, acks=-1, timeout_ms=10_000, appended=lambda: None)
    return (await queued).base_offset


async def three_segments(world: World, *, age_ms: int = 2 * DAY_MS) -> None:
    """Fill three segments on each replica; all but the last are of that age."""
    for age in (age_ms, age_ms, 0):
        for broker in world.running.values():
            await broker.partition.log.roll()
        await produced(world, age_ms=age)
        await world.caught_up(*world.running)


def starts(world: World) -> list[int]:
    return [broker.partition.log_start_offset for broker in world.running.values()]


def bases(world: World) -> list[int]:
    """The first offsets of the logs that are on the disks, whatever readers see."""
    return [broker.partition.log.segment_base(0) for broker in world.running.values()]


async def altered(world: World, name: str, value: str) -> None:
    await world.commit(
        ev.MetadataEvent(config=ev.Config(topic_id=TOPIC_ID, name=name, value=value))
    )


def leader_of(world: World) -> LeaderReplica:
    return world.brokers[world.state.leader].partition.as_leader()


async def test_old_segments_go_on_the_leader_and_then_on_its_followers(world: World) -> None:
    await three_segments(world)
    await world.brokers[1].retention.look(world.brokers[1].partition)
    await until(lambda: starts(world) == [2, 2, 2], what="the followers take the start")
    await until(lambda: bases(world) == [2, 2, 2], what="their segments are removed")
    with pytest.raises(OffsetOutOfRangeError, match=r"offset 1 is not in \[2, 3\]"):
        await leader_of(world).fetch(1, bytes_max=1000)


async def test_a_roll_is_followed_by_retention_at_once(world: World) -> None:
    await produced(world, age_ms=2 * DAY_MS)
    await world.brokers[1].partition.log.roll()
    await until(lambda: world.brokers[1].partition.log_start_offset == 1)


async def test_an_alteration_is_followed_by_retention_at_once(world: World) -> None:
    await three_segments(world, age_ms=1000)
    assert starts(world) == [0, 0, 0]
    await altered(world, "retention.ms", "500")
    await until(lambda: starts(world) == [2, 2, 2])


async def test_a_follower_alone_deletes_nothing(world: World) -> None:
    await altered(world, "retention.ms", "-1")
    await three_segments(world)
    await world.commit()
    await world.brokers[2].retention.look(world.brokers[2].partition)
    assert starts(world) == [0, 0, 0]


async def test_followers_take_the_start_though_nothing_is_fetched(world: World) -> None:
    """And the leader learns that they have: a deletion of records waits for it."""
    await three_segments(world, age_ms=0)
    assert leader_of(world).log_start.behind(2) == [2, 3]
    await leader_of(world).log_start.move(2, "a test")
    await until(lambda: starts(world) == [2, 2, 2])
    await until(lambda: not leader_of(world).log_start.behind(2))


async def test_a_follower_that_was_away_jumps_to_the_start_of_the_leader(world: World) -> None:
    await produced(world)
    await world.brokers[3].stop()
    await world.fence(3)
    await world.change(isr=[1, 2])
    for _ in range(4):
        await produced(world)
    await leader_of(world).log_start.move(4, "a test")
    await world.brokers[3].start()
    await world.register(world.brokers[3])
    await world.caught_up(3)
    log = world.brokers[3].partition.log
    assert (log.log_start_offset, log.log_end_offset) == (4, 5)


async def test_a_follower_that_was_away_jumps_into_the_middle_of_a_batch(world: World) -> None:
    await world.brokers[3].stop()
    await world.fence(3)
    await world.change(isr=[1, 2])
    await world.brokers[1].produce(b"0", b"1", b"2", b"3")
    await leader_of(world).log_start.move(2, "a test")
    await world.brokers[3].start()
    await world.register(world.brokers[3])
    await world.caught_up(3)
    log = world.brokers[3].partition.log
    await until(lambda: log.log_start_offset == 2)
    assert (log.log_end_offset, log.high_watermark) == (4, 4)
    assert log.segment_base(0) == 0


async def test_a_disk_without_room_for_a_new_segment_still_gives_old_ones_back(
    world: World,
) -> None:
    await three_segments(world, age_ms=DAY_MS // 2)
    for broker in world.running.values():
        broker.disk.hook = no_new_segment
    await asyncio.sleep(0.002)  # the last record must be older than a millisecond
    await altered(world, "segment.ms", "1")
    assert starts(world) == [0, 0, 0]
    await altered(world, "retention.ms", str(DAY_MS // 4))
    await until(lambda: bases(world) == [2, 2, 2])
    assert starts(world) == [2, 2, 2]
    for broker in world.running.values():
        broker.disk.hook = None


def no_new_segment(name: str, path: str) -> None:
    if name == "create" and path.endswith(".log"):
        raise OSError(errno.ENOSPC, "for the test", path)


async def test_an_old_active_segment_is_closed_without_an_append(world: World) -> None:
    await produced(world, age_ms=2 * DAY_MS)
    await world.caught_up(2, 3)
    await asyncio.sleep(0.002)  # the record must be older than a millisecond
    await altered(world, "segment.ms", "1")
    for broker in world.brokers.values():
        log = broker.partition.log
        await until(lambda log=log: log.segment_base(0) == 1)  # type: ignore[misc]
        assert log.log_start_offset == 1


async def test_a_log_that_is_deleted_to_its_end_gives_its_bytes_back(world: World) -> None:
    for _ in range(3):
        await produced(world)
    await world.caught_up(2, 3)
    await leader_of(world).log_start.move(3, "a test")
    await until(
        lambda: all(broker.partition.log.size == 0 for broker in world.running.values()),
        what="no segment has bytes",
    )
    assert await produced(world) == 3


async def test_the_start_is_kept_by_a_restart(world: World) -> None:
    for _ in range(3):
        await produced(world)
    await leader_of(world).log_start.move(2, "a test")
    await world.caught_up(2, 3)
    await world.brokers[1].stop()
    await world.fence(1)
    await world.change(isr=[2, 3], leader=2)
    await world.brokers[1].start()
    await world.register(world.brokers[1])
    await world.caught_up(1)
    assert world.brokers[1].partition.log_start_offset == 2


async def test_a_damaged_segment_of_the_only_copy_neither_stops_it_nor_stays_for_ever() -> None:
    """Retention took the replica offline as corrupt. Its repair would have cut it at that batch."""
    world = World(brokers=1)
    await world.start(min_isr=1, configs={"retention.ms": str(DAY_MS)})
    broker = world.brokers[1]
    await three_segments(world, age_ms=0)
    await broker.stop()
    await broker.start()
    await world.register(broker)
    await world.change(leader=1)
    broker.disk.flip_bit(f"/data/{TOPIC}-0/{0:020d}.log", 9, bit=5)
    await broker.retention.look(broker.partition)
    assert broker.partition.is_leader
    assert await produced(world) == 3
    await altered(world, "retention.ms", "0")
    await until(lambda: broker.partition.log_start_offset == 1, what="it goes by its file's age")
    await world.stop()


async def test_retention_tells_of_the_damage_that_it_finds(world: World) -> None:
    await three_segments(world, age_ms=0)
    await world.brokers[1].stop()
    await world.brokers[1].start()
    await world.register(world.brokers[1])
    await world.caught_up(1)
    await world.change(leader=1)
    world.brokers[1].disk.flip_bit(f"/data/{TOPIC}-0/{0:020d}.log", 9, bit=5)
    await world.brokers[1].retention.look(world.brokers[1].partition)
    await until(lambda: world.state.leader == 2, what="another replica leads")
