"""Blocking clients against a cluster in this process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from quorate import Producer as AsynchronousProducer
from quorate import RecordMetadata, TopicPartition
from quorate.errors import (
    ClosedError,
    DeserializationError,
    InvalidPartitionsError,
    InvalidRequestError,
    OverloadedError,
    RecordTooLargeError,
    UnknownServerError,
    UnknownTopicError,
    WrongLoopError,
)
from quorate.serializers import Json, String
from quorate.sync import Admin, Consumer, Delivery, Producer, SchemaRegistry
from quorate.sync.listener import ListenerThread
from quorate.sync.settings import ConsumerSettings
from quorate_testing import EmbeddedCluster

WAIT_S = 60.0


@pytest.fixture
def servers(quorate_cluster: EmbeddedCluster) -> str:
    return quorate_cluster.bootstrap_servers


@pytest.fixture
def producer(servers: str) -> Iterator[Producer]:
    with Producer(bootstrap_servers=servers) as made:
        yield made


def values(servers: str, topic: str, number: int) -> list[bytes | None]:
    with Consumer(topic, bootstrap_servers=servers, auto_offset_reset="earliest") as consumer:
        return [next(consumer).value for _ in range(number)]


def test_what_is_sent_is_read_in_order(
    producer: Producer, servers: str, quorate_topic: str
) -> None:
    sent = [b"%d" % number for number in range(5000)]
    deliveries = [producer.send(quorate_topic, one, key=b"k") for one in sent]
    assert deliveries[-1].result() == RecordMetadata(
        quorate_topic, 0, 4999, deliveries[-1].result().timestamp_ms
    )
    assert all(one.done() for one in deliveries)
    assert [one.result().offset for one in deliveries] == list(range(5000))
    assert values(servers, quorate_topic, 5000) == sent


def test_threads_share_a_producer_and_keep_the_order_of_each(
    producer: Producer, servers: str, quorate_topic: str
) -> None:
    threads, each = 8, 500

    def send(number: int) -> None:
        for index in range(each):
            producer.send(quorate_topic, b"%d" % index, key=b"%d" % number)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(send, range(threads)))
    producer.flush()
    with Consumer(
        quorate_topic, bootstrap_servers=servers, auto_offset_reset="earliest"
    ) as consumer:
        read = [next(consumer) for _ in range(threads * each)]
    for number in range(threads):
        of_one = [int(one.value or b"") for one in read if one.key == b"%d" % number]
        assert of_one == list(range(each))


def test_stop_delivers_what_is_in_the_inbox(servers: str, quorate_topic: str) -> None:
    with Producer(bootstrap_servers=servers, linger_ms=10_000) as producer:
        deliveries = producer.send_many(quorate_topic, [b"a", b"b"], [b"k", None])
    assert [one.result().offset for one in deliveries] == [0, 1]
    with pytest.raises(ClosedError):
        producer.send(quorate_topic, b"late")


def test_stop_waits_until_the_loop_has_taken_all_records(servers: str, quorate_topic: str) -> None:
    """They are more than a batch, so the loop yields between them: to stop(), for example."""
    with Producer(bootstrap_servers=servers, max_batch_size=1000) as producer:
        producer.send_and_wait(quorate_topic, b"first")
        held = threading.Event()
        producer._background.loop.call_soon_threadsafe(held.wait, WAIT_S)
        deliveries = [producer.send(quorate_topic, bytes(600)) for _ in range(200)]
        held.set()
    assert [one.result().offset for one in deliveries] == list(range(1, 201))


def test_send_and_wait_does_not_linger(servers: str, quorate_topic: str) -> None:
    with Producer(bootstrap_servers=servers, linger_ms=3_600_000) as producer:
        assert producer.send_and_wait(quorate_topic, b"x").offset == 0
        assert producer.partitions_for(quorate_topic) == {0}


def test_errors_are_raised_where_they_are_made(producer: Producer, quorate_topic: str) -> None:
    with pytest.raises(UnknownTopicError):
        producer.send("no-such-topic", b"x")
    with pytest.raises(InvalidPartitionsError):
        producer.send(quorate_topic, b"x", partition=7)
    with pytest.raises(TypeError, match="value must be bytes or None, not str"):
        producer.send(quorate_topic, "text")
    with pytest.raises(TypeError, match="topic"):
        producer.send(7, b"x")  # type: ignore[arg-type]
    too_large = producer.send(quorate_topic, bytes(2 << 20))
    assert isinstance(too_large.exception(), RecordTooLargeError)
    assert producer.send_and_wait(quorate_topic, b"next").offset == 0


NO_NAME = "a topic's name must be a string of 1 to 249 characters"
NO_NUMBER = "partition must be a whole number from 0 to 2147483647"


@pytest.mark.parametrize("call", ["send", "send_many"])
@pytest.mark.parametrize(
    ("wrong", "kind", "text"),
    [
        ({"topic": ["t"]}, TypeError, rf"^{{call}}: {NO_NAME}, not \['t'\]"),
        ({"topic": {}}, TypeError, rf"^{{call}}: {NO_NAME}, not {{{{}}}}"),
        ({"topic": None}, TypeError, rf"^{{call}}: {NO_NAME}, not None"),
        ({"topic": "\udc80"}, ValueError, r"^{call}: a topic's name must be .*UTF-8.*udc80"),
        ({"partition": "0"}, TypeError, rf"^{{call}}: {NO_NUMBER}, not '0'"),
        ({"partition": True}, TypeError, rf"^{{call}}: {NO_NUMBER}, not True"),
        ({"partition": -1}, InvalidPartitionsError, rf"^{{call}}: {NO_NUMBER}, not -1"),
        ({"timestamp_ms": "1"}, TypeError, r"^{call}: timestamp_ms must be"),
        ({"headers": [("\udc80", b"")]}, ValueError, r"^the name of a header.*UTF-8.*udc80"),
    ],
)
def test_a_wrong_argument_is_told_as_by_the_asynchronous_producer(
    servers: str,
    producer: Producer,
    quorate_topic: str,
    call: str,
    wrong: dict[str, Any],
    kind: type[Exception],
    text: str,
) -> None:
    record: Any = b"x" if call == "send" else [b"x"]
    arguments: dict[str, Any] = {"topic": quorate_topic, **wrong}
    topic = arguments.pop("topic")

    async def asynchronous() -> None:
        async with AsynchronousProducer(bootstrap_servers=servers) as other:
            await getattr(other, call)(topic, record, **arguments)

    with pytest.raises(kind, match=text.format(call=call)) as told:
        getattr(producer, call)(topic, record, **arguments)
    with pytest.raises(kind) as of_the_other:
        asyncio.run(asynchronous())
    assert str(told.value) == str(of_the_other.value)
    assert producer.send_and_wait(quorate_topic, b"y").topic == quorate_topic


def test_an_error_of_the_partitioner_costs_its_record_alone(
    servers: str, quorate_topic: str
) -> None:
    def choose(key: bytes | None, partitions: Sequence[int], available: Sequence[int]) -> int:
        if key == b"bad":
            raise LookupError("no such customer")
        return 0

    with Producer(bootstrap_servers=servers, partitioner=choose) as producer:
        bad, good = producer.send_many(quorate_topic, [b"x", b"y"], [b"bad", b"good"])
        producer.flush()
        with pytest.raises(UnknownServerError, match="no such customer"):
            bad.result()
        assert good.result().offset == 0
        assert producer.undelivered == 1


def test_a_failed_record_that_was_asked_for_is_not_counted(
    servers: str, quorate_topic: str
) -> None:
    def choose(key: bytes | None, partitions: Sequence[int], available: Sequence[int]) -> int:
        raise LookupError("no such customer")

    with Producer(bootstrap_servers=servers, partitioner=choose) as producer:
        producer.partitions_for(quorate_topic)
        held = threading.Event()
        producer._background.loop.call_soon_threadsafe(held.wait, WAIT_S)
        told: list[object] = []
        producer.send(quorate_topic, b"x", b"k").add_done_callback(told.append)
        held.set()
        producer.flush()
        with pytest.raises(UnknownServerError, match="no such customer"):
            producer.send_and_wait(quorate_topic, b"x", b"k")
        assert producer.undelivered == 0
        producer.send(quorate_topic, b"x", b"k")
        producer.flush()
        assert producer.undelivered == 1
        assert len(told) == 1


def test_what_the_end_of_the_loop_s_tasks_leaves_is_told(servers: str, quorate_topic: str) -> None:
    producer = Producer(bootstrap_servers=servers)
    producer.start()
    producer.send_and_wait(quorate_topic, b"x")
    moving = producer._pump._task
    assert moving is not None
    held = threading.Event()
    producer._background.loop.call_soon_threadsafe(held.wait, WAIT_S)
    late = producer.send(quorate_topic, b"y")
    producer._background.loop.call_soon_threadsafe(moving.cancel)
    held.set()
    assert isinstance(late.exception(WAIT_S / 3), ClosedError)
    with pytest.raises(ClosedError, match="was cancelled"):
        producer.stop()


def test_a_record_that_no_room_can_take_names_the_buffer_memory_of_the_program(
    servers: str, quorate_topic: str
) -> None:
    with Producer(bootstrap_servers=servers, buffer_memory=1 << 20) as producer:
        error = producer.send(quorate_topic, bytes(1 << 20)).exception(WAIT_S)
    assert isinstance(error, RecordTooLargeError)
    assert f"buffer_memory, {1 << 20} bytes, of which one record may take 786432" in str(error)


@pytest.mark.parametrize("kind", [Admin, Consumer, Producer, SchemaRegistry])
def test_a_client_that_was_not_started_names_its_own_statement(kind: Any) -> None:
    with pytest.raises(ClosedError, match=r"call start\(\) or use `with`"):
        getattr(kind(), CALL[kind])()


CALL = {
    Admin: "list_topics",
    Consumer: "getone",
    Producer: "create_batch",
    SchemaRegistry: "subjects",
}


def test_a_full_buffer_blocks_and_then_refuses(servers: str, quorate_topic: str) -> None:
    with Producer(
        bootstrap_servers=servers, buffer_memory=40_000, delivery_timeout_ms=2000, linger_ms=0
    ) as producer:
        for _ in range(200):
            producer.send(quorate_topic, bytes(1000))
        producer.flush()
        # The loop is held up, so that nothing makes room.
        gate, reached = threading.Event(), threading.Event()

        def hold() -> None:
            reached.set()
            gate.wait(WAIT_S)

        producer._background.loop.call_soon_threadsafe(hold)
        assert reached.wait(WAIT_S)
        try:
            with pytest.raises(OverloadedError, match="buffer_memory"):
                producer.send_many(quorate_topic, [bytes(1000)] * 40)
        finally:
            gate.set()


def test_callbacks_are_called_and_must_not_block(producer: Producer, quorate_topic: str) -> None:
    told: list[object] = []
    done = threading.Event()

    def tell(delivery: Delivery) -> None:
        told.append(delivery.result().offset)
        try:
            producer.flush()
        except WrongLoopError as error:
            told.append(error)
        done.set()

    producer.send(quorate_topic, b"x").add_done_callback(tell)
    assert done.wait(WAIT_S)
    assert told[0] == 0
    assert "callback" in str(told[1])


def test_a_partition_that_went_to_another_member_is_read_no_further(
    producer: Producer, servers: str, quorate_topic: str
) -> None:
    """Records wait in the program's thread, so that it need not ask the loop for each."""
    producer.send_many(quorate_topic, [b"%d" % number for number in range(2000)])
    producer.flush()
    settings: ConsumerSettings = {
        "group_id": quorate_topic,
        "bootstrap_servers": servers,
        "auto_offset_reset": "earliest",
    }
    impatient: ConsumerSettings = {**settings, "max_poll_interval_ms": 1000}
    with Consumer(quorate_topic, **impatient) as slow:
        read = [next(slow).offset for _ in range(600)]
        assert slow._shelf().records
        with Consumer(quorate_topic, **settings) as other:
            # `slow` is removed, because its program does not ask
            first = next(other).offset
            assert first <= read[-1] + 1
            assert [next(other).offset for _ in range(500)][-1] == first + 500
        assert next(slow).offset == first + 501


