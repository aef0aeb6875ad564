"""The events of the Raft machine: the values that `Raft.step` takes."""

from __future__ import annotations

from dataclasses import dataclass

from quorate_quorum.raft.machine.ledger import Below
from quorate_quorum.raft.machine.messages import (
    BeginEpochRequest,
    EndEpochRequest,
    EpochResponse,
    FetchRequest,
    FetchResponse,
    StreamKey,
    VoteRequest,
    VoteResponse,
)
from quorate_quorum.raft.machine.voters import ReplicaKey
from quorate_quorum.snapshots.file import SnapshotId


@dataclass(frozen=True, slots=True)
class VoteRequested:
    """A candidate asks this replica for its vote."""

    request: VoteRequest
    caller: int  # the number of the request; the Reply has the same number


@dataclass(frozen=True, slots=True)
class BeginEpochRequested:
    """A leader announces itself to this replica."""

    request: BeginEpochRequest
    caller: int


@dataclass(frozen=True, slots=True)
class EndEpochRequested:
    """A leader tells this replica that it ends its reign."""

    request: EndEpochRequest
    caller: int


@dataclass(frozen=True, slots=True)
class VoteAnswered:
    """A voter answered the vote request of this attempt."""

    voter: ReplicaKey
    attempt: int
    response: VoteResponse


@dataclass(frozen=True, slots=True)
class EpochAnswered:
    """A voter answered this replica's BeginEpoch or EndEpoch."""

    voter: ReplicaKey
    response: EpochResponse


@dataclass(frozen=True, slots=True)
class LeaderFound:
    """A node answered that it follows this leader in this epoch, or is this leader itself."""

    epoch: int
    leader: ReplicaKey
    endpoint: str


@dataclass(frozen=True, slots=True)
class FetchReceived:
    """Another replica sent a fetch to this replica."""

    stream: StreamKey
    request: FetchRequest
    caller: int
    endpoint: str = ""  # as the fetching replica told it; "": not told


@dataclass(frozen=True, slots=True)
class FetchAbandoned:
    """The fetch stream of a replica has ended. A fetch on it may still wait for its answer."""

    stream: StreamKey


@dataclass(frozen=True, slots=True)
class FetchAnswered:
    """The leader answered on this replica's fetch stream of this session."""

    session: int
    response: FetchResponse


@dataclass(frozen=True, slots=True)
class FetchBroken:
    """The fetch stream of this session, from this replica to the leader, has broken."""

    session: int
    refused: bool  # no process listens at the leader's endpoint


@dataclass(frozen=True, slots=True)
class HardStateSaved:
    """The hard state of this version, and of all versions before it, is on disk."""

    version: int


@dataclass(frozen=True, slots=True)
class Written:
    """All records below end_offset are in the page cache and can be read."""

    end_offset: int
    truncations: int


@dataclass(frozen=True, slots=True)
class Saved:
    """All records below end_offset are synced. Ignored if log or epoch changed since the save."""

    epoch: int
    end_offset: int
    truncations: int


@dataclass(frozen=True, slots=True)
class Applied:
    """All records below Ready.wants_applied have been passed to the RaftListener."""


@dataclass(frozen=True, slots=True)
class Downloaded:
    """The snapshot of the present or an earlier Ready.install is whole and durable on this disk."""

    below: Below


@dataclass(frozen=True, slots=True)
class SnapshotTaken:
    """The node has taken a snapshot of its applied records. It is whole and durable."""

    snapshot: SnapshotId


@dataclass(frozen=True, slots=True)
class LogCut:
    """The log now begins at log_start_offset. The records below it are in a snapshot."""

    log_start_offset: int


Event = (
    Applied
    | VoteRequested
    | BeginEpochRequested
    | EndEpochRequested
    | VoteAnswered
    | EpochAnswered
    | LeaderFound
    | FetchReceived
    | FetchAbandoned
    | FetchAnswered
    | FetchBroken
    | HardStateSaved
    | Written
    | Saved
    | Downloaded
    | SnapshotTaken
    | LogCut
)
