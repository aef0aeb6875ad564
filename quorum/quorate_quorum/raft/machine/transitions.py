"""The transitions between roles. A role returns one when it ends; raft.py carries it out.

unattached   knows no leader of its epoch
prospective  asks whether it would be elected, before it raises its epoch
candidate    asks for votes in a new epoch
leader       leads until its epoch ends
resigned     led or was a candidate in its epoch, and waits for the election of another voter
follower     fetches from the leader of its epoch
"""

from __future__ import annotations

from dataclasses import dataclass

from quorate_quorum.raft.machine.events import Event
from quorate_quorum.raft.machine.ready import Call
from quorate_quorum.raft.machine.voters import ReplicaKey


@dataclass(frozen=True, slots=True)
class ToFollower:
    """Fetch from the leader of this epoch."""

    leader: ReplicaKey
    endpoint: str
    reason: str


@dataclass(frozen=True, slots=True)
class ToUnattached:
    """Be without a leader in `epoch`, which is the present or a newer one."""

    epoch: int
    reason: str
    #: The transition after this one, to follow the epoch's leader; None unless the peer named a
    #: known voter.
    follow: ToFollower | None = None
    #: The request that made this replica enter the epoch. The new role answers it.
    event: Event | None = None


@dataclass(frozen=True, slots=True)
class ToProspective:
    """Ask the voters for pre-votes."""

    reason: str


@dataclass(frozen=True, slots=True)
class ToCandidate:
    """Raise the epoch by one, and vote for this replica in it."""

    reason: str
    #: Whether a leader handed over to this replica. If so, even voters that hear that leader give
    #: their votes.
    is_transfer: bool = False
    for_silence: bool = False


@dataclass(frozen=True, slots=True)
class ToLeader:
    """Lead in this epoch, because this replica was elected."""

    handed_over_for_silence: bool
    reason: str = "elected"


@dataclass(frozen=True, slots=True)
class ToResigned:
    """End this replica's reign, and wait for another voter to begin an election."""

    reason: str
    #: Messages to the other voters, sent after the resignation.
    farewell: tuple[Call, ...] = ()


Transition = ToFollower | ToUnattached | ToProspective | ToCandidate | ToLeader | ToResigned