def test_a_callback_that_sends_never_waits_for_room(servers: str, quorate_topic: str) -> None:
    """It runs in the thread that makes the room."""
    refused: list[Exception] = []
    with Producer(bootstrap_servers=servers, buffer_memory=100_000) as producer:

        def send_another(_: Delivery) -> None:
            try:
                producer.send(quorate_topic, bytes(1000))
            except OverloadedError as error:
                refused.append(error)

        for _ in range(1000):
            producer.send(quorate_topic, bytes(1000)).add_done_callback(send_another)
        producer.flush()
    assert len(values(servers, quorate_topic, 2000 - len(refused))) == 2000 - len(refused)
    assert all("callback" in str(error) for error in refused)


def told_in_a_callback(delivery: Delivery) -> tuple[bool, object]:
    """Return whether a delivery is done, and its result or error, as its callback sees them."""
    told: list[tuple[bool, object]] = []
    called = threading.Event()

    def tell(one: Delivery) -> None:
        told.append((one.done(), one.exception() or one.result()))
        called.set()

    delivery.add_done_callback(tell)
    assert called.wait(WAIT_S)
    return told[0]


def test_a_callback_is_told_why_a_record_was_not_sent(servers: str, quorate_topic: str) -> None:
    def broken(key: bytes | None, partitions: Sequence[int], available: Sequence[int]) -> int:
        raise ZeroDivisionError

    with Producer(bootstrap_servers=servers, partitioner=broken) as producer:
        done, error = told_in_a_callback(producer.send(quorate_topic, b"x", key=b"k"))
    assert done
    assert isinstance(error, UnknownServerError)


