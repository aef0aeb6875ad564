"""Kafka clients that name their rack read from the follower in it (KIP-392)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
from confluent_kafka import Consumer as ConfluentConsumer
from confluent_kafka import TopicPartition as ConfluentPartition

from quorate_broker.replica.fetched import Fetched
from quorate_broker.replica.follower_reads import FollowerReads
from quorate_testing import EmbeddedCluster
from tests.harness.kafka_clients import WAIT_S, Sent, kafka_python, produce

RACKS = ("R1", "R2")
COUNT = 40
TOPIC = "racks"


@pytest.fixture(scope="module")
def cluster() -> Iterator[EmbeddedCluster]:
    """Two brokers, each in a rack of its own. The topic's two partitions are led by one each."""
    with EmbeddedCluster(brokers=2, racks=RACKS) as cluster:
        cluster.create_topic(TOPIC, 2)
        records = [Sent(None, b"%d" % i, i % 2, 1_790_000_000_000) for i in range(COUNT)]
        produce("confluent", cluster.kafka_bootstrap_servers, TOPIC, records)
        yield cluster


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How many answers with records each broker gave as a follower."""
    counts: Counter[int] = Counter()
    plain = FollowerReads.fetch

    async def counted(self: FollowerReads, offset: int, **limits: Any) -> Fetched:
        found = await plain(self, offset, **limits)
        counts[self._replica.broker_id] += bool(found.batches)
        return found

    monkeypatch.setattr(FollowerReads, "fetch", counted)
    return counts


def read_by_confluent(servers: str, rack: str) -> list[bytes]:
    consumer = ConfluentConsumer(
        {"bootstrap.servers": servers, "group.id": f"g-{rack}", "client.rack": rack}
    )
    consumer.assign([ConfluentPartition(TOPIC, one, 0) for one in range(2)])
    values: list[bytes] = []
    try:
        while len(values) < COUNT:
            message = consumer.poll(WAIT_S)
            assert message is not None
            assert message.error() is None
            values.append(message.value() or b"")
    finally:
        consumer.close()
    return values


def read_by_kafka_python(servers: str, rack: str) -> list[bytes]:
    consumer = kafka_python.KafkaConsumer(
        bootstrap_servers=servers, client_rack=rack, auto_offset_reset="earliest"
    )
    consumer.assign([kafka_python.TopicPartition(TOPIC, one) for one in range(2)])
    try:
        return [record.value for record in islice(consumer, COUNT)]
    finally:
        consumer.close()


@pytest.mark.parametrize("read", [read_by_confluent, read_by_kafka_python])
@pytest.mark.parametrize("rack", ["", *RACKS])
def test_every_partition_is_read_in_the_rack_of_the_client(
    read: Any, rack: str, cluster: EmbeddedCluster, served: Counter[int]
) -> None:
    values = read(cluster.kafka_bootstrap_servers, rack)
    assert sorted(map(int, values)) == list(range(COUNT))
    broker_id = RACKS.index(rack) if rack else None
    assert set(+served) == (set() if broker_id is None else {broker_id})
