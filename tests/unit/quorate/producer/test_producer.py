"""The producer against brokers that a test moves, silences and breaks, in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from quorate import Delivery, Producer, RecordMetadata, RoundRobinPartitioner
from quorate.errors import (
    ClosedError,
    CorruptRecordError,
    DeliveryTimeoutError,
    InvalidPartitionsError,
    InvalidRequestError,
    InvalidTimestampError,
    NotEnoughReplicasAfterAppendError,
    NotEnoughReplicasError,
    NotLeaderError,
    OutcomeUnknownError,
    OverloadedError,
    QuorateError,
    QuorumUnavailableError,
    RecordTooLargeError,
    StorageError,
    UnknownTopicError,
)
from quorate.producer.partitioner import partition_for_key
from quorate.producer.produce_stream import UNREAD_REQUESTS_MAX
from quorate.record.record import TIMESTAMP_MIN
from quorate.serializers import Json, String
from quorate.v1.admin_pb2 import MetadataRequest
from tests.harness.fake_leaders import FakeCluster, with_cluster


def producer(cluster: FakeCluster, **settings: Any) -> Producer:
    return Producer(bootstrap_servers=cluster.bootstrap, **settings)


def test_a_record_is_acknowledged_with_its_place() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        async with producer(cluster) as p:
            assert await p.send_and_wait("t", b"a", timestamp_ms=7) == RecordMetadata("t", 0, 0, 7)
            assert (await p.send_and_wait("t", b"b")).offset == 1

    with_cluster(program)


@pytest.mark.parametrize("acks", ["all", 1, 0])
def test_records_arrive_once_in_order(acks: Any) -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        async with producer(cluster, acks=acks, max_batch_size=200) as p:
            for number in range(200):
                await p.send("t", b"%d" % number)
        assert topic.partitions[0].values() == [b"%d" % number for number in range(200)]

    with_cluster(program)


def test_null_is_not_empty_and_headers_keep_order() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        headers = [("a", b"1"), ("a", None), ("b", b"")]
        async with producer(cluster) as p:
            await p.send("t", None, b"", headers=headers)
            await p.send("t", b"", None)
        first, second = topic.partitions[0].records()
        assert (first.key, first.value, list(first.headers)) == (b"", None, headers)
        assert (second.key, second.value, second.headers) == (None, b"", ())

    with_cluster(program)


@pytest.mark.parametrize("hints", [True, False])
def test_a_moved_leader_gets_the_batch(hints: bool) -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        cluster.hints = hints
        async with producer(cluster) as p:
            await p.send_and_wait("t", b"0")
            cluster.move("t", 0, 1)
            before = asyncio.get_running_loop().time()
            await p.send_and_wait("t", b"1")
            assert asyncio.get_running_loop().time() - before < 0.2
        assert topic.partitions[0].values() == [b"0", b"1"]

    with_cluster(program)


def test_the_new_leader_that_an_error_names_gets_the_batch_at_once() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        loop = asyncio.get_running_loop()
        async with producer(cluster) as p:
            await p.send_and_wait("t", b"0")
            old = cluster.metadata(MetadataRequest(topics=["t"]))
            cluster.metadata = lambda request: old  # type: ignore[method-assign]
            cluster.move("t", 0, 1)
            began = loop.time()
            assert (await p.send_and_wait("t", b"1")).offset == 1
            assert loop.time() - began < 0.01

    with_cluster(program)


def test_a_silent_leader_is_left_for_the_new_one_within_a_second() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        async with producer(cluster) as p:
            await p.send_and_wait("t", b"0")
            cluster.brokers[0].running.clear()
            waiting = asyncio.ensure_future(p.send_and_wait("t", b"1"))
            await asyncio.sleep(3)
            assert not waiting.done()
            cluster.move("t", 0, 1)
            before = asyncio.get_running_loop().time()
            await waiting
            assert asyncio.get_running_loop().time() - before < 1
            cluster.brokers[0].running.set()
            await p.send_and_wait("t", b"2")
        assert topic.partitions[0].values() == [b"0", b"1", b"2"]

    with_cluster(program)


def test_a_broken_stream_doubles_nothing() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        async with producer(cluster, max_batch_size=150) as p:
            for number in range(50):
                cluster.break_next = number in (3, 20, 40)
                await p.send("t", b"%d" % number)
                await asyncio.sleep(0.002)
        assert topic.partitions[0].values() == [b"%d" % number for number in range(50)]

    with_cluster(program)


@pytest.mark.parametrize(
    "error",
    [
        NotLeaderError("x"),
        NotEnoughReplicasError("x"),
        OutcomeUnknownError("leadership was lost"),
        OverloadedError("x"),
        StorageError("offline here"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_may_pass_is_tried_again_in_order(error: QuorateError) -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        failures = [error, None, error, error]
        cluster.fault = lambda *_: failures.pop() if failures else None
        async with producer(cluster, max_batch_size=100) as p:
            for number in range(20):
                await p.send("t", b"%d" % number)
        assert topic.partitions[0].values() == [b"%d" % number for number in range(20)]
        assert p.undelivered == 0

    with_cluster(program)


@pytest.mark.parametrize("settings", [{"acks": 1}, {"enable_idempotence": False}], ids=str)
def test_without_idempotence_a_retry_keeps_the_order_too(settings: dict[str, Any]) -> None:
    """A broker can't tell a gap then, so no batch may be under way behind another one."""

    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        cluster.delay_s = 0.01
        failures = [None, NotEnoughReplicasError("x"), None, None, StorageError("full")]
        cluster.fault = lambda *_: failures.pop() if failures else None
        async with producer(cluster, max_batch_size=100, **settings) as p:
            sent = [await p.send("t", b"%d" % number) for number in range(20)]
        assert topic.partitions[0].values() == [b"%d" % number for number in range(20)]
        assert [one.result().offset for one in sent] == list(range(20))

    with_cluster(program)