def test_a_callback_is_told_the_outcome_of_a_record_of_a_batch_that_was_split(
    quorate_cluster: EmbeddedCluster, quorate_topic: str
) -> None:
    topic = f"{quorate_topic}-small"
    quorate_cluster.create_topic(topic, configs={"max.message.bytes": 2000})
    with Producer(
        bootstrap_servers=quorate_cluster.bootstrap_servers, linger_ms=3_600_000
    ) as producer:
        deliveries = producer.send_many(topic, [bytes(1000)] * 5)
        producer.flush()
        told = [told_in_a_callback(one) for one in deliveries]
    assert [(done, getattr(found, "offset", found)) for done, found in told] == [
        (True, number) for number in range(5)
    ]


def test_a_close_at_the_exit_keeps_its_time_limit() -> None:
    with EmbeddedCluster(kafka=False) as cluster:
        cluster.create_topic("t")
        producer = Producer(
            bootstrap_servers=cluster.bootstrap_servers,
            buffer_memory=100_000,
            delivery_timeout_ms=3_600_000,
        )
        producer.start()
        producer.send_and_wait("t", b"x")
        cluster.crash_broker(0)
        # more than the loop's buffer takes: some stay in the inbox
        producer.send_many("t", [bytes(1000)] * 84)
        with pytest.raises(TimeoutError):
            producer.close_at_exit(0.5)


