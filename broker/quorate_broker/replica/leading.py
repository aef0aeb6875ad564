"""The leader's side: followers' fetches, the high watermark, the ISR asked for and answered.

Leader (leader.py) decides; this joins it with the log and with who waits. Functions over the
replica of partition.py, which holds all state. Our own end counts once written or, with
flush.on.ack, once synced (law 2).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import structlog

from quorate.errors import (
    NotEnoughReplicasAfterAppendError,
    OffsetOutOfRangeError,
    StorageError,
    UnknownLeaderEpochError,
)
from quorate_broker.replica import admission, damage, guarded
from quorate_broker.replica.divergence import divergence
from quorate_broker.replica.host import loop_ms
from quorate_broker.replica.leader import Leader, Proposal, ReplicaStream
from quorate_broker.v1.replica_pb2 import ReplicaDiverging, ReplicaFetchPartition
from quorate_quorum.log.disk_errors import TryAgainError

if TYPE_CHECKING:
    from quorate_broker.replica.partition import Partition
    from quorate_quorum.metadata.image import PartitionImage

log_line = structlog.get_logger(__name__)

#: How long a sync waits that this process had no open files for.
SYNC_AGAIN_S = 0.1


# --- reign ----------------------------------------------------------------------------------------


def begin(partition: Partition, state: PartitionImage, min_isr: int) -> None:
    """Lead from here on, in the image's leader_epoch."""
    log, host = partition.log, partition.host
    leader = partition.role = Leader.begin(
        broker_id=host.broker_id,
        leader_epoch=state.leader_epoch,
        log_end_offset=log.log_end_offset,
        own_end=log.synced_end if partition.config.flush_on_ack else log.log_end_offset,
        high_watermark=log.high_watermark,
        partition_epoch=state.partition_epoch,
        isr=state.isr,
        replicas=state.broker_ids,
        min_isr=min_isr,
        lag_ms=host.lag_ms,
        now_ms=loop_ms(),
    )
    count_ourselves(partition, leader)
    advance(partition, leader)


def same_reign(partition: Partition, leader: Leader, state: PartitionImage, min_isr: int) -> None:
    """Take what the image says of the ISR and the replicas of our own reign."""
    leader.min_isr = min_isr
    leader.update(state.partition_epoch, state.isr, state.broker_ids, loop_ms())
    _isr_changed(partition, leader)


# --- followers ------------------------------------------------------------------------------------


def follower_fetch(
    partition: Partition, stream: ReplicaStream, request: ReplicaFetchPartition, now_ms: int
) -> ReplicaDiverging | None:
    """See Partition.follower_fetch."""
    leader = admission.require_leader(partition, request.leader_epoch, must_say=True)
    if stream.replica_id not in leader.replicas:
        raise UnknownLeaderEpochError(
            f"{partition.name}: broker {stream.replica_id} is no replica that we know of; retry"
        )
    diverging = _diverging(partition, request.fetch_offset, request.last_fetched_epoch)
    if diverging is not None:
        return diverging
    if request.was_corrupt:
        damage.suspect(partition, request.fetch_offset)
    with partition.guard:
        offset, start = request.fetch_offset, request.log_start_offset
        if leader.record_fetch(stream, offset, start, now_ms):
            advance(partition, leader)
            if leader.wants_to_expand:
                partition.host.isr_wanted(partition)
    return None


def follower_left(partition: Partition, stream: ReplicaStream) -> None:
    """See Partition.follower_left."""
    if isinstance(partition.role, Leader) and partition.role.follower_left(stream):
        partition.host.isr_wanted(partition)


def _diverging(partition: Partition, fetch_offset: int, last_epoch: int) -> ReplicaDiverging | None:
    """Compare a follower's past with ours; OffsetOutOfRangeError where that cannot be."""
    start, end = partition.log_start_offset, partition.log_end_offset
    if fetch_offset < start:
        raise OffsetOutOfRangeError(f"{partition.name}: {fetch_offset} is below the start {start}")
    found = divergence(partition.log.epochs, start, end, fetch_offset, last_epoch)
    if found is not None:
        return ReplicaDiverging(epoch=found.epoch, end_offset=found.end_offset)
    if fetch_offset > end:
        raise OffsetOutOfRangeError(f"{partition.name}: {fetch_offset} is above the end {end}")
    return None


async def read_for_follower(
    partition: Partition, offset: int, *, leader_epoch: int, bytes_max: int
) -> bytes:
    """See Partition.read_for_follower."""
    admission.require_leader(partition, leader_epoch, must_say=True)
    batches = await guarded.read_batches(
        partition, offset, partition.log_end_offset, bytes_max, at_least_one=True
    )
    admission.require_leader(partition, leader_epoch, must_say=True)
    return batches


# --- what is committed ----------------------------------------------------------------------------


def count_ourselves(partition: Partition, leader: Leader) -> None:
    """Our own end moves when the write is done or, with flush.on.ack, synced (law 2)."""
    if not partition.config.flush_on_ack:
        leader.saved(partition.log.log_end_offset)
        return
    leader.saved(min(partition.log.synced_end, leader.log_end_offset))
    if partition.log.synced_end < partition.log.log_end_offset and partition.sync_task is None:
        partition.sync_task = asyncio.get_running_loop().create_task(
            _sync_behind(partition), name=f"sync {partition.name}"
        )


