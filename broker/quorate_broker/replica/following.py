"""The follower's side: from where to fetch, and what a leader's answer does to our log.

Follower (follower.py) decides; this does it. Functions over the replica of partition.py, which
holds all state. Nothing below the high watermark is cut, but across a recovered_epoch (law 4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import structlog

from quorate.errors import StorageError, from_wire
from quorate.v1.common_pb2 import ErrorCode
from quorate_broker.replica import checks, guarded
from quorate_broker.replica.follower import Append, Follower, Ignore, Refuse, StartAt, Truncate

if TYPE_CHECKING:
    from quorate_broker.replica.checks import Buffer
    from quorate_broker.replica.partition import Partition
    from quorate_broker.v1.replica_pb2 import ReplicaFetched
    from quorate_quorum.metadata.image import PartitionImage

log_line = structlog.get_logger(__name__)


class FetchPosition(NamedTuple):
    """From where a follower fetches: all below `offset` is written (flush.on.ack: synced)."""

    leader: int
    leader_epoch: int
    offset: int
    last_fetched_epoch: int
    log_start_offset: int
    high_watermark: int
    was_corrupt: bool = False


def begin(partition: Partition, state: PartitionImage) -> None:
    """Follow the image's leader from here on."""
    log = partition.log
    partition.leader_log_start = -1
    partition.was_corrupt = False
    partition.role = Follower(
        leader=state.leader,
        leader_epoch=state.leader_epoch,
        recovered_epoch=state.recovered_epoch,
        high_watermark=min(log.high_watermark, log.log_end_offset),
        high_watermark_epoch=log.hw_epoch,
    )


async def fetch_position(partition: Partition) -> FetchPosition | None:
    """See Partition.fetch_position."""
    async with partition.lock:
        role = partition.role
        if not isinstance(role, Follower):
            return None
        with partition.guard:
            if partition.log.lost_start is not None:  # nobody counts on us, and the leader has more
                await _start_at(partition, role, StartAt(partition.log.lost_start))
            is_synced = await guarded.write(partition, guarded.sync_if_asked(partition))
            if not is_synced or partition.role is not role:
                return None
        return FetchPosition(
            role.leader,
            role.leader_epoch,
            partition.log.log_end_offset,
            partition.log.last_epoch,
            partition.log.log_start_offset,
            role.high_watermark,
            partition.was_corrupt,
        )


async def take_from_leader(
    partition: Partition, fetched: ReplicaFetched, batches: Buffer
) -> str | None:
    """See Partition.take_from_leader."""
    async with partition.lock:
        role = partition.role
        if not isinstance(role, Follower):
            return "this replica does not follow now"
        try:
            with partition.guard:
                return await _take(partition, role, fetched, batches)
        except StorageError as error:
            return str(error)


# --- what the answer asks for ---------------------------------------------------------------------


async def _take(
    partition: Partition, role: Follower, fetched: ReplicaFetched, batches: Buffer
) -> str | None:
    log = partition.log
    if fetched.HasField("diverging"):
        step = role.diverged(
            leader_epoch=fetched.leader_epoch,
            epoch=fetched.diverging.epoch,
            end_offset=fetched.diverging.end_offset,
            log_start_offset=log.log_start_offset,
            log_end_offset=log.log_end_offset,
            end_offset_for=lambda epoch: log.epochs.end_offset_for(epoch, log.log_end_offset),
        )
    elif fetched.error.code == ErrorCode.ERROR_CODE_OFFSET_OUT_OF_RANGE:
        step = role.out_of_range(
            leader_epoch=fetched.leader_epoch,
            leader_log_start_offset=fetched.log_start_offset,
            log_start_offset=log.log_start_offset,
            log_end_offset=log.log_end_offset,
        )
    elif fetched.error.code != ErrorCode.ERROR_CODE_NONE:
        return str(from_wire(fetched.error))
    else:
        step = role.answered(
            leader_epoch=fetched.leader_epoch,
            base_offset=fetched.base_offset,
            log_end_offset=log.log_end_offset,
            has_batches=len(batches) > 0,
        )
    match step:
        case Append():
            return await _append_fetched(partition, role, fetched, batches)
        case Truncate():
            await _truncate(partition, role, step)
            return None
        case StartAt():
            await _start_at(partition, role, step)
            return None
        case Ignore():
            return step.reason
        case Refuse():
            partition.take_offline("broken", step.reason)
            return step.reason


