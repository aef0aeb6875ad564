"""The rounds of a classic group: members join, the leader assigns, the generation is stable.

    EMPTY       no members. The first one begins a round, which waits a little for others.
    PREPARING   members join. The round ends when all have joined, or at its deadline.
    COMPLETING  all that joined know the generation; the leader computes the assignment.
    STABLE      the assignment is decided.

From COMPLETING and STABLE a member that joins, leaves or is removed begins the next round. What is
in the log is the last stable generation, or that the group is empty; a round is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from quorate.errors import (
    OverloadedError,
    QuorateError,
    RebalanceInProgressError,
    RecordTooLargeError,
)
from quorate_broker.groups.machine.classic.member import Member
from quorate_broker.groups.machine.classic.roster import Roster
from quorate_broker.groups.machine.classic.values import Joined, JoinedMember, Synced
from quorate_broker.groups.machine.group import Group
from quorate_broker.groups.machine.turn import Turn
from quorate_broker.groups.records.classic import ClassicMemberValue, ClassicValue
from quorate_broker.groups.records.keys import ClassicKey


def check_room(group: Group, roster: Roster, more: int) -> None:
    """Raise the error if the members of a group may not take so many bytes more.

    RecordTooLargeError: one record would be too large. OverloadedError: all groups of the shard
    together have too many.
    """
    config = group.shared.config
    if roster.size + more > config.classic_group_bytes_max:
        raise RecordTooLargeError(
            f"the members of group {group.id!r} and their assignments would have "
            f"{roster.size + more} bytes; {config.classic_group_bytes_max} are allowed"
        )
    total = group.shared.classic_bytes.total
    if total + more > config.classic_shard_bytes_max:
        raise OverloadedError(
            f"the classic groups of this coordinator have {total} bytes of metadata and "
            f"assignments; {config.classic_shard_bytes_max} are allowed"
        )


class Phase(StrEnum):
    """The state of a group, by the names that Kafka's tools print."""

    EMPTY = "Empty"
    PREPARING = "PreparingRebalance"
    COMPLETING = "CompletingRebalance"
    STABLE = "Stable"


#: What a group is called that never had a member.
NO_TYPE: Final = ""


