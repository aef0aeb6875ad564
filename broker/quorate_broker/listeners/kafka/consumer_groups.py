"""ConsumerGroupHeartbeat and ConsumerGroupDescribe: groups of the consumer protocol (KIP-848)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping
from typing import Final

from quorate.errors import InvalidRequestError, QuorateError, UnsupportedAssignorError
from quorate_broker.groups.machine.values import (
    JOIN,
    LEAVE_STATIC,
    Conversation,
    DescribedGroup,
    DescribedMember,
    Heartbeat,
)
from quorate_broker.groups.records.values import Partition
from quorate_broker.listeners.kafka import authorized
from quorate_broker.listeners.kafka.call import Call, Client, Handler
from quorate_broker.listeners.kafka.errors import (
    GROUP_ID_NOT_FOUND,
    NONE,
    OF_CONSUMER_HEARTBEATS,
    OF_GROUPS,
    code_of,
)
from quorate_broker.listeners.kafka.messages import consumer_group_describe as describe
from quorate_broker.listeners.kafka.messages import consumer_group_heartbeat as heartbeat
from quorate_broker.listeners.kafka.reach import as_java_host
from quorate_broker.listeners.kafka.versions import (
    CONSUMER_GROUP_DESCRIBE,
    CONSUMER_GROUP_HEARTBEAT,
)
from quorate_broker.operations.group_members import GroupMembers
from quorate_broker.operations.groups import Groups
from quorate_broker.operations.rights import Rights
from quorate_broker.replicas.replicas import Replicas

#: The last version of ConsumerGroupHeartbeat in which a member may come without an id.
NO_MEMBER_ID_UNTIL: Final = 0
#: No timeout is named.
NO_TIMEOUT: Final = -1
#: The kinds of members in ConsumerGroupDescribe.
CLASSIC_MEMBER, CONSUMER_MEMBER = 0, 1


class ConsumerGroupRequests:
    """Passes heartbeats of members that poll on, and descriptions of their groups."""

    def __init__(
        self,
        members: GroupMembers,
        groups: Groups,
        replicas: Replicas,
        rights: Rights,
        new_member_id: Callable[[str], str],
    ) -> None:
        """`new_member_id` makes an id from a client's name."""
        self._members = members
        self._groups = groups
        self._rights = rights
        self._replicas = replicas
        self._new_member_id = new_member_id
        #: By connection: the errors that were answered to heartbeats.
        self._errors: Counter[Client] = Counter()

    def handlers(self) -> Mapping[int, Handler]:
        return {
            CONSUMER_GROUP_HEARTBEAT: self.consumer_group_heartbeat,
            CONSUMER_GROUP_DESCRIBE: self.consumer_group_describe,
        }

    async def consumer_group_heartbeat(
        self, call: Call[heartbeat.ConsumerGroupHeartbeatRequest]
    ) -> heartbeat.ConsumerGroupHeartbeatResponse:
        try:
            asked = self._asked(call)
            state = await self._members.heartbeat(call.client.principal, asked)
        except QuorateError as error:
            self._count_error(call.client)
            return heartbeat.ConsumerGroupHeartbeatResponse(
                error_code=code_of(error, OF_CONSUMER_HEARTBEATS), error_message=str(error)
            )
        return heartbeat.ConsumerGroupHeartbeatResponse(
            error_code=NONE,
            member_id=asked.member_id,
            member_epoch=state.member_epoch,
            heartbeat_interval_ms=state.heartbeat_interval_ms,
            assignment=None if state.assignment is None else _assignment(state.assignment),
        )

    def _asked(self, call: Call[heartbeat.ConsumerGroupHeartbeatRequest]) -> Heartbeat:
        request = call.request
        check(request)
        member_id = request.member_id
        if not member_id and request.member_epoch == JOIN and call.version <= NO_MEMBER_ID_UNTIL:
            member_id = self._new_member_id(call.client_id or "member")
        named, timeout_ms = request.subscribed_topic_names, request.rebalance_timeout_ms
        return Heartbeat(
            request.group_id,
            member_id,
            request.member_epoch,
            instance_id=request.instance_id,
            rack=request.rack_id,
            client_id=call.client_id,
            client_host=call.client.address,
            rebalance_timeout_ms=None if timeout_ms == NO_TIMEOUT else timeout_ms,
            topics=None if named is None else frozenset(named),
            pattern=request.subscribed_topic_regex,
            assignor=request.server_assignor,
            owned=_owned(request),
            conversation=Conversation(call.client.number, self._errors[call.client]),
        )

    def _count_error(self, client: Client) -> None:
        if client not in self._errors:
            client.at_close.append(lambda: self._forget(client))
        self._errors[client] += 1

    def _forget(self, client: Client) -> None:
        del self._errors[client]

    async def consumer_group_describe(
        self, call: Call[describe.ConsumerGroupDescribeRequest]
    ) -> describe.ConsumerGroupDescribeResponse:
        ids = call.request.group_ids
        found = await self._groups.describe_groups_raw(call.client.principal, ids)
        described = [self._described(*one) for one in zip(ids, found, strict=True)]
        if call.request.include_authorized_operations:
            described = authorized.with_operations(described, self._rights, call.client.principal)
        return describe.ConsumerGroupDescribeResponse(groups=described)

    def _described(self, group_id: str, found: object) -> describe.DescribedGroup:
        if isinstance(found, QuorateError):
            code = code_of(found, OF_GROUPS)
            return describe.DescribedGroup(code, str(found), group_id)
        if not isinstance(found, DescribedGroup) or found.protocol != "consumer":
            why = f"group {group_id!r} is not a consumer group"
            return describe.DescribedGroup(GROUP_ID_NOT_FOUND, why, group_id)
        return describe.DescribedGroup(
            NONE,
            None,
            group_id,
            found.state,
            found.group_epoch,
            found.assignment_epoch,
            found.assignor,
            [self._member(one) for one in found.members],
        )

    def _member(self, member: DescribedMember) -> describe.Member:
        return describe.Member(
            member.member_id,
            member.instance_id or None,
            member.rack or None,
            member.member_epoch,
            member.client_id,
            as_java_host(member.client_host),
            sorted(member.subscription.topics),
            member.subscription.pattern or None,
            self._named(member.assignment),
            self._named(member.target),
            CLASSIC_MEMBER if member.is_classic else CONSUMER_MEMBER,
        )

    def _named(self, partitions: Collection[Partition]) -> describe.Assignment:
        """Return partitions with the names of their topics. Those that are deleted are left out."""
        topics = self._replicas.image.topics
        return describe.Assignment(
            [
                describe.TopicPartitions(topic_id, topics[topic_id].name, numbers)
                for topic_id, numbers in _by_topic(partitions).items()
                if topic_id in topics
            ]
        )


