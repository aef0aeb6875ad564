"""What a broker may spend on remembering producers, and the clock by which it forgets them.

A machine: its driver tells it the time (producer_expiry.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field

DAY_MS = 24 * 60 * 60 * 1000
#: A producer that was heard within this time is never forgotten: its client may still send again
#: what it wrote.
KEPT_MS = 15 * 60 * 1000
#: What a producer counts in memory, its share of the dict included (measured: 130 to 210 bytes).
PRODUCER_BYTES = 256
#: The driver tells the time so often. A longer silence of the driver counts as twice that: this
#: process stood still, and what its clients sent meanwhile waits in its sockets.
TICK_MS = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerLimits:
    """Bounds of what is remembered of producers."""

    #: A producer is forgotten after so long without a batch (Kafka's producer.id.expiration.ms).
    expiration_ms: int = DAY_MS
    #: Where a partition knows more, those silent for KEPT_MS go, the longest silent first.
    partition_producers_max: int = 10_000
    #: At these bounds a new producer is refused: of one partition, and of all.
    partition_bytes_max: int = 8 << 20
    broker_bytes_max: int = 256 << 20


@dataclass(slots=True)
class ProducerMemory:
    """The bounds and the clock that all partitions of a broker share.

    The clock counts milliseconds of this process at work. It never runs faster than time: a
    producer may be remembered for longer than the limits say, never for less.
    """

    limits: ProducerLimits = field(default_factory=ProducerLimits)
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
        return (self.count + more) * PRODUCER_BYTES <= self.limits.broker_bytes_max
