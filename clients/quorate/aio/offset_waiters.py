"""A queue of waiters, each for an offset. The queue itself never waits."""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

from quorate.errors import OverloadedError

T = TypeVar("T")

#: The deadline in the entry of a waiter that has no deadline.
NEVER_MS = 1 << 62


class OffsetWaiters(Generic[T]):
    """Waiters for end offsets, at most `waiters_max` of them. Each waiter may have a deadline.

    `what` names the waiters in the error: "100 calls wait for the image already".

    >>> waiters = OffsetWaiters[str](10, "batches wait")
    >>> _ = waiters.add(5, "a", deadline_ms=1000), waiters.add(3, "b", deadline_ms=1000)
    >>> waiters.reached(4), waiters.expired(1000)
    (['b'], ['a'])
    """

    def __init__(self, waiters_max: int, what: str) -> None:
        self.waiters_max = waiters_max
        #: Time of the next call of expired(); None if no waiter has a deadline. The time may be too
        #: early, but is never too late.
        self.next_deadline_ms: int | None = None
        self._what = what
        #: Heap of (end offset, ticket, deadline, waiter). Tickets number the waiters in the order
        #: in which they were added.
        self._heap: list[tuple[int, int, int, T]] = []
        #: Tickets of the waiters that still wait. The heap also holds waiters that were removed.
        self._living: dict[int, None] = {}
        self._tickets = 0

    def __len__(self) -> int:
        return len(self._living)

    def check_room(self) -> None:
        """Raise OverloadedError if there are `waiters_max` waiters."""
        if len(self) >= self.waiters_max:
            raise OverloadedError(f"{len(self)} {self._what} already")

    def add(self, end_offset: int, waiter: T, *, deadline_ms: int | None = None) -> int:
        """Let `waiter` wait for `end_offset`; return the ticket for `remove`."""
        self._tickets += 1
        self._living[self._tickets] = None
        deadline = NEVER_MS if deadline_ms is None else deadline_ms
        heapq.heappush(self._heap, (end_offset, self._tickets, deadline, waiter))
        if deadline_ms is not None:
            self.next_deadline_ms = min(deadline, self.next_deadline_ms or deadline)
        return self._tickets

    def remove(self, ticket: int) -> None:
        """Take out one waiter, if it still waits. Its caller has given up."""
        self._living.pop(ticket, None)
        # Callers may come and give up while the offset does not grow. Their entries must not pile
        # up.
        if len(self._heap) > 2 * len(self._living):
            self._keep([entry for entry in self._heap if entry[1] in self._living])

    def reached(self, offset: int) -> list[T]:
        """Take out, in order of their offsets, the waiters whose end offset is reached."""
        done: list[T] = []
        while self._heap and self._heap[0][0] <= offset:
            _, ticket, _, waiter = heapq.heappop(self._heap)
            if ticket in self._living:
                del self._living[ticket]
                done.append(waiter)
        return done

    def expired(self, now_ms: int) -> list[T]:
        """Take out, in order of their offsets, the waiters whose deadline has come."""
        late = [entry for entry in self._in_order() if entry[2] <= now_ms]
        for _, ticket, _, _ in late:
            del self._living[ticket]
        self._keep([entry for entry in self._heap if entry[1] in self._living])
        deadlines = [deadline for _, _, deadline, _ in self._heap if deadline != NEVER_MS]
        self.next_deadline_ms = min(deadlines, default=None)
        return [entry[3] for entry in late]

    def take_all(self) -> list[T]:
        """Take out all waiters, in order of their offsets."""
        waiters = [entry[3] for entry in self._in_order()]
        self._living.clear()
        self._keep([])
        self.next_deadline_ms = None
        return waiters

    def _in_order(self) -> list[tuple[int, int, int, T]]:
        living = (entry for entry in self._heap if entry[1] in self._living)
        return sorted(living, key=lambda entry: entry[:2])

    def _keep(self, entries: list[tuple[int, int, int, T]]) -> None:
        heapq.heapify(entries)
        self._heap = entries
