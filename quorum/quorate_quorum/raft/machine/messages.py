"""What goes into the Raft machine and what comes out of it: frozen values, no bytes of the wire.

Peers' messages are requests and responses; events wrap what happened (a request came, a save
ended); Ready is everything that the machine wants done. quorate_quorum.raft.driver.wire turns the
peers' messages into protobuf, quorate_quorum.raft.driver.storage carries out the saves.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from quorate_quorum.raft.machine.voters import Voter, VoterSet
from quorate_quorum.snapshots.snapshot_file import SnapshotId

#: Epochs are int32 on the wire; a peer that claims more than this is not believed, so that no
#: request can use up the epochs that we still need.
EPOCH_MAX = 2**30
#: One message moves our epoch no further: elections alone never leave a voter so far behind.
EPOCH_LEAP_MAX = 1_000_000


class ReplicaKey(NamedTuple):
    """A replica is its id *and* its disk: the same id on another disk has other memories (R33)."""

    id: int
    directory_id: bytes


class StreamKey(NamedTuple):
    """One fetch stream of one run of a replica; number grows within an incarnation."""

    replica: ReplicaKey
    incarnation: bytes
    number: int


@dataclass(frozen=True, slots=True)
class History:
    """Which metadata log a node belongs to."""

    cluster_id: str
    quorum_generation: int
    bootstrap_hash: bytes  # empty: not known yet

    def refusal_of(self, other: History) -> str | None:
        """Return why a peer of the other history is refused; None if it is ours."""
        if other.cluster_id != self.cluster_id:
            return f"cluster id {other.cluster_id!r} is not ours, {self.cluster_id!r}"
        if other.quorum_generation != self.quorum_generation:
            return (
                f"quorum generation {other.quorum_generation} is not ours, {self.quorum_generation}"
            )
        known = self.bootstrap_hash and other.bootstrap_hash
        if known and other.bootstrap_hash != self.bootstrap_hash:
            return (
                f"bootstrap batch {other.bootstrap_hash.hex()[:12]} is not ours,"
                f" {self.bootstrap_hash.hex()[:12]}: the voters were formatted differently"
            )
        return None


@dataclass(frozen=True, slots=True)
class HardState:
    """What a voter must never forget; durable before anything of it is spoken."""

    epoch: int = 0
    voted_for: ReplicaKey | None = None
    #: The disk may have been replaced under its old id: no votes until it has caught up
    #: (DESIGN section 5, "Formatting is explicit").
    is_behind: bool = False
    #: The first epoch in which this disk gave a vote; 0: none yet. Since then it is no replaced
    #: disk: what it does not hold of that epoch and later ones, it never acknowledged.
    first_vote_epoch: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of the metadata log, checked, with what the machine must know of it."""

    base_offset: int
    end_offset: int
    epoch: int
    data: bytes
    voters: VoterSet | None = None  # of the newest Voters event in it
    epoch_start: int | None = None  # the epoch that its EpochStart event begins


class Below(NamedTuple):
    """What the machine must know of a snapshot: it stands for the log below `offset`."""

    offset: int
    epoch: int  # of the record before it
    voters: VoterSet

    @property
    def id(self) -> SnapshotId:
        return SnapshotId(self.offset, self.epoch)


@dataclass(frozen=True, slots=True)
class DivergingEpoch:
    """The follower's past is not ours: our end of the newest epoch at or below its own."""

    epoch: int
    end_offset: int


class Refusal(Enum):
    """Why a request was not carried out."""

    FENCED_EPOCH = "its epoch is older than ours"
    NOT_LEADER = "we do not lead"
    OLD_STREAM = "a newer stream of that replica is known"
    INVALID = "it contradicts what we know"
    OVERLOADED = "too many observers"


# --- between voters -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class VoteRequest:
    """RequestVote (Raft, 5.2); of a pre-vote the epoch is the candidate's present one."""

    voter: ReplicaKey
    candidate: ReplicaKey
    epoch: int
    last_epoch: int
    log_end_offset: int
    pre_vote: bool
    leadership_transfer: bool = False


@dataclass(frozen=True, slots=True)
class VoteResponse:
    """The answer to a vote or pre-vote; leader_id is -1 if not known."""

    epoch: int
    leader_id: int
    granted: bool
    leader_directory_id: bytes = b""

    @property
    def leader(self) -> ReplicaKey:
        return ReplicaKey(self.leader_id, self.leader_directory_id)


@dataclass(frozen=True, slots=True)
class BeginEpochRequest:
    """A new leader says so to the voters that have not fetched from it yet."""

    epoch: int
    leader: ReplicaKey
    endpoint: str


@dataclass(frozen=True, slots=True)
class EndEpochRequest:
    """A leader gives up its reign of its own will."""

    epoch: int
    leader_id: int
    preferred_successors: tuple[int, ...]
    handed_over_for_silence: bool = False