async def _sync_behind(partition: Partition) -> None:
    """Sync until all that was appended is; appends during a sync share the next one."""
    try:
        while (
            isinstance(partition.role, Leader)
            and partition.log.synced_end < partition.log.log_end_offset
        ):
            try:
                await partition.log.sync()
            except TryAgainError:
                await asyncio.sleep(SYNC_AGAIN_S)
                continue
            leader = partition.role  # perhaps of a later reign: what is synced is a fact for it too
            if isinstance(leader, Leader):
                leader.saved(min(partition.log.synced_end, leader.log_end_offset))
                advance(partition, leader)
    except StorageError as error:
        guarded.failed(partition, error)
    except AssertionError as error:
        partition.take_offline("broken", f"a broken invariant: {error}")
    finally:
        partition.sync_task = None


def advance(partition: Partition, leader: Leader) -> None:
    """Move the high watermark as far as the ISR has come; answer who waited for that."""
    moved = leader.advance()
    if leader.is_confirmed:
        partition.log.hw_epoch = leader.leader_epoch
    if not moved:
        return
    partition.set_high_watermark(leader.high_watermark, leader.leader_epoch)
    for entry in partition.waiters.reached(leader.high_watermark):
        entry.done(partition.log_start_offset)
    partition.watches.wake()
    partition.replica_watches.wake()


# --- the ISR --------------------------------------------------------------------------------------


def propose_isr(
    partition: Partition, now_ms: int, broker_epoch: int, eligible_epoch: Callable[[int], int]
) -> Proposal | None:
    """See Partition.propose_isr."""
    if partition.must_resign:
        resignation = _resignation(partition, eligible_epoch)
        if partition.damage is None:
            return resignation
        _keep_note(partition)
        if resignation is not None:
            return resignation if partition.is_damage_noted else None
        # the only copy of a damaged log leads on
    if not isinstance(partition.role, Leader):
        return None
    with partition.guard:
        return partition.role.propose(now_ms, broker_epoch, eligible_epoch)


def _resignation(partition: Partition, eligible_epoch: Callable[[int], int]) -> Proposal | None:
    """Return the ISR without ourselves; None for the last member, which nobody can replace."""
    state = partition.state
    assert state is not None
    others = [(b, eligible_epoch(b)) for b in sorted(state.isr) if b != partition.host.broker_id]
    members = tuple(member for member in others if member[1] >= 0)
    if not members:
        return None
    is_lossy = partition.damage is not None
    return Proposal(state.leader_epoch, state.partition_epoch, members, is_lossy=is_lossy)


def _keep_note(partition: Partition) -> None:
    """Note on the disk that the log is corrupt while another member of the ISR has what is good;
    not of the only copy, see damage.py. One that is changed is looked at again.
    """
    state = partition.state
    assert state is not None
    is_wanted = state.isr != (partition.host.broker_id,)
    if is_wanted != partition.is_damage_noted and partition.note_task is None:
        partition.note_task = asyncio.get_running_loop().create_task(
            _change_note(partition, is_wanted=is_wanted), name=f"note damage of {partition.name}"
        )


async def _change_note(partition: Partition, *, is_wanted: bool) -> None:
    log = partition.log
    try:
        await (log.note_corrupt() if is_wanted else log.forget_corrupt())
    except TryAgainError as error:  # the ISR keeper looks again
        log_line.warning("damage_not_noted", partition=partition.name, reason=str(error))
    except StorageError as error:
        guarded.failed(partition, error)
    else:
        partition.is_damage_noted = is_wanted
        partition.host.isr_wanted(partition)
    finally:
        partition.note_task = None


def isr_committed(
    partition: Partition,
    proposal: Proposal,
    leader_epoch: int,
    partition_epoch: int,
    isr: Sequence[int],
) -> None:
    """See Partition.isr_committed."""
    role = partition.role
    if not isinstance(role, Leader) or role.leader_epoch != proposal.leader_epoch:
        return
    now_ms = loop_ms()
    is_ours = leader_epoch == role.leader_epoch and partition.host.broker_id in isr
    with partition.guard:
        if is_ours and role.committed(partition_epoch, isr, now_ms):
            _isr_changed(partition, role)
        else:
            role.lost(proposal, now_ms)


def isr_refused(partition: Partition, proposal: Proposal) -> None:
    """See Partition.isr_refused."""
    role = partition.role
    if isinstance(role, Leader):
        with partition.guard:
            role.refused(proposal)
            advance(partition, role)


def isr_lost(partition: Partition, proposal: Proposal) -> None:
    """See Partition.isr_lost."""
    if isinstance(partition.role, Leader):
        partition.role.lost(proposal, loop_ms())


def _isr_changed(partition: Partition, leader: Leader) -> None:
    if not leader.has_enough_replicas:
        for entry in partition.waiters.take_all():
            entry.refuse(
                NotEnoughReplicasAfterAppendError(
                    f"{partition.name}: written, then the ISR shrank to {leader.isr}, below "
                    f"min.insync.replicas {leader.min_isr}; it may yet commit"
                )
            )
    advance(partition, leader)
