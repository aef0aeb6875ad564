"""The batches that producers send to one leader: queued, checked, appended, and then committed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import structlog

from quorate.aio.clock import loop_ms
from quorate.aio.offset_waiters import OffsetWaiters
from quorate.errors import (
    NotEnoughReplicasAfterAppendError,
    NotEnoughReplicasError,
    OverloadedError,
    QuorateError,
    RequestTimedOutError,
    StorageError,
)
from quorate.record import batch as record_batch
from quorate.record.batch import BatchHeader
from quorate_broker.replica import checks
from quorate_broker.replica.chain import Chain
from quorate_broker.replica.checks import NO_TIMESTAMP, Buffer
from quorate_broker.replica.hints import hinted
from quorate_broker.replica.leader import Leader
from quorate_broker.replica.producers import Producers, Staging
from quorate_broker.replica.replica import Replica
from quorate_broker.replica.replica_log import ReplicaLog
from quorate_broker.replica.too_few_replicas import too_few_replicas
from quorate_quorum.configs import TopicConfig
from quorate_quorum.log.disk_errors import TryAgainError

log_line = structlog.get_logger(__name__)

ACKS_ALL = -1
#: The most batches of one partition that are queued. A further batch is refused.
QUEUE_MAX = 10_000
#: The most bytes of one append to the log. The next append takes the rest of the queue.
APPEND_BYTES_MAX = 8 << 20
#: The cost of one append. The unit is the check of one small batch.
APPEND_UNITS = 20
#: The units that all partitions together use in one turn of the loop: 5 to 10 ms.
APPEND_UNITS_A_TURN = 500


class Produced(NamedTuple):
    """Where a batch was appended. log_append_time_ms is -1 with CreateTime."""

    base_offset: int
    log_append_time_ms: int
    log_start_offset: int


@dataclass(slots=True)
class Queued:
    """A batch that waits for its append, and then (acks=all) for its commit."""

    batch: Buffer
    acks: int
    in_doubt_ms: int
    deadline_ms: int
    appended: Callable[[], None]
    future: asyncio.Future[Produced]
    base_offset: int = -1
    end_offset: int = -1
    append_time_ms: int = NO_TIMESTAMP
    #: The header of the batch, after the check that a consumer can read it.
    header: BatchHeader | None = None
    #: The configuration of the topic for which the batch was checked.
    checked_for: TopicConfig | None = None
    #: The batches of this broker's own with which this one fails; None for a producer's batch.
    chain: Chain | None = None

    def refuse(self, error: QuorateError) -> None:
        if self.chain is not None:
            self.chain.fail(error)
        self.written()
        if not self.future.done():
            self.future.set_exception(error)

    def written(self) -> None:
        """Release the bytes of the batch, because they are in the log or the batch is refused."""
        appended, self.appended, self.batch = self.appended, _nothing, b""
        appended()

    def done(self, log_start_offset: int) -> None:
        if not self.future.done():
            self.future.set_result(
                Produced(self.base_offset, self.append_time_ms, log_start_offset)
            )


def _nothing() -> None:
    pass


class CommitWaits:
    """The batches of one reign that wait for their commit, each until its deadline."""

    def __init__(self, replica: Replica, log: ReplicaLog, leader: Leader) -> None:
        self._replica = replica
        self._log = log
        self._leader = leader
        self._timer: asyncio.TimerHandle | None = None
        self._waiters: OffsetWaiters[Queued] = OffsetWaiters(
            replica.host.config.partition_waiting_max, "batches wait for their commit"
        )

    def __len__(self) -> int:
        return len(self._waiters)

    @property
    def count_max(self) -> int:
        """The most batches that may wait."""
        return self._waiters.waiters_max

    def add(self, entry: Queued) -> None:
        """Let a batch wait. Call `arm_timer` after the last one."""
        self._waiters.add(entry.end_offset, entry, deadline_ms=entry.deadline_ms)

    def committed(self, high_watermark: int) -> None:
        """Answer the waiting batches that end at or below the high watermark."""
        for entry in self._waiters.reached(high_watermark):
            entry.done(self._log.log.log_start_offset)

    def isr_shrank(self) -> None:
        """Fail the waiting batches: the ISR is below min.insync.replicas, so none commits now."""
        waiting = self._waiters.take_all()
        why = self.too_few() if waiting else ""
        for entry in waiting:
            text = f"written, and may yet commit; then the ISR shrank: {why}"
            entry.refuse(NotEnoughReplicasAfterAppendError(text))

    def go_on(self, earlier: CommitWaits) -> None:
        """Take over what waits in the same leader's reign just before: see ProduceQueue.go_on."""
        for entry in earlier._waiters.take_all():
            if entry.chain is None:
                self.add(entry)
            else:
                entry.refuse(self._replica.outcome_unknown("leadership began anew"))
        self.arm_timer()

    def end(self) -> None:
        """End the reign: the outcome of each batch is unknown."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for entry in self._waiters.take_all():
            entry.refuse(self._replica.outcome_unknown("leadership was lost before the commit"))

    def arm_timer(self) -> None:
        """Wake up at the first deadline."""
        deadline_ms = self._waiters.next_deadline_ms
        if deadline_ms is None:
            return
        when = (deadline_ms + 1) / 1000  # plus 1: rounding must not make the timer too early
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(when, self._expire)

    def _expire(self) -> None:
        self._timer = None
        for entry in self._waiters.expired(loop_ms()):
            text = f"{self._replica.name}: written at {entry.base_offset}, not committed in time"
            entry.refuse(
                RequestTimedOutError(text)
                if self._leader.has_enough_replicas
                else NotEnoughReplicasAfterAppendError(f"{text}: {self.too_few()}")
            )
        self.arm_timer()

    def too_few(self) -> str:
        """Say that the ISR is smaller than min.insync.replicas."""
        return too_few_replicas(self._replica, self._leader.isr, self._leader.min_isr)


@dataclass(eq=False)
class ProduceQueue:
    """The batches of producers in one reign. The rules:

    * Batches enter the log in the order of the calls. One write takes all queued batches, up to its
      bounds.
    * A batch with acks=all waits for the commit of its own offset in this reign. The waits end with
      the reign: under a later leader another record may be committed at this offset. If this broker
      leads the next leader epoch, too, its log is not cut, and the waits go on (`go_on`).
    * From the time when a batch is given to the log until it is known to be committed, its outcome
      is unknown. A batch that fails earlier is refused, and was not written.
    """

    _replica: Replica
    _log: ReplicaLog
    _leader: Leader
    _producers: Producers
    #: Called after each append, because this broker's own end limits the high watermark too.
    _count_own_end: Callable[[], None]
    _queue: list[Queued] = field(default_factory=list)
    _is_draining: bool = False
    _is_over: bool = False
    #: Whether the disk had no room for the last append.
    is_full: bool = False
    #: The batches that are in the log and wait for their commit.
    waits: CommitWaits = field(init=False)

    def __post_init__(self) -> None:
        self.waits = CommitWaits(self._replica, self._log, self._leader)

    def produce(
        self,
        batch: memoryview,
        *,
        acks: int,
        timeout_ms: int,
        in_doubt_ms: int = 0,
        appended: Callable[[], None],
        chain: Chain | None = None,
    ) -> asyncio.Future[Produced]:
        """Queue a batch. This call does not wait, and raises nothing.

        `acks` is -1 (all), 0 or 1. `timeout_ms` bounds the wait for the commit. `in_doubt_ms`: see
        Staging.check. `appended` is called once, when the bytes are in the log or refused. `chain`:
        the batch is written only if no batch of the chain was refused. The future ends with
        Produced or a QuorateError. If the error is about the leader, hint_of(error) returns the
        present leader.
        """
        future: asyncio.Future[Produced] = asyncio.get_running_loop().create_future()
        deadline_ms = loop_ms() + timeout_ms
        entry = Queued(batch, acks, in_doubt_ms, deadline_ms, appended, future, chain=chain)
        if len(self._queue) >= QUEUE_MAX:
            entry.refuse(
                OverloadedError(f"{self._replica.name}: {len(self._queue)} batches are queued")
            )
            return future
        self._queue.append(entry)
        self._drain_soon()
        return future

    def end(self) -> None:
        """End the reign. The outcome of each batch that waits for its commit is unknown.

        Queued batches are refused at their turn, after the append under way.
        """
        self._is_over = True
        self.waits.end()

    def go_on(self, earlier: ProduceQueue) -> None:
        """Take over what waits in the queue of the same leader's reign just before.

        This broker's own batches are left to end with that reign: their writer begins anew, and
        must not find in the log what it does not know. The caller holds the lock of the log, so no
        append is under way.
        """
        self.waits.go_on(earlier.waits)
        self._queue = [entry for entry in earlier._queue if entry.chain is None]
        earlier._queue = [entry for entry in earlier._queue if entry.chain is not None]
        self._drain_soon()

    def refuse_queued(self) -> None:
        """Refuse the queued batches whose append has not begun."""
        queue, self._queue = self._queue, []
        for entry in queue:
            entry.refuse(self._replica.not_leader())

    # into the log

    def _drain_soon(self) -> None:
        if self._queue and not self._is_draining:
            self._is_draining = True
            self._log.start(self._drain(), "append")

    async def _drain(self) -> None:
        """Append the queued batches until the queue is empty."""
        try:
            while self._queue:
                await self._replica.host.append_turns.take(APPEND_UNITS + self._next_count())
                async with self._log.lock:
                    await self._append_queued()
        finally:
            self._is_draining = False

    async def _append_queued(self) -> None:
        taken = self._take_queued()
        if not self._is_over:
            taken = await self._readable(taken)
        if self._is_over:
            for entry in taken:
                entry.refuse(self._replica.not_leader())
            return
        accepted: list[Queued] = []
        try:
            writes = self._accept(taken, accepted)
            if writes:
                async with self._log.room_to_write():
                    await self._log.prepare()
                    await self._log.append(writes)
                    await self._log.note_written()
        except TryAgainError as error:
            self._note_room(error)
            for entry in taken:
                entry.refuse(
                    hinted(StorageError(f"nothing was written: {error}"), self._replica.hint)
                )
            return
        except BaseException as error:
            for entry in taken:
                entry.refuse(self._replica.outcome_unknown(f"the append failed: {error}"))
            raise
        if self._is_over:
            for entry in accepted:
                entry.refuse(self._replica.outcome_unknown("leadership was lost during the append"))
            return
        if writes:  # without a write, nothing is proved about room on the disk
            self._note_room(None)
        self._appended(accepted, grew=bool(writes))

    def _next_count(self) -> int:
        return min(len(self._queue), checks.BATCHES_A_TURN)

    def _take_queued(self) -> list[Queued]:
        size = count = 0
        for entry in self._queue:
            if count and size + len(entry.batch) > APPEND_BYTES_MAX:
                break
            if count >= checks.BATCHES_A_TURN:
                break
            size += len(entry.batch)
            count += 1
        taken, self._queue = self._queue[:count], self._queue[count:]
        return taken

    async def _readable(self, taken: list[Queued]) -> list[Queued]:
        """Return the batches that a consumer can read. Refuse the others.

        Recompression may make a batch larger. Batches beyond the bytes of one append go back to the
        head of the queue.
        """
        config, batches = self._replica.config, self._replica.host.producer_batches
        passed: list[Queued] = []
        size = 0
        for index, entry in enumerate(taken):
            try:
                if entry.checked_for is not config:
                    entry.header, entry.batch = await batches.readable(entry.batch, config)
                    entry.checked_for = config
            except QuorateError as error:
                entry.refuse(error)
                continue
            size += len(entry.batch)
            if passed and size > APPEND_BYTES_MAX:
                self._queue[:0] = taken[index:]
                break
            passed.append(entry)
        return passed

    def _note_room(self, error: TryAgainError | None) -> None:
        """Log once that the disk has no room, and once that it has room again.

        A disk that is nearly full takes small batches but not large ones, so the state may change
        often. `repeats` limits these lines to one a minute.
        """
        if self.is_full == (error is not None):
            return
        self.is_full = error is not None
        name = self._replica.name
        if error is not None:
            log_line.error(
                "no room: nothing is taken", partition=name, reason=str(error), repeats=True
            )
            self._replica.isr_wanted()  # the leader of an internal topic gives way
        else:
            log_line.info("there is room again", partition=name, repeats=True)

    def _accept(
        self, taken: list[Queued], accepted: list[Queued]
    ) -> list[tuple[BatchHeader, Sequence[Buffer]]]:
        """Check the batches one by one. Return those to append, and fill `accepted`."""
        staging = self._producers.staging()
        writes: list[tuple[BatchHeader, Sequence[Buffer]]] = []
        offset = self._log.log.log_end_offset
        waiting = len(self.waits)
        for entry in taken:
            try:
                if entry.acks == ACKS_ALL and waiting >= self.waits.count_max:
                    raise OverloadedError(
                        f"{self._replica.name}: {waiting} batches wait for their commit"
                    )
                write = self._accept_one(entry, staging, offset)
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
        self, entry: Queued, staging: Staging, offset: int
    ) -> tuple[BatchHeader, Sequence[Buffer]] | None:
        """Check one batch and stamp it. Return the batch to append; None for a duplicate.

        The entry of a duplicate gets the offsets of the original.
        """
        leader = self._leader
        if entry.chain is not None:
            entry.chain.check()
        if entry.acks == ACKS_ALL and not leader.has_enough_replicas:
            raise NotEnoughReplicasError(f"nothing was written: {self.waits.too_few()}")
        now_ms = self._replica.host.environment.wall_clock_ms()
        assert entry.header is not None, "a batch is checked before it is accepted"
        header, entry.batch, entry.append_time_ms = checks.from_producer(
            entry.header, entry.batch, self._replica.config, now_ms
        )
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

    def _appended(self, accepted: list[Queued], *, grew: bool) -> None:
        """Answer batches that the log has now, count this broker's end, and wake the followers."""
        start = self._log.log.log_start_offset
        if grew:
            self._leader.appended(self._log.log.log_end_offset)
        for entry in accepted:
            entry.written()
            if entry.acks != ACKS_ALL:
                entry.done(start)
            elif entry.end_offset <= self._leader.high_watermark:
                entry.done(start)  # a duplicate of a committed batch
            else:
                self.waits.add(entry)
        self._count_own_end()
        self.waits.arm_timer()
        if grew:
            self._replica.replica_watches.wake()
