"""create_topic() returns when every client that asks for the topic finds it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from quorate import Admin, Producer
from quorate.net.methods import CREATE_TOPICS, DESCRIBE_TOPICS
from quorate.net.network import Handler, Method, Peer
from quorate.v1 import admin_pb2
from tests.harness.fake_leaders import FakeBroker, FakeCluster, with_cluster


class Lagging(FakeBroker):
    """A broker that learns of a topic `lag_s` after it was created."""

    def __init__(self, cluster: FakeCluster, broker_id: int, lag_s: float) -> None:
        super().__init__(cluster, broker_id)
        self.lag_s = lag_s
        self.known: set[str] = set()

    def handlers(self) -> Mapping[Method[Any, Any], Handler]:
        return {
            **super().handlers(),
            CREATE_TOPICS: self.create_topics,
            DESCRIBE_TOPICS: self.describe_topics,
        }

    async def create_topics(
        self, request: admin_pb2.CreateTopicsRequest, peer: Peer
    ) -> admin_pb2.CreateTopicsResponse:
        response = admin_pb2.CreateTopicsResponse()
        for asked in request.topics:
            topic = self.cluster.add_topic(asked.name)
            response.topics.add(name=asked.name, topic_id=topic.topic_id)
            for broker in self.cluster.brokers:
                assert isinstance(broker, Lagging)
                asyncio.get_running_loop().call_later(broker.lag_s, broker.known.add, asked.name)
        return response

    async def metadata(
        self, request: admin_pb2.MetadataRequest, peer: Peer
    ) -> admin_pb2.MetadataResponse:
        await self.running.wait()
        names = {topic.topic_id: name for name, topic in self.cluster.topics.items()}
        asked = [*request.topics, *(names[one] for one in request.topic_ids)]
        known = self.cluster.metadata(
            admin_pb2.MetadataRequest(topics=[one if one in self.known else "" for one in asked])
        )
        known.image_offset = 0
        return known

    async def describe_topics(
        self, request: admin_pb2.DescribeTopicsRequest, peer: Peer
    ) -> admin_pb2.DescribeTopicsResponse:
        told = await self.metadata(admin_pb2.MetadataRequest(topics=request.topics), peer)
        return admin_pb2.DescribeTopicsResponse(
            topics=[admin_pb2.DescribedTopic(topic=one) for one in told.topics]
        )


async def lagging(cluster: FakeCluster, *lags_s: float) -> list[Lagging]:
    for broker in cluster.brokers:
        await broker.kill()
    brokers = [Lagging(cluster, number, lag_s) for number, lag_s in enumerate(lags_s)]
    cluster.brokers = list(brokers)
    await cluster.start()
    return brokers


def test_a_topic_that_was_created_is_known_to_every_broker_that_answers() -> None:
    async def program(cluster: FakeCluster) -> None:
        brokers = await lagging(cluster, 0.0, 0.3, 1.5)
        async with Admin(bootstrap_servers=cluster.bootstrap) as admin:
            for number in range(4):  # at each broker
                name = f"t{number}"
                assert (await admin.create_topic(name)).name == name
                assert all(name in one.known for one in brokers)
                async with Producer(bootstrap_servers=cluster.bootstrap) as producer:
                    await producer.send_and_wait(name, b"v")

    with_cluster(program)


def test_a_silent_broker_holds_the_creation_up_for_a_bounded_time() -> None:
    async def program(cluster: FakeCluster) -> None:
        brokers = await lagging(cluster, 0.0, 0.0, 0.0)
        async with Admin(bootstrap_servers=cluster.bootstrap) as admin:
            brokers[0].running.clear()
            await brokers[1].kill()
            began = asyncio.get_running_loop().time()
            await admin.create_topic("t")
            assert asyncio.get_running_loop().time() - began < 8

    with_cluster(program)
