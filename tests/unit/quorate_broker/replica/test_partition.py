"""A replica's role, and what a failure takes offline: the replica, or its directory."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator

import pytest

from quorate.errors import (
    NotLeaderError,
    QuorateError,
    StorageError,
    UnknownTopicError,
)
from quorate_broker.replica.hints import hint_of
from quorate_broker.replica.in_sync_replicas import InSyncReplicas
from quorate_broker.replica.leader import Leader
from quorate_quorum.v1 import controller_pb2 as wire
from tests.unit.quorate_broker.builders import (
    World,
    until,
)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    await world.start()
    yield world
    await world.stop()


@pytest.fixture
async def alone() -> AsyncIterator[World]:
    """One broker, whose replica is the only one."""
    world = World(brokers=1)
    await world.start(min_isr=1)
    yield world
    await world.stop()


async def test_who_does_not_lead_says_who_does() -> None:
    world = World(brokers=2)
    await world.start(min_isr=1)
    two = world.brokers[2]

    with pytest.raises(NotLeaderError) as caught:
        await two.produce(b"a")
    hint = hint_of(caught.value)
    assert hint is not None
    assert hint.leader == 1
    with pytest.raises(UnknownTopicError):
        two.replicas.get(bytes(16), 0)
    await world.stop()


async def test_a_fenced_broker_does_not_lead(alone: World) -> None:
    broker = alone.brokers[1]
    await alone.fence(1)
    assert not broker.partition.is_leader

    await alone.fence(1, fenced=False)

    assert broker.partition.is_leader


async def test_a_failed_disk_takes_its_directory_and_nothing_else(alone: World) -> None:
    broker = alone.brokers[1]
    lost: list[bytes] = []
    broker.replicas.on_directory_failed = lambda directory, reason: lost.append(directory)
    await broker.produce(b"a")

    def fails(name: str, path: str) -> None:
        if name == "append":
            raise OSError(errno.EIO, "for the test", path)

    broker.disk.hook = fails
    with pytest.raises(QuorateError):
        await broker.produce(b"b")
    with pytest.raises(StorageError):
        await broker.partition.as_leader().fetch(0, bytes_max=1)

    assert lost == [bytes([1]) * 16]
    assert broker.failures == []
    broker.disk.hook = None


async def test_a_broken_invariant_at_an_image_costs_this_replica_only(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader = world.brokers[1]

    def broken(*_: object) -> bool:
        raise AssertionError("broken for the test")

    with monkeypatch.context() as patch:
        patch.setattr(Leader, "update", broken)
        await world.change(isr=(1, 2))

    assert leader.failures == []
    await until(lambda: world.brokers[2].partition.is_leader)


async def test_a_broken_invariant_at_an_answer_costs_this_replica_only(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader = world.brokers[1]

    def broken(*_: object) -> bool:
        raise AssertionError("broken for the test")

    def refuse_once(wanted: wire.AlterPartition) -> None:
        world.on_alter = None
        wanted.isr[0].broker_epoch += 1

    with monkeypatch.context() as patch:
        patch.setattr(InSyncReplicas, "refused", broken)
        world.on_alter = refuse_once
        await world.change(isr=(1, 2))  # broker 3 is in sync: it is asked back in
        leader.replicas.isr_wanted(leader.partition)
        await until(lambda: world.brokers[2].partition.is_leader)

    assert leader.failures == []


async def test_a_leader_that_broke_asks_for_another(world: World) -> None:
    """After a broken invariant it proposes an ISR without itself; the controller elects another."""
    await world.brokers[1].produce(b"a")
    broken = world.brokers[1].partition
    broken.take_offline("broken", "for the test")

    await until(lambda: world.brokers[2].partition.is_leader)
    assert (2, 3) in world.altered
    await world.brokers[2].produce(b"b")
    await until(lambda: world.brokers[1].partition.log_end_offset == 2)
    assert world.brokers[1].partition is not broken
    assert await world.brokers[1].stored() == [b"a", b"b"]
    await until(lambda: world.state.isr == (1, 2, 3))
