"""One connection of a Kafka client, as a machine: bytes in; requests, answers and its end out.

    received() -> next_request() -> accepted(), answered() -> take_output()

The rules:

* Answers leave in the order of the requests, whatever the order in which they are ready.
* A request begins when the one before it is answered. One exception: a Produce request begins while
  those before it wait for their commit, if all of these are Produce requests that have put their
  batches into the queues of the partitions (`accepted`). Anything else could overtake: an
  OffsetCommit a LeaveGroup, for example.
* Everything is bounded by Limits. At a bound the machine stops reading (`wants_reading`), so TCP
  slows the client down. A client that breaks a rule, or does not read its answers, is closed.
* Before the connection ends, the answers that are owed leave, for at most `drain_ms`.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from quorate_broker.listeners.kafka.budget import ReadBudget
from quorate_broker.listeners.kafka.framing import LENGTH, Frame, Frames, FramingError

PRODUCE: Final = 0
_HEAD: Final = struct.Struct(
    ">"
    "h"  # api key
    "h"  # version
    "i"  # correlation id
)

Piece = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of one connection. Sizes are in bytes, times in milliseconds."""

    request_bytes_max: int
    #: The same before the client has authenticated itself.
    unauthenticated_request_bytes_max: int = 64 * 1024
    #: Requests that are read and not answered.
    in_flight_max: int = 64
    #: Bytes of requests that have not begun.
    queued_bytes_max: int = 1024 * 1024
    #: Bytes of answers that the client has not read: above the first no request begins, until they
    #: are below the second.
    unsent_high_bytes: int = 1024 * 1024
    unsent_low_bytes: int = 256 * 1024
    #: Without a request for this time, the connection is closed.
    idle_ms: int
    #: How long a request may stop in the middle, and a client may read none of its answers.
    stall_ms: int = 60_000
    #: How long answers that are owed may take before the connection ends.
    drain_ms: int = 5_000


@dataclass(slots=True)
class Request:
    """A request, in the order of its arrival."""

    number: int
    api_key: int
    version: int
    correlation_id: int
    #: All its bytes after the length. Empty as soon as it is handled.
    frame: Frame


@dataclass(slots=True, eq=False)
class _Owed:
    """A request that has begun, and its answer as soon as there is one."""

    request: Request
    is_accepted: bool = False
    is_answered: bool = False
    answer: Sequence[Piece] | None = None


