"""The accumulator against a model broker with the five-batch window of a real one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from quorate import Delivery
from quorate.aio.owner import Owner
from quorate.errors import (
    ClosedError,
    DeliveryTimeoutError,
    NotLeaderError,
    OutcomeUnknownError,
    OutOfOrderSequenceError,
    QuorateError,
    RecordTooLargeError,
    StreamBrokenError,
    UnknownProducerIdError,
    UnknownTopicError,
)
from quorate.producer.accumulator import Accumulator, AccumulatorConfig
from quorate.producer.partition_queue import Batch, ProducerIdentity
from quorate.producer.produce_stream import in_doubt_ms
from quorate.record import compression
from quorate.record.batch import check, parse_header, records
from quorate.record.column_builder import ColumnBuilder
from quorate_broker.replica.producer_memory import ProducerMemory
from quorate_broker.replica.producers import Producers
from quorate_quorum.node.config import BrokerConfig

TOPIC = b"t" * 16


def accumulator(**changes: Any) -> Accumulator:
    values: dict[str, Any] = {
        "batch_bytes_max": 100,
        "buffer_bytes_max": 10_000,
        "linger_s": 5,
        "delivery_timeout_s": 100,
        "max_in_flight": 5,
        "codec": 0,
        "idempotent": True,
    }
    made = Accumulator(AccumulatorConfig(**(values | changes)))
    made.identity = ProducerIdentity(7, 0)
    return made


def fill(a: Accumulator, count: int, now: float = 0) -> list[Batch]:
    """Make batches of one record each."""
    queue = a.queue("t", TOPIC, 0)
    return [a.append(queue, now, 0, None, b"%030d" % number, ())[0] for number in range(count)]


def drain(a: Accumulator, now: float = 0, *, may_linger: bool = False) -> list[Batch]:
    return a.drain(now, lambda _: True, bytes_max=1 << 20, may_linger=may_linger)


def drain_all(a: Accumulator, now: float = 0) -> list[Batch]:
    taken: list[Batch] = []
    while found := drain(a, now):
        taken += found
    return taken


def test_no_more_than_max_in_flight_and_one_a_drain() -> None:
    a = accumulator(max_in_flight=3)
    batches = fill(a, 6)
    assert drain(a) == batches[:1]
    assert drain_all(a) == batches[1:3]
    a.succeeded(batches[0], 0, -1)
    assert drain_all(a) == batches[3:4]


def test_nothing_goes_to_a_new_leader_while_the_old_ones_stream_carries_a_batch() -> None:
    """Else later batches overtake the one in the dead leader's stream.

    The new leader may have that one already and take the later ones. Then it leaves the window of
    five, and a retry writes it a second time.
    """
    a = accumulator()
    first, second = fill(a, 2)
    old, new = object(), object()
    assert a.drain(0, lambda _: True, bytes_max=1, may_linger=False, carrier=old) == [first]

    assert a.drain(0, lambda _: True, bytes_max=1, may_linger=False, carrier=new) == []
    a.retry(first, NotLeaderError("gone"), 0, 0)

    assert a.drain(0, lambda _: True, bytes_max=1, may_linger=False, carrier=new) == [first]
    assert a.drain(0, lambda _: True, bytes_max=1, may_linger=False, carrier=new) == [second]


def test_an_open_batch_lingers_only_when_it_may() -> None:
    a = accumulator()
    (batch,) = fill(a, 1)
    assert drain(a, 4, may_linger=True) == []
    assert a.linger_ends(4, lambda _: True) == 5
    a.flushes = 1
    assert drain(a, 4, may_linger=True) == [batch]


@pytest.mark.parametrize("error", [OutOfOrderSequenceError("x"), UnknownProducerIdError("x")])
def test_a_gap_restarts_under_the_next_epoch_when_all_are_back(error: QuorateError) -> None:
    a = accumulator()
    batches = fill(a, 4)
    drain_all(a)
    a.failed(batches[0], NotLeaderError("gone"))
    a.retry(batches[1], error, 0, 0)
    assert drain(a) == []
    a.retry(batches[2], error, 0, 0)
    assert drain(a) == []
    a.retry(batches[3], error, 0, 0)
    again = drain_all(a)
    assert again == batches[1:]
    headers = [parse_header(batch.encoded or b"") for batch in again]
    assert [(one.producer_epoch, one.base_sequence) for one in headers] == [(1, 0), (1, 1), (1, 2)]


def test_a_gap_behind_an_open_batch_proves_nothing() -> None:
    a = accumulator()
    batches = fill(a, 2)
    drain_all(a)
    a.retry(batches[1], OutOfOrderSequenceError("x"), 0, 0)
    a.retry(batches[0], NotLeaderError("x"), 0, 0)
    again = drain_all(a)
    assert again == batches
    assert [batch.base_sequence for batch in again] == [0, 1]
    assert parse_header(batches[0].encoded or b"").producer_epoch == 0


def test_a_later_acknowledgement_disproves_a_gap() -> None:
    a = accumulator()
    batches = fill(a, 3)
    drain_all(a)
    a.failed(batches[0], NotLeaderError("gone"))
    a.retry(batches[1], OutOfOrderSequenceError("x"), 0, 0)
    a.succeeded(batches[2], 2, -1)
    assert drain_all(a) == [batches[1]]
    assert batches[1].base_sequence == 1


def test_sequences_wrap_and_epochs_run_out() -> None:
    a = accumulator()
    queue = a.queue("t", TOPIC, 0)
    fill(a, 2)
    queue.identity, queue.next_sequence = ProducerIdentity(7, 32767), 2**31 - 1
    first, second = drain_all(a)
    assert (first.base_sequence, second.base_sequence) == (2**31 - 1, 0)
    a.retry(second, NotLeaderError("x"), 0, 0)
    a.retry(first, OutOfOrderSequenceError("x"), 0, 0)
    assert a.identity is None
    assert drain(a) == []
    a.identity = ProducerIdentity(8, 0)
    assert [batch.base_sequence for batch in drain_all(a)] == [0, 1]
    assert queue.identity == a.identity


def test_batches_expire_in_order_in_flight_or_not() -> None:
    a = accumulator(max_in_flight=1)
    batches = fill(a, 3)
    drain(a)
    told: list[Batch] = []
    for batch in batches:
        batch.on_end = told.append
    assert a.expire(99) == []
    assert a.expire(100) == batches
    assert told == batches
    assert a.bytes_used == 0
    assert all(isinstance(batch.error, DeliveryTimeoutError) for batch in batches)
    assert "sent once, and may" in str(batches[0].error)
    assert "never sent" in str(batches[1].error)
    assert [may_be_written(batch) for batch in batches] == [True, False, False]
    a.retry(batches[0], NotLeaderError("late"), 100, 0)
    a.succeeded(batches[0], 0, -1)
    assert not a.unfinished()


def may_be_written(batch: Batch) -> bool:
    assert isinstance(batch.error, DeliveryTimeoutError)
    return batch.error.may_be_written


@pytest.mark.parametrize("is_uncertain", [False, True])
def test_a_batch_that_expires_says_whether_an_attempt_may_have_written_it(
    is_uncertain: bool,
) -> None:
    a = accumulator()
    (batch,) = fill(a, 1)
    drain(a)
    batch.is_uncertain = is_uncertain
    a.retry(batch, NotLeaderError("not here"), 0, 1)
    assert a.expire(100) == [batch]
    assert may_be_written(batch) == is_uncertain
    became = "may have been" if is_uncertain else "was not"
    assert f"sent once, and {became} written (last: not here" in str(batch.error)


def test_bytes_on_the_wire_never_change_when_a_batch_ends_early() -> None:
    """CVE-2026-35554: a buffer that came back to the pool while it was in flight."""
    a = accumulator()
    (batch,) = fill(a, 1)
    drain(a)
    on_the_wire = batch.encoded
    assert on_the_wire is not None
    before = bytes(on_the_wire)
    a.expire(1000)
    fill(a, 3, 1000)
    drain_all(a, 1000)
    assert on_the_wire == before
    assert next(records(on_the_wire)).value == b"%030d" % 0


def test_a_topic_made_again_has_its_own_queue() -> None:
    a = accumulator()
    old = a.queue("t", TOPIC, 0)
    new = a.queue("t", b"u" * 16, 0)
    assert old is not new
    assert a.queue("t", b"u" * 16, 0) is new


class ModelBroker:
    """A partition's log with the memory of producers that a broker has."""

    def __init__(self) -> None:
        #: With a bound of 0, producers are forgotten after a quarter of an hour of silence.
        config = BrokerConfig(
            node_id=1, listeners=("b:1",), log_dirs=("/d",), partition_producers_max=0
        )
        self.memory = ProducerMemory(config)
        self.producers = Producers(self.memory)
        self.log: list[bytes] = []
        self.batch_bytes_max = 1 << 20

    def take(self, data: bytes, in_doubt: int = 0) -> int:
        if len(data) > self.batch_bytes_max:  # the first check, as in a broker
            raise RecordTooLargeError(f"{len(data)} bytes")
        header = replace(check(data, from_producer=True), base_offset=len(self.log))
        original = self.producers.staging().check(header, in_doubt_ms=in_doubt)
        if original is not None:
            return original.base_offset
        self.producers.observe(header)
        self.log += [record.value or b"" for record in records(data)]
        return header.base_offset


