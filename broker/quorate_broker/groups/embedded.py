"""What consumers of the classic protocol tell each other: subscriptions and assignments.

To a coordinator these are bytes. Kafka's clients write them in a format of their own
(ConsumerProtocolSubscription and ConsumerProtocolAssignment), read here for descriptions only.
"""

from __future__ import annotations

from typing import Final

from quorate.errors import CorruptRecordError
from quorate_broker.groups.machine.classic.values import (
    DescribedClassicGroup,
    DescribedClassicMember,
)
from quorate_broker.groups.machine.topics import NO_PARTITIONS, Topics
from quorate_broker.groups.machine.values import DescribedGroup, DescribedMember, Subscription
from quorate_broker.groups.records.values import Partition
from quorate_broker.groups.records.wire import Reader

#: Longer subscriptions and assignments are not read: a description must not take long.
READ_BYTES_MAX: Final = 64 * 1024


def subscribed(metadata: bytes) -> frozenset[str]:
    """Return the topics of a subscription; none if the bytes are something else."""
    if len(metadata) > READ_BYTES_MAX:
        return frozenset()
    reader = Reader(metadata, "the subscription of a classic member")
    try:
        reader.int16()
        return frozenset(reader.old_array(reader.string))
    except CorruptRecordError:
        return frozenset()


def assigned(assignment: bytes, topics: Topics) -> frozenset[Partition]:
    """Return the partitions of an assignment; none if the bytes are something else.

    Partitions of topics that are not there are left out.
    """
    if len(assignment) > READ_BYTES_MAX:
        return NO_PARTITIONS
    reader = Reader(assignment, "the assignment of a classic member")

    def topic() -> tuple[str, list[int]]:
        return reader.string(), reader.old_array(reader.int32)

    try:
        reader.int16()
        named = reader.old_array(topic)
    except CorruptRecordError:
        return NO_PARTITIONS
    found = ((topics.named(name), numbers) for name, numbers in named)
    return frozenset(
        (one.id, number) for one, numbers in found if one is not None for number in numbers
    )


def in_words(group: DescribedClassicGroup, topics: Topics) -> DescribedGroup:
    """Return a classic group as one of the consumer protocol is described."""
    is_read = group.protocol_type == "consumer"

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
