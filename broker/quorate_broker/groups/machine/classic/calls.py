"""The calls of classic members to the groups of a shard."""

from __future__ import annotations

from quorate.errors import InvalidRequestError, QuorateError
from quorate_broker.groups.machine.classic.values import (
    Joined,
    JoinGroup,
    LeaveGroup,
    Left,
    MemberIdRequired,
    MemberRequest,
    Synced,
    SyncGroup,
)
from quorate_broker.groups.machine.consumer_protocol import ConsumerProtocol
from quorate_broker.groups.machine.door import check_group_id, check_join_group
from quorate_broker.groups.machine.mixed import MixedMembers
from quorate_broker.groups.machine.registry import ClassicMembership, unknown_member
from quorate_broker.groups.machine.steps import Steps
from quorate_broker.groups.machine.turn import Turn
from quorate_broker.groups.machine.values import Parked, Step


class ClassicCalls(Steps):
    """JoinGroup, SyncGroup, Heartbeat and LeaveGroup.

    `ticket` is a number of the driver's: a step that answers PARKED is answered by a later step,
    with a Reply to this ticket.
    """

    def join_group(
        self, request: JoinGroup, ticket: int, now_ms: int, wall_ms: int
    ) -> Step[Joined | MemberIdRequired | Parked]:
        """Take a JoinGroup. PARKED: a later step has the answer, Joined or an error.

        Errors: InvalidGroupIdError, InvalidSessionTimeoutError, InvalidRequestError,
        InconsistentGroupProtocolError, UnknownMemberIdError, FencedInstanceIdError,
        GroupMaxSizeError, RecordTooLargeError, OverloadedError; RebalanceInProgressError for a
        request that a newer one of the same member takes the place of.
        """

        def decide(turn: Turn) -> Joined | MemberIdRequired | Parked:
            check_join_group(request, self._config)
            found = self._groups.find(request.group_id, turn.now_ms)
            protocol: ClassicMembership
            if request.member_id and not isinstance(found, ConsumerProtocol):
                protocol = self._of_member(request, turn)
            else:
                protocol = self._groups.classic(request.group_id, turn)
            return protocol.join(request, ticket, turn)

        return self._decided_for(request.group_id, decide, now_ms, wall_ms)

    def sync_group(
        self, request: SyncGroup, ticket: int, now_ms: int, wall_ms: int
    ) -> Step[Synced | Parked]:
        """Take a SyncGroup. PARKED: a later step has the answer, Synced or an error.

        Errors: InvalidGroupIdError, UnknownMemberIdError, FencedInstanceIdError,
        IllegalGenerationError, InconsistentGroupProtocolError, RebalanceInProgressError,
        RecordTooLargeError.
        """
        return self._decided_for(
            request.group_id,
            lambda turn: self._of_member(request, turn).sync(request, ticket, turn),
            now_ms,
            wall_ms,
        )

    def classic_heartbeat(self, request: MemberRequest, now_ms: int, wall_ms: int) -> Step[None]:
        """Take a heartbeat of a classic member.

        Errors: InvalidGroupIdError, UnknownMemberIdError, FencedInstanceIdError,
        IllegalGenerationError, RebalanceInProgressError (join again).
        """
        return self._decided_for(
            request.group_id,
            lambda turn: self._of_member(request, turn).heartbeat(request, turn),
            now_ms,
            wall_ms,
        )

    def leave_group(self, request: LeaveGroup, now_ms: int, wall_ms: int) -> Step[Left]:
        """Take members out of their group. Each has an answer of its own.

        Errors: InvalidGroupIdError, InvalidRequestError (too many). Of a member:
        UnknownMemberIdError, FencedInstanceIdError.
        """

        def decide(turn: Turn) -> Left:
            check_group_id(request.group_id, self._config)
            if len(request.members) > self._config.members_max:
                raise InvalidRequestError(
                    f"a request names {len(request.members)} members; a group has at most "
                    f"{self._config.members_max}"
                )
            protocol = self._classic(request.group_id, turn)
            errors: list[QuorateError | None] = []
            for leaving in request.members:
                try:
                    if protocol is None:
                        raise unknown_member(request.group_id, leaving.member_id)
                    protocol.leave(leaving, turn)
                    errors.append(None)
                except QuorateError as error:
                    errors.append(error)
            return tuple(errors)

        return self._decided_for(request.group_id, decide, now_ms, wall_ms)

    def _of_member(self, request: JoinGroup | MemberRequest, turn: Turn) -> ClassicMembership:
        check_group_id(request.group_id, self._config)
        protocol = self._classic(request.group_id, turn)
        if protocol is None:
            raise unknown_member(request.group_id, request.member_id)
        return protocol

    def _classic(self, group_id: str, turn: Turn) -> ClassicMembership | None:
        """Return who takes the requests of the group's classic members; None: it has none."""
        protocol = self._groups.find(group_id, turn.now_ms)
        if isinstance(protocol, ConsumerProtocol):
            return MixedMembers(protocol) if protocol.member_count else None
        return protocol
