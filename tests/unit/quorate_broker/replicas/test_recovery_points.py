"""Recovery points are moved only in logs with enough new records."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from quorate_broker.replicas.recovery_points import BYTES_MIN
from tests.unit.quorate_broker.builders import World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    await world.start()
    yield world
    await world.stop()


async def test_a_log_with_new_records_is_synced_and_then_left_alone(world: World) -> None:
    leader = world.brokers[1]
    await leader.produce(b"v" * BYTES_MIN)
    log = leader.partition.log
    assert log.synced_end == 0
    await leader.reconciler.recovery_points.move()
    assert log.synced_end == 1
    assert leader.replicas.appended == {}
    operations: list[str] = []
    leader.disk.hook = lambda name, path: operations.append(name)
    await leader.reconciler.recovery_points.move()
    leader.disk.hook = None
    assert operations == []


async def test_a_log_with_few_new_bytes_waits_for_more(world: World) -> None:
    leader = world.brokers[1]
    await leader.produce(b"v")
    await leader.reconciler.recovery_points.move()
    assert leader.partition.log.synced_end == 0
    await leader.produce(b"v" * BYTES_MIN)
    await leader.reconciler.recovery_points.move()
    assert leader.partition.log.synced_end == 2


async def test_followers_move_theirs(world: World) -> None:
    await world.brokers[1].produce(b"v" * BYTES_MIN)
    follower = world.brokers[2]
    await follower.reconciler.recovery_points.move()
    assert follower.partition.log.synced_end == 1


async def test_a_sync_that_fails_takes_the_replica_offline(world: World) -> None:
    leader = world.brokers[1]
    await leader.produce(b"v" * BYTES_MIN)
    leader.disk.fail_next_sync()
    await leader.reconciler.recovery_points.move()
    assert leader.partition.offline is not None
