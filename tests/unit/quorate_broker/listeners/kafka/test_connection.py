"""The machine of one connection: framing, order, limits and the end."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorate_broker.listeners.kafka.budget import ReadBudget
from quorate_broker.listeners.kafka.connection import Limits, Request
from quorate_broker.operations.produce import ByteBudget
from tests.unit.quorate_broker.listeners.kafka.builders import (
    FETCH,
    LIMITS,
    METADATA,
    PRODUCE,
    Driven,
    request_bytes,
)

BODIES = st.one_of(
    st.binary(max_size=40),
    st.integers(0, 300_000).map(lambda size: bytes(i & 0xFF for i in range(size % 977)) * 307),
)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), bodies=st.lists(BODIES, min_size=1, max_size=8))
def test_any_cutting_of_the_bytes_gives_the_same_requests(
    data: st.DataObject, bodies: list[bytes]
) -> None:
    sent = b"".join(request_bytes(PRODUCE, body, correlation_id=i) for i, body in enumerate(bodies))
    cuts = data.draw(st.lists(st.integers(0, len(sent)), max_size=30))
    driven = Driven()
    driven.feed(sent, cuts)
    found = []
    while requests := driven.begun():
        for request in requests:
            found.append((request.correlation_id, bytes(request.frame[8:])))
            driven.answer(request, b"")
        driven.feed(b"")
    assert found == list(enumerate(bodies))
    assert driven.bytes.held == 0


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_answers_leave_in_the_order_of_the_requests(data: st.DataObject) -> None:
    keys = data.draw(st.lists(st.sampled_from([PRODUCE, FETCH, METADATA]), max_size=12))
    driven = Driven()
    driven.feed(b"".join(request_bytes(key, correlation_id=i) for i, key in enumerate(keys)))
    waiting: list[Request] = []
    sent: list[bytes] = []
    for _ in keys:
        for _ in range(data.draw(st.integers(1, 4))):
            for request in driven.begun():
                waiting.append(request)
                if request.api_key == PRODUCE:
                    driven.connection.accepted(request)
        assert waiting, "the answer to a request was lost"
        request = waiting.pop(data.draw(st.integers(0, len(waiting) - 1)))
        driven.answer(request, bytes([request.correlation_id]))
        sent += driven.answers()
    assert sent == [bytes([i]) for i in range(len(keys))]


def test_a_produce_request_begins_while_those_before_it_wait_for_their_commit() -> None:
    driven = Driven()
    driven.feed(request_bytes(PRODUCE) * 3 + request_bytes(FETCH) + request_bytes(PRODUCE))
    (first,) = driven.begun()
    driven.connection.accepted(first)
    (second,) = driven.begun()
    assert driven.begun() == []  # the second has not put its batches into the queues yet
    driven.connection.accepted(second)
    (third,) = driven.begun()
    driven.connection.accepted(third)
    assert driven.begun() == []  # a Fetch request waits for all of them
    for one in (third, first, second):
        driven.answer(one, b"")
    (fetch,) = driven.begun()
    assert fetch.api_key == FETCH
    assert driven.begun() == []


def test_a_request_without_an_answer_delays_no_other() -> None:
    driven = Driven()
    driven.feed(request_bytes(PRODUCE) + request_bytes(METADATA))
    (first,) = driven.begun()
    driven.answer(first, None)
    (second,) = driven.begun()
    driven.answer(second, b"known")
    assert driven.answers() == [b"known"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (struct.pack(">i", 7) + b"1234567", "a request of 7 bytes: 8 to 1048576 are allowed"),
        (struct.pack(">i", -1), "a request of -1 bytes"),
        (struct.pack(">i", 0), "a request of 0 bytes"),
        (struct.pack(">i", 2**31 - 1), "a request of 2147483647 bytes"),
        (struct.pack(">i", (1 << 20) + 1), "a request of 1048577 bytes"),
        (b"GET / HTTP/1.1\r\n\r\n", "no Kafka request, but an HTTP request"),
        (b"PRI * HTTP/2.0\r\n\r\n", "no Kafka request, but a client of gRPC"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "a TLS hello, and this listener has no"),
    ],
)
def test_bytes_that_are_no_request_end_the_connection(data: bytes, reason: str) -> None:
    driven = Driven()
    driven.feed(data)
    assert reason in driven.connection.end_reason
    assert driven.connection.is_over
    assert not driven.connection.wants_reading


def test_before_the_end_the_answers_that_are_owed_leave() -> None:
    driven = Driven()
    driven.feed(request_bytes(METADATA) * 2)
    (first,) = driven.begun()
    driven.feed(b"\xff" * 4)
    assert driven.connection.end_reason
    assert not driven.connection.is_over
    driven.answer(first, b"known")
    assert driven.answers() == [b"known"]
    assert driven.connection.is_over
    assert driven.begun() == []
    assert driven.bytes.held == 0


def test_an_end_does_not_wait_for_ever_for_an_answer() -> None:
    driven = Driven()
    driven.feed(request_bytes(METADATA))
    driven.begun()
    driven.connection.end("stopping", 0)
    assert driven.tick(LIMITS.drain_ms - 1) == ""
    assert driven.tick(1) == "stopping"


def test_before_the_client_is_known_a_request_must_be_small() -> None:
    driven = Driven()
    driven.connection.is_authenticated = False
    driven.feed(request_bytes(METADATA, bytes(65_528)))
    assert len(driven.begun()) == 1
    driven.feed(request_bytes(METADATA, bytes(65_529)))
    assert "8 to 65536 are allowed" in driven.connection.end_reason


def test_requests_in_flight_are_bounded() -> None:
    driven = Driven()
    driven.feed(request_bytes(METADATA) * 100)
    assert not driven.connection.wants_reading
    handled = 0
    while requests := driven.begun():
        assert len(requests) == 1
        handled += 1
        driven.answer(requests[0], b"")
        driven.feed(b"")
    assert handled == 100


def test_queued_bytes_are_bounded() -> None:
    limits = Limits(request_bytes_max=1 << 20, idle_ms=1000, queued_bytes_max=200_000)
    driven = Driven(limits)
    driven.feed(request_bytes(METADATA, bytes(90_000)) * 10)
    assert not driven.connection.wants_reading
    assert driven.bytes.held < 400_000
    for _ in range(10):
        (request,) = driven.begun()
        driven.answer(request, b"")
        driven.feed(b"")
    assert driven.bytes.held == 0


def test_a_length_alone_costs_little_memory() -> None:
    driven = Driven()
    driven.feed(struct.pack(">i", 1 << 20) + bytes(8))
    assert driven.bytes.held <= 8192


def test_of_several_large_requests_one_is_read_when_the_memory_is_used_up() -> None:
    count = ByteBudget(300_000)
    budget = ReadBudget(count)
    many = [Driven(budget=budget, shared=bytearray(65_536)) for _ in range(4)]
    large = request_bytes(PRODUCE, bytes(900_000))
    for one in many:
        one.feed(large)
    handled = 0
    while handled < 4:
        assert count.held < 300_000 + 2 * 900_000
        handled += next(filter(None, (one.begun_one() for one in many)))
        for one in many:
            one.connection.look_again(0)
            one.feed(b"")
    assert count.held == 0


def test_the_memory_of_a_broken_connection_is_given_back() -> None:
    count = ByteBudget(100_000)
    budget = ReadBudget(count)
    first, second = (Driven(budget=budget, shared=bytearray(65_536)) for _ in range(2))
    first.feed(request_bytes(PRODUCE, bytes(900_000))[:-1])
    second.feed(request_bytes(PRODUCE, bytes(900_000)))
    assert second.unread
    first.connection.lost("reset")
    assert second.wakes
    second.connection.look_again(0)
    second.feed(b"")
    (request,) = second.begun()
    second.answer(request, b"")
    assert count.held == 0


def test_a_client_that_reads_no_answers_is_closed() -> None:
    driven = Driven()
    driven.connection.unsent(is_high=True, now_ms=0)
    assert not driven.connection.wants_reading
    assert driven.tick(59_000, unsent=5000) == ""
    assert driven.tick(59_000, unsent=4000) == ""  # it reads slowly
    assert driven.tick(59_000, unsent=4000) == ""
    assert "reads none of its answers" in driven.tick(1_000, unsent=4000)


def test_no_request_begins_while_the_client_has_much_to_read() -> None:
    driven = Driven()
    driven.feed(request_bytes(METADATA))
    driven.connection.unsent(is_high=True, now_ms=0)
    assert driven.begun() == []
    driven.connection.unsent(is_high=False, now_ms=0)
    assert len(driven.begun()) == 1


def test_an_idle_connection_is_closed_and_a_waiting_one_is_not() -> None:
    idle, waiting = Driven(), Driven()
    waiting.feed(request_bytes(FETCH))
    (request,) = waiting.begun()
    assert "idle" in idle.tick(600_000)
    assert waiting.tick(6_000_000) == ""
    waiting.answer(request, b"")
    assert waiting.tick(599_999) == ""
    assert "idle" in waiting.tick(1)


def test_a_request_that_stops_in_the_middle_ends_the_connection() -> None:
    driven = Driven()
    driven.feed(request_bytes(METADATA)[:-1])
    assert driven.tick(59_999) == ""
    assert "stopped in the middle" in driven.tick(1)
