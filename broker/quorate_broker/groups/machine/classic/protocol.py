"""Membership by the classic protocol: JoinGroup, SyncGroup, Heartbeat and LeaveGroup of one group.

The members agree on a protocol, and one of them, the leader, assigns. What they tell each other by
that is opaque here. Rounds and generations: rebalance.py.
"""

from __future__ import annotations

from dataclasses import replace

from quorate.errors import (
    FencedInstanceIdError,
    InconsistentGroupProtocolError,
    OverloadedError,
    QuorateError,
    RecordTooLargeError,
)
from quorate_broker.groups.machine.classic.member import FIRST_JOIN_MS, Member
from quorate_broker.groups.machine.classic.members import ClassicMembers
from quorate_broker.groups.machine.classic.rebalance import Phase
from quorate_broker.groups.machine.classic.values import (
    Joined,
    JoinGroup,
    Leaving,
    MemberIdRequired,
    MemberRequest,
    Synced,
    SyncGroup,
)
from quorate_broker.groups.machine.turn import Turn
from quorate_broker.groups.machine.values import (
    PARKED,
    Parked,
    RemoveMembers,
)


class ClassicProtocol(ClassicMembers):
    """How members of one classic group come to their generation and their assignments."""

    # Joining.

    def join(
        self, request: JoinGroup, ticket: int, turn: Turn
    ) -> Joined | MemberIdRequired | Parked:
        """Take a JoinGroup. PARKED: the answer goes to `ticket` when the round ends."""
        self._check_protocols(request)
        member_id = request.member_id
        if not member_id:
            return self._join_unnamed(request, ticket, turn)
        if member_id in self._pending and request.instance_id is None:
            self._check_room(request)
            del self._pending[member_id]
            return self._add(member_id, request, ticket, turn)
        member = self._known(member_id, request.instance_id)
        is_same = member.protocols == request.protocols
        is_leader = member_id == self._round.leader
        match self._round.phase:
            case Phase.COMPLETING if is_same and member.join is None:
                # The answer was lost.
                return self._again(member, turn)
            case Phase.STABLE if is_same and not is_leader:
                return self._again(member, turn)
        self._check_room(request, member)
        return self._rejoin(member, request, ticket, turn)

    def _join_unnamed(
        self, request: JoinGroup, ticket: int, turn: Turn
    ) -> Joined | MemberIdRequired | Parked:
        if request.instance_id is not None:
            holder = self._roster.find(self._roster.instances.get(request.instance_id, ""))
            if holder is not None:
                self._check_room(request, holder)
                return self._replace(holder, request, ticket, turn)
        self._check_room(request)
        if request.instance_id is None and request.is_id_required:
            expires_ms = turn.now_ms + request.session_timeout_ms
            self._pending[request.new_member_id] = expires_ms
            self.group.shared.timers.at(expires_ms, (self.group.id, request.new_member_id))
            return MemberIdRequired(request.new_member_id)
        return self._add(request.new_member_id, request, ticket, turn)

    def _add(self, member_id: str, request: JoinGroup, ticket: int, turn: Turn) -> Parked:
        member = Member(
            member_id,
            request.instance_id,
            request.client_id,
            request.client_host,
            request.rebalance_timeout_ms,
            request.session_timeout_ms,
            request.protocols,
            turn.now_ms + FIRST_JOIN_MS,
            is_new=True,
            join=ticket,
        )
        if not len(self._roster):
            self._round.protocol_type = request.protocol_type
        self._roster.add(member)
        self._watch(member)
        self._round.joined(member, turn)
        return PARKED

    def _rejoin(self, member: Member, request: JoinGroup, ticket: int, turn: Turn) -> Parked:
        # An older request that still waits came by a connection that the member has given up.
        self._round.answer_join(member, self._round.in_progress(), turn)
        self._round.answer_sync(member, self._round.in_progress(), turn)
        self._roster.update(member, request)
        member.join = ticket
        self._round.joined(member, turn)
        return PARKED

    def _again(self, member: Member, turn: Turn) -> Joined:
        self._heard(member, turn)
        return self._round.joined_answer(member)

    def _replace(self, old: Member, request: JoinGroup, ticket: int, turn: Turn) -> Joined | Parked:
        """A new process has the static name of a member: it takes over that one's place (KIP-345).

        A stable generation goes on if what it tells is the same: then a restart moves nothing.
        """
        fenced = FencedInstanceIdError(
            f"member {request.new_member_id!r} has taken over the group_instance_id "
            f"{old.instance_id!r} of {old.member_id!r}"
        )
        protocol = self._round.protocol
        was_leader = old.member_id == self._round.leader
        self._drop(old, fenced, turn)
        member = Member(
            request.new_member_id,
            request.instance_id,
            request.client_id,
            request.client_host,
            request.rebalance_timeout_ms,
            request.session_timeout_ms,
            request.protocols,
            turn.now_ms + request.session_timeout_ms,
            assignment=old.assignment,
        )
        self._roster.add(member)
        self._watch(member)
        if was_leader:
            self._round.leader = member.member_id
        is_same = member.metadata(protocol) == old.metadata(protocol)
        if self._round.phase is Phase.STABLE and is_same and self._roster.voted() == protocol:
            self._round.write(turn)
            answer = self._round.joined_answer(member, is_assignment_skipped=was_leader)
            if was_leader and not request.can_skip_assignment:
                # An older client that is told to lead would assign again, outside of a round.
                return replace(
                    answer, leader=old.member_id, members=(), is_assignment_skipped=False
                )
            return answer
        member.join = ticket
        self._round.joined(member, turn)
        return PARKED

    # Requests of members.

    def sync(self, request: SyncGroup, ticket: int, turn: Turn) -> Synced | Parked:
        """Take a SyncGroup. PARKED: the answer goes to `ticket` when the leader has assigned."""
        member = self._of_generation(request)
        for given, own in (
            (request.protocol_type, self._round.protocol_type),
            (request.protocol, self._round.protocol),
        ):
            if given is not None and given != own:
                raise InconsistentGroupProtocolError(
                    f"member {member.member_id!r} names {given!r}; group {self.group.id!r} has "
                    f"agreed on {own!r}"
                )
        if self._round.phase is Phase.PREPARING:
            raise self._round.in_progress()
        if self._round.phase is Phase.STABLE:
            member.owes_sync = False
            self._heard(member, turn)
            return self._round.synced_answer(member)
        self._round.answer_sync(member, self._round.in_progress(), turn)
        member.sync, member.owes_sync = ticket, False
        if member.member_id == self._round.leader:
            try:
                self._round.assign(request.assignments, turn)
            except (RecordTooLargeError, OverloadedError) as error:
                # The others must not wait for a leader that is told so again and again.
                self._round.answer_sync(member, error, turn)
                self._round.prepare(turn)
        return PARKED

    def heartbeat(self, request: MemberRequest, turn: Turn) -> None:
        """Take a heartbeat. Raises RebalanceInProgressError if the member must join again."""
        member = self._of_generation(request)
        # In a round, too: the member may be busy with its last records (KAFKA-8104).
        self._heard(member, turn)
        if self._round.phase is Phase.PREPARING:
            raise self._round.in_progress()

    def leave(self, leaving: Leaving, turn: Turn) -> None:
        """Take one member out, which asked for it or whose administrator did."""
        if leaving.instance_id is not None and not leaving.member_id:
            member_id = self._roster.instances.get(leaving.instance_id)
            if member_id is None:
                raise self._unknown(f"with the group_instance_id {leaving.instance_id!r}")
        elif leaving.member_id in self._pending:
            self._forget_pending(leaving.member_id, turn)
            return
        else:
            member_id = self._known(leaving.member_id, leaving.instance_id).member_id
        self._remove(member_id, self._unknown(f"{member_id!r}: it left"), turn)

    # What happens to members.

    def remove_by_request(self, request: RemoveMembers, turn: Turn) -> tuple[str, ...]:
        """Remove the members that an administrator names; return which."""
        by_instance = [self._roster.instances.get(name, "") for name in request.instance_ids]
        named = dict.fromkeys([*request.member_ids, *by_instance])
        if request.all:
            named = dict.fromkeys(member.member_id for member in self._roster)
        removed = [one for one in named if self._roster.find(one) is not None]
        for member_id in removed:
            why = self._unknown(f"{member_id!r}: an administrator removed it")
            self._remove(member_id, why, turn)
        return tuple(removed)

    def remove_overdue(self, member_id: str, turn: Turn) -> None:
        """Remove a member if its session is over. Else set its timer again."""
        expires_ms = self._pending.get(member_id)
        member = self._roster.find(member_id)
        if expires_ms is not None:
            if expires_ms <= turn.now_ms:
                self._forget_pending(member_id, turn)
            else:
                self.group.shared.timers.at(expires_ms, (self.group.id, member_id))
        elif member is not None and not member.is_awaiting:
            if member.expires_ms <= turn.now_ms:
                why = self._unknown(f"{member_id!r}: it was not heard in time, and was removed")
                self._remove(member_id, why, turn)
            else:
                self._watch(member)

    def settle(self, turn: Turn) -> None:
        """Do what is due for the group as a whole."""
        late = self._round.late(turn.now_ms)
        for member_id in late:
            member = self._roster.find(member_id)
            assert member is not None, "late members are members"
            self._drop(member, self._unknown(f"{member_id!r}: it came too late"), turn)
        if late and self._round.phase is not Phase.PREPARING:
            self._round.prepare(turn)
        self._round.settle(turn)

    def _remove(self, member_id: str, why: QuorateError, turn: Turn) -> None:
        """Remove a member. The others begin a round, or are one less to wait for."""
        member = self._roster.find(member_id)
        assert member is not None, "checked by the caller"
        self._drop(member, why, turn)
        if self._round.phase is Phase.PREPARING:
            self._round.complete_if_all(turn)
        else:
            self._round.prepare(turn)

    def _drop(self, member: Member, why: QuorateError, turn: Turn) -> None:
        self._round.answer_join(member, why, turn)
        self._round.answer_sync(member, why, turn)
        self._roster.remove(member.member_id)
        self.group.shared.timers.forget((self.group.id, member.member_id))

    def _forget_pending(self, member_id: str, turn: Turn) -> None:
        del self._pending[member_id]
        self.group.shared.timers.forget((self.group.id, member_id))
        self._round.complete_if_all(turn)
