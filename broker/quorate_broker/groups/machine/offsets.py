"""Committed offsets of one group: checked, written, read, and forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice

from quorate.errors import (
    FencedMemberEpochError,
    InvalidPartitionsError,
    InvalidRequestError,
    NonEmptyGroupError,
    OffsetMetadataTooLargeError,
    QuorateError,
    StaleMemberEpochError,
    UnknownMemberIdError,
    UnknownTopicError,
)
from quorate_broker.groups.machine.group import Group
from quorate_broker.groups.machine.topics import Topic, Topics
from quorate_broker.groups.machine.turn import Turn
from quorate_broker.groups.machine.values import (
    FORGET,
    CommitOffsets,
    Committed,
    CommittedOffset,
    FetchedOffset,
    FetchOffsets,
    OffsetCommit,
)
from quorate_broker.groups.records.keys import OffsetKey
from quorate_broker.groups.records.values import OffsetValue, Partition


def commit(group: Group, request: CommitOffsets, turn: Turn) -> Committed:
    """Commit the offsets of a request, but for those that are refused one by one."""
    _check_committer(group, request)
    topics = group.shared.subscriptions.topics
    refused: dict[Partition, QuorateError] = {}
    for one in request.offsets:
        topic_id, number = one.partition
        topic = topics.with_id(topic_id)
        refusal = _refusal(group, request, one, topic)
        if refusal is not None:
            refused[one.partition] = refusal
            continue
        assert topic is not None, "refused above"
        key = OffsetKey(group.id, topic.name, number)
        value = OffsetValue(one.offset, one.leader_epoch, one.metadata, turn.wall_ms, topic_id)
        turn.write(group.state, key, None if one.offset == FORGET else value)
    return Committed(refused)


def _check_committer(group: Group, request: CommitOffsets) -> None:
    """Refuse a caller that may commit nothing at all."""
    if request.member_id:
        check_member(group, request.member_id)
        epoch = group.state.current_of(request.member_id).epoch
        if request.member_epoch > epoch:
            raise FencedMemberEpochError(
                f"member {request.member_id!r} of group {group.id!r} sent the epoch "
                f"{request.member_epoch}; its epoch is {epoch}"
            )
    elif group.state.members:
        raise NonEmptyGroupError(
            f"group {group.id!r} has {len(group.state.members)} members; only they may commit. "
            "Without a member id offsets are committed while the group has no members."
        )


def check_member(group: Group, member_id: str) -> None:
    """Raise UnknownMemberIdError if the group has no such member."""
    if member_id not in group.state.members:
        raise UnknownMemberIdError(f"group {group.id!r} has no member {member_id!r}")


def _refusal(
    group: Group, request: CommitOffsets, one: OffsetCommit, topic: Topic | None
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
    may_forget = not request.member_id
    if one.offset < (FORGET if may_forget else 0):
        return InvalidRequestError(
            f"the offset for partition {number} of {topic.name!r} is {one.offset}; 0 is the first"
        )
    size, most = len(one.metadata.encode()), group.shared.config.offset_metadata_bytes_max
    if size > most:
        return OffsetMetadataTooLargeError(
            f"the metadata for partition {number} of {topic.name!r} has {size} bytes; "
            f"offset.metadata.max.bytes allows {most}"
        )
    return _refusal_of_member(group, request, one.partition) if request.member_id else None


def _refusal_of_member(
    group: Group, request: CommitOffsets, partition: Partition
) -> QuorateError | None:
    """Only the member that has a partition commits for it, in an epoch since it has it (KIP-1251).

    A late commit of a member that gave the partition back, and perhaps got it again, would undo
    what the member in between has committed.
    """
    current = group.state.current_of(request.member_id)
    since = current.assigned.get(partition, current.revoking.get(partition))
    if since is not None and since <= request.member_epoch:
        return None
    what = f"member {request.member_id!r} of group {group.id!r} sent the epoch"
    if request.member_epoch < current.epoch:
        return StaleMemberEpochError(f"{what} {request.member_epoch}; its epoch is {current.epoch}")
    return FencedMemberEpochError(
        f"{what} {request.member_epoch}, but partition {partition[1]} of topic id "
        f"{partition[0].hex()} is not its own"
    )


def fetch(group: Group, request: FetchOffsets) -> tuple[FetchedOffset, ...]:
    """Return the committed offsets that are asked for; of a topic made again only its own."""
    if request.member_id:
        check_member(group, request.member_id)
        epoch = group.state.current_of(request.member_id).epoch
        if request.member_epoch != epoch:
            error = (
                StaleMemberEpochError if request.member_epoch < epoch else FencedMemberEpochError
            )
            raise error(
                f"member {request.member_id!r} of group {group.id!r} sent the epoch "
                f"{request.member_epoch}; its epoch is {epoch}"
            )
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
        value.topic_id, value.offset, value.leader_epoch, value.metadata, value.committed_at_ms
    )


def orphaned(group: Group) -> Iterator[OffsetKey]:
    """Yield the offsets of topics that are deleted; a topic made again has another id."""
    topics = group.shared.subscriptions.topics
    for name, partitions in group.state.offsets.items():
        topic = topics.named(name)
        for number, value in partitions.items():
            if topic is None or topic.id != value.topic_id:
                yield OffsetKey(group.id, name, number)


def expired(group: Group, wall_ms: int) -> Iterator[OffsetKey]:
    """Yield the offsets whose time is over: only of a group that had no members all that time.

    The time of the target says when the last member went, unless that target is still to come
    (KAFKA-13636).
    """
    if group.state.members or group.state.target.epoch < group.state.epoch:
        return
    before_ms = wall_ms - group.shared.config.offsets_retention_ms
    if group.state.target.timestamp_ms > before_ms:
        return
    for name, partitions in group.state.offsets.items():
        for number, value in partitions.items():
            if value.committed_at_ms <= before_ms:
                yield OffsetKey(group.id, name, number)


def clean(group: Group, turn: Turn, room: int) -> bool:
    """Forget offsets of deleted topics and expired ones; return whether none is left to forget.

    At most `room` records are written.
    """
    found = chain(orphaned(group), expired(group, turn.wall_ms))
    keys = [*dict.fromkeys(islice(found, 2 * room + 1))]
    for key in keys[:room]:
        turn.write(group.state, key, None)
    return len(keys) <= room
