"""The effects of the Raft machine: the value that `Raft.ready` returns.

The driver carries a Ready out in order: hard state, saves, then messages. A message is put into a
Ready only after the epoch and vote in the message are on disk.
"""

from __future__ import annotations

from dataclasses import dataclass

from quorate_quorum.raft.machine.hard_state import HardState
from quorate_quorum.raft.machine.ledger import Batch
from quorate_quorum.raft.machine.messages import (
    BeginEpochRequest,
    EndEpochRequest,
    EpochResponse,
    FetchRequest,
    FetchResponse,
    VoteRequest,
    VoteResponse,
)
from quorate_quorum.raft.machine.voters import Voter
from quorate_quorum.snapshots.file import SnapshotId


@dataclass(frozen=True, slots=True)
class Call:
    """Send a request to a voter. Its answer comes back as an event; a failure gives no event."""

    to: Voter
    request: VoteRequest | BeginEpochRequest | EndEpochRequest
    attempt: int = 0

    @property
    def epoch(self) -> int:
        return self.request.epoch


@dataclass(frozen=True, slots=True)
class Fetch:
    """Send a fetch on the fetch stream of this session. Open the stream if the session is new."""

    session: int
    endpoint: str
    request: FetchRequest

    @property
    def epoch(self) -> int:
        return self.request.epoch


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer the unary request with the number `caller`."""

    caller: int
    response: VoteResponse | EpochResponse


@dataclass(frozen=True, slots=True)
class FetchReply:
    """Answer a fetch. If `end` is above the base offset, add the batches between them."""

    caller: int
    response: FetchResponse
    end: int = 0
    truncations: int = 0


@dataclass(frozen=True, slots=True)
class FindLeader:
    """Ask the node at `endpoint` for its leader. After an answer, pass LeaderFound to `step`."""

    endpoint: str


Message = Call | Fetch | Reply | FetchReply | FindLeader


@dataclass(frozen=True, slots=True)
class Save:
    """Empty or cut the log, if a field says so; then append the batches; then sync.

    The first three fields come back in the events Written and Saved.
    """

    epoch: int
    end_offset: int
    truncations: int
    truncate_to: int | None = None
    batches: tuple[Batch, ...] = ()
    #: If set: remove every record. The next record gets this offset.
    begin_at: int | None = None


@dataclass(frozen=True, slots=True)
class RoleChange:
    """A change of role, for the log line and for RaftListener.leader_known."""

    role: str
    epoch: int
    leader_id: int
    endpoint: str
    reason: str


@dataclass(frozen=True, slots=True)
class Reign:
    """A reign of this replica. Tell the RaftListener when all records below `since` are applied."""

    epoch: int
    since: int
    handed_over_for_silence: bool


@dataclass(frozen=True, slots=True)
class Install:
    """Download this snapshot from the leader of this epoch, then pass Downloaded to `step`.

    Bytes that an earlier leader sent are kept, because a snapshot's file is the same on every
    voter.
    """

    snapshot: SnapshotId
    epoch: int
    endpoint: str


@dataclass(frozen=True, slots=True)
class Ready:
    """The effects that the machine wants. A field that is None or empty asks for nothing."""

    role_changes: tuple[RoleChange, ...] = ()
    lost_epoch: int | None = None  # the epoch of a reign of this replica that has ended
    reign: Reign | None = None
    hard_state: HardState | None = None
    hard_state_version: int = 0
    save: Save | None = None
    messages: tuple[Message, ...] = ()
    session: int = 0  # the only fetch session that may stay open; 0: none
    readable_end: int = 0  # records below this offset are committed and written: apply them
    confirmed_reads: tuple[tuple[int, int], ...] = ()  # (read, high watermark to apply first)
    transfers_given_up: tuple[tuple[int, str], ...] = ()  # (named voter, why it does not lead)
    fatal: str | None = None
    #: Pass Applied to `step` once all records below this offset went to the RaftListener.
    wants_applied: int | None = None
    install: Install | None = None  # the only download that may go on; None: none