def test_with_acks_0_a_record_is_sent_once() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        async with producer(cluster, acks=0) as p:
            cluster.fault = lambda *_: NotEnoughReplicasError("x")
            with pytest.raises(NotEnoughReplicasError):
                await (await p.send("t", b"0"))
            cluster.break_next = True
            with pytest.raises(OutcomeUnknownError):
                await (await p.send("t", b"1"))
            assert len(cluster.brokers[0].produced) == 2

    with_cluster(program)


def test_an_error_for_good_fails_its_batch_and_the_next_ones_go_on() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        failures: list[QuorateError] = [CorruptRecordError("bad")]
        cluster.fault = lambda *_: failures.pop() if failures else None
        async with producer(cluster, max_batch_size=1) as p:
            deliveries = [await p.send("t", b"%d" % number) for number in range(6)]
            with pytest.raises(CorruptRecordError, match="bad"):
                await deliveries[0]
            for delivery in deliveries[1:]:
                await delivery
            assert asyncio.get_running_loop().time() < 5
        assert topic.partitions[0].values() == [b"%d" % number for number in range(1, 6)]

    with_cluster(program)


def test_each_record_of_a_refused_batch_is_told_its_place_and_which_record_is_the_reason() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        refusal = InvalidRequestError("record 1 of its batch is without a key")
        refusal.refused_records = (1,)
        failures: list[QuorateError] = [refusal]
        cluster.fault = lambda *_: failures.pop() if failures else None
        async with producer(cluster) as p:
            sent = [await p.send("t", b"%d" % number) for number in range(3)]
            errors = [await _wait(delivery) for delivery in sent]
            assert [type(error) for error in errors] == [InvalidRequestError] * 3
            assert [delivery.exception() is None for delivery in sent] == [False] * 3
            assert str(errors[1]) == "record 1 of its batch is without a key"
            for number in (0, 2):
                assert str(errors[number]) == (
                    f"record {number} of its batch was not written, because the broker refused "
                    "another record of the same batch, and so the whole batch: record 1 of its "
                    "batch is without a key"
                )
            await p.send_and_wait("t", b"next")
        assert topic.partitions[0].values() == [b"next"]

    with_cluster(program)


def test_a_lost_answer_and_an_expiry_in_flight() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        async with producer(cluster, delivery_timeout_ms=2000) as p:
            await p.send_and_wait("t", b"0")
            cluster.fault = lambda *_: "lose"
            with pytest.raises(DeliveryTimeoutError, match="sent once"):
                await p.send_and_wait("t", b"1")
            cluster.fault = lambda *_: None
            await p.send_and_wait("t", b"2")
            assert p._accumulator.bytes_used == 0
        assert topic.partitions[0].values() == [b"0", b"1", b"2"]

    with_cluster(program)


