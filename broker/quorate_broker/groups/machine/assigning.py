"""When a group's target assignment is computed, and by whom."""

from __future__ import annotations

from quorate.errors import InvalidAssignmentError
from quorate_broker.groups.assignors.table import CLIENT
from quorate_broker.groups.machine.group import Group
from quorate_broker.groups.machine.target import (
    assigned_by,
    check_proposal,
    chosen_assignor,
    metadata_hash,
    task_of,
    write_target,
)
from quorate_broker.groups.machine.turn import Turn
from quorate_broker.groups.machine.values import Proposal, Task
from quorate_broker.groups.records.keys import GroupKey
from quorate_broker.groups.records.values import GroupValue


class Assigning:
    """Brings the assignment epoch up to the group epoch.

    The first change is assigned at once. Changes that follow it within the assignment interval are
    assigned together, so that 200 members that join do not cost 200 assignments of 200 members. An
    only member never waits: its start would end without a partition.
    """

    def __init__(self, group: Group) -> None:
        self._group = group
        self._last_ms: int | None = None
        #: The member that works on a task for this epoch, and until when it may.
        self.asked: str | None = None
        self._task: Task | None = None
        self._answer_by_ms = 0
        #: The last target was computed before all members with a pattern were heard.
        self.was_partial = False
        #: Until when an assignment by members may be waited for, over all tasks since the last
        #: target: while members come and go, each change makes a new task. None: no task yet.
        self._wait_until_ms: int | None = None

    @property
    def can_see_topics(self) -> bool:
        """Whether all patterns of the group were matched against all topics."""
        subscriptions = self._group.shared.subscriptions
        return all(subscriptions.is_known(view) for view in self._group.views())

    def assign(self, turn: Turn) -> bool:
        """Compute the target if one is needed and may be computed now; return whether it is new."""
        state = self._group.state
        if state.target.epoch >= state.epoch:
            return False
        wait_ms = self._wait_ms(turn.now_ms)
        if wait_ms is not None:
            if wait_ms:
                self._group.shared.timers.at(turn.now_ms + wait_ms, (self._group.id, None))
            return self._begin_empty(turn)
        self._last_ms = turn.now_ms
        task = task_of(self._group)
        name = chosen_assignor(self._group)
        if name == CLIENT and self._ask(task, turn):
            return self._begin_empty(turn)
        self._drop_task()
        self._wait_until_ms = None
        self.was_partial = not self._group.knows_rights
        write_target(self._group, assigned_by(name, task), turn)
        return True

    def _wait_ms(self, now_ms: int) -> int | None:
        """Return how long to wait with the assignment; None: not at all; 0: for other news."""
        if not self.can_see_topics:
            return 0
        if self._task is not None and self._task.group_epoch == self._group.state.epoch:
            is_over = now_ms >= self._answer_by_ms
            return None if is_over else self._answer_by_ms - now_ms
        interval_ms = self._group.shared.config.assignment_interval_ms
        is_alone = len(self._group.state.members) == 1
        if not is_alone and self._last_ms is not None and now_ms < self._last_ms + interval_ms:
            return self._last_ms + interval_ms - now_ms
        return None

    def _begin_empty(self, turn: Turn) -> bool:
        """A group's first target is empty if it has to wait: its members need an epoch."""
        state = self._group.state
        if state.target.epoch:
            return False
        write_target(self._group, {}, turn)
        value = GroupValue(state.epoch + 1, metadata_hash(self._group))
        turn.write(state, GroupKey(state.group_id), value)
        if self._task is not None:
            self._drop_task()
            self._ask(task_of(self._group), turn)
        return True

    # The assignor of the client.

    def _ask(self, task: Task, turn: Turn) -> bool:
        """Ask a member that brought an assignor; return whether there is one."""
        if self._task is not None and self._task.group_epoch == task.group_epoch:
            return False
        self._drop_task()
        if self._wait_until_ms is None:
            timeout_ms = self._group.shared.config.proposal_timeout_ms
            self._wait_until_ms = turn.now_ms + timeout_ms
        elif turn.now_ms >= self._wait_until_ms:
            return False
        members, sessions = self._group.state.members, self._group.sessions
        able = [
            one for one in members if members[one].assignor == CLIENT and sessions[one].has_stream
        ]
        if not able:
            return False
        self.asked, self._task = min(able), task
        session = sessions[self.asked]
        session.task, session.is_task_sent = task, False
        self._answer_by_ms = self._wait_until_ms
        self._group.shared.timers.at(self._answer_by_ms, (self._group.id, None))
        return True

    def _drop_task(self) -> None:
        session = self._group.sessions.get(self.asked or "")
        if session is not None:
            session.task = None
        self.asked, self._task = None, None

    def take(self, member_id: str, proposal: Proposal, turn: Turn) -> bool:
        """Take a member's proposal; return whether it is the target now.

        A proposal for an older epoch came too late and is passed over. InvalidAssignmentError: the
        proposal is nonsense. The group goes on with the default assignor.
        """
        task, state = self._task, self._group.state
        if task is None or member_id != self.asked or proposal.group_epoch != task.group_epoch:
            return False
        if task.group_epoch != state.epoch:
            return False
        try:
            check_proposal(proposal, task)
        except InvalidAssignmentError:
            self._answer_by_ms = turn.now_ms
            raise
        self._drop_task()
        self._wait_until_ms = None
        write_target(self._group, proposal.partitions, turn)
        return True
