"""A replica that follows: at which offset it fetches, and what an answer does to its log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import structlog

from quorate.errors import StorageError, from_wire
from quorate.v1.common_pb2 import ErrorCode
from quorate_broker.replica import checks
from quorate_broker.replica.checks import Buffer
from quorate_broker.replica.follower import (
    Append,
    Follower,
    Ignore,
    Refuse,
    StartAt,
    Step,
    Truncate,
)
from quorate_broker.replica.follower_reads import FollowerReads
from quorate_broker.replica.replica import Replica
from quorate_broker.replica.replica_log import ReplicaLog
from quorate_broker.v1.replica_pb2 import ReplicaFetched
from quorate_quorum.metadata.partitions import PartitionImage

log_line = structlog.get_logger(__name__)


class FetchPosition(NamedTuple):
    """The position at which a follower fetches.

    All records below `offset` are written; with flush.on.ack they are also synced. `high_watermark`
    is -1 until the leader has confirmed the log's end in its leader_epoch: then the leader answers
    even if nothing has changed.
    """

    leader: int
    leader_epoch: int
    offset: int
    last_fetched_epoch: int
    log_start_offset: int
    high_watermark: int
    was_corrupt: bool = False


class FollowerReplica:
    """A replica that follows one leader in one leader_epoch.

    The Follower machine decides, and this class writes.

    The object is made when the image has another leader or leader_epoch, and dropped at the next
    change of role. It cuts nothing below the high watermark, except after a lossy election
    (recovered_epoch) that is later than the epoch in which the high watermark was learnt.
    """

    def __init__(self, replica: Replica, log: ReplicaLog, state: PartitionImage) -> None:
        self._replica = replica
        self._replica_log = log
        self._log = log.log
        self.machine = Follower(
            leader=state.leader,
            leader_epoch=state.leader_epoch,
            recovered_epoch=state.recovered_epoch,
            high_watermark=min(self._log.high_watermark, self._log.log_end_offset),
            high_watermark_epoch=self._log.hw_epoch,
        )
        log.set_high_watermark(self.machine.high_watermark, self._log.hw_epoch)
        self.leader_epoch = state.leader_epoch
        #: Whether the batches for the present position were bad. The next fetch reports this.
        self.was_corrupt = False
        #: The reads of consumers.
        self.reads = FollowerReads(replica, log, self.machine)
        self.is_over = False

    def end(self) -> None:
        """Stop following this leader."""
        self.is_over = self.reads.is_over = True

    async def fetch_position(self) -> FetchPosition | None:
        """Return the position at which to fetch; None if this replica does not follow any more.

        With flush.on.ack the log is synced first, because a fetch at an offset acknowledges all
        records below it.
        """
        log = self._log
        async with self._replica_log.lock:
            if self.is_over:
                return None
            with self._replica_log.guard:
                # begin again if records are lost: the controller does not count on this log
                if self._replica_log.started_again is not None:
                    await self._start_again(self._replica_log.started_again)
                elif log.lost_start is not None:
                    await self._start_at(StartAt(log.lost_start))
                is_synced = await self._replica_log.write(self._replica_log.sync_if_asked())
                if not is_synced or self.is_over:
                    return None
            return FetchPosition(
                self.machine.leader,
                self.leader_epoch,
                log.log_end_offset,
                log.last_epoch,
                log.log_start_offset,
                self.machine.high_watermark if self.machine.has_matched else -1,
                self.was_corrupt,
            )

    async def take(self, fetched: ReplicaFetched, batches: Buffer) -> str | None:
        """Carry out a leader's answer: append, cut, or begin again.

        Returns None, or the reason why the answer was not carried out completely. After a reason
        the caller waits a little before it fetches again. With flush.on.ack the batches are synced
        when this method returns.
        """
        async with self._replica_log.lock:
            if self.is_over:
                return "this replica does not follow now"
            try:
                with self._replica_log.guard:
                    return await self._take(fetched, batches)
            except StorageError as error:
                return str(error)

    async def _take(self, fetched: ReplicaFetched, batches: Buffer) -> str | None:
        code = fetched.error.code
        if code not in (ErrorCode.ERROR_CODE_NONE, ErrorCode.ERROR_CODE_OFFSET_OUT_OF_RANGE):
            return str(from_wire(fetched.error))
        step = self._step(fetched, has_batches=len(batches) > 0)
        match step:
            case Append():
                return await self._append(fetched, batches)
            case Truncate():
                await self._truncate(step)
                return None
            case StartAt():
                await self._start_at(step)
                return None
            case Ignore():
                return step.reason
            case Refuse():
                self._replica.take_offline("broken", step.reason)
                return step.reason

    def _step(self, fetched: ReplicaFetched, *, has_batches: bool) -> Step:
        log = self._log
        if fetched.HasField("diverging"):
            return self.machine.diverged(
                leader_epoch=fetched.leader_epoch,
                epoch=fetched.diverging.epoch,
                end_offset=fetched.diverging.end_offset,
                log_start_offset=log.log_start_offset,
                log_end_offset=log.log_end_offset,
                end_offset_for=lambda epoch: log.epochs.end_offset_for(epoch, log.log_end_offset),
            )
        if fetched.error.code == ErrorCode.ERROR_CODE_OFFSET_OUT_OF_RANGE:
            return self.machine.out_of_range(
                leader_epoch=fetched.leader_epoch,
                leader_log_start_offset=fetched.log_start_offset,
                log_start_offset=log.log_start_offset,
                log_end_offset=log.log_end_offset,
            )
        return self.machine.answered(
            leader_epoch=fetched.leader_epoch,
            base_offset=fetched.base_offset,
            log_end_offset=log.log_end_offset,
            has_batches=has_batches,
        )

    async def _append(self, fetched: ReplicaFetched, batches: Buffer) -> str | None:
        log, machine = self._log, self.machine
        writes, fault = await checks.from_leader(
            batches,
            log_end_offset=log.log_end_offset,
            last_epoch=log.last_epoch,
            leader_epoch=self.leader_epoch,
            has_gaps=fetched.has_gaps,
            is_empty=not log.size,
        )
        if self.is_over:
            return "the leader changed during the check"
        if writes and not await self._write(writes):
            return self._replica.offline
        machine.has_matched = True
        if self.is_over:
            return "the leader changed during the append"
        machine.learn(fetched.high_watermark, log.log_end_offset)
        # First the start: what this log has below it may be records that were never committed.
        if await self._follow_log_start(fetched.log_start_offset) and not self.is_over:
            self._take_high_watermark()
        if len(batches):
            # the next fetch reports a bad batch to the leader
            self.was_corrupt = fault is not None
        return None if fault is None else f"the leader sent what is no good: {fault}"

    async def _write(self, writes: list[checks.Write]) -> bool:
        log = self._replica_log
        async with log.room_to_write():
            return (
                await log.write(log.prepare())
                and await log.write(self._begin_with(writes[0][0].base_offset))
                and await log.write(self._expect_gaps(writes))
                and await log.write(log.append(writes))
                and await log.write(log.sync_if_asked())
                and await log.write(log.note_written())
            )

    async def _begin_with(self, base_offset: int) -> None:
        """Let an empty log have the whole batch that lies across the log's start."""
        if base_offset < self._log.log_end_offset:
            await self._log.begin_below(base_offset)

    async def _expect_gaps(self, writes: list[checks.Write]) -> None:
        """Before the first append with a gap, mark the log as a copy of a compacted log."""
        offset = self._log.log_end_offset
        for header, _ in writes:
            if header.base_offset > offset:
                await self._log.compaction.allow_gaps()
                return
            offset = header.end_offset

    async def _follow_log_start(self, log_start_offset: int) -> bool:
        """Move this log's start to the leader's log start, but not past the high watermark.

        Return False if the disk did not let it move.
        """
        if not self._log.log_start_offset < log_start_offset <= self.machine.high_watermark:
            return True
        if not await self._replica_log.write(self._log.move_start(log_start_offset)):
            return False
        self._replica.retention_wanted()
        return True

    def _take_high_watermark(self) -> None:
        """Give the log the high watermark that the machine has learnt."""
        log, machine = self._log, self.machine
        before = log.high_watermark
        if (before, log.hw_epoch) != (machine.high_watermark, machine.high_watermark_epoch):
            self._replica_log.set_high_watermark(
                machine.high_watermark, machine.high_watermark_epoch
            )
        if machine.high_watermark != before:
            self._replica.watches.wake()

    async def _truncate(self, step: Truncate) -> None:
        log_line.info(
            "truncating",
            partition=self._replica.name,
            end_offset=step.end_offset,
            log_end_offset=self._log.log_end_offset,
            leader_epoch=self.leader_epoch,
        )
        if step.drops_committed:
            await self._lower_high_watermark(step.end_offset)
        if await self._replica_log.write(self._log.truncate(step.end_offset)):
            self.machine.truncated(self._log.log_end_offset)

    async def _start_at(self, step: StartAt) -> bool:
        """Remove all records. Return whether that is done, durably."""
        log_line.warning(
            "starting again where the leader's log starts",
            partition=self._replica.name,
            offset=step.offset,
            log_end_offset=self._log.log_end_offset,
        )
        if step.drops_committed:
            await self._lower_high_watermark(step.offset)
        log, machine = self._replica_log, self.machine
        if (
            await log.write(log.prepare())
            and await log.write(self._log.truncate_fully_and_start_at(step.offset))
            and await log.write(log.note_written())
        ):
            machine.started_at(step.offset)
            log.set_high_watermark(step.offset, machine.high_watermark_epoch)
            self._replica.wake_all()
            return True
        return False

    async def _start_again(self, started_again: Callable[[], Awaitable[None]]) -> None:
        """Remove all records of a compacted log that lost some: see ReplicaLog.started_again."""
        log = self._log
        start = log.log_start_offset if log.lost_start is None else log.lost_start
        if await self._start_at(StartAt(start)):
            self._replica_log.started_again = None
            await started_again()

    async def _lower_high_watermark(self, offset: int) -> None:
        """Lower the high watermark before a cut that a lossy election allows.

        The lower value is on the disk before the cut: see ReplicaLog.lower_high_watermark.
        """
        log_line.warning(
            "dropping records that were committed before an election that could lose some",
            partition=self._replica.name,
            from_offset=offset,
            to_offset=self.machine.high_watermark,
            recovered_epoch=self.machine.recovered_epoch,
        )
        self.machine.truncated(offset)
        await self._replica_log.lower_high_watermark(offset, self.machine.high_watermark_epoch)
