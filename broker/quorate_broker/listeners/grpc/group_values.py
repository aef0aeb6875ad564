"""The messages of the Groups service as plain values, and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from quorate.errors import InvalidRequestError, QuorateError
from quorate.v1 import groups_pb2 as wire
from quorate_broker.groups.machine.values import (
    DescribedGroup,
    DescribedMember,
    FetchedOffset,
    Heartbeat,
    MemberState,
    OffsetCommit,
    Proposal,
    Task,
)
from quorate_broker.operations.partitions import TOPIC_ID_BYTES

#: The id of a topic, and the number of one of its partitions.
Key = tuple[bytes, int]
#: In a commit: take away what is committed. In an answer: nothing is committed.
NO_OFFSET: Final = -1


def heartbeat_of(
    message: wire.MemberHeartbeat, first: wire.MemberHeartbeat, client_host: str
) -> Heartbeat:
    """Return a member's message. `first` is the first one of its stream, which names the member."""
    has_subscription = message.HasField("subscription")
    return Heartbeat(
        group_id=first.group_id,
        member_id=first.member_id,
        member_epoch=message.member_epoch,
        state_number=message.state_number,
        instance_id=message.instance_id if message.HasField("instance_id") else None,
        rack=message.rack if message.HasField("rack") else None,
        client_id=message.client_id or first.client_id,
        client_host=client_host,
        session_timeout_ms=message.session_timeout_ms
        if message.HasField("session_timeout_ms")
        else None,
        rebalance_timeout_ms=message.rebalance_timeout_ms
        if message.HasField("rebalance_timeout_ms")
        else None,
        topics=frozenset(message.subscription.topics) if has_subscription else None,
        pattern=message.subscription.pattern if has_subscription else None,
        assignor=message.assignor if message.HasField("assignor") else None,
        owned=partitions_of(message.owned) if message.HasField("owned") else None,
        proposal=_proposal(message.proposal) if message.HasField("proposal") else None,
    )


def _proposal(message: wire.MembersAssignment) -> Proposal:
    return Proposal(
        message.group_epoch,
        {one.member_id: partitions_of(one.partitions) for one in message.members},
    )


def partitions_of(message: wire.Partitions) -> frozenset[Key]:
    """Return the partitions that a message names. Raises InvalidRequestError for a bad topic id."""
    return frozenset(keys_of(message.topics))


def keys_of(topics: Iterable[wire.TopicPartitions]) -> list[Key]:
    """Return the partitions in the order of the message."""
    keys: list[Key] = []
    for topic in topics:
        topic_id = checked_id(topic.topic_id)
        keys.extend((topic_id, index) for index in topic.partitions)
    return keys


def commits_of(
    topics: Iterable[wire.CommitTopic], *, is_member: bool
) -> tuple[list[OffsetCommit], dict[Key, QuorateError]]:
    """Return the offsets to commit, and why others are refused: the negative ones.

    The coordinator stores any offset, as Kafka clients expect. A program that commits a negative
    one here has made a mistake.
    """
    commits: list[OffsetCommit] = []
    refused: dict[Key, QuorateError] = {}
    for topic in topics:
        topic_id = checked_id(topic.topic_id)
        for one in topic.partitions:
            key, is_forgotten = (topic_id, one.partition), one.offset == NO_OFFSET and not is_member
            if one.offset < 0 and not is_forgotten:
                refused[key] = InvalidRequestError(
                    f"the offset for partition {one.partition} is {one.offset}; 0 is the first"
                )
                continue
            offset = None if is_forgotten else one.offset
            commits.append(OffsetCommit(key, offset, one.leader_epoch, one.metadata))
    return commits, refused


def offset_message(partition: int, found: FetchedOffset) -> wire.OffsetsPartition:
    """Return what is committed for a partition. A negative offset of a Kafka client is none."""
    if found.committed is None:
        return wire.OffsetsPartition(partition=partition, offset=NO_OFFSET, leader_epoch=-1)
    return wire.OffsetsPartition(
        partition=partition,
        offset=max(found.committed.offset, NO_OFFSET),
        leader_epoch=found.committed.leader_epoch,
        metadata=found.committed.metadata,
        committed_at_ms=found.committed.committed_at_ms,
        partitions_at_first_commit=found.committed.partitions_at_first_commit,
    )


def checked_id(topic_id: bytes) -> bytes:
    """Return the id of a topic. Raises InvalidRequestError unless it has 16 bytes."""
    if len(topic_id) != TOPIC_ID_BYTES:
        raise InvalidRequestError(f"topic_id must be {TOPIC_ID_BYTES} bytes, not {len(topic_id)}")
    return topic_id


def partitions_message(partitions: Iterable[Key]) -> wire.Partitions:
    """Return partitions as a message, by topic, in order."""
    message = wire.Partitions()
    topic: wire.TopicPartitions | None = None
    for topic_id, index in sorted(partitions):
        if topic is None or topic.topic_id != topic_id:
            topic = message.topics.add(topic_id=topic_id)
        topic.partitions.append(index)
    return message


def state_message(state: MemberState) -> wire.MemberState:
    """Return what a member is told as a message."""
    return wire.MemberState(
        member_epoch=state.member_epoch,
        state_number=state.state_number,
        heartbeat_interval_ms=state.heartbeat_interval_ms,
        assignment=None if state.assignment is None else partitions_message(state.assignment),
        task=None if state.task is None else _task(state.task),
    )


def _task(task: Task) -> wire.AssignmentTask:
    return wire.AssignmentTask(
        group_epoch=task.group_epoch,
        members=[
            wire.TaskMember(
                member_id=one.member_id,
                instance_id=one.instance_id,
                rack=one.rack,
                topic_ids=sorted(one.topic_ids),
                assigned=partitions_message(one.assigned),
            )
            for one in task.members
        ],
        topics=[
            wire.TaskTopic(topic_id=one.topic_id, name=one.name, partitions=one.partitions)
            for one in task.topics
        ],
    )


def group_message(group: DescribedGroup) -> wire.DescribedGroup:
    """Return the description of a group as a message, without its members."""
    return wire.DescribedGroup(
        group_id=group.group_id,
        state=group.state,
        protocol=group.protocol,
        group_epoch=group.group_epoch,
        assignment_epoch=group.assignment_epoch,
        assignor=group.assignor,
    )


def member_message(member: DescribedMember) -> wire.DescribedMember:
    """Return the description of a member as a message."""
    return wire.DescribedMember(
        member_id=member.member_id,
        instance_id=member.instance_id,
        client_id=member.client_id,
        client_host=member.client_host,
        rack=member.rack,
        member_epoch=member.member_epoch,
        subscription=wire.Subscription(
            topics=sorted(member.subscription.topics), pattern=member.subscription.pattern
        ),
        assignment=partitions_message(member.assignment),
        target=partitions_message(member.target),
    )
