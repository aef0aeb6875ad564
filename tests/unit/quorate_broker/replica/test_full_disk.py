"""A leader whose disk is full: that of an internal topic gives way while the others are enough."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from quorate.errors import QuorateError, StorageError
from tests.unit.quorate_broker.builders import Broker, World, until

OFFSETS = "__consumer_offsets"


async def full_leader(world: World) -> Broker:
    """Return the leader, whose disk has refused a record."""
    leader = world.brokers[1]
    await leader.produce(b"first")
    await world.caught_up(2, 3)
    leader.disk.fill(10)
    with pytest.raises(StorageError, match=r"nothing was written: .* the disk is full"):
        await leader.produce(b"second")
    return leader


async def test_the_leader_of_an_internal_topic_whose_disk_is_full_gives_way() -> None:
    """No group of its partition could commit, though the disks of the others have room."""
    world = World(topic=OFFSETS, lag_ms=500)
    await world.start()
    leader = await full_leader(world)
    await until(lambda: world.state.leader == 2 and world.brokers[2].partition.is_leader)
    assert world.altered[0] == (2, 3)
    await world.brokers[2].produce(b"second")  # commits when the former leader has lagged behind
    leader.disk.fill(None)
    await until(lambda: world.state.isr == (1, 2, 3))
    assert await leader.stored() == [b"first", b"second"]
    await world.stop()


async def test_the_leadership_does_not_go_round_when_all_disks_are_full() -> None:
    world = World(topic=OFFSETS, lag_ms=500)
    await world.start()
    await world.brokers[1].produce(b"first")
    await world.caught_up(2, 3)
    for broker in world.brokers.values():
        broker.disk.fill(10)
    for _ in range(8):
        leader = world.brokers[world.state.leader]
        await until(lambda leader=leader: leader.partition.is_leader)  # type: ignore[misc]
        with suppress(QuorateError, TimeoutError):
            async with asyncio.timeout(1):
                await leader.produce(b"x")
        with suppress(TimeoutError):  # it gives way, or it does not
            async with asyncio.timeout(0.2):
                await until(lambda leader=leader: not leader.partition.is_leader)  # type: ignore[misc]
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await until(lambda: len(world.state.isr) == 3)
    assert world.state.leader_epoch <= 3, "each broker gives way once a minute at most"
    await world.stop()


@pytest.mark.parametrize(("topic", "min_isr"), [("invoice", 2), (OFFSETS, 3)])
async def test_a_leader_whose_disk_is_full_stays_otherwise(topic: str, min_isr: int) -> None:
    """Without it the ISR would be below min ISR. And producers are told to make room."""
    world = World(topic=topic)
    await world.start(min_isr=min_isr)
    leader = await full_leader(world)
    await leader.isr.look()
    with pytest.raises(StorageError, match="the disk is full"):
        await leader.produce(b"third")
    await leader.isr.look()
    assert (world.altered, world.state.leader) == ([], 1)
    leader.disk.fill(None)
    await leader.produce(b"fourth")
    await world.stop()
