"""Kafka clients at real processes: they write and read, also while a leader is killed."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from confluent_kafka import Message, Producer

from quorate import Admin
from quorate_cli.local import LocalCluster
from quorate_cli.local_shape import ANY_PORT, Shape
from tests.harness.kafka_clients import PARTITIONS, Sent, consume

pytestmark = pytest.mark.cluster

RECORDS = 3000
WAIT_S = 60.0
TOPIC = "kafka"


def test_an_idempotent_producer_loses_and_doubles_nothing_while_a_leader_is_killed(
    tmp_path: Path,
) -> None:
    """Every acknowledged record is there once, and in order."""
    shape = Shape(voters=1, brokers=3, port=ANY_PORT, kafka_port=ANY_PORT)
    cluster = LocalCluster(tmp_path, shape)
    cluster.prepare()
    cluster.start()
    try:
        leader = asyncio.run(_create_topic(cluster))
        servers = ",".join(node.kafka for node in cluster.brokers)
        acked = _produce(servers, cluster, leader)
        found = consume("aiokafka", servers, TOPIC, RECORDS)
        values = [one.value for one in found]
        assert Counter(values) == Counter(acked)
        for index in range(PARTITIONS):
            numbers = [int(one.value or b"") for one in found if one.partition == index]
            assert numbers == sorted(numbers)
    finally:
        cluster.stop()


async def _create_topic(cluster: LocalCluster) -> int:
    """Create the topic. Return the leader of its first partition."""
    await cluster.wait_ready()
    async with Admin(bootstrap_servers=cluster.bootstrap_servers) as admin:
        await admin.create_topic(TOPIC, num_partitions=PARTITIONS, replication_factor=3)
        (topic,) = (await admin.describe_topics([TOPIC])).values()
        return int(topic.partitions[0].leader)


def _produce(servers: str, cluster: LocalCluster, leader: int) -> list[bytes]:
    """Write all records, and kill the leader after a third. Return what was acknowledged."""
    acked: list[bytes] = []
    failures: list[str] = []

    def delivered(error: object, message: Message) -> None:
        value = message.value()
        if error is not None or value is None:
            failures.append(str(error))
        else:
            acked.append(bytes(value) if isinstance(value, bytes) else value.encode())

    producer = Producer({"bootstrap.servers": servers, "enable.idempotence": True, "linger.ms": 5})
    for number in range(RECORDS):
        one = Sent(None, b"%d" % number, number % PARTITIONS, 1_790_000_000_000 + number)
        producer.produce(
            TOPIC, one.value, partition=one.partition, timestamp=one.timestamp_ms,
            on_delivery=delivered,
        )  # fmt: skip
        if number == RECORDS // 3:
            producer.flush(WAIT_S)
            cluster.kill(leader)
    assert producer.flush(WAIT_S) == 0
    assert failures == []
    return acked