def check(request: heartbeat.ConsumerGroupHeartbeatRequest) -> None:
    """Raise the error for what Kafka's form of a heartbeat does not allow.

    What no heartbeat may be is checked by the machine.
    """
    for name in ("instance_id", "rack_id"):
        if getattr(request, name) == "":
            raise InvalidRequestError(f"{name} is empty; leave it out")
    if request.server_assignor == "":
        raise UnsupportedAssignorError("server_assignor is empty; leave it out for the default")
    if request.member_epoch == LEAVE_STATIC and request.instance_id is None:
        raise InvalidRequestError("a member that leaves for a time (-2) must have an instance_id")
    if request.member_epoch == JOIN:
        if request.rebalance_timeout_ms == NO_TIMEOUT:
            raise InvalidRequestError("a member that joins must name its rebalance_timeout_ms")
        if request.topic_partitions is None or request.topic_partitions:
            raise InvalidRequestError("topic_partitions of a member that joins must be empty")


def _owned(request: heartbeat.ConsumerGroupHeartbeatRequest) -> frozenset[Partition] | None:
    if request.topic_partitions is None:
        return None
    return frozenset(
        (topic.topic_id, number)
        for topic in request.topic_partitions
        for number in topic.partitions
    )


def _assignment(partitions: Collection[Partition]) -> heartbeat.Assignment:
    return heartbeat.Assignment(
        [
            heartbeat.ConsumerGroupHeartbeatResponseTopicPartitions(topic_id, numbers)
            for topic_id, numbers in _by_topic(partitions).items()
        ]
    )


def _by_topic(partitions: Collection[Partition]) -> dict[bytes, list[int]]:
    topics: defaultdict[bytes, list[int]] = defaultdict(list)
    for topic_id, number in sorted(partitions):
        topics[topic_id].append(number)
    return topics
