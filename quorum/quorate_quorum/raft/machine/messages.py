"""What replicas say to each other: requests and responses, as values and not as bytes.

quorate_quorum.raft.driver.wire turns them into protobuf. Whatever is in one of them came from a
peer: it is checked and refused, and never reaches an assert.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from quorate_quorum.raft.machine.ledger import Batch
from quorate_quorum.raft.machine.voters import ReplicaKey
from quorate_quorum.snapshots.file import SnapshotId


class StreamKey(NamedTuple):
    """One fetch stream of one run of a replica; `number` grows within an incarnation."""

    replica: ReplicaKey
    incarnation: bytes
    number: int


@dataclass(frozen=True, slots=True)
class DivergingEpoch:
    """The follower's past is not ours: where our newest epoch at or below its own ends."""

    epoch: int
    end_offset: int


class Refusal(Enum):
    """Why a request was not carried out."""

    FENCED_EPOCH = "its epoch is older than ours"
    NOT_LEADER = "we do not lead"
    OLD_STREAM = "a newer stream of that replica is known"
    INVALID = "it contradicts what we know"
    OVERLOADED = "too many observers"


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
    #: Epoch of the record before fetch_offset: with it the leader sees whether our pasts agree.
    last_fetched_epoch: int
    log_start_offset: int
    #: What the follower knows of ours: the leader answers at once when there is news.
    high_watermark: int
    #: The newest round that it heard of, in this epoch; see rounds.py.
    round: int
    #: The replica's disk may have forgotten what it acknowledged: it gives no votes yet.
    is_behind: bool = False


@dataclass(frozen=True, slots=True)
class FetchResponse:
    """The answer to a fetch, or news before it."""

    epoch: int
    leader_id: int
    #: The fetch_offset of the request.
    base_offset: int
    #: 0 until the leader has committed a record of its own epoch.
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
