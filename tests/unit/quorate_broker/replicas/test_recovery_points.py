"""Recovery points are moved only in logs with new records, and of small ones in few at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from quorate_broker.replicas import recovery_points
from quorate_broker.replicas.recovery_points import FEW_BYTES
from tests.unit.quorate_broker.builders import World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    await world.start()
    yield world
    await world.stop()


async def test_a_log_with_new_records_is_synced_and_then_left_alone(world: World) -> None:
    leader = world.brokers[1]
    await leader.produce(b"v" * FEW_BYTES)
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


async def test_of_logs_with_few_new_bytes_some_are_synced_at_a_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader = world.brokers[1]
    monkeypatch.setattr(recovery_points, "FEW_MAX", 0)
    await leader.produce(b"v")
    await leader.reconciler.recovery_points.move()
    assert leader.partition.log.synced_end == 0
    assert set(leader.replicas.appended) == {leader.partition.key}
    monkeypatch.setattr(recovery_points, "FEW_MAX", 1)
    await leader.reconciler.recovery_points.move()
    assert leader.partition.log.synced_end == 1
    assert leader.replicas.appended == {}


async def test_followers_move_theirs(world: World) -> None:
    await world.brokers[1].produce(b"v" * FEW_BYTES)
    follower = world.brokers[2]
    await follower.reconciler.recovery_points.move()
    assert follower.partition.log.synced_end == 1


async def test_a_sync_that_fails_takes_the_replica_offline(world: World) -> None:
    leader = world.brokers[1]
    await leader.produce(b"v" * FEW_BYTES)
    leader.disk.fail_next_sync()
    await leader.reconciler.recovery_points.move()
    assert leader.partition.offline is not None
