"""The hard state: the epoch and the vote, which a voter must never forget. Bounds of epochs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from quorate_quorum.raft.machine.voters import ReplicaKey

#: The last epoch. Epochs are int32 on the wire. A greater epoch from a peer is ignored, so that no
#: request can use up the epochs that the quorum still needs.
EPOCH_MAX = 2**30
#: The most that one message moves the epoch: elections alone never leave a voter so far behind.
EPOCH_LEAP_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class HardState:
    """Epoch and vote (Raft, figure 2: persistent state).

    It is on disk before any message tells it. Otherwise a voter that crashes in between could vote
    again in the same epoch, and the epoch could have two leaders.
    """

    epoch: int = 0
    #: The vote in this epoch. It never changes within the epoch.
    voted_for: ReplicaKey | None = None
    #: Whether the disk may have been replaced under its old id: then it lacks records that this
    #: replica acknowledged. It gives no votes and does not stand until it has caught up with a
    #: leader.
    is_behind: bool = False
    #: The first epoch in which this disk gave a vote; 0: none yet. The disk was not replaced since:
    #: it never acknowledged a record of that epoch or a later one that it does not hold.
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
