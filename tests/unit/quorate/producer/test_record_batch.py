"""Batches that a program fills: their records are written together, or none of them is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from quorate import Producer, RecordBatch
from quorate.errors import (
    ClosedError,
    DeliveryTimeoutError,
    InvalidPartitionsError,
    InvalidRequestError,
    NotLeaderError,
    QuorateError,
    RecordTooLargeError,
    UnknownTopicError,
)
from tests.harness.fake_leaders import FakeCluster, with_cluster


def producer(cluster: FakeCluster, **settings: Any) -> Producer:
    return Producer(bootstrap_servers=cluster.bootstrap, **settings)


def filled(p: Producer, values: list[bytes]) -> RecordBatch:
    batch = p.create_batch()
    for number, value in enumerate(values):
        assert batch.append(value) == number + 1
    return batch


def at_most(size_max: int) -> Any:
    """Refuse larger batches, as a topic with this max.message.bytes does."""

    def fault(_topic: str, _partition: int, batch: bytes) -> QuorateError | None:
        return RecordTooLargeError("too large") if len(batch) > size_max else None

    return fault


def test_a_batch_is_written_as_one_batch_and_its_delivery_has_the_first_offset() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t", 2)
        async with producer(cluster) as p:
            await p.send_and_wait("t", b"0", partition=1)
            batch = p.create_batch()
            assert batch.append(b"v", key=b"k", timestamp_ms=7, headers=[("h", None)]) == 1
            assert batch.append(None) == 2
            assert batch.append() == batch.count == 3
            where = await (await p.send_batch(batch, "t", partition=1))
            assert (where.topic, where.partition, where.offset, where.timestamp_ms) == (
                "t",
                1,
                1,
                7,
            )
        found = topic.partitions[1].records()[1:]
        assert [(one.key, one.value) for one in found] == [(b"k", b"v"), (None, None), (None, None)]
        assert found[0].headers == (("h", None),)
        assert [header.count for header, _ in topic.partitions[1].batches] == [1, 3]

    with_cluster(program)


def test_a_full_batch_takes_no_more_and_fits_the_limit() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        async with producer(cluster, max_batch_size=1000) as p:
            batch = p.create_batch()
            while batch.append(bytes(100)) is not None:
                pass
            assert batch.count == 8
            assert batch.size <= 1000
            assert batch.append(bytes(10)) == 9  # a smaller one still fits
            with pytest.raises(RecordTooLargeError, match="1000 bytes"):
                batch.append(bytes(1000))
            await p.send_batch(batch, "t", partition=0)
        (sent,) = topic.partitions[0].batches
        assert sent[0].count == 9
        assert sent[0].size <= 1000

    with_cluster(program)


def test_batches_and_records_of_a_partition_keep_the_order_of_their_calls() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        failures = [NotLeaderError("x"), None, "lose", NotLeaderError("x")] * 4
        cluster.fault = lambda *_: failures.pop() if failures else None
        async with producer(cluster, request_timeout_ms=1000, linger_ms=50) as p:
            for number in range(20):
                await p.send("t", b"%d a" % number)
                batch = filled(p, [b"%d b" % number, b"%d c" % number])
                await p.send_batch(batch, "t", partition=0)
                await p.send_many("t", [b"%d d" % number, b"%d e" % number])
        expected = [
            b"%d %s" % (n, letter) for n in range(20) for letter in (b"a", b"b", b"c", b"d", b"e")
        ]
        assert topic.partitions[0].values() == expected

    with_cluster(program)


def test_a_batch_is_written_once_and_whole_when_its_stream_breaks() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        async with producer(cluster) as p:
            for number in range(10):
                cluster.break_next = number % 3 == 1
                batch = filled(p, [b"%d-%d" % (number, index) for index in range(5)])
                delivery = await p.send_batch(batch, "t", partition=0)
                await asyncio.sleep(0.01)
            await delivery
        values = topic.partitions[0].values()
        whole = [[b"%d-%d" % (number, index) for index in range(5)] for number in range(10)]
        assert [values[at : at + 5] for at in range(0, len(values), 5)] == whole

    with_cluster(program)


def test_a_batch_that_is_too_large_is_not_split_and_later_records_go_on() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        cluster.fault = at_most(1000)
        async with producer(cluster) as p:
            large = await p.send_batch(filled(p, [bytes(200)] * 10), "t", partition=0)
            small = await p.send_batch(filled(p, [b"a", b"b"]), "t", partition=0)
            many = await p.send_many("t", [bytes(200)] * 10)
            with pytest.raises(RecordTooLargeError, match="too large"):
                await large
            assert (await small).offset == 0
            assert [(await one).offset for one in many] == list(range(2, 12))
            assert p.undelivered == 0
        assert topic.partitions[0].values() == [b"a", b"b", *[bytes(200)] * 10]

    with_cluster(program)


def test_all_records_of_a_batch_fail_together_and_who_awaits_it_has_heard_of_all() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        async with producer(cluster, delivery_timeout_ms=1000) as p:
            await p.send_and_wait("t", b"0")
            refusal = InvalidRequestError("record 2 of its batch is without a key")
            refusal.refused_records = (2,)
            failures: list[QuorateError] = [refusal]
            cluster.fault = lambda *_: failures.pop() if failures else None
            delivery = await p.send_batch(filled(p, [b"a", b"b", b"c"]), "t", partition=0)
            with pytest.raises(InvalidRequestError, match=r"^record 2 of its batch"):
                await delivery
            cluster.fault = lambda *_: NotLeaderError("x")
            delivery = await p.send_batch(filled(p, [b"d", b"e"]), "t", partition=0)
            with pytest.raises(DeliveryTimeoutError):
                await delivery
            assert p.undelivered == 0
            await p.send_batch(filled(p, [b"f", b"g", b"h"]), "t", partition=0)
            await p.flush()
            assert p.undelivered == 3
            cluster.fault = lambda *_: None
        assert topic.partitions[0].values() == [b"0"]

    with_cluster(program)


def test_a_batch_is_sent_once_and_by_its_producer() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        async with producer(cluster) as p, producer(cluster) as other:
            batch = p.create_batch()
            with pytest.raises(ValueError, match="must have a record"):
                await p.send_batch(batch, "t", partition=0)
            batch.append(b"a")
            with pytest.raises(ValueError, match="of this producer"):
                await other.send_batch(batch, "t", partition=0)
            batch.close()
            with pytest.raises(ClosedError, match="takes no more records"):
                batch.append(b"b")
            await p.send_batch(batch, "t", partition=0)
            for _ in range(2):
                with pytest.raises(InvalidRequestError, match="sent already"):
                    await p.send_batch(batch, "t", partition=0)
                await p.flush()
            assert batch.count == 1
            another = filled(p, [b"c"])
            await p.send_batch(another, "t", partition=0)
            with pytest.raises(ClosedError):
                another.append(b"d")
        assert topic.partitions[0].values() == [b"a", b"c"]
        with pytest.raises(ClosedError):
            p.create_batch()

    with_cluster(program)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"partition": 3}, InvalidPartitionsError, "partitions 0 to 0"),
        ({"partition": "0"}, TypeError, "partition must be"),
        ({"partition": -1}, InvalidPartitionsError, "partition must be"),
        ({"topic": 7}, TypeError, "topic must be"),
        ({"topic": "nope"}, UnknownTopicError, "nope"),
        ({"batch": b"x"}, TypeError, "batch must be an object of the class RecordBatch"),
    ],
)
def test_a_batch_of_a_refused_call_can_be_sent_again(
    arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        async with producer(cluster) as p:
            batch = filled(p, [b"a", b"b"])
            with pytest.raises(error, match=text):
                await p.send_batch(**{"batch": batch, "topic": "t", "partition": 0, **arguments})
            await p.send_batch(batch, "t", partition=0)
        assert topic.partitions[0].values() == [b"a", b"b"]

    with_cluster(program)


def test_a_batch_waits_for_room_and_a_cancelled_call_can_be_repeated() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        async with producer(cluster, buffer_memory=1000) as p:
            cluster.brokers[0].running.clear()
            first = filled(p, [bytes(100)] * 6)
            await p.send_batch(first, "t", partition=0)
            second = filled(p, [b"%100d" % number for number in range(6)])
            task = asyncio.ensure_future(p.send_batch(second, "t", partition=0))
            await asyncio.sleep(0.1)
            with pytest.raises(InvalidRequestError):
                await p.send_batch(second, "t", partition=0)  # the task sends it
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            cluster.brokers[0].running.set()
            await p.send_batch(second, "t", partition=0)
            await p.flush()
            assert p._accumulator.bytes_used == 0
            with pytest.raises(RecordTooLargeError, match="buffer_memory"):
                await p.send_batch(filled(p, [bytes(100)] * 20), "t", partition=0)
        values = topic.partitions[0].values()
        assert values == [*[bytes(100)] * 6, *[b"%100d" % number for number in range(6)]]

    with_cluster(program)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"value": "text"}, TypeError),
        ({"key": 5}, TypeError),
        ({"headers": [("a", "b")]}, TypeError),
        ({"timestamp_ms": 0.5}, TypeError),
        ({"timestamp_ms": 2**63}, QuorateError),
        ({"timestamp_ms": 2**62 + 1}, QuorateError),
    ],
)
def test_a_wrong_record_leaves_the_batch_as_it_was(
    arguments: dict[str, Any], error: type[Exception]
) -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        async with producer(cluster) as p:
            batch = filled(p, [b"a"])
            with pytest.raises(error, match="must be"):
                batch.append(**arguments)
            await p.send_batch(batch, "t", partition=0)
        assert topic.partitions[0].values() == [b"a"]

    with_cluster(program)


def test_a_batch_of_a_producer_with_a_codec_is_compressed() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        async with producer(cluster, compression_type="zstd") as p:
            await p.send_batch(filled(p, [ZEROS] * 50), "t", partition=0)
        ((header, _),) = topic.partitions[0].batches
        assert (header.count, header.codec) == (50, 4)
        assert header.size < 2000

    with_cluster(program)


ZEROS = bytes(100)
