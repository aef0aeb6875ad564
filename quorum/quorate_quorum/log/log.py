"""The log on disk: one implementation for the metadata log and for every partition.

A directory holds segments, their indexes, the leader-epoch checkpoint, snapshots of an observer's
state, slot files and markers (see directory). One module has each of its roles:

    recovery, scan       what an open finds, and what has to go
    segments, segment    the files of batches, with their indexes
    appender             new batches, and new segments for them
    reader, time_lookup  where the bytes lie that a reader asks for
    syncer               what is made to survive a power loss
    checkpoints          what the log has said durably of itself: synced end, high watermark, start
    cutter               cuts at the end, at the start, and of everything
    observer, observed   state that follows the log
    guard                one writer at a time, and none after a failure
    extent               which records there are now

Appends, cuts and rolls take turns; reads overlap them. After the first failed write or sync every
call raises StorageError: open the log again to find out what is there. ReopenError is
about this log alone, a bare StorageError about its disk (disk_errors).
"""

from __future__ import annotations

from dataclasses import replace

from quorate.errors import CorruptRecordError, OffsetOutOfRangeError
from quorate_quorum.disk import Disk
from quorate_quorum.log.appender import Appender, Batches
from quorate_quorum.log.config import LogConfig
from quorate_quorum.log.cutter import Cutter
from quorate_quorum.log.directory import CORRUPT_FILE, DAMAGED_FILE
from quorate_quorum.log.disk_errors import leaving_all_as_it_was
from quorate_quorum.log.epochs import EpochCache
from quorate_quorum.log.guard import LogCorruptError
from quorate_quorum.log.observed import ObservedState
from quorate_quorum.log.observer import Observer
from quorate_quorum.log.parts import Parts
from quorate_quorum.log.reader import Reader
from quorate_quorum.log.recovery import Recovered, Recovery
from quorate_quorum.log.run_file import UNKNOWN, Run
from quorate_quorum.log.segment import Inspect
from quorate_quorum.log.segments import SegmentInfo
from quorate_quorum.log.syncer import Syncer
from quorate_quorum.log.time_lookup import first_at

__all__ = ["Log", "LogConfig", "LogCorruptError", "Recovered", "SegmentInfo"]


