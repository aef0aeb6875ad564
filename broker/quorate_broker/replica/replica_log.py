"""The log of one replica, and the rules about it that hold in every role."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import TYPE_CHECKING, Any

import structlog

from quorate.aio.tasks import Tasks
from quorate.errors import CorruptRecordError, StorageError
from quorate_quorum.log.disk_errors import ReopenError, TryAgainError
from quorate_quorum.log.log import LogCorruptError

if TYPE_CHECKING:
    from quorate_broker.replica.replica import Failure, Replica
    from quorate_quorum.log.log import Log

log_line = structlog.get_logger(__name__)


class ReplicaLog:
    """The log of one replica. The rules:

    * Whatever appends, cuts, or changes the role holds `lock`: two at once would interleave.
    * A failure inside takes this replica offline, and nothing else: the broker and its other
      replicas go on. Only TryAgainError leaves the replica as it is.
    * Before the first append counts for anybody, the broker remembers that the replica was written
      (`note_written`). A replica whose directory is gone would otherwise look like a new one, be
      elected, and make the others cut their logs to its empty one.
    * The high watermark is kept in `log.high_watermark`, with the leader_epoch under which it was
      learnt in `log.hw_epoch`. The roles decide about it; a checkpoint writes it down.
    """

    def __init__(self, replica: Replica, log: Log) -> None:
        self.log = log
        self.lock = asyncio.Lock()
        self.guard = Guard(replica)
        self._tasks = Tasks(lambda _, error: self._broke(error))
        self.is_closed = False
        #: The broker remembers that this replica was written.
        self.is_noted = False
        self._replica = replica
        self._is_prepared = False
        self._checkpointed = (log.high_watermark, log.hw_epoch)

    # writing

    async def write(self, writing: Awaitable[object]) -> bool:
        """Await a write; tell whether it went well. A failure takes the replica offline."""
        try:
            await writing
        except TryAgainError:
            raise  # the replica stays, and tries again
        except (StorageError, CorruptRecordError) as error:
            self.failed(error)
            return False
        return True

    async def prepare(self) -> None:
        """Make the directory before the first append: see ReplicaHost.prepare."""
        if not self._is_prepared:
            await self._replica.host.prepare(self._replica, is_noted=self.is_noted)
            self._is_prepared = True

    async def note_written(self) -> None:
        """Remember the first append before it counts: see ReplicaHost.written."""
        if not self.is_noted:
            await self._replica.host.written(self._replica)
            self.is_noted = True

    async def sync_if_asked(self) -> None:
        """With flush.on.ack, sync what is not synced."""
        if self._replica.config.flush_on_ack and not self.is_synced:
            await self.log.sync()

    @property
    def is_synced(self) -> bool:
        """Whether all that was appended survives a power loss."""
        return self.log.synced_end >= self.log.log_end_offset

    # failures

    def failed(self, error: StorageError | CorruptRecordError) -> None:
        """Take the replica offline, and with it what the error is about: see disk_errors."""
        if isinstance(error, LogCorruptError | CorruptRecordError):
            failure: Failure = "corrupt"
        elif isinstance(error, ReopenError | TryAgainError):
            failure = "replica"
        else:
            failure = "storage"
        self._replica.take_offline(failure, str(error))

    def start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Work in the background; close() waits for it. A failure takes the replica offline."""
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
        """A broken invariant, or a defect of this program."""
        what = "a broken invariant" if isinstance(error, AssertionError) else type(error).__name__
        self._replica.take_offline("broken", f"{what}: {error}")

    # the high watermark

    def set_high_watermark(self, offset: int, epoch: int) -> None:
        """Tell the log, which writes it down at the next checkpoint."""
        self.log.high_watermark = offset
        self.log.hw_epoch = epoch

    async def checkpoint(self) -> None:
        """Write the high watermark down, if it moved since the last time."""
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
        """Lower it, and write that down: before a cut of committed records, not after. A crash
        between the two would leave a high watermark above the log's end.
        """
        self.set_high_watermark(offset, epoch)
        await self.write(self.log.checkpoint_high_watermark(offset, epoch))
        self._checkpointed = (offset, epoch)

    # the end

    async def close(self, *, clean: bool) -> None:
        """Wait for what is under way, and close the log; with `clean`, durably."""
        async with self.lock:
            if self.is_closed:
                return
            if clean:
                await self.checkpoint()
            self.is_closed = True
        await self._tasks.ended()
        try:
            await self.log.close(clean=clean and self._replica.offline is None)
        except StorageError as error:
            self.failed(error)


class Guard:
    """A broken invariant inside takes the replica offline, and is a StorageError outside."""

    __slots__ = ("_replica",)

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is not None and issubclass(kind, AssertionError):
            self._replica.take_offline("broken", f"a broken invariant: {error}")
            raise self._replica.offline_error()
