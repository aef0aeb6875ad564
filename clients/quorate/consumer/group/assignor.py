"""Runs the application's assignor for the whole group, and checks what it returns."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from quorate.cluster.parts import Part, from_wire, to_wire
from quorate.errors import InvalidAssignmentError
from quorate.model import AssignorMember, TopicPartition
from quorate.plain_values import has_utf8
from quorate.settings import refused
from quorate.v1.groups_pb2 import AssignmentTask, MembersAssignment

log = logging.getLogger(__name__)

#: The shortest time between two log lines about an assignor that fails. Each change of the group
#: is an attempt, and a large group has several a second.
LOG_INTERVAL_S: Final = 10.0

#: Called with the members and with the number of partitions of each topic, by name. Returns the
#: partitions of each member, by member id. A member that is left out gets none.
Assignor = Callable[
    [Sequence[AssignorMember], Mapping[str, int]], Mapping[str, Iterable[TopicPartition]]
]


class AssignorRule:
    """A rule: the name of an assignor of the cluster, or a function."""

    def check(self, call: str, name: str, given: Any) -> Any:
        if not callable(given) and not (isinstance(given, str) and given and has_utf8(given)):
            said = "the name of an assignor, or a function (members, partition_counts)"
            raise TypeError(refused(call, name, said, given))
        return given


class AssignorFailures:
    """Tells the application of each attempt of its assignor that failed, and logs some of them.

    The group goes on: the coordinator assigns with the default assignor.
    """

    def __init__(self, group_id: str, told: Callable[[Exception], None]) -> None:
        self._group_id = group_id
        self._told = told
        self._unlogged = 0
        self._silent_until = 0.0

    def note(self, error: Exception) -> None:
        """Take in the error of an assignor, or of the coordinator that refuses its assignment."""
        self._told(error)
        self._unlogged += 1
        now = asyncio.get_running_loop().time()
        if now < self._silent_until:
            return
        log.error(
            "group %r: the assignor of this consumer has failed (attempts since the last line: "
            "%d). The group uses the default assignor",
            self._group_id,
            self._unlogged,
            exc_info=error,
        )
        self._unlogged, self._silent_until = 0, now + LOG_INTERVAL_S


def proposal(assignor: Assignor | None, task: AssignmentTask) -> MembersAssignment:
    """Return the assignment that the application's assignor makes.

    Raises InvalidAssignmentError if it is not possible, and whatever the assignor raises.
    """
    if assignor is None:
        raise InvalidAssignmentError("the coordinator asked a member that has no assignor")
    names = {topic.topic_id: topic.name for topic in task.topics}
    ids = {name: topic_id for topic_id, name in names.items()}
    members = [
        AssignorMember(
            one.member_id,
            one.instance_id,
            one.rack,
            frozenset(names[topic_id] for topic_id in one.topic_ids if topic_id in names),
            frozenset(
                TopicPartition(names[part.topic_id], part.partition)
                for part in from_wire(one.assigned)
                if part.topic_id in names
            ),
        )
        for one in task.members
    ]
    counts = {topic.name: topic.partitions for topic in task.topics}
    result = assignor(members, counts)
    checked = _checked(result, {one.member_id: one for one in members}, counts)
    message = MembersAssignment(group_epoch=task.group_epoch)
    for member_id, keys in checked.items():
        parts = [Part(ids[key.topic], key.partition) for key in keys]
        message.members.add(member_id=member_id, partitions=to_wire(parts))
    return message


def _checked(
    result: object, members: Mapping[str, AssignorMember], counts: Mapping[str, int]
) -> dict[str, list[TopicPartition]]:
    if not isinstance(result, Mapping):
        raise _wrong(f"a {type(result).__name__}", "a mapping of member ids to partitions")
    found: dict[str, list[TopicPartition]] = {}
    owners: dict[TopicPartition, str] = {}
    for member_id, keys in result.items():
        member = members.get(member_id)
        if member is None:
            raise _wrong(f"a member {member_id!r}", f"only these: {sorted(members)[:10]}")
        for key in keys:
            if not (isinstance(key, tuple) and len(key) == 2):
                raise _wrong(repr(key), 'TopicPartition("topic", number)')
            one = TopicPartition(*key)
            if not 0 <= one.partition < counts.get(one.topic, 0):
                raise _wrong(f"{one.topic}-{one.partition}", "partitions that exist")
            if one.topic not in member.topics:
                raise _wrong(
                    f"{one.topic}-{one.partition} for {member_id}",
                    f"the topics of this member: {sorted(member.topics)[:10]}",
                )
            if one in owners:
                raise _wrong(
                    f"{one.topic}-{one.partition} for {owners[one]} and {member_id}",
                    "each partition for one member",
                )
            owners[one] = member_id
            found.setdefault(member_id, []).append(one)
    return found


def _wrong(given: str, allowed: str) -> InvalidAssignmentError:
    return InvalidAssignmentError(f"the assignor returned {given}; allowed is {allowed}")