@pytest.mark.parametrize(
    ("error", "may_be_written"),
    [
        (StorageError("nothing was written: the disk is full"), False),
        (NotEnoughReplicasError("x"), False),
        (NotEnoughReplicasAfterAppendError("x"), True),
        (OutcomeUnknownError("the append failed"), True),
    ],
)
def test_a_record_that_expires_after_refusals_alone_was_not_written(
    error: QuorateError, may_be_written: bool
) -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        async with producer(cluster, delivery_timeout_ms=2000) as p:
            cluster.fault = lambda *_: error
            with pytest.raises(DeliveryTimeoutError) as raised:
                await p.send_and_wait("t", b"1")
            assert raised.value.may_be_written == may_be_written, raised.value
            cluster.fault = lambda *_: None

    with_cluster(program)


def test_undelivered_records_are_counted_unless_someone_awaits_them() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        async with producer(cluster, delivery_timeout_ms=1000) as p:
            await p.send_and_wait("t", b"0")
            cluster.fault = lambda *_: NotEnoughReplicasError("x")
            awaited = await p.send("t", b"1")
            task = asyncio.ensure_future(_wait(awaited))
            await asyncio.sleep(0)
            await p.send("t", b"2")
            await p.flush()
            assert isinstance(await task, DeliveryTimeoutError)
            assert p.undelivered == 1

    with_cluster(program)


async def _wait(delivery: Delivery) -> BaseException | None:
    try:
        await delivery
    except QuorateError as error:
        return error
    return None


def test_a_full_buffer_makes_send_wait_in_order() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        async with producer(cluster, buffer_memory=1000, linger_ms=60000) as p:
            async with asyncio.TaskGroup() as group:
                for number in range(100):
                    group.create_task(p.send("t", b"%100d" % number))
            await p.flush()
            assert p._accumulator.bytes_used == 0
            with pytest.raises(RecordTooLargeError, match="buffer_memory"):
                await p.send("t", bytes(2000))
        assert len(set(topic.partitions[0].values())) == 100

    with_cluster(program)


def test_a_cancelled_wait_for_room_passes_its_turn_on() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        async with producer(cluster, buffer_memory=300) as p:
            cluster.brokers[0].running.clear()
            await p.send("t", bytes(200))
            tasks = [asyncio.ensure_future(p.send("t", bytes(200))) for _ in range(4)]
            await asyncio.sleep(0.1)
            assert not any(task.done() for task in tasks)
            tasks[0].cancel()
            cluster.brokers[0].running.set()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert [isinstance(one, Delivery) for one in done] == [False, True, True, True]

    with_cluster(program)


def test_only_a_request_in_flight_makes_records_linger() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        cluster.delay_s = 0.05
        loop = asyncio.get_running_loop()
        async with producer(cluster, linger_ms=20) as p:
            await p.send_and_wait("t", b"0")
            before = len(cluster.brokers[0].produced)
            await p.send("t", b"1")
            await asyncio.sleep(0.001)
            assert len(cluster.brokers[0].produced) == before + 1  # at once
            began = loop.time()
            await p.send("t", b"2")
            await p.send("t", b"3")
            await p.flush()
            assert loop.time() - began < 0.12

    with_cluster(program)


def test_a_full_batch_of_one_partition_lets_the_open_ones_of_others_linger() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t", 2)
        cluster.delay_s = 0.05
        broker = cluster.brokers[0]
        async with producer(cluster, linger_ms=80, max_batch_size=1000) as p:
            await p.send_and_wait("t", b"0", partition=0)
            await p.send("t", b"1", partition=0)
            await asyncio.sleep(0.001)  # its request is under way
            await p.send("t", b"lingers", partition=1)
            for _ in range(3):
                await p.send("t", bytes(500), partition=0)
            await p.flush()
            sent = [[one.partition for one in header.partitions] for header in broker.produced]
            assert sent[2] == [0]

    with_cluster(program, brokers=1)


