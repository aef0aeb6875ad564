"""What a consumer fetches ahead of the program: bounds in bytes, and the long poll."""

from __future__ import annotations

import asyncio
from typing import Any

from quorate import Consumer, TopicPartition
from tests.harness.fake_leaders import FakeCluster, FakePartition, with_cluster

BATCH = 1000
#: Bytes of a batch beside its one value, at most.
HEADER = 100


def consumer(cluster: FakeCluster, **settings: Any) -> Consumer:
    servers = cluster.bootstrap
    return Consumer("t", bootstrap_servers=servers, auto_offset_reset="earliest", **settings)


def write(partition: FakePartition, batches: int) -> None:
    for _ in range(batches):
        partition.write(bytes(BATCH - HEADER))


class Sent:
    """Counts the bytes of the brokers' answers."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.bytes = 0
        cluster.spoil = self.count

    def count(self, data: bytes) -> bytes:
        self.bytes += len(data)
        return data


async def read(c: Consumer, records: int) -> None:
    async with asyncio.timeout(60):
        while records > 0:
            records -= sum(map(len, (await c.getmany(timeout_ms=1000)).values()))


def test_what_is_fetched_ahead_of_all_partitions_is_bounded() -> None:
    """Also after breaks of the stream: each new one would ask once more."""
    partitions, batches, fetch_bytes = 30, 20, 20_000

    async def program(cluster: FakeCluster) -> None:
        for partition in cluster.add_topic("t", partitions).partitions:
            write(partition, batches)
        sent = Sent(cluster)
        async with consumer(
            cluster, fetch_max_bytes=fetch_bytes, max_partition_fetch_bytes=10_000
        ) as c:
            await asyncio.sleep(5)
            # twice the bound of an answer, and two answers, each with a batch of each partition
            assert sent.bytes <= 4 * fetch_bytes + 2 * partitions * BATCH
            before = sent.bytes
            for _ in range(10):
                await cluster.brokers[0].kill()
                await cluster.brokers[0].start()
                await asyncio.sleep(5)
            assert sent.bytes == before
            await read(c, partitions * batches)

    with_cluster(program, brokers=1)


def test_what_is_fetched_ahead_of_one_partition_is_bounded() -> None:
    partition_bytes = 10_000

    async def program(cluster: FakeCluster) -> None:
        write(cluster.add_topic("t").partitions[0], 100)
        sent = Sent(cluster)
        async with consumer(cluster, max_partition_fetch_bytes=partition_bytes) as c:
            await asyncio.sleep(5)
            assert sent.bytes <= 2 * partition_bytes
            await c.getone()
            await asyncio.sleep(5)
            assert sent.bytes <= 3 * partition_bytes
            await read(c, 99)

    with_cluster(program)


def test_a_broker_that_had_no_records_while_the_buffer_was_full_is_asked_when_there_is_room() -> (
    None
):
    batches = 200

    async def program(cluster: FakeCluster) -> None:
        full, empty = cluster.add_topic("t", 2).partitions
        write(full, batches)
        async with consumer(cluster, fetch_max_bytes=5_000) as c:
            await asyncio.sleep(2)
            empty.write(b"here")
            seen = 0
            async with asyncio.timeout(60):
                while (await c.getone()).value != b"here":
                    seen += 1
            assert seen < batches

    with_cluster(program)


def test_a_fetch_asks_for_what_the_settings_say_and_waits_at_the_broker() -> None:
    async def program(cluster: FakeCluster) -> None:
        partition = cluster.add_topic("t").partitions[0]
        fetched = cluster.brokers[0].fetched
        async with consumer(
            cluster,
            client_id="program",
            client_rack="R1",
            fetch_min_bytes=7,
            fetch_max_bytes=5_000,
            fetch_max_wait_ms=400,
            max_partition_fetch_bytes=3_000,
        ) as c:
            assert await c.getmany(timeout_ms=10_000) == {}
            first = fetched[0]
            assert (first.client_id, first.client_rack) == ("program", "R1")
            for one in fetched:
                assert (one.min_bytes, one.max_bytes, one.max_wait_ms) == (7, 5_000, 400)
                assert [part.max_bytes for part in one.partitions] in ([], [3_000])
            assert len(fetched) <= 10_000 / 400 + 2
            # a record does not wait for the end of the poll
            loop = asyncio.get_running_loop()
            loop.call_later(0.1, partition.write, b"v")
            began = loop.time()
            assert (await c.getone()).value == b"v"
            assert loop.time() - began < 0.15

    with_cluster(program)


def test_lag_counts_what_is_committed_and_was_not_read() -> None:
    async def program(cluster: FakeCluster) -> None:
        partition = cluster.add_topic("t").partitions[0]
        partition.write(b"0", b"1", b"2")
        key = TopicPartition("t", 0)
        async with consumer(cluster) as c:
            assert await c.lag() == {key: 3}
            await c.getone()
            assert await c.lag() == {key: 2}
            partition.write(b"3")
            assert await c.lag() == {key: 3}
            c.seek(key, 9)
            assert await c.lag() == {key: 0}

    with_cluster(program)
