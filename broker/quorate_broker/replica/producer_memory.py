"""What a broker may spend on remembering producers, and the clock by which it forgets them.

A machine: ProducerExpiry drives it, and tells it the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

#: A producer that was heard within this time is never forgotten: its client may still send again
#: what it wrote.
KEPT_MS = 15 * 60 * 1000
#: What a producer counts in memory, its share of the dict included (measured: 130 to 210 bytes).
PRODUCER_BYTES = 256
#: The driver tells the time so often. A longer silence of the driver counts as twice that: this
#: process stood still, and what its clients sent meanwhile waits in its sockets.
TICK_MS = 5_000


class ProducerBounds(Protocol):
    """Bounds of what is remembered of producers. BrokerConfig has them, and says the defaults."""

    @property
    def producer_id_expiration_ms(self) -> int:
        """A producer is forgotten after so long without a batch."""

    @property
    def partition_producers_max(self) -> int:
        """A partition that knows more forgets those silent for KEPT_MS, longest silent first."""

    @property
    def partition_producer_state_max_bytes(self) -> int:
        """At this bound a partition refuses a new producer."""

    @property
    def producer_state_max_bytes(self) -> int:
        """At this bound, of all partitions, every partition refuses a new producer."""


@dataclass(slots=True)
class ProducerMemory:
    """The bounds and the clock that all partitions of a broker share.

    The clock counts milliseconds of this process at work. It never runs faster than time: a
    producer may be remembered for longer than the limits say, never for less.
    """

    #: None: nothing is forgotten or refused, for a program that only reads.
    bounds: ProducerBounds | None = None
    now_ms: int = 0
    #: Producers known, summed over the partitions.
    count: int = 0
    _told_ms: int | None = None

    def tick(self, loop_ms: int) -> None:
        """Take the time of a clock that never goes back."""
        if self._told_ms is not None:
            self.now_ms += min(loop_ms - self._told_ms, 2 * TICK_MS)
        self._told_ms = loop_ms

    def has_room(self, more: int) -> bool:
        """Whether the broker may remember so many more producers."""
        if self.bounds is None:
            return True
        return (self.count + more) * PRODUCER_BYTES <= self.bounds.producer_state_max_bytes
