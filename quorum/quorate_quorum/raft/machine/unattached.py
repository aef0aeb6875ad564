"""The roles of a replica that knows no leader of its epoch, and is no candidate in it."""

from __future__ import annotations

from quorate_quorum.raft.machine.messages import EndEpochRequest
from quorate_quorum.raft.machine.role import Role
from quorate_quorum.raft.machine.state import State
from quorate_quorum.raft.machine.timing import REFUSED_MS
from quorate_quorum.raft.machine.transitions import Transition


class Unattached(Role):
    """Knows no leader of its epoch. The replica may have voted in the epoch."""

    def __init__(self, state: State, timeout_at_ms: int) -> None:
        super().__init__(state)
        #: The time at which this replica begins an election.
        self.timeout_at_ms = timeout_at_ms

    def deadline(self) -> int:
        return self.timeout_at_ms

    def tick(self) -> Transition | None:
        if self.state.now_ms >= self.timeout_at_ms:
            return self._stand("the election timeout passed")
        return None

    def _wait_for_a_leader(self, reason: str) -> Transition | None:
        self._ask_voters_who_leads()
        self.timeout_at_ms = self.state.election_timeout_at()
        return None

    def _succeed(self, request: EndEpochRequest) -> Transition | None:
        """Begin an election if the leader named this replica first.

        Otherwise leave time to the replicas that the leader named before this one.
        """
        successors, state, me = self._successors(request), self.state, self.state.me.id
        if successors[:1] != (me,):
            before_us = successors.index(me) if me in successors else len(successors)
            wait_ms = before_us * REFUSED_MS[1] + state.draw(*REFUSED_MS)
            self.timeout_at_ms = state.now_ms + wait_ms
        return super()._succeed(request)


class Resigned(Unattached):
    """Voted for itself in this epoch, and will not lead in this epoch again.

    This replica's disk may have lost records that the replica wrote as that epoch's leader. A
    second reign in the epoch could put another record at the same (offset, epoch), and logs that
    agree on it would differ (KAFKA-10527).
    """

    def check(self) -> None:
        assert self.state.hard_state.voted_for == self.state.me
