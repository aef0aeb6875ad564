"""The range assignor: each topic by itself, cut into ranges of neighbouring partitions.

Members that subscribe to the same topics get the same numbers of each: partition 3 of two topics
with equally many partitions goes to one member, so that their records can be joined there.
"""

from __future__ import annotations

from collections.abc import Sequence

from quorate_broker.groups.assignors.values import Assignment, TaskMember, TaskTopic, in_order
from quorate_broker.groups.records.values import Partition


def assign(members: Sequence[TaskMember], topics: Sequence[TaskTopic]) -> Assignment:
    """Return who gets which partitions. The first members of a topic may get one more."""
    shares: dict[str, list[Partition]] = {member.member_id: [] for member in members}
    ordered = in_order(members)
    for topic in topics:
        subscribers = [one.member_id for one in ordered if topic.topic_id in one.topic_ids]
        begin = 0
        for at, member_id in enumerate(subscribers):
            size = topic.partitions // len(subscribers) + (at < topic.partitions % len(subscribers))
            shares[member_id] += [(topic.topic_id, number) for number in range(begin, begin + size)]
            begin += size
    return {member_id: frozenset(share) for member_id, share in shares.items()}
