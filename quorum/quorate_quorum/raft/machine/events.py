"""What can happen to the Raft machine: the values that `Raft.step` takes."""

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
    """A candidate asks us."""

    request: VoteRequest
    caller: int  # where the Reply goes


@dataclass(frozen=True, slots=True)
class BeginEpochRequested:
    """A leader announces itself to us."""

    request: BeginEpochRequest
    caller: int


@dataclass(frozen=True, slots=True)
class EndEpochRequested:
    """A leader takes its leave of us."""

    request: EndEpochRequest
    caller: int


@dataclass(frozen=True, slots=True)
class VoteAnswered:
    """The answer to the Call of that attempt."""

    voter: ReplicaKey
    attempt: int
    response: VoteResponse


@dataclass(frozen=True, slots=True)
class EpochAnswered:
    """A voter answered our BeginEpoch or EndEpoch."""

    voter: ReplicaKey
    response: EpochResponse


@dataclass(frozen=True, slots=True)
class LeaderFound:
    """A node that we asked hears this leader of that epoch, or is it."""

    epoch: int
    leader: ReplicaKey
    endpoint: str


@dataclass(frozen=True, slots=True)
class FetchReceived:
    """A replica fetches from us."""

    stream: StreamKey
    request: FetchRequest
    caller: int
    endpoint: str = ""  # where the replica says that it listens


@dataclass(frozen=True, slots=True)
class FetchAbandoned:
    """The stream of a fetch that we have not answered yet is gone."""

    stream: StreamKey


@dataclass(frozen=True, slots=True)
class FetchAnswered:
    """The answer on our own fetch stream of that session."""

    session: int
    response: FetchResponse


@dataclass(frozen=True, slots=True)
class FetchBroken:
    """Our own fetch stream of that session is gone."""

    session: int
    refused: bool  # no process listens there


@dataclass(frozen=True, slots=True)
class HardStateSaved:
    """The hard state of that version, and all before it, is on disk."""

    version: int


@dataclass(frozen=True, slots=True)
class Written:
    """All below end_offset is in the page cache and may be read."""

    end_offset: int
    truncations: int


@dataclass(frozen=True, slots=True)
class Saved:
    """All below end_offset is synced; ignored if the log was cut or the epoch changed since."""

    epoch: int
    end_offset: int
    truncations: int


@dataclass(frozen=True, slots=True)
class Applied:
    """All below the Ready.wants_applied that was asked for has been passed to the listener."""


@dataclass(frozen=True, slots=True)
class Downloaded:
    """The snapshot of Ready.install, or of an earlier one, is whole and durable on our disk."""

    below: Below


@dataclass(frozen=True, slots=True)
class SnapshotTaken:
    """The node has taken a snapshot of what it applied; it is whole and durable."""

    snapshot: SnapshotId


@dataclass(frozen=True, slots=True)
class LogCut:
    """The log begins there now: what lay below is in a snapshot."""

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
