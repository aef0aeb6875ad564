"""Chooses the partition of a record: by its key, as Kafka's Java client does, or else sticky.

A partitioner is any callable `(key, partitions, available) -> partition`. `partitions` are all
partitions of the topic, in order. `available` are those that have a leader. Nothing in this module
waits, and random numbers come from the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from quorate.producer.partition_queue import Batch, PartitionQueue

Partitioner = Callable[[bytes | None, Sequence[int], Sequence[int]], int]

_MASK = 0xFFFFFFFF
_M = 0x5BD1E995
_SEED = 0x9747B28C


def murmur2(data: bytes) -> int:
    """Return the signed 32-bit murmur2 hash that Kafka's Java client uses.

    >>> murmur2(b"foobar")
    -790332482
    """
    length = len(data)
    h = _SEED ^ length
    whole = length & ~3
    for position in range(0, whole, 4):
        k = int.from_bytes(data[position : position + 4], "little") * _M & _MASK
        k = (k ^ k >> 24) * _M & _MASK
        h = (h * _M & _MASK) ^ k
    if whole != length:
        h = (h ^ int.from_bytes(data[whole:], "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    h ^= h >> 15
    return h - (1 << 32) if h >> 31 else h


def partition_for_key(key: bytes, count: int) -> int:
    """Return the partition, of `count` partitions, that Kafka's Java client picks for this key.

    >>> partition_for_key(b"customer-42", 10) == partition_for_key(b"customer-42", 10)
    True
    """
    return (murmur2(key) & 0x7FFFFFFF) % count


class RoundRobinPartitioner:
    """Gives each record to the next partition that has a leader, whatever the record's key."""

    def __init__(self) -> None:
        self._turn = 0

    def __call__(
        self, key: bytes | None, partitions: Sequence[int], available: Sequence[int]
    ) -> int:
        candidates = available or partitions
        partition = candidates[self._turn % len(candidates)]
        self._turn += 1
        return partition


class Sticky:
    """Keeps a topic's records without a key on one partition, for a fixed share of bytes.

    So each partition gets whole batches in turn, and not a few records each. A slow broker gets
    larger batches, but its partitions do not get more bytes (KIP-794).
    """

    def __init__(self, chance: Random, share_bytes: int) -> None:
        self._chance = chance
        self._share_bytes = share_bytes
        self._spent = 0
        self._partition = -1
        #: The `available` of the last choice; None if it was empty. While the topic still has this
        #: same object, the next record goes to `queue`.
        self.available: Sequence[int] | None = None
        self.queue: PartitionQueue | None = None
        #: The last batch that was opened in `queue`. Its bytes are counted when the next one is
        #: opened.
        self.batch: Batch | None = None

    def partition(self, partitions: Sequence[int], available: Sequence[int]) -> int:
        """Return the present partition. If it has no leader, choose another one first.

        `move_on` also changes it. `available` must be immutable: pass another object when the
        leaders change.
        """
        if available is self.available:
            return self._partition
        candidates = available or partitions
        if self._partition not in candidates:
            self._stay(candidates[self._chance.randrange(len(candidates))])
        self.available = available or None
        return self._partition

    def move_on(self, partitions: Sequence[int], available: Sequence[int]) -> None:
        """Change to another partition with a leader, if there is one."""
        candidates = available or partitions
        others = [candidate for candidate in candidates if candidate != self._partition]
        self.available = available or None
        self._stay(self._chance.choice(others or candidates))

    def _stay(self, partition: int) -> None:
        self._partition = partition
        self._spent = 0
        self.batch = None

    def count(self) -> None:
        """Count the bytes of the last batch. The batch must get no more records."""
        if self.batch is not None:
            self._spent += self.batch.bytes
            self.batch = None

    @property
    def had_its_share(self) -> bool:
        """Whether the present partition has got its share of bytes."""
        return self._spent >= self._share_bytes
