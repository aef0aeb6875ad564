"""Writes the steps of a machine to its partition, and lets answers leave after the commit."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from quorate.aio.bell import Bell
from quorate.errors import OutcomeUnknownError, OverloadedError, QuorateError, UnknownServerError
from quorate.record.batch import BatchBuilder
from quorate_broker.groups.machine.values import LogRecord
from quorate_broker.replica.chain import Chain
from quorate_broker.replica.leader_replica import LeaderReplica
from quorate_broker.replica.produce_queue import ACKS_ALL, Produced

#: How long a batch waits for its commit before its shard is given up. Callers wait less.
COMMIT_TIMEOUT_MS = 600_000
#: The most steps that wait for their commit, and the most bytes of them.
WAITING_MAX = 10_000
WAITING_BYTES_MAX = 32 << 20

#: A batch that waits for the one before it is written at once when it has this many bytes.
BATCH_BYTES_MAX = 256 << 10

#: Lets out what a step decided.
Leave = Callable[[], None]


@dataclass(slots=True, eq=False)
class _Batch:
    """The batch of some steps, and all that leaves with its commit, in the order of the steps."""

    records: BatchBuilder = field(default_factory=BatchBuilder)
    leaving: list[Leave] = field(default_factory=list)
    is_committed: bool = False


class StepLog:
    """The steps of one machine, from its load to its end. The rules:

    * The records of a step are in one batch. The batches are in the log in the order of the steps.
    * While a batch waits for its commit, the steps that follow are gathered into the next one. So
      many commits of offsets cost one append and one round of replication. A batch that has
      BATCH_BYTES_MAX does not wait, and no step is added to such a batch.
    * If a batch is refused, no later batch is written: the machine that decided it has already
      built on the refused one.
    * What a step decided leaves when its records and those of all steps before are committed.
    * After the first failure nothing leaves any more, and `failed` is called once.
    """

    def __init__(
        self,
        leader: LeaderReplica,
        wall_clock_ms: Callable[[], int],
        failed: Callable[[QuorateError], None],
    ) -> None:
        self._leader = leader
        self._wall_clock_ms = wall_clock_ms
        self._failed = failed
        self._chain = Chain()
        self._batches: deque[_Batch] = deque()
        #: The last batch, if it is not written yet: steps are still added to it.
        self._open: _Batch | None = None
        self._waiting = self._bytes = 0
        self._unwritten = 0
        self._written = Bell()
        self.is_over = False
        #: Whether a batch was committed.
        self.has_committed = False

    @property
    def is_full(self) -> bool:
        """Whether so many steps wait for their commit that no more may be made."""
        return self._waiting >= WAITING_MAX or self._bytes >= WAITING_BYTES_MAX

    def check_room(self) -> None:
        """Raise OverloadedError if the log is full."""
        if self.is_full:
            raise OverloadedError(
                f"{self._waiting} steps of {self._bytes} bytes of this coordinator wait for their"
                f" commit; {WAITING_MAX} of {WAITING_BYTES_MAX} bytes may: ask again later"
            )

    def add(self, records: Sequence[LogRecord], leave: Leave) -> None:
        """Append the records of a step. Call `leave` when they and all before are committed."""
        assert not self.is_over, "a machine that was dropped makes no step"
        if records:
            self._gather(records)
        if not self._batches:
            leave()
            return
        self._waiting += 1
        self._batches[-1].leaving.append(leave)

    def end(self) -> None:
        """Write nothing more, and let nothing leave. It is safe to call this twice."""
        self.is_over = True
        self._chain.fail(OutcomeUnknownError("the coordinator dropped its state"))
        self._batches.clear()
        self._open = None
        self._waiting = self._bytes = 0

    async def settled(self) -> None:
        """Wait until each batch is in the log or was refused. Then the log's end is known."""
        while self._unwritten:
            await self._written.next_ring()

    def _gather(self, records: Sequence[LogRecord]) -> None:
        """Add the records of a step to the open batch, or begin one."""
        size = sum(len(key) + len(value or b"") for key, value in records)
        if self._open is not None and self._open.records.size + size > BATCH_BYTES_MAX:
            self._append()
        batch, before = self._open, 0
        if batch is None:
            self._open = batch = _Batch()
            self._batches.append(batch)
            self._append_soon()
        else:
            before = batch.records.size
        now_ms = self._wall_clock_ms()
        for key, value in records:
            batch.records.append(now_ms, key, value)
        self._bytes += batch.records.size - before
        if batch.records.size >= BATCH_BYTES_MAX:
            self._append()

    def _append_soon(self) -> None:
        """Append the open batch after this turn of the loop, so that the turn's steps share it."""
        asyncio.get_running_loop().call_soon(self._append_if_first)

    def _append_if_first(self) -> None:
        """Append the open batch, unless one before it waits for its commit."""
        if self._open is not None and self._batches[0] is self._open:
            self._append()

    def _append(self) -> None:
        batch, self._open = self._open, None
        assert batch is not None, "only an open batch is appended"
        self._unwritten += 1
        built = batch.records.build()
        batch.records.release()
        outcome = self._leader.queue.produce(
            memoryview(built),
            acks=ACKS_ALL,
            timeout_ms=COMMIT_TIMEOUT_MS,
            appended=self._count_written,
            chain=self._chain,
        )
        outcome.add_done_callback(partial(self._done, batch))

    def _count_written(self) -> None:
        self._unwritten -= 1
        self._written.ring()

    def _done(self, batch: _Batch, outcome: asyncio.Future[Produced]) -> None:
        error = _error_of(outcome)
        if self.is_over:
            return
        if error is not None:
            self.end()
            self._failed(error)
            return
        batch.is_committed = self.has_committed = True
        while self._batches and self._batches[0].is_committed:
            done = self._batches.popleft()
            self._bytes -= done.records.size
            self._waiting -= len(done.leaving)
            for leave in done.leaving:
                leave()
        if self._open is not None:
            self._append_soon()


def _error_of(outcome: asyncio.Future[Produced]) -> QuorateError | None:
    if outcome.cancelled():
        return OutcomeUnknownError("the partition was closed before the outcome was known")
    error = outcome.exception()
    if error is None or isinstance(error, QuorateError):
        return error
    return UnknownServerError(f"{type(error).__name__}: {error}")
