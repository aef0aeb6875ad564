"""What members of the consumer protocol (KIP-848) of one group say, and what it changes.

A member joins with nothing, says how it is with the epoch that it has, and leaves. It has a stream,
or it polls: then it learns its state from the answers to its heartbeats alone (session.py).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from quorate.errors import (
    FencedInstanceIdError,
    FencedMemberEpochError,
    GroupMaxSizeError,
    InvalidRequestError,
    QuorateError,
    UnknownMemberIdError,
    UnreleasedInstanceIdError,
)
from quorate_broker.groups.machine.assigning import Assigning
from quorate_broker.groups.machine.consumer_rules import ConsumerRules
from quorate_broker.groups.machine.group import Group
from quorate_broker.groups.machine.reconciler import Reconciler
from quorate_broker.groups.machine.session import Session
from quorate_broker.groups.machine.state import AWAY_EPOCH, NOTHING
from quorate_broker.groups.machine.target import metadata_hash
from quorate_broker.groups.machine.turn import Turn
from quorate_broker.groups.machine.values import LEAVE_STATIC, Heartbeat
from quorate_broker.groups.records.keys import TargetMemberKey
from quorate_broker.groups.records.values import (
    UNREVOKED_PARTITIONS,
    MemberValue,
    TargetMemberValue,
)

#: Of a member that has told nothing yet.
UNTOLD: Final = MemberValue(None, None, "", "", (), None, 0, None)


def member_value(heartbeat: Heartbeat, old: MemberValue) -> MemberValue:
    """Return what a member has told so far, with what this heartbeat adds."""
    changes: dict[str, Any] = {
        name: getattr(heartbeat, name) or None
        for name in ("instance_id", "rack", "assignor", "pattern", "classic")
        if getattr(heartbeat, name) is not None
    }
    for name in ("client_id", "client_host"):
        if getattr(heartbeat, name):
            changes[name] = getattr(heartbeat, name)
    for name in ("rebalance_timeout_ms", "session_timeout_ms"):
        if getattr(heartbeat, name) is not None:
            changes[name] = getattr(heartbeat, name)
    if heartbeat.topics is not None:
        changes["topics"] = tuple(sorted(heartbeat.topics))
    return replace(old, **changes)


def seen_by_assignors(value: MemberValue) -> tuple[object, ...]:
    """Return what an assignment depends on."""
    return value.topics, value.pattern, value.rack, value.assignor


class ConsumerMembers(ConsumerRules):
    """The members of one group, as they come, speak and go."""

    def __init__(self, group: Group) -> None:
        super().__init__(group)
        self._assigning = Assigning(group)
        self._members = Reconciler(group)

    def _join(self, heartbeat: Heartbeat, turn: Turn) -> None:
        """A member comes with nothing. What it had before, by its id or its static name, is free.

        It gets the same again, if it still is its share: the target is kept, so nothing moves.
        """
        group, member_id = self.group, heartbeat.member_id
        predecessor = self._predecessor(heartbeat, turn.now_ms)
        old = group.state.members.get(predecessor or member_id)
        if old is None and len(group.state.members) >= group.shared.config.members_max:
            raise GroupMaxSizeError(
                f"group {group.id!r} has {len(group.state.members)} members; group.max.size allows "
                f"{group.shared.config.members_max}"
            )
        value = member_value(heartbeat, UNTOLD)
        is_merged = predecessor is not None and member_id in group.state.members
        if predecessor is not None:
            self._take_over(predecessor, member_id, turn)
        session = self._session_of(heartbeat, turn.now_ms)
        self._tell(heartbeat, value, old, turn)
        group.begin_session(member_id, session)
        if member_id in group.state.current:
            self._members.set_current(member_id, NOTHING, turn)
        self._members.check(member_id)
        if old is None or is_merged:
            group.has_changed = True

    def _predecessor(self, heartbeat: Heartbeat, now_ms: int) -> str | None:
        """Return the member whose static name this one takes over; None: no other has it."""
        holder = self.group.state.instances.get(heartbeat.instance_id or "")
        if holder is None or holder == heartbeat.member_id:
            return None
        members = self.group.state.members
        # In the classic protocol the newer holder of a name wins (KIP-345).
        is_classic = heartbeat.classic is not None or members[holder].classic is not None
        if not is_classic and not self.group.is_gone(holder, now_ms):
            raise UnreleasedInstanceIdError(
                f"member {holder!r} of group {self.group.id!r} has the group_instance_id "
                f"{heartbeat.instance_id!r}, and is there. It is free once that member leaves, "
                "loses its connection, or its session ends."
            )
        return holder

    def _take_over(self, predecessor: str, member_id: str, turn: Turn) -> None:
        """Hand the share of a static name on to the member that has the name now."""
        state = self.group.state
        target, current = state.target_of(predecessor), state.current_of(predecessor)
        reason = FencedMemberEpochError(
            f"member {member_id!r} has taken over the group_instance_id of {predecessor!r}"
        )
        self.group.remove_member(predecessor, turn, reason)
        key = TargetMemberKey(state.group_id, member_id)
        turn.write(state, key, TargetMemberValue(target))
        if self._assigning.asked is not None:
            # The task names the predecessor, and a proposal would give its share to nobody.
            self.group.has_changed = True
        self._members.freed((*current.assigned, *current.revoking))

    def _hear(self, heartbeat: Heartbeat, turn: Turn) -> None:
        """A member that has an epoch says how it is."""
        group, member_id = self.group, heartbeat.member_id
        value = self._sender(heartbeat)
        session = group.sessions[member_id]
        if heartbeat.instance_id is not None and heartbeat.instance_id != (value.instance_id or ""):
            raise InvalidRequestError(
                f"member {member_id!r} joined with the group_instance_id {value.instance_id!r}; "
                f"now it says {heartbeat.instance_id!r}. Leave and join to change it."
            )
        session.hear(heartbeat, group.state.current_of(member_id).epoch)
        self._set_timeouts(session, heartbeat)
        session.renew(turn.now_ms)
        self._tell(heartbeat, member_value(heartbeat, value), value, turn)
        self._take_echo(member_id, session, turn)
        group.watch(member_id)

    def _check_epoch(self, heartbeat: Heartbeat) -> None:
        """Fence a member whose epoch is another one than its last, or the one before."""
        self._sender(heartbeat)
        current = self.group.state.current_of(heartbeat.member_id)
        if heartbeat.member_epoch == current.epoch:
            return
        owned = heartbeat.owned
        if owned is None:
            owned = self.group.sessions[heartbeat.member_id].owned
        # The answer with the newer epoch may be on its way, or lost: then the member may have only
        # partitions that are still its own.
        is_last = heartbeat.member_epoch == current.previous_epoch
        if is_last and owned is not None and current.assigned.keys() >= owned:
            return
        raise FencedMemberEpochError(
            f"member {heartbeat.member_id!r} of group {self.group.id!r} sent the epoch "
            f"{heartbeat.member_epoch}; its epoch is {current.epoch}. It must give up all "
            "partitions and join again."
        )

    def _take_echo(self, member_id: str, session: Session, turn: Turn) -> None:
        """Look whether the member has done what its last state asked for."""
        if not session.has_echoed:
            return
        current = self.group.state.current_of(member_id)
        self._members.check(member_id)
        if current.state != UNREVOKED_PARTITIONS:
            session.settle_by_ms = None
        elif session.owned is not None and not current.revoking.keys() & session.owned:
            self._members.advance(member_id, turn, has_released=True)

    def _leave(self, heartbeat: Heartbeat, turn: Turn) -> None:
        """A member leaves. A static one that comes back keeps its share, and gives it back now."""
        group, member_id = self.group, heartbeat.member_id
        self._sender(heartbeat)
        if heartbeat.member_epoch == LEAVE_STATIC and group.is_static(member_id):
            current = group.state.current_of(member_id)
            session = group.sessions[member_id]
            session.has_stream, session.settle_by_ms = False, None
            session.has_joined = False
            session.renew(turn.now_ms)
            away = replace(NOTHING, epoch=AWAY_EPOCH, previous_epoch=current.epoch)
            self._members.set_current(member_id, away, turn)
            group.watch(member_id)
        else:
            self.remove(member_id, turn)

    def remove(self, member_id: str, turn: Turn, reason: QuorateError | None = None) -> None:
        """Remove a member. What it had is free at once."""
        current = self.group.state.current_of(member_id)
        self.group.remove_member(member_id, turn, reason)
        self._members.freed((*current.assigned, *current.revoking))
        self.group.has_changed = True

    def known(
        self, member_id: str, instance_id: str | None = None, *, is_classic: bool = False
    ) -> MemberValue:
        """Return a member. Raises FencedInstanceIdError if another one has its static name now.

        UnknownMemberIdError: there is no such member, or it uses the other protocol.
        """
        state = self.group.state
        if instance_id and state.instances.get(instance_id, member_id) != member_id:
            raise FencedInstanceIdError(
                f"the group_instance_id {instance_id!r} of group {self.group.id!r} belongs to "
                f"another member than {member_id!r}"
            )
        value = state.members.get(member_id)
        if value is None or (value.classic is not None) != is_classic:
            raise UnknownMemberIdError(
                f"group {self.group.id!r} has no member {member_id!r} of this protocol; join with "
                "the epoch 0"
            )
        return value

    def _sender(self, heartbeat: Heartbeat) -> MemberValue:
        """Return the member that speaks.

        One with a stream was told there that its name has another holder, and may ask for it again.
        """
        instance_id = None if heartbeat.conversation is None else heartbeat.instance_id
        is_classic = heartbeat.classic is not None
        return self.known(heartbeat.member_id, instance_id, is_classic=is_classic)

    def _tell(
        self, heartbeat: Heartbeat, value: MemberValue, old: MemberValue | None, turn: Turn
    ) -> None:
        """Write what a member says of itself; what an assignor looks at changes the group."""
        group = self.group
        knew_rights = group.knows_rights
        group.set_member(heartbeat.member_id, value, heartbeat.principal, turn)
        if old is not None and seen_by_assignors(old) != seen_by_assignors(value):
            group.has_changed = True
        if group.knows_rights and not knew_rights:
            self._compare_topics()

    def _compare_topics(self) -> None:
        """Note whether the members see other topics than at the last assignment, if that is known.

        A new coordinator knows it only when it has heard all members that have a pattern.
        """
        group, metadata = self.group, self.group.state.metadata
        if metadata is None or not (self._assigning.can_see_topics and group.knows_rights):
            return
        group.has_changed |= metadata.metadata_hash != metadata_hash(group)
        group.has_changed |= self._assigning.was_partial
        self._assigning.was_partial = False

    def _session_of(self, heartbeat: Heartbeat, now_ms: int) -> Session:
        """Return the session of a member that joins; the stream that it has stays its own."""
        config = self.group.shared.config
        number = next(self.group.shared.numbers)
        session = Session(config.session_timeout_ms, config.rebalance_timeout_ms, 0, number)
        session.has_stream = (self.group.id, heartbeat.member_id) in self.group.shared.streams
        session.begin_conversation(heartbeat.conversation)
        session.is_classic = heartbeat.classic is not None
        session.has_joined = session.has_stream or session.polls
        self._set_timeouts(session, heartbeat)
        session.renew(now_ms)
        return session

    @staticmethod
    def _set_timeouts(session: Session, heartbeat: Heartbeat) -> None:
        if heartbeat.classic is not None:
            session.session_timeout_ms = heartbeat.classic.session_timeout_ms
        if heartbeat.session_timeout_ms is not None:
            session.session_timeout_ms = heartbeat.session_timeout_ms
        if heartbeat.rebalance_timeout_ms is not None:
            session.rebalance_timeout_ms = heartbeat.rebalance_timeout_ms
