"""Classic groups in the words in which groups of the consumer protocol are described."""

from __future__ import annotations

from quorate_broker.groups.machine.classic.embedded import CONSUMER, assigned, subscribed
from quorate_broker.groups.machine.classic.values import (
    DescribedClassicGroup,
    DescribedClassicMember,
)
from quorate_broker.groups.machine.topics import NO_PARTITIONS, Topics
from quorate_broker.groups.machine.values import DescribedGroup, DescribedMember, Subscription


def in_words(group: DescribedClassicGroup, topics: Topics) -> DescribedGroup:
    """Return a classic group as one of the consumer protocol is described."""
    is_read = group.protocol_type == CONSUMER

    def member(one: DescribedClassicMember) -> DescribedMember:
        partitions = assigned(one.assignment, topics) if is_read else NO_PARTITIONS
        return DescribedMember(
            one.member_id,
            one.instance_id or "",
            one.client_id,
            one.client_host,
            "",
            group.generation,
            Subscription(subscribed(one.metadata) if is_read else frozenset()),
            partitions,
            partitions,
        )

    return DescribedGroup(
        group.group_id,
        group.state,
        "classic",
        group.generation,
        group.generation,
        group.protocol,
        tuple(member(one) for one in group.members),
    )
