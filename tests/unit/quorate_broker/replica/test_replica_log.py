"""The log of a replica: what happens around it while it is read and written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from quorate.errors import QuorateError, StorageError
from quorate_quorum.v1 import events_pb2 as ev
from tests.unit.quorate_broker.builders import TOPIC_ID, World, until, values_of


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    await world.start()
    yield world
    await world.stop()


async def test_a_read_under_way_when_a_topic_is_removed_costs_no_disk(world: World) -> None:
    leader = world.brokers[1]
    await leader.produce(b"a")
    reading = asyncio.Event()

    def hook(name: str, path: str) -> None:
        if name == "read":
            reading.set()

    leader.disk.slow = 0.05
    leader.disk.hook = hook
    fetch = asyncio.create_task(leader.partition.as_leader().fetch(0, bytes_max=1000))
    await reading.wait()
    await world.commit(ev.MetadataEvent(remove_topic=ev.RemoveTopic(topic_id=TOPIC_ID)))
    leader.disk.slow = 0.0

    with pytest.raises(QuorateError):
        await fetch
    assert leader.replicas.failed_directories == {}


async def test_a_full_disk_refuses_and_recovers(world: World) -> None:
    """No record and no directory is lost: writes are refused until there is room."""
    leader = world.brokers[1]
    await leader.produce(b"a")
    leader.disk.fill(0)

    with pytest.raises(StorageError, match="full"):
        await leader.produce(b"b")
    assert leader.partition.offline is None
    assert values_of((await leader.partition.as_leader().fetch(0, bytes_max=999)).batches) == [b"a"]
    leader.disk.fill(None)
    assert (await leader.produce(b"c")).base_offset == 1
    assert await leader.stored() == [b"a", b"c"]


async def test_a_follower_with_a_full_disk_catches_up_when_there_is_room(world: World) -> None:
    await world.brokers[1].produce(b"a")
    follower = world.brokers[3]
    follower.disk.fill(0)
    await world.change(isr=(1, 2))
    await world.brokers[1].produce(b"b")
    assert follower.partition.offline is None
    follower.disk.fill(None)

    await until(lambda: follower.partition.log_end_offset == 2)
    assert follower.replicas.failed_directories == {}
