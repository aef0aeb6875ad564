"""The effects of the Raft machine: the value that `Raft.ready` returns.

The driver carries a Ready out in order: hard state, saves, then messages. A message is in a Ready
only when the epoch and the vote that it tells are on disk.
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
    """Send this on the fetch stream of that session. Open the stream if the session is new."""

    session: int
    endpoint: str
    request: FetchRequest

    @property
    def epoch(self) -> int:
        return self.request.epoch


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer a unary request."""

    caller: int
    response: VoteResponse | EpochResponse


@dataclass(frozen=True, slots=True)
class FetchReply:
    """Answer a fetch. If `end` is above the base offset, add the batches up to `end`."""

    caller: int
    response: FetchResponse
    end: int = 0
    truncations: int = 0


@dataclass(frozen=True, slots=True)
class FindLeader:
    """Ask the node at `endpoint` for the leader. If it hears one, step LeaderFound."""

    endpoint: str


Message = Call | Fetch | Reply | FetchReply | FindLeader


@dataclass(frozen=True, slots=True)
class Save:
    """Cut the log or let it begin anew, if asked; append; sync.

    The events Written and Saved return the first three fields.
    """

    epoch: int
    end_offset: int
    truncations: int
    truncate_to: int | None = None
    batches: tuple[Batch, ...] = ()
    #: If set: remove every record. The next one has this offset.
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
    """A reign of this replica. Tell the listener when everything below `since` is applied."""

    epoch: int
    since: int
    handed_over_for_silence: bool


@dataclass(frozen=True, slots=True)
class Install:
    """Download this snapshot from the leader of the epoch, then step Downloaded.

    Chunks of it from an earlier leader are good: every voter's file is the same.
    """

    snapshot: SnapshotId
    epoch: int
    endpoint: str


@dataclass(frozen=True, slots=True)
class Ready:
    """The effects that the machine wants. Fields that are None or empty ask for nothing."""

    role_changes: tuple[RoleChange, ...] = ()
    lost_epoch: int | None = None  # the reign that ended
    reign: Reign | None = None
    hard_state: HardState | None = None
    hard_state_version: int = 0
    save: Save | None = None
    messages: tuple[Message, ...] = ()
    session: int = 0  # the only fetch session that may stay open; 0: none
    readable_end: int = 0  # committed and written: apply up to here
    confirmed_reads: tuple[tuple[int, int], ...] = ()  # (read, high watermark to wait for)
    transfers_given_up: tuple[tuple[int, str], ...] = ()  # (named voter, why it does not lead)
    fatal: str | None = None
    #: Step Applied once all records below it have been passed to the listener.
    wants_applied: int | None = None
    install: Install | None = None  # the only download that may go on; None: none
