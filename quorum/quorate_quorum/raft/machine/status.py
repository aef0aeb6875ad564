"""The quorum as one replica sees it, for DescribeQuorum."""

from __future__ import annotations

from dataclasses import dataclass

from quorate_quorum.raft.machine.leader import Leader
from quorate_quorum.raft.machine.progress import Progress
from quorate_quorum.raft.machine.role import Role
from quorate_quorum.raft.machine.voters import ReplicaKey


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """A voter or observer, as the leader sees it. On other replicas the end and lag are -1."""

    id: int
    directory_id: bytes
    endpoint: str
    log_end_offset: int
    lag: int
    last_caught_up_ms: int  # by the event loop's clock; -1: never
    heard: bool  # whether the replica fetched within the last fetch timeout, and its stream is open
    # Whether `heard`, and the replica had the leader's whole log within that timeout.
    caught_up: bool


@dataclass(frozen=True, slots=True)
class QuorumStatus:
    """The quorum: its leader, epoch and replicas."""

    leader_id: int
    epoch: int
    high_watermark: int
    voters: tuple[ReplicaStatus, ...] = ()
    observers: tuple[ReplicaStatus, ...] = ()


def quorum_status(role: Role) -> QuorumStatus:
    """Return leader, epoch and replicas. Only a leader knows the replicas' progress."""
    state = role.state
    known = role.replicas.known if isinstance(role, Leader) else {}
    voters = state.ledger.voters.voters
    keys = [voter.key for voter in voters]
    return QuorumStatus(
        role.leader.id,
        state.epoch,
        state.ledger.high_watermark,
        tuple(_of_voter(role, voter.key, voter.endpoint) for voter in voters),
        tuple(
            _of_other(role, key, progress.endpoint, progress)
            for key, progress in known.items()
            if key not in keys
        ),
    )


def _of_voter(role: Role, key: ReplicaKey, endpoint: str) -> ReplicaStatus:
    state, leads = role.state, isinstance(role, Leader)
    if key == state.me:
        end, now_ms = state.ledger.log_end_offset, state.now_ms if leads else -1
        return ReplicaStatus(key.id, key.directory_id, endpoint, end, 0, now_ms, leads, leads)
    known = role.replicas.known if isinstance(role, Leader) else {}
    return _of_other(role, key, endpoint, known.get(key, Progress(log_end_offset=-1)))


def _of_other(role: Role, key: ReplicaKey, endpoint: str, progress: Progress) -> ReplicaStatus:
    end, caught_up_ms = progress.log_end_offset, progress.last_caught_up_ms
    recent_ms = role.state.now_ms - role.state.timing.fetch_timeout_ms
    heard = progress.is_connected and progress.heard_ms >= 0 and progress.heard_ms > recent_ms
    return ReplicaStatus(
        key.id,
        key.directory_id,
        endpoint,
        end,
        role.state.ledger.log_end_offset - end if end >= 0 else -1,
        caught_up_ms,
        heard,
        heard and caught_up_ms >= 0 and caught_up_ms > recent_ms,
    )
