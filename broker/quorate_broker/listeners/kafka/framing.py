"""Cuts the bytes of a connection into requests: a length of four bytes, then that many bytes.

The transport writes what it reads into the buffer that `buffer` returns, and calls `received`. A
small request is cut from the shared buffer of the listener. A larger one gets memory of its own,
into which the transport reads directly. So the bytes of records are not copied again. This memory
grows as bytes come: a length alone, which may be a lie, costs FIRST_BYTES. Before the memory grows,
the connection asks the broker's budget (`must_grow`).
"""

from __future__ import annotations

import struct
from typing import Final, Protocol

LENGTH: Final = struct.Struct(">i")
#: The least length of a request: key, version and correlation id.
REQUEST_BYTES_MIN: Final = 8
#: The buffer that all connections of a listener share, and so the most bytes of one small read.
SHARED_BYTES: Final = 64 * 1024
#: The least memory of a large request when it begins, and when it has grown for the first time.
#: After that it grows to GROWTH times as much.
FIRST_BYTES: Final = 4 * 1024
GROWN_BYTES: Final = 128 * 1024
GROWTH: Final = 4

#: What a connection of another protocol begins with, and what it is.
STRANGERS: Final = {
    b"GET ": "an HTTP request",
    b"HEAD": "an HTTP request",
    b"POST": "an HTTP request",
    b"PUT ": "an HTTP request",
    b"PRI ": "a client of gRPC or another HTTP/2 protocol",
    b"\x16\x03\x00": "a TLS hello, and this listener has no TLS",
    b"\x16\x03\x01": "a TLS hello, and this listener has no TLS",
    b"\x16\x03\x02": "a TLS hello, and this listener has no TLS",
    b"\x16\x03\x03": "a TLS hello, and this listener has no TLS",
    b"SSH-": "an SSH client",
}


#: A whole request, without its length. Not a memoryview: text is cut from bytes much faster.
Frame = bytes | bytearray


class FramingError(Exception):
    """The bytes are no request. The connection must be closed, because no next one can be found."""


class Memory(Protocol):
    """Counts the bytes that requests take until they are handled."""

    def take(self, size: int) -> None: ...
    def give_back(self, size: int) -> None: ...


class Frames:
    """The bytes that one connection has read and not handed on.

    `taken` of `memory` are charged for the request that is being read. The caller of `next` owns
    the charge of a whole request: its size.
    """

    def __init__(self, shared: bytearray, memory: Memory) -> None:
        self._shared = memoryview(shared)
        self._memory = memory
        #: Bytes that are not cut yet. Within `received` they may lie in the shared buffer.
        self._rest: bytes | memoryview = b""
        #: The large request that is being read: its memory, how much of it is filled, its size.
        self._large: bytearray | None = None
        self._filled = 0
        self._size = 0

    @property
    def is_between(self) -> bool:
        """Whether no part of a request is here."""
        return self._large is None and not self._rest

    @property
    def must_grow(self) -> bool:
        """Whether the next bytes need more memory than the request has."""
        large = self._large
        return large is not None and self._filled == len(large) < self._size

    @property
    def wants_memory(self) -> bool:
        """Whether the request that is being read will need more memory than it has."""
        return self._large is not None and len(self._large) < self._size

    def buffer(self) -> memoryview:
        """Return where the next bytes go. It is never empty."""
        if self._large is None or self._filled == self._size:
            return self._shared
        if self.must_grow:
            self._grow(min(self._size, max(GROWN_BYTES, len(self._large) * GROWTH)))
        return memoryview(self._large)[self._filled :]

    def received(self, count: int) -> None:
        """Take note that the transport has written `count` bytes into the buffer."""
        if self._large is not None and self._filled < self._size:
            self._filled += count
            return
        found = self._shared[:count]
        self._rest = b"".join((self._rest, found)) if self._rest else found

    def next(self, bytes_max: int) -> Frame | None:
        """Return the next whole request; None: more bytes are needed. Raises FramingError."""
        if self._large is not None:
            if self._filled < self._size:
                return None
            whole, self._large = self._large, None
            return whole
        rest = self._rest
        if len(rest) < LENGTH.size:
            return None
        size = self._length(bytes_max)
        end = LENGTH.size + size
        if len(rest) < end:
            self._begin(rest[LENGTH.size :], size)
            return None
        self._rest = rest[end:]
        self._memory.take(size)
        return bytes(rest[LENGTH.size : end])

    def keep(self) -> None:
        """Copy what is left out of the shared buffer, which another connection uses next."""
        self._rest = bytes(self._rest)

    def drop(self) -> None:
        """Forget everything, because the connection is closed."""
        if self._large is not None:
            self._memory.give_back(len(self._large))
        self._large, self._rest = None, b""

    def _length(self, bytes_max: int) -> int:
        size: int = LENGTH.unpack_from(self._rest)[0]
        if REQUEST_BYTES_MIN <= size <= bytes_max:
            return size
        first = bytes(self._rest[:4])
        stranger = STRANGERS.get(first) or STRANGERS.get(first[:3])
        if stranger is not None:
            raise FramingError(f"no Kafka request, but {stranger}")
        raise FramingError(
            f"a request of {size} bytes: {REQUEST_BYTES_MIN} to {bytes_max} are allowed"
        )

    def _begin(self, found: bytes | memoryview, size: int) -> None:
        self._large = bytearray()
        self._filled, self._size = len(found), size
        self._grow(min(size, max(FIRST_BYTES, len(found))))
        self._large[: len(found)] = found
        self._rest = b""

    def _grow(self, capacity: int) -> None:
        """Move the request into more memory. The old one may still be exported to the transport."""
        assert self._large is not None
        old, self._large = self._large, bytearray(capacity)
        self._memory.take(capacity - len(old))
        self._large[: len(old)] = old
