"""The log on disk: one implementation for the metadata log and for every partition.

A directory holds segments, their indexes, the leader-epoch checkpoint, snapshots of an Observer's
state, slot files and markers (see directory.py). Each role has its module:

    recovery, scan       at open: find the good batches, cut the rest
    segments, segment    the files of batches, with their indexes
    appender             new batches, and new segments for them
    reader, time_lookup  the search for the bytes that a reader asks for
    verifier, verification  what is read was written so
    syncer               syncs, after which records survive a power loss
    recovery_point       what lets an open after a crash read only the end
    checkpoints          durable values: the synced end, the high watermark, the log's start
    cutter               cuts at the end, at the start (also inside a segment), and of everything
    compaction           what a log must know if records may be gone from its middle
    observer, observed   state that follows the log
    guard                one writer at a time, and no use after a failed write
    extent               which records the log holds now
    damage_notes         notes of damage that outlast the process

Appends, cuts and rolls take turns; reads overlap them. After the first failed write or sync every
call raises StorageError: only a new open can tell what the log holds. ReopenError is about this
log alone, a bare StorageError about its disk (disk_errors.py).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from quorate.errors import CorruptRecordError, OffsetOutOfRangeError
from quorate_quorum.disk import Disk
from quorate_quorum.log.appender import Appender, Batches
from quorate_quorum.log.compaction import Compaction
from quorate_quorum.log.config import AT_OPEN, LogConfig
from quorate_quorum.log.cutter import Cutter
from quorate_quorum.log.damage_notes import DamageNotes
from quorate_quorum.log.epochs import EpochCache
from quorate_quorum.log.guard import LogCorruptError
from quorate_quorum.log.observed import ObservedState
from quorate_quorum.log.observer import Observer
from quorate_quorum.log.parts import Parts
from quorate_quorum.log.reader import Reader
from quorate_quorum.log.recovery import Recovered, Recovery
from quorate_quorum.log.recovery_point import RecoveryPoint
from quorate_quorum.log.run_file import UNKNOWN, Run
from quorate_quorum.log.segment import Inspect
from quorate_quorum.log.segments import SegmentInfo
from quorate_quorum.log.syncer import Syncer
from quorate_quorum.log.time_lookup import first_at
from quorate_quorum.log.verification import Verification

T = TypeVar("T")

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
        self._cutter = Cutter(parts, syncer, self._reader, observed)
        self.recovery_point = RecoveryPoint(parts, syncer, observed)
        self.compaction = Compaction(parts, self._reader)
        self.verification = Verification(parts, self._reader)
        self.damage = DamageNotes(parts, is_noted=bool(recovered.damaged))
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
        is_new: bool = False,
    ) -> Log:
        """Open a log; an empty one if the directory has none. Nothing is made before an append.

        `run` is what the log directory says of its last run. `inspect` checks every batch, so it
        needs verify_all; a batch that it refuses counts as bad. `is_new`: there is no directory.

        LogCorruptError if bytes below the last known sync are bad.
        ReopenError if a later open may succeed, or if only the log's files are to blame.
        StorageError if the disk fails.
        """
        assert inspect is None or config.verify_all
        parts = Parts(disk, directory, config)
        syncer = Syncer(parts)
        recovery = Recovery(parts, syncer, run, inspect)
        observed = None if observer is None else ObservedState(observer, parts)
        try:
            if not is_new:
                await recovery.carry_out()
            if parts.extent.end < parts.extent.start:  # no record at or above the start is left
                reader = Reader(parts.segments, parts.extent)
                await Cutter(parts, syncer, reader, None).start_again_at(parts.extent.start)
            if observed is not None and parts.segments.all:
                await observed.reload()
            recovered = await recovery.conclude()
        except BaseException as error:
            await parts.close()
            if isinstance(error, OSError | CorruptRecordError):
                raise parts.guard.error("can't open the log", error, nothing_done=False) from error
            raise
        return cls(parts, syncer, observed, recovered)

    # The records

    @property
    def log_start_offset(self) -> int:
        """The first offset that can be read. This offset may lie inside a segment or a batch."""
        return self._extent.start

    @property
    def log_end_offset(self) -> int:
        """One past the last record."""
        return self._extent.end

    @property
    def lost_start(self) -> int | None:
        """The log's former start, if segments there were lost; None if no segment was lost."""
        return self._extent.lost_start

    @property
    def truncations(self) -> int:
        """The number of cuts so far. An operation that waited compares it: see Extent."""
        return self._extent.truncations

    @property
    def epochs(self) -> EpochCache:
        return self._extent.epochs

    @property
    def last_epoch(self) -> int:
        """The leader_epoch of the last record; -1 if there is none."""
        return self._extent.epochs.last

    @property
    def has_segments(self) -> bool:
        """Whether a record was ever appended to this log."""
        return bool(self._segments.all)

    @property
    def size(self) -> int:
        """The size of all segments in bytes."""
        return self._segments.size

    @property
    def synced_end(self) -> int:
        """One past the last record that is known to survive a power loss (Checkpoints)."""
        return self._checkpoints.synced_end

    @property
    def high_watermark(self) -> int:
        """At first the checkpoint's value, a lower bound; later the value that the owner sets."""
        return self._checkpoints.high_watermark

    @high_watermark.setter
    def high_watermark(self, offset: int) -> None:
        self._checkpoints.high_watermark = offset

    @property
    def hw_epoch(self) -> int:
        """The leader_epoch in which the owner learnt high_watermark; -1 if there is none."""
        return self._checkpoints.hw_epoch

    @hw_epoch.setter
    def hw_epoch(self, epoch: int) -> None:
        self._checkpoints.hw_epoch = epoch

    async def segments(self) -> list[SegmentInfo]:
        """Describe the segments, oldest first, for retention. Empty if the log is cut meanwhile."""
        return await self._unless_cut(self._segments.describe(), [], "can't read")

    def on_roll(self, rolled: Callable[[], None]) -> None:
        self._appender.rolled = rolled

    def segment_base(self, offset: int) -> int:
        """Return the base offset of the segment that holds `offset`; of the first if none does."""
        return self._segments.bases[max(self._segments.at(offset), 0)]

    # Appends

    async def append(self, batches: Batches) -> None:
        """Append batches in one write. Their headers have the final offsets and epochs.

        After the call the batches are in the page cache, and log_end_offset has moved.
        TryAgainError leaves the log as it was; any other failure ends the use of the log.
        """
        if batches:
            async with self._guard.exclusive("append"):
                await self._appender.append(batches)

    async def roll(self) -> None:
        """Close the active segment, if it has records. TryAgainError leaves the log as it was."""
        async with self._guard.exclusive("roll"):
            if self._segments.all and self._segments.active.size:
                await self._appender.roll("asked")

    async def roll_if_due(self) -> bool:
        """Close the active segment if it is too old or below the start. Return if it was closed."""
        if not await self._unless_cut(self._appender.why_roll_idle(), "", "can't read"):
            return False
        async with self._guard.exclusive("roll"):
            reason = await self._appender.why_roll_idle()
            if reason:
                await self._appender.roll(reason)
            return bool(reason)

    def configure(self, config: LogConfig) -> None:
        """Apply a new configuration from now on. The settings in AT_OPEN stay as they were."""
        now = self._parts.config
        self._parts.config = replace(config, **{name: getattr(now, name) for name in AT_OPEN})

    # Reads

    async def read(
        self, offset: int, *, end: int, bytes_max: int, at_least_one: bool = True
    ) -> bytes:
        """Return whole batches that end at or below `end`. The first one holds `offset`.

        In a gap of a compacted log, it is the next one after the gap. The batches have at most
        `bytes_max` bytes; with `at_least_one` the first may be larger. They never cross the end of
        a segment. The result is empty if there is no such batch, or if the log was cut meanwhile.
        Raises OffsetOutOfRangeError, LogCorruptError, StorageError.
        """
        self._guard.check()
        extent = self._extent
        if not extent.start <= offset <= extent.end:
            raise OffsetOutOfRangeError(
                f"{self._directory.path}: offset {offset} is not in [{extent.start}, {extent.end}]"
            )
        end, truncations = min(end, extent.end), extent.truncations
        if offset >= end or (bytes_max <= 0 and not at_least_one):
            return b""
        try:
            found = await self._reader.read(offset, end, bytes_max, at_least_one=at_least_one)
        except (OSError, CorruptRecordError) as error:
            if truncations != extent.truncations or offset < extent.start:
                return b""
            raise self._guard.error("can't read", error, nothing_done=True) from error
        return found if truncations == extent.truncations else b""

    async def offset_for_time(self, time_ms: int | None, *, end: int) -> tuple[int, int] | None:
        """Return the result of `first_at`: the first record below `end` at or after a time."""
        self._guard.check()
        verifier = self._reader.verifier
        searching = first_at(self._segments, verifier, time_ms, self._extent.start, end)
        return await self._unless_cut(searching, None, "can't search")

    async def _unless_cut(self, reading: Awaitable[T], otherwise: T, what: str) -> T:
        """Await a read. Return `otherwise` if the log is cut meanwhile: the read may be wrong."""
        truncations = self._extent.truncations
        try:
            found = await reading
        except (OSError, CorruptRecordError) as error:
            if truncations != self._extent.truncations:
                return otherwise
            raise self._guard.error(what, error, nothing_done=True) from error
        return found if truncations == self._extent.truncations else otherwise

    # Durability

    async def sync(self) -> int:
        """Make all records that are appended now survive a power loss. Return their end offset.

        Calls during a sync share the next one. After a failure every call raises StorageError.
        """
        await self._syncer.sync_to(self._extent.end)
        return self._checkpoints.synced_end

    async def checkpoint_high_watermark(self, offset: int, epoch: int) -> None:
        """Write down a high watermark, and the leader_epoch in which the owner learnt it."""
        checkpoints = self._checkpoints
        checkpoints.high_watermark = offset
        checkpoints.hw_epoch = epoch
        if not self._segments.all or checkpoints.high_watermark_slot.value == (offset, epoch):
            return
        async with self._guard.exclusive("checkpoint"):
            if checkpoints.high_watermark == offset:  # if not, a later call writes the newer value
                await checkpoints.save_high_watermark(offset, epoch)

    # Cuts

    async def truncate(self, end_offset: int) -> None:
        """Cut the log to `end_offset`. A batch that lies across it is removed as a whole.

        After the call the cut is durable. Nothing happens if the log ends there or below.
        """
        if end_offset >= self._extent.end:
            self._guard.check()
        elif end_offset < self._extent.start:
            await self.truncate_fully_and_start_at(end_offset)
        else:
            async with self._guard.exclusive("truncate"):
                await self._cutter.cut_end(end_offset)

    async def truncate_fully_and_start_at(self, offset: int) -> None:
        """Remove every record. The next record that is appended gets `offset`."""
        async with self._guard.exclusive("truncate"):
            await self._cutter.start_again_at(offset)

    async def move_start(self, offset: int) -> None:
        """Let the log begin at `offset`, durably. Nothing happens unless start < offset <= end.

        TryAgainError leaves the log as it was. `remove_below_start` then frees the disk.
        """
        if self._extent.start < offset <= self._extent.end:
            async with self._guard.exclusive("moving the start"):
                await self._cutter.move_start(offset)

    async def begin_below(self, base_offset: int) -> None:
        """Let the first batch of an empty log begin at `base_offset`, below the log's start."""
        async with self._guard.exclusive("beginning inside a batch"):
            await self._cutter.begin_below(base_offset)

    async def remove_below_start(self) -> None:
        """Remove the segments that lie below the start as a whole; the active one stays.

        Appends go on between two removals. After a crash an open removes the rest.
        """
        while self._cutter.has_segments_below_start:
            async with self._guard.exclusive("delete"):
                await self._cutter.drop_below_start()

    # The stop

    async def close(self, *, clean: bool) -> None:
        """Close the files. If `clean`, sync all records first: StorageError if that fails.

        Before many logs are closed, call recovery_point.save() of each.
        """
        if self._guard.is_closed:
            return
        try:
            if clean:
                self._guard.check()
                await self.recovery_point.conclude()
        finally:
            await self._guard.close()
            await self._syncer.stop()
            await self._parts.close()
