"""Committed offsets of one group: checked, written, read, and forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Protocol

from quorate.errors import (
    GroupSubscribedToTopicError,
    InvalidPartitionsError,
    OffsetMetadataTooLargeError,
    QuorateError,
    UnknownTopicError,
)
from quorate_broker.groups.machine.group import Group
from quorate_broker.groups.machine.topics import Topic, Topics
from quorate_broker.groups.machine.turn import Turn
from quorate_broker.groups.machine.values import (
    CommitOffsets,
    Committed,
    CommittedOffset,
    FetchedOffset,
    FetchOffsets,
    OffsetCommit,
)
from quorate_broker.groups.records.keys import OffsetKey
from quorate_broker.groups.records.values import OffsetValue, Partition


class Rules(Protocol):
    """What the protocol of a group says of who commits and reads offsets."""

    group: Group

    def check_committer(self, request: CommitOffsets, turn: Turn) -> None:
        """Raise the error for a caller that may commit nothing at all."""

    def read_topics(self) -> frozenset[str] | None:
        """Return the names of the topics to which members subscribe; None: it is not known."""

    def refusal(self, request: CommitOffsets, partition: Partition) -> QuorateError | None:
        """Return why a member may not commit for a partition; None: it may."""

    def check_reader(self, request: FetchOffsets) -> None:
        """Raise the error for a member that has missed something."""

    @property
    def empty_since_ms(self) -> int | None:
        """When the last member went (ms since 1970). None: the group is not empty."""


def commit(rules: Rules, request: CommitOffsets, turn: Turn) -> Committed:
    """Commit the offsets of a request, but for those that are refused one by one."""
    rules.check_committer(request, turn)
    group = rules.group
    topics = group.shared.subscriptions.topics
    refused: dict[Partition, QuorateError] = {}
    read = rules.read_topics() if request.only_forgets else frozenset()
    for one in request.offsets:
        topic_id, number = one.partition
        topic = topics.with_id(topic_id)
        refusal = _refusal(rules, request, one, topic)
        if refusal is None and topic is not None and (read is None or topic.name in read):
            known = "subscribe" if read is not None else "may subscribe"
            refusal = GroupSubscribedToTopicError(
                f"members of group {group.id!r} {known} to topic {topic.name!r}: its offsets stay"
            )
        if refusal is not None:
            refused[one.partition] = refusal
            continue
        assert topic is not None, "refused above"
        value = None
        if one.offset is not None:
            value = OffsetValue(
                one.offset,
                one.leader_epoch,
                one.metadata,
                turn.wall_ms,
                topic_id,
                _partitions_at_first_commit(group, topic, number),
            )
        turn.write(group.state, OffsetKey(group.id, topic.name, number), value)
    return Committed(refused)


def _partitions_at_first_commit(group: Group, topic: Topic, number: int) -> int:
    """Return the number of partitions that the topic had at the first commit of a partition.

    Later commits keep it. A member needs it in partitions without a commit: of those that are newer
    than the group, it must read all records.
    """
    before = group.state.offsets.get(topic.name, {}).get(number)
    if before is None or before.topic_id != topic.id or not before.partitions_at_first_commit:
        return topic.partitions
    return before.partitions_at_first_commit


def _refusal(
    rules: Rules, request: CommitOffsets, one: OffsetCommit, topic: Topic | None
) -> QuorateError | None:
    """Return why one offset is refused; None: it is not."""
    topic_id, number = one.partition
    if topic is None:
        return UnknownTopicError(f"the coordinator knows no topic with the id {topic_id.hex()}")
    if number < 0:
        return InvalidPartitionsError(f"the partition is {number}; 0 is the first")
    if number >= topic.partitions:
        return UnknownTopicError(
            f"topic {topic.name!r} has no partition {number}; the coordinator knows of "
            f"{topic.partitions} partitions"
        )
    size, most = len(one.metadata.encode()), rules.group.shared.config.offset_metadata_bytes_max
    if size > most:
        return OffsetMetadataTooLargeError(
            f"the metadata for partition {number} of {topic.name!r} has {size} bytes; "
            f"offset.metadata.max.bytes allows {most}"
        )
    return rules.refusal(request, one.partition) if request.member_id else None


def fetch(rules: Rules, request: FetchOffsets) -> tuple[FetchedOffset, ...]:
    """Return the committed offsets that are asked for; of a topic made again only its own."""
    rules.check_reader(request)
    group = rules.group
    if request.partitions is None:
        return tuple(_every(group, request.topics))
    topics = group.shared.subscriptions.topics
    return tuple(fetched(group, topics, partition) for partition in request.partitions)


def fetched(group: Group | None, topics: Topics, partition: Partition) -> FetchedOffset:
    """Return one partition of an answer. A group that does not exist has committed nothing."""
    topic_id, number = partition
    topic = topics.with_id(topic_id)
    name = "" if topic is None else topic.name
    value = None if group is None else group.state.offsets.get(name, {}).get(number)
    if value is None or value.topic_id != topic_id:
        return FetchedOffset(partition, name, None)
    return FetchedOffset(partition, name, _committed(value))


def _every(group: Group, names: Iterable[str]) -> Iterator[FetchedOffset]:
    for name in names:
        for number, value in sorted(group.state.offsets.get(name, {}).items()):
            yield FetchedOffset((value.topic_id, number), name, _committed(value))


def _committed(value: OffsetValue) -> CommittedOffset:
    return CommittedOffset(
        value.topic_id,
        value.offset,
        value.leader_epoch,
        value.metadata,
        value.committed_at_ms,
        value.partitions_at_first_commit,
    )


def orphaned(group: Group) -> Iterator[OffsetKey]:
    """Yield the offsets of topics that are deleted; a topic made again has another id."""
    topics = group.shared.subscriptions.topics
    for name, partitions in group.state.offsets.items():
        topic = topics.named(name)
        for number, value in partitions.items():
            if topic is None or topic.id != value.topic_id:
                yield OffsetKey(group.id, name, number)


def expired(rules: Rules, wall_ms: int) -> Iterator[OffsetKey]:
    """Yield the offsets whose time is over: only of a group that had no members all that time."""
    group, empty_since_ms = rules.group, rules.empty_since_ms
    before_ms = wall_ms - group.shared.config.offsets_retention_ms
    if empty_since_ms is None or empty_since_ms > before_ms:
        return
    for name, partitions in group.state.offsets.items():
        for number, value in partitions.items():
            if value.committed_at_ms <= before_ms:
                yield OffsetKey(group.id, name, number)


def clean(rules: Rules, turn: Turn, room: int) -> bool:
    """Forget offsets of deleted topics and expired ones; return whether none is left to forget.

    At most `room` records are written.
    """
    found = chain(orphaned(rules.group), expired(rules, turn.wall_ms))
    keys = [*dict.fromkeys(islice(found, 2 * room + 1))]
    for key in keys[:room]:
        turn.write(rules.group.state, key, None)
    return len(keys) <= room
