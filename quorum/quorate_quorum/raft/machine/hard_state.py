"""What a voter must never forget: its epoch and its vote, and the bounds of epochs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from quorate_quorum.raft.machine.voters import ReplicaKey

#: Epochs are int32 on the wire. A peer that claims more than this is not believed, so that no
#: request can use up the epochs that the quorum still needs.
EPOCH_MAX = 2**30
#: One message moves our epoch no further: elections alone never leave a voter so far behind.
EPOCH_LEAP_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class HardState:
    """Epoch and vote (Raft, figure 2: persistent state).

    It is on disk before any message speaks of it. A voter that crashed between the two would vote
    again in the same epoch, and the epoch could get two leaders.
    """

    epoch: int = 0
    #: The vote of this epoch, never changed until the next one.
    voted_for: ReplicaKey | None = None
    #: The disk may have been replaced under its old id, and then it lacks records that it
    #: acknowledged. It gives no votes and does not stand until a leader has brought it up.
    is_behind: bool = False
    #: The first epoch in which this disk gave a vote; 0: none yet. Since then it is no replaced
    #: disk: what it does not hold of that epoch and later ones, it never acknowledged.
    first_vote_epoch: int = 0

    def entering(self, epoch: int) -> HardState:
        """Return the state in a newer epoch, in which no vote is given yet."""
        assert epoch > self.epoch, (epoch, self)
        return replace(self, epoch=epoch, voted_for=None)

    def voting_for(self, candidate: ReplicaKey) -> HardState:
        """Return the state with the vote of this epoch given."""
        assert self.voted_for in (None, candidate), "one vote in an epoch, for good"
        first = self.first_vote_epoch or self.epoch
        return replace(self, voted_for=candidate, first_vote_epoch=first)
