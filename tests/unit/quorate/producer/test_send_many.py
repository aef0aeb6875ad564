"""Many records in one call, against brokers that a test moves, silences and breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from quorate import Delivery, Producer, RoundRobinPartitioner
from quorate.errors import (
    ClosedError,
    CorruptRecordError,
    InvalidPartitionsError,
    InvalidTimestampError,
    NotLeaderError,
    OverloadedError,
    QuorateError,
    RecordTooLargeError,
    UnknownTopicError,
)
from quorate.producer.partitioner import partition_for_key
from quorate.record.record import TIMESTAMP_MIN
from quorate.serializers import String
from tests.harness.fake_leaders import FakeCluster, FakeTopic, with_cluster


def producer(cluster: FakeCluster, **settings: Any) -> Producer:
    return Producer(bootstrap_servers=cluster.bootstrap, **settings)


def written(topic: FakeTopic) -> dict[int, list[bytes | None]]:
    return {number: one.values() for number, one in enumerate(topic.partitions)}


VALUES = [b"%d" % number * (number % 50) for number in range(3000)]


@pytest.mark.parametrize("settings", [{}, {"compression_type": "zstd"}, {"acks": 1}, {"acks": 0}])
@pytest.mark.parametrize("partitions", [1, 3])
def test_each_record_arrives_once_and_its_delivery_knows_where(
    settings: dict[str, Any], partitions: int
) -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t", partitions)
        async with producer(cluster, max_batch_size=5000, **settings) as p:
            deliveries = await p.send_many("t", VALUES, timestamp_ms=7)
            assert len(deliveries) == len(VALUES)
            found = await asyncio.gather(*deliveries)
        arrived = [one for values in written(topic).values() for one in values if one is not None]
        assert sorted(arrived) == sorted(VALUES)
        if settings.get("acks") != 0:
            values = written(topic)
            assert [values[one.partition][one.offset] for one in found] == VALUES
        assert {(one.topic, one.timestamp_ms) for one in found} == {("t", 7)}

    with_cluster(program)


def test_calls_of_send_and_send_many_keep_their_order_under_retries() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        failures = [NotLeaderError("x"), None, NotLeaderError("x"), "lose"] * 3
        cluster.fault = lambda *_: failures.pop() if failures else None
        async with producer(cluster, max_batch_size=300, request_timeout_ms=1000) as p:
            sent: list[bytes] = []
            for size in (1, 40, 7, 100, 3):
                values = [b"%d-%d" % (size, number) for number in range(size)]
                await p.send_many("t", values)
                await p.send("t", b"single")
                sent += [*values, b"single"]
        assert topic.partitions[0].values() == sent

    with_cluster(program)


def test_keys_choose_partitions_and_keep_the_order_of_each() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t", 4)
        keys = [None if number % 5 == 0 else b"%d" % (number % 7) for number in range(500)]
        values = [b"%d" % number for number in range(500)]
        async with producer(cluster, max_batch_size=400) as p:
            deliveries = await p.send_many("t", values, keys)
            places = await asyncio.gather(*deliveries)
        for key, value, place in zip(keys, values, places, strict=True):
            assert topic.partitions[place.partition].values()[place.offset] == value
            if key is not None:
                assert place.partition == partition_for_key(key, 4)
        for partition in topic.partitions:
            for key in {key for key in keys if key is not None}:
                mine = [int(one.value or b"") for one in partition.records() if one.key == key]
                assert mine == sorted(mine)

    with_cluster(program)


def test_a_partition_a_partitioner_headers_and_nulls() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t", 3)
        async with producer(cluster) as p:
            await p.send_many("t", [b"a", None, b""], [b"k", None, b""], 2, headers=[("h", b"1")])
            await p.flush()
        found = topic.partitions[2].records()
        assert [(one.key, one.value) for one in found] == [(b"k", b"a"), (None, None), (b"", b"")]
        assert {one.headers for one in found} == {(("h", b"1"),)}
        async with producer(cluster, partitioner=RoundRobinPartitioner()) as p:
            places = await asyncio.gather(*await p.send_many("t", [b"x"] * 6))
            assert [one.partition for one in places] == [0, 1, 2, 0, 1, 2]

    with_cluster(program)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"values": [b"a", "b"]}, TypeError, "value must be bytes or None, not str"),
        ({"values": [b"a"], "keys": [1]}, TypeError, "key must be bytes or None, not int"),
        ({"values": [b"a"], "keys": []}, ValueError, "as many as values, not 0 for 1 values"),
        ({"values": b"abc"}, TypeError, "a list, with a value for each record"),
        ({"values": 7}, TypeError, "a list, with a value for each record"),
        ({"values": [b"a"], "timestamp_ms": 1.5}, TypeError, "send_many: timestamp_ms"),
        (
            {"values": [b"a"], "timestamp_ms": TIMESTAMP_MIN - 1},
            InvalidTimestampError,
            "timestamp_ms must be",
        ),
        (
            {"values": [b"a"], "timestamp_ms": (1 << 62) + 1},
            InvalidTimestampError,
            "timestamp_ms must be",
        ),
        ({"values": [b"a"], "headers": [("a", "b")]}, TypeError, "pairs of a string and bytes"),
        ({"values": [b"a"], "partition": 9}, InvalidPartitionsError, "partitions 0 to 0"),
        ({"values": [b"a"], "partition": "0"}, TypeError, "partition must be a whole number"),
        ({"values": [b"a"], "topic": 7}, TypeError, "name must be a string"),
        ({"values": [b"a"], "topic": ["t"]}, TypeError, "name must be a string"),
        ({"values": [b"a"], "topic": "nope"}, UnknownTopicError, "quorate topic create nope"),
    ],
)
def test_a_wrong_argument_sends_nothing(
    arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        async with producer(cluster) as p:
            with pytest.raises(error, match=text):
                await p.send_many(**{"topic": "t", **arguments})
            await p.send_and_wait("t", b"good")
        assert topic.partitions[0].values() == [b"good"]

    with_cluster(program)


def test_no_values_are_allowed_and_a_stopped_producer_is_not() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        async with producer(cluster) as p:
            assert list(await p.send_many("t", [])) == []
        with pytest.raises(ClosedError):
            await p.send_many("t", [b"a"])

    with_cluster(program)


def test_the_deliveries_are_a_sequence_whose_elements_stay_the_same() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        async with producer(cluster, key_serializer=String(), value_serializer=String()) as p:
            deliveries = await p.send_many("t", ["a", "b", "c"])
            assert isinstance(deliveries, Sequence)
            assert deliveries[0] is deliveries[-3] is next(iter(deliveries))
            assert deliveries[1:] == [deliveries[1], deliveries[2]]
            with pytest.raises(IndexError):
                deliveries[3]
            assert [one.offset for one in await asyncio.gather(*deliveries)] == [0, 1, 2]

    with_cluster(program)


def test_a_full_buffer_makes_it_wait_and_records_go_on_in_order() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        values = [b"%100d" % number for number in range(200)]
        async with producer(cluster, buffer_memory=2000, linger_ms=60_000) as p:
            for _ in range(2):
                await p.send_many("t", values)
                assert p._accumulator.bytes_used <= 2000
            await p.flush()
            assert p._accumulator.bytes_used == 0
        assert topic.partitions[0].values() == values * 2

    with_cluster(program)


def test_calls_that_wait_for_room_take_turns() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        async with producer(cluster, buffer_memory=1000) as p:
            async with asyncio.TaskGroup() as group:
                for name in (b"a", b"b", b"c"):
                    values = [name + b"%100d" % number for number in range(30)]
                    group.create_task(p.send_many("t", values))
            await p.flush()
        found = topic.partitions[0].values()
        for name in (b"a", b"b", b"c"):
            mine = [one for one in found if one is not None and one.startswith(name)]
            assert mine == [name + b"%100d" % number for number in range(30)]

    with_cluster(program)


def test_a_buffer_that_stays_full_is_told_and_the_first_records_are_kept() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        async with producer(cluster, buffer_memory=1000, delivery_timeout_ms=2000) as p:
            await p.send_and_wait("t", b"x")
            with pytest.raises(RecordTooLargeError, match="buffer_memory"):
                await p.send_many("t", [b"small", bytes(2000), b"late"])
            await p.flush()
            assert topic.partitions[0].values() == [b"x", b"small"]
            await p.send("t", bytes(900))
            cluster.brokers[0].running.clear()
            with pytest.raises(OverloadedError):
                await p.send_many("t", [bytes(900)] * 2)
            cluster.brokers[0].running.set()

    with_cluster(program)


def test_a_cancelled_call_leaves_the_producer_as_it_should_be() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        async with producer(cluster, buffer_memory=1000) as p:
            cluster.brokers[0].running.clear()
            task = asyncio.ensure_future(p.send_many("t", [bytes(100)] * 50))
            await asyncio.sleep(0.1)
            assert not task.done()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            cluster.brokers[0].running.set()
            await p.send_and_wait("t", b"next")
            assert p._accumulator.bytes_used == 0
            assert topic.partitions[0].values()[-1] == b"next"

    with_cluster(program)


def test_an_error_for_good_fails_the_records_of_its_batch_alone() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        async with producer(cluster, max_batch_size=500) as p:
            await p.send_and_wait("t", b"x")
            failures: list[QuorateError] = [CorruptRecordError("bad")]
            cluster.fault = lambda *_: failures.pop() if failures else None
            deliveries = await p.send_many("t", [b"%50d" % number for number in range(100)])
            found = await asyncio.gather(*deliveries, return_exceptions=True)
            lost = sum(isinstance(one, CorruptRecordError) for one in found)
            assert 0 < lost < 20
            assert len(topic.partitions[0].values()) == 101 - lost

    with_cluster(program)


def test_an_error_of_the_partitioner_keeps_the_records_before_it() -> None:
    def choose(key: bytes | None, partitions: Sequence[int], available: Sequence[int]) -> int:
        if key == b"bad":
            raise LookupError("no such customer")
        return 0

    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        async with producer(cluster, partitioner=choose) as p:
            with pytest.raises(LookupError):
                await p.send_many("t", [b"1", b"2", b"3"], [b"a", b"bad", b"c"])
        assert topic.partitions[0].values() == [b"1"]

    with_cluster(program)


def test_a_delivery_that_was_not_asked_for_costs_nothing_and_is_counted() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        async with producer(cluster) as p:
            await p.send_and_wait("t", b"x")
            cluster.fault = lambda *_: CorruptRecordError("bad")
            deliveries = await p.send_many("t", [b"a", b"b", b"c"])
            waiting: asyncio.Task[Any] = asyncio.ensure_future(_outcome(deliveries[1]))
            await asyncio.sleep(0)
            await p.flush()
            assert isinstance(await waiting, CorruptRecordError)
            assert p.undelivered == 2

    with_cluster(program)


async def _outcome(delivery: Delivery) -> object:
    try:
        return await delivery
    except QuorateError as error:
        return error