def test_a_result_may_be_waited_for_a_limited_time(servers: str, quorate_topic: str) -> None:
    with Producer(bootstrap_servers=servers, linger_ms=3_600_000) as producer:
        producer.send_and_wait(quorate_topic, b"first")
        held = threading.Event()
        producer._background.loop.call_soon_threadsafe(held.wait, 0.2)
        with pytest.raises(TimeoutError):
            producer.send(quorate_topic, b"x").result(timeout_s=0)


def test_a_consumer_of_a_group_commits_what_its_program_was_given(
    producer: Producer, servers: str, quorate_topic: str
) -> None:
    producer.send_many(quorate_topic, [b"%d" % number for number in range(100)])
    producer.flush()
    settings: ConsumerSettings = {
        "bootstrap_servers": servers,
        "group_id": f"g-{quorate_topic}",
        "auto_offset_reset": "earliest",
    }
    read = 0
    for wanted in (7, 30, 1, 62):
        with Consumer(quorate_topic, **settings) as consumer:
            for record in consumer:
                assert int(record.value or b"") == read
                read += 1
                wanted -= 1
                if not wanted:
                    break
    with Consumer(**settings) as consumer:
        assert consumer.committed(TopicPartition(quorate_topic, 0)) == 100


def test_a_record_with_which_the_program_failed_is_read_again(
    producer: Producer, servers: str, quorate_topic: str
) -> None:
    producer.send_many(quorate_topic, [b"%d" % number for number in range(50)])
    producer.flush()
    settings: ConsumerSettings = {
        "bootstrap_servers": servers,
        "group_id": f"g-{quorate_topic}",
        "auto_offset_reset": "earliest",
    }

    def fail_at(number: int) -> None:
        with Consumer(quorate_topic, **settings) as consumer:
            for record in consumer:
                if int(record.value or b"") == number:
                    raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_at(20)
    with Consumer(quorate_topic, **settings) as consumer:
        assert next(consumer).value == b"20"


