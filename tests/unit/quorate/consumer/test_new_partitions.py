"""A topic gets more partitions while a consumer reads it: nothing in them is passed over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from quorate import Consumer, TopicPartition
from quorate.errors import OffsetOutOfRangeError, UnknownTopicError
from tests.harness.fake_leaders import FakeCluster, FakePartition, FakeTopic, with_cluster

T0, T1, T2 = (TopicPartition("t", number) for number in range(3))


def consumer(cluster: FakeCluster, *topics: str, **settings: Any) -> Consumer:
    settings.setdefault("auto_offset_reset", "latest")
    return Consumer(*topics, bootstrap_servers=cluster.bootstrap, **settings)


async def values(c: Consumer, count: int) -> list[Any]:
    async with asyncio.timeout(60):
        return [(await c.getone()).value for _ in range(count)]


def grow(cluster: FakeCluster, topic: FakeTopic, *records: bytes) -> FakePartition:
    """Give a topic one more partition, in which records are written at once."""
    topic.partitions.append(FakePartition(len(topic.partitions) % len(cluster.brokers)))
    topic.partitions[-1].write(*records)
    cluster.image_offset += 1
    return topic.partitions[-1]


SUBSCRIBE: dict[str, Callable[[Consumer], Any]] = {
    "topics": lambda c: c.subscribe(["t"]),
    "a pattern": lambda c: c.subscribe(pattern="t.*"),
}


@pytest.mark.parametrize("how", SUBSCRIBE)
@pytest.mark.parametrize("policy", ["earliest", "latest"])
def test_a_new_partition_is_read_from_its_beginning(how: str, policy: str) -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        async with consumer(cluster, auto_offset_reset=policy) as c:
            await SUBSCRIBE[how](c)
            grow(cluster, topic, b"1", b"2")
            assert await values(c, 2) == [b"1", b"2"]
            grow(cluster, topic, b"3")
            assert await values(c, 1) == [b"3"]
            assert c.assignment() == {T0, T1, T2}
            assert await c.position(T1) == 2

    with_cluster(program)


@pytest.mark.parametrize("first", SUBSCRIBE)
@pytest.mark.parametrize("again", [{"topics": ["t", "u"]}, {"pattern": "t|u"}])
def test_a_subscription_that_is_replaced_passes_over_nothing_of_a_topic_that_it_keeps(
    first: str, again: dict[str, Any]
) -> None:
    """The consumer learns of the new partition only by the look that subscribe() causes."""

    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        cluster.add_topic("u").partitions[0].write(b"old")
        async with consumer(cluster) as c:
            await SUBSCRIBE[first](c)
            if first == "a pattern":
                await SUBSCRIBE[first](c)  # twice is the same
            grow(cluster, topic, b"1", b"2")
            await c.subscribe(**again)
            assert await values(c, 2) == [b"1", b"2"]
            assert await c.getmany(timeout_ms=3000) == {}
            assert T1 in c.assignment()

    with_cluster(program)


def test_a_topic_of_which_only_some_partitions_were_assigned_begins_as_any_other() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t", 2)
        topic.partitions[1].write(b"old")
        async with consumer(cluster) as c:
            await c.assign([T0])
            await c.subscribe(["t"])
            topic.partitions[1].write(b"new")
            assert await values(c, 1) == [b"new"]
            c.unsubscribe()
            topic.partitions[1].write(b"missed")
            await c.subscribe(["t"])
            topic.partitions[1].write(b"newer")
            assert await values(c, 1) == [b"newer"]

    with_cluster(program)


def test_an_assignment_stays_as_it_is() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        async with consumer(cluster) as c:
            await c.assign([T0])
            grow(cluster, topic, b"1")
            topic.partitions[0].write(b"0")
            assert await values(c, 1) == [b"0"]
            assert await c.getmany(timeout_ms=70_000) == {}
            assert c.assignment() == {T0}

    with_cluster(program)


def test_a_new_partition_can_be_assigned_soon_after_it_was_refused() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        async with consumer(cluster, auto_offset_reset="earliest") as c:
            await c.assign([T0])
            grow(cluster, topic, b"1")
            with pytest.raises(UnknownTopicError, match="partitions 0 to 0, and no partition 1"):
                c.assign([T1])
            await asyncio.sleep(1)
            await c.assign([T1])
            assert await values(c, 1) == [b"1"]

    with_cluster(program)


def test_without_a_policy_a_new_partition_is_told_and_read_after_a_seek() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        async with consumer(cluster, "t", auto_offset_reset="none") as c:
            c.seek(T0, 0)
            grow(cluster, topic, b"1")
            with pytest.raises(OffsetOutOfRangeError, match="t-1 has no position"):
                await values(c, 1)
            c.seek(T1, 0)
            assert await values(c, 1) == [b"1"]

    with_cluster(program)


def test_a_listener_is_told_of_the_new_partitions_alone() -> None:
    class Listener:
        def __init__(self) -> None:
            self.told: list[list[TopicPartition]] = []

        def on_partitions_assigned(self, partitions: list[TopicPartition]) -> None:
            self.told.append(partitions)

    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        listener = Listener()
        async with consumer(cluster) as c:
            await c.subscribe(["t"], listener=listener)
            grow(cluster, topic, b"1")
            assert await values(c, 1) == [b"1"]
            assert listener.told == [[T0], [T1]]

    with_cluster(program)


@pytest.mark.parametrize("policy", ["earliest", "latest"])
def test_a_leader_that_does_not_know_its_new_partition_yet_is_asked_again(policy: str) -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        async with consumer(cluster, "t", auto_offset_reset=policy) as c:
            find, unknown = cluster.find, [20]

            def late(topic_id: bytes, partition: int) -> tuple[str, FakePartition]:
                if partition == 1 and unknown[0]:
                    unknown[0] -= 1
                    raise UnknownTopicError(f"no topic {topic_id.hex()} with partition 1 here")
                return find(topic_id, partition)

            cluster.find = late  # type: ignore[method-assign]
            grow(cluster, topic, b"1", b"2")
            assert await values(c, 2) == [b"1", b"2"]
            assert unknown == [0]

    with_cluster(program)
