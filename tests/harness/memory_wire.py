"""A transport without a socket: a test, or the simulated world, hands the bytes over."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

Piece = bytes | bytearray | memoryview


class MemoryWire(asyncio.Transport):
    """The transport of one BufferedProtocol. What the protocol writes waits for `take`."""

    def __init__(self, protocol: asyncio.BufferedProtocol) -> None:
        super().__init__()
        self.protocol = protocol
        self.reads = True
        #: The other side reads nothing.
        self.is_stuck = False
        self._peer: Any = None
        self._written: list[bytes] = []
        self._unsent = 0
        self._high, self._low = 64 * 1024, 16 * 1024
        self._is_paused = False
        self._is_closing = False

    # for the world around it

    def connect(self, peer: Any) -> None:
        self._peer = peer
        self.protocol.connection_made(self)

    def feed(self, data: bytes) -> bytes:
        """Hand bytes over while the protocol reads. Return those that are left."""
        position = 0
        while position < len(data) and self.reads and not self._is_closing:
            buffer: Any = self.protocol.get_buffer(-1)
            count = min(len(buffer), len(data) - position)
            buffer[:count] = data[position : position + count]
            self.protocol.buffer_updated(count)
            position += count
        return data[position:]

    def take(self) -> list[bytes]:
        """Return what was written, and forget it."""
        written, self._written = self._written, []
        return written

    def drain(self) -> None:
        """Let the other side read everything."""
        self._unsent = 0
        if self._is_paused:
            self._is_paused = False
            self.protocol.resume_writing()

    def lose(self, error: Exception | None) -> None:
        """Close the connection for the protocol."""
        self._is_closing = True
        self.protocol.connection_lost(error)

    # what a protocol calls

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._peer if name == "peername" else default

    def write(self, data: Piece) -> None:
        self.writelines([data])

    def writelines(self, list_of_data: Iterable[Piece]) -> None:
        for data in list_of_data:
            self._written.append(bytes(data))
            if self.is_stuck:
                self._unsent += len(data)
        if self._unsent > self._high and not self._is_paused:
            self._is_paused = True
            self.protocol.pause_writing()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high, self._low = high or 0, low or 0

    def get_write_buffer_size(self) -> int:
        return self._unsent

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def is_reading(self) -> bool:
        return self.reads

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        self._is_closing = True

    def abort(self) -> None:
        self._is_closing = True
