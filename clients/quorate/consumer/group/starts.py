"""Where a consumer begins in a partition for which its group has committed nothing. A machine."""

from __future__ import annotations

from collections.abc import Mapping

from quorate.cluster.parts import Part
from quorate.consumer.partition_state import Reset


def is_newer_than_group(
    part: Part, subscribed: Mapping[bytes, int], committed: Mapping[bytes, int]
) -> bool:
    """Return whether a partition was added to its topic after the group began to read the topic.

    A topic only grows at its end. So the number of partitions that it had at a moment at which the
    group read it tells this. Both mappings have such numbers, by topic id:

    * `subscribed`: when this consumer subscribed. A topic that came later is not in it, or has 0.
    * `committed`: when the group first committed an offset of the topic. A topic of which it has
      committed nothing is not in it.

    >>> is_newer_than_group(Part(b"t", 2), {b"t": 2}, {})
    True
    >>> is_newer_than_group(Part(b"t", 2), {b"t": 3}, {b"t": 2})
    True
    >>> is_newer_than_group(Part(b"t", 2), {b"t": 3}, {b"t": 3})
    False
    """
    if part.partition >= subscribed.get(part.topic_id, 0):
        return True
    count = committed.get(part.topic_id)
    return count is not None and part.partition >= count


def reset_of(
    part: Part, policy: Reset, subscribed: Mapping[bytes, int], committed: Mapping[bytes, int]
) -> Reset:
    """Return where to begin in a partition for which nothing is committed.

    With "latest", a partition that is newer than the group is read from its beginning: otherwise
    the group would miss the records that were written before a member had the partition
    (KAFKA-12478).
    """
    if policy == "latest" and is_newer_than_group(part, subscribed, committed):
        return "earliest"
    return policy
