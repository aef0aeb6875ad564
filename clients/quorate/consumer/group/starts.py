"""Where a consumer begins in a partition for which its group has committed nothing. A machine."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from quorate.cluster.parts import Part
from quorate.consumer.partition_state import Reset


def is_late(part: Part, first_counts: Mapping[bytes, int], committed: Iterable[Part]) -> bool:
    """Return whether a partition was added to its topic after the group began to read the topic.

    With "latest", such a partition is read from its beginning: otherwise the group would miss the
    records that were written before a member had the partition (KAFKA-12478). Two things tell it:

    * This consumer saw the topic with fewer partitions. `first_counts`: topic id -> number of
      partitions when this consumer subscribed; a topic that came later is not in it, or has 0.
    * The group has committed offsets of the topic, but none of this or a higher partition. A topic
      only grows at its end.

    >>> is_late(Part(b"t", 2), {b"t": 2}, []), is_late(Part(b"t", 2), {b"t": 3}, [])
    (True, False)
    >>> is_late(Part(b"t", 2), {b"t": 3}, [Part(b"t", 0)])
    True
    >>> is_late(Part(b"t", 2), {b"t": 4}, [Part(b"t", 3)])
    False
    """
    if part.partition >= first_counts.get(part.topic_id, 0):
        return True
    numbers = [one.partition for one in committed if one.topic_id == part.topic_id]
    return bool(numbers) and part.partition > max(numbers)


def resets(
    parts: Collection[Part],
    policy: Reset,
    first_counts: Mapping[bytes, int],
    committed: Collection[Part],
) -> dict[Part, Reset]:
    """Return where to begin in each of these partitions, which have no committed offset."""
    return {
        part: "earliest"
        if policy == "latest" and is_late(part, first_counts, committed)
        else policy
        for part in parts
    }