async def _append_fetched(
    partition: Partition, role: Follower, fetched: ReplicaFetched, batches: Buffer
) -> str | None:
    writes, fault = await checks.from_leader(
        batches,
        log_end_offset=partition.log.log_end_offset,
        last_epoch=partition.log.last_epoch,
        leader_epoch=role.leader_epoch,
    )
    if partition.role is not role:
        return "the leader changed during the check"
    if writes:
        if not await guarded.write(partition, guarded.prepare(partition)):
            return partition.offline
        if not await guarded.write(partition, partition.log.append(writes)):
            return partition.offline
        if not await guarded.write(partition, guarded.sync_if_asked(partition)):
            return partition.offline
        if not await guarded.write(partition, guarded.note_written(partition)):
            return partition.offline
    role.has_matched = True
    if partition.role is not role:
        return "the leader changed during the append"
    if role.learn(fetched.high_watermark, partition.log.log_end_offset):
        partition.set_high_watermark(role.high_watermark, role.high_watermark_epoch)
        partition.watches.wake()
    partition.log.hw_epoch = role.high_watermark_epoch
    await _follow_log_start(partition, role, fetched.log_start_offset)
    if len(batches):
        partition.was_corrupt = fault is not None  # the next position tells the leader
    return None if fault is None else f"the leader sent what is no good: {fault}"


async def _follow_log_start(partition: Partition, role: Follower, log_start_offset: int) -> None:
    """Drop whole segments that the leader has dropped, once per start that it tells."""
    if log_start_offset <= partition.leader_log_start:
        return
    partition.leader_log_start = log_start_offset
    if partition.log.log_start_offset < log_start_offset <= role.high_watermark:
        await guarded.write(partition, partition.log.delete_segments_below(log_start_offset))


async def _truncate(partition: Partition, role: Follower, step: Truncate) -> None:
    before = partition.log.log_end_offset
    log_line.info(
        "truncating",
        partition=partition.name,
        end_offset=step.end_offset,
        log_end_offset=before,
        leader_epoch=role.leader_epoch,
    )
    if step.drops_committed:
        await _lower_high_watermark(partition, role, step.end_offset)
    if await guarded.write(partition, partition.log.truncate(step.end_offset)):
        role.truncated(partition.log.log_end_offset)


async def _start_at(partition: Partition, role: Follower, step: StartAt) -> None:
    log_line.warning(
        "starting again where the leader's log starts",
        partition=partition.name,
        offset=step.offset,
        log_end_offset=partition.log.log_end_offset,
    )
    if step.drops_committed:
        await _lower_high_watermark(partition, role, step.offset)
    if not await guarded.write(partition, guarded.prepare(partition)):
        return
    if not await guarded.write(partition, partition.log.truncate_fully_and_start_at(step.offset)):
        return
    if await guarded.write(partition, guarded.note_written(partition)):
        role.started_at(step.offset)
        partition.set_high_watermark(step.offset, role.high_watermark_epoch)
        partition.wake_all()


async def _lower_high_watermark(partition: Partition, role: Follower, offset: int) -> None:
    """Across a recovered_epoch only (law 4). Written down before the cut, not after."""
    log_line.warning(
        "dropping records that were committed before an election that could lose some",
        partition=partition.name,
        from_offset=offset,
        to_offset=role.high_watermark,
        recovered_epoch=role.recovered_epoch,
    )
    role.truncated(offset)
    partition.set_high_watermark(offset, role.high_watermark_epoch)
    await guarded.write(
        partition, partition.log.checkpoint_high_watermark(offset, role.high_watermark_epoch)
    )
    partition.checkpointed = (offset, role.high_watermark_epoch)
