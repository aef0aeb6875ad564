"""Real Kafka clients write to topics that do not exist, at a cluster in this process."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import aiokafka
import pytest

from quorate import Admin, Consumer, TopicPartition
from quorate_testing import EmbeddedCluster
from tests.harness.kafka_clients import LIBRARIES, WAIT_S, Sent, produce

RECORDS = tuple(Sent(b"key", b"%d" % i, 0, 1_790_000_000_000 + i) for i in range(10))
_names = itertools.count()


@pytest.fixture(scope="module")
def cluster() -> Iterator[EmbeddedCluster]:
    with EmbeddedCluster(brokers=2) as cluster:
        yield cluster


@pytest.fixture
def topic() -> str:
    """The name of a topic that does not exist."""
    return f"new-{next(_names)}"


def values(cluster: EmbeddedCluster, topic: str, count: int) -> list[bytes | None]:
    async def read() -> list[bytes | None]:
        async with (
            asyncio.timeout(WAIT_S),
            Consumer(
                topic, bootstrap_servers=cluster.bootstrap_servers, auto_offset_reset="earliest"
            ) as consumer,
        ):
            return [(await consumer.getone()).value for _ in range(count)]

    return asyncio.run(read())


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_producer_creates_the_topic_that_it_writes_to(
    cluster: EmbeddedCluster, topic: str, library: str
) -> None:
    produce(library, cluster.kafka_bootstrap_servers, topic, RECORDS)
    assert values(cluster, topic, len(RECORDS)) == [one.value for one in RECORDS]


@pytest.mark.parametrize("library", [*LIBRARIES, "quorate"])
def test_a_topic_that_another_program_names_like_our_own_is_an_ordinary_one(
    cluster: EmbeddedCluster, library: str
) -> None:
    """Debezium's heartbeats go to topics of such names."""
    name = f"__debezium-heartbeat.{library}"
    servers = cluster.kafka_bootstrap_servers
    if library == "quorate":
        servers = cluster.bootstrap_servers
        cluster.create_topic(name)
    produce(library, servers, name, RECORDS)
    assert values(cluster, name, len(RECORDS)) == [one.value for one in RECORDS]

    async def use() -> None:
        async with Admin(bootstrap_servers=cluster.bootstrap_servers) as admin:
            assert name in await admin.list_topics()
            await admin.create_partitions(name, 2)
            assert await admin.delete_records({TopicPartition(name, 0): 5}) != {}
            await admin.delete_topics([name])
            assert name not in await admin.list_topics(internal=True)

    asyncio.run(use())


def test_producers_that_begin_at_once_write_to_one_new_topic(
    cluster: EmbeddedCluster, topic: str
) -> None:
    clients = 8
    with ThreadPoolExecutor(clients) as pool:
        for future in [
            pool.submit(produce, "confluent", cluster.kafka_bootstrap_servers, topic, RECORDS[:1])
            for _ in range(clients)
        ]:
            future.result(WAIT_S)
    assert values(cluster, topic, clients) == [RECORDS[0].value] * clients


async def test_a_consumer_creates_the_topic_that_it_subscribes_to(
    cluster: EmbeddedCluster, topic: str
) -> None:
    async with aiokafka.AIOKafkaConsumer(
        topic, bootstrap_servers=cluster.kafka_bootstrap_servers, auto_offset_reset="earliest"
    ) as consumer:
        await asyncio.to_thread(
            produce, "aiokafka", cluster.kafka_bootstrap_servers, topic, RECORDS[:1]
        )
        record = await asyncio.wait_for(consumer.getone(), WAIT_S)
        assert record.value == RECORDS[0].value
