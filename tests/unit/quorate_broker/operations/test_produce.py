"""Produce as every listener uses it: order, budgets, and an outcome for each batch."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from quorate.errors import (
    InvalidRequestError,
    OutcomeUnknownError,
    OverloadedError,
    PolicyViolationError,
    StoppingError,
    TopicAuthorizationFailedError,
    UnknownTopicError,
)
from quorate_broker.operations.produce import Produce
from quorate_quorum.node.authorizer import ALLOW_ALL
from tests.unit.quorate_broker.operations.builders import (
    ANN,
    TOPIC,
    DenyAll,
    FakePartition,
    FakeReplicas,
    Produced,
    config,
    settle,
)

Outcome = Any


class Producer:
    """A session, and the outcomes of its batches by their tags."""

    def __init__(self, replicas: FakeReplicas, authorizer: Any = ALLOW_ALL, **bounds: int) -> None:
        produce = Produce(cast(Any, replicas), config(**bounds), authorizer)
        self.outcomes: dict[str, Outcome] = {}
        self.session = produce.session(ANN, self.outcomes.__setitem__)

    def start(self, tag: str, batch: bytes, partition: int = 0, acks: int = -1) -> None:
        view = memoryview(batch)
        self.session.start(tag, TOPIC, partition, view, leader_epoch=-1, acks=acks, timeout_ms=1000)


async def test_batches_enter_their_partition_in_the_order_of_the_calls() -> None:
    replicas = FakeReplicas(p0=FakePartition())
    producer = Producer(replicas)
    producer.start("a", b"1")
    producer.start("b", b"2")
    calls = replicas.partitions[0].calls
    assert [call.batch for call in calls] == [b"1", b"2"]
    calls[1].outcome.set_result(Produced(1))
    await settle()
    assert producer.outcomes == {"b": Produced(1)}
    assert producer.session.waiting == 1


@pytest.mark.parametrize("bound", ["stream_queued_max_bytes", "queued_max_bytes"])
async def test_there_is_room_again_when_bytes_are_appended(bound: str) -> None:
    replicas = FakeReplicas(p0=FakePartition())
    producer = Producer(replicas, **{bound: 10})
    producer.start("a", b"x" * 10)
    waiting = asyncio.ensure_future(producer.session.room())
    await settle()
    assert not waiting.done()
    replicas.partitions[0].calls[0].appended()
    await waiting


async def test_a_batch_that_is_refused_at_once_keeps_no_bytes() -> None:
    producer = Producer(FakeReplicas(), queued_max_bytes=10)
    producer.start("a", b"x" * 10)
    assert isinstance(producer.outcomes["a"], UnknownTopicError)
    await producer.session.room()


@pytest.mark.parametrize("acks", [-2, 2])
async def test_impossible_acks_are_refused(acks: int) -> None:
    producer = Producer(FakeReplicas(p0=FakePartition()))
    producer.start("a", b"x", acks=acks)
    assert isinstance(producer.outcomes["a"], InvalidRequestError)


async def test_batches_that_wait_are_bounded() -> None:
    producer = Producer(FakeReplicas(p0=FakePartition()), stream_waiting_max=1)
    producer.start("a", b"x")
    producer.start("b", b"x")
    assert isinstance(producer.outcomes["b"], OverloadedError)


async def test_a_session_that_was_stopped_takes_no_more_and_tells_the_rest() -> None:
    replicas = FakeReplicas(p0=FakePartition())
    producer = Producer(replicas)
    producer.start("a", b"x")
    producer.session.stop()
    producer.start("b", b"x")
    assert isinstance(producer.outcomes["b"], StoppingError)
    replicas.partitions[0].calls[0].outcome.cancel()
    await settle()
    assert isinstance(producer.outcomes["a"], OutcomeUnknownError)


async def test_whoever_may_not_write_to_the_topic_reaches_no_partition() -> None:
    replicas = FakeReplicas(p0=FakePartition())
    producer = Producer(replicas, DenyAll())
    producer.start("a", b"x")
    assert isinstance(producer.outcomes["a"], TopicAuthorizationFailedError)
    assert not replicas.partitions[0].calls


class Internal(FakePartition):
    """A partition of the cluster's own topic."""

    topic = "__consumer_offsets"
    is_internal = True


async def test_clients_do_not_write_to_an_internal_topic() -> None:
    replicas = FakeReplicas(p0=Internal())
    producer = Producer(replicas, queued_max_bytes=10)
    producer.start("a", b"x" * 10)
    assert isinstance(producer.outcomes["a"], PolicyViolationError)
    assert not replicas.partitions[0].calls
    await producer.session.room()


class Faulty(FakePartition):
    """A partition whose queue has a fault of ours."""

    def as_leader(self, leader_epoch: int) -> FakePartition:
        raise KeyError("a fault")


async def test_a_fault_while_a_batch_is_taken_gives_its_bytes_back() -> None:
    replicas = FakeReplicas(p0=Faulty(), p1=FakePartition())
    producer = Producer(replicas, queued_max_bytes=10, stream_queued_max_bytes=10)
    with pytest.raises(KeyError):
        producer.start("a", b"x" * 10)
    async with asyncio.timeout(1):
        await producer.session.room()
