"""Fetch as every listener uses it: what is due is read within the budgets of one request."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from quorate.errors import (
    NotLeaderError,
    QuorateError,
    TopicAuthorizationFailedError,
)
from quorate_broker.operations.fetch import Fetch
from quorate_broker.operations.read_replicas import Reader
from quorate_quorum.node.authorizer import ALLOW_ALL
from tests.unit.quorate_broker.operations.builders import (
    ANN,
    TOPIC,
    DenyAll,
    FakePartition,
    FakeReplicas,
    config,
    settle,
)


class Consumer:
    """A session with a position in each partition, at its beginning."""

    def __init__(self, replicas: FakeReplicas, authorizer: Any = ALLOW_ALL) -> None:
        self.fetch = Fetch(cast(Any, replicas), config(), authorizer)
        self.session = self.fetch.session(ANN, Reader())
        for partition in sorted(replicas.partitions):
            self.name(partition, 0)

    def name(self, partition: int, offset: int, named_by: int = 0) -> None:
        self.session.name(
            (TOPIC, partition), offset, leader_epoch=-1, bytes_max=100, named_by=named_by
        )

    async def collect(
        self, *, min_bytes: int = 1, max_bytes: int = 1000, wait_ms: int = 0, number: int = 0
    ) -> dict[int, Any]:
        wanted = self.fetch.wanted(number, min_bytes, max_bytes, wait_ms)
        looks = await self.session.collect(wanted, lambda: False)
        return {
            key[1]: look.found if isinstance(look.found, QuorateError) else look.found.batches
            for key, look in looks.items()
        }


async def test_records_are_told_once_until_the_position_moves() -> None:
    consumer = Consumer(FakeReplicas(p0=FakePartition(b"abc", 3)))
    assert await consumer.collect() == {0: b"abc"}
    assert await consumer.collect() == {}
    consumer.name(0, 1)
    assert await consumer.collect() == {0: b"bc"}
    consumer.session.put_in_turn((TOPIC, 0))
    assert await consumer.collect() == {0: b"bc"}


async def test_partitions_take_turns_within_the_bytes_of_a_request() -> None:
    replicas = FakeReplicas(p0=FakePartition(b"aaaa", 4), p1=FakePartition(b"bbbb", 4))
    consumer = Consumer(replicas)
    assert await consumer.collect(max_bytes=3) == {0: b"aaa"}
    consumer.name(0, 3)
    assert await consumer.collect(max_bytes=4) == {1: b"bbbb"}


async def test_a_wait_ends_when_there_are_enough_bytes() -> None:
    replicas = FakeReplicas(p0=FakePartition(b"a", 1))
    consumer = Consumer(replicas)
    waiting = asyncio.ensure_future(consumer.collect(min_bytes=3, wait_ms=60_000))
    await settle()
    replicas.partitions[0].move(b"b")
    await settle()
    assert not waiting.done()
    replicas.partitions[0].move(b"c")
    assert await waiting == {0: b"abc"}


async def test_an_answer_leaves_out_what_a_later_request_named() -> None:
    replicas = FakeReplicas(p0=FakePartition(b"abc", 3), p1=FakePartition(b"x", 1))
    consumer = Consumer(replicas)
    consumer.name(0, 2, named_by=2)
    assert await consumer.collect(number=1) == {1: b"x"}
    assert await consumer.collect(number=2) == {0: b"c"}


async def test_an_error_is_told_once_and_looked_at_again() -> None:
    partition = FakePartition(b"abc", 3, error=NotLeaderError("moved"))
    consumer = Consumer(FakeReplicas(p0=partition))
    assert await consumer.collect() == {0: partition.error}
    consumer.session.look_at_failing()
    assert await consumer.collect() == {}
    partition.error = None
    consumer.session.look_at_failing()
    assert await consumer.collect() == {0: b"abc"}


async def test_a_partition_that_is_forgotten_wakes_nothing() -> None:
    replicas = FakeReplicas(p0=FakePartition(b"a", 1))
    consumer = Consumer(replicas)
    await consumer.collect()
    assert replicas.partitions[0].wakes
    consumer.session.forget((TOPIC, 0))
    assert not replicas.partitions[0].wakes
    assert (TOPIC, 0) not in consumer.session


async def test_whoever_may_not_read_the_topic_is_refused() -> None:
    partition = FakePartition(b"abc", 3)
    consumer = Consumer(FakeReplicas(p0=partition), DenyAll())
    found = await consumer.collect()
    assert isinstance(found[0], TopicAuthorizationFailedError)
    assert not partition.fetches


async def test_only_a_caller_that_may_read_has_a_suspected_batch_looked_at() -> None:
    for authorizer, suspected in ((ALLOW_ALL, [7]), (DenyAll(), [])):
        partition = FakePartition(b"abc", 3)
        session = Fetch(cast(Any, FakeReplicas(p0=partition)), config(), authorizer).session(
            ANN, Reader()
        )
        session.name((TOPIC, 0), 7, leader_epoch=-1, bytes_max=100, was_corrupt=True)
        assert partition.suspected == suspected
