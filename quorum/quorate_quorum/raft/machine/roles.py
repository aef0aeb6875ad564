"""The six roles of a voter: one class each, made at the transition, dropped at the next.

A field lives where it has a meaning: only a leader has progress, only a candidate has votes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from quorate_quorum.raft.machine.messages import ReplicaKey
from quorate_quorum.raft.machine.progress import Progress
from quorate_quorum.raft.machine.voters import VoterSet, reached_by_majority
from quorate_quorum.snapshots.snapshot_file import SnapshotId


@dataclass(slots=True)
class Unattached:
    """Knows no leader of its epoch; it may have voted in it."""

    deadline_ms: int


@dataclass(slots=True)
class Resigned:
    """Voted for itself in this epoch, and will not lead in it (any more): law 5.

    What it wrote as that epoch's leader may be lost from its disk, so a second reign in the same
    epoch could give one (offset, epoch) to two records (KAFKA-10527).
    """

    deadline_ms: int


@dataclass(slots=True)
class Prospective:
    """Asks whether it would be elected, before it disturbs anybody with a new epoch (KIP-996)."""

    attempt: int
    deadline_ms: int
    granted: list[ReplicaKey]


@dataclass(slots=True)
class Candidate:
    """Stands in its epoch. Its own vote is in `granted` only once it is on disk."""

    attempt: int
    deadline_ms: int
    granted: list[ReplicaKey]
    handed_over_for_silence: bool = False
    is_transfer: bool = False


@dataclass(slots=True)
class Follower:
    """Fetches from the leader of its epoch."""

    leader: ReplicaKey
    endpoint: str
    session: int
    deadline_ms: int
    #: The leader answered on this unbroken stream: pre-votes are denied until then.
    fresh_until_ms: int = -1
    #: A request is under way; the next one waits for its answer.
    is_waiting: bool = False
    #: When to repeat the last synced offset while a sync is slow, or ask again.
    repeat_at_ms: int = -1
    has_reconnected: bool = False
    round: int = 0
    #: The first high watermark that it told while our log was as its own; 0: none yet.
    catch_up_to: int = 0
    #: The snapshot that the leader named instead of what we asked for; it is being downloaded.
    install: SnapshotId | None = None


@dataclass(frozen=True, slots=True)
class Transfer:
    """The leader is to give its place to that voter, once it holds all that the leader does."""

    to: ReplicaKey
    deadline_ms: int


@dataclass(slots=True)
class Leader:
    """The reign of this node over one epoch; it lives exactly as long as the reign."""

    epoch: int
    #: The first offset of this epoch. Nothing is committed until the record *at* it is, or a
    #: committed record could be lost (Raft, 5.4.2; off by one in KAFKA-12619).
    epoch_start_offset: int
    #: Round whose echo by a majority proves that it heard us after check_since_ms.
    check_round: int
    check_since_ms: int
    #: When a majority was last known to hear us: the issue of the newest round it echoed.
    heard_ms: int
    #: Fetches that have not heard of this round are answered at once.
    urgent_round: int = 0
    announce_at_ms: int = -1
    handed_over_for_silence: bool = False
    replicas: dict[ReplicaKey, Progress] = field(default_factory=dict)
    #: Reads that wait for their round, oldest first.
    reads: list[int] = field(default_factory=list)
    #: (end offset, bytes) of proposals that are not committed.
    uncommitted: list[tuple[int, int]] = field(default_factory=list)
    uncommitted_bytes: int = 0
    #: While it is under way nothing is proposed, or its successor might never catch up.
    transfer: Transfer | None = None
    #: Our own removal is committed; we resign once those who asked for it have been told.
    is_leaving: bool = False

    def majority_end(self, voters: VoterSet, me: ReplicaKey, synced_end: int) -> int:
        """Return the offset below which a majority has every record on disk."""
        return reached_by_majority(self._of(key, me, synced_end)[0] for key in _keys(voters))

    def majority_round(self, voters: VoterSet, me: ReplicaKey, round_now: int) -> int:
        """Return the newest round that a majority has heard; we hear ourselves at once."""
        return reached_by_majority(self._of(key, me, 0, round_now)[1] for key in _keys(voters))

    def _of(self, key: ReplicaKey, me: ReplicaKey, end: int, round_now: int = 0) -> tuple[int, int]:
        if key == me:
            return end, round_now
        progress = self.replicas.get(key)
        return (progress.log_end_offset, progress.round) if progress else (0, 0)


def _keys(voters: VoterSet) -> list[ReplicaKey]:
    return [ReplicaKey(voter.id, voter.directory_id) for voter in voters.voters]


Role = Unattached | Resigned | Prospective | Candidate | Follower | Leader