def test_send_and_wait_and_flush_do_not_linger() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        cluster.delay_s = 0.05
        async with producer(cluster, linger_ms=1000) as p:
            await p.send_and_wait("t", b"0")
            waiting: asyncio.Future[Any]
            for call in (lambda: p.send_and_wait("t", b"2"), p.flush):
                await p.send("t", b"1")
                await asyncio.sleep(0.001)  # a request is under way
                await p.send("t", b"2")
                await asyncio.sleep(0.001)
                assert [batch.attempts for batch in p._accumulator.unfinished()] == [1, 0]
                waiting = asyncio.ensure_future(call())
                await asyncio.sleep(0.001)
                assert [batch.attempts for batch in p._accumulator.unfinished()] == [1, 1]
                await waiting

    with_cluster(program)


def test_flush_waits_for_what_was_sent_before_it_and_for_nothing_else() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t", 2)
        async with producer(cluster) as p:
            await p.partitions_for("t")
            cluster.brokers[1].running.clear()
            first = await p.send("t", b"0", partition=0)
            flushing = asyncio.ensure_future(p.flush())
            await asyncio.sleep(0)
            later = await p.send("t", b"1", partition=1)
            await asyncio.wait_for(flushing, 5)
            assert (first.done(), later.done()) == (True, False)
            cluster.brokers[1].running.set()

    with_cluster(program)


def test_flush_waits_for_the_parts_of_a_batch_that_was_split() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")

        def too_large(_topic: str, _partition: int, batch: bytes) -> QuorateError | None:
            return RecordTooLargeError("too large") if len(batch) > 1000 else None

        cluster.fault = too_large
        cluster.delay_s = 0.01
        async with producer(cluster) as p:
            sent = await p.send_many("t", [bytes(400)] * 8)
            await p.flush()
            assert [one.result().offset for one in sent if one.done()] == list(range(8))

    with_cluster(program)


def test_a_program_that_only_sends_lets_its_records_leave() -> None:
    """It never waits, so the loop runs for nobody else unless send() lets it."""

    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        async with producer(cluster, max_batch_size=1000, buffer_memory=1 << 30) as p:
            await p.send_and_wait("t", b"0")
            used = 0
            for _ in range(1000):
                await p.send("t", bytes(900))
                used = max(used, p._accumulator.bytes_used)
            assert used < 100 * 1000

    with_cluster(program)


def test_a_broker_that_reads_nothing_gets_few_requests() -> None:
    """Else the batches would leave as small as they are, into the buffers of the network."""

    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t", 20)
        async with producer(cluster, linger_ms=0) as p:
            await p.send_and_wait("t", b"0", partition=0)
            cluster.brokers[0].running.clear()
            for partition in range(20):
                await p.send("t", b"1", partition=partition)
                await asyncio.sleep(0.001)
            cluster.brokers[0].running.set()
            await p.flush()
            assert len(cluster.brokers[0].produced) <= 1 + UNREAD_REQUESTS_MAX + 2

    with_cluster(program, brokers=1)


def test_done_callbacks_and_flush_within_one() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        async with producer(cluster) as p:
            flushed: list[asyncio.Task[None]] = []
            delivery = await p.send("t", b"0")
            with pytest.raises(asyncio.InvalidStateError):
                delivery.result()
            delivery.add_done_callback(lambda _: flushed.append(asyncio.ensure_future(p.flush())))
            cancelled = asyncio.ensure_future(_wait(delivery))
            other = asyncio.ensure_future(_wait(delivery))
            await asyncio.sleep(0)
            cancelled.cancel()
            assert await other is None
            await asyncio.sleep(0)
            await flushed[0]
            assert delivery.done()
            assert delivery.result().offset == 0

    with_cluster(program)


def test_an_impossible_record_leaves_nothing_behind() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        async with producer(cluster) as p:
            with pytest.raises(InvalidTimestampError):
                await p.send("t", b"x", timestamp_ms=TIMESTAMP_MIN - 1)
            with pytest.raises(TypeError, match="value_serializer"):
                await p.send("t", "text")
            with pytest.raises(InvalidPartitionsError, match="partitions 0 to 0"):
                await p.send("t", b"x", partition=3)
            await p.send_and_wait("t", b"good")
        assert topic.partitions[0].values() == [b"good"]

    with_cluster(program)