def test_positions_and_commits_are_about_what_the_program_was_given(
    producer: Producer, servers: str, quorate_topic: str
) -> None:
    producer.send_many(quorate_topic, [b"%d" % number for number in range(50)])
    producer.flush()
    partition = TopicPartition(quorate_topic, 0)
    with Consumer(
        quorate_topic,
        bootstrap_servers=servers,
        group_id=f"g-{quorate_topic}",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    ) as consumer:
        for number in range(10):
            assert next(consumer).offset == number
        assert consumer.position(partition) == 10
        consumer.commit()
        assert consumer.committed(partition) == 10
        assert next(consumer).offset == 10
        consumer.seek(partition, 3)
        assert next(consumer).offset == 3
        consumer.pause(partition)
        assert consumer.paused() == {partition}
        assert consumer.getmany(timeout_ms=50) == {}
        consumer.resume(partition)
        assert consumer.getone().offset == 4
        assert consumer.lag() == {partition: 45}


def test_a_thread_that_ends_leaves_no_record_behind(
    producer: Producer, servers: str, quorate_topic: str
) -> None:
    producer.send_many(quorate_topic, [b"%d" % number for number in range(200)])
    producer.flush()
    read: list[int] = []
    with Consumer(
        quorate_topic,
        bootstrap_servers=servers,
        group_id=f"g-{quorate_topic}",
        auto_offset_reset="earliest",
    ) as consumer:

        def take(number: int) -> None:
            read.extend(next(consumer).offset for _ in range(number))

        for number in (3, 17, 80, 100):
            thread = threading.Thread(target=take, args=(number,))
            thread.start()
            thread.join(WAIT_S)
    assert sorted(set(read)) == list(range(200))
    assert len(read) == 200


def test_a_deserializer_raises_in_the_thread_that_reads(
    producer: Producer, servers: str, quorate_topic: str
) -> None:
    producer.send_many(quorate_topic, [b'{"a":1}', b"{", b"[]"])
    producer.flush()
    with Consumer(
        quorate_topic,
        bootstrap_servers=servers,
        auto_offset_reset="earliest",
        value_deserializer=Json(),
    ) as consumer:
        assert next(consumer).value == {"a": 1}
        with pytest.raises(DeserializationError):
            next(consumer)
        consumer.seek(TopicPartition(quorate_topic, 0), 2)
        assert next(consumer).value == []


def test_serializers_and_an_iterator_that_another_thread_ends(
    servers: str, quorate_topic: str
) -> None:
    with Producer(bootstrap_servers=servers, value_serializer=String()) as producer:
        producer.send_and_wait(quorate_topic, "ä")
    consumer = Consumer(
        quorate_topic,
        bootstrap_servers=servers,
        auto_offset_reset="earliest",
        value_deserializer=String(),
    )
    with consumer:
        read: list[object] = []
        thread = threading.Thread(target=lambda: read.extend(one.value for one in consumer))
        thread.start()
        while not read:
            time.sleep(0.001)
        consumer.stop()
        thread.join(WAIT_S)
    assert read == ["ä"]
    assert not thread.is_alive()


def test_an_admin_may_be_used_again(servers: str, quorate_topic: str) -> None:
    admin = Admin(bootstrap_servers=servers)
    for _ in range(2):
        with admin:
            assert quorate_topic in admin.list_topics()
            (described,) = admin.describe_topics([quorate_topic]).values()
            assert len(described.partitions) == 1


@pytest.mark.parametrize("group_id", [None, "seekers"])
def test_a_listener_may_seek_before_the_first_record(
    servers: str, quorate_topic: str, group_id: str | None
) -> None:
    """A program that keeps its positions in a database of its own has no other moment for it."""
    with Producer(bootstrap_servers=servers) as producer:
        for number in range(5):
            producer.send(quorate_topic, b"%d" % number)

    class Listener:
        assigned: frozenset[TopicPartition] = frozenset()

        def on_partitions_assigned(self, partitions: list[TopicPartition]) -> None:
            self.assigned = consumer.assignment()
            for partition in partitions:
                consumer.seek(partition, 3)

    listener = Listener()
    consumer = Consumer(bootstrap_servers=servers, group_id=group_id, auto_offset_reset="earliest")
    consumer.subscribe([quorate_topic], listener=listener)
    with consumer:
        assert [consumer.getone().value for _ in range(2)] == [b"3", b"4"]
    assert listener.assigned == {TopicPartition(quorate_topic, 0)}