class World:
    """Two partitions. Batches in flight are answered in the order in which they were sent."""

    def __init__(
        self, *, max_in_flight: int, batch_bytes_max: int = 100, delivery_timeout_s: float = 50
    ) -> None:
        self.a = accumulator(
            max_in_flight=max_in_flight,
            delivery_timeout_s=delivery_timeout_s,
            batch_bytes_max=batch_bytes_max,
        )
        self.queues = [self.a.queue("t", TOPIC, number) for number in range(2)]
        self.brokers = [ModelBroker(), ModelBroker()]
        self.wire: list[list[tuple[Batch, bytes, int]]] = [[], []]
        self.sent: list[list[tuple[bytes, Batch, int]]] = [[], []]
        self.now = 0.0
        self.made = 0

    def send(self, partition: int) -> None:
        value = b"%030d" % self.made
        self.made += 1
        batch, index, _ = self.a.append(self.queues[partition], self.now, 0, None, value, ())
        self.sent[partition].append((value, batch, index))

    def drain(self) -> None:
        for batch in drain(self.a, self.now):
            assert batch.encoded is not None
            sent = (batch, batch.encoded, in_doubt_ms(batch, self.now))
            self.wire[batch.queue.partition].append(sent)
            assert len(batch.queue.in_flight) <= self.a.config.max_in_flight

    def answer(self, partition: int, fate: str) -> None:
        """Let the oldest request arrive: "ok", "lost" (written, no answer), "refused", "failed"."""
        if not self.wire[partition]:
            return
        batch, data, in_doubt = self.wire[partition].pop(0)
        error: QuorateError | None = None
        offset = -1
        if fate in ("refused", "failed"):
            error = NotLeaderError("not written")
        else:
            try:
                offset = self.brokers[partition].take(data, in_doubt)
            except QuorateError as refused:
                error = refused
            if fate == "lost":
                error = error or NotLeaderError("the answer was lost")
        if batch.done:
            return
        batch.is_uncertain |= fate == "lost"
        if error is None:
            self.a.succeeded(batch, offset, -1)
        elif isinstance(error, RecordTooLargeError):
            self.a.split(batch, error)
        elif fate == "failed":
            self.a.failed(batch, error)
        else:
            self.a.retry(batch, error, self.now, 0.1)

    def break_stream(self, partition: int) -> None:
        broken, self.wire[partition] = self.wire[partition], []
        for batch, _, _ in broken:
            batch.is_uncertain = True
            self.a.retry(batch, NotLeaderError("broken"), self.now, 0.1)

    def forget(self) -> None:
        """After a long silence: requests under way are lost, and brokers forget the producer."""
        self.now += 20 * 60
        for partition, broker in enumerate(self.brokers):
            self.break_stream(partition)
            broker.memory.now_ms += 20 * 60_000
            broker.producers.forget()

    def finish(self) -> None:
        for _ in range(400):
            self.now += 0.2
            self.drain()
            for partition in range(2):
                self.answer(partition, "ok")
            if not self.a.unfinished():
                break
        assert not self.a.unfinished(), "it goes round in circles"

    def check(self, how: str) -> None:
        assert self.a.bytes_used == 0
        for broker, sent in zip(self.brokers, self.sent, strict=True):
            assert len(set(broker.log)) == len(broker.log), f"doubled ({how})"
            assert broker.log == sorted(broker.log)
            for value, batch, index in sent:
                holder, _ = batch.holder(index)
                assert holder.done
                if holder.error is None:
                    assert value in broker.log


