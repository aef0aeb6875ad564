"""Deadlines by name, the next one first."""

from __future__ import annotations

import heapq
from typing import Final, Generic, TypeVar

N = TypeVar("N")

#: The heap may have this many outdated entries, plus as many as there are names.
SUPERSEDED_MAX: Final = 1_000


class Timers(Generic[N]):
    """A heap of deadlines. A deadline that has moved later stays in the heap: when it comes, the
    owner looks at its own fields and sets the timer again. So a heartbeat costs nothing here.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, N]] = []
        #: The earliest entry of each name that is in the heap.
        self._earliest: dict[N, int] = {}
        self._entries = 0

    def __len__(self) -> int:
        """Return the number of entries, outdated ones included."""
        return len(self._heap)

    def at(self, due_ms: int, name: N) -> None:
        """Wake `name` at `due_ms`, unless it is woken earlier anyway."""
        earliest = self._earliest.get(name)
        if earliest is not None and earliest <= due_ms:
            return
        self._earliest[name] = due_ms
        # Names are not compared: the number of the entry decides between equal times.
        self._entries += 1
        heapq.heappush(self._heap, (due_ms, self._entries, name))
        self._tidy()

    def forget(self, name: N) -> None:
        """Never wake `name`, unless it is set again."""
        self._earliest.pop(name, None)
        self._tidy()

    def next_ms(self) -> int | None:
        """Return the next deadline; None if there is none."""
        self._drop_superseded()
        return self._heap[0][0] if self._heap else None

    def due(self, now_ms: int) -> N | None:
        """Take one name that is due; None if there is none."""
        self._drop_superseded()
        if not self._heap or self._heap[0][0] > now_ms:
            return None
        _, _, name = heapq.heappop(self._heap)
        del self._earliest[name]
        return name

    def _tidy(self) -> None:
        """Keep the heap small; this seldom costs more than a comparison."""
        if len(self._heap) > 2 * len(self._earliest) + SUPERSEDED_MAX:
            earliest = self._earliest
            self._heap = [one for one in self._heap if earliest.get(one[2]) == one[0]]
            heapq.heapify(self._heap)

    def _drop_superseded(self) -> None:
        while self._heap and self._earliest.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
