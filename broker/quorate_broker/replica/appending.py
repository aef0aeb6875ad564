"""The producers' side: a queue in the order of the calls, its drain into the log, who waits then.

All that is queued goes into one write; acks -1 then waits for the commit, which leading.py
announces. Functions over the replica of partition.py, which holds all state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import structlog

from quorate.errors import (
    NotEnoughReplicasAfterAppendError,
    NotEnoughReplicasError,
    OverloadedError,
    QuorateError,
    RequestTimedOutError,
    StorageError,
)
from quorate.record import batch as record_batch
from quorate_broker.replica import admission, checks, guarded, leading
from quorate_broker.replica.checks import NO_TIMESTAMP
from quorate_broker.replica.host import loop_ms
from quorate_broker.replica.leader import Leader
from quorate_broker.replica.waiters import hinted
from quorate_quorum.log.disk_errors import TryAgainError

if TYPE_CHECKING:
    from quorate.record.batch import BatchHeader
    from quorate_broker.replica.checks import Buffer
    from quorate_broker.replica.partition import Partition
    from quorate_broker.replica.producers import Staging

log_line = structlog.get_logger(__name__)

ACKS_ALL = -1


class Produced(NamedTuple):
    """Where an appended batch lies. log_append_time_ms is -1 with CreateTime."""

    base_offset: int
    log_append_time_ms: int
    log_start_offset: int


@dataclass(slots=True)
class Queued:
    """A batch on its way: into the log, then perhaps waiting for its commit."""

    batch: Buffer
    leader_epoch: int
    acks: int
    in_doubt_ms: int
    deadline_ms: int
    appended: Callable[[], None]
    future: asyncio.Future[Produced]
    base_offset: int = -1
    end_offset: int = -1
    append_time_ms: int = NO_TIMESTAMP

    def refuse(self, error: QuorateError) -> None:
        self.written()
        if not self.future.done():
            self.future.set_exception(error)

    def written(self) -> None:
        """Let go of the bytes."""
        appended, self.appended, self.batch = self.appended, _nothing, b""
        appended()

    def done(self, log_start_offset: int) -> None:
        if not self.future.done():
            self.future.set_result(
                Produced(self.base_offset, self.append_time_ms, log_start_offset)
            )


def _nothing() -> None:
    pass


# --- the queue ------------------------------------------------------------------------------------


def enqueue(
    partition: Partition,
    batch: memoryview,
    *,
    leader_epoch: int,
    acks: int,
    timeout_ms: int,
    in_doubt_ms: int,
    appended: Callable[[], None],
) -> asyncio.Future[Produced]:
    """See Partition.produce."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Produced] = loop.create_future()
    deadline_ms = int(loop.time() * 1000) + timeout_ms
    entry = Queued(batch, leader_epoch, acks, in_doubt_ms, deadline_ms, appended, future)
    if len(partition.queue) >= partition.limits.queue_max:
        entry.refuse(
            OverloadedError(f"{partition.name}: {len(partition.queue)} batches are queued")
        )
        return future
    partition.queue.append(entry)
    if partition.drain_task is None:
        partition.drain_task = loop.create_task(_drain(partition), name=f"append {partition.name}")
    return future


def _take_queued(partition: Partition) -> list[Queued]:
    size = count = 0
    for entry in partition.queue:
        if count and size + len(entry.batch) > partition.limits.append_bytes_max:
            break
        if count >= checks.BATCHES_A_TURN:
            break
        size += len(entry.batch)
        count += 1
    taken, partition.queue = partition.queue[:count], partition.queue[count:]
    return taken


def refuse_queue(partition: Partition) -> None:
    """Refuse all that is not yet on its way into the log."""
    queue, partition.queue = partition.queue, []
    for entry in queue:
        entry.refuse(admission.not_leader(partition))


# --- into the log ---------------------------------------------------------------------------------


async def _drain(partition: Partition) -> None:
    """Append what is queued until nothing is; alive only that long."""
    try:
        while partition.queue:
            async with partition.lock:
                await _append_queued(partition)
    except StorageError as error:
        guarded.failed(partition, error)
    except Exception as error:  # a defect or broken invariant: this replica only (law 11)
        log_line.exception("append failed", partition=partition.name)
        partition.take_offline("broken", f"{type(error).__name__}: {error}")
    finally:
        partition.drain_task = None


async def _append_queued(partition: Partition) -> None:
    leader = partition.role
    taken = _take_queued(partition)
    if partition.config.compacts:
        taken = await _with_keys(partition, taken)
    if not isinstance(leader, Leader) or partition.role is not leader:
        for entry in taken:
            entry.refuse(admission.not_leader(partition))
        return
    accepted: list[Queued] = []
    try:
        writes = _accept(partition, leader, taken, accepted)
        if writes:
            await guarded.prepare(partition)
            await partition.log.append(writes)
            await guarded.note_written(partition)
    except TryAgainError as error:
        _note_room(partition, error)
        for entry in taken:
            entry.refuse(hinted(StorageError(f"nothing was written: {error}"), partition.hint))
        return
    except BaseException as error:
        for entry in taken:
            entry.refuse(admission.outcome_unknown(partition, f"the append failed: {error}"))
        raise
    if partition.role is not leader:
        for entry in accepted:
            entry.refuse(
                admission.outcome_unknown(partition, "leadership was lost during the append")
            )
        return
    if writes:  # a batch that was refused shows nothing of the disk
        _note_room(partition, None)
    _appended(partition, leader, accepted, grew=bool(writes))