STEPS = st.one_of(
    st.tuples(st.just("send"), st.integers(0, 1)),
    st.tuples(st.just("drain"), st.just(0)),
    st.tuples(st.sampled_from(["ok", "lost", "refused", "failed"]), st.integers(0, 1)),
    st.tuples(st.just("break"), st.integers(0, 1)),
    st.tuples(st.just("forget"), st.integers(0, 1)),
    st.tuples(st.just("wait"), st.sampled_from([1, 20])),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=60), st.integers(1, 5))
def test_nothing_lost_doubled_or_out_of_order(steps: list[tuple[str, int]], width: int) -> None:
    world = World(max_in_flight=width)
    forgot = False
    for step, partition in steps:
        if step == "send":
            world.send(partition)
        elif step == "drain":
            world.drain()
        elif step == "break":
            world.break_stream(partition)
        elif step == "forget":  # retention took the log and with it what it knew of the producer
            if not world.queues[partition].in_flight and not world.a.unfinished():
                world.brokers[partition].producers.reset()
                forgot = True
        elif step == "wait":
            world.now += partition
            world.a.expire(world.now)
        else:
            world.answer(partition, step)
    world.finish()
    world.check(f"forgot: {forgot}")


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(STEPS, st.tuples(st.just("bound"), st.sampled_from([90, 150, 300, 1000]))),
        max_size=60,
    ),
    st.integers(1, 5),
)
def test_nothing_lost_doubled_or_out_of_order_when_batches_are_split(
    steps: list[tuple[str, int]], width: int
) -> None:
    world = World(max_in_flight=width, batch_bytes_max=400)
    for step, argument in steps:
        if step == "send":
            for _ in range(3):
                world.send(argument)
        elif step == "drain":
            world.drain()
        elif step == "break":
            world.break_stream(argument)
        elif step == "bound":
            for broker in world.brokers:
                broker.batch_bytes_max = argument
        elif step == "wait":
            world.now += argument
            world.a.expire(world.now)
        elif step != "forget":
            world.answer(argument, step)
    world.finish()
    world.check("split")


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=60), st.integers(1, 5))
# The answer to a written batch is lost, and then the broker forgets the producer.
@example([("send", 0), ("drain", 0), ("lost", 0), ("forget", 0)], 1)
def test_nothing_doubled_when_brokers_forget_the_producer_under_a_retry(
    steps: list[tuple[str, int]], width: int
) -> None:
    world = World(max_in_flight=width, delivery_timeout_s=1e9)
    for step, argument in steps:
        if step == "send":
            world.send(argument)
        elif step == "drain":
            world.drain()
        elif step == "break":
            world.break_stream(argument)
        elif step == "forget":
            world.forget()
        elif step != "wait":
            world.answer(argument, step)
    world.finish()
    world.check("forgot")


