"""Who may ask a replica for what, in whose leader_epoch, and what the others are told.

Functions over the replica of partition.py, which holds all state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quorate.errors import (
    FencedLeaderEpochError,
    NotLeaderError,
    OutcomeUnknownError,
    UnknownLeaderEpochError,
)
from quorate_broker.replica.follower import Follower
from quorate_broker.replica.leader import Leader
from quorate_broker.replica.waiters import hinted

if TYPE_CHECKING:
    from quorate.errors import QuorateError
    from quorate_broker.replica.partition import Partition
    from quorate_quorum.metadata.image import PartitionImage


def require_leader(partition: Partition, leader_epoch: int, *, must_say: bool = False) -> Leader:
    """Return the role if we lead, in the caller's view too (KIP-320, K4)."""
    role = partition.role
    if not isinstance(role, Leader):
        raise not_leader(partition)
    check_epoch(partition, leader_epoch, role.leader_epoch, must_say=must_say)
    return role


def check_reader(partition: Partition, leader_epoch: int, from_follower: bool) -> None:
    """Raise unless we lead, or follow and the caller takes that too."""
    if from_follower and isinstance(partition.role, Follower):
        check_epoch(partition, leader_epoch, partition.role.leader_epoch, must_say=False)
    else:
        require_leader(partition, leader_epoch)


def check_epoch(partition: Partition, theirs: int, ours: int, *, must_say: bool) -> None:
    """Raise unless both know the same leader_epoch; -1, where allowed, is not checked."""
    if theirs == ours or (theirs == -1 and not must_say):
        return
    text = f"{partition.name}: leader_epoch {theirs} was given, and {ours} is known here"
    if theirs < ours:
        raise hinted(FencedLeaderEpochError(text), partition.hint)
    raise hinted(UnknownLeaderEpochError(text + "; retry"), partition.hint)


def not_leader(partition: Partition) -> QuorateError:
    """Return what to tell who took us for the leader."""
    if partition.offline is not None and not others_may_lead(partition):
        return partition.offline_error()
    return hinted(
        NotLeaderError(
            f"broker {partition.host.broker_id} does not lead {partition.name}; "
            f"broker {partition.leader} does, in leader_epoch {partition.leader_epoch}"
        ),
        partition.hint,
    )


def others_may_lead(partition: Partition) -> bool:
    """Whether a client that comes again finds another leader, now or soon."""
    state = partition.state
    return state is not None and has_other_leaders(state, partition.host.broker_id)


def has_other_leaders(state: PartitionImage, broker_id: int) -> bool:
    """Whether another replica than this broker's has all that is committed."""
    return any(one != broker_id for one in (*state.isr, *state.elr))


def outcome_unknown(partition: Partition, why: str) -> OutcomeUnknownError:
    """Return what to tell a producer whose batch may be in the log, and may yet commit."""
    return hinted(OutcomeUnknownError(f"{partition.name}: {why}"), partition.hint)
