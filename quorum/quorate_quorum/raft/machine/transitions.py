"""The ways from one role to the next: what a role returns when it ends, carried out by raft.py.

unattached   knows no leader of its epoch
prospective  asks whether it would be elected, before it raises its epoch
candidate    stands in a new epoch
leader       leads until its epoch ends
resigned     led or stood in its epoch, and waits for another to stand
follower     fetches from the leader of its epoch
"""

from __future__ import annotations

from dataclasses import dataclass

from quorate_quorum.raft.machine.events import Event
from quorate_quorum.raft.machine.ready import Call
from quorate_quorum.raft.machine.voters import ReplicaKey


@dataclass(frozen=True, slots=True)
class ToFollower:
    """Fetch from the leader of our epoch."""

    leader: ReplicaKey
    endpoint: str
    reason: str


@dataclass(frozen=True, slots=True)
class ToUnattached:
    """Enter `epoch`, which is ours or a newer one, without a leader."""

    epoch: int
    reason: str
    #: The way on to the leader of that epoch, if the peer named a voter that we know.
    follow: ToFollower | None = None
    #: The request that told of the epoch: the new role answers it.
    event: Event | None = None


@dataclass(frozen=True, slots=True)
class ToProspective:
    """Ask whether we would be elected."""

    reason: str


@dataclass(frozen=True, slots=True)
class ToCandidate:
    """Raise the epoch by one and vote for ourselves in it."""

    reason: str
    #: A leader handed its place to us: other voters that still hear it vote nevertheless.
    is_transfer: bool = False
    for_silence: bool = False


@dataclass(frozen=True, slots=True)
class ToLeader:
    """Lead in our epoch, which elected us."""

    handed_over_for_silence: bool
    reason: str = "elected"


@dataclass(frozen=True, slots=True)
class ToResigned:
    """End our reign, and wait for another voter to stand."""

    reason: str
    #: Said to the other voters once we have resigned.
    farewell: tuple[Call, ...] = ()


Transition = ToFollower | ToUnattached | ToProspective | ToCandidate | ToLeader | ToResigned
