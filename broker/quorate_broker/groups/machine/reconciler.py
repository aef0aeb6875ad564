"""The members of one group on their way to the target assignment, and what they are told of it."""

from __future__ import annotations

from collections.abc import Iterable

from quorate_broker.groups.machine.group import Group
from quorate_broker.groups.machine.reconciliation import reconciled
from quorate_broker.groups.machine.state import AWAY_EPOCH
from quorate_broker.groups.machine.turn import Turn
from quorate_broker.groups.machine.values import JOIN, MemberState, Push
from quorate_broker.groups.records.keys import CurrentKey
from quorate_broker.groups.records.values import (
    UNRELEASED_PARTITIONS,
    UNREVOKED_PARTITIONS,
    CurrentValue,
    Partition,
)


class Reconciler:
    """Brings members on as far as they can go, and tells them.

    A member moves on when its target, what others have, or what it has taken in has changed. Those
    members are checked; all others stay as they are.
    """

    def __init__(self, group: Group) -> None:
        self.group = group
        #: Members that may be able to move on; a dict, because it keeps its order.
        self._to_check: dict[str, None] = {}
        #: Members whose state is another one than before this step.
        self._changed: dict[str, None] = {}

    def check(self, member_id: str) -> None:
        """A member may be able to move on."""
        self._to_check[member_id] = None

    def check_all(self) -> None:
        """There is a new target."""
        self._to_check.update(dict.fromkeys(self.group.state.members))

    def advance_some(self, turn: Turn, asker: str | None) -> bool:
        """Bring on members that can move on, the one that asks first; return whether none is left.

        A new target concerns each member of a large group. To bring on all in one step would hold
        up the event loop for longer than a heartbeat of another group may wait.
        """
        if asker in self._to_check:
            del self._to_check[asker]
            self.advance(asker, turn)
        for _ in range(self.group.shared.config.members_per_step):
            if not self._to_check:
                return True
            member_id = next(iter(self._to_check))
            del self._to_check[member_id]
            session = self.group.sessions.get(member_id)
            # A member that polls moves on when it is heard: nothing else tells it its epoch.
            if session is not None and not session.polls:
                self.advance(member_id, turn)
        return not self._to_check

    def advance(self, member_id: str, turn: Turn, *, has_released: bool = False) -> None:
        """Bring a member one state on, if it has taken in the last one."""
        group = self.group
        current, session = group.state.current_of(member_id), group.sessions[member_id]
        if not (current.epoch == JOIN or session.has_echoed) or current.epoch == AWAY_EPOCH:
            return

        def is_free(partition: Partition) -> bool:
            return group.state.holders.get(partition, member_id) == member_id

        following = reconciled(
            current,
            group.state.target.epoch,
            group.state.target_of(member_id),
            is_free,
            has_released=has_released,
        )
        if following is current:
            return
        self.set_current(member_id, following, turn)
        if (
            session.is_classic
            and following.state == UNREVOKED_PARTITIONS
            and session.owned is not None
            and not following.revoking.keys() & session.owned
        ):
            # It gave all back before it joined.
            self.advance(member_id, turn, has_released=True)
            return
        if (following.epoch, following.assigned) != (current.epoch, current.assigned):
            session.state_changed(next(group.shared.numbers), turn.now_ms)
            group.watch(member_id)
            self._changed[member_id] = None

    def set_current(self, member_id: str, value: CurrentValue, turn: Turn) -> None:
        """Write what a member has. Members that wait for what it has no more may have it."""
        state = self.group.state
        old = state.current_of(member_id)
        turn.write(state, CurrentKey(state.group_id, member_id), value)
        kept = value.assigned.keys() | value.revoking.keys()
        self.freed(one for one in (*old.assigned, *old.revoking) if one not in kept)

    def freed(self, partitions: Iterable[Partition]) -> None:
        owners = self.group.state.owners
        for partition in partitions:
            owner = owners.get(partition)
            if owner is not None:
                self._to_check[owner] = None

    # What members are told.

    def push(self, turn: Turn, asked: str | None, asker: str | None) -> None:
        """Push the states that changed, and the task to the member that is asked for a proposal.

        `asker`: the member that gets its state as the answer.
        """
        if asked in self.group.sessions and not self.group.sessions[asked].is_task_sent:
            self._changed[asked] = None
        for member_id in self._changed:
            session = self.group.sessions.get(member_id)
            if session is not None and session.has_stream and member_id != asker:
                turn.pushes.append(Push(self.group.id, member_id, self.state_of(member_id)))
        self._changed.clear()

    def state_of(self, member_id: str) -> MemberState:
        """Return what to tell a member now. Its assignment is in it once a stream and change."""
        current, session = self.group.state.current_of(member_id), self.group.sessions[member_id]
        assignment = None if session.sent == session.number else frozenset(current.assigned)
        task = None if session.is_task_sent else session.task
        session.sent = session.number
        session.is_task_sent |= task is not None
        is_waiting = (
            current.state == UNRELEASED_PARTITIONS or current.epoch < self.group.state.epoch
        )
        interval_ms = session.heartbeat_interval_ms(self.interval_ms, is_waiting=is_waiting)
        return MemberState(current.epoch, session.number, interval_ms, assignment, task)

    @property
    def interval_ms(self) -> int:
        return self.group.shared.config.heartbeat_interval_ms
