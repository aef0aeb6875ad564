"""The messages between replicas: requests and responses, as plain values.

quorate_quorum.raft.driver.wire converts them to protobuf. The contents come from peers, so a role
checks them and refuses wrong ones: bytes from a peer never reach an assert.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from quorate_quorum.raft.machine.ledger import Batch
from quorate_quorum.raft.machine.voters import ReplicaKey
from quorate_quorum.snapshots.file import SnapshotId


class StreamKey(NamedTuple):
    """One fetch stream of one run of a replica. `number` grows within an incarnation."""

    replica: ReplicaKey
    incarnation: bytes
    number: int


@dataclass(frozen=True, slots=True)
class DivergingEpoch:
    """The logs diverge: the leader's newest epoch at or below the follower's, and where it ends."""

    epoch: int
    end_offset: int


class Refusal(Enum):
    """The reason why a request was not carried out."""

    FENCED_EPOCH = "its epoch is older than ours"
    NOT_LEADER = "we do not lead"
    OLD_STREAM = "a newer stream of that replica is known"
    INVALID = "it contradicts what we know"
    OVERLOADED = "too many observers"


@dataclass(frozen=True, slots=True)
class VoteRequest:
    """RequestVote (Raft, 5.2). A pre-vote has the candidate's present epoch."""

    voter: ReplicaKey
    candidate: ReplicaKey
    epoch: int
    last_epoch: int
    log_end_offset: int
    pre_vote: bool
    leadership_transfer: bool = False


@dataclass(frozen=True, slots=True)
class VoteResponse:
    """The answer to a vote or pre-vote request. leader_id is -1 if no leader is known."""

    epoch: int
    leader_id: int
    granted: bool
    leader_directory_id: bytes = b""

    @property
    def leader(self) -> ReplicaKey:
        return ReplicaKey(self.leader_id, self.leader_directory_id)


@dataclass(frozen=True, slots=True)
class BeginEpochRequest:
    """A leader announces its reign to a voter that does not fetch from it."""

    epoch: int
    leader: ReplicaKey
    endpoint: str


@dataclass(frozen=True, slots=True)
class EndEpochRequest:
    """A leader ends its reign, and names its preferred successors, the best first."""

    epoch: int
    leader_id: int
    preferred_successors: tuple[int, ...]
    handed_over_for_silence: bool = False


@dataclass(frozen=True, slots=True)
class EpochResponse:
    """The answer to BeginEpoch or EndEpoch."""

    epoch: int
    leader_id: int
    refusal: Refusal | None = None
    leader_directory_id: bytes = b""

    @property
    def leader(self) -> ReplicaKey:
        return ReplicaKey(self.leader_id, self.leader_directory_id)


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """Acknowledges everything below fetch_offset as synced, and asks for the next records."""

    epoch: int
    fetch_offset: int
    #: The epoch of the record before fetch_offset. It shows the leader whether the logs agree.
    last_fetched_epoch: int
    log_start_offset: int
    #: The high watermark that the follower knows. A leader with a higher one answers at once.
    high_watermark: int
    #: The newest round of this epoch that the follower heard; see rounds.py.
    round: int
    #: Whether the replica's disk may lack records that the replica acknowledged. If so, the replica
    #: gives no votes.
    is_behind: bool = False


@dataclass(frozen=True, slots=True)
class FetchResponse:
    """The answer to a fetch, or an interim response before the answer."""

    epoch: int
    leader_id: int
    #: The fetch_offset of the request.
    base_offset: int
    #: The leader's high watermark; 0 until it has committed a record of its own epoch.
    high_watermark: int = 0
    log_start_offset: int = 0
    round: int = 0
    batches: tuple[Batch, ...] = ()
    diverging: DivergingEpoch | None = None
    refusal: Refusal | None = None
    leader_directory_id: bytes = b""
    #: The snapshot that the follower must install: the leader's log lacks the records that the
    #: follower needs.
    snapshot: SnapshotId | None = None
    #: Whether this response only tells the high watermark. The fetch goes on waiting.
    interim: bool = False

    @property
    def leader(self) -> ReplicaKey:
        return ReplicaKey(self.leader_id, self.leader_directory_id)