class Connection:
    """The state of one connection. See the module.

    `end_reason` says why the connection ends or has ended; empty: it goes on. `wake` is called when
    there may be memory again: `look_again` then tells.
    """

    def __init__(
        self,
        limits: Limits,
        shared: bytearray,
        budget: ReadBudget,
        now_ms: int,
        wake: Callable[[], None],
    ) -> None:
        self.wake = wake
        self._limits = limits
        self._budget = budget
        self._frames = Frames(shared, budget)
        self._queued: deque[Request] = deque()
        self._queued_bytes = 0
        self._owed: deque[_Owed] = deque()
        self._by_number: dict[int, _Owed] = {}
        self._output: list[Piece] = []
        self._arrived = 0
        #: Whether the request that is being read waits for memory.
        self._is_starved = False
        self._is_unsent_high = False
        self._unsent = 0
        #: The last time at which bytes came, an answer left, or this side did not read.
        self._active_ms = now_ms
        self._sent_ms = now_ms
        self._ends_by_ms: int | None = None
        self.end_reason = ""
        #: Whether nothing more is to be read or written.
        self.is_over = False
        self.is_authenticated = True

    # what the driver asks

    @property
    def wants_reading(self) -> bool:
        """Whether the transport should read on."""
        return (
            not self.end_reason
            and not self._is_unsent_high
            and len(self._queued) + len(self._owed) < self._limits.in_flight_max
            and self._queued_bytes < self._limits.queued_bytes_max
            and not self._is_starved
        )

    @property
    def has_queued(self) -> bool:
        """Whether a request waits for its turn."""
        return bool(self._queued)

    def next_request(self) -> Request | None:
        """Return the request to begin now, if there is one."""
        if not self._queued or self._is_unsent_high or self.is_over:
            return None
        if self._owed:
            before = self._owed[-1]
            is_behind_produce = before.is_accepted and before.request.api_key == PRODUCE
            if not is_behind_produce or self._queued[0].api_key != PRODUCE:
                return None
        request = self._queued.popleft()
        self._queued_bytes -= len(request.frame)
        owed = _Owed(request)
        self._owed.append(owed)
        self._by_number[request.number] = owed
        return request

    def take_output(self) -> list[Piece]:
        """Return the bytes to send now."""
        output, self._output = self._output, []
        return output

    # bytes

    def buffer(self) -> memoryview:
        """Return where the transport writes the next bytes that it reads."""
        return self._frames.buffer()

    def received(self, count: int, now_ms: int) -> None:
        """Take note that the transport has written `count` bytes into the buffer."""
        self._active_ms = now_ms
        if self.end_reason:
            return
        self._frames.received(count)
        self._cut(now_ms)

    def unsent(self, *, is_high: bool, now_ms: int) -> None:
        """Take note that the client has much to read, or has read enough of it."""
        self._is_unsent_high = is_high
        self._sent_ms = now_ms
        if not is_high:
            self._cut(now_ms)

    def look_again(self, now_ms: int) -> None:
        """Look whether there is memory again for the request that is being read."""
        self._active_ms = now_ms
        if not self.end_reason:
            self._ask_for_memory()

    # answers

    def accepted(self, request: Request) -> None:
        """Take note that the next Produce request may begin, before this one is answered."""
        self._by_number[request.number].is_accepted = True

    def handled(self, request: Request) -> None:
        """Drop the bytes of a request: its handler has what it needs, or charges it.

        It is safe to call this twice.
        """
        self._budget.give_back(len(request.frame))
        request.frame = b""
        if not self._frames.wants_memory:
            self._budget.is_done(self)

    def answered(self, request: Request, answer: Sequence[Piece] | None, now_ms: int) -> None:
        """Take the answer to a request; None: the client expects none."""
        owed = self._by_number.pop(request.number, None)
        if owed is None:
            return
        owed.is_answered, owed.answer = True, answer
        self._active_ms = now_ms
        while self._owed and self._owed[0].is_answered:
            answer = self._owed.popleft().answer
            if answer is not None:
                self._output.append(LENGTH.pack(sum(map(len, answer))))
                self._output.extend(answer)
        self._cut(now_ms)
        self._end_if_drained()

    # time and the end

    def tick(self, now_ms: int, unsent_bytes: int) -> None:
        """Look at the time. `unsent_bytes` are those that the transport could not send yet."""
        limits = self._limits
        if unsent_bytes < self._unsent or not self._is_unsent_high:
            self._sent_ms = now_ms
        self._unsent = unsent_bytes
        if not self.wants_reading or self._owed or self._queued:
            self._active_ms = now_ms
        silent_ms = now_ms - self._active_ms
        if self._ends_by_ms is not None and now_ms >= self._ends_by_ms:
            self._over(self.end_reason)
        elif now_ms - self._sent_ms >= limits.stall_ms:
            self._over(f"the client reads none of its answers for {limits.stall_ms} ms")
        elif silent_ms >= limits.stall_ms and not self._frames.is_between:
            self._over(f"a request stopped in the middle for {limits.stall_ms} ms")
        elif silent_ms >= limits.idle_ms:
            self._over(f"idle for {limits.idle_ms} ms")

    def end(self, reason: str, now_ms: int) -> None:
        """Begin nothing more. The connection is over when the answers that are owed have left."""
        if not self.end_reason:
            self.end_reason = reason
            self._ends_by_ms = now_ms + self._limits.drain_ms
            self._forget_queued()
            self._end_if_drained()

    def lost(self, reason: str) -> None:
        """Take note that the transport is closed."""
        self._over(reason)

    # inside

    def _cut(self, now_ms: int) -> None:
        """Cut the bytes that are here into requests, as many as there may be."""
        limits = self._limits
        bytes_max = limits.request_bytes_max
        if not self.is_authenticated:
            bytes_max = min(bytes_max, limits.unauthenticated_request_bytes_max)
        try:
            while not self.end_reason and (
                len(self._queued) + len(self._owed) < limits.in_flight_max
            ):
                frame = self._frames.next(bytes_max)
                if frame is None:
                    break
                api_key, version, correlation_id = _HEAD.unpack_from(frame)
                self._queued.append(Request(self._arrived, api_key, version, correlation_id, frame))
                self._queued_bytes += len(frame)
                self._arrived += 1
        except FramingError as error:
            self.end(str(error), now_ms)
        self._frames.keep()
        if not self.end_reason:
            self._ask_for_memory()

    def _ask_for_memory(self) -> None:
        self._is_starved = self._frames.must_grow and not self._budget.admits(self)

    def _end_if_drained(self) -> None:
        if self.end_reason and not self._owed:
            self._over(self.end_reason)

    def _over(self, reason: str) -> None:
        self.end_reason = self.end_reason or reason
        self.is_over = True
        self._forget_queued()
        self._owed.clear()
        self._by_number.clear()

    def _forget_queued(self) -> None:
        for request in self._queued:
            self._budget.give_back(len(request.frame))
        self._queued.clear()
        self._queued_bytes = 0
        self._frames.drop()
        self._budget.is_done(self)
