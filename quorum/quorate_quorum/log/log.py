"""The log on disk: one implementation for the metadata log and for every partition.

A directory holds segments, their indexes, the leader-epoch checkpoint, snapshots of an observer's
state, and slot files: `synced`, the end offset that is known to have survived a sync,
`high-watermark`, and `log-start` once the log begins above 0. The rules that keep it true:

* `synced` moves only after a sync of the log has succeeded, and is itself synced before `sync`
  returns: nothing above it was ever told to be safe. Before a cut below it, the lower end is
  written there and synced. So at open, whatever is bad below it is corruption, and
  whatever is bad above it is a tail to cut. (An older one, after a power loss, would make a tail
  out of a damaged record that a majority counts on: docs/guarantees.md.)
* A cut is synced before the next append: bytes that were cut never come back between newer ones
  (R8). Whole segments go last first, so that what a crash leaves is a prefix. While a cut is under
  way there is a file `cutting`: whoever finds it at open syncs what he sees before he goes on, for
  a process may have died between the cut and its sync, and the power may yet fail.
* Batches above `synced` must follow one another without a gap and with epochs that never fall;
  everything from the first that does not is cut, whatever valid bytes follow.
* With `track_synced`, bytes above `synced` are written again and synced before use: a sync that
  failed may have left pages that read well and are nowhere else (law 6).
* The log begins at or below `log-start`, and each segment ends where the next one begins. One that
  begins higher has lost its first segments (`lost_start`), one with a gap is corrupt: records would
  be passed over in silence, and what a leader has not is dropped by its followers.
* Everything else (indexes, epochs, snapshots) can be built again from the batches.
* What completed writes had put there and is gone (within a boot: a bad batch that no kill explains;
  in any: an end below the high watermark's checkpoint) is told in `recovered.damaged`. It stays
  told, by the file `damaged`, until the owner says that nobody counts on this log any more.
* Bytes that are found to be bad while the log is in use may lie where no open looks. The file
  `corrupt` remembers them: the log is corrupt at every open until it has been salvaged.

Whether the last run stopped cleanly is a matter of the log directory: see run_file. It decides
only what `recovered` says of a cut; it is never a reason not to look at the tail.

Appends, cuts and rolls take their turns; reads overlap them. After the first failed write or sync
everything raises StorageError: open the log again to find out what is there. What the error was
about says who must: ReopenError means this log alone, StorageError the disk (disk_errors).
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace

import structlog

from quorate.errors import (
    CorruptRecordError,
    OffsetOutOfRangeError,
    StorageError,
    UnsupportedError,
)
from quorate.record.batch import (
    HEADER_BYTES,
    BatchHeader,
    check,
    decompressed_size_bound,
    find_by_time,
    parse_header,
)
from quorate_quorum.log import epochs as epoch_file
from quorate_quorum.log.chain import gap_after
from quorate_quorum.log.disk import Buffer, Disk, File, read_whole, replace_whole
from quorate_quorum.log.disk_errors import (
    ReopenError,
    TryAgainError,
    done_without,
    is_of_disk,
    is_passing,
    storage_error,
)
from quorate_quorum.log.epochs import EpochCache
from quorate_quorum.log.observer import Observer, ObserverSnapshots
from quorate_quorum.log.run_file import UNKNOWN, Run
from quorate_quorum.log.segment import (
    BATCH_BYTES_MAX,
    INDEX,
    LOG,
    RELATIVE_MAX,
    TIME_INDEX,
    Inspect,
    Segment,
    file_name,
    offset_of,
    walk,
)
from quorate_quorum.log.slots import SlotFile
from quorate_quorum.log.torn import is_torn

log = structlog.get_logger(__name__)

SYNCED_FILE = "synced"
HIGH_WATERMARK_FILE = "high-watermark"
LOG_START_FILE = "log-start"
CUTTING_FILE = "cutting"
#: Made before a damaged end is cut: whoever finds it at open knows that this log had more.
DAMAGED_FILE = "damaged"
#: Made when bytes of a log in use are found to be bad: an open that checks only the end would not
#: find them again. Such a log opens for salvage alone, which removes the file.
CORRUPT_FILE = "corrupt"
#: How many of the newest batches' positions are kept: reads at the end need no index.
RECENT_BATCHES_MAX = 4096
#: How many readers' next positions are kept: a reader that goes on needs no index either.
READERS_MAX = 32
#: Of how many closed segments the indexes stay in memory (at most 5 MiB each).
INDEXES_MAX = 4
#: Rewriting the tail copies this much at a time.
_COPY_BYTES = 1024 * 1024
#: Batches noted in one turn of the loop: a few milliseconds.
_TURN_MAX = 512
#: A larger batch is searched for a time in a thread.
SEARCHED_IN_A_TURN_BYTES = 32 * 1024


class LogCorruptError(StorageError):
    """Bytes that had survived a sync are not what they were (law 7)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """How a log is kept."""

    #: A segment is closed before it would grow beyond this; at most 2 GiB - 1.
    segment_bytes: int = 1 << 30
    #: Bytes between two entries of the offset index.
    index_interval_bytes: int = 4096
    #: Acknowledgements wait for syncs (the metadata log, flush.on.ack): write the tail again.
    track_synced: bool = False
    #: Check every batch at open, not only those that no sync is known to have covered.
    verify_all: bool = False
    #: The observer's state is written down after so many batches, or bytes of them: what is
    #: replayed after a cut, or at open, is about that much.
    snapshot_batches: int = 20_000
    snapshot_bytes: int = 64 << 20
    #: Keep the good batches of a log that is corrupt below what was synced, and say that it is
    #: damaged. Goes with verify_all.
    salvage: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.segment_bytes <= RELATIVE_MAX:
            raise ValueError(f"segment_bytes must be 1 to {RELATIVE_MAX}, not {self.segment_bytes}")
        if self.index_interval_bytes < 0:
            raise ValueError(
                f"index_interval_bytes must be 0 or more, not {self.index_interval_bytes}"
            )


@dataclass(frozen=True, slots=True)
class Recovered:
    """What open() found."""

    #: The directory's last run had stopped cleanly.
    was_clean: bool
    #: The machine has not been booted since: completed writes are all there.
    same_boot: bool
    #: Bytes at the end that were no valid batches, and are gone.
    cut_bytes: int
    #: Whole batches may have been cut: it was not just the write that a crash interrupted.
    lossy: bool
    #: Why less is there than completed writes had put there, though the last run's tail should be
    #: intact; "": that is not so.
    damaged: str = ""


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """A segment, as retention looks at it."""

    base_offset: int
    end_offset: int
    size: int
    max_timestamp: int