class Log:
    """An open log. Use `Log.open`."""

    def __init__(
        self, parts: Parts, syncer: Syncer, observed: ObservedState | None, recovered: Recovered
    ) -> None:
        self._parts = parts
        self._directory = parts.directory
        self._guard = parts.guard
        self._segments = parts.segments
        self._extent = parts.extent
        self._checkpoints = parts.checkpoints
        self._syncer = syncer
        self._reader = Reader(parts.segments, parts.extent)
        self._appender = Appender(parts, syncer, self._reader, observed)
        self._cutter = Cutter(parts, self._reader, observed)
        self.recovered = recovered

    @classmethod
    async def open(
        cls,
        disk: Disk,
        directory: str,
        config: LogConfig,
        *,
        observer: Observer | None = None,
        run: Run = UNKNOWN,
        inspect: Inspect | None = None,
    ) -> Log:
        """Open a log, or an empty one where there is none yet: nothing is made before an append.

        `run` is what the log directory remembers of its last run. `inspect` looks at every batch
        (so it goes with verify_all), and what it refuses is bad. LogCorruptError if bytes below
        the last known sync are bad, ReopenError if it may go well later, or its files alone are to
        blame, StorageError if the disk fails.
        """
        assert inspect is None or config.verify_all
        parts = Parts(disk, directory, config)
        syncer = Syncer(parts)
        recovery = Recovery(parts, syncer, run, inspect)
        observed = None if observer is None else ObservedState(observer, parts)
        try:
            await recovery.carry_out()
            if observed is not None and parts.segments.all:
                await observed.reload()
            recovered = await recovery.conclude()
        except BaseException as error:
            await parts.close()
            if isinstance(error, OSError | CorruptRecordError):
                raise parts.guard.error("can't open the log", error, nothing_done=False) from error
            raise
        return cls(parts, syncer, observed, recovered)

    # What it holds

    @property
    def log_start_offset(self) -> int:
        """First offset held."""
        return self._extent.start

    @property
    def log_end_offset(self) -> int:
        """One past the last record."""
        return self._extent.end

    @property
    def lost_start(self) -> int | None:
        """Where the log had begun, if segments at its start are gone."""
        return self._extent.lost_start

    @property
    def truncations(self) -> int:
        """How often the log was cut. An operation that waited compares it: see Extent."""
        return self._extent.truncations

    @property
    def epochs(self) -> EpochCache:
        return self._extent.epochs

    @property
    def last_epoch(self) -> int:
        """The leader_epoch of the last record; -1 if the log never had one."""
        return self._extent.epochs.last

    @property
    def has_segments(self) -> bool:
        """Whether anything was ever appended here."""
        return bool(self._segments.all)

    @property
    def size(self) -> int:
        """Bytes of all segments."""
        return self._segments.size

    @property
    def synced_end(self) -> int:
        """One past the last record that is known to survive a power loss: see Checkpoints."""
        return self._checkpoints.synced_end

    @property
    def high_watermark(self) -> int:
        """A lower bound from the checkpoint; then whatever the owner sets."""
        return self._checkpoints.high_watermark

    @high_watermark.setter
    def high_watermark(self, offset: int) -> None:
        self._checkpoints.high_watermark = offset

    @property
    def hw_epoch(self) -> int:
        """The leader_epoch under which high_watermark was learnt; -1 if none."""
        return self._checkpoints.hw_epoch

    @hw_epoch.setter
    def hw_epoch(self, epoch: int) -> None:
        self._checkpoints.hw_epoch = epoch

    async def segments(self) -> list[SegmentInfo]:
        """Describe the segments, oldest first, for retention; reads indexes that are not loaded."""
        try:
            return await self._segments.describe()
        except (OSError, CorruptRecordError) as error:
            raise self._guard.error("can't read", error, nothing_done=True) from error

    # Appends

    async def append(self, batches: Batches) -> None:
        """Append batches, whose headers carry their final offsets and epochs; one write for all.

        They are in the page cache when it returns, and only then does log_end_offset move.
        TryAgainError leaves the log as it was; any other failure ends its use.
        """
        if batches:
            async with self._guard.exclusive("append"):
                await self._appender.append(batches)

    async def roll(self) -> None:
        """Close the active segment, if it has records, and begin a new one.

        TryAgainError leaves the log as it was.
        """
        async with self._guard.exclusive("roll"):
            if self._segments.all and self._segments.active.size:
                await self._appender.roll()

    def configure(self, config: LogConfig) -> None:
        """Keep the open log as `config` says; the next append obeys it.

        Only the segment size can change on an open log: the rest belongs to how it was opened.
        """
        self._parts.config = replace(self._parts.config, segment_bytes=config.segment_bytes)

    # Reads

    async def read(
        self, offset: int, *, end: int, bytes_max: int, at_least_one: bool = True
    ) -> bytes:
        """Return whole batches from the one that holds `offset`, all ending at or below `end`.

        At most `bytes_max` bytes; with `at_least_one` the first batch even if it is larger. Empty
        if there is none, or if the log was cut meanwhile. Ends at a segment's end. Raises
        OffsetOutOfRangeError, LogCorruptError, StorageError.
        """
        self._guard.check()
        extent = self._extent
        if not extent.start <= offset <= extent.end:
            raise OffsetOutOfRangeError(
                f"{self._directory.path}: offset {offset} is not in [{extent.start}, {extent.end}]"
            )
        end = min(end, extent.end)
        if offset >= end or (bytes_max <= 0 and not at_least_one):
            return b""
        truncations = extent.truncations
        try:
            found = await self._reader.read(offset, end, bytes_max, at_least_one=at_least_one)
        except (OSError, CorruptRecordError) as error:
            if truncations != extent.truncations or offset < extent.start:
                return b""
            raise self._guard.error("can't read", error, nothing_done=True) from error
        return found if truncations == extent.truncations else b""

    async def offset_for_time(self, timestamp_ms: int, *, end: int) -> tuple[int, int] | None:
        """Return (offset, timestamp) of the first record below `end` at or after the timestamp."""
        self._guard.check()
        truncations = self._extent.truncations
        try:
            found = await first_at(self._directory.disk, self._segments, timestamp_ms, end)
        except (OSError, CorruptRecordError) as error:
            if truncations != self._extent.truncations:
                return None
            raise self._guard.error("can't search", error, nothing_done=True) from error
        return found if truncations == self._extent.truncations else None

    # What survives

    async def sync(self) -> int:
        """Make all that is appended now survive a power loss; return its end offset.

        A second call during a sync shares the next one. StorageError for good after a failure.
        """
        await self._syncer.sync_to(self._extent.end)
        return self._checkpoints.synced_end

    async def checkpoint_high_watermark(self, offset: int, epoch: int) -> None:
        """Remember a high watermark and the leader_epoch under which it was learnt."""
        checkpoints = self._checkpoints
        checkpoints.high_watermark = offset
        checkpoints.hw_epoch = epoch
        if not self._segments.all or checkpoints.high_watermark_slot.value == (offset, epoch):
            return
        async with self._guard.exclusive("checkpoint"):
            if checkpoints.high_watermark == offset:  # else a newer one waits for its turn
                await checkpoints.save_high_watermark(offset, epoch)

    # Cuts

    async def truncate(self, end_offset: int) -> None:
        """Cut the log to `end_offset`; a batch that lies across it goes as a whole.

        When it returns the cut is durable. Nothing happens if the log ends there already.
        """
        if end_offset >= self._extent.end:
            self._guard.check()
        elif end_offset < self._extent.start:
            await self.truncate_fully_and_start_at(end_offset)
        else:
            async with self._guard.exclusive("truncate"):
                await self._cutter.cut_end(end_offset)

    async def truncate_fully_and_start_at(self, offset: int) -> None:
        """Drop every record; the next one appended has `offset`."""
        async with self._guard.exclusive("truncate"):
            await self._cutter.start_again_at(offset)

    async def delete_segments_below(self, offset: int) -> int:
        """Remove whole segments whose records all lie below `offset`; return how many.

        The active one stays. log_start_offset moves to the first one left.
        """
        async with self._guard.exclusive("delete"):
            return await self._cutter.delete_below(offset)

    async def accept_start(self) -> None:
        """No other replica has what is missing at the start: the log begins where it does."""
        if self._extent.lost_start is not None:
            async with self._guard.exclusive("accepting the start"):
                await self._checkpoints.move_start(self._extent.start)
                self._extent.lost_start = None

    # Damage

    async def forget_damage(self) -> None:
        """No other node counts on what this log had any more: the next open need not tell of it."""
        if await self._directory.has(DAMAGED_FILE):
            async with self._guard.exclusive("forgetting damage"):
                await self._directory.unmark_durably(DAMAGED_FILE)

    async def note_corrupt(self) -> None:
        """Remember durably that bytes of this log are bad: it must be salvaged before it is opened.

        Also of a log that has failed. A StorageError leaves the log as it was.
        """
        with leaving_all_as_it_was(f"{self._directory.path}: can't note that it is corrupt"):
            await self._directory.mark_durably(CORRUPT_FILE)

    async def forget_corrupt(self) -> None:
        """Forget it for the only copy: the next open must not cut what is good behind bad bytes."""
        with leaving_all_as_it_was(f"{self._directory.path}: can't forget that it is corrupt"):
            await self._directory.unmark_durably(CORRUPT_FILE)

    # The end

    async def close(self, *, clean: bool) -> None:
        """Close the files; if `clean`, first make everything durable, StorageError if it can't."""
        guard = self._guard
        if guard.is_closed:
            return
        try:
            if clean and self._segments.all and guard.failure is None and self._extent.is_changed:
                await self._prepare_stop()
            elif clean:
                guard.check()
        finally:
            guard.is_closed = True
            await self._syncer.stop()
            await self._parts.close()

    async def _prepare_stop(self) -> None:
        """Sync all records, and leave what makes the next start quick where there is room."""
        checkpoints = self._checkpoints
        async with self._guard.exclusive("close"):
            await self._appender.save_indexes()
            await checkpoints.save_high_watermark(
                checkpoints.high_watermark, checkpoints.hw_epoch, sync=True
            )
            self._directory.changed()
        await self.sync()
        async with self._guard.exclusive("close"):
            await checkpoints.save_synced()
