"""A connection on a running loop: requests, answers, the end; over a wire that a test holds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from quorate_broker.listeners.kafka.budget import ReadBudget
from quorate_broker.listeners.kafka.call import Client, Refusal
from quorate_broker.listeners.kafka.connection import Request
from quorate_broker.listeners.kafka.dispatch import Answer, Dispatcher
from quorate_broker.listeners.kafka.framing import SHARED_BYTES
from quorate_broker.listeners.kafka.transport import Transport
from quorate_broker.operations.produce import ByteBudget
from tests.harness.memory_wire import MemoryWire
from tests.unit.quorate_broker.listeners.kafka.builders import (
    LIMITS,
    METADATA,
    PRODUCE,
    answers_of,
    request_bytes,
)

Handle = Callable[[Request], Awaitable[Answer | asyncio.Future[Answer]]]


class Host:
    """A listener with one handler for all requests."""

    def __init__(self, handle: Handle, *, refusal: str = "") -> None:
        self.limits = LIMITS
        self.shared = bytearray(SHARED_BYTES)
        self.bytes = ByteBudget(1 << 30)
        self.budget = ReadBudget(self.bytes)
        self.dispatcher = cast(Dispatcher, self)
        self.client = Client("10.0.0.1", "kafka")
        self.gone: list[str] = []
        self._handle = handle
        self._refusal = refusal

    async def handle(
        self, request: Request, client: Client, decoded: Callable[[], None]
    ) -> Answer | asyncio.Future[Answer]:
        return await self._handle(request)

    def arrived(self, transport: Transport, address: str) -> Client | str:
        return self._refusal or self.client

    def left(self, transport: Transport, address: str) -> None:
        self.gone.append(address)


def connected(host: Host) -> MemoryWire:
    wire = MemoryWire(Transport(host))
    wire.connect(("10.0.0.1", 1234))
    return wire


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def echo(request: Request) -> Answer:
    return [b"answer ", bytes(request.frame[8:])]


async def test_requests_are_answered_in_order() -> None:
    host = Host(echo)
    wire = connected(host)
    wire.feed(request_bytes(METADATA, b"1") + request_bytes(METADATA, b"2")[:-1])
    await settle()
    assert answers_of(wire.take()) == [b"answer 1"]
    wire.feed(b"2")
    await settle()
    assert answers_of(wire.take()) == [b"answer 2"]
    assert host.bytes.held == 0
    wire.lose(None)


async def test_produce_requests_begin_while_others_wait_for_their_commit() -> None:
    futures: list[asyncio.Future[Answer]] = []

    async def handle(request: Request) -> asyncio.Future[Answer]:
        futures.append(asyncio.get_running_loop().create_future())
        return futures[-1]

    wire = connected(Host(handle))
    wire.feed(request_bytes(PRODUCE) * 3)
    await settle()
    assert len(futures) == 3
    futures[2].set_result([b"3"])
    futures[0].set_result(None)  # acks=0: no answer
    await settle()
    assert wire.take() == []
    futures[1].set_result([b"2"])
    await settle()
    assert answers_of(wire.take()) == [b"2", b"3"]
    wire.lose(None)


@pytest.mark.parametrize("error", [Refusal("no such request"), ValueError("a bug")])
@pytest.mark.parametrize("is_later", [False, True])
async def test_a_request_without_an_answer_closes_the_connection(
    error: Exception, is_later: bool
) -> None:
    async def handle(request: Request) -> Answer | asyncio.Future[Answer]:
        if not request.frame[8:]:
            return [b"first"]
        if not is_later:
            raise error
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        future.set_exception(error)
        return future

    host = Host(handle)
    wire = connected(host)
    wire.feed(request_bytes(METADATA) + request_bytes(PRODUCE, b"bad") + request_bytes(METADATA))
    await settle()
    assert answers_of(wire.take()) == [b"first"]
    assert wire.is_closing()
    wire.lose(None)
    assert host.bytes.held == 0
    assert host.gone == ["10.0.0.1"]


async def test_a_refused_connection_is_closed_at_once() -> None:
    host = Host(echo, refusal="too many")
    wire = connected(host)
    assert wire.is_closing()
    wire.lose(None)
    assert host.gone == []


async def test_a_handler_ends_with_its_connection() -> None:
    ended = asyncio.Event()

    async def handle(request: Request) -> Answer:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return None

    host = Host(handle)
    closed: list[str] = []
    host.client.at_close.append(lambda: closed.append("closed"))
    wire = connected(host)
    wire.feed(request_bytes(METADATA) * 2)
    await settle()
    wire.lose(ConnectionResetError("reset"))
    await ended.wait()
    assert (host.gone, closed) == (["10.0.0.1"], ["closed"])
    assert host.bytes.held == 0


async def test_a_client_that_reads_nothing_is_not_read() -> None:
    async def handle(request: Request) -> Answer:
        return [bytes(300_000)]

    wire = connected(Host(handle))
    wire.is_stuck = True
    wire.feed(request_bytes(METADATA) * 20)
    await settle()
    assert not wire.is_reading()
    size = wire.get_write_buffer_size()
    assert LIMITS.unsent_high_bytes < size < LIMITS.unsent_high_bytes + 400_000
    wire.is_stuck = False
    wire.drain()
    await settle()
    assert wire.is_reading()
    assert len(answers_of(wire.take())) == 20
    wire.lose(None)


async def test_at_a_clean_stop_the_owed_answers_leave() -> None:
    release = asyncio.Event()

    async def handle(request: Request) -> Answer:
        await release.wait()
        return [b"late"]

    host = Host(handle)
    transport = Transport(host)
    wire = MemoryWire(transport)
    wire.connect(("10.0.0.1", 1))
    wire.feed(request_bytes(METADATA) * 2)
    await settle()
    transport.end("the broker stops")
    assert not wire.is_closing()
    release.set()
    await settle()
    assert answers_of(wire.take()) == [b"late"]
    assert wire.is_closing()
    wire.lose(None)


async def test_the_memory_of_large_requests_is_shared_by_all_connections() -> None:
    host = Host(echo)
    host.bytes.bytes_max = 300_000
    wires = [connected(host) for _ in range(5)]
    large = request_bytes(METADATA, bytes(900_000))
    unread = [large] * len(wires)
    for _ in range(20):
        for index, wire in enumerate(wires):
            unread[index] = wire.feed(unread[index])
        await settle()
    answers: list[Any] = [answers_of(wire.take()) for wire in wires]
    assert [len(one[0]) for one in answers] == [900_007] * len(wires)
    assert host.bytes.held == 0
    for wire in wires:
        wire.lose(None)
