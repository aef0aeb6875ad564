"""Who waits at a partition: producers for their commit, fetches for news.

Waiters live within one reign; Partition fails them all when the reign ends, so a waiter
completes by the commit of its own (offset, epoch) and never by a later epoch's high watermark.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Generic, TypeVar

from quorate.errors import OverloadedError, QuorateError
from quorate.v1.common_pb2 import LeaderHint

T = TypeVar("T")
E = TypeVar("E", bound=QuorateError)


def hinted(error: E, hint: LeaderHint) -> E:
    """Return the error with who leads now attached to it (KIP-951)."""
    error.hint = hint  # type: ignore[attr-defined]
    return error


def hint_of(error: BaseException) -> LeaderHint | None:
    """Return who leads now, if the error knows."""
    return getattr(error, "hint", None)


class Waiters(Generic[T]):
    """Waits for the high watermark to reach an end offset, each with a deadline.

    >>> waiters = Waiters[str](10)
    >>> waiters.add(5, 1000, "a"); waiters.add(3, 1000, "b")
    >>> waiters.reached(4), waiters.expired(1000)
    (['b'], ['a'])
    """

    def __init__(self, waiters_max: int) -> None:
        self.waiters_max = waiters_max
        #: When to call expired() next; None: nobody waits. May be early, never late.
        self.next_deadline_ms: int | None = None
        self._heap: list[tuple[int, int, int, T]] = []  # end offset, order of arrival, deadline
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._heap)

    def assert_room(self) -> None:
        """Raise OverloadedError if no more may wait."""
        if len(self._heap) >= self.waiters_max:
            raise OverloadedError(f"{self.waiters_max} batches wait here for their commit already")

    def add(self, end_offset: int, deadline_ms: int, waiter: T) -> None:
        """Let `waiter` wait until all below `end_offset` is committed."""
        self._arrivals += 1
        heapq.heappush(self._heap, (end_offset, self._arrivals, deadline_ms, waiter))
        if self.next_deadline_ms is None or deadline_ms < self.next_deadline_ms:
            self.next_deadline_ms = deadline_ms

    def reached(self, high_watermark: int) -> list[T]:
        """Take out, in order of offsets, those whose end the high watermark has reached."""
        done: list[T] = []
        while self._heap and self._heap[0][0] <= high_watermark:
            done.append(heapq.heappop(self._heap)[3])
        return done

    def expired(self, now_ms: int) -> list[T]:
        """Take out those whose deadline has come."""
        late = sorted(
            (*entry[:3], index) for index, entry in enumerate(self._heap) if entry[2] <= now_ms
        )
        done = [self._heap[index][3] for *_, index in late]
        self._heap = [entry for entry in self._heap if entry[2] > now_ms]
        heapq.heapify(self._heap)
        self.next_deadline_ms = min((entry[2] for entry in self._heap), default=None)
        return done

    def take_all(self) -> list[T]:
        """Take out everybody, in order of offsets."""
        done = [entry[3] for entry in sorted(self._heap, key=lambda entry: entry[:2])]
        self._heap.clear()
        self.next_deadline_ms = None
        return done


class Watches:
    """Functions to call when something changes; in order of their registration."""

    def __init__(self) -> None:
        self._wakes: dict[int, Callable[[], None]] = {}
        self._registrations = 0

    def __len__(self) -> int:
        return len(self._wakes)

    def add(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Register `wake`; return the function that ends that, which is safe to call twice."""
        self._registrations += 1
        number = self._registrations
        self._wakes[number] = wake

        def unwatch() -> None:
            self._wakes.pop(number, None)

        return unwatch

    def wake(self) -> None:
        """Call everybody."""
        for wake in tuple(self._wakes.values()):
            wake()
