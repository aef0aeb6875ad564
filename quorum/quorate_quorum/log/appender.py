"""Appends to a log: one write for all batches of a call, and a new segment when one is full."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from quorate.record.batch import BatchHeader
from quorate_quorum.disk import Buffer
from quorate_quorum.log.disk_errors import done_without, is_passing, storage_error
from quorate_quorum.log.index import SegmentIndex
from quorate_quorum.log.observed import ObservedState
from quorate_quorum.log.parts import Parts
from quorate_quorum.log.reader import Reader
from quorate_quorum.log.rolling import Active, why_roll
from quorate_quorum.log.segment import BATCH_BYTES_MAX, Segment
from quorate_quorum.log.syncer import Syncer

log = structlog.get_logger(__name__)

#: The most batches that one turn of the event loop notes: a few milliseconds of work.
_TURN_MAX = 512

Batches = Sequence[tuple[BatchHeader, Sequence[Buffer]]]


class Appender:
    """Appends to one log. The caller holds Guard.exclusive."""

    def __init__(
        self, parts: Parts, syncer: Syncer, reader: Reader, observed: ObservedState | None
    ) -> None:
        self._parts = parts
        self._path = parts.directory.path
        self._segments = parts.segments
        self._extent = parts.extent
        self._syncer = syncer
        self._reader = reader
        self._observed = observed
        #: The owner's callback, which is called after each roll.
        self.rolled: Callable[[], None] = _nothing

    async def append(self, batches: Batches) -> None:
        """Append batches. See Log.append.

        Before the write, only the table of epochs changes. If the disk has no room, the table gets
        its old value back.
        """
        extent = self._extent
        size = 0
        expected = extent.end
        epoch = extent.epochs.last
        pieces: list[Buffer] = []
        for header, parts in batches:
            gap = header.base_offset - expected
            is_across = gap < 0 and extent.start == extent.end and not pieces
            assert gap == 0 or is_across or (gap > 0 and extent.has_gaps), (gap, expected)
            assert header.leader_epoch >= epoch, (header.leader_epoch, epoch)
            assert header.size <= BATCH_BYTES_MAX, header.size
            expected = header.end_offset
            epoch = header.leader_epoch
            size += header.size
            pieces.extend(parts)
        try:
            segment = await self._segment_for(size, expected)
            if epoch != extent.epochs.last:
                await self._note_epochs(batches)
            index = await segment.loaded_index()
            position = await segment.file.append(pieces)
        except OSError as error:
            if not is_passing(error):
                raise
            extent.epochs.truncate_from_end(extent.end)
            raise storage_error(self._path, error, nothing_done=True) from error
        assert position == segment.size, (position, segment.size)
        segment.grown(size)
        assert segment.file.size == segment.size, "headers and pieces differ in size"
        await self._note_written(segment, index, position, batches)
        extent.is_changed = True
        extent.appended_bytes += size
        extent.end = expected
        if self._observed is not None:
            await self._observed.save_if_due()

    async def _note_written(
        self, segment: Segment, index: SegmentIndex, position: int, batches: Batches
    ) -> None:
        """Note where the written batches are. No reader asks for them until the log's end moves."""
        for number, (header, _) in enumerate(batches, 1):
            # A reader may have built a damaged index again since the write began.
            segment.add_to(segment.index or index, position, header)
            position += header.size
            self._reader.recent.add(header.end_offset, position)
            if self._observed is not None:
                self._observed.observe(header)
            if number % _TURN_MAX == 0:
                await asyncio.sleep(0)
        self._reader.recent.thin_out()

    async def _segment_for(self, size: int, end_offset: int) -> Segment:
        """Return the active segment. If the append does not fit, begin a new segment first."""
        if not self._segments.all:
            await self._parts.directory.make()
            if self._parts.config.track_synced:
                await self._parts.checkpoints.reserve_synced()
            await self._parts.checkpoints.reserve_start()
            await self._begin_segment()
        reason = why_roll(
            await self._active(), self._parts.config, adding_bytes=size, adding_end=end_offset
        )
        if reason:
            await self.roll(reason)
        return self._segments.active

    async def _note_epochs(self, batches: Batches) -> None:
        for header, _ in batches:
            first = max(header.base_offset, self._extent.start)
            self._extent.epochs.assign(header.leader_epoch, first)
        await self._parts.epoch_file.write(self._extent.epochs)

    async def why_roll_idle(self) -> str:
        """Return why the active segment must be closed without an append; "" if it need not be."""
        if not self._segments.all:
            return ""
        return why_roll(await self._active(), self._parts.config, log_start=self._extent.start)

    async def _active(self) -> Active:
        segment = self._segments.active
        return Active(
            base_offset=segment.base_offset,
            end_offset=self._extent.end,
            size=segment.size,
            age_ms=await segment.age_ms(),
            is_index_full=segment.index is not None and segment.index.is_full,
        )

    async def roll(self, reason: str) -> None:
        """Close the active segment and begin a new one.

        The closed segment is synced in the background, after the one that was closed before it.
        TryAgainError leaves the log as it was.
        """
        await self._syncer.wait_for_background()
        closing = self._segments.active
        try:
            await self._save_indexes()
            with done_without("log start", self._path):
                await self._parts.checkpoints.reserve_start()
            await self._begin_segment()
        except OSError as error:
            if not is_passing(error):
                raise
            raise storage_error(self._path, error, nothing_done=True) from error
        self._segments.used_index_of(closing)
        log.info(
            "segment rolled", directory=self._path, base_offset=self._extent.end, reason=reason
        )
        self._syncer.sync_in_background(self._extent.end)
        self.rolled()

    async def _save_indexes(self) -> None:
        """Write the active segment's indexes and the Observer's state, if there is room.

        The next open is slower without these files, because it builds them again.
        """
        with done_without("index", self._path):
            await self._segments.active.write_index()
        if self._observed is not None:
            await self._observed.save()

    async def _begin_segment(self) -> None:
        await self._segments.begin(self._extent.end)
        self._reader.restart()


def _nothing() -> None:
    """Do nothing. The value of `rolled` until the owner sets another one."""
