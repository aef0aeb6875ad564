"""Classic members of a group at a coordinator's machine, which talk to it by hand."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

from quorate.errors import QuorateError
from quorate_broker.groups.machine.classic.values import (
    Joined,
    JoinGroup,
    LeaveGroup,
    Leaving,
    MemberIdRequired,
    MemberRequest,
    Synced,
    SyncGroup,
)
from quorate_broker.groups.machine.values import PARKED, Step
from tests.harness.group_desk import GROUP, Desk


class ClassicDesk(Desk):
    """A desk that remembers the answers of calls that a later step answers."""

    def __init__(self, topics: Mapping[str, int] | None = None, **config: Any) -> None:
        self.replies: dict[int, object] = {}
        self.tickets = count(1)
        super().__init__(topics or {"orders": 4}, **config)

    def take(self, step: Step[Any]) -> Any:
        """Commit a step, keep what it replies, and return or raise its answer."""
        self.replies.update(step.replies)
        return super().take(step)

    def classic(self, name: str, **fields: Any) -> ClassicMember:
        """Return a program that has not joined yet."""
        return ClassicMember(self, name, **fields)

    def stable(self, *members: ClassicMember) -> None:
        """Let members come to a stable generation together."""
        for one in members:
            one.join()
        self.run(2 * self.config.initial_rebalance_delay_ms)
        for one in members:
            one.take_join()
        for one in members:
            one.sync()
        for one in members:
            one.take_sync()

    def phase(self, group_id: str = GROUP) -> str:
        """Return the group's state, or "none"."""
        listed = {one.group_id: one for one in self.machine.list_groups().answer}  # type: ignore[union-attr]
        return listed[group_id].state if group_id in listed else "none"


class ClassicMember:
    """A program with a classic member: it joins, syncs and sends heartbeats when it is told."""

    def __init__(
        self,
        desk: ClassicDesk,
        name: str,
        *,
        instance_id: str | None = None,
        protocols: tuple[tuple[str, bytes], ...] | None = None,
        protocol_type: str = "consumer",
        session_timeout_ms: int = 10_000,
        rebalance_timeout_ms: int = 60_000,
        is_id_required: bool = False,
        can_skip_assignment: bool = True,
        group_id: str = GROUP,
    ) -> None:
        self.desk, self.name, self.instance_id = desk, name, instance_id
        self.protocols = protocols or (("range", name.encode()),)
        self.protocol_type, self.group_id = protocol_type, group_id
        self.session_timeout_ms = session_timeout_ms
        self.rebalance_timeout_ms = rebalance_timeout_ms
        self.is_id_required, self.can_skip_assignment = is_id_required, can_skip_assignment
        self.id = ""
        self.generation = -1
        self.answer: Joined | None = None
        self.assignment: bytes | None = None
        self._join: int | None = None
        self._sync: int | None = None
        self._ids = count(1)

    @property
    def leads(self) -> bool:
        return self.answer is not None and self.answer.leader == self.id

    @property
    def waits(self) -> bool:
        """Whether its last call waits for an answer."""
        ticket = self._sync if self._sync is not None else self._join
        return ticket is not None and ticket not in self.desk.replies

    @property
    def is_joining(self) -> bool:
        return self._join is not None

    @property
    def is_syncing(self) -> bool:
        return self._sync is not None

    def forget_call(self) -> None:
        """The connection broke: its calls get no answer. Join anew."""
        self._join = self._sync = self.answer = None

    def request(self) -> JoinGroup:
        return JoinGroup(
            self.group_id,
            self.id,
            f"{self.name}-{next(self._ids)}",
            self.instance_id,
            f"client-{self.name}",
            "10.0.0.1",
            self.session_timeout_ms,
            self.rebalance_timeout_ms,
            self.protocol_type,
            self.protocols,
            is_id_required=self.is_id_required,
            can_skip_assignment=self.can_skip_assignment,
        )

    def join(self) -> None:
        """Send JoinGroup; a second one if an id is required."""
        d = self.desk
        self._sync, self._join = None, next(d.tickets)
        answer = d.take(d.machine.join_group(self.request(), self._join, d.now_ms, d.wall_ms))
        if isinstance(answer, MemberIdRequired):
            self.id = answer.member_id
            self.join()
        elif answer is not PARKED:
            d.replies[self._join] = answer

    def take_join(self) -> Joined:
        """Take the answer to JoinGroup, which must be there."""
        assert self._join is not None
        answer = self.desk.replies.pop(self._join)
        self._join = None
        if isinstance(answer, QuorateError):
            raise answer
        assert isinstance(answer, Joined)
        self.answer, self.id, self.generation = answer, answer.member_id, answer.generation
        return answer

    def sync(self, assignments: Mapping[str, bytes] | None = None) -> None:
        """Send SyncGroup; the leader assigns to each member its own id by default."""
        d = self.desk
        self._sync = next(d.tickets)
        if assignments is None and self.leads:
            assert self.answer is not None
            assignments = {
                one.member_id: b"of " + one.member_id.encode() for one in self.answer.members
            }
        assert self.answer is not None
        request = SyncGroup(
            self.group_id,
            self.id,
            self.generation,
            self.instance_id,
            self.protocol_type,
            self.answer.protocol,
            assignments or {},
        )
        answer = d.take(d.machine.sync_group(request, self._sync, d.now_ms, d.wall_ms))
        if answer is not PARKED:
            d.replies[self._sync] = answer

    def take_sync(self) -> bytes:
        """Take the answer to SyncGroup, which must be there."""
        assert self._sync is not None
        answer = self.desk.replies.pop(self._sync)
        self._sync = None
        if isinstance(answer, QuorateError):
            raise answer
        assert isinstance(answer, Synced)
        self.assignment = answer.assignment
        return answer.assignment

    def beat(self) -> None:
        """Send a heartbeat."""
        request = MemberRequest(self.group_id, self.id, self.generation, self.instance_id)
        d = self.desk
        d.take(d.machine.classic_heartbeat(request, d.now_ms, d.wall_ms))

    def leave(self) -> None:
        """Leave the group."""
        d = self.desk
        request = LeaveGroup(self.group_id, [Leaving(self.id, self.instance_id)])
        (error,) = d.take(d.machine.leave_group(request, d.now_ms, d.wall_ms))
        if error is not None:
            raise error
