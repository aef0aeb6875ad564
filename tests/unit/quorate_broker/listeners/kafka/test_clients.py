"""Real Kafka clients against a cluster in this process: what one writes, every other reads.

The records that a Kafka client wrote are read by Quorate's own, and the other way round: partition,
offset, timestamp, key, value and headers are the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import pytest
from confluent_kafka import Consumer as ConfluentConsumer
from confluent_kafka import KafkaException
from confluent_kafka import Producer as ConfluentProducer
from confluent_kafka import TopicPartition as ConfluentPartition

from quorate_testing import EmbeddedCluster
from tests.harness.kafka_clients import (
    LIBRARIES,
    PARTITIONS,
    WAIT_S,
    Sent,
    consume,
    expected,
    kafka_python,
    produce,
)

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
#: kafka-python compresses with these only by libraries that the tests do not install.
NOT_BY_KAFKA_PYTHON = ("snappy", "lz4")


RECORDS: Sequence[Sent] = (
    *(
        Sent(f"key-{i}".encode(), f"value {i}".encode() * 30, i % 3, 1_790_000_000_000 + i)
        for i in range(40)
    ),
    Sent(None, b"no key", 0, 1_790_000_000_100),
    Sent(b"no value", None, 1, 1_790_000_000_101),
    Sent(b"", b"", 2, 1_790_000_000_102),
    Sent(b"h", b"headers", 0, 1_790_000_000_103, (("a", b"1"), ("a", b"2"), ("b", b""))),
    Sent(b"large", bytes(range(256)) * 1200, 1, 1_790_000_000_104),
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[EmbeddedCluster]:
    with EmbeddedCluster(brokers=2) as cluster:
        yield cluster


_names = itertools.count()


@pytest.fixture
def topic(cluster: EmbeddedCluster) -> str:
    name = f"topic-{next(_names)}"
    cluster.create_topic(name, PARTITIONS)
    return name


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("library", LIBRARIES)
def test_quorate_reads_what_a_kafka_client_writes(
    cluster: EmbeddedCluster, topic: str, library: str, codec: str
) -> None:
    if library == "kafka-python" and codec in NOT_BY_KAFKA_PYTHON:
        pytest.skip("kafka-python needs another library for this codec")
    produce(library, cluster.kafka_bootstrap_servers, topic, RECORDS, codec=codec)
    found = consume("quorate", cluster.bootstrap_servers, topic, len(RECORDS))
    assert found == expected(RECORDS)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_kafka_client_reads_what_quorate_writes(
    cluster: EmbeddedCluster, topic: str, library: str, codec: str
) -> None:
    if library == "kafka-python" and codec in NOT_BY_KAFKA_PYTHON:
        pytest.skip("kafka-python needs another library for this codec")
    produce("quorate", cluster.bootstrap_servers, topic, RECORDS, codec=codec)
    found = consume(library, cluster.kafka_bootstrap_servers, topic, len(RECORDS))
    assert found == expected(RECORDS)


@pytest.mark.parametrize("acks", ["0", "1", "all"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_every_kind_of_acknowledgement(
    cluster: EmbeddedCluster, topic: str, library: str, acks: str
) -> None:
    produce(library, cluster.kafka_bootstrap_servers, topic, RECORDS, acks=acks)
    assert consume(library, cluster.kafka_bootstrap_servers, topic, len(RECORDS)) == expected(
        RECORDS
    )


@pytest.mark.parametrize("library", LIBRARIES)
def test_an_idempotent_producer(cluster: EmbeddedCluster, topic: str, library: str) -> None:
    for _ in range(2):  # the second producer gets another id
        produce(library, cluster.kafka_bootstrap_servers, topic, RECORDS, is_idempotent=True)
    found = consume("quorate", cluster.bootstrap_servers, topic, 2 * len(RECORDS))
    assert found == expected((*RECORDS, *RECORDS))


def test_offsets_by_time(cluster: EmbeddedCluster, topic: str) -> None:
    records = [Sent(b"k", b"v", 0, 1_790_000_000_000 + 1000 * i) for i in range(10)]
    produce("confluent", cluster.kafka_bootstrap_servers, topic, records)
    servers, moment = cluster.kafka_bootstrap_servers, records[4].timestamp_ms - 500

    consumer = ConfluentConsumer({"bootstrap.servers": servers, "group.id": "none"})
    try:
        asked = [ConfluentPartition(topic, 0, moment), ConfluentPartition(topic, 1, moment)]
        found = consumer.offsets_for_times(asked, WAIT_S)
        assert [one.offset for one in found] == [4, -1]
        assert consumer.get_watermark_offsets(ConfluentPartition(topic, 0), WAIT_S) == (0, 10)
    finally:
        consumer.close()

    older = kafka_python.KafkaConsumer(bootstrap_servers=servers)
    try:
        partition = kafka_python.TopicPartition(topic, 0)
        by_time = older.offsets_for_times({partition: moment})[partition]
        assert (by_time.offset, by_time.timestamp) == (4, records[4].timestamp_ms)
        assert older.beginning_offsets([partition]) == {partition: 0}
        assert older.end_offsets([partition]) == {partition: 10}
    finally:
        older.close()


def test_librdkafka_gives_up_transactions_at_once_and_tells_why(cluster: EmbeddedCluster) -> None:
    """It asks again for a coordinator, without end, after every error that is not about rights."""
    producer = ConfluentProducer(
        {"bootstrap.servers": cluster.kafka_bootstrap_servers, "transactional.id": "t"}
    )
    with pytest.raises(KafkaException, match="there are no transactions") as caught:
        producer.init_transactions(WAIT_S)
    assert caught.value.args[0].fatal()