def refuse(a: Accumulator, batch: Batch, error: QuorateError) -> None:
    a.retry(batch, error, 0, 0)


def test_an_unknown_producer_is_no_proof_for_what_an_earlier_attempt_may_have_written() -> None:
    a = accumulator()
    first, second, third = fill(a, 3)
    assert drain_all(a) == [first, second, third]
    first.is_uncertain = second.is_uncertain = True
    for batch, error in ((first, StreamBrokenError), (second, StreamBrokenError)):
        refuse(a, batch, error("x"))
    refuse(a, third, NotLeaderError("x"))
    assert drain_all(a) == [first, second, third]
    refuse(a, first, UnknownProducerIdError("forgotten"))
    assert not first.done, "what is in flight behind it comes back first"
    refuse(a, second, UnknownProducerIdError("forgotten"))
    refuse(a, third, UnknownProducerIdError("forgotten"))
    for batch in (first, second):
        assert isinstance(batch.error, OutcomeUnknownError)
        assert "may have been written; now: " in str(batch.error)
    assert drain_all(a) == [third]
    header = parse_header(third.encoded or b"")
    assert (header.producer_epoch, header.base_sequence) == (1, 0)


def test_a_gap_proves_that_nothing_was_written_whatever_became_of_earlier_attempts() -> None:
    a = accumulator()
    (batch,) = fill(a, 1)
    drain(a)
    batch.is_uncertain = True
    refuse(a, batch, StreamBrokenError("x"))
    drain(a, 5)
    assert in_doubt_ms(batch, 7) == 7001
    refuse(a, batch, OutOfOrderSequenceError("0 is next"))
    assert drain(a, 9) == [batch]
    assert in_doubt_ms(batch, 9) == 0