async def _with_keys(partition: Partition, taken: list[Queued]) -> list[Queued]:
    """Refuse the batches in which a record lacks a key; return the others."""
    passed: list[Queued] = []
    for entry in taken:
        try:
            header = record_batch.check(entry.batch, from_producer=True)
            size = record_batch.decompressed_size_bound(entry.batch, header)
            if size <= checks.DECODED_IN_A_TURN_BYTES:
                checks.check_keys(entry.batch, header)
                await asyncio.sleep(0)
            else:
                await partition.host.in_thread(checks.check_keys, entry.batch, header)
        except QuorateError as error:
            entry.refuse(error)
        else:
            passed.append(entry)
    return passed


def _note_room(partition: Partition, error: TryAgainError | None) -> None:
    """Say once that there is no room, and once that there is again."""
    if partition.is_full == (error is not None):
        return
    partition.is_full = error is not None
    # On a disk that is nearly full small batches go in and large ones do not: said once a minute.
    if error is not None:
        log_line.error(
            "no room: nothing is taken",
            partition=partition.name,
            reason=str(error),
            repeats=True,
        )
    else:
        log_line.info("there is room again", partition=partition.name, repeats=True)


def _accept(
    partition: Partition, leader: Leader, taken: list[Queued], accepted: list[Queued]
) -> list[tuple[BatchHeader, Sequence[Buffer]]]:
    """Check the batches one by one; return what to append, and who has a place in it."""
    staging = partition.producers.staging()
    writes: list[tuple[BatchHeader, Sequence[Buffer]]] = []
    offset = partition.log.log_end_offset
    waiting = len(partition.waiters)
    for entry in taken:
        try:
            if entry.acks == ACKS_ALL and waiting >= partition.limits.waiters_max:
                raise OverloadedError(f"{partition.name}: {waiting} batches wait for their commit")
            write = _accept_one(partition, leader, entry, staging, offset)
        except QuorateError as error:
            entry.refuse(error)
            continue
        if write is not None:
            writes.append(write)
            offset = write[0].end_offset
        waiting += entry.acks == ACKS_ALL
        accepted.append(entry)
    return writes


def _accept_one(
    partition: Partition, leader: Leader, entry: Queued, staging: Staging, offset: int
) -> tuple[BatchHeader, Sequence[Buffer]] | None:
    """Check one batch and stamp it; None for a duplicate, placed where its original is."""
    admission.check_epoch(partition, entry.leader_epoch, leader.leader_epoch, must_say=False)
    if entry.acks == ACKS_ALL and not leader.has_enough_replicas:
        raise NotEnoughReplicasError(
            f"{partition.name}: the ISR {leader.isr} is below min.insync.replicas "
            f"{leader.min_isr}; nothing was written"
        )
    checked = checks.from_producer(entry.batch, partition.config, partition.host.wall_clock_ms())
    header, entry.batch, entry.append_time_ms = checked
    header = replace(header, base_offset=offset, leader_epoch=leader.leader_epoch)
    original = staging.check(header, in_doubt_ms=entry.in_doubt_ms)
    if original is not None:
        entry.base_offset, entry.end_offset = original.base_offset, original.end_offset
        return None
    entry.base_offset, entry.end_offset = offset, header.end_offset
    batch = entry.batch
    prefix = record_batch.stamped_prefix(
        batch, base_offset=offset, leader_epoch=leader.leader_epoch
    )
    return header, (prefix, memoryview(batch)[len(prefix) :])


def _appended(partition: Partition, leader: Leader, accepted: list[Queued], *, grew: bool) -> None:
    """Our log has them: answer, count ourselves, wake the followers."""
    if grew:
        leader.appended(partition.log.log_end_offset)
    for entry in accepted:
        entry.written()
        if entry.acks != ACKS_ALL:
            entry.done(partition.log_start_offset)
        elif entry.end_offset <= leader.high_watermark:
            entry.done(partition.log_start_offset)  # a duplicate of what is committed
        else:
            partition.waiters.add(entry.end_offset, entry.deadline_ms, entry)
    leading.count_ourselves(partition, leader)
    leading.advance(partition, leader)
    _arm_timer(partition)
    if grew:
        partition.replica_watches.wake()


# --- deadlines ------------------------------------------------------------------------------------


def _arm_timer(partition: Partition) -> None:
    deadline_ms = partition.waiters.next_deadline_ms
    if deadline_ms is None:
        return
    when = (deadline_ms + 1) / 1000  # not a rounding error too early
    if partition.timer is not None:
        if partition.timer.when() <= when:
            return
        partition.timer.cancel()
    partition.timer = asyncio.get_running_loop().call_at(when, _expire, partition)


def _expire(partition: Partition) -> None:
    partition.timer = None
    role = partition.role
    is_short = isinstance(role, Leader) and not role.has_enough_replicas
    for entry in partition.waiters.expired(loop_ms()):
        text = f"{partition.name}: written at {entry.base_offset}, not committed in time"
        entry.refuse(
            NotEnoughReplicasAfterAppendError(text) if is_short else RequestTimedOutError(text)
        )
    _arm_timer(partition)


def end_waits(partition: Partition) -> None:
    """The reign is over: who waits is told that the outcome is unknown."""
    if partition.timer is not None:
        partition.timer.cancel()
        partition.timer = None
    for entry in partition.waiters.take_all():
        entry.refuse(admission.outcome_unknown(partition, "leadership was lost before the commit"))
