"""The two roles of a replica that wants to lead: it asks for pre-votes, then for votes."""

from __future__ import annotations

from abc import abstractmethod

from quorate_quorum.raft.machine.events import Event, HardStateSaved, VoteAnswered, VoteRequested
from quorate_quorum.raft.machine.messages import EndEpochRequest, VoteRequest
from quorate_quorum.raft.machine.ready import Call
from quorate_quorum.raft.machine.role import Role
from quorate_quorum.raft.machine.state import State
from quorate_quorum.raft.machine.transitions import ToLeader, ToUnattached, Transition
from quorate_quorum.raft.machine.voters import ReplicaKey


class _Election(Role):
    """What both roles share: an attempt, the votes granted to it, and a timeout."""

    def __init__(self, state: State) -> None:
        super().__init__(state)
        state.attempts += 1
        self.attempt = state.attempts
        self.timeout_at_ms = state.election_timeout_at()
        self.granted: list[ReplicaKey] = []

    def deadline(self) -> int:
        return self.timeout_at_ms

    def tick(self) -> Transition | None:
        if self.state.now_ms >= self.timeout_at_ms:
            return self._stand("the election timeout passed")
        return None

    def check(self) -> None:
        # If such a replica were elected, its log could lack records that its disk had acknowledged.
        assert not self.state.hard_state.is_behind

    def step(self, event: Event) -> Transition | None:
        if isinstance(event, VoteAnswered) and event.response.epoch <= self.state.epoch:
            return self._vote_answered(event)
        return super().step(event)

    def _vote_requested(self, event: VoteRequested) -> Transition | None:
        """End the election if the request shows that this disk may have lost records."""
        to = super()._vote_requested(event)
        if to is None and self.state.hard_state.is_behind:
            return ToUnattached(self.state.epoch, "it holds less than the quorum's history")
        return to

    def _vote_answered(self, event: VoteAnswered) -> Transition | None:
        # A vote for an earlier attempt does not count: the voter may have a newer epoch or a newer
        # log since then.
        if event.attempt != self.attempt or event.voter not in self.state.ledger.voters:
            return None
        if event.response.granted:
            return self._count(event.voter)
        return self._denied(event)

    def _denied(self, event: VoteAnswered) -> Transition | None:
        return None

    def _count(self, voter: ReplicaKey) -> Transition | None:
        """Count a vote of a voter; it may be this replica's own. Ignore other replicas' votes."""
        if voter not in self.granted:
            self.granted.append(voter)
        voters = self.state.ledger.voters
        if sum(one in voters for one in self.granted) < voters.majority:
            return None
        return self._won()

    @abstractmethod
    def _won(self) -> Transition | None:
        """Return the transition after a majority has voted for this replica."""

    def _ask_for_votes(self, *, pre_vote: bool, is_transfer: bool = False) -> None:
        state = self.state
        for voter in state.ledger.voters.others(state.me):
            request = VoteRequest(
                voter.key,
                state.me,
                state.epoch,
                state.ledger.last_epoch,
                state.ledger.log_end_offset,
                pre_vote,
                is_transfer,
            )
            state.send(Call(voter, request, self.attempt))


class Prospective(_Election):
    """Asks, before it raises its epoch, whether a majority would vote for it (pre-vote, KIP-996).

    Without pre-votes, a voter that was cut off would come back with a higher epoch, and end the
    reign of a leader that all others hear (Raft dissertation, 9.6).
    """

    def __init__(self, state: State) -> None:
        super().__init__(state)
        self.granted.append(state.me)

    def begin(self) -> None:
        self._ask_for_votes(pre_vote=True)
        self.state.ask_for_leader()

    def _denied(self, event: VoteAnswered) -> Transition | None:
        """Follow the leader that a denying voter names, if it names one."""
        voter = self.state.ledger.voters.of_key(event.voter)
        if voter is None or event.response.epoch != self.state.epoch:
            return None
        return self._hint(event.response.leader, voter.endpoint)

    def _won(self) -> Transition | None:
        return self._raise_epoch("a majority would vote")


class Candidate(_Election):
    """Asks for votes in its epoch. Its own vote is in `granted` only after the vote is on disk.

    If the vote counted before it is on disk, the candidate could crash, and then vote for another
    candidate in the same epoch.
    """

    def __init__(self, state: State, *, is_transfer: bool, for_silence: bool) -> None:
        super().__init__(state)
        self._is_transfer = is_transfer
        self._for_silence = for_silence
        if for_silence:
            # Remember the silence for the next attempt, if this one fails.
            state.silenced_epoch = state.epoch

    def begin(self) -> None:
        self._ask_for_votes(pre_vote=False, is_transfer=self._is_transfer)

    def step(self, event: Event) -> Transition | None:
        if isinstance(event, HardStateSaved) and self.state.is_saved:
            return self._count(self.state.me)
        return super().step(event)

    def check(self) -> None:
        super().check()
        assert self.state.hard_state.voted_for == self.state.me

    def _won(self) -> Transition | None:
        if self.state.me not in self.granted:
            return None
        return ToLeader(self._for_silence)

    def _succeed(self, request: EndEpochRequest) -> Transition | None:
        return None  # nothing to do: a candidate asks for votes already
