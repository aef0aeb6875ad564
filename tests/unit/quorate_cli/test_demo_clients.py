"""The producers of the demo: each record gets its outcome, whichever client writes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from quorate import Consumer
from quorate_cli.demo_clients import Client, open_producer
from quorate_cli.workload import AckTimes
from quorate_testing import EmbeddedCluster

RECORDS = 50


@pytest.fixture(scope="module")
def cluster() -> Iterator[EmbeddedCluster]:
    with EmbeddedCluster() as cluster:
        yield cluster


@pytest.mark.parametrize("client", Client)
def test_every_record_has_its_outcome_at_the_end(cluster: EmbeddedCluster, client: Client) -> None:
    topic = f"of-{client}"
    if client is Client.QUORATE:
        cluster.create_topic(topic)
    acks = asyncio.run(write(cluster, client, topic))
    assert (acks.acked, acks.failed, list(acks.times)) == (RECORDS, [], [0])
    assert asyncio.run(read(cluster, topic)) == [b"%d" % number for number in range(RECORDS)]


async def write(cluster: EmbeddedCluster, client: Client, topic: str) -> AckTimes:
    is_native = client is Client.QUORATE
    servers = cluster.bootstrap_servers if is_native else cluster.kafka_bootstrap_servers
    acks = AckTimes()
    async with open_producer(client, servers) as producer:
        for number in range(RECORDS):
            await producer.send(topic, b"%d" % number, b"key", acks.count)
    return acks


async def read(cluster: EmbeddedCluster, topic: str) -> list[bytes | None]:
    async with Consumer(
        topic, bootstrap_servers=cluster.bootstrap_servers, auto_offset_reset="earliest"
    ) as consumer:
        return [(await consumer.getone()).value for _ in range(RECORDS)]
