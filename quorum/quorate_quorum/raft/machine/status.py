"""What one voter can tell of the quorum: for DescribeQuorum, and who looks for the leader."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quorate_quorum.raft.machine import elections
from quorate_quorum.raft.machine.messages import (
    LeaderFound,
    QuorumStatus,
    ReplicaKey,
    ReplicaStatus,
)
from quorate_quorum.raft.machine.progress import Progress
from quorate_quorum.raft.machine.roles import Leader

if TYPE_CHECKING:
    from quorate_quorum.raft.machine.raft import Raft


def quorum_status(raft: Raft) -> QuorumStatus:
    """Return leader, epoch and replicas; of other replicas' progress only a leader knows."""
    replicas = raft.role.replicas if isinstance(raft.role, Leader) else {}
    voters = raft.ledger.voters.voters
    keys = [ReplicaKey(voter.id, voter.directory_id) for voter in voters]
    return QuorumStatus(
        raft.leader_id,
        raft.epoch,
        raft.high_watermark,
        tuple(
            _status_of(raft, key, v.endpoint, replicas) for key, v in zip(keys, voters, strict=True)
        ),
        tuple(
            _status_of(raft, key, progress.endpoint, replicas)
            for key, progress in replicas.items()
            if key not in keys
        ),
    )


def leader_heard(raft: Raft) -> LeaderFound | None:
    """Return the leader to tell those who look for it; None unless it is heard now.

    What was true a while ago would send them to a leader that is gone.
    """
    if not elections.hears_a_leader(raft):
        return None
    return LeaderFound(raft.epoch, raft.leader, raft.leader_endpoint)


def _status_of(
    raft: Raft, key: ReplicaKey, endpoint: str, replicas: dict[ReplicaKey, Progress]
) -> ReplicaStatus:
    end = raft.ledger.log_end_offset
    if key == raft.me and isinstance(raft.role, Leader):
        return ReplicaStatus(key.id, key.directory_id, endpoint, end, 0, raft.now_ms, True, True)
    if key == raft.me:
        return ReplicaStatus(key.id, key.directory_id, endpoint, end, 0, -1, False, False)
    progress = replicas.get(key, Progress(log_end_offset=-1))
    its_end, caught_up_ms = progress.log_end_offset, progress.last_caught_up_ms
    heard = progress.is_connected and _is_recent(raft, progress.heard_ms)
    return ReplicaStatus(
        key.id,
        key.directory_id,
        endpoint,
        its_end,
        end - its_end if its_end >= 0 else -1,
        caught_up_ms,
        heard,
        heard and _is_recent(raft, caught_up_ms),
    )


def _is_recent(raft: Raft, at_ms: int) -> bool:
    """Return whether something that happened then lies within a fetch timeout."""
    return at_ms >= 0 and at_ms + raft.timing.fetch_timeout_ms > raft.now_ms
