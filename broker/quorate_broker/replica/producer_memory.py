"""How much memory a broker may use for producers, and the clock by which it forgets them.

A machine. ProducerExpiry drives it and gives it the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

#: A broker never forgets a producer that sent a batch within this time, because its client may
#: still send the batch again.
KEPT_MS = 15 * 60 * 1000
#: The memory that one producer counts for, with its share of the dict (measured: 130 to 210 bytes).
PRODUCER_BYTES = 256
#: The driver gives the time once in this interval. A longer pause of the driver counts as at most
#: twice this interval: during the pause the process did not run, and batches of its clients wait in
#: its sockets.
TICK_MS = 5_000


class ProducerBounds(Protocol):
    """Bounds of the memory of producers. BrokerConfig declares them, with their defaults."""

    @property
    def producer_id_expiration_ms(self) -> int:
        """Milliseconds without a batch after which a producer is forgotten."""

    @property
    def partition_producers_max(self) -> int:
        """The most producers of one partition.

        With more, the partition forgets producers that were silent for KEPT_MS, the longest silent
        first.
        """

    @property
    def partition_producer_state_max_bytes(self) -> int:
        """The most bytes of the producers of one partition.

        A new producer that would need more is refused.
        """

    @property
    def producer_state_max_bytes(self) -> int:
        """The most bytes of the producers of all partitions.

        A new producer that would need more is refused, whatever its partition.
        """


@dataclass(slots=True)
class ProducerMemory:
    """The bounds and the clock that all partitions of a broker share.

    The clock counts the milliseconds in which this process worked. It is never faster than real
    time. So a producer may be remembered for longer than the limits say, but never for a shorter
    time.
    """

    #: None: no producer is forgotten or refused. Programs that only read a log have no bounds.
    bounds: ProducerBounds | None = None
    now_ms: int = 0
    #: Number of known producers, summed over the partitions.
    count: int = 0
    _told_ms: int | None = None

    def tick(self, loop_ms: int) -> None:
        """Advance the clock. `loop_ms` is the time of a clock that never goes back."""
        if self._told_ms is not None:
            self.now_ms += min(loop_ms - self._told_ms, 2 * TICK_MS)
        self._told_ms = loop_ms

    def has_room(self, more: int) -> bool:
        """Return whether the broker may remember `more` further producers."""
        if self.bounds is None:
            return True
        return (self.count + more) * PRODUCER_BYTES <= self.bounds.producer_state_max_bytes
