"""High watermarks that are being written down cost nothing when their log goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from quorate_quorum.v1 import events_pb2 as ev
from tests.unit.quorate_broker.builders import TOPIC_ID, World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    await world.start()
    yield world
    await world.stop()


async def test_a_checkpoint_under_way_when_a_topic_is_removed_costs_no_disk(world: World) -> None:
    leader = world.brokers[1]
    await leader.produce(b"a")
    partition = leader.partition
    leader.disk.slow = 0.05
    checkpoint = asyncio.create_task(partition.replica_log.checkpoint())
    await asyncio.sleep(0)
    await world.commit(ev.MetadataEvent(remove_topic=ev.RemoveTopic(topic_id=TOPIC_ID)))
    leader.disk.slow = 0.0

    await checkpoint
    assert leader.replicas.failed_directories == {}


async def test_a_clean_stop_during_a_checkpoint_is_clean(world: World) -> None:
    leader = world.brokers[1]
    await leader.produce(b"a")
    replicas: Any = leader.replicas
    await leader.reconciler.checkpoints.stop()
    replicas.config = msgspec.structs.replace(
        replicas.config, replica_high_watermark_checkpoint_interval_ms=1
    )
    writing = asyncio.Event()

    def hook(name: str, path: str) -> None:
        if name == "overwrite" and "high-watermark" in path:
            writing.set()

    leader.disk.slow = 0.05
    leader.disk.hook = hook
    leader.reconciler.checkpoints.start()
    await writing.wait()
    await leader.reconciler.close(clean=True)
    leader.disk.slow = 0.0

    assert leader.replicas.failed_directories == {}


async def test_only_high_watermarks_that_moved_are_written(world: World) -> None:
    leader = world.brokers[1]
    await leader.produce(b"a")
    replicas = leader.replicas
    assert set(replicas.unsaved) == {leader.partition.key}
    await leader.reconciler.checkpoints.write()
    assert replicas.unsaved == {}
    written: list[str] = []
    leader.disk.hook = lambda name, path: written.append(path)
    await leader.reconciler.checkpoints.write()
    leader.disk.hook = None
    assert written == []
    await leader.produce(b"b")
    assert set(replicas.unsaved) == {leader.partition.key}


async def test_what_a_replica_owes_is_looked_at_until_it_owes_nothing(world: World) -> None:
    follower = world.brokers[2]
    partition = follower.partition
    partition.owed = (99, 1)
    for _ in range(2):
        await follower.reconciler.checkpoints.write()
        assert partition.key in follower.replicas.unsaved
    partition.owed = None
    await follower.reconciler.checkpoints.write()
    assert partition.key not in follower.replicas.unsaved
