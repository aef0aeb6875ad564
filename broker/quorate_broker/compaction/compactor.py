"""Compacts the logs of compacted topics, one after the other, in the background.

One task per broker finds the log that needs compaction most, lets a Runner write the new segments,
and puts them into the log. Leaders and followers each compact their own log. If a pass fails, only
this partition is affected: the failure is logged, and the pass is tried again after a growing wait.

Tombstones are removed only while every replica is in the ISR. A replica that was away longer than
`delete.retention.ms` would otherwise miss a tombstone, keep the record before it, and bring this
record back when it leads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

import structlog

from quorate.aio.tasks import Tasks
from quorate.errors import QuorateError, StorageError
from quorate.record.batch import parse_header
from quorate_broker.compaction.job import Cleaned, Done, Failed, Job
from quorate_broker.compaction.offset_map import HASH_BYTES
from quorate_broker.compaction.plan import Lags, Plan, is_older, plan_for
from quorate_broker.compaction.runner import Runner, runner_in
from quorate_broker.replica.partition import Partition
from quorate_broker.replica.producers import oldest_batch
from quorate_broker.replica.replica import Key
from quorate_broker.replicas.replicas import Replicas
from quorate_quorum.configs import NO_LAG
from quorate_quorum.log.disk_errors import TryAgainError
from quorate_quorum.log.log import Log, LogCorruptError

T = TypeVar("T")

log_line = structlog.get_logger(__name__)

#: Partitions that are checked in one turn of the loop.
LOOKS_A_TURN = 20
#: Producers that are read in one turn of the loop.
PRODUCERS_A_TURN = 2_000
#: The longest wait after failures of one partition, in multiples of `log.cleaner.backoff.ms`.
BACKOFFS_MAX = 64


@dataclass(slots=True)
class _Failure:
    """The failures of one partition in a row."""

    count: int
    #: The time at which the next pass may begin, on the loop's clock.
    again_at: float
    reason: str


class Compactor:
    """The compaction of one broker: see the module."""

    def __init__(
        self, replicas: Replicas, fail: Callable[[str], None], runner: Runner | None = None
    ) -> None:
        self._replicas = replicas
        self._environment = replicas.environment
        self._config = replicas.config
        self._runner = runner or runner_in(self._environment)
        self._tasks = Tasks(lambda _, error: fail(f"compaction has ended: {error!r}"))
        self._failures: dict[Key, _Failure] = {}
        #: Partitions for which the log line about records without a key was written.
        self._told: set[Key] = set()

    def start(self) -> None:
        self._tasks.spawn(self._run(), "compaction")

    async def stop(self) -> None:
        """End the pass under way and its process. It is safe to call this twice."""
        await self._tasks.end_all()

    @property
    def failures(self) -> dict[Key, str]:
        """The partitions whose last pass failed, with the reason."""
        return {key: failure.reason for key, failure in self._failures.items()}

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._config.log_cleaner_backoff_ms / 1000)
            while (chosen := await self._choose()) is not None:
                await self._compact(*chosen)

    # What to compact

    async def _choose(self) -> tuple[Partition, Plan] | None:
        """Return the partition that needs a pass most (overdue, or the dirtiest), and its plan.

        None if no partition needs a pass.
        """
        best: tuple[Partition, Plan] | None = None
        now = asyncio.get_running_loop().time()
        partitions = list(self._replicas.all())
        self._forget_all_but({partition.key for partition in partitions})
        for number, partition in enumerate(partitions):
            if number % LOOKS_A_TURN == 0:
                await asyncio.sleep(0)
            failure = self._failures.get(partition.key)
            if failure is not None and now < failure.again_at:
                continue
            try:
                plan = await self.plan(partition)
            except QuorateError as error:
                self._met(partition, error)
                continue
            if plan is None:
                self._recovered(partition)
            if plan is not None and (best is None or _need(plan) > _need(best[1])):
                best = partition, plan
        return best

    async def plan(self, partition: Partition) -> Plan | None:
        """Return what to compact of a replica now; None: nothing."""
        log = partition.log
        is_usable = partition.state is not None and partition.offline is None
        if not is_usable or partition.replica_log.is_closed or not partition.config.compacts:
            return None
        config, now_ms = partition.config, self._environment.wall_clock_ms()
        lags = Lags(
            config.min_cleanable_dirty_ratio,
            config.min_compaction_lag_ms,
            config.max_compaction_lag_ms,
            config.message_timestamp_after_max_ms,
        )
        oldest_dirty_ms = None
        if lags.max_lag_ms < NO_LAG:
            await self._roll_if_overdue(partition, lags.max_lag_ms, now_ms)
            oldest_dirty_ms = await _timestamp_at(log, _first_dirty(log))
        bases = log.compaction.bases
        if not bases or _first_dirty(log) >= bases[-1]:
            # no pass is needed: all closed segments are compacted
            return None
        return plan_for(
            await log.segments(),
            first_dirty=_first_dirty(log),
            high_watermark=log.high_watermark,
            oldest_dirty_ms=oldest_dirty_ms,
            now_ms=now_ms,
            lags=lags,
        )

    def _forget_all_but(self, held: set[Key]) -> None:
        self._told &= held
        for key in [key for key in self._failures if key not in held]:
            del self._failures[key]

    # One pass

    async def _compact(self, partition: Partition, plan: Plan) -> None:
        """Run one pass. Any failure affects only this partition."""
        try:
            reason = await self._pass(partition, plan)
        except QuorateError as error:
            return self._met(partition, error)
        except Exception as error:
            log_line.exception("compaction failed", partition=partition.name)
            reason = f"{type(error).__name__}: {error}"
        if reason is None:
            self._recovered(partition)
        elif not partition.replica_log.is_closed:
            self._failed(partition, reason)

    def _met(self, partition: Partition, error: QuorateError) -> None:
        """React to an error of a partition's log. After an error of the disk, go offline.

        Otherwise the controller would count on a replica whose disk has failed.
        """
        replica_log = partition.replica_log
        if replica_log.is_closed:
            return
        if isinstance(error, LogCorruptError):
            partition.found_damage(str(error))
        elif isinstance(error, StorageError) and not isinstance(error, TryAgainError):
            replica_log.failed(error)
            return
        self._failed(partition, str(error))

    async def _pass(self, partition: Partition, plan: Plan) -> str | None:
        """Run one pass, and put its segments into the log. Return why it failed, or None."""
        truncations = partition.log.truncations
        job = await self.job(partition, plan)
        old_bytes = new_bytes = 0
        async with aclosing(self._runner.run(job)) as reports:
            async for report in reports:
                if isinstance(report, Failed):
                    if report.is_corrupt and truncations == partition.log.truncations:
                        partition.found_damage(report.reason)
                    return report.reason
                if partition.replica_log.is_closed or partition.offline is not None:
                    return "the replica was closed"
                if isinstance(report, Cleaned):
                    if not await self._replace(partition, report, truncations):
                        return "the log was cut, or its start moved, during the pass"
                    old_bytes += report.old_bytes
                    new_bytes += report.new.size
                else:
                    self._tell(partition, plan, report, old_bytes, new_bytes)
                    return await self._conclude(partition, plan, report, truncations)
        return "the pass ended without a result"

    async def job(self, partition: Partition, plan: Plan) -> Job:
        """Return the Job of one pass over a replica's log."""
        config, log = partition.config, partition.log
        state = partition.state
        assert state is not None
        closed = (await log.segments())[:-1]
        segments = [one for one in closed if one.end_offset <= plan.end]
        return Job(
            directory=log.compaction.directory,
            segments=tuple((one.base_offset, one.end_offset, one.size) for one in segments),
            first_dirty=plan.first_dirty,
            now_ms=self._environment.wall_clock_ms(),
            delete_retention_ms=config.delete_retention_ms,
            may_drop_tombstones=set(state.broker_ids) <= set(state.isr),
            segment_bytes=config.segment_bytes,
            index_interval_bytes=log.compaction.index_interval_bytes,
            epochs=tuple(log.epochs.entries),
            producers=await _producers(partition, plan.end),
            map_bytes=self._config.log_cleaner_dedupe_buffer_size,
            bytes_per_second=self._config.log_cleaner_io_max_bytes_per_second,
            salt=self._environment.chance.randbytes(HASH_BYTES).hex(),
            is_overdue=plan.is_overdue,
        )

    async def _replace(self, partition: Partition, cleaned: Cleaned, truncations: int) -> bool:
        """Put a new segment into the log. Return False if the log has changed since it was read."""
        replacing = partition.log.compaction.replace_segments(cleaned.new, truncations)
        return await self._written(partition, replacing)

    async def _conclude(
        self, partition: Partition, plan: Plan, done: Done, truncations: int
    ) -> str | None:
        if done.end <= plan.first_dirty:
            return f"the pass ended at {done.end}, where it began"
        if truncations != partition.log.truncations:
            return "the log was cut during the pass"
        await self._written(partition, partition.log.compaction.note_cleaned(done.end))
        return None

    # Writes into a log

    async def _roll_if_overdue(self, partition: Partition, max_lag_ms: int, now_ms: int) -> None:
        """Close the active segment if its first record waits too long.

        The segment must be closed, because only closed segments are compacted.
        """
        log = partition.log
        bases = log.compaction.bases
        oldest_ms = await _timestamp_at(log, bases[-1]) if bases else None
        if oldest_ms is not None and is_older(oldest_ms, max_lag_ms, now_ms):
            await self._written(partition, log.roll())

    async def _written(self, partition: Partition, writing: Awaitable[T]) -> T:
        """Await a write into a log, as a task of the replica's log.

        The close of the log waits for this task, and a stop of the compactor does not cancel it: a
        cancelled write would count as a failure of the log. TryAgainError leaves the replica in
        use; any other failure takes it offline, and raises StorageError.
        """
        results: list[T] = []
        waits: list[TryAgainError] = []

        async def write() -> None:
            try:
                results.append(await writing)
            except TryAgainError as error:
                waits.append(error)

        await asyncio.shield(partition.replica_log.start(write(), "compaction"))
        if waits:
            raise waits[0]
        if not results:
            raise partition.offline_error()
        return results[0]

    # Log lines

    def _tell(
        self, partition: Partition, plan: Plan, done: Done, old_bytes: int, new_bytes: int
    ) -> None:
        log_line.info(
            "compacted",
            partition=partition.name,
            from_offset=plan.first_dirty,
            to_offset=done.end,
            dirty_ratio=round(plan.dirty_ratio, 3),
            records=done.records,
            dropped=done.dropped,
            old_bytes=old_bytes,
            new_bytes=new_bytes,
        )
        is_odd = done.without_key or done.not_decoded
        if is_odd and partition.key not in self._told:
            self._told.add(partition.key)
            log_line.warning(
                "compaction keeps records that have no key, and batches that do not decode here",
                partition=partition.name,
                records_without_key=done.without_key,
                batches=done.not_decoded,
            )

    def _recovered(self, partition: Partition) -> None:
        """Forget the failures of a partition: a pass succeeded, or none is needed any more."""
        self._failures.pop(partition.key, None)
        partition.compaction_failure = ""

    def _failed(self, partition: Partition, reason: str) -> None:
        known = self._failures.get(partition.key)
        count = 1 if known is None else known.count + 1
        waits = min(2 ** (count - 1), BACKOFFS_MAX)
        wait_ms = waits * self._config.log_cleaner_backoff_ms
        again_at = asyncio.get_running_loop().time() + wait_ms / 1000
        self._failures[partition.key] = _Failure(count, again_at, reason)
        partition.compaction_failure = reason
        log_line.error(
            "compaction failed",
            partition=partition.name,
            reason=reason,
            failures=count,
            again_in_ms=wait_ms,
        )


def _need(plan: Plan) -> tuple[bool, float]:
    return plan.is_overdue, plan.dirty_ratio


def _first_dirty(log: Log) -> int:
    return max(log.compaction.cleaned_end, log.log_start_offset)


async def _timestamp_at(log: Log, offset: int) -> int | None:
    """Return the largest timestamp of the batch at an offset; None: there is no record."""
    if not log.log_start_offset <= offset < log.log_end_offset:
        return None
    batch = await log.read(offset, end=log.log_end_offset, bytes_max=1)
    return parse_header(batch).max_timestamp if batch else None


async def _producers(partition: Partition, end: int) -> tuple[tuple[int, int], ...]:
    """Return the `producers` of a Job: those that may have remembered batches below `end`."""
    found: list[tuple[int, int]] = []
    for number, packed in enumerate(partition.producers.packed()):
        if number % PRODUCERS_A_TURN == 0:
            await asyncio.sleep(0)
        producer_id, base_offset = oldest_batch(packed)
        if base_offset < end:
            found.append((producer_id, base_offset))
    return tuple(found)
