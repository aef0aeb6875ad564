"""Cuts a log at its end or at its start, or removes all its records.

The order of the steps makes a crash at any point harmless:

* A cut first adds 1 to `truncations` and marks the directory. Then it lowers the slots durably.
  Then it removes whole segments, last first, so that a crash leaves a prefix of the log.
* A cut is synced before the next append. Otherwise cut bytes could come back between newer ones.
* Before the start moves, all records below the new start are synced. Otherwise a power loss could
  leave a log that ends below its start.
* Before segments at the start are removed, the names of the segments that stay and the log's new
  start are made durable. An open completes a removal that a crash interrupted.
"""

from __future__ import annotations

from quorate.errors import CorruptRecordError
from quorate.record.batch import check
from quorate_quorum.log.disk_errors import is_passing, storage_error
from quorate_quorum.log.epochs import EpochCache
from quorate_quorum.log.observed import ObservedState
from quorate_quorum.log.parts import Parts
from quorate_quorum.log.reader import Reader
from quorate_quorum.log.segment import Segment
from quorate_quorum.log.syncer import Syncer


class Cutter:
    """Cuts one log. The caller holds Guard.exclusive."""

    def __init__(
        self, parts: Parts, syncer: Syncer, reader: Reader, observed: ObservedState | None
    ) -> None:
        self._parts = parts
        self._syncer = syncer
        self._directory = parts.directory
        self._extent = parts.extent
        self._segments = parts.segments
        self._checkpoints = parts.checkpoints
        self._reader = reader
        self._observed = observed

    async def cut_end(self, end_offset: int) -> None:
        """Cut the log to `end_offset`, or to the start of the batch that lies across it.

        If the log's start lies inside that batch, too, the log begins again where the batch begins.
        """
        segments, extent = self._segments, self._extent
        at = max(segments.at(end_offset), 0)
        segment = segments.all[at]
        position = await segment.position_of(end_offset)
        end_offset = await self._end_at(segment, position, end_offset)
        if end_offset < extent.start:
            await self.start_again_at(end_offset)
            return
        await self._begin(end_offset)
        checkpoints = self._checkpoints
        checkpoints.high_watermark = min(checkpoints.high_watermark, end_offset)
        await checkpoints.lower(end_offset)
        for last in reversed(segments.all[at + 1 :]):
            await segments.drop(last)
        has_removed = await self._parts.snapshots.remove_above(end_offset)
        if await segment.remove_index_files() or has_removed:
            # Most cuts of a follower's tail find none of these files. Its acknowledgements wait for
            # this cut, so it must not sync more often than it has to.
            self._directory.changed()
            await self._directory.sync()
        await segment.cut(position, end_offset)
        await self._parts.finish_cut()
        self._reader.restart()
        extent.epochs.truncate_from_end(end_offset)
        await self._parts.epoch_file.write_if_possible(extent.epochs)
        await self._reload_observer()

    async def start_again_at(self, offset: int) -> None:
        """Remove every record. The next record that is appended gets `offset`."""
        segments, extent, checkpoints = self._segments, self._extent, self._checkpoints
        # No sync beside this cut may note more as synced than the log will have.
        await self._begin(min(extent.start, offset))
        if segments.all:
            await checkpoints.lower(min(extent.start, offset))
            for last in reversed(segments.all[1:]):
                await segments.drop(last)
            if await self._parts.snapshots.remove_above(-1):
                self._directory.changed()
        if segments.all and segments.bases[0] < extent.start:
            # Until the second rename, the log begins at its old start.
            await segments.move_last(extent.start)
            await segments.begin(extent.start)
        lost = extent.lost_start
        await checkpoints.begin_move(extent.start if lost is None else lost, offset)
        if segments.all:
            await segments.move_last(offset)
        extent.epochs = EpochCache()
        extent.start = extent.end = checkpoints.synced_end = checkpoints.high_watermark = offset
        await segments.begin(offset)
        self._reader.restart()
        await self._parts.epoch_file.write_if_possible(extent.epochs)
        await self._parts.finish_cut()
        await checkpoints.move_start(offset)
        extent.lost_start = None
        await checkpoints.replace_synced(offset)
        await self._reload_observer()

    async def move_start(self, offset: int) -> None:
        """Let the log begin at `offset`, if that is above its start and not above its end."""
        extent = self._extent
        if not extent.start < offset <= extent.end:
            return
        # This also syncs the names of the segments that stay. Otherwise, after a power loss, the
        # old files could be gone, and the names of the new ones, too.
        await self._syncer.sync_to(offset)
        try:
            await self._checkpoints.move_start(offset)
        except OSError as error:
            if not is_passing(error):
                raise
            raise storage_error(self._directory.path, error, nothing_done=True) from error
        extent.start = offset
        if extent.epochs.truncate_from_start(offset):
            await self._parts.epoch_file.write_if_possible(extent.epochs)

    async def begin_below(self, base_offset: int) -> None:
        """Let an empty log begin with a batch that begins at `base_offset`, below the log's start.

        If a later open finds no batch in the log, the log begins at its earlier start again.
        """
        assert self._extent.start == self._extent.end
        assert not self._segments.size
        await self._segments.move_last(base_offset)
        await self._segments.begin(base_offset)
        self._reader.restart()

    @property
    def has_segments_below_start(self) -> bool:
        return self._segments.at(self._extent.start) > 0

    async def drop_below_start(self) -> None:
        """Remove the first segment if all its records lie below the start. The active one stays."""
        if self.has_segments_below_start:
            if self._directory.has_unsynced_names:
                # The next segment may have been begun just now. A power loss could take its name,
                # and keep the removal: a log without a segment.
                await self._directory.sync()
            await self._segments.drop(self._segments.all[0])

    async def _end_at(self, segment: Segment, position: int, end_offset: int) -> int:
        """Return where the log ends if it is cut at `position`: at `end_offset` or below it.

        CorruptRecordError if the batches on both sides of the cut do not show that this is the
        right place. Otherwise a flipped bit in a batch's offsets could cut other records, too, or
        leave a gap between the last batch and the end.
        """
        end = await _end_before(segment, position, end_offset)
        if position < segment.size:
            header = (await segment.scan(position, checked=False)).found[0][1]
            if header.base_offset < end_offset:  # the batch lies across the cut
                check(await segment.file.read_at(position, header.size), header)
            begins = header.base_offset
        else:
            begins = end_offset
        has_gaps = self._extent.has_gaps
        if end > end_offset or (end != begins and not has_gaps):
            raise CorruptRecordError(
                f"{segment.file.path}: at byte {position}, where the log is cut at {end_offset}, "
                f"a batch ends at {end} and the next begins at {begins}"
            )
        return max(end, min(self._extent.start, end_offset, begins)) if has_gaps else end

    async def _begin(self, end: int) -> None:
        self._extent.begin_cut(end)
        self._reader.forget()
        await self._parts.mark_cut()

    async def _reload_observer(self) -> None:
        if self._observed is not None:
            await self._observed.reload()


async def _end_before(segment: Segment, position: int, end: int) -> int:
    """Return the end offset of the batch whose bytes end at `position`; at 0, the base offset.

    `end` is an offset at or above the result.
    """
    index = await segment.loaded_index()
    found = segment.base_offset
    last_offset, at = index.floor(end - 1 - segment.base_offset)
    if last_offset >= 0 and not await segment.names_a_batch(last_offset, at):
        at = 0  # this entry is damaged, so scan from 0: position_of checked another one
    while at < position:
        chunk = await segment.scan(at, checked=False)
        for where, header in chunk.found:
            if where < position:
                found = header.end_offset
        if chunk.bad is not None:
            raise CorruptRecordError(f"{segment.file.path}: {chunk.bad}")
        at = chunk.position
    return found
