"""A topic gets more partitions while a producer writes to it: it uses them soon."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from quorate import Producer
from quorate.errors import InvalidPartitionsError, UnknownTopicError
from quorate.producer.partitioner import RoundRobinPartitioner, partition_for_key
from tests.harness.fake_leaders import FakeCluster, FakePartition, FakeTopic, with_cluster

#: A running producer looks for new partitions at least so often, with time for an answer.
SOON_S = 3.0
KEYS = [b"key-%d" % number for number in range(60)]


def producer(cluster: FakeCluster, **settings: Any) -> Producer:
    return Producer(bootstrap_servers=cluster.bootstrap, **settings)


def grow(cluster: FakeCluster, topic: FakeTopic, count: int) -> None:
    while len(topic.partitions) < count:
        topic.partitions.append(FakePartition(len(topic.partitions) % len(cluster.brokers)))
    cluster.image_offset += 1


async def write_for(p: Producer, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while loop.time() < until:
        await p.send_and_wait("t", b"before", partition=0)
        await asyncio.sleep(0.1)


def test_a_key_goes_where_the_new_number_of_partitions_sends_it() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t", 3)
        async with producer(cluster) as p:
            for key in KEYS:
                assert (await p.send_and_wait("t", b"v", key)).partition == partition_for_key(
                    key, 3
                )
            grow(cluster, topic, 7)
            await write_for(p, SOON_S)
            for key in KEYS:
                assert (await p.send_and_wait("t", b"v", key)).partition == partition_for_key(
                    key, 7
                )
            assert await p.partitions_for("t") == set(range(7))

    with_cluster(program)


@pytest.mark.parametrize("partitioner", [None, RoundRobinPartitioner()])
def test_records_without_a_key_go_to_the_new_partitions_too(
    partitioner: RoundRobinPartitioner | None,
) -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t", 1)
        async with producer(cluster, partitioner=partitioner, max_batch_size=200) as p:
            await p.send_and_wait("t", b"v")
            grow(cluster, topic, 4)
            await write_for(p, SOON_S)
            used: Counter[int] = Counter()
            for _ in range(200):
                used[(await p.send_and_wait("t", b"v" * 100)).partition] += 1
            assert set(used) == {0, 1, 2, 3}, used

    with_cluster(program)


def test_a_named_partition_that_is_new_is_found_at_once() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t", 1)
        async with producer(cluster) as p:
            await p.send_and_wait("t", b"v")
            grow(cluster, topic, 3)
            began = asyncio.get_running_loop().time()
            assert (await p.send_and_wait("t", b"v", partition=2)).partition == 2
            assert asyncio.get_running_loop().time() - began < 1
            with pytest.raises(InvalidPartitionsError, match=r"partitions 0 to 2, and no .* 3"):
                await p.send("t", b"v", partition=3)

    with_cluster(program)


def test_a_named_partition_that_no_broker_can_be_asked_of_is_refused() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t", 1)
        async with producer(cluster) as p:
            await p.send_and_wait("t", b"v")
            for broker in cluster.brokers:
                await broker.kill()
            async with asyncio.timeout(40):
                with pytest.raises(InvalidPartitionsError, match="no partition 3"):
                    await p.send("t", b"v", partition=3)
            for broker in cluster.brokers:
                await broker.start()

    with_cluster(program)


def test_a_producer_that_sends_nothing_asks_seldom() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t", 1)
        async with producer(cluster) as p:
            await p.send_and_wait("t", b"v")
            await asyncio.sleep(5)
            asked = sum(broker.metadata_asked for broker in cluster.brokers)
            await asyncio.sleep(25)
            assert sum(broker.metadata_asked for broker in cluster.brokers) <= asked + 1

    with_cluster(program)


def test_a_leader_that_does_not_know_its_new_partition_yet_gets_the_record_later() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t", 1)
        async with producer(cluster) as p:
            await p.send_and_wait("t", b"v")
            find, unknown = cluster.find, [10]

            def late(topic_id: bytes, partition: int) -> tuple[str, FakePartition]:
                if partition == 1 and unknown[0]:
                    unknown[0] -= 1
                    raise UnknownTopicError(f"no topic {topic_id.hex()} with partition 1 here")
                return find(topic_id, partition)

            cluster.find = late  # type: ignore[method-assign]
            grow(cluster, topic, 2)
            assert (await p.send_and_wait("t", b"new", partition=1)).offset == 0
            assert unknown == [0]
            assert topic.partitions[1].values() == [b"new"]

    with_cluster(program)