class Rebalance:
    """The phase of a group, its generation and its deadlines. Invariants:

    * A JoinGroup waits only in PREPARING, a SyncGroup only in COMPLETING.
    * The leader is a member, except in PREPARING, where it may have left.
    """

    def __init__(self, group: Group, roster: Roster, pending: Mapping[str, int]) -> None:
        self._group = group
        self._roster = roster
        #: Members that got an id and have not come with it yet: a round waits for them.
        self._pending = pending
        self.phase = Phase.EMPTY
        self.protocol_type = NO_TYPE
        self.generation = 0
        self.protocol: str | None = None
        self.leader: str | None = None
        #: When the round of joins ends. Only in PREPARING.
        self._join_by_ms: int | None = None
        #: In the first round: how long it may still be put off for members that come.
        self._may_extend_ms: int | None = None
        self._has_new_member = False
        #: When the members of the generation must have sent SyncGroup.
        self._sync_by_ms: int | None = None

    def restore(self, value: ClassicValue) -> None:
        """Go on from the log. Nobody waits for anything there."""
        self.protocol_type, self.generation = value.protocol_type, value.generation
        self.protocol, self.leader = value.protocol, value.leader
        self.phase = Phase.STABLE if value.members else Phase.EMPTY

    def follow(self, generation: int, protocol_type: str, turn: Turn) -> None:
        """Begin after a generation of another protocol, with the members that are in the roster."""
        self.protocol_type, self.generation = protocol_type, generation
        self.protocol = self._roster.voted()
        self.leader = next(iter(self._roster)).member_id
        self.phase = Phase.STABLE
        self.write(turn)
        self.prepare(turn)

    def postpone(self, by_ms: int) -> None:
        """The coordinator stood still for so long."""
        if self._join_by_ms is not None:
            self._join_by_ms += by_ms
        if self._sync_by_ms is not None:
            self._sync_by_ms += by_ms

    # Joins.

    def joined(self, member: Member, turn: Turn) -> None:
        """A member joins: begin a round, or look whether it was the last that the round awaits."""
        if self.phase is Phase.PREPARING:
            self._has_new_member |= member.is_new
            self.complete_if_all(turn)
        else:
            self.prepare(turn)

    def prepare(self, turn: Turn) -> None:
        """Begin a round. Members learn it from their heartbeats, and join again."""
        for member in self._roster:
            if member.sync is not None:
                self.answer_sync(member, self.in_progress(), turn)
            member.owes_sync = False
        is_first = self.phase is Phase.EMPTY
        self.phase, self._sync_by_ms = Phase.PREPARING, None
        delay_ms = self._group.shared.config.initial_rebalance_delay_ms if is_first else 0
        if delay_ms:
            self._has_new_member = False
            self._may_extend_ms = max(self._roster.rebalance_timeout_ms - delay_ms, 0)
            self._wait_for_joins(turn.now_ms + delay_ms)
        else:
            self._wait_for_joins(turn.now_ms + self._roster.rebalance_timeout_ms)
            self.complete_if_all(turn)

    def _wait_for_joins(self, until_ms: int) -> None:
        self._join_by_ms = until_ms
        self._group.shared.timers.at(until_ms, (self._group.id, None))

    def complete_if_all(self, turn: Turn) -> None:
        """End the round if all members have joined, or if its time is over.

        The first round always lasts its time.
        """
        if self.phase is not Phase.PREPARING or self._may_extend_ms is not None:
            return
        is_late = self._join_by_ms is not None and self._join_by_ms <= turn.now_ms
        all_joined = not self._pending and all(one.join is not None for one in self._roster)
        if is_late or all_joined:
            self._complete(turn)

    def late(self, now_ms: int) -> list[str]:
        """Return the members that the round does not wait for any longer.

        Static ones that did not join are not among them: their place is kept for their session.
        """
        if self._join_by_ms is not None and self._join_by_ms <= now_ms:
            if self._may_extend_ms is not None:
                return []
            return [
                one.member_id
                for one in self._roster
                if one.join is None and one.instance_id is None
            ]
        if self._sync_by_ms is not None and self._sync_by_ms <= now_ms:
            return [one.member_id for one in self._roster if one.owes_sync]
        return []

    def settle(self, turn: Turn) -> None:
        """Do what is due. Members that are late were removed before."""
        if self._join_by_ms is not None:
            if self._join_by_ms > turn.now_ms:
                self._wait_for_joins(self._join_by_ms)
            elif self._may_extend_ms and self._has_new_member:
                # Members come one after another when a program starts: one generation for all.
                delay_ms = min(
                    self._group.shared.config.initial_rebalance_delay_ms, self._may_extend_ms
                )
                self._may_extend_ms -= delay_ms
                self._has_new_member = False
                self._wait_for_joins(turn.now_ms + delay_ms)
            else:
                self._complete(turn)
        if self._sync_by_ms is not None:
            self._wait_for_syncs(self._sync_by_ms)

    def _complete(self, turn: Turn) -> None:
        """End the round of joins: the next generation, or an empty group."""
        roster = self._roster
        self._may_extend_ms = None
        here = [member for member in roster if member.join is not None]
        if len(roster) and not here:
            # Only static members are left, and all are away. The first that comes will lead.
            return
        self._join_by_ms = None
        self.generation += 1
        self.protocol = roster.voted()
        if not here:
            self.leader = None
            self._change_phase(Phase.EMPTY, turn)
            return
        leader = roster.find(self.leader or "")
        if leader is None or leader.join is None:
            self.leader = here[0].member_id
        self.phase = Phase.COMPLETING
        for member in here:
            member.owes_sync = True
            self.answer_join(member, self.joined_answer(member), turn)
        self._wait_for_syncs(turn.now_ms + roster.rebalance_timeout_ms)

    def joined_answer(self, member: Member, *, is_assignment_skipped: bool = False) -> Joined:
        """Return the present generation, with all members if this one leads."""
        assert self.protocol is not None, "a generation has members"
        assert self.leader is not None, "one of them leads"
        members: tuple[JoinedMember, ...] = ()
        if member.member_id == self.leader:
            members = tuple(
                JoinedMember(one.member_id, one.instance_id, one.metadata(self.protocol))
                for one in self._roster
            )
        return Joined(
            self.generation,
            self.protocol_type,
            self.protocol,
            self.leader,
            member.member_id,
            members,
            is_assignment_skipped,
        )

    # Syncs.

    def _wait_for_syncs(self, until_ms: int) -> None:
        if not any(one.owes_sync for one in self._roster):
            self._sync_by_ms = None
            return
        self._sync_by_ms = until_ms
        self._group.shared.timers.at(until_ms, (self._group.id, None))

    def assign(self, assignments: Mapping[str, bytes], turn: Turn) -> None:
        """The leader has assigned: the generation is stable, and all that wait learn it.

        Raises RecordTooLargeError. The leader must be among those that wait.
        """
        given = sum(map(len, assignments.values()))
        check_room(self._group, self._roster, given)
        self._roster.assign(assignments)
        self._change_phase(Phase.STABLE, turn)
        for member in self._roster:
            if member.sync is not None:
                self.answer_sync(member, self.synced_answer(member), turn)

    def synced_answer(self, member: Member) -> Synced:
        """Return a member's assignment."""
        assert self.protocol is not None, "a generation has members"
        return Synced(self.protocol_type, self.protocol, member.assignment)

    # Answers.

    def answer_join(self, member: Member, answer: Joined | QuorateError, turn: Turn) -> None:
        """Answer a JoinGroup that waits. From now on heartbeats are due."""
        if member.join is not None:
            turn.reply(member.join, answer)
            member.join, member.is_new = None, False
            self._heard(member, turn)

    def answer_sync(self, member: Member, answer: Synced | QuorateError, turn: Turn) -> None:
        """Answer a SyncGroup that waits. From now on heartbeats are due."""
        if member.sync is not None:
            turn.reply(member.sync, answer)
            member.sync = None
            self._heard(member, turn)

    def _heard(self, member: Member, turn: Turn) -> None:
        member.renew(turn.now_ms)
        self._group.shared.timers.at(member.expires_ms, (self._group.id, member.member_id))

    def in_progress(self) -> RebalanceInProgressError:
        """Return the error that makes a member join again."""
        return RebalanceInProgressError(
            f"the members of group {self._group.id!r} join its generation {self.generation + 1}: "
            "join, too"
        )

    # The log.

    def _change_phase(self, phase: Phase, turn: Turn) -> None:
        self.phase = phase
        self.write(turn)

    def write(self, turn: Turn) -> None:
        """Write the group as it stands. Called only if it is stable or empty."""
        members = tuple(
            ClassicMemberValue(
                one.member_id,
                one.instance_id,
                one.client_id,
                one.client_host,
                one.rebalance_timeout_ms,
                one.session_timeout_ms,
                one.metadata(self.protocol),
                one.assignment,
            )
            for one in self._roster
        )
        value = ClassicValue(
            self.protocol_type, self.generation, self.protocol, self.leader, turn.wall_ms, members
        )
        turn.write(self._group.state, ClassicKey(self._group.id), value)
