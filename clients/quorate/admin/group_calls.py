"""The calls of an admin about consumer groups."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Protocol

from quorate.admin.quorum_calls import QuorumCalls
from quorate.aio.clock import Deadline
from quorate.argument_names import named
from quorate.cluster.cluster import METADATA_TIMEOUT_MS
from quorate.cluster.committed_offset import CommittedOffsetRule
from quorate.cluster.coordinators import Coordinators
from quorate.cluster.group_offsets import Committer, GroupOffsets
from quorate.cluster.leader_stream import BACKOFF_MS
from quorate.cluster.parts import Part, from_wire
from quorate.errors import (
    InvalidGroupIdError,
    InvalidRequestError,
    NetworkError,
    QuorateError,
    RequestTimedOutError,
    UnknownTopicError,
)
from quorate.errors import from_wire as error_from_wire
from quorate.model import (
    CommittedOffset,
    GroupDescription,
    GroupListing,
    MemberDescription,
    OffsetAndMetadata,
    TopicPartition,
)
from quorate.net import methods
from quorate.settings import ByPartition, Flag, Names, Partitions, Text, checked
from quorate.v1 import groups_pb2 as wire
from quorate.v1.admin_pb2 import MetadataRequest
from quorate.v1.common_pb2 import Error, ErrorCode, LeaderHint

GROUP_ID = Text("of a consumer group", chars_max=249, error=InvalidGroupIdError)
#: The offset that takes a committed offset away.
FORGET = -1
#: The most coordinators that are asked at the same time.
CALLS_MAX = 16


class _GroupAnswer(Protocol):
    """A part of an answer that is about one group."""

    @property
    def error(self) -> Error: ...
    @property
    def coordinator(self) -> LeaderHint: ...
    def HasField(self, name: Any, /) -> bool: ...


class GroupCalls(QuorumCalls):
    """The part of an Admin that is about consumer groups."""

    _coordinators: Coordinators

    @named
    async def list_groups(self) -> list[GroupListing]:
        """Return all consumer groups, sorted by id. Every broker is asked for those it coordinates.

        Raises RequestTimedOutError, which names the brokers that have not answered.
        """
        cluster, deadline = self._running(), Deadline(self._timeout_ms)
        await cluster.refresh(timeout_ms=max(1, deadline.left_ms))
        found = await asyncio.gather(
            *(self._groups_of(broker, deadline) for broker in sorted(cluster.brokers))
        )
        # A group whose coordinator changes between two answers may be in both.
        by_id = {one.group_id: one for listed in found for one in listed}
        return [by_id[group_id] for group_id in sorted(by_id)]

    async def _groups_of(self, broker: int, deadline: Deadline) -> list[GroupListing]:
        cluster = self._running()
        last: QuorateError | None = None
        while not deadline.has_passed:
            endpoint = cluster.brokers.get(broker)
            if endpoint is None:
                return []  # the broker is gone, and others coordinate its groups
            try:
                response = await cluster.connection(endpoint, "control").unary(
                    methods.LIST_GROUPS,
                    wire.ListGroupsRequest(),
                    timeout_ms=max(1, deadline.left_ms),
                )
                if response.error.code == ErrorCode.ERROR_CODE_NONE:
                    return [
                        GroupListing(one.group_id, one.state, one.protocol, one.members, broker)
                        for one in response.groups
                    ]
                last = error_from_wire(response.error)
            except NetworkError as error:
                last = error
                cluster.request_refresh()
            if not last.retriable:
                raise last
            await asyncio.sleep(BACKOFF_MS / 1000)
        raise RequestTimedOutError(f"broker {broker} has not listed its groups (last: {last})")

    @checked
    async def describe_groups(
        self, group_ids: Annotated[Iterable[str], Names(what="group ids")]
    ) -> dict[str, GroupDescription]:
        """Return these groups with their members. GroupNotFoundError names a missing group."""
        deadline = Deadline(self._timeout_ms)
        found = await self._of_each(group_ids, lambda group_id: self._describe(group_id, deadline))
        names = await self._names(
            {
                part.topic_id
                for group, _ in found.values()
                for member in group.members
                for part in (*from_wire(member.assignment), *from_wire(member.target))
            },
            deadline,
        )
        return {
            group_id: _description(group, coordinator, names)
            for group_id, (group, coordinator) in found.items()
        }

    def _running_coordinators(self) -> Coordinators:
        """Return the coordinators of groups. Raise ClosedError if the admin is not running."""
        self._running()
        return self._coordinators

    async def _describe(self, group_id: str, deadline: Deadline) -> tuple[wire.DescribedGroup, int]:
        response = await self._running_coordinators().call(
            group_id,
            methods.DESCRIBE_GROUPS,
            partial(wire.DescribeGroupsRequest, group_ids=[group_id]),
            lambda answer: _outcome(answer.groups[0]),
            deadline,
        )
        return response.groups[0], self._running_coordinators().broker_of(group_id)

    async def _names(self, topic_ids: set[bytes], deadline: Deadline) -> dict[bytes, str]:
        if not topic_ids:
            return {}
        response = await self._running().ask_any(
            methods.METADATA,
            MetadataRequest(topic_ids=sorted(topic_ids)),
            timeout_ms=max(1, deadline.left_ms),
            one_broker_ms=METADATA_TIMEOUT_MS,
        )
        return {
            one.topic_id: one.name
            for one in response.topics
            if one.error.code == ErrorCode.ERROR_CODE_NONE
        }

    @checked
    async def list_group_offsets(
        self,
        group_id: Annotated[str, GROUP_ID],
        partitions: Annotated[Iterable[TopicPartition] | None, Partitions()] = None,
    ) -> dict[TopicPartition, CommittedOffset]:
        """Return what a group has committed, for these partitions or (None) for all.

        Partitions without a committed offset are left out, so a group that does not exist has an
        empty answer.
        """
        offsets, deadline = (
            GroupOffsets(self._running_coordinators(), group_id),
            Deadline(self._timeout_ms),
        )
        if partitions is None:
            committed, names = await offsets.fetch_all(deadline)
            missing = {topic_id for topic_id, name in names.items() if not name}
            names.update(await self._names(missing, deadline))
            keys = {
                part: TopicPartition(names[part.topic_id], part.partition)
                for part in committed
                if names[part.topic_id]
            }
        else:
            keys = {part: key for key, part in (await self._parts(partitions)).items()}
            committed = await offsets.fetch(list(keys), deadline)
        found = {keys[part]: value for part, value in committed.items() if part in keys}
        return dict(sorted(found.items()))

    @checked
    async def alter_group_offsets(
        self,
        group_id: Annotated[str, GROUP_ID],
        offsets: Annotated[
            Mapping[TopicPartition, int | tuple[int, str] | OffsetAndMetadata | None],
            ByPartition(CommittedOffsetRule(or_none=True)),
        ],
    ) -> None:
        """Set the committed offsets of a group that has no members; None takes an offset away.

        Raises NonEmptyGroupError if the group has members, UnknownTopicError. The call is safe to
        repeat.
        """
        parts = await self._parts(offsets)
        values: dict[Part, OffsetAndMetadata] = {}
        for key, part in parts.items():
            value = offsets[key]
            assert value is None or isinstance(value, OffsetAndMetadata), "the rule makes it one"
            values[part] = OffsetAndMetadata(FORGET) if value is None else value
        await GroupOffsets(self._running_coordinators(), group_id).commit(
            values, Committer(), Deadline(self._timeout_ms)
        )

    async def _parts(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Part]:
        cluster = self._running()
        found = {}
        for key in partitions:
            topic = await cluster.topic(key.topic)
            if key.partition >= len(topic.partitions):
                raise UnknownTopicError(
                    f"topic {key.topic!r} has partitions 0 to {len(topic.partitions) - 1}, "
                    f"and no partition {key.partition}"
                )
            found[key] = Part(topic.topic_id, key.partition)
        return found

    @checked
    async def delete_groups(
        self, group_ids: Annotated[Iterable[str], Names(what="group ids")]
    ) -> None:
        """Delete groups and their committed offsets. Raise the first error after all were tried.

        Raises GroupNotFoundError, or NonEmptyGroupError if a group has members.
        """
        deadline = Deadline(self._timeout_ms)
        await self._of_each(
            group_ids,
            lambda group_id: self._running_coordinators().call(
                group_id,
                methods.DELETE_GROUPS,
                partial(wire.DeleteGroupsRequest, group_ids=[group_id]),
                lambda answer: _outcome(answer.groups[0]),
                deadline,
            ),
        )

    @checked
    async def remove_members(
        self,
        group_id: Annotated[str, GROUP_ID],
        *,
        member_ids: Annotated[Iterable[str], Names(what="member ids")] = (),
        instance_ids: Annotated[Iterable[str], Names(what="instance ids")] = (),
        # shadows a built-in, but `all` is the usual word
        all: Annotated[bool, Flag("members")] = False,
    ) -> list[str]:
        """Remove members from a group: those named, or all. Return the ids of those removed.

        A member that still runs is told, and joins anew. Members that are not there are no error.
        Raises GroupNotFoundError.
        """
        members, instances = list(member_ids), list(instance_ids)
        if not (members or instances or all):
            raise InvalidRequestError("name member_ids or instance_ids to remove, or all=True")
        response = await self._running_coordinators().call(
            group_id,
            methods.REMOVE_MEMBERS,
            partial(
                wire.RemoveMembersRequest,
                group_id=group_id,
                member_ids=members,
                instance_ids=instances,
                all=all,
            ),
            _outcome,
            Deadline(self._timeout_ms),
        )
        return list(response.removed)

    async def _of_each(self, group_ids: Iterable[str], ask: Callable[[str], Any]) -> dict[str, Any]:
        """Ask for each group. Raise the first error after all were asked."""
        listed = [GROUP_ID.check("Admin", "a group id", one) for one in dict.fromkeys(group_ids)]
        self._running()
        found: list[Any] = []
        for first in range(0, len(listed), CALLS_MAX):
            part: Sequence[str] = listed[first : first + CALLS_MAX]
            found += await asyncio.gather(*map(ask, part), return_exceptions=True)
        for one in found:
            if isinstance(one, BaseException):
                raise one
        return dict(zip(listed, found, strict=True))


def _outcome(answer: _GroupAnswer) -> tuple[Error, LeaderHint | None]:
    return answer.error, answer.coordinator if answer.HasField("coordinator") else None


def _description(
    group: wire.DescribedGroup, coordinator: int, names: Mapping[bytes, str]
) -> GroupDescription:
    members = [
        MemberDescription(
            one.member_id,
            one.instance_id,
            one.client_id,
            one.client_host,
            one.rack,
            one.member_epoch,
            tuple(sorted(one.subscription.topics)),
            one.subscription.pattern,
            _keys(one.assignment, names),
            _keys(one.target, names),
        )
        for one in group.members
    ]
    return GroupDescription(
        group.group_id,
        group.state,
        group.protocol,
        group.group_epoch,
        group.assignment_epoch,
        group.assignor,
        coordinator,
        tuple(sorted(members, key=lambda one: one.member_id)),
    )


def _keys(message: wire.Partitions, names: Mapping[bytes, str]) -> tuple[TopicPartition, ...]:
    """Return partitions by name. Those of topics that were deleted are left out."""
    return tuple(
        sorted(
            TopicPartition(names[part.topic_id], part.partition)
            for part in from_wire(message)
            if part.topic_id in names
        )
    )
