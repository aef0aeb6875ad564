"""Connections that a test drives by hand, byte by byte."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from quorate_broker.listeners.kafka.budget import ReadBudget
from quorate_broker.listeners.kafka.connection import Connection, Limits, Request
from quorate_broker.listeners.kafka.framing import SHARED_BYTES
from quorate_broker.operations.produce import ByteBudget

PRODUCE, FETCH, METADATA = 0, 1, 3
LIMITS = Limits(request_bytes_max=1 << 20, idle_ms=600_000)


def request_bytes(key: int, body: bytes = b"", *, correlation_id: int = 0) -> bytes:
    """Return a request with its length."""
    return struct.pack(">ihhi", 8 + len(body), key, 0, correlation_id) + body


def answers_of(output: Sequence[bytes | bytearray | memoryview]) -> list[bytes]:
    """Return the answers in what a connection sends, without their lengths."""
    data, found = b"".join(output), []
    while data:
        size = int.from_bytes(data[:4], "big")
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    return found


class Driven:
    """A connection with its budget and a clock. All bytes that it was fed lie before it."""

    def __init__(
        self,
        limits: Limits = LIMITS,
        *,
        budget_bytes: int = 1 << 30,
        shared: bytearray | None = None,
        budget: ReadBudget | None = None,
    ) -> None:
        self.now_ms = 0
        self.bytes = ByteBudget(budget_bytes)
        self.budget = budget or ReadBudget(self.bytes)
        self.wakes = 0
        self.shared = shared or bytearray(SHARED_BYTES)
        self.connection = Connection(limits, self.shared, self.budget, 0, self._woken)
        self.unread = b""

    def _woken(self) -> None:
        self.wakes += 1

    def feed(self, data: bytes, cuts: Iterable[int] = ()) -> None:
        """Give bytes to the connection, in pieces that end at `cuts`, while it reads."""
        self.unread += data
        ends = [*sorted(cut for cut in cuts if 0 < cut < len(self.unread)), len(self.unread)]
        position = 0
        for end in ends:
            while position < end and self.connection.wants_reading:
                buffer = self.connection.buffer()
                count = min(len(buffer), end - position)
                buffer[:count] = self.unread[position : position + count]
                self.connection.received(count, self.now_ms)
                # another connection reads into the same buffer
                self.shared[:] = b"\xff" * len(self.shared)
                position += count
        self.unread = self.unread[position:]

    def begun(self) -> list[Request]:
        """Begin and return all requests that may begin now."""
        return list(iter(self.connection.next_request, None))

    def begun_one(self) -> bool:
        """Handle the next request, if one is whole. Return whether one was."""
        request = self.connection.next_request()
        if request is not None:
            self.answer(request, b"")
        return request is not None

    def answer(self, request: Request, answer: bytes | None) -> None:
        self.connection.handled(request)
        self.connection.answered(request, None if answer is None else [answer], self.now_ms)

    def answers(self) -> list[bytes]:
        return answers_of(self.connection.take_output())

    def tick(self, later_ms: int, unsent: int = 0) -> str:
        """Let time pass. Return why the connection is over; empty if it is not."""
        self.now_ms += later_ms
        self.connection.tick(self.now_ms, unsent)
        return self.connection.end_reason if self.connection.is_over else ""
