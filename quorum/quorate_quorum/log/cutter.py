"""Cuts of a log: at its end, at its start, or of all that it holds.

The steps have an order that makes a crash at any point harmless:

* A cut first counts itself and marks the directory. Then it lowers the slots durably. Then it
  removes whole segments, last first, so that a crash leaves a prefix of the log.
* A cut is synced before the next append: otherwise cut bytes could come back between newer ones.
* Before segments at the start are removed, the names of the segments that stay and the log's new
  start are made durable.
"""

from __future__ import annotations

from quorate_quorum.log.epochs import EpochCache
from quorate_quorum.log.observed import ObservedState
from quorate_quorum.log.parts import Parts
from quorate_quorum.log.reader import Reader


class Cutter:
    """Cuts one log. The caller holds the guard's turn to write."""

    def __init__(self, parts: Parts, reader: Reader, observed: ObservedState | None) -> None:
        self._parts = parts
        self._directory = parts.directory
        self._extent = parts.extent
        self._segments = parts.segments
        self._checkpoints = parts.checkpoints
        self._reader = reader
        self._observed = observed

    async def cut_end(self, end_offset: int) -> None:
        """Cut the log to `end_offset`, or to the start of the batch that lies across it."""
        segments, extent = self._segments, self._extent
        at = max(segments.at(end_offset), 0)
        segment = segments.all[at]
        position = await segment.position_of(end_offset)
        if position < segment.size:
            chunk = await segment.scan(position, checked=False)
            end_offset = min(end_offset, chunk.found[0][1].base_offset)
        if extent.has_gaps:  # no record may be missing between the last one and the end
            end_offset = await segment.end_before(position, end_offset)
        await self._begin(end_offset)
        await self._checkpoints.lower(end_offset)
        for last in reversed(segments.all[at + 1 :]):
            await segments.drop(last)
        if await self._parts.snapshots.remove_above(end_offset):
            self._directory.changed()
        await segment.remove_index_files()
        self._directory.changed()
        await self._directory.sync()
        await segment.cut(position, end_offset)
        await self._parts.finish_cut()
        self._reader.restart()
        extent.epochs.truncate_from_end(end_offset)
        await self._parts.epoch_file.write_if_possible(extent.epochs)
        await self._reload_observer()

    async def start_again_at(self, offset: int) -> None:
        """Remove every record. The next record that is appended has `offset`."""
        segments, extent, checkpoints = self._segments, self._extent, self._checkpoints
        await self._begin(extent.start)
        known = checkpoints.known_start
        if offset > known:
            await checkpoints.move_start(offset)
        if segments.all:
            await checkpoints.lower(min(extent.start, offset))
            for last in reversed(segments.all[1:]):
                await segments.drop(last)
            if await self._parts.snapshots.remove_above(-1):
                self._directory.changed()
            await segments.move_last(offset)
        extent.epochs = EpochCache()
        extent.start = extent.end = checkpoints.synced_end = checkpoints.high_watermark = offset
        await segments.begin()
        self._reader.restart()
        await self._parts.epoch_file.write_if_possible(extent.epochs)
        await self._parts.finish_cut()
        if offset < known:
            await checkpoints.move_start(offset)
        extent.lost_start = None
        await checkpoints.replace_synced(offset)
        await self._reload_observer()

    async def delete_below(self, offset: int) -> int:
        """Remove whole segments whose records all lie below `offset`. Return how many.

        The active segment stays.
        """
        segments, extent = self._segments, self._extent
        at = segments.at(offset)
        if at < 1:
            return 0
        # First the names of what stays: a power loss may keep a removal alone.
        await self._directory.sync()
        await self._checkpoints.move_start(segments.bases[at])
        for _ in range(at):
            extent.start = segments.bases[1]
            await segments.drop(segments.all[0])
        if extent.epochs.truncate_from_start(extent.start):
            await self._parts.epoch_file.write_if_possible(extent.epochs)
        return at

    async def _begin(self, end: int) -> None:
        self._extent.begin_cut(end)
        self._reader.forget()
        await self._parts.mark_cut()

    async def _reload_observer(self) -> None:
        if self._observed is not None:
            await self._observed.reload()