@dataclass(frozen=True, slots=True)
class EpochResponse:
    """The answer to BeginEpoch and EndEpoch."""

    epoch: int
    leader_id: int
    refusal: Refusal | None = None
    leader_directory_id: bytes = b""

    @property
    def leader(self) -> ReplicaKey:
        return ReplicaKey(self.leader_id, self.leader_directory_id)


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """Acknowledges everything below fetch_offset as synced, and asks for what follows."""

    epoch: int
    fetch_offset: int
    last_fetched_epoch: int
    log_start_offset: int
    high_watermark: int
    round: int
    #: The replica's disk may have forgotten what it acknowledged: it gives no votes yet.
    is_behind: bool = False


@dataclass(frozen=True, slots=True)
class FetchResponse:
    """high_watermark is 0 until the leader has committed a record of its own epoch."""

    epoch: int
    leader_id: int
    base_offset: int
    high_watermark: int = 0
    log_start_offset: int = 0
    round: int = 0
    batches: tuple[Batch, ...] = ()
    diverging: DivergingEpoch | None = None
    refusal: Refusal | None = None
    leader_directory_id: bytes = b""
    #: Only by this snapshot can the follower go on: what it needs is not in the log any more.
    snapshot: SnapshotId | None = None
    #: News of the high watermark: the fetch still waits for its answer, and nothing else is told.
    interim: bool = False

    @property
    def leader(self) -> ReplicaKey:
        return ReplicaKey(self.leader_id, self.leader_directory_id)


# --- events: what happened ----------------------------------------------------------------------


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
    refused: bool  # nobody listens there: its process is gone


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
    """All below end_offset is synced; ignored if the log was cut or the epoch changed (R22)."""

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


# --- Ready: what to do --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Call:
    """Send a request to a voter; its answer comes back as an event, its failure does not."""

    to: Voter
    request: VoteRequest | BeginEpochRequest | EndEpochRequest
    attempt: int = 0

    @property
    def epoch(self) -> int:
        return self.request.epoch


@dataclass(frozen=True, slots=True)
class Fetch:
    """Send this on the fetch stream of that session, opening it if it is new."""

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
    """Answer a fetch; if `end` lies above the base offset, with the batches of that range."""

    caller: int
    response: FetchResponse
    end: int = 0
    truncations: int = 0


@dataclass(frozen=True, slots=True)
class FindLeader:
    """Ask the node there who leads; LeaderFound says so, and nothing comes if it does not know."""

    endpoint: str


Message = Call | Fetch | Reply | FetchReply | FindLeader


@dataclass(frozen=True, slots=True)
class Save:
    """Cut the log, or let it begin anew (if asked), append, sync.

    Written and Saved give the first three back.
    """

    epoch: int
    end_offset: int
    truncations: int
    truncate_to: int | None = None
    batches: tuple[Batch, ...] = ()
    #: Drop every record; the next one has this offset.
    begin_at: int | None = None


@dataclass(frozen=True, slots=True)
class RoleChange:
    """For the log line, and for leader_known."""

    role: str
    epoch: int
    leader_id: int
    endpoint: str
    reason: str


@dataclass(frozen=True, slots=True)
class Reign:
    """A reign of ours, to be told of when everything below `since` has been applied."""

    epoch: int
    since: int
    handed_over_for_silence: bool


@dataclass(frozen=True, slots=True)
class Install:
    """Download this snapshot from the leader of the epoch, then step Downloaded.

    What has come of it from an earlier leader is good: every voter's file is the same.
    """

    snapshot: SnapshotId
    epoch: int
    endpoint: str


@dataclass(frozen=True, slots=True)
class Ready:
    """What the machine wants done; parts that are None or empty ask for nothing."""

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
    transfers_given_up: tuple[tuple[int, str], ...] = ()  # (voter that was to lead, why not)
    fatal: str | None = None
    #: Step Applied once all below has been passed to the listener.
    wants_applied: int | None = None
    install: Install | None = None  # the only download that may go on; None: none


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """A voter or observer as the leader sees it; others see ends of -1."""

    id: int
    directory_id: bytes
    endpoint: str
    log_end_offset: int
    lag: int
    last_caught_up_ms: int  # the loop's clock; -1: never
    heard: bool  # within the last fetch timeout, and its stream stands
    caught_up: bool  # heard, and had all within the last fetch timeout


@dataclass(frozen=True, slots=True)
class QuorumStatus:
    """For DescribeQuorum."""

    leader_id: int
    epoch: int
    high_watermark: int
    voters: tuple[ReplicaStatus, ...] = field(default=())
    observers: tuple[ReplicaStatus, ...] = field(default=())