def test_a_batch_that_is_too_large_goes_on_in_parts_with_its_sequences() -> None:
    a = accumulator(batch_bytes_max=500)
    fill(a, 12)
    first, second = drain_all(a)
    assert (first.count, second.count) == (11, 1)
    a.split(first, RecordTooLargeError("x"))
    a.retry(second, OutOfOrderSequenceError("x"), 0, 0)  # it came where the first one was missing
    again = drain_all(a)
    assert again[-1] is second
    headers = [parse_header(batch.encoded or b"") for batch in again]
    spans = [(one.base_sequence, one.count) for one in headers]
    assert spans == [(0, 4), (4, 4), (8, 3), (11, 1)]
    assert {one.producer_epoch for one in headers} == {0}
    for offset, batch in enumerate(again):
        a.succeeded(batch, offset * 10, -1)
    for index in range(11):
        assert first.holder(index) == (again[index // 4], index % 4)
    assert a.bytes_used == 0


def test_parts_are_in_doubt_since_their_batch_was_sent_first_and_not_since_ever() -> None:
    """Parts have the time of their batch's first send: only a later loss of memory matters."""
    a = accumulator(batch_bytes_max=500)
    fill(a, 12)
    first, _ = drain_all(a, 1000)
    a.split(first, RecordTooLargeError("x"))
    for part in first.parts:
        assert part.first_sent_at == first.first_sent_at == 1000
        part.is_uncertain = True
        assert in_doubt_ms(part, 1003) == 3001


def test_what_follows_a_batch_that_was_too_large_begins_smaller() -> None:
    a = accumulator(batch_bytes_max=400)
    fill(a, 8)
    (batch, *_) = drain_all(a)
    a.split(batch, RecordTooLargeError("x"))
    (later, *_) = fill(a, 5, 1)
    assert later.bytes_max == batch.builder.size // 2
    assert later.count == 2


def test_a_record_that_is_too_large_by_itself_fails_alone() -> None:
    a = accumulator(batch_bytes_max=300)
    first, second = fill(a, 2)[0], a.queue("t", TOPIC, 0)
    a.append(second, 0, 0, None, bytes(1000), ())
    a.append(second, 0, 0, None, b"small", ())
    sent = drain_all(a)
    error = RecordTooLargeError("1000 bytes")
    a.split(sent[1], error)
    assert sent[1].error is error
    assert [batch.done for batch in sent] == [False, True, False]
    assert first is sent[0]


def test_what_may_have_been_written_is_not_split_but_its_outcome_is_unknown() -> None:
    """If the batch was written, its sequences are taken: its parts could be written twice."""
    a = accumulator(batch_bytes_max=300)
    (batch, *_) = fill(a, 3)
    drain(a)
    batch.is_uncertain = True
    a.retry(batch, NotLeaderError("the answer was lost"), 0, 0)
    assert drain(a) == [batch]
    a.split(batch, RecordTooLargeError("max.message.bytes was lowered"))
    assert isinstance(batch.error, OutcomeUnknownError)
    assert "may have been written; now: max.message.bytes was lowered" in str(batch.error)


def test_what_no_message_carries_fails_alone_and_takes_no_sequence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("quorate.producer.accumulator.WIRE_BATCH_BYTES_MAX", 500)
    a = accumulator(batch_bytes_max=1000)
    queue = a.queue("t", TOPIC, 0)
    (large, _, _) = a.append(queue, 0, 0, None, bytes(2000), ())
    many = [a.append(queue, 0, 0, None, b"%030d" % number, ())[0] for number in range(20)]
    sent = drain_all(a)
    assert isinstance(large.error, RecordTooLargeError)
    assert "a message of the wire carries a batch of 500" in str(large.error)
    assert many[0].parts
    assert [batch.base_sequence for batch in sent] == [0, 8, 16]


def test_a_request_names_a_bounded_number_of_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quorate.producer.accumulator.REQUEST_BATCHES_MAX", 3)
    a = accumulator()
    for partition in range(5):
        a.append(a.queue("t", TOPIC, partition), 0, 0, None, b"v", ())
    assert [len(drain(a)), len(drain(a))] == [3, 2]


def test_a_request_is_bounded_in_bytes_and_the_next_one_begins_with_other_partitions() -> None:
    a = accumulator()
    for _ in range(2):
        for partition in range(3):
            a.append(a.queue("t", TOPIC, partition), 0, 0, None, bytes(60), ())
    asked = [a.drain(0, lambda _: True, bytes_max=1, may_linger=False) for _ in range(6)]
    assert [[one.queue.partition for one in taken] for taken in asked] == [[0], [1], [2]] * 2


def test_while_a_batch_waits_to_be_sent_again_no_later_one_is_sent() -> None:
    a = accumulator()
    batches = fill(a, 4)
    assert drain_all(a) == batches
    (late,) = fill(a, 1)
    a.retry(batches[1], NotLeaderError("moved"), 0, 0)
    assert drain_all(a) == []  # those behind it are under way
    for batch in batches[2:]:
        a.retry(batch, NotLeaderError("moved"), 0, 0)
    assert drain_all(a) == [*batches[1:], late]


def test_a_record_has_the_time_of_its_append_where_the_broker_stamps_it() -> None:
    a = accumulator()
    queue = a.queue("t", TOPIC, 0)
    batches = [a.append(queue, 0, 77, None, bytes(30), ())[0] for _ in range(2)]
    own, stamped = (Delivery(batch, 0, Owner("producer")) for batch in batches)
    a.succeeded(batches[0], 5, -1)
    a.succeeded(batches[1], 6, 1234)
    assert (own.result().timestamp_ms, stamped.result().timestamp_ms) == (77, 1234)


def test_a_partition_that_was_dropped_goes_on_under_a_higher_epoch() -> None:
    """Its sequences begin at 0 again: under the same epoch a broker takes them for duplicates."""
    a = accumulator()
    (batch,) = fill(a, 1)
    drain(a)
    a.succeeded(batch, 0, -1)
    a.drop(a.queue("t", TOPIC, 0), is_gone=False)
    fill(a, 1)
    (again,) = drain(a)
    header = parse_header(again.encoded or b"")
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (7, 1, 0)


def test_a_topic_made_again_takes_over_in_order_what_was_surely_not_written() -> None:
    a = accumulator()
    old = a.queue("t", TOPIC, 0)
    in_flight, lost, *waiting = fill(a, 4)
    drain(a)
    drain(a)
    lost.is_uncertain = True
    a.retry(lost, NotLeaderError("the answer was lost"), 0, 0)
    new = a.queue("t", b"u" * 16, 0)
    newest = a.append(new, 0, 0, None, b"newest", ())[0]
    a.move(old, new, 0)
    assert drain_all(a) == [lost]  # in flight may still come back: nothing newer goes first
    a.failed(lost, UnknownTopicError("gone"))
    a.retry(in_flight, UnknownTopicError("gone"), 0, 0)
    a.move(old, new, 0)
    assert drain_all(a) == [in_flight, *waiting, newest]
    assert [batch.base_sequence for batch in (in_flight, *waiting, newest)] == [0, 1, 2, 3]


def test_a_topic_made_again_does_not_take_what_was_sent_before_it_was_made() -> None:
    a = accumulator()
    old = a.queue("t", TOPIC, 0)
    (before,), (after,) = fill(a, 1, 5), fill(a, 1, 7)
    new = a.queue("t", b"u" * 16, 0)
    a.move(old, new, 6)
    assert (before.queue, after.queue) == (old, new)


def test_closed_is_what_was_not_sent_and_unknown_what_was() -> None:
    a = accumulator()
    sent, unsent = fill(a, 2)
    drain(a)
    a.close(ClosedError("stopped"))
    assert isinstance(sent.error, OutcomeUnknownError)
    assert isinstance(unsent.error, ClosedError)
    with pytest.raises(ClosedError, match="stopped"):
        fill(a, 1)


def test_a_batch_that_is_done_keeps_no_bytes() -> None:
    a = accumulator()
    acknowledged, failed = fill(a, 2)
    drain_all(a)
    a.succeeded(acknowledged, 0, -1)
    a.failed(failed, NotLeaderError("x"))
    for batch in (acknowledged, failed):
        assert batch.encoded is None
        assert batch.count == 1
        with pytest.raises(AssertionError, match="released"):
            batch.builder.build()


def test_a_batch_that_cannot_be_encoded_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    a = accumulator()
    bad, good = fill(a, 2)

    real = type(bad.builder).build

    def broken(builder: ColumnBuilder, **settings: Any) -> bytes:
        if builder is bad.builder:
            raise RuntimeError("no codec")
        return real(builder, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(type(bad.builder), "build", broken)
        assert drain(a) == [good]
    assert bad.done
    assert "no codec" in str(bad.error)
    assert good.base_sequence == 0  # the other batch's sequences were never sent
    a.succeeded(good, 0, -1)
    assert a.bytes_used == 0


@pytest.mark.parametrize("fails", ["settle", "build"])
def test_a_batch_that_cannot_be_encoded_gives_all_its_room_back(
    fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Encoded records need less room than was counted for them, whatever the codec says then."""
    a = accumulator(batch_bytes_max=1000, codec=compression.GZIP)
    queue = a.queue("t", TOPIC, 0)
    for _ in range(5):
        a.append(queue, 0, 0, b"k", b"v", ())

    def broken(*_: Any, **__: Any) -> bytes:
        raise MemoryError

    with monkeypatch.context() as patch:
        if fails == "build":
            patch.setattr(compression, "compress", broken)
        else:
            patch.setattr(ColumnBuilder, "encode", broken)
        assert drain(a) == []
    assert a.unfinished() == []
    assert a.bytes_used == 0
