"""What an assignor is given: members and topics as small values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from quorate_broker.groups.records.values import Partition

#: Partitions of any topics.
PartitionSet = frozenset[Partition]


@dataclass(frozen=True, slots=True)
class TaskMember:
    """A member, as an assignor sees it."""

    member_id: str
    #: Empty: the member is not static.
    instance_id: str
    #: Empty: not known.
    rack: str
    #: The topics that it subscribes to.
    topic_ids: frozenset[bytes]
    #: By the last assignment.
    assigned: PartitionSet


@dataclass(frozen=True, slots=True)
class TaskTopic:
    """A topic, as an assignor sees it."""

    topic_id: bytes
    name: str
    partitions: int
    #: For each partition, the racks of its replicas. Empty: not known, or not wanted.
    racks: Sequence[frozenset[str]] = field(default=(), compare=False)


#: By member id. Each partition that some member subscribes to goes to exactly one such member.
Assignment = Mapping[str, PartitionSet]
#: A pure function: equal arguments give equal results, whatever the order of the members.
Assignor = Callable[[Sequence[TaskMember], Sequence[TaskTopic]], Assignment]


def in_order(members: Sequence[TaskMember]) -> list[TaskMember]:
    """Return the members in an order that does not change when a static member comes back."""
    return sorted(members, key=lambda member: member.instance_id or member.member_id)
