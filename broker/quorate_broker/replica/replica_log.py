"""The log of one replica, and the rules for it that hold in every role."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

import structlog

from quorate.aio.tasks import Tasks
from quorate.errors import CorruptRecordError, StorageError
from quorate_broker.replica.flush_timer import FlushTimer
from quorate_broker.replica.replica import Failure, Replica
from quorate_quorum.log.appender import Batches
from quorate_quorum.log.disk_errors import ReopenError, TryAgainError
from quorate_quorum.log.log import Log, LogCorruptError

log_line = structlog.get_logger(__name__)

#: The time after which a flush is tried again that could not begin.
FLUSH_AGAIN_MS = 1_000


class ReplicaLog:
    """The log of one replica. The rules:

    * Code that appends, cuts or changes the role holds `lock`, because two such steps must not
      interleave.
    * A failure takes this replica offline. The broker continues, and if the disk is good, its other
      replicas continue, too. Only TryAgainError leaves the replica online.
    * Before the first append is acknowledged, the broker notes that the replica was written
      (`note_written`). Without this note, a replica whose directory is gone would look like a new
      one. If elected, it would make the other replicas remove all their records.
    * `log.high_watermark` is the high watermark, and `log.hw_epoch` is the leader_epoch in which it
      was learnt. The roles decide both; a checkpoint writes them to the disk.
    """

    def __init__(self, replica: Replica, log: Log) -> None:
        self.log = log
        self.lock = asyncio.Lock()
        self.guard = Guard(replica)
        #: Syncs the log by flush.ms.
        self.flush_timer = FlushTimer(replica, log, self._flush_due)
        self._tasks = Tasks(lambda _, error: self._broke(error))
        self.is_closed = False
        #: Whether the inventory says that this replica was written.
        self.is_noted = False
        #: Set if the next follower must remove all records before it fetches, and call this then.
        #: This compacted log has lost records. If a tombstone was among them, and the others have
        #: dropped it meanwhile, an older record that is left here would never be deleted.
        self.started_again: Callable[[], Awaitable[None]] | None = None
        self._replica = replica
        self._is_prepared = False
        self._checkpointed = (log.high_watermark, log.hw_epoch)

    # writing

    async def write(self, writing: Awaitable[object]) -> bool:
        """Await a write. Return whether it succeeded. A failure takes the replica offline."""
        try:
            await writing
        except TryAgainError:
            # the replica stays as it is, and the caller tries again
            raise
        except (StorageError, CorruptRecordError) as error:
            self.failed(error)
            return False
        return True

    def room_to_write(self) -> AbstractAsyncContextManager[None]:
        """Return the context in which to append.

        Only a few replicas of a log directory make their first append at the same time. A first
        append waits for several files. If the waits of a thousand replicas ended together, the code
        after all these waits would run in one turn of the loop.
        """
        if self.is_noted:
            return nullcontext()
        return self._replica.host.first_appends[self._replica.directory_id]

    async def prepare(self) -> None:
        """Make the directory before the first append: see ReplicaHost.prepare."""
        if not self._is_prepared:
            await self._replica.host.prepare(self._replica, is_noted=self.is_noted)
            self._is_prepared = True

    async def note_written(self) -> None:
        """Note the first append before it is acknowledged: see ReplicaHost.written."""
        if not self.is_noted:
            await self._replica.host.written(self._replica)
            self.is_noted = True

    async def append(self, batches: Batches) -> None:
        """Append batches: see Log.append."""
        await self.log.append(batches)
        self._replica.appended()
        self.flush_timer.appended()

    async def sync_if_asked(self) -> None:
        """Sync the log if flush.on.ack is set and some bytes are not synced."""
        if self._replica.config.flush_on_ack and not self.is_synced:
            await self.log.sync()

    @property
    def is_synced(self) -> bool:
        """Whether all appended records survive a power loss."""
        return self.log.synced_end >= self.log.log_end_offset

    def _flush_due(self) -> None:
        if not self.is_closed:
            self.start(self._flush(), "flush")

    async def _flush(self) -> None:
        """Sync the log because of flush.ms. The host bounds the number of such syncs at a time."""
        async with self._replica.host.flushes[self._replica.directory_id]:
            if self.is_closed or self._replica.offline is not None:
                return
            self.flush_timer.begin()
            if self.is_synced:
                return
            try:
                await self.log.sync()
            except TryAgainError as error:
                log_line.warning("flush waits", partition=self._replica.name, reason=str(error))
                self.flush_timer.again(FLUSH_AGAIN_MS)

    async def move_recovery_point(self) -> None:
        """Sync the log, so that a start after a crash reads only what comes after: RecoveryPoint.

        If the sync can't begin, the next append makes the host try again.
        """
        async with self._replica.host.flushes[self._replica.directory_id]:
            if self.is_closed or self._replica.offline is not None:
                return
            try:
                await self.log.recovery_point.move()
            except TryAgainError as error:
                name = self._replica.name
                log_line.warning("recovery point waits", partition=name, reason=str(error))
            except StorageError as error:
                if not self.is_closed:
                    self.failed(error)

    # failures

    def failed(self, error: StorageError | CorruptRecordError) -> None:
        """Take the replica offline. The kind of failure follows from the error: see disk_errors."""
        if isinstance(error, LogCorruptError | CorruptRecordError):
            failure: Failure = "corrupt"
        elif isinstance(error, ReopenError | TryAgainError):
            failure = "replica"
        else:
            failure = "storage"
        self._replica.take_offline(failure, str(error))

    def start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run `work` in the background. close() waits for it.

        If it fails, the replica goes offline.
        """
        return self._tasks.spawn(self._guarded(work, name), f"{name} {self._replica.name}")

    async def _guarded(self, work: Coroutine[Any, Any, None], name: str) -> None:
        try:
            await work
        except StorageError as error:
            self.failed(error)
        except Exception as error:
            log_line.exception(f"{name} failed", partition=self._replica.name)
            self._broke(error)

    def _broke(self, error: BaseException) -> None:
        """Take the replica offline, because of a broken invariant or a bug of this program."""
        what = "a broken invariant" if isinstance(error, AssertionError) else type(error).__name__
        self._replica.take_offline("broken", f"{what}: {error}")

    # the high watermark

    def set_high_watermark(self, offset: int, epoch: int) -> None:
        """Set the high watermark and its epoch. The next checkpoint writes them to the disk."""
        self.log.high_watermark = offset
        self.log.hw_epoch = epoch
        self._replica.host.unsaved[self._replica.key] = None

    async def checkpoint(self) -> None:
        """Write the high watermark to the disk, if it moved since the last time."""
        known = (self.log.high_watermark, self.log.hw_epoch)
        if known == self._checkpointed or self._replica.offline is not None or self.is_closed:
            return
        try:
            await self.log.checkpoint_high_watermark(*known)
            self._checkpointed = known
        except StorageError as error:
            if not self.is_closed:
                self.failed(error)

    async def lower_high_watermark(self, offset: int, epoch: int) -> None:
        """Lower the high watermark, and write it to the disk, before a cut of committed records.

        If the cut came first, a crash before the write would leave a high watermark above the log's
        end.
        """
        self.set_high_watermark(offset, epoch)
        await self.write(self.log.checkpoint_high_watermark(offset, epoch))
        self._checkpointed = (offset, epoch)

    # the end

    async def prepare_stop(self) -> None:
        """Write what a clean close writes. The close syncs it: see RecoveryPoint.save."""
        if self.is_closed or self._replica.offline is not None:
            return
        await self.checkpoint()
        try:
            await self.log.recovery_point.save()
        except TryAgainError:
            pass  # the close tries again
        except StorageError as error:
            self.failed(error)

    async def close(self, *, clean: bool) -> None:
        """Wait for the work under way, and close the log; with `clean`, durably."""
        async with self.lock:
            if self.is_closed:
                return
            if clean:
                await self.checkpoint()
            self.is_closed = True
        self.flush_timer.stop()
        await self._tasks.ended()
        try:
            await self.log.close(clean=clean and self._replica.offline is None)
        except StorageError as error:
            self.failed(error)


class Guard:
    """A context in which a broken invariant takes the replica offline and raises StorageError."""

    __slots__ = ("_replica",)

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is not None and issubclass(kind, AssertionError):
            self._replica.take_offline("broken", f"a broken invariant: {error}")
            raise self._replica.offline_error()
