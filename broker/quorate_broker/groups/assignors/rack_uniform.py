"""The rack-aware uniform assignor: equal shares, and of those the ones with a replica nearby.

Balance comes first, then the racks, then what is held: a partition moves to a member in one of its
racks if that member has room. If members subscribe to different topics, racks decide only between
equally loaded members.
"""

from __future__ import annotations

from collections.abc import Sequence

from quorate_broker.groups.assignors.uniform import NO_RACKS, assign_near
from quorate_broker.groups.assignors.values import Assignment, TaskMember, TaskTopic
from quorate_broker.groups.records.values import Partition


def assign(members: Sequence[TaskMember], topics: Sequence[TaskTopic]) -> Assignment:
    """Return who gets which partitions."""
    racks = {topic.topic_id: topic.racks for topic in topics}

    def racks_of(partition: Partition) -> frozenset[str]:
        topic_id, number = partition
        return racks[topic_id][number] if number < len(racks[topic_id]) else NO_RACKS

    return assign_near(members, topics, racks_of)