@pytest.mark.parametrize(
    ("record", "text"),
    [
        ({"topic": b"t"}, "name must be a string of 1 to 249 characters, not b't'"),
        ({"topic": None}, "name must be a string of 1 to 249 characters, not None"),
        ({"timestamp_ms": 1.5}, "milliseconds since 1970, not 1.5"),
        ({"timestamp_ms": True}, "milliseconds since 1970, not True"),
        ({"topic": ["t"]}, r"name must be a string of 1 to 249 characters, not \['t'\]"),
        ({"partition": "0"}, "partition must be a whole number from 0 to 2147483647, not '0'"),
        ({"partition": False}, "partition must be a whole number from 0 to 2147483647, not False"),
        ({"headers": 7}, "pairs of a string and bytes or None, not 7"),
        ({"headers": {"a": b"b"}}, "pairs of a string and bytes or None, not 'a'"),
        ({"headers": [("a", "b")]}, r"pairs of a string and bytes or None, not \('a', 'b'\)"),
    ],
)
def test_a_wrong_type_is_refused_and_the_producer_goes_on(record: Any, text: str) -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        cluster.add_topic("u")
        async with producer(cluster) as p:
            with pytest.raises(TypeError, match=text):
                await p.send(**{"topic": "t", "value": b"x", **record})
            assert (await p.send_and_wait("t", b"y")).offset == 0
            assert (await p.send_and_wait("u", b"y")).offset == 0  # it can still look at topics

    with_cluster(program)


@pytest.mark.parametrize("call", ["send", "send to a partition", "send_many", "create_batch"])
def test_what_a_program_changes_after_the_call_changes_no_record(call: str) -> None:
    """A header may be a list, and keys, values and headers anything that has bytes to copy."""
    header: Any = ["trace", b"1"]
    headers: Any = [header, ("raw", bytearray(b"2")), ["view", memoryview(bytearray(b"3"))]]
    key, value = bytearray(b"key"), memoryview(bytearray(b"value"))
    values, keys = [value], [key]

    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        async with producer(cluster, linger_ms=1000) as p:
            delivery: Delivery
            if call == "send":
                delivery = await p.send("t", value, key, headers=headers)
            elif call == "send to a partition":
                delivery = await p.send("t", value, key, 0, headers=headers)
            elif call == "send_many":
                (delivery,) = await p.send_many("t", values, keys, headers=headers)
            else:
                batch = p.create_batch()
                batch.append(value, key, headers=headers)  # type: ignore[arg-type]
                delivery = await p.send_batch(batch, "t", partition=0)
            header[1] = 7  # what no record can have, and would fail the batch
            headers[1][1][:], headers[2][1][:] = b"x", b"x"
            key[:], value[:] = b"xxx", b"xxxxx"
            values.clear()
            keys.clear()
            del headers[1:]
            await p.flush()
            await delivery
        (found,) = topic.partitions[0].records()
        assert (found.key, found.value) == (b"key", b"value")
        assert found.headers == (("trace", b"1"), ("raw", b"2"), ("view", b"3"))

    with_cluster(program)


def test_an_unknown_topic_is_an_error_that_says_what_to_do() -> None:
    async def program(cluster: FakeCluster) -> None:
        async with producer(cluster) as p:
            with pytest.raises(UnknownTopicError, match="quorate topic create nope"):
                await p.send("nope", b"x")
            assert sum(broker.metadata_asked for broker in cluster.brokers) < 30

    with_cluster(program)


def test_one_partition_without_answers_does_not_stop_the_others() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t", 2)
        async with producer(cluster, max_batch_size=1) as p:
            await p.send_and_wait("t", b"x", partition=1)
            cluster.fault = lambda _topic, partition, _batch: "lose" if partition == 0 else None
            for _ in range(8):
                await p.send("t", b"stuck", partition=0)
            await asyncio.sleep(0.5)
            before = asyncio.get_running_loop().time()
            await p.send_and_wait("t", b"y", partition=1)
            assert asyncio.get_running_loop().time() - before < 0.2
            cluster.fault = lambda *_: None

    with_cluster(program, brokers=1)


