"""create_partitions() returns when every broker knows the new ones, and is repeated safely."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from quorate import Admin, Producer
from quorate.errors import (
    InvalidPartitionsError,
    OutcomeUnknownError,
    QuorateError,
    UnknownTopicError,
    to_wire,
)
from quorate.net.methods import CREATE_PARTITIONS, DESCRIBE_TOPICS
from quorate.net.network import Handler, Method, Peer
from quorate.v1 import admin_pb2
from tests.harness.fake_leaders import FakeBroker, FakeCluster, FakePartition, with_cluster


class Growing(FakeBroker):
    """A broker that passes growths on, and learns of new partitions `lag_s` after they are made."""

    def __init__(self, cluster: FakeCluster, broker_id: int, lag_s: float = 0.0) -> None:
        super().__init__(cluster, broker_id)
        self.lag_s = lag_s
        self.known = 1
        self.asked: list[admin_pb2.CreatePartitionsRequest] = []
        #: The errors of the next answers, after which the partitions are made all the same.
        self.errors: list[QuorateError] = []

    def handlers(self) -> Mapping[Method[Any, Any], Handler]:
        return {
            **super().handlers(),
            CREATE_PARTITIONS: self.create_partitions,
            DESCRIBE_TOPICS: self.describe_topics,
        }

    async def create_partitions(
        self, request: admin_pb2.CreatePartitionsRequest, peer: Peer
    ) -> admin_pb2.CreatePartitionsResponse:
        self.asked.append(request)
        topic = self.cluster.topics[request.topic]
        if not request.validate_only:
            while len(topic.partitions) < request.count:
                topic.partitions.append(FakePartition(0))
            self.cluster.image_offset += 1
            for broker in self.cluster.brokers:
                assert isinstance(broker, Growing)
                asyncio.get_running_loop().call_later(
                    broker.lag_s, setattr, broker, "known", request.count
                )
        if self.errors:
            return admin_pb2.CreatePartitionsResponse(error=to_wire(self.errors.pop(0)))
        return admin_pb2.CreatePartitionsResponse(
            topic_id=topic.topic_id, num_partitions=request.count
        )

    async def metadata(
        self, request: admin_pb2.MetadataRequest, peer: Peer
    ) -> admin_pb2.MetadataResponse:
        await self.running.wait()
        ids = {topic.topic_id: name for name, topic in self.cluster.topics.items()}
        asked = [*request.topics, *(ids[one] for one in request.topic_ids)]
        told = self.cluster.metadata(admin_pb2.MetadataRequest(topics=asked))
        for topic in told.topics:
            del topic.partitions[self.known :]
        return told

    async def describe_topics(
        self, request: admin_pb2.DescribeTopicsRequest, peer: Peer
    ) -> admin_pb2.DescribeTopicsResponse:
        told = await self.metadata(admin_pb2.MetadataRequest(topics=request.topics), peer)
        return admin_pb2.DescribeTopicsResponse(
            topics=[admin_pb2.DescribedTopic(topic=one) for one in told.topics]
        )


async def growing(cluster: FakeCluster, *lags_s: float) -> list[Growing]:
    for broker in cluster.brokers:
        await broker.kill()
    brokers = [Growing(cluster, number, lag_s) for number, lag_s in enumerate(lags_s)]
    cluster.brokers = list(brokers)
    await cluster.start()
    cluster.add_topic("t")
    return brokers


def test_every_broker_that_answers_knows_the_new_partitions() -> None:
    async def program(cluster: FakeCluster) -> None:
        brokers = await growing(cluster, 0.0, 0.3, 1.5)
        async with Admin(bootstrap_servers=cluster.bootstrap) as admin:
            topic = await admin.create_partitions("t", 4)
            assert len(topic.partitions) == 4
            assert [one.known for one in brokers] == [4, 4, 4]
            async with Producer(bootstrap_servers=cluster.bootstrap) as producer:
                assert (await producer.send_and_wait("t", b"v", partition=3)).partition == 3

    with_cluster(program)


def test_an_unknown_outcome_is_asked_for_again_with_the_number_that_was_known_first() -> None:
    async def program(cluster: FakeCluster) -> None:
        (broker,) = await growing(cluster, 0.0)
        broker.errors = [OutcomeUnknownError("the controller moved")] * 2
        async with Admin(bootstrap_servers=cluster.bootstrap) as admin:
            assert len((await admin.create_partitions("t", 4)).partitions) == 4
        assert [(one.known_count, one.count) for one in broker.asked] == [(1, 4)] * 3

    with_cluster(program)


def test_an_outcome_that_stays_unknown_is_told_in_time() -> None:
    async def program(cluster: FakeCluster) -> None:
        (broker,) = await growing(cluster, 0.0)
        broker.errors = [OutcomeUnknownError("the controller moved")] * 100
        servers = cluster.bootstrap
        async with Admin(bootstrap_servers=servers, request_timeout_ms=2000) as admin:
            began = asyncio.get_running_loop().time()
            with pytest.raises(OutcomeUnknownError):
                await admin.create_partitions("t", 4)
            assert asyncio.get_running_loop().time() - began <= 2

    with_cluster(program)


def test_a_refusal_is_told_once_and_a_validation_makes_nothing() -> None:
    async def program(cluster: FakeCluster) -> None:
        (broker,) = await growing(cluster, 0.0)
        async with Admin(bootstrap_servers=cluster.bootstrap) as admin:
            assert len((await admin.create_partitions("t", 4, validate_only=True)).partitions) == 1
            assert len(cluster.topics["t"].partitions) == 1
            broker.errors = [InvalidPartitionsError("topic 't' has 4 partitions")]
            with pytest.raises(InvalidPartitionsError, match="has 4"):
                await admin.create_partitions("t", 3)
            with pytest.raises(UnknownTopicError):
                await admin.create_partitions("nothing", 3)
        assert len(broker.asked) == 2

    with_cluster(program)
