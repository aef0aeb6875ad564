"""DeleteRecords over replicas that run: the leader moves first, then its live followers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from quorate.errors import (
    InvalidRequestError,
    NotLeaderError,
    OffsetNotAvailableError,
    OffsetOutOfRangeError,
    PolicyViolationError,
    QuorateError,
    RequestTimedOutError,
    TopicAuthorizationFailedError,
    UnknownTopicError,
)
from quorate_broker.operations.delete_records import DeleteRecords, DeletionAsked
from quorate_broker.operations.partitions import PARTITIONS_A_TURN
from quorate_broker.replica.partition import Partition
from quorate_quorum.node.authorizer import ALLOW_ALL
from tests.unit.quorate_broker.builders import TOPIC_ID, World, until
from tests.unit.quorate_broker.operations.builders import ANN, DenyAll


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Three replicas with five records."""
    world = World()
    await world.start()
    for _ in range(5):
        await world.brokers[1].produce(b"value")
    await world.caught_up(2, 3)
    yield world
    await world.stop()


async def delete(
    world: World,
    before: int,
    *,
    broker_id: int = 1,
    topic_id: bytes = TOPIC_ID,
    leader_epoch: int = -1,
    timeout_ms: int = 10_000,
) -> int | QuorateError:
    replicas = world.brokers[broker_id].replicas
    operation = DeleteRecords(replicas, replicas.config, ALLOW_ALL)
    asked = DeletionAsked(topic_id, 0, before, leader_epoch)
    [found] = await operation.delete(ANN, [asked], timeout_ms=timeout_ms, caller_timeout_ms=0)
    return found


def starts(world: World) -> list[int]:
    return [broker.partition.log_start_offset for broker in world.running.values()]


@pytest.mark.parametrize(("before", "start"), [(3, 3), (5, 5), (-1, 5)])
async def test_it_is_done_when_all_replicas_begin_there(
    world: World, before: int, start: int
) -> None:
    assert await delete(world, before) == start
    assert starts(world) == [start] * 3


async def test_below_the_start_it_is_done_and_nothing_moves(world: World) -> None:
    assert await delete(world, 3) == 3
    for before in (0, 2, 3):
        assert await delete(world, before) == 3
    assert starts(world) == [3, 3, 3]


async def test_above_the_high_watermark_it_is_refused_with_both_numbers(world: World) -> None:
    found = await delete(world, 6)
    assert isinstance(found, OffsetOutOfRangeError)
    assert "below offset 6" in str(found)
    assert "the high watermark is 5" in str(found)
    assert starts(world) == [0, 0, 0]


async def test_a_record_that_is_not_committed_is_not_deleted(world: World) -> None:
    await world.brokers[3].stop()
    await world.brokers[1].produce(b"value", acks=1)
    assert isinstance(await delete(world, 6), OffsetOutOfRangeError)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"before": -2}, OffsetOutOfRangeError),
        ({"before": 1, "leader_epoch": -2}, InvalidRequestError),
        ({"before": 1, "topic_id": b"x"}, InvalidRequestError),
        ({"before": 1, "topic_id": b"x" * 16}, UnknownTopicError),
        ({"before": 1, "broker_id": 2}, NotLeaderError),
    ],
)
async def test_what_can_not_be_is_refused(
    world: World, wrong: dict[str, int | bytes], error: type[QuorateError]
) -> None:
    found = await delete(world, **wrong)  # type: ignore[arg-type]
    assert isinstance(found, error)
    assert starts(world) == [0, 0, 0]


async def test_a_principal_that_may_not_delete_is_refused(world: World) -> None:
    replicas = world.brokers[1].replicas
    operation = DeleteRecords(replicas, replicas.config, DenyAll())
    asked = [DeletionAsked(TOPIC_ID, 0, 3, -1)]
    [found] = await operation.delete(ANN, asked, timeout_ms=1000, caller_timeout_ms=0)
    assert isinstance(found, TopicAuthorizationFailedError)
    assert starts(world) == [0, 0, 0]


async def test_records_of_an_internal_topic_are_not_deleted(world: World) -> None:
    world.brokers[1].replicas.get(TOPIC_ID, 0).is_internal = True
    found = await delete(world, 3)
    assert isinstance(found, PolicyViolationError)
    assert starts(world) == [0, 0, 0]


async def test_a_replica_that_is_away_is_named_at_the_timeout(world: World) -> None:
    await world.brokers[3].stop()
    found = await delete(world, 3, timeout_ms=100)
    assert isinstance(found, RequestTimedOutError)
    assert "brokers [3]" in str(found)
    assert starts(world) == [3, 3], "the others have deleted them all the same"


async def test_a_wait_that_is_over_leaves_nothing_behind(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look left a future in the bell, 1,200 a partition at the longest time-out."""
    await world.brokers[3].stop()
    moved = world.brokers[1].partition.as_leader().log_start.moved
    next_ring, rings = moved.next_ring, list[asyncio.Future[None]]()

    def noted() -> asyncio.Future[None]:
        rings.append(next_ring())
        return rings[-1]

    monkeypatch.setattr(moved, "next_ring", noted)
    await delete(world, 3, timeout_ms=600)
    assert len(rings) > 1
    assert all(ring.done() for ring in rings)


async def test_many_partitions_take_several_turns(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    replicas = world.brokers[1].replicas
    looked_up = 0
    get = replicas.get

    def counted(topic_id: bytes, partition: int) -> Partition:
        nonlocal looked_up
        looked_up += 1
        return get(topic_id, partition)

    monkeypatch.setattr(replicas, "get", counted)
    operation = DeleteRecords(replicas, replicas.config, ALLOW_ALL)
    asked = [DeletionAsked(bytes(16), number, -1, -1) for number in range(1_000)]
    deleting = asyncio.create_task(
        operation.delete(ANN, asked, timeout_ms=1_000, caller_timeout_ms=0)
    )
    while not deleting.done():
        before = looked_up
        await asyncio.sleep(0)
        assert looked_up - before <= PARTITIONS_A_TURN
    assert looked_up == 1_000


async def test_a_replica_whose_broker_is_fenced_is_not_waited_for(world: World) -> None:
    await world.brokers[3].stop()
    await world.fence(3)
    assert await delete(world, 3) == 3


async def test_a_replica_on_a_failed_directory_is_not_waited_for(world: World) -> None:
    await world.brokers[3].stop()
    waiting = asyncio.create_task(delete(world, 3))
    await until(lambda: starts(world) == [3, 3])
    assert not waiting.done()
    await world.fail_directory(3)
    assert await waiting == 3


async def test_a_leader_that_does_not_know_its_high_watermark_deletes_nothing(
    world: World,
) -> None:
    await world.brokers[3].stop()
    await world.brokers[1].produce(b"value", acks=1)
    await world.caught_up(2)
    await world.change(leader=2)
    assert isinstance(await delete(world, -1, broker_id=2), OffsetNotAvailableError)