def test_a_batch_is_written_whole_behind_the_records_before_it(
    producer: Producer, servers: str, quorate_topic: str
) -> None:
    for number in range(1000):
        producer.send(quorate_topic, b"%d" % number)
    batch = producer.create_batch()
    assert [batch.append(b"a"), batch.append(b"b")] == [1, 2]
    delivery = producer.send_batch(batch, quorate_topic, partition=0)
    producer.send(quorate_topic, b"last")
    assert delivery.result().offset == 1000
    assert told_in_a_callback(delivery) == (True, delivery.result())
    with pytest.raises(InvalidRequestError, match="sent already"):
        producer.send_batch(batch, quorate_topic, partition=0)
    producer.flush()
    assert values(servers, quorate_topic, 1003)[-4:] == [b"999", b"a", b"b", b"last"]


def test_many_records_of_one_call_go_through_the_inbox_in_order(
    servers: str, quorate_topic: str
) -> None:
    sent = [b"%d" % number * 20 for number in range(3000)]
    with Producer(bootstrap_servers=servers, buffer_memory=40_000) as producer:
        deliveries = producer.send_many(quorate_topic, sent, timestamp_ms=7)
        assert deliveries[-1].result().timestamp_ms == 7
        assert [one.result().offset for one in deliveries] == list(range(3000))
        with pytest.raises(TypeError, match="value must be bytes or None, not int"):
            producer.send_many(quorate_topic, [b"x", 5])
    assert values(servers, quorate_topic, 3000) == sent


