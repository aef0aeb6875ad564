"""Groups: their coordinators, members of the classic protocol, and administration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from quorate.errors import GroupNotFoundError, QuorateError
from quorate_broker.groups.machine.classic.values import (
    DescribedClassicGroup,
    Joined,
    JoinGroup,
    LeaveGroup,
    Leaving,
    MemberIdRequired,
    MemberRequest,
    SyncGroup,
)
from quorate_broker.groups.machine.values import Conversation
from quorate_broker.groups.machine.values import ListedGroup as Listed
from quorate_broker.listeners.kafka import authorized
from quorate_broker.listeners.kafka.call import Call, Client, Handler
from quorate_broker.listeners.kafka.errors import (
    COORDINATOR_NOT_AVAILABLE,
    GROUP_ID_NOT_FOUND,
    INVALID_REQUEST,
    MEMBER_ID_REQUIRED,
    NONE,
    OF_GROUPS,
    TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    UNSUPPORTED_VERSION,
    code_of,
)
from quorate_broker.listeners.kafka.messages.delete_groups import (
    DeletableGroupResult,
    DeleteGroupsRequest,
    DeleteGroupsResponse,
)
from quorate_broker.listeners.kafka.messages.describe_groups import (
    DescribedGroup,
    DescribedGroupMember,
    DescribeGroupsRequest,
    DescribeGroupsResponse,
)
from quorate_broker.listeners.kafka.messages.find_coordinator import (
    Coordinator,
    FindCoordinatorRequest,
    FindCoordinatorResponse,
)
from quorate_broker.listeners.kafka.messages.heartbeat import HeartbeatRequest, HeartbeatResponse
from quorate_broker.listeners.kafka.messages.join_group import (
    JoinGroupRequest,
    JoinGroupResponse,
    JoinGroupResponseMember,
)
from quorate_broker.listeners.kafka.messages.leave_group import (
    LeaveGroupRequest,
    LeaveGroupResponse,
    MemberResponse,
)
from quorate_broker.listeners.kafka.messages.list_groups import (
    ListedGroup,
    ListGroupsRequest,
    ListGroupsResponse,
)
from quorate_broker.listeners.kafka.messages.sync_group import SyncGroupRequest, SyncGroupResponse
from quorate_broker.listeners.kafka.reach import address_of, as_java_host
from quorate_broker.listeners.kafka.versions import (
    DELETE_GROUPS,
    DESCRIBE_GROUPS,
    FIND_COORDINATOR,
    HEARTBEAT,
    JOIN_GROUP,
    LEAVE_GROUP,
    LIST_GROUPS,
    SYNC_GROUP,
)
from quorate_broker.operations.classic_groups import ClassicGroups
from quorate_broker.operations.groups import CoordinatorFound, Groups
from quorate_broker.operations.rights import Rights
from quorate_broker.replicas.replicas import Replicas

#: FindCoordinator: what the keys name.
GROUP, TRANSACTION = 0, 1
#: How long FindCoordinator waits until __consumer_offsets is made.
FIND_TIMEOUT_MS: Final = 5_000
#: The first version of FindCoordinator with many keys; of JoinGroup with a rebalance timeout of
#: its own, with an id before the first round (KIP-394), with a protocol that may be null, and for
#: leaders that need not assign; of LeaveGroup with many members; of DescribeGroups that says that
#: a group is not there.
MANY_KEYS_FROM: Final = 4
REBALANCE_TIMEOUT_FROM: Final = 1
ID_REQUIRED_FROM: Final = 4
NULL_PROTOCOL_FROM: Final = 7
SKIPS_ASSIGNMENT_FROM: Final = 9
MANY_MEMBERS_FROM: Final = 3
NOT_FOUND_FROM: Final = 6
#: The state of a group that is not there.
DEAD: Final = "Dead"


class GroupRequests:
    """Passes requests about groups on to the operations."""

    def __init__(
        self, groups: Groups, classic: ClassicGroups, replicas: Replicas, rights: Rights
    ) -> None:
        self._groups = groups
        self._classic = classic
        self._replicas = replicas
        self._rights = rights

    def handlers(self) -> Mapping[int, Handler]:
        return {
            FIND_COORDINATOR: self.find_coordinator,
            JOIN_GROUP: self.join_group,
            SYNC_GROUP: self.sync_group,
            HEARTBEAT: self.heartbeat,
            LEAVE_GROUP: self.leave_group,
            DESCRIBE_GROUPS: self.describe_groups,
            LIST_GROUPS: self.list_groups,
            DELETE_GROUPS: self.delete_groups,
        }

    # Coordinators.

    async def find_coordinator(self, call: Call[FindCoordinatorRequest]) -> FindCoordinatorResponse:
        request = call.request
        keys = request.coordinator_keys if call.version >= MANY_KEYS_FROM else [request.key]
        if request.key_type == GROUP:
            found = await self._groups.find_coordinators(
                call.client.principal, keys, caller_timeout_ms=FIND_TIMEOUT_MS
            )
            listed = [
                self._coordinator(key, one, call.client)
                for key, one in zip(keys, found, strict=True)
            ]
        else:
            code, why = _no_type(request.key_type, call.version)
            listed = [_no_coordinator(key, code, why) for key in keys]
        if call.version >= MANY_KEYS_FROM:
            return FindCoordinatorResponse(coordinators=listed)
        (only,) = listed
        return FindCoordinatorResponse(
            error_code=only.error_code,
            error_message=only.error_message,
            node_id=only.node_id,
            host=only.host,
            port=only.port,
        )

    def _coordinator(
        self, key: str, found: CoordinatorFound | QuorateError, client: Client
    ) -> Coordinator:
        if isinstance(found, QuorateError):
            return _no_coordinator(key, code_of(found, OF_GROUPS), str(found))
        broker = self._replicas.image.brokers.get(found.broker_id)
        address = None if broker is None else address_of(client, broker)
        if address is None:
            why = f"broker {found.broker_id} has no listener {client.listener!r}, or is not there"
            return _no_coordinator(key, COORDINATOR_NOT_AVAILABLE, why)
        return Coordinator(key, found.broker_id, address.host, address.port, NONE, None)

    # Members.

    async def join_group(self, call: Call[JoinGroupRequest]) -> JoinGroupResponse:
        request, version = call.request, call.version
        has_timeout = version >= REBALANCE_TIMEOUT_FROM
        name = request.group_instance_id or call.client_id or "member"
        asked = JoinGroup(
            request.group_id,
            request.member_id,
            self._classic.new_member_id(name),
            request.group_instance_id,
            call.client_id,
            call.client.address,
            request.session_timeout_ms,
            request.rebalance_timeout_ms if has_timeout else request.session_timeout_ms,
            request.protocol_type,
            tuple((one.name, bytes(one.metadata)) for one in request.protocols),
            is_id_required=version >= ID_REQUIRED_FROM,
            can_skip_assignment=version >= SKIPS_ASSIGNMENT_FROM,
            conversation=Conversation(call.client.number),
        )
        no_protocol = None if version >= NULL_PROTOCOL_FROM else ""
        try:
            answer = await self._classic.join(call.client.principal, asked)
        except QuorateError as error:
            return JoinGroupResponse(
                error_code=code_of(error, OF_GROUPS),
                protocol_name=no_protocol,
                member_id=request.member_id,
            )
        if isinstance(answer, MemberIdRequired):
            return JoinGroupResponse(
                error_code=MEMBER_ID_REQUIRED,
                protocol_name=no_protocol,
                member_id=answer.member_id,
            )
        return _joined(answer)

    async def sync_group(self, call: Call[SyncGroupRequest]) -> SyncGroupResponse:
        request = call.request
        asked = SyncGroup(
            request.group_id,
            request.member_id,
            request.generation_id,
            request.group_instance_id,
            request.protocol_type,
            request.protocol_name,
            {one.member_id: bytes(one.assignment) for one in request.assignments},
        )
        try:
            answer = await self._classic.sync(call.client.principal, asked)
        except QuorateError as error:
            return SyncGroupResponse(error_code=code_of(error, OF_GROUPS))
        return SyncGroupResponse(
            error_code=NONE,
            protocol_type=answer.protocol_type,
            protocol_name=answer.protocol,
            assignment=answer.assignment,
        )

    async def heartbeat(self, call: Call[HeartbeatRequest]) -> HeartbeatResponse:
        request = call.request
        asked = MemberRequest(
            request.group_id, request.member_id, request.generation_id, request.group_instance_id
        )
        try:
            await self._classic.heartbeat(call.client.principal, asked)
        except QuorateError as error:
            return HeartbeatResponse(error_code=code_of(error, OF_GROUPS))
        return HeartbeatResponse(error_code=NONE)

    async def leave_group(self, call: Call[LeaveGroupRequest]) -> LeaveGroupResponse:
        request = call.request
        is_many = call.version >= MANY_MEMBERS_FROM
        leaving = [Leaving(request.member_id)]
        if is_many:
            leaving = [Leaving(one.member_id, one.group_instance_id) for one in request.members]
        try:
            left = await self._classic.leave(
                call.client.principal, LeaveGroup(request.group_id, leaving)
            )
        except QuorateError as error:
            return LeaveGroupResponse(error_code=code_of(error, OF_GROUPS))
        codes = [_code(error) for error in left]
        if not is_many:
            return LeaveGroupResponse(error_code=codes[0])
        return LeaveGroupResponse(
            error_code=NONE,
            members=[
                MemberResponse(one.member_id, one.instance_id, code)
                for one, code in zip(leaving, codes, strict=True)
            ],
        )

    # Administration.

    async def describe_groups(self, call: Call[DescribeGroupsRequest]) -> DescribeGroupsResponse:
        ids = call.request.groups
        found = await self._groups.describe_groups_raw(call.client.principal, ids)
        described = [
            _described(group_id, one, call.version)
            for group_id, one in zip(ids, found, strict=True)
        ]
        if call.request.include_authorized_operations:
            described = authorized.with_operations(described, self._rights, call.client.principal)
        return DescribeGroupsResponse(groups=described)

    async def list_groups(self, call: Call[ListGroupsRequest]) -> ListGroupsResponse:
        request = call.request
        found, error = await self._groups.list_groups(call.client.principal)
        return ListGroupsResponse(
            error_code=NONE if error is None else code_of(error, OF_GROUPS),
            groups=list(_listed(found, request.states_filter, request.types_filter)),
        )

    async def delete_groups(self, call: Call[DeleteGroupsRequest]) -> DeleteGroupsResponse:
        names = [*dict.fromkeys(call.request.groups_names)]
        errors = await self._groups.delete_groups(call.client.principal, names)
        return DeleteGroupsResponse(
            results=[
                DeletableGroupResult(name, _code(error))
                for name, error in zip(names, errors, strict=True)
            ]
        )


def _code(error: QuorateError | None) -> int:
    return NONE if error is None else code_of(error, OF_GROUPS)


def _no_coordinator(key: str, code: int, why: str) -> Coordinator:
    return Coordinator(key, -1, "", -1, code, why)


def _joined(answer: Joined) -> JoinGroupResponse:
    return JoinGroupResponse(
        error_code=NONE,
        generation_id=answer.generation,
        protocol_type=answer.protocol_type,
        protocol_name=answer.protocol,
        leader=answer.leader,
        skip_assignment=answer.is_assignment_skipped,
        member_id=answer.member_id,
        members=[
            JoinGroupResponseMember(one.member_id, one.instance_id, one.metadata)
            for one in answer.members
        ],
    )


def _no_type(key_type: int, version: int) -> tuple[int, str]:
    """Return why there is no coordinator of a type: there are those of groups only.

    Most clients give a producer up at any code that is not retriable. librdkafka asks again at all
    but those about rights; it knows the versions with one key only.
    """
    if key_type != TRANSACTION:
        return INVALID_REQUEST, f"there are no coordinators of type {key_type}"
    code = UNSUPPORTED_VERSION
    if version < MANY_KEYS_FROM:
        code = TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    return code, "there are no transactions in this cluster"


def _described(group_id: str, found: object, version: int) -> DescribedGroup:
    """Return a description. A group of the consumer protocol is no classic group, as in Kafka."""
    if isinstance(found, QuorateError) and not isinstance(found, GroupNotFoundError):
        return DescribedGroup(code_of(found, OF_GROUPS), str(found), group_id)
    if isinstance(found, DescribedClassicGroup):
        return DescribedGroup(
            NONE,
            None,
            group_id,
            found.state,
            found.protocol_type,
            found.protocol,
            [
                DescribedGroupMember(
                    one.member_id,
                    one.instance_id,
                    one.client_id,
                    as_java_host(one.client_host),
                    one.metadata,
                    one.assignment,
                )
                for one in found.members
            ],
        )
    if not isinstance(found, QuorateError) and not getattr(found, "protocol", ""):
        return DescribedGroup(NONE, None, group_id, "Empty")  # it has offsets alone
    if version < NOT_FOUND_FROM:
        return DescribedGroup(NONE, None, group_id, DEAD)
    why = str(found) if isinstance(found, QuorateError) else f"{group_id!r} is no classic group"
    return DescribedGroup(GROUP_ID_NOT_FOUND, why, group_id, DEAD)


def _listed(
    found: Iterable[Listed], states: Sequence[str], types: Sequence[str]
) -> Iterable[ListedGroup]:
    """Yield the groups that pass the filters; an empty filter passes all."""
    wanted_states = {state.lower() for state in states}
    wanted_types = {kind.lower() for kind in types}
    for one in found:
        kind = one.protocol or "classic"
        protocol_type = one.protocol_type if one.protocol else ""
        if wanted_states and one.state.lower() not in wanted_states:
            continue
        if wanted_types and kind not in wanted_types:
            continue
        yield ListedGroup(one.group_id, protocol_type, one.state, kind)