class Log:
    """An open log. Use `Log.open`."""

    def __init__(
        self, disk: Disk, directory: str, config: LogConfig, observer: Observer | None
    ) -> None:
        self._disk = disk
        self._directory = directory
        self._config = config
        self._observer = observer
        self._snapshots = ObserverSnapshots(disk, directory)
        #: Batches, and their bytes, that the newest snapshot does not have.
        self._unsaved_batches = self._unsaved_bytes = 0
        self._segments: list[Segment] = []
        self._bases: list[int] = []
        self._synced_slot = SlotFile(disk, f"{directory}/{SYNCED_FILE}")
        self._high_watermark_slot = SlotFile(disk, f"{directory}/{HIGH_WATERMARK_FILE}")
        self._start_slot = SlotFile(disk, f"{directory}/{LOG_START_FILE}")
        self._writing = asyncio.Lock()
        self._syncing = asyncio.Lock()
        self._slot_writing = asyncio.Lock()
        self._naming = asyncio.Lock()
        self._rolled: asyncio.Task[None] | None = None
        #: What ended its use.
        self._failure: StorageError | None = None
        self._closed = False
        #: Entries of the directory that no directory sync has covered yet.
        self._unsynced_names = False
        self._unsynced_parent = False
        #: Something is to be written at a clean stop.
        self._changed = False
        #: Ends of the newest batches of the active segment, and where they lie; grow in step.
        self._recent_offsets: list[int] = []
        self._recent_positions: list[int] = []
        #: Closed segments whose index is in memory, the last used one last.
        self._indexed: OrderedDict[int, Segment] = OrderedDict()
        self._readers: OrderedDict[int, tuple[Segment, int]] = OrderedDict()
        self.recovered = Recovered(False, False, 0, False)
        #: First offset held.
        self.log_start_offset = 0
        #: Where it had begun, if segments at its start are gone.
        self.lost_start: int | None = None
        #: One past the last record.
        self.log_end_offset = 0
        #: How often the log was cut; whoever began something before a cut compares it.
        self.truncations = 0
        #: One past the last record that survived a sync that succeeded, as the slot says durably
        #: (of a log that was opened without track_synced: from the first sync on).
        self.synced_end = 0
        #: A lower bound from the checkpoint; then whatever the owner sets.
        self.high_watermark = 0
        #: The leader_epoch under which high_watermark was learnt; -1 if none.
        self.hw_epoch = -1
        self.epochs = EpochCache()

    @property
    def last_epoch(self) -> int:
        """The leader_epoch of the last record; -1 if the log never had one."""
        return self.epochs.last

    @property
    def size(self) -> int:
        """Bytes of all segments."""
        return sum(segment.size for segment in self._segments)

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
        opened = cls(disk, directory, config, observer)
        try:
            await _Recovery(opened, run, inspect).carry_out()
        except OSError as error:
            await opened._close_files()
            raise storage_error(f"{directory}: can't open the log", error) from error
        except CorruptRecordError as error:
            await opened._close_files()
            raise LogCorruptError(f"{directory}: can't open the log: {error}") from error
        except BaseException:
            await opened._close_files()
            raise
        return opened

    async def append(self, batches: Sequence[tuple[BatchHeader, Sequence[Buffer]]]) -> None:
        """Append batches, whose headers carry their final offsets and epochs; one write for all.

        They are in the page cache when it returns, and only then does log_end_offset move.
        TryAgainError leaves the log as it was; any other failure ends its use.
        """
        if not batches:
            return
        async with self._exclusive("append"):
            size = 0
            expected = self.log_end_offset
            epoch = self.epochs.last
            pieces: list[Buffer] = []
            for header, parts in batches:
                assert header.base_offset == expected, (header.base_offset, expected)
                assert header.leader_epoch >= epoch, (header.leader_epoch, epoch)
                assert header.size <= BATCH_BYTES_MAX, header.size
                expected = header.end_offset
                epoch = header.leader_epoch
                size += header.size
                pieces.extend(parts)
            try:
                segment = await self._segment_for(size, expected)
                if epoch != self.epochs.last:
                    await self._note_epochs(batches)
                index = await segment.loaded_index()
                position = await segment.file.append(pieces)
            except OSError as error:
                if not is_passing(error):
                    raise
                self.epochs.truncate_from_end(self.log_end_offset)
                raise storage_error(self._directory, error, nothing_done=True) from error
            assert position == segment.size, (position, segment.size)
            segment.size += size
            assert segment.file.size == segment.size, "headers and pieces differ in size"
            for number, (header, _) in enumerate(batches, 1):
                segment.add_to(index, position, header)
                position += header.size
                self._recent_offsets.append(header.end_offset)
                self._recent_positions.append(position)
                if self._observer is not None:
                    self._observer.observe(header)
                if number % _TURN_MAX == 0:
                    await asyncio.sleep(0)
            self._changed = True
            if len(self._recent_offsets) > RECENT_BATCHES_MAX:
                del self._recent_offsets[: -RECENT_BATCHES_MAX // 2]
                del self._recent_positions[: -RECENT_BATCHES_MAX // 2]
            self.log_end_offset = expected
            self._unsaved_batches += len(batches)
            self._unsaved_bytes += size
            await self._save_observer_if_due()

    async def read(
        self, offset: int, *, end: int, bytes_max: int, at_least_one: bool = True
    ) -> bytes:
        """Return whole batches from the one that holds `offset`, all ending at or below `end`.

        At most `bytes_max` bytes; with `at_least_one` the first batch even if it is larger. Empty
        if there is none, or if the log was cut meanwhile. Ends at a segment's end. Raises
        OffsetOutOfRangeError, LogCorruptError, StorageError.
        """
        self._check_usable()
        if not self.log_start_offset <= offset <= self.log_end_offset:
            raise OffsetOutOfRangeError(
                f"{self._directory}: offset {offset} is not in "
                f"[{self.log_start_offset}, {self.log_end_offset}]"
            )
        end = min(end, self.log_end_offset)
        if offset >= end or (bytes_max <= 0 and not at_least_one):
            return b""
        truncations = self.truncations
        try:
            if self._recent_offsets and offset >= self._recent_offsets[0]:
                found = await self._read_recent(offset, end, bytes_max, at_least_one)
            else:
                found = await self._read_older(offset, end, bytes_max, at_least_one)
        except (OSError, CorruptRecordError) as error:
            if truncations != self.truncations or offset < self.log_start_offset:
                return b""
            raise self._read_error("can't read", error) from error
        return found if truncations == self.truncations else b""

    async def sync(self) -> int:
        """Make all that is appended now survive a power loss; return its end offset.

        A second call during a sync shares the next one. StorageError for good after a failure.
        """
        await self._sync_to(self.log_end_offset)
        return self.synced_end

    async def truncate(self, end_offset: int) -> None:
        """Cut the log to `end_offset`; a batch that lies across it goes as a whole.

        When it returns the cut is durable. Nothing happens if the log ends there already.
        """
        if end_offset >= self.log_end_offset:
            self._check_usable()
            return
        if end_offset < self.log_start_offset:
            await self.truncate_fully_and_start_at(end_offset)
            return
        async with self._exclusive("truncate"):
            at = max(bisect_right(self._bases, end_offset) - 1, 0)
            segment = self._segments[at]
            position = await segment.position_of(end_offset)
            end_offset = await self._end_offset_at(at, position, end_offset)
            await self._begin_cut(end_offset)
            await self._lower_slots(end_offset)
            for last in reversed(self._segments[at + 1 :]):
                await self._drop(last)
            if await self._snapshots.remove_above(end_offset):
                self._unsynced_names = True
            await segment.remove_index_files()
            self._unsynced_names = True
            await self._sync_names()
            await segment.cut(position, end_offset)
            await self._end_cut()
            self._start_recent()
            self.epochs.truncate_from_end(end_offset)
            await self._write_epochs_if_possible()
            await self._reload_observer()

    async def truncate_fully_and_start_at(self, offset: int) -> None:
        """Drop every record; the next one appended has `offset`."""
        async with self._exclusive("truncate"):
            await self._begin_cut(self.log_start_offset)
            known = self._known_start()
            if offset > known:
                await self._write_start(offset)
            if self._segments:
                await self._lower_slots(min(self.log_start_offset, offset))
                for last in reversed(self._segments[1:]):
                    await self._drop(last)
                if await self._snapshots.remove_above(-1):
                    self._unsynced_names = True
                await self._move_emptied(self._segments.pop(), offset)
                self._bases.pop()
            self.epochs = EpochCache()
            self.log_start_offset = self.log_end_offset = self.synced_end = offset
            self.high_watermark = offset
            await self._new_segment()
            await self._write_epochs_if_possible()
            await self._end_cut()
            if offset < known:
                await self._write_start(offset)
            self.lost_start = None
            async with self._slot_writing:
                with done_without("synced", self._directory):  # it was lowered above
                    await self._replace_synced(offset)
            await self._reload_observer()

    async def delete_segments_below(self, offset: int) -> int:
        """Remove whole segments whose records all lie below `offset`; return how many.

        The active one stays. log_start_offset moves to the first one left.
        """
        count = 0
        async with self._exclusive("delete"):
            if len(self._segments) > 1 and self._bases[1] <= offset:
                # First the names of what stays: a power loss may keep a removal alone.
                await self._sync_names()
                await self._write_start(self._bases[bisect_right(self._bases, offset) - 1])
            while len(self._segments) > 1 and self._bases[1] <= offset:
                segment = self._segments[0]
                self.log_start_offset = self._bases[1]
                await self._drop(segment)
                count += 1
            if count and self.epochs.truncate_from_start(self.log_start_offset):
                await self._write_epochs_if_possible()
        return count

    async def offset_for_time(self, timestamp_ms: int, *, end: int) -> tuple[int, int] | None:
        """Return (offset, timestamp) of the first record below `end` at or after the timestamp."""
        self._check_usable()
        truncations = self.truncations
        try:
            for segment in list(self._segments):
                if segment.base_offset >= end:
                    break
                try:
                    newest = await segment.max_timestamp()
                    self._used_index_of(segment)
                    if newest < timestamp_ms:
                        continue
                    found = await self._search_time(segment, timestamp_ms, end)
                    self._used_index_of(segment)
                except (OSError, CorruptRecordError):
                    if segment in self._segments:
                        raise
                    continue  # it was removed meanwhile
                if found is not None:
                    return found if truncations == self.truncations else None
        except (OSError, CorruptRecordError) as error:
            if truncations != self.truncations:
                return None
            raise self._read_error("can't search", error) from error
        return None

    async def segments(self) -> list[SegmentInfo]:
        """Describe the segments, oldest first, for retention; reads indexes that are not loaded."""
        found = []
        for segment, next_base in self._with_next_base():
            try:
                newest = await segment.max_timestamp()
            except (OSError, CorruptRecordError) as error:
                raise self._read_error("can't read", error) from error
            end = min(next_base, self.log_end_offset)
            found.append(SegmentInfo(segment.base_offset, end, segment.size, newest))
            self._used_index_of(segment)
        return found

    async def roll(self) -> None:
        """Close the active segment, if it has records, and begin a new one.

        TryAgainError leaves the log as it was.
        """
        async with self._exclusive("roll"):
            if self._segments and self._segments[-1].size:
                try:
                    await self._roll()
                except OSError as error:
                    if not is_passing(error):
                        raise
                    raise storage_error(self._directory, error, nothing_done=True) from error

    async def checkpoint_high_watermark(self, offset: int, epoch: int) -> None:
        """Remember a high watermark and the leader_epoch under which it was learnt."""
        self.high_watermark = offset
        self.hw_epoch = epoch
        if not self._segments or self._high_watermark_slot.value == (offset, epoch):
            return
        async with self._exclusive("checkpoint"):
            if self.high_watermark == offset:
                with done_without("high watermark", self._directory):  # an older one is a bound too
                    if await self._high_watermark_slot.write(offset, epoch):
                        self._unsynced_names = True

    @property
    def has_segments(self) -> bool:
        """Whether anything was ever appended here."""
        return bool(self._segments)

    async def forget_damage(self) -> None:
        """Nobody counts any more on what this log had: the next open is not to tell of it."""
        if await self._disk.exists(f"{self._directory}/{DAMAGED_FILE}"):
            async with self._exclusive("forgetting damage"):
                await self._remove_note(DAMAGED_FILE)

    async def note_corrupt(self) -> None:
        """Remember durably that bytes of this log are bad: it must be salvaged before it is opened.

        Also of a log that has failed. A StorageError leaves the log as it was.
        """
        try:
            await self._make_note(CORRUPT_FILE)
        except OSError as error:
            what = f"{self._directory}: can't note that it is corrupt"
            raise storage_error(what, error, nothing_done=True) from error

    async def forget_corrupt(self) -> None:
        """It is the only copy: the next open is not to cut what is good behind the bad bytes."""
        try:
            await self._remove_note(CORRUPT_FILE)
        except OSError as error:
            what = f"{self._directory}: can't forget that it is corrupt"
            raise storage_error(what, error, nothing_done=True) from error

    async def _make_note(self, name: str) -> None:
        file = await self._disk.open(f"{self._directory}/{name}", create=True)
        await file.close()
        await self._disk.sync_directory(self._directory)

    async def _remove_note(self, name: str) -> None:
        path = f"{self._directory}/{name}"
        if await self._disk.exists(path):
            await self._disk.remove(path)
            await self._disk.sync_directory(self._directory)

    async def accept_start(self) -> None:
        """Nobody has what is missing at the start: the log begins where it does."""
        if self.lost_start is not None:
            async with self._exclusive("accepting the start"):
                await self._write_start(self.log_start_offset)
                self.lost_start = None

    def configure(self, *, segment_bytes: int) -> None:
        """Change how the open log is kept; the next append obeys it.

        The rest of LogConfig belongs to how a log was written or opened: it can't change here.
        """
        self._config = replace(self._config, segment_bytes=segment_bytes)

    async def close(self, *, clean: bool) -> None:
        """Close the files; if `clean`, first make everything durable, StorageError if it can't."""
        if self._closed:
            return
        try:
            if clean and self._segments and self._failure is None and self._changed:
                await self._prepare_stop()
            elif clean:
                self._check_usable()
        finally:
            self._closed = True
            if self._rolled is not None:
                await asyncio.gather(self._rolled, return_exceptions=True)
            await self._close_files()

    async def _prepare_stop(self) -> None:
        """Sync all records, and leave what makes the next start quick where there is room."""
        async with self._exclusive("close"):
            with done_without("index", self._directory):
                await self._segments[-1].write_index()
            with done_without("producers", self._directory):
                await self._save_observer()
            with done_without("high watermark", self._directory):
                await self._high_watermark_slot.write(self.high_watermark, self.hw_epoch, sync=True)
            self._unsynced_names = True
        await self.sync()
        async with self._exclusive("close"), self._slot_writing:
            with done_without("synced", self._directory):  # an older one is a lower bound
                await self._advance_synced(self.synced_end)

    # Writing.

    @asynccontextmanager
    async def _exclusive(self, what: str) -> AsyncIterator[None]:
        """One writer at a time; what fails half way leaves a log that only opening can judge."""
        async with self._writing:
            self._check_usable()
            try:
                yield
            except TryAgainError:
                raise
            except StorageError as error:
                self._failure = self._failure or error
                raise
            except (OSError, CorruptRecordError) as error:
                raise self._fail(f"{what} failed", error) from error
            except BaseException:
                self._failure = self._failure or ReopenError(f"{what} was interrupted")
                raise

    def _fail(self, what: str, error: OSError | CorruptRecordError) -> StorageError:
        """End the use of this log; return what to raise."""
        if isinstance(error, CorruptRecordError):
            failure: StorageError = LogCorruptError(f"{self._directory}: {what}: {error}")
        else:
            failure = storage_error(f"{self._directory}: {what}", error)
        self._failure = self._failure or failure
        log.error("log failed", directory=self._directory, reason=str(failure))
        return failure

    def _read_error(self, what: str, error: OSError | CorruptRecordError) -> StorageError:
        """Return what to raise for a read; the log may be read and written as before."""
        if isinstance(error, CorruptRecordError):
            return LogCorruptError(f"{self._directory}: {what}: {error}")
        return storage_error(f"{self._directory}: {what}", error, nothing_done=True)

    def _check_usable(self) -> None:
        if self._failure is not None:
            raise type(self._failure)(f"{self._directory}: failed before: {self._failure}")
        if self._closed:
            raise ReopenError(f"{self._directory}: the log is closed")

    async def _segment_for(self, size: int, end_offset: int) -> Segment:
        """Return the active segment, a new one if the append would not fit."""
        if not self._segments:
            await self._make_directory()
            # No acknowledgement is to fail for its room.
            if self._config.track_synced and await self._synced_slot.reserve():
                self._unsynced_names = True
            await self._new_segment()
        active = self._segments[-1]
        grows_too_far = active.size + size > self._config.segment_bytes
        if active.size and (grows_too_far or end_offset - 1 - active.base_offset > RELATIVE_MAX):
            await self._roll()
        return self._segments[-1]

    async def _make_directory(self) -> None:
        if not await self._disk.exists(self._directory):
            await self._disk.make_directory(self._directory)
            self._unsynced_parent = True

    async def _new_segment(self) -> None:
        await self._make_directory()
        base_offset = self.log_end_offset
        path = f"{self._directory}/{file_name(base_offset, LOG)}"
        file = await self._disk.open(path, create=True)
        segment = self._add_segment(base_offset, file)
        segment.index = segment.new_index()
        self._unsynced_names = True
        self._start_recent()

    def _add_segment(self, base_offset: int, file: File) -> Segment:
        interval_bytes = self._config.index_interval_bytes
        segment = Segment(self._disk, self._directory, base_offset, file, interval_bytes)
        self._segments.append(segment)
        self._bases.append(base_offset)
        return segment

    def _start_recent(self) -> None:
        """Know the end of the log, if nothing else, by position."""
        self._recent_offsets = [self.log_end_offset]
        self._recent_positions = [self._segments[-1].size]

    def _with_next_base(self) -> list[tuple[Segment, int]]:
        """The segments, each with where the next begins; the last has one past the end."""
        if not self._segments:
            return []
        next_bases = [*self._bases[1:], self.log_end_offset + 1]
        return list(zip(self._segments, next_bases, strict=True))

    async def _roll(self) -> None:
        """Close the active segment; it is synced behind our back, one at a time."""
        if self._rolled is not None:
            await self._rolled
            self._check_usable()
        closing = self._segments[-1]
        with done_without("index", self._directory):
            await closing.write_index()
        with done_without("producers", self._directory):
            await self._save_observer()
        await self._new_segment()
        self._used_index_of(closing)
        log.info("segment rolled", directory=self._directory, base_offset=self.log_end_offset)
        self._rolled = asyncio.create_task(self._sync_rolled(self.log_end_offset))

    async def _sync_rolled(self, end: int) -> None:
        try:
            await self._sync_to(end)
        except TryAgainError:
            return  # the next sync covers it
        except StorageError:
            assert self._failure is not None  # the next call of the owner tells him

    async def _note_epochs(self, batches: Sequence[tuple[BatchHeader, Sequence[Buffer]]]) -> None:
        for header, _ in batches:
            self.epochs.assign(header.leader_epoch, header.base_offset)
        await self._write_epochs()

    async def _write_epochs(self) -> None:
        """Not synced: after a power loss an old or torn one is noticed, and built again."""
        path = f"{self._directory}/{epoch_file.FILE_NAME}"
        await replace_whole(self._disk, path, self.epochs.encode(), sync=False)
        self._unsynced_names = True

    async def _write_epochs_if_possible(self) -> None:
        """After a cut or at open: one that is too old is noticed when it is read, and an append of
        a new epoch writes it first.
        """
        with done_without("epochs", self._directory):
            await self._write_epochs()

    # Reading.

    async def _read_recent(
        self, offset: int, end: int, bytes_max: int, at_least_one: bool
    ) -> bytes:
        """Read where every batch's position is known: exactly the right bytes, nothing walked."""
        offsets, positions = self._recent_offsets, self._recent_positions
        first = bisect_right(offsets, offset) - 1
        start = positions[first]
        last = min(bisect_right(offsets, end) - 1, bisect_right(positions, start + bytes_max) - 1)
        if last <= first:
            if not at_least_one or offsets[first + 1] > end:
                return b""
            last = first + 1
        return await self._segments[-1].file.read_at(start, positions[last] - start)

    async def _read_older(self, offset: int, end: int, bytes_max: int, at_least_one: bool) -> bytes:
        at = bisect_right(self._bases, offset) - 1
        while at < len(self._segments):
            segment = self._segments[at]
            known = self._readers.pop(offset, None)
            if known is not None and known[0] is segment:
                position = known[1]
            else:
                position = await self._position_of(segment, offset)
            if position < segment.size:
                return await self._read_at(segment, position, offset, end, bytes_max, at_least_one)
            if at + 1 < len(self._segments):
                raise CorruptRecordError(f"{segment.file.path} ends below offset {offset}")
            at += 1
        return b""

    async def _position_of(self, segment: Segment, offset: int) -> int:
        position = await segment.position_of(offset)
        self._used_index_of(segment)
        return position

    def _used_index_of(self, segment: Segment) -> None:
        """Keep the indexes of the few closed segments that were used last."""
        if segment is self._segments[-1] or segment.index is None:
            return
        self._indexed[segment.base_offset] = segment
        self._indexed.move_to_end(segment.base_offset)
        if len(self._indexed) > INDEXES_MAX:
            self._indexed.popitem(last=False)[1].unload_index()

    async def _read_at(
        self,
        segment: Segment,
        position: int,
        offset: int,
        end: int,
        bytes_max: int,
        at_least_one: bool,
    ) -> bytes:
        truncations = self.truncations
        length = max(bytes_max, 4096)
        data = await segment.file.read_at(position, min(length, segment.size - position))
        start, stop, next_offset, wanted = walk(data, offset=offset, end=end, bytes_max=bytes_max)
        if wanted:
            position += start
            data = await segment.file.read_at(position, wanted)
            start, stop, next_offset, wanted = walk(
                data, offset=offset, end=end, bytes_max=bytes_max
            )
        if stop == start and truncations == self.truncations:
            await self._check_batch_at(segment, position + start, offset)
        if stop - start > bytes_max and not at_least_one:
            return b""
        if stop > start and truncations == self.truncations:  # else it may lie amid a batch now
            self._readers[next_offset] = (segment, position + stop)
            if len(self._readers) > READERS_MAX:
                self._readers.popitem(last=False)
        return data if stop - start == len(data) else data[start:stop]

    async def _check_batch_at(self, segment: Segment, position: int, offset: int) -> None:
        """CorruptRecordError if the batch with `offset`, which can't be read, is damaged.

        A flipped bit in its length, or in its offsets, would else look like a batch that is not to
        be read yet, for ever.
        """
        header = parse_header(await segment.file.read_at(position, HEADER_BYTES))
        if position + header.size > segment.size:
            raise CorruptRecordError(
                f"the batch with offset {offset} says {header.size} bytes, and "
                f"{segment.size - position} follow"
            )
        check(await segment.file.read_at(position, header.size), header)
        if not header.base_offset <= offset < header.end_offset:
            raise CorruptRecordError(
                f"where offset {offset} should be lies a batch of {header.base_offset}"
            )

    async def _search_time(
        self, segment: Segment, timestamp_ms: int, end: int
    ) -> tuple[int, int] | None:
        index = await segment.loaded_index()
        first = segment.base_offset + index.floor_of_time(timestamp_ms)
        position = await segment.position_of(first)
        while position < segment.size:
            chunk = await segment.scan(position, checked=False)
            for where, header in chunk.found:
                if header.base_offset >= end:
                    return None
                if header.max_timestamp >= timestamp_ms:
                    batch = await segment.file.read_at(where, header.size)
                    found = await self._first_at(batch, header, timestamp_ms)
                    if found is not None and found[0] < end:
                        return found
            if chunk.bad is not None:
                raise CorruptRecordError(chunk.bad)
            position = chunk.position
        return None

    async def _first_at(
        self, batch: bytes, header: BatchHeader, timestamp_ms: int
    ) -> tuple[int, int] | None:
        """Return the first record at or after a time, None if the header promised too much.

        Only its producer and its consumers vouch for what is in a batch: of one that does
        not decode, or whose codec is not here, the header answers.
        """
        with suppress(CorruptRecordError, UnsupportedError):
            if decompressed_size_bound(batch, header) <= SEARCHED_IN_A_TURN_BYTES:
                return find_by_time(batch, header, timestamp_ms)
            return await self._disk.in_thread(find_by_time, batch, header, timestamp_ms)
        return header.base_offset, header.max_timestamp

    # Syncing.

    async def _sync_to(self, end: int) -> None:
        """Sync all below `end`; several callers share one sync."""
        self._check_usable()
        async with self._syncing:
            while self.synced_end < min(end, self.log_end_offset) or self._unsynced_names:
                self._check_usable()
                truncations = self.truncations
                target = min(max(end, self._end_to_sync(end)), self.log_end_offset)
                for segment, next_base in self._with_next_base():
                    if segment.base_offset < target and next_base > self.synced_end:
                        await self._sync_segment(segment)
                try:
                    await self._sync_names()
                except OSError as error:
                    raise self._sync_error("sync of the directory failed", error) from error
                await self._note_synced(target, truncations)

    async def _note_synced(self, end: int, truncations: int) -> None:
        """After a sync. Not with the writers' lock, for a roll waits for this; but a cut first
        counts itself, then waits for the slot: so nothing is noted above a cut.
        """
        async with self._slot_writing:
            if truncations == self.truncations and end > self.synced_end:
                try:
                    await self._advance_synced(end)
                except OSError as error:
                    if self._config.track_synced or is_of_disk(error):
                        raise self._sync_error("sync failed", error) from error
                    log.warning("done without", what="synced", directory=self._directory)
                if truncations == self.truncations:  # else the cut lowers the slot next
                    self.synced_end = end

    async def _sync_segment(self, segment: Segment) -> None:
        try:
            await segment.file.sync()
        except OSError as error:
            if segment in self._segments:  # else it was removed, and needs none
                raise self._sync_error("sync failed", error) from error

    def _sync_error(self, what: str, error: OSError) -> StorageError:
        """Return what to raise; a sync that did not even begin may be tried again."""
        passing = storage_error(f"{self._directory}: {what}", error, nothing_done=True)
        return passing if isinstance(passing, TryAgainError) else self._fail(what, error)

    def _end_to_sync(self, end: int) -> int:
        """A closed segment's sync stops at its end; any other covers all that is appended."""
        active_base = self._bases[-1] if self._bases else 0
        return end if end <= active_base else self.log_end_offset

    async def _sync_names(self) -> None:
        """Return when every name of now is durable; a sync under way may be another's."""
        async with self._naming:
            if self._unsynced_parent:
                await self._disk.sync_directory(self._directory.rpartition("/")[0] or "/")
                self._unsynced_parent = False
            if self._unsynced_names:
                self._unsynced_names = False
                try:
                    await self._disk.sync_directory(self._directory)
                except BaseException:
                    self._unsynced_names = True
                    raise

    async def _advance_synced(self, end: int) -> None:
        if await self._synced_slot.advance(end, self.epochs.epoch_at(end - 1)):
            self._unsynced_names = True
            await self._sync_names()

    async def _replace_synced(self, end: int) -> None:
        """Durably, in both slots: after a cut neither may promise what is gone."""
        if await self._synced_slot.write(end, self.epochs.epoch_at(end - 1), sync=True):
            self._unsynced_names = True
            await self._sync_names()

    def _known_start(self) -> int:
        """Where the log begins at the latest."""
        return 0 if self._start_slot.value is None else self._start_slot.value[0]

    async def _write_start(self, offset: int) -> None:
        """Durably: before segments at the start go, or after the log began again below them."""
        if await self._start_slot.write(offset, -1, sync=True):
            self._unsynced_names = True
            await self._sync_names()

    # Cutting.

    async def _move_emptied(self, segment: Segment, offset: int) -> None:
        """Make the one segment left an empty one that begins at `offset`; a crash at any point
        leaves one of the two: a log without a segment would forget where it was.
        """
        await segment.cut(0, segment.base_offset)
        await segment.file.sync()
        await segment.file.close()
        path = f"{self._directory}/{file_name(offset, LOG)}"
        if segment.base_offset != offset:
            await self._disk.rename(segment.path(LOG), path)
        self._unsynced_names = True
        await self._sync_names()

    async def _begin_cut(self, end: int) -> None:
        """From here on nobody reads, or notes as synced, what is about to go."""
        self.truncations += 1
        self.log_end_offset = end
        self._changed = True
        self._recent_offsets = []
        self._recent_positions = []
        self._readers.clear()
        await self._say_cutting()

    async def _say_cutting(self) -> None:
        await self._make_directory()
        file = await self._disk.open(f"{self._directory}/{CUTTING_FILE}", create=True)
        await file.close()

    async def _end_cut(self) -> None:
        """Make the cut durable, as it is seen now."""
        self._unsynced_names = True
        await self._sync_names()
        await self._segments[-1].file.sync()
        await self._disk.remove(f"{self._directory}/{CUTTING_FILE}")

    async def _lower_slots(self, end: int) -> None:
        """Before a cut: no slot may promise, after it, what is gone."""
        self.synced_end = min(self.synced_end, end)
        self.high_watermark = min(self.high_watermark, end)
        async with self._slot_writing:
            synced = self._synced_slot.value
            if synced is not None and synced[0] > end:
                await self._replace_synced(end)
        known = self._high_watermark_slot.value
        if known is not None and known[0] > end:
            await self._high_watermark_slot.write(end, known[1], sync=True)

    async def _drop(self, segment: Segment) -> None:
        """Remove a segment, durably before the next one: a crash leaves no gap."""
        at = self._segments.index(segment)
        del self._segments[at], self._bases[at]
        self._readers.clear()
        self._indexed.pop(segment.base_offset, None)
        await segment.remove()
        self._unsynced_names = True
        await self._sync_names()

    async def _end_offset_at(self, at: int, position: int, end_offset: int) -> int:
        """Return the end offset of the log once segment `at` ends at `position`."""
        segment = self._segments[at]
        if position >= segment.size:
            return end_offset
        chunk = await segment.scan(position, checked=False)
        return min(end_offset, chunk.found[0][1].base_offset)

    # The observer's state.

    async def _reload_observer(self) -> None:
        """Restore the newest snapshot at or below the end, then replay the headers above it."""
        if self._observer is None:
            return
        offset = await self._restore_observer(self._observer)
        self._unsaved_batches = self._unsaved_bytes = 0
        for segment, next_base in self._with_next_base():
            if next_base <= offset:
                continue
            position = await self._position_of(segment, offset)
            while position < segment.size:
                chunk = await segment.scan(position, checked=False)
                for _, header in chunk.found:
                    self._observer.observe(header)
                if chunk.bad is not None:
                    raise CorruptRecordError(f"{segment.file.path}: {chunk.bad}")
                self._unsaved_batches += len(chunk.found)
                self._unsaved_bytes += chunk.position - position
                position = chunk.position
        await self._save_observer_if_due()

    async def _restore_observer(self, observer: Observer) -> int:
        """Restore the newest snapshot that is good; return where to replay from."""
        for offset in reversed(await self._snapshots.offsets()):
            if not self.log_start_offset <= offset <= self.log_end_offset:
                continue
            found = await self._snapshots.read(offset)
            if found is None:
                continue
            epoch, state = found
            if offset > self.log_start_offset and epoch != self.epochs.epoch_at(offset - 1):
                continue  # of a history that was cut
            observer.reset()
            with suppress(CorruptRecordError):  # another release wrote it: it can be built again
                observer.restore(state)
                return offset
        observer.reset()
        return self.log_start_offset

    async def _save_observer_if_due(self) -> None:
        if (
            self._unsaved_batches >= self._config.snapshot_batches
            or self._unsaved_bytes >= self._config.snapshot_bytes
        ):
            self._unsaved_batches = self._unsaved_bytes = 0
            with done_without("producers", self._directory):
                await self._save_observer()

    async def _save_observer(self) -> None:
        if self._observer is None:
            return
        end = self.log_end_offset
        self._unsaved_batches = self._unsaved_bytes = 0
        await self._snapshots.write(end, self.epochs.epoch_at(end - 1), self._observer.snapshot())
        await self._snapshots.thin(self.log_start_offset, end, self._bases)
        self._unsynced_names = True

    async def _close_files(self) -> None:
        await self._synced_slot.close()
        await self._high_watermark_slot.close()
        await self._start_slot.close()
        for segment in self._segments:
            await segment.file.close()


class _Recovery:
    """Opening a log: what is there, what of it is to be believed, what must go."""

    def __init__(self, opened: Log, run: Run, inspect: Inspect | None) -> None:
        self._log = opened
        self._inspect = inspect
        self._run = run
        self._config = opened._config
        self._cut_bytes = 0
        self._lossy = False
        #: See Recovered.
        self._damaged = ""
        self._is_noted_corrupt = False
        #: A cut was under way, or is now.
        self._cutting = False
        #: All below survived a sync: what is bad there is corruption.
        self._synced = 0
        #: Where the next batch must begin; None where the scan starts inside a segment.
        self._expected: int | None = None

    async def carry_out(self) -> None:
        owner = self._log
        if await owner._disk.exists(owner._directory):
            await self._find()
        if self._config.salvage:
            await self._give_up_synced()
        if owner._segments:
            await self._check()
            await self._finish()
            await owner._reload_observer()
        else:
            await self._without_segments()
        if self._is_noted_corrupt:  # no batch that is left is bad
            await owner._remove_note(CORRUPT_FILE)
        owner.recovered = Recovered(
            self._run.marker_present,
            self._run.same_boot,
            self._cut_bytes,
            self._lossy,
            self._damaged,
        )
        if self._cut_bytes:
            log.warning(
                "log cut at open",
                directory=owner._directory,
                log_end_offset=owner.log_end_offset,
                cut_bytes=self._cut_bytes,
                lossy=self._lossy,
                damaged=self._damaged or None,
            )

    async def _find(self) -> None:
        """Open what is there, and sweep away what crashes left lying."""
        owner = self._log
        names = await owner._disk.list(owner._directory)
        found = (offset_of(name, LOG) for name in names)
        bases = sorted(base for base in found if base is not None)
        for name in names:
            indexed = [offset_of(name, ending) for ending in (INDEX, TIME_INDEX)]
            is_orphan = any(base is not None and base not in bases for base in indexed)
            if is_orphan or name.endswith(".tmp"):
                await owner._disk.remove(f"{owner._directory}/{name}")
        self._cutting = CUTTING_FILE in names
        if DAMAGED_FILE in names:
            self._damaged = "an earlier start found it damaged"
        self._is_noted_corrupt = CORRUPT_FILE in names
        if self._is_noted_corrupt and not self._config.salvage:
            raise LogCorruptError(
                f"{owner._directory}: a bad batch was found in it while it was in use, and it has"
                " not been repaired since"
            )
        for base in bases:
            file = await owner._disk.open(f"{owner._directory}/{file_name(base, LOG)}")
            owner._add_segment(base, file)
        await owner._synced_slot.load()
        await owner._high_watermark_slot.load()
        await owner._start_slot.load()
        if bases:
            owner.log_start_offset = owner.log_end_offset = bases[0]
        # Whoever made these names may have crashed before a sync of the directory.
        owner._unsynced_names = owner._unsynced_parent = True
        owner._changed = not self._run.marker_present

    async def _without_segments(self) -> None:
        """No batch ever survived: then nothing may be remembered of any."""
        owner = self._log
        synced = owner._synced_slot.value
        if synced is not None and synced[0] > 0:
            self._synced = synced[0]
            raise self._corrupt("there is no segment")
        known = owner._high_watermark_slot.value
        if known is not None:
            if known[0] > 0:
                await self._say_damaged(f"there is no segment; {known[0]} was committed")
            await owner._high_watermark_slot.write(0, -1, sync=True)

    async def _check(self) -> None:
        """Find the end of the valid batches; raise if it lies below what was synced."""
        owner = self._log
        slot = owner._synced_slot.value
        self._synced = max(slot[0] if slot is not None else 0, owner.log_start_offset)
        # The epoch of the last synced record; None if there is no such record.
        epoch = slot[1] if slot is not None and slot[0] > owner.log_start_offset else None
        known = await self._known_epochs(epoch)
        await self._check_start()
        from_start = self._config.verify_all or known is None
        first = 0 if from_start else bisect_right(owner._bases, self._synced) - 1
        for at in range(first):
            gap = await gap_after(owner._segments[at], owner._bases[at + 1])
            if gap is not None:
                raise self._corrupt(gap)
        position = await self._scan_start(owner._segments[first], from_start=from_start)
        if not from_start and known is not None:
            owner.epochs = EpochCache(e for e in known.entries if e[1] < self._synced)
        if position == 0:
            self._expected = owner._bases[first]
        await self._scan(first, position)
        if owner.log_end_offset < self._synced:
            raise self._corrupt(f"the log ends at {owner.log_end_offset}")
        if epoch is not None and owner.epochs.epoch_at(self._synced - 1) != epoch:
            raise self._corrupt(f"the last batch below it is not of epoch {epoch}")
        if self._config.verify_all and known is not None:
            self._compare_epochs(known)

    async def _check_start(self) -> None:
        owner = self._log
        known = owner._known_start()
        if owner.log_start_offset <= known:
            return
        found = f"it begins at {owner.log_start_offset}, and had begun at {known}"
        if self._config.verify_all and not self._config.salvage:
            raise self._corrupt(found)
        await self._say_damaged(found)
        owner.lost_start = known

    async def _known_epochs(self, epoch: int | None) -> EpochCache | None:
        """Return the checkpoint, None if it is not that of the log that was synced."""
        owner = self._log
        path = f"{owner._directory}/{epoch_file.FILE_NAME}"
        known = None
        if await owner._disk.exists(path):
            known = epoch_file.decode(await read_whole(owner._disk, path))
        if epoch is None:
            return EpochCache()  # everything is scanned: no need of it
        if known is None or known.epoch_at(self._synced - 1) != epoch:
            return None
        known.truncate_from_start(owner.log_start_offset)
        if known.entries[0][1] > owner.log_start_offset:
            return None  # a deletion came undone: the oldest batches are not in it
        return known

    async def _scan_start(self, segment: Segment, *, from_start: bool) -> int:
        """Give the first segment its index; return the position from which to scan."""
        segment.index = segment.new_index()
        if from_start:
            return 0
        index = await segment.index_on_disk()
        index.truncate(self._synced - segment.base_offset)
        if not await segment.names_a_batch(*index.last_entry):
            return 0
        segment.index = index
        return index.last_entry[1]

    async def _scan(self, first: int, position: int) -> None:
        """Check all batches from `position` of segment `first`, to the end or the first bad one."""
        owner = self._log
        for at in range(first, len(owner._segments)):
            segment = owner._segments[at]
            if self._expected is not None and segment.base_offset != self._expected:
                await self._cut(at, 0, f"no segment begins at {self._expected}")
                return
            segment.index = index = segment.index or segment.new_index()
            while position < segment.size:
                chunk = await segment.scan(position, checked=True, inspect=self._inspect)
                bad = chunk.bad
                for where, header in chunk.found:
                    misfit = self._misfit(segment, header)
                    if misfit is not None:
                        chunk.position, bad = where, misfit
                        break
                    segment.add_to(index, where, header)
                    owner.epochs.assign(header.leader_epoch, header.base_offset)
                    self._expected = header.end_offset
                position = chunk.position
                if bad is not None:
                    await self._cut(at, position, bad)
                    return
            position = 0
        owner.log_end_offset = self._expected if self._expected is not None else self._synced

    def _misfit(self, segment: Segment, header: BatchHeader) -> str | None:
        """Return why a good batch can't be the next one of this log, or None."""
        offset = header.base_offset
        if self._expected is None:
            self._expected = offset
        if offset != self._expected:
            return f"a batch has offset {offset} where {self._expected} should be"
        if header.leader_epoch < self._log.epochs.epoch_at(offset):
            return f"the batch at {offset} is of epoch {header.leader_epoch}, older than the last"
        if not 0 <= header.last_offset - segment.base_offset <= RELATIVE_MAX:
            return f"the batch at {offset} is not one of segment {segment.base_offset}"
        return None

    async def _cut(self, at: int, position: int, bad: str) -> None:
        """End the log at `position` of segment `at`, or before that segment if it does not fit."""
        owner = self._log
        end = self._expected if self._expected is not None else owner._segments[at].base_offset
        if end < self._synced:
            raise self._corrupt(f"{owner._segments[at].file.path}: {bad}")
        fits = owner._segments[at].base_offset <= end
        segment = owner._segments[at]
        is_last_write = (
            fits
            and at == len(owner._segments) - 1
            and await is_torn(segment.file, position, segment.size, end)
        )
        self._lossy = not (self._run.same_boot and is_last_write)
        if self._config.salvage or (self._run.tail_intact and not is_last_write):
            await self._say_damaged(f"from offset {end} on: {bad}")
        self._cutting = True
        await owner._say_cutting()
        owner.log_end_offset = end
        for segment in reversed(owner._segments[at + 1 if fits else at :]):
            self._cut_bytes += segment.size
            await owner._drop(segment)
        if fits:
            segment = owner._segments[at]
            self._cut_bytes += segment.size - position
            await segment.cut(position, end)

    async def _say_damaged(self, reason: str) -> None:
        """Before anything is cut: the next start would find nothing wrong with what is left."""
        self._damaged = self._damaged or reason
        await self._log._make_note(DAMAGED_FILE)

    async def _give_up_synced(self) -> None:
        """What was synced is not what it was: judge each batch by itself."""
        owner = self._log
        synced = owner._synced_slot.value
        if self._is_noted_corrupt:
            await self._say_damaged("a bad batch was found in it while it was in use")
        if synced is not None and synced[0] > 0:
            await self._say_damaged(f"not all below the synced end {synced[0]} is good")
            await owner._synced_slot.write(0, -1, sync=True)

    def _compare_epochs(self, known: EpochCache) -> None:
        """The CRC does not cover a batch's epoch; the checkpoint says it once more."""
        scanned = [e for e in self._log.epochs.entries if e[1] < self._synced]
        expected = [e for e in known.entries if e[1] < self._synced]
        if expected and scanned != expected:
            raise self._corrupt(f"epochs are {scanned}, and were {expected}")

    def _corrupt(self, found: str) -> LogCorruptError:
        return LogCorruptError(
            f"{self._log._directory}: all below offset {self._synced} had survived a sync, but: "
            f"{found}. Take the disk out of service and let the replica be fetched again"
        )

    async def _finish(self) -> None:
        owner = self._log
        end = owner.log_end_offset
        owner.synced_end = self._synced
        slots = (owner._synced_slot, owner._high_watermark_slot)
        await self._compare_high_watermark(end)
        must_lower = any(
            slot.is_half_lowered or (slot.value is not None and slot.value[0] > end)
            for slot in slots
        )
        if must_lower and not self._cutting:
            self._cutting = True
            await owner._say_cutting()
        await owner._lower_slots(end)
        if self._cutting:
            # What the slots say now may be seen by nobody after a power loss: say it for good.
            for slot in slots:
                if slot.value is not None:
                    await slot.write(*slot.value, sync=True)
            await owner._end_cut()
        owner._start_recent()
        owner.epochs.truncate_from_end(end)
        owner._unsynced_names |= await owner._snapshots.remove_above(end)
        offset, owner.hw_epoch = owner._high_watermark_slot.value or (0, -1)
        owner.high_watermark = max(offset, owner.log_start_offset)
        if self._config.track_synced:
            await self._make_synced_sure(end)
        await owner._write_epochs_if_possible()

    async def _make_synced_sure(self, end: int) -> None:
        """Acknowledgements count on `synced`; only the page cache may have it, after a kill."""
        owner = self._log
        if self._synced < end:
            await self._write_tail_again()
        elif owner._synced_slot.value is not None:
            await owner._advance_synced(end)

    async def _compare_high_watermark(self, end: int) -> None:
        """A cut lowers the checkpoint first, so one above the end means that records are gone."""
        known = self._log._high_watermark_slot.value
        is_sure = self._run.tail_intact or self._config.track_synced
        if known is not None and known[0] > end and is_sure:
            await self._say_damaged(f"the log ends at {end}; {known[0]} was committed")

    async def _write_tail_again(self) -> None:
        """What reads well may be on no disk (law 6): write all above `synced`, then sync it."""
        owner = self._log
        for segment, next_base in owner._with_next_base():
            if next_base <= self._synced:
                continue
            position = await owner._position_of(segment, self._synced)
            while position < segment.size:
                length = min(_COPY_BYTES, segment.size - position)
                data = await segment.file.read_at(position, length)
                await segment.file.overwrite(position, data)
                position += length
        await owner._sync_to(owner.log_end_offset)
