"""Real Kafka clients in groups of the consumer protocol (KIP-848), without a stream."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from quorate_testing import EmbeddedCluster
from tests.harness.kafka_clients import PARTITIONS, WAIT_S, Sent, produce

COUNT = 30
RECORDS = [
    Sent(b"k%d" % i, b"v%d" % i, i % PARTITIONS, 1_790_000_000_000 + i) for i in range(COUNT)
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[EmbeddedCluster]:
    with EmbeddedCluster(brokers=2) as cluster:
        yield cluster


_names = itertools.count()


@pytest.fixture
def topic(cluster: EmbeddedCluster) -> str:
    name = f"polled-{next(_names)}"
    cluster.create_topic(name, PARTITIONS)
    produce("confluent", cluster.kafka_bootstrap_servers, name, RECORDS)
    return name


#: A member of the classic protocol that hears soon that it must join again.
CLASSIC = {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500}


def consumer(
    cluster: EmbeddedCluster, group: str, protocol: str = "consumer", **more: Any
) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": cluster.kafka_bootstrap_servers,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            **({"group.protocol": "consumer"} if protocol == "consumer" else CLASSIC),
            **{name.replace("_", "."): value for name, value in more.items()},
        }
    )


class Programs:
    """Consumers that read until something holds."""

    def __init__(self) -> None:
        self.running: list[Consumer] = []
        self.read: list[bytes] = []

    def until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not holds():
            assert time.monotonic() < deadline, "not in time"
            for one in self.running:
                message = one.poll(0.05)
                if message is not None:
                    assert message.error() is None, message.error()
                    value = message.value()
                    assert isinstance(value, bytes)
                    self.read.append(value)


def owned(one: Consumer) -> set[int]:
    return {each.partition for each in one.assignment()}


def test_members_share_partitions_commit_and_are_described(
    cluster: EmbeddedCluster, topic: str
) -> None:
    group = f"g-{topic}"
    programs = Programs()
    first = consumer(cluster, group)
    first.subscribe([topic])
    programs.running.append(first)
    programs.until(lambda: len(programs.read) == COUNT)
    first.commit(asynchronous=False)
    second = consumer(cluster, group, group_instance_id="two")
    second.subscribe(["^polled-.*", topic])
    programs.running.append(second)
    programs.until(lambda: bool(owned(second)) and len(owned(first) | owned(second)) == PARTITIONS)
    assert not owned(first) & owned(second)
    committed = second.committed([TopicPartition(topic, number) for number in owned(second)])
    assert {one.offset for one in committed} == {COUNT // PARTITIONS}
    described = AdminClient({"bootstrap.servers": cluster.kafka_bootstrap_servers})
    (found,) = [f.result() for f in described.describe_consumer_groups([group]).values()]
    assert len(found.members) == 2
    second.close()
    programs.running.remove(second)
    first.close()
    assert sorted(programs.read) == sorted(b"v%d" % i for i in range(COUNT))


def test_a_group_moves_from_one_protocol_to_the_other_and_back(
    cluster: EmbeddedCluster, topic: str
) -> None:
    group = f"g-{topic}"
    programs = Programs()
    old = consumer(cluster, group, "classic", partition_assignment_strategy="cooperative-sticky")
    old.subscribe([topic])
    programs.running.append(old)
    programs.until(lambda: len(programs.read) == COUNT)
    old.commit(asynchronous=False)
    new = consumer(cluster, group)
    new.subscribe([topic])
    programs.running.append(new)
    programs.until(lambda: bool(owned(new)) and len(owned(old) | owned(new)) == PARTITIONS)
    assert owned(old)
    assert not owned(old) & owned(new)
    here = [TopicPartition(topic, number, COUNT // PARTITIONS) for number in owned(old)]
    old.commit(offsets=here, asynchronous=False)
    new.close()
    programs.running.remove(new)
    programs.until(lambda: len(owned(old)) == PARTITIONS)
    old.close()
    assert sorted(programs.read) == sorted(b"v%d" % i for i in range(COUNT))
