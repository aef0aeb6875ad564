"""The target assignment of a group: who shall have what, and by which assignor."""

from __future__ import annotations

import struct
from collections import Counter
from hashlib import blake2b

from quorate.errors import InvalidAssignmentError
from quorate_broker.groups.assignors.table import ASSIGNORS, CLIENT, DEFAULT, RACK_UNIFORM
from quorate_broker.groups.assignors.values import Assignment, TaskMember, TaskTopic
from quorate_broker.groups.machine.group import Group
from quorate_broker.groups.machine.topics import NO_PARTITIONS, Topic
from quorate_broker.groups.machine.turn import Turn
from quorate_broker.groups.machine.values import Proposal, Task
from quorate_broker.groups.records.keys import TargetKey, TargetMemberKey
from quorate_broker.groups.records.values import Partition, TargetMemberValue, TargetValue

HASHED = struct.Struct(
    ">"
    "16s"  # topic id
    "i"  # partitions
)


def chosen_assignor(group: Group) -> str:
    """Return the assignor that most members want; the default if none names one."""
    votes = Counter(value.assignor for value in group.state.members.values() if value.assignor)
    return max(votes, key=lambda name: (votes[name], name)) if votes else DEFAULT


def topics_of(group: Group) -> list[Topic]:
    """Return the topics that some member subscribes to, by name."""
    return group.shared.subscriptions.topics_of(group.topic_names())


def metadata_hash(group: Group) -> int:
    """Return a hash of what an assignment depends on beside the members.

    It is stored, so that a new coordinator sees whether topics changed while there was none.
    """
    digest = blake2b(digest_size=8)
    has_racks = chosen_assignor(group) == RACK_UNIFORM
    for topic in topics_of(group):
        digest.update(HASHED.pack(topic.id, topic.partitions))
        if has_racks:
            racks = group.shared.subscriptions.topics.racks(topic.id)
            digest.update(repr([sorted(one) for one in racks]).encode())
    subscriptions = group.shared.subscriptions
    # The topics of all members may stay the same while one of them loses a right.
    for view in sorted(group.views(), key=str):
        seen = f"{view.pattern} {view.principal} {subscriptions.fingerprint(view)} "
        digest.update(seen.encode())
    return int.from_bytes(digest.digest(), "big", signed=True)


def task_of(group: Group) -> Task:
    """Return what an assignor needs to know of the group."""
    subscriptions = group.shared.subscriptions
    has_racks = chosen_assignor(group) == RACK_UNIFORM
    found = topics_of(group)
    ids = {topic.name: topic.id for topic in found}
    topic_ids = {
        followed: frozenset(
            ids[name]
            for names in (followed.names, subscriptions.matched(followed.view))
            for name in names
            if name in ids
        )
        for followed in group.followed()
    }
    members = tuple(
        TaskMember(
            member_id,
            value.instance_id or "",
            value.rack or "",
            topic_ids[group.followed_by(member_id)],
            group.state.target_of(member_id),
        )
        for member_id, value in group.state.members.items()
    )
    topics = tuple(
        TaskTopic(
            topic.id,
            topic.name,
            topic.partitions,
            subscriptions.topics.racks(topic.id) if has_racks else (),
        )
        for topic in found
    )
    return Task(group.state.epoch, members, topics)


def assigned_by(name: str, task: Task) -> Assignment:
    """Return the assignment of an assignor of ours. In place of the client's, the default one."""
    return ASSIGNORS[DEFAULT if name == CLIENT else name](task.members, task.topics)


def check_proposal(proposal: Proposal, task: Task) -> None:
    """Raise InvalidAssignmentError unless each wanted partition has one owner that may have it."""
    members = {member.member_id: member for member in task.members}
    owners: dict[Partition, str] = {}
    sizes = {topic.topic_id: topic.partitions for topic in task.topics}
    names = {topic.topic_id: topic.name for topic in task.topics}
    for member_id, partitions in proposal.partitions.items():
        if member_id not in members:
            raise InvalidAssignmentError(f"the group has no member {member_id!r}")
        for topic_id, number in sorted(partitions):
            name = f"partition {number} of {names.get(topic_id, topic_id.hex())}"
            if not 0 <= number < sizes.get(topic_id, 0):
                raise InvalidAssignmentError(f"{name} is none of the task's")
            if topic_id not in members[member_id].topic_ids:
                raise InvalidAssignmentError(
                    f"{name} was given to {member_id!r}, which does not subscribe to the topic"
                )
            other = owners.setdefault((topic_id, number), member_id)
            if other != member_id:
                raise InvalidAssignmentError(f"{name} was given to {other!r} and {member_id!r}")
    wanted = frozenset[bytes]().union(*(member.topic_ids for member in task.members))
    missing = [
        f"partition {number} of {topic.name}"
        for topic in task.topics
        if topic.topic_id in wanted
        for number in range(topic.partitions)
        if (topic.topic_id, number) not in owners
    ]
    if missing:
        raise InvalidAssignmentError(
            f"{missing[0]} was given to no member, and {len(missing) - 1} others as well"
        )


def write_target(group: Group, assignment: Assignment, turn: Turn) -> None:
    """Write a target assignment for the present group epoch: what differs, then its epoch."""
    state = group.state
    for member_id in state.members:
        partitions = assignment.get(member_id, NO_PARTITIONS)
        if partitions != state.target_of(member_id) or member_id not in state.targets:
            key = TargetMemberKey(state.group_id, member_id)
            turn.write(state, key, TargetMemberValue(partitions))
    turn.write(state, TargetKey(state.group_id), TargetValue(state.epoch, turn.wall_ms))
