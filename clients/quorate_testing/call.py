"""A call between two ends, without gRPC, for the in-process and the simulated network.

A call has two ``End``s. A message of one end reaches the other end through a wire. The wire keeps
the order, and decides when a message arrives: at once, after a simulated delay, or never. Only
encoded bytes travel. A writer waits while ``WINDOW_BYTES`` are in flight: sent, and not given back
by the reader.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from quorate import errors
from quorate.net.network import Method

WINDOW_BYTES = 1024 * 1024
#: A reader gives the room of what it has read back in portions of this size, as HTTP/2 libraries
#: do. It is half of the window: a writer that waits has sent more than the reader still owes.
CREDIT_BYTES = WINDOW_BYTES // 2
MESSAGE_BYTES_MAX = 64 * 1024 * 1024


class Post(Protocol):
    """A wire in one direction.

    A call of a Post makes the other side call `deliver`, in the order of the calls.
    """

    def __call__(self, size: int, deliver: Callable[..., None], *arguments: Any) -> None: ...


class End:
    """One side of a call: its unread messages, and the number of bytes that it may still send.

    One task reads and one task writes. If the other side finishes, the messages that arrived before
    are read first. A failure breaks the call: later reads and writes raise this failure.
    """

    def __init__(self, post: Post) -> None:
        self.post = post
        self.peer: End
        #: Called once if the call breaks.
        self.when_broken: Callable[[], object] | None = None
        self._inbox: deque[bytes] = deque()
        self._in_flight_bytes = 0
        #: Bytes that were read here, and that still count as in flight at the other side.
        self._owed_bytes = 0
        self._is_finished_here = False
        self._is_finished_there = False
        self._failure: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None

    @property
    def is_over(self) -> bool:
        """Whether the call has failed, or both sides have finished."""
        return self._failure is not None or (self._is_finished_here and self._is_finished_there)

    # -- actions of this side --

    async def write(self, data: bytes) -> None:
        """Send a message. Wait while too many bytes are in flight."""
        while self._in_flight_bytes >= WINDOW_BYTES and not self._is_closed_for_writing():
            self._writer = asyncio.get_running_loop().create_future()
            await self._writer
        if self._is_closed_for_writing():
            raise self._failure or errors.StreamBrokenError("the call is over")
        self._in_flight_bytes += len(data)
        self.post(len(data), self.peer.arrived, data)

    async def read(self) -> bytes | None:
        """Wait for the next message; return it, or None when the other side finished cleanly."""
        while not self._inbox:
            if self._failure is not None:
                raise self._failure
            if self._is_finished_there:
                return None
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        data = self._inbox.popleft()
        self._owed_bytes += len(data)
        if self._owed_bytes >= CREDIT_BYTES and self._failure is None:
            self.post(0, self.peer.credited, self._owed_bytes)
            self._owed_bytes = 0
        return data

    def finish(self, failure: Exception | None = None) -> None:
        """Send no more messages. A client half-closes the call; a server sends its status."""
        if self._is_finished_here or self._failure is not None:
            return
        self._is_finished_here = True
        self.post(0, self.peer.was_finished, failure)

    def fail(self, failure: Exception) -> None:
        """Break the call from this side. The other side sees that it was cancelled."""
        if self.is_over:
            return
        self.broke(failure)
        self.post(0, self.peer.broke, errors.StreamBrokenError("the peer cancelled the call"))

    # -- arrivals from the wire --

    def arrived(self, data: bytes) -> None:
        if self._failure is None:
            self._inbox.append(data)
            _wake(self._reader)

    def credited(self, size: int) -> None:
        self._in_flight_bytes -= size
        _wake(self._writer)

    def was_finished(self, failure: Exception | None) -> None:
        """Take note that the other side sends no more messages."""
        self._is_finished_there = True
        if failure is not None:
            self._failure = self._failure or failure
        self._wake_all()

    def broke(self, failure: Exception) -> None:
        """Break the call at this side."""
        if self.is_over:
            return
        self._failure = failure
        self._wake_all()
        if self.when_broken is not None:
            self.when_broken()

    def _is_closed_for_writing(self) -> bool:
        return self._failure is not None or self._is_finished_here

    def _wake_all(self) -> None:
        _wake(self._reader)
        _wake(self._writer)


def refused_call(error: errors.PeerRefusedError) -> End:
    """Return the client's end of a call that was refused, because no process listens."""
    end = End(nowhere)
    end.peer = End(nowhere)
    end.broke(error)
    return end


def nowhere(size: int, deliver: Callable[..., None], *arguments: Any) -> None:
    """Drop the message. This function is the wire of an end without another side."""


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


def too_large(method: Method[Any, Any], size: int, size_max: int) -> errors.PeerError:
    """Return the error for a message that is above the size limit."""
    return errors.PeerError(
        "RESOURCE_EXHAUSTED", f"{method.path}: a message of {size} bytes; {size_max} are allowed"
    )