def test_looks_for_leaders_are_bounded_while_nobody_leads() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        async with producer(cluster) as p:
            await p.send_and_wait("t", b"0")
            cluster.move("t", 0, -1)
            asked = sum(broker.metadata_asked for broker in cluster.brokers)
            waiting = asyncio.ensure_future(p.send_and_wait("t", b"1"))
            await asyncio.sleep(10)
            assert sum(broker.metadata_asked for broker in cluster.brokers) - asked < 40
            cluster.move("t", 0, 1)
            await waiting

    with_cluster(program)


def test_partitioners_serializers_and_send_many() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t", 4)
        async with producer(cluster, key_serializer=String(), value_serializer=Json()) as p:
            place = await p.send_and_wait("t", {"a": 1}, key="k")
            assert place.partition == partition_for_key(b"k", 4)
            many = await p.send_many("t", [1, None, 3], keys=["k", "k", "k"])
            assert [(await one).offset for one in many] == [1, 2, 3]
            assert topic.partitions[place.partition].values() == [b'{"a":1}', b"1", None, b"3"]
            with pytest.raises(ValueError, match="as many as values, not 1 for 3 values"):
                await p.send_many("t", [1, 2, 3], keys=["k"])
            assert await p.partitions_for("t") == {0, 1, 2, 3}
        async with producer(cluster, partitioner=RoundRobinPartitioner()) as p:
            places = [(await p.send_and_wait("t", b"x")).partition for _ in range(4)]
            assert sorted(places) == [0, 1, 2, 3]
        async with producer(cluster, partitioner=lambda *_: 9) as p:
            with pytest.raises(InvalidPartitionsError, match="chose 9"):
                await p.send("t", b"x")
        for chosen in (1.5, True, "1", None):
            async with producer(cluster, partitioner=lambda *_, chosen=chosen: chosen) as p:
                with pytest.raises(TypeError, match="what the partitioner returns must be a whole"):
                    await p.send("t", b"x")
                await p.send_and_wait("t", b"x", partition=0)

    with_cluster(program)


@pytest.mark.parametrize("made", ["text", None, 7])
def test_a_serializer_that_returns_no_bytes_is_named(made: object) -> None:
    """A serializer without `return` would make a tombstone of every value."""

    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        async with producer(cluster, value_serializer=lambda _: made) as p:
            with pytest.raises(TypeError, match="value_serializer must return bytes"):
                await p.send("t", 1)
            await p.send_and_wait("t", None)

    with_cluster(program)


def test_stop_flushes_and_then_refuses() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        p = producer(cluster, linger_ms=60000)
        with pytest.raises(ClosedError, match="start"):
            await p.send("t", b"0")
        await p.start()
        for _ in range(3):
            await p.send("t", b"0")
        await p.stop()
        await p.stop()
        assert len(topic.partitions[0].values()) == 3
        with pytest.raises(ClosedError):
            await p.send("t", b"1")
        with pytest.raises(ClosedError, match="make a new one"):
            await p.start()

    with_cluster(program)


def test_nobody_answers_at_start() -> None:
    async def program(cluster: FakeCluster) -> None:
        p = Producer(bootstrap_servers="nobody:1", request_timeout_ms=500)
        with pytest.raises(QuorumUnavailableError, match=r"no answer within .* nobody:1"):
            await p.start()

    with_cluster(program)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"acks": 2}, "acks must be"),
        ({"acks": 1, "enable_idempotence": True}, 'needs acks="all"'),
        ({"linger_ms": -1}, "linger_ms must be a number from 0 to 86400000, not -1"),
        ({"max_in_flight": 6}, "max_in_flight must be a whole number from 1 to 5, not 6"),
        ({"buffer_memory": 0}, "buffer_memory"),
        ({"compression_level": 3}, "compression_level must be None: none has no levels, not 3"),
        ({"compression_type": "snappy", "compression_level": 1}, "snappy has no levels"),
        ({"compression_type": "gzip", "compression_level": 0}, "must be -1, or 1 to 9, not 0"),
        ({"compression_type": "lz4", "compression_level": 18}, "must be 1 to 17, not 18"),
        ({"compression_type": "zstd", "compression_level": 23}, "must be -131072 to 22, not 23"),
        ({"delivery_timeout_ms": 0}, "delivery_timeout_ms must be a whole number from 1 to"),
    ],
)
def test_impossible_settings_say_what_is_wrong(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Producer(**settings)
