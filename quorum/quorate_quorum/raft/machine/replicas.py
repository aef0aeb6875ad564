"""A leader's knowledge of the other replicas, in the leader's epoch."""

from __future__ import annotations

from quorate_quorum.raft.machine.messages import FetchRequest
from quorate_quorum.raft.machine.progress import Progress
from quorate_quorum.raft.machine.state import State
from quorate_quorum.raft.machine.timing import OBSERVER_SILENCE_FETCH_TIMEOUTS
from quorate_quorum.raft.machine.voters import ReplicaKey, VoterSet, reached_by_majority

OBSERVERS_MAX = 32
#: The progress of a replica that has not fetched in this epoch.
UNKNOWN = Progress()


class Replicas:
    """The progress of every voter, and of at most OBSERVERS_MAX observers.

    A leader counts itself only if it is a voter. A leader that is being removed leads until its
    removal is committed, but does not count in the majority that commits the removal (KAFKA-16531).
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self.known = {voter.key: Progress() for voter in state.ledger.voters.others(state.me)}

    def of(self, replica: ReplicaKey) -> Progress:
        """Return the progress of a replica; UNKNOWN if the replica has not fetched."""
        return self.known.get(replica, UNKNOWN)

    def heard(self, replica: ReplicaKey, endpoint: str) -> Progress | None:
        """Note that a replica fetched. Return its progress; None if too many observers fetch."""
        progress = self.known.get(replica)
        if progress is None:
            voters = self._state.ledger.voters
            self.forget_silent_observers()
            observers = sum(known not in voters for known in self.known)
            if replica not in voters and observers >= OBSERVERS_MAX:
                return None
            progress = self.known[replica] = Progress()
        progress.heard_ms = self._state.now_ms
        progress.is_connected = True
        progress.endpoint = endpoint or progress.endpoint
        return progress

    def note_round(self, progress: Progress, request: FetchRequest) -> None:
        if request.round <= self._state.round:  # ignore a round that the leader never issued
            progress.round = max(progress.round, request.round)

    def forget_silent_observers(self) -> None:
        """Forget silent observers, so that other observers can have their places."""
        state = self._state
        silence_ms = OBSERVER_SILENCE_FETCH_TIMEOUTS * state.timing.fetch_timeout_ms
        for key, progress in list(self.known.items()):
            is_gone = progress.parked is None and progress.heard_ms + silence_ms <= state.now_ms
            if is_gone and key not in state.ledger.voters:
                del self.known[key]

    def is_recent(self, at_ms: int) -> bool:
        """Return whether `at_ms` (-1: never) is within the last fetch timeout."""
        return at_ms >= 0 and at_ms + self._state.timing.fetch_timeout_ms > self._state.now_ms

    def majority_end(self, voters: VoterSet) -> int:
        """Return the offset below which a majority has every record on disk.

        The leader counts with its synced end, like every voter. If records in its page cache
        counted, one power loss could take a committed record.
        """
        me, synced_end = self._state.me, self._state.ledger.synced_end
        keys = [voter.key for voter in voters.voters]
        return reached_by_majority(
            synced_end if key == me else self.of(key).log_end_offset for key in keys
        )

    def majority_round(self, voters: VoterSet) -> int:
        """Return the newest round that a majority has heard; the leader counts as one of them."""
        me, newest = self._state.me, self._state.round
        keys = [voter.key for voter in voters.voters]
        return reached_by_majority(newest if key == me else self.of(key).round for key in keys)

    def check(self) -> None:
        for progress in self.known.values():
            assert progress.log_end_offset <= self._state.ledger.log_end_offset
            assert progress.round <= self._state.round
