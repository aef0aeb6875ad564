"""Membership by the consumer protocol (KIP-848) of one group.

    join, leave, other subscription, topics change   the group epoch grows
    the group epoch is above the assignment epoch    a target assignment is computed
    a member differs from the target                 it gives back first (reconciliation.py)
    a member has given back, left, or was removed    those that wait for its partitions get them

A heartbeat is taken in first (consumer_members.py); then `settle` does all that follows from it.
"""

from __future__ import annotations

from dataclasses import replace

from quorate.errors import (
    FencedMemberEpochError,
    InvalidAssignmentError,
    InvalidPatternError,
    QuorateError,
)
from quorate_broker.groups.machine.administration import members_named
from quorate_broker.groups.machine.classic.embedded import known, unknown
from quorate_broker.groups.machine.consumer_members import ConsumerMembers
from quorate_broker.groups.machine.group import Group
from quorate_broker.groups.machine.target import metadata_hash
from quorate_broker.groups.machine.turn import Turn
from quorate_broker.groups.machine.values import (
    JOIN,
    LEAVE,
    LEAVE_STATIC,
    Heartbeat,
    MemberState,
    RemoveMembers,
)
from quorate_broker.groups.records.keys import GroupKey
from quorate_broker.groups.records.values import GroupValue


def too_wide(pattern: str, group: Group) -> InvalidPatternError:
    """Return the error for a pattern that matches too many topics."""
    most = group.shared.config.subscription_topics_max
    return InvalidPatternError(
        f"the pattern {pattern[:200]!r} matches more than {most} topics, which is the most that a "
        "subscription may have, so its member has no place in the group"
    )


class ConsumerProtocol(ConsumerMembers):
    """How members of one group come to their partitions."""

    def __init__(self, group: Group) -> None:
        super().__init__(group)
        #: The image in which partitions were looked for that were not seen before.
        self._looked_in = group.shared.subscriptions.topics

    def heartbeat(self, heartbeat: Heartbeat, turn: Turn) -> MemberState | QuorateError:
        """Take a heartbeat in, do what follows, and return the member's state."""
        member_id = heartbeat.member_id
        session = self.group.sessions.get(member_id)
        if session is not None:
            if session.is_outdated(heartbeat.conversation):
                raise FencedMemberEpochError(f"member {member_id!r} has a newer connection")
            session.begin_conversation(heartbeat.conversation)
        if heartbeat.member_epoch in {LEAVE, LEAVE_STATIC}:
            self._leave(heartbeat, turn)
            self.settle(turn)
            return MemberState(heartbeat.member_epoch, 0, self._members.interval_ms)
        if heartbeat.member_epoch != JOIN:
            self._check_epoch(heartbeat)
            self._hear(heartbeat, turn)
        elif session is not None and session.has_joined:
            # It has not got the answer yet, which goes out once more.
            session.sent = 0
            self._hear(heartbeat, turn)
        else:
            self._join(heartbeat, turn)
        refusal = self._take_proposal(heartbeat, turn)
        self.settle(turn, None if refusal else member_id)
        if refusal is not None:
            return refusal
        # A pattern that matches too many topics has cost the member its place.
        if member_id not in self.group.sessions:
            return too_wide(heartbeat.pattern or "", self.group)
        return self._members.state_of(member_id)

    def _take_proposal(self, heartbeat: Heartbeat, turn: Turn) -> QuorateError | None:
        """Take the assignment that a member computed; return why it is refused."""
        if heartbeat.proposal is None:
            return None
        try:
            if self._assigning.take(heartbeat.member_id, heartbeat.proposal, turn):
                self._members.check_all()
        except InvalidAssignmentError as error:
            return error
        return None

    # What happens to members.

    def remove_by_request(self, request: RemoveMembers, turn: Turn) -> tuple[str, ...]:
        """Remove the members that an administrator names; return which."""
        named = members_named(self.group.state, request)
        for member_id in named:
            reason = FencedMemberEpochError(
                f"an administrator removed member {member_id!r} from group {self.group.id!r}"
            )
            self.remove(member_id, turn, reason)
        self.settle(turn)
        return tuple(named)

    def remove_overdue(self, member_id: str, turn: Turn) -> None:
        """Remove a member if its time is over. Else set its timer again."""
        session = self.group.sessions.get(member_id)
        if session is None:
            return
        due_ms = self.group.due_ms(member_id)
        if due_ms > turn.now_ms:
            self.group.watch(member_id)
            return
        if due_ms == session.settle_by_ms:
            why = (
                f"did not take in its last assignment within {session.rebalance_timeout_ms} ms "
                "(rebalance_timeout_ms)"
            )
        elif due_ms == session.expires_ms:
            why = f"sent no heartbeat for {session.session_timeout_ms} ms (session_timeout_ms)"
        else:
            why = "lost its stream, and opened no other in time (group.disconnect.grace.ms)"
        reason = FencedMemberEpochError(
            f"member {member_id!r} of group {self.group.id!r} {why}, so it was removed"
        )
        self.remove(member_id, turn, reason)

    # What follows.

    def settle(self, turn: Turn, asker: str | None = None) -> None:
        """Do all that follows from what has changed. States that changed are pushed.

        `asker`: the member that gets its state as the answer.
        """
        group = self.group
        self._take_unseen(turn)
        self._remove_too_wide(turn)
        if group.has_changed:
            self._grow_epoch(turn)
        if self._assigning.assign(turn):
            self._members.check_all()
        if not self._members.advance_some(turn, asker):
            group.shared.timers.at(turn.now_ms, (group.id, None))
        self._members.push(turn, self._assigning.asked, asker)

    def _take_unseen(self, turn: Turn) -> None:
        """Note as a classic member's own what it has of topics that are seen now.

        Before it has given that back, no other member may have it.
        """
        group, topics = self.group, self.group.shared.subscriptions.topics
        if topics is self._looked_in:
            return
        self._looked_in = topics
        for member_id, named in [*group.unseen.items()]:
            group.set_unseen(member_id, unknown(named, topics))
            current = group.state.current_of(member_id)
            seen = known(named, topics).difference(group.state.holders)
            if seen:
                assigned = {**current.assigned, **dict.fromkeys(sorted(seen), current.epoch)}
                self._members.set_current(member_id, replace(current, assigned=assigned), turn)
                self._members.check(member_id)

    def _grow_epoch(self, turn: Turn) -> None:
        group = self.group
        group.has_changed = False
        value = GroupValue(group.state.epoch + 1, metadata_hash(group))
        turn.write(group.state, GroupKey(group.id), value)

    def _remove_too_wide(self, turn: Turn) -> None:
        """Remove members whose pattern matches more topics than a subscription may have."""
        for view in self.group.views():
            if not self.group.shared.subscriptions.is_too_wide(view):
                continue
            for member_id in [*self.group.state.members]:
                if self.group.followed_by(member_id).view == view:
                    self.remove(member_id, turn, too_wide(view.pattern, self.group))

    def topics_changed(self, turn: Turn) -> None:
        """Topics that the group subscribes to may have changed."""
        self._compare_topics()
        self.settle(turn)
