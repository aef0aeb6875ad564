"""Kafka clients in the simulated world: no sockets, virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from quorate import Admin
from quorate.record.batch import BatchBuilder
from quorate_broker.listeners.kafka.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from quorate_broker.listeners.kafka.messages.metadata import MetadataRequest, MetadataRequestTopic
from quorate_broker.listeners.kafka.messages.produce import (
    PartitionProduceData,
    ProduceRequest,
    TopicProduceData,
)
from quorate_broker.listeners.kafka.versions import FETCH, METADATA, PRODUCE
from quorate_testing.simulated.cluster import ClusterShape, SimulatedCluster
from quorate_testing.simulated.loop import SimulatedLoop, simulate
from tests.harness.kafka_connection import ConnectionLost, connect

pytestmark = pytest.mark.simulation

SEED = 20_261_130
TOPIC = "simulated"
LISTENERS = ("grpc://broker-0:7092", "kafka://broker-0:9092")


def batch(value: bytes) -> bytes:
    builder = BatchBuilder()
    builder.append(1_700_000_000_000, b"key", value)
    return builder.build()


def test_a_kafka_client_produces_and_fetches_in_the_simulated_world() -> None:
    def program(loop: SimulatedLoop) -> Coroutine[Any, Any, None]:
        return run(loop)

    simulate(program, SEED)


async def run(loop: SimulatedLoop) -> None:
    shape = ClusterShape(voters=1, brokers=1)
    cluster = OneBroker(loop, shape)
    await cluster.format()
    cluster.start_all()
    await cluster.spawn_client(lambda: use(cluster), "kafka-client")
    for name in list(cluster.nodes):
        cluster.kill(name)


class OneBroker(SimulatedCluster):
    """A cluster whose broker has a Kafka listener, too."""

    def _settings(self, node: Any) -> dict[str, Any]:
        settings = super()._settings(node)
        return settings if node.is_voter else {**settings, "listeners": LISTENERS}


async def use(cluster: SimulatedCluster) -> None:
    async with Admin(bootstrap_servers="broker-0:7092") as admin:
        await admin.create_topic(TOPIC, num_partitions=1, replication_factor=1)
    client = await connect(cluster.ports, "broker-0:9092")
    await asyncio.sleep(0.1)
    asked = MetadataRequest([MetadataRequestTopic(name=TOPIC)])
    metadata = await client.ask(METADATA, 9, asked)
    assert [(one.host, one.port) for one in metadata.brokers] == [("broker-0", 9092)]
    assert metadata.topics[0].partitions[0].leader_id == 0

    sent = batch(b"value")
    data = TopicProduceData(TOPIC, partition_data=[PartitionProduceData(0, sent)])
    produced = await client.ask(PRODUCE, 9, ProduceRequest(None, -1, 1000, [data]))
    assert produced.responses[0].partition_responses[0].error_code == 0

    wanted = FetchTopic(TOPIC, partitions=[FetchPartition(0, partition_max_bytes=1000)])
    request = FetchRequest(max_wait_ms=1000, min_bytes=1, topics=[wanted])
    fetched = await client.ask(FETCH, 12, request)
    assert bytes(fetched.responses[0].partitions[0].records)[16:] == sent[16:]

    waiting = asyncio.ensure_future(client.ask(FETCH, 12, wait_at(1)))
    await asyncio.sleep(0.1)
    cluster.kill("broker-0")
    with pytest.raises(ConnectionLost):
        await waiting
    assert client.is_lost


def wait_at(offset: int) -> FetchRequest:
    partition = FetchPartition(0, fetch_offset=offset, partition_max_bytes=1000)
    topics = [FetchTopic(TOPIC, partitions=[partition])]
    return FetchRequest(max_wait_ms=30_000, min_bytes=1, topics=topics)
