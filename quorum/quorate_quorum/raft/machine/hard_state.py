"""The hard state: the epoch and the vote, which a voter must never forget. Limits of epochs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from quorate_quorum.raft.machine.voters import ReplicaKey

#: The last epoch. A higher epoch from a peer is ignored: epochs are int32 on the wire, and one
#: wrong request must not use up all epochs.
EPOCH_MAX = 2**30
#: The most by which one message may raise the epoch. By elections alone, no voter falls so far
#: behind.
EPOCH_LEAP_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class HardState:
    """Epoch and vote (Raft, figure 2: persistent state).

    A hard state is on disk before any message with its epoch or vote leaves. Otherwise a voter
    could crash, forget its vote and vote again: the epoch could have two leaders.
    """

    epoch: int = 0
    #: The vote in this epoch. It never changes within the epoch.
    voted_for: ReplicaKey | None = None
    #: Whether the disk may have been replaced under its old id, and lack records that this replica
    #: acknowledged. Such a replica gives no votes and begins no election until it has caught up
    #: with a leader.
    is_behind: bool = False
    #: The first epoch in which this disk gave a vote; 0: none yet. The disk was not replaced since
    #: that vote, so it holds every record that it acknowledged in that epoch or later.
    first_vote_epoch: int = 0

    def entering(self, epoch: int) -> HardState:
        """Return the state in a newer epoch, without a vote."""
        assert epoch > self.epoch, (epoch, self)
        return replace(self, epoch=epoch, voted_for=None)

    def voting_for(self, candidate: ReplicaKey) -> HardState:
        """Return the state with the vote of this epoch given to `candidate`."""
        assert self.voted_for in (None, candidate), "one vote in an epoch, for good"
        first = self.first_vote_epoch or self.epoch
        return replace(self, voted_for=candidate, first_vote_epoch=first)
