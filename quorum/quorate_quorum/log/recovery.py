"""The recovery of a log when it is opened: it finds what the log holds, and cuts what is bad.

* Batches above `synced` must be good and follow one another. The log is cut at the first one that
  is not, whatever valid bytes follow. Below `synced` such a batch means corruption, and the open
  fails.
* With `track_synced`, bytes above `synced` are written again and synced before use: after a failed
  sync, pages may be readable although no medium has them.
* Each segment must end where the next one begins: otherwise readers would miss records silently. A
  log whose first segment begins above `log-start` has lost segments (`lost_start`). If a replica
  with such a log led, its followers would drop the segments that it lacks. Any other log begins at
  `log-start`. Segments that lie wholly below `log-start` are removed: a crash had interrupted their
  removal.
* Everything else (indexes, epochs, snapshots) is built again from the batches.
* `Recovered.damaged` reports that records of completed writes are gone. A bad batch that no kill of
  the process explains shows this, if the machine has not restarted since. So do a log end below a
  high watermark or a start that surely was on the disk. The marker is made before anything is cut,
  because a later start would find nothing wrong with the rest. The marker stays until the owner
  says that no other node depends on the lost records.

run_file.py says whether the last run of the log directory stopped cleanly. This decides only what
is reported after a cut. The tail is always checked.
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from quorate_quorum.log import replacement
from quorate_quorum.log.chain import gap_after
from quorate_quorum.log.directory import (
    COMPACTED_FILE,
    CORRUPT_FILE,
    CUTTING_FILE,
    DAMAGED_FILE,
)
from quorate_quorum.log.epochs import EpochCache
from quorate_quorum.log.guard import LogCorruptError
from quorate_quorum.log.parts import Parts
from quorate_quorum.log.run_file import Run
from quorate_quorum.log.scan import GoodEnd, Scan, scan_start
from quorate_quorum.log.segment import (
    CHECKSUM,
    INDEX,
    LOG,
    TIME_INDEX,
    Inspect,
    offset_of,
)
from quorate_quorum.log.segments import Segments
from quorate_quorum.log.syncer import Syncer
from quorate_quorum.log.torn import is_torn

log = structlog.get_logger(__name__)

#: The bytes that are copied at a time when the tail is written again.
_COPY_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Recovered:
    """The result of an open."""

    #: Whether the directory's last run stopped cleanly.
    was_clean: bool
    #: Whether the machine has not booted since that run: then all completed writes are there.
    same_boot: bool
    #: The number of bytes at the end that were not valid batches, and were cut.
    cut_bytes: int
    #: Whether whole batches may have been cut, not only the write that a crash interrupted.
    lossy: bool
    #: Why records of completed writes are missing, although the last run's tail should be intact;
    #: empty if none are.
    damaged: str = ""


class Recovery:
    """One open of a log. It fills the log's parts with what is on disk and good."""

    def __init__(self, parts: Parts, syncer: Syncer, run: Run, inspect: Inspect | None) -> None:
        self._parts = parts
        self._directory = parts.directory
        self._extent = parts.extent
        self._segments = parts.segments
        self._checkpoints = parts.checkpoints
        self._config = parts.config
        self._syncer = syncer
        self._run = run
        self._inspect = inspect
        self._cut_bytes = 0
        self._lossy = False
        #: The reason for Recovered.damaged.
        self._damaged = ""
        self._is_marked_corrupt = False
        #: Whether a cut was under way when the last run ended, or is now.
        self._is_cutting = False
        #: All bytes below this offset survived a sync. A bad batch there means corruption.
        self._synced = 0
        #: The slot `synced`, (end, epoch); None if there is none, and for a salvage.
        self._trusted: tuple[int, int] | None = None
        #: The synced end that a salvage does not trust; 0: there is none.
        self._given_up = 0

    async def carry_out(self) -> None:
        """Find the batches, cut the bad ones, and sync the rest where it may not be synced."""
        if await self._directory.disk.exists(self._directory.path):
            await self._find()
        self._trusted = self._checkpoints.synced_slot.value
        if self._config.salvage:
            await self._distrust_synced()
        if self._segments.all:
            await self._check()
        if self._given_up:
            await self._give_up_synced()
        if self._segments.all:
            await self._finish()
        else:
            await self._expect_nothing()

    async def conclude(self) -> Recovered:
        """Return the result. The log can be used from now on."""
        if self._is_marked_corrupt:  # the salvage has removed the bad batches: no bad one is left
            await self._directory.unmark_durably(CORRUPT_FILE)
        if self._cut_bytes:
            log.warning(
                "log cut at open",
                directory=self._directory.path,
                log_end_offset=self._extent.end,
                cut_bytes=self._cut_bytes,
                lossy=self._lossy,
                damaged=self._damaged or None,
            )
        run = self._run
        return Recovered(
            run.marker_present, run.same_boot, self._cut_bytes, self._lossy, self._damaged
        )

    # Find

    async def _find(self) -> None:
        """Open the segments and checkpoints, and remove the files that a crash left behind."""
        directory = self._directory
        await replacement.recover(directory, self._mark_damaged if self._config.salvage else None)
        names = await directory.disk.list(directory.path)
        found = (offset_of(name, LOG) for name in names)
        bases = sorted(base for base in found if base is not None)
        for name in names:
            indexed = [offset_of(name, ending) for ending in (INDEX, TIME_INDEX, CHECKSUM)]
            is_orphan = any(base is not None and base not in bases for base in indexed)
            if is_orphan or name.endswith(".tmp"):
                await directory.disk.remove(directory.file(name))
        self._is_cutting = CUTTING_FILE in names
        self._extent.has_gaps = COMPACTED_FILE in names
        if DAMAGED_FILE in names:
            self._damaged = "an earlier start found it damaged"
        self._is_marked_corrupt = CORRUPT_FILE in names
        if self._is_marked_corrupt and not self._config.salvage:
            raise LogCorruptError(
                f"{directory.path}: a bad batch was found in it while it was in use, and it has"
                " not been repaired since"
            )
        for base in bases:
            await self._segments.open(base)
        await self._checkpoints.load()
        directory.distrust()
        self._extent.is_changed = not self._run.marker_present

    async def _distrust_synced(self) -> None:
        """For a salvage, take no batch as good because it is synced: check each one.

        The slot itself stays until the bad batches are cut: in a log with gaps it is the only
        witness of the last offset, and a crash may interrupt this salvage.
        """
        synced, self._trusted = self._trusted, None
        if self._is_marked_corrupt:
            await self._mark_damaged("a bad batch was found in it while it was in use")
        if synced is not None and synced[0] > 0:
            self._given_up = synced[0]
            await self._mark_damaged(f"not all below the synced end {synced[0]} is good")

    async def _give_up_synced(self) -> None:
        """Set `synced` to 0 at the end of a salvage, when the cut is durable.

        Otherwise a power loss could bring the bad batches back, and take what tells of them.
        """
        if self._is_cutting and self._segments.all:
            await self._parts.sync_cut()
        await self._checkpoints.synced_slot.write(0, -1, sync=True)

    async def _expect_nothing(self) -> None:
        """Check the checkpoints of a log without a segment: none may cover a record."""
        await self._checkpoints.lower_cleaned(0)
        await self._parts.remove_snapshots_above(-1)
        synced = self._trusted
        if synced is not None and synced[0] > 0:
            self._synced = synced[0]
            raise self._corrupt("there is no segment")
        known = self._checkpoints.high_watermark_slot.value
        if known is not None:
            if known[0] > 0:
                await self._mark_damaged(f"there is no segment; {known[0]} was committed")
            await self._checkpoints.high_watermark_slot.write(0, -1, sync=True)
        start = self._checkpoints.known_start
        if start > 0:
            await self._mark_damaged(f"there is no segment; it had begun at {start}")
            await self._checkpoints.move_start(0)

    # Check

    async def _check(self) -> None:
        """Find the end of the good batches. Raise if it lies below the synced end."""
        extent, segments = self._extent, self._segments
        await self._find_start()
        slot = self._trusted
        known_end = slot[0] if slot is not None else 0
        synced = max(self._given_up, known_end)
        self._synced = max(known_end, segments.bases[0])
        # The epoch of the last synced record; None if there is no such record.
        epoch = slot[1] if slot is not None and slot[0] > extent.start else None
        known = await self._parts.epoch_file.known(extent.start, self._synced, epoch)
        from_start = self._config.verify_all or known is None
        first = 0 if from_start else segments.at(self._synced)
        for at, next_base in zip(range(first), segments.bases[1:], strict=False):
            if gap := await gap_after(self._directory.disk, segments.all[at], next_base):
                raise self._corrupt(gap)
        position = await scan_start(segments.all[first], 0 if from_start else self._synced)
        if not from_start and known is not None:
            extent.epochs = EpochCache(e for e in known.entries if e[1] < self._synced)
        expected = segments.bases[first] if position == 0 else None
        checksums = self._directory.disk if self._config.verify_all else None
        scan = Scan(segments, extent, self._inspect, expected, checksums, synced)
        scan.is_salvage = self._config.salvage
        end = await scan.run(first, position)
        if end.bad is not None:
            await self._cut(end, end.bad)
        else:
            extent.end = (
                self._synced if end.offset is None else extent.end_behind(end.offset, self._synced)
            )
        is_blank = not segments.size and self._checkpoints.know_nothing_above(extent.start)
        if extent.end < self._synced and not is_blank:
            raise self._corrupt(f"the log ends at {extent.end}")
        if epoch is not None and extent.epoch_before(self._synced) != epoch:
            raise self._corrupt(f"the last batch below it is not of epoch {epoch}")
        if self._config.verify_all and known is not None:
            self._compare_epochs(known)
        extent.fit_epochs_to_start(segments.bases[0])
        if extent.end == extent.start and not (extent.epochs.entries or self._is_cutting):
            extent.epochs = await self._parts.epoch_file.before(extent.start)
        # Records are lost if the log ends below its start: the start moved only after a sync.
        if extent.end < extent.start and not is_blank:
            await self._lost(f"it ends at {extent.end}, and had begun at {extent.start}")

    async def _find_start(self) -> None:
        """Find where the log begins, and remove the segments below it."""
        extent, segments, checkpoints = self._extent, self._segments, self._checkpoints
        first, known = segments.bases[0], checkpoints.known_start
        extent.start = max(first, known)
        if first > max(known, checkpoints.moving_to):
            await self._lost(f"it begins at {first}, and had begun at {known}")
            extent.lost_start = known
            return
        await checkpoints.settle_start(extent.start)
        if segments.at(extent.start) > 0:
            await self._directory.sync()
        while segments.at(extent.start) > 0:
            await segments.drop(segments.all[0])

    async def _lost(self, found: str) -> None:
        """Note that records are missing at the log's start. A voter does not start then."""
        if self._config.verify_all and not self._config.salvage:
            raise self._corrupt(found)
        await self._mark_damaged(found)

    def _compare_epochs(self, known: EpochCache) -> None:
        """Compare the batches' epochs with the checkpoint file: a CRC does not cover an epoch."""
        extent = self._extent
        scanned, expected = extent.epochs.below(self._synced), known.below(self._synced)
        if not scanned.fits(expected, start=extent.start, has_gaps=extent.has_gaps):
            raise self._corrupt(f"epochs are {scanned.entries}, and were {expected.entries}")

    def _corrupt(self, found: str) -> LogCorruptError:
        return LogCorruptError(
            f"{self._directory.path}: all below offset {self._synced} had survived a sync, but: "
            f"{found}. Take the disk out of service and let the replica be fetched again"
        )

    # Cut

    async def _cut(self, good: GoodEnd, bad: str) -> None:
        """Cut the log where the good batches end.

        If that is below the segment's base offset, the whole segment is removed.
        """
        segments, at = self._segments, good.at
        segment = segments.all[at]
        place = segment.base_offset if good.offset is None else good.offset
        end = place if good.offset is None else self._extent.end_behind(place, self._synced)
        if end < self._synced:
            raise self._corrupt(f"{segment.file.path}: {bad}")
        fits = segment.base_offset <= end
        is_last_write = (
            fits
            and at == len(segments.all) - 1
            and await is_torn(
                segment.file, good.position, segment.size, place, gaps=self._extent.has_gaps
            )
        )
        self._lossy = not (self._run.same_boot and is_last_write)
        if self._config.salvage or (self._run.tail_intact and not is_last_write):
            await self._mark_damaged(f"from offset {end} on: {bad}")
        self._is_cutting = True
        await self._parts.mark_cut()
        self._extent.end = end
        for last in reversed(segments.all[at + 1 if fits else at :]):
            self._cut_bytes += last.size
            await segments.drop(last)
        if fits:
            self._cut_bytes += segment.size - good.position
            await segment.cut(good.position, end)

    async def _mark_damaged(self, reason: str) -> None:
        """Mark the log as damaged before a cut: after it, a later open would find nothing wrong."""
        self._damaged = self._damaged or reason
        await self._directory.mark_durably(DAMAGED_FILE)

    # Finish

    async def _finish(self) -> None:
        """Make slots, epochs and snapshots fit the batches that are left, durably where needed."""
        extent, checkpoints = self._extent, self._checkpoints
        end = extent.end
        checkpoints.synced_end = self._synced
        await self._compare_high_watermark()
        if checkpoints.must_be_lowered(end) and not self._is_cutting:
            self._is_cutting = True
            await self._parts.mark_cut()
        await checkpoints.lower(end)
        # This segment gets the next appends, and its checksum would not cover them.
        await self._segments.active.forget_checksum()
        if self._is_cutting:
            await checkpoints.write_again()
            await self._parts.finish_cut()
        # The epoch of the last deleted record stays known: a lossy election compares it.
        extent.epochs.truncate_from_end(max(end, extent.start + 1))
        await self._parts.remove_snapshots_above(end)
        offset, checkpoints.hw_epoch = checkpoints.high_watermark_slot.value or (0, -1)
        checkpoints.high_watermark = max(offset, extent.start)
        if self._config.track_synced:
            await self._make_synced_sure()
        await self._parts.epoch_file.write_if_possible(extent.epochs)

    async def _compare_high_watermark(self) -> None:
        """Mark the log as damaged if the high watermark's checkpoint is above its end.

        A cut lowers that checkpoint first. So if the checkpoint is above the end, records are gone.
        """
        known, end = self._checkpoints.high_watermark_slot.value, self._extent.end
        is_sure = self._run.tail_intact or self._config.track_synced
        if known is not None and known[0] > end and is_sure:
            await self._mark_damaged(f"the log ends at {end}; {known[0]} was committed")

    async def _make_synced_sure(self) -> None:
        """Make `synced` durable: after a kill, perhaps only the page cache has the value."""
        if self._synced < self._extent.end:
            await _write_again(self._segments, self._synced)
            await self._syncer.sync_to(self._extent.end)
        elif self._checkpoints.synced_slot.value is not None:
            await self._checkpoints.advance_synced(self._extent.end)


async def _write_again(segments: Segments, offset: int) -> None:
    """Write all bytes from `offset` on again.

    After a failed sync, these bytes may be readable although no medium has them.
    """
    for segment, next_base in segments.with_next_base():
        if next_base <= offset:
            continue
        position = await segments.position_of(segment, offset)
        while position < segment.size:
            length = min(_COPY_BYTES, segment.size - position)
            data = await segment.file.read_at(position, length)
            await segment.file.overwrite(position, data)
            position += length