def test_a_listener_may_commit_before_its_partitions_go_to_another_member(servers: str) -> None:
    """It commits by hand: the next member begins where this one has stopped."""
    topic = "handed-over"
    with Admin(bootstrap_servers=servers) as admin:
        admin.create_topic(topic, num_partitions=2)
    with Producer(bootstrap_servers=servers) as producer:
        for number in range(10):
            producer.send(topic, b"%d" % number, partition=number % 2)
    done: dict[TopicPartition, int] = {}
    threads = set()

    class Listener:
        def on_partitions_revoked(self, partitions: list[TopicPartition]) -> None:
            threads.add(threading.current_thread().name)
            first.commit({key: done[key] for key in partitions})
            committed.extend(first.committed(key) for key in partitions)

    committed: list[int | None] = []
    settings = ConsumerSettings(
        bootstrap_servers=servers,
        group_id="handing-over",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    with Consumer(**settings) as first:
        first.subscribe([topic], listener=Listener())
        for _ in range(10):
            record = first.getone()
            done[TopicPartition(topic, record.partition)] = record.offset + 1
        with ThreadPoolExecutor(1) as pool, Consumer(topic, **settings) as second:
            reading = pool.submit(first.getmany, timeout_ms=WAIT_S * 1000)
            until = time.monotonic() + WAIT_S
            while not second.assignment() and time.monotonic() < until:
                second.getmany(timeout_ms=100)
            assert len(second.assignment()) == 1
            assert second.getmany(timeout_ms=500) == {}, "all of it was done"
            with Producer(bootstrap_servers=servers) as producer:
                for number in range(2):
                    producer.send_and_wait(topic, b"last", partition=number)
            assert reading.result()
    assert committed[0] == 5
    assert threads == {"quorate-listener"}


def test_the_error_of_a_listener_is_raised_by_the_next_read(
    servers: str, quorate_topic: str
) -> None:
    class Listener:
        def on_partitions_assigned(self, partitions: list[TopicPartition]) -> None:
            raise StopIteration(len(partitions))

    with Consumer(bootstrap_servers=servers, group_id="failing") as consumer:
        consumer.subscribe([quorate_topic], listener=Listener())
        with pytest.raises(RuntimeError, match="StopIteration"):
            consumer.getone()
        consumer.getmany(timeout_ms=1)


def test_a_listener_runs_at_the_interpreter_s_exit_too(servers: str, quorate_topic: str) -> None:
    program = """
        import sys
        from quorate.sync import Consumer

        class Listener:
            def on_partitions_revoked(self, partitions):
                print("revoked", len(partitions), flush=True)

        consumer = Consumer(bootstrap_servers=sys.argv[1], group_id=sys.argv[2])
        consumer.start()
        consumer.subscribe([sys.argv[2]], listener=Listener())
        while not consumer.assignment():
            consumer.getmany(timeout_ms=50)
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program), servers, quorate_topic],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "revoked 1\n", "")


def test_a_commit_of_one_thread_leaves_out_what_another_has_in_hand(servers: str) -> None:
    """What the loop has handed to a thread is not what the thread's program was given."""
    topic = "two-threads"
    with Admin(bootstrap_servers=servers) as admin:
        admin.create_topic(topic, num_partitions=1)
    with Producer(bootstrap_servers=servers) as producer:
        producer.send_many(topic, [b"%d" % number for number in range(500)])
    settings = ConsumerSettings(
        bootstrap_servers=servers,
        group_id="two-threads",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    with ThreadPoolExecutor(1) as pool, Consumer(topic, **settings) as consumer:
        given = [next(consumer).offset for _ in range(100)]
        assert given == list(range(100))
        pool.submit(consumer.commit).result(WAIT_S)
        assert (consumer.committed(TopicPartition(topic, 0)) or 0) <= given[-1]
        consumer.commit()
        assert consumer.committed(TopicPartition(topic, 0)) == given[-1] + 1
        assert next(consumer).offset == given[-1] + 1


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_an_exit_in_a_listener_does_not_end_the_loop_of_all_clients(
    servers: str, quorate_topic: str, error: BaseException
) -> None:
    class Listener:
        def on_partitions_assigned(self, partitions: list[TopicPartition]) -> None:
            raise error

    with Consumer(bootstrap_servers=servers, group_id="leaving") as consumer:
        consumer.subscribe([quorate_topic], listener=Listener())
        with pytest.raises(RuntimeError, match=type(error).__name__):
            consumer.getone()
        with Producer(bootstrap_servers=servers) as producer:
            assert producer.send_and_wait(quorate_topic, b"x").offset == 0


@pytest.mark.parametrize("call", ["stop", "unsubscribe", "subscribe", "assign"])
def test_a_call_that_would_wait_for_its_own_callback_is_refused(
    servers: str, quorate_topic: str, call: str
) -> None:
    refused: list[WrongLoopError] = []

    class Listener:
        def on_partitions_assigned(self, partitions: list[TopicPartition]) -> None:
            try:
                if call == "assign":
                    consumer.assign(partitions)
                else:
                    getattr(consumer, call)()
            except WrongLoopError as error:
                refused.append(error)

    with Consumer(bootstrap_servers=servers, group_id="waiting") as consumer:
        consumer.subscribe([quorate_topic], listener=Listener())
        consumer.getmany(timeout_ms=1)
        assert f"{call}() was called in a callback" in str(refused[0])


def test_stop_is_refused_in_the_thread_of_a_callback_of_its_own_consumer(servers: str) -> None:
    """It would wait for the end of the callback that waits for it."""
    refused: list[BaseException] = []

    def stop() -> None:
        try:
            consumer.stop()
        except WrongLoopError as error:
            refused.append(error)

    with Consumer(bootstrap_servers=servers) as consumer:
        thread = ListenerThread(consumer, stop)
        thread.start()
        thread.join(10)
        assert "stop() was called in a callback" in str(refused[0])


def test_a_callback_that_returns_something_to_await_is_awaited(
    servers: str, quorate_topic: str
) -> None:
    assigned: list[TopicPartition] = []

    class Listener:
        def on_partitions_assigned(
            self, partitions: list[TopicPartition]
        ) -> Coroutine[Any, Any, None]:
            async def later() -> None:
                assigned.extend(partitions)

            return later()

    with Consumer(bootstrap_servers=servers, group_id="awaited") as consumer:
        consumer.subscribe([quorate_topic], listener=Listener())
        assert assigned == [TopicPartition(quorate_topic, 0)]
