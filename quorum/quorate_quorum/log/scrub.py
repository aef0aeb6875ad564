"""One pass that verifies a whole log in small steps, while the log is read and written.

All batches are verified, whether or not they were verified before. The files beside the segments
are verified, too. They repeat what memory or the batches tell, so a damaged one is written again:
indexes, checksum files, the table of epochs, slots. A damaged snapshot of the Observer is removed.
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from quorate.errors import CorruptRecordError
from quorate_quorum.disk import replace_whole
from quorate_quorum.log.checksum import Checksummer
from quorate_quorum.log.disk_errors import done_without
from quorate_quorum.log.index import SegmentIndex
from quorate_quorum.log.index_check import IndexCheck
from quorate_quorum.log.parts import Parts
from quorate_quorum.log.segment import CHECKSUM, INDEX, TIME_INDEX, Segment, last_bytes
from quorate_quorum.log.verifier import Chain, Verifier

log = structlog.get_logger(__name__)

#: About the bytes that one step reads. The step yields to the event loop several times.
STEP_BYTES = 256 * 1024


@dataclass(slots=True)
class _Walk:
    """The walk over one segment: how far it has come, and what it will compare at the end."""

    segment: Segment
    truncations: int
    chain: Chain
    #: The index and the checksum that the batches give.
    index: SegmentIndex
    checksum: Checksummer
    #: The comparison of the index files; None: the segment is active, or has none.
    index_check: IndexCheck | None
    #: Whether there is a checksum file, and it is damaged.
    is_checksum_bad: bool
    position: int = 0


class Scrub:
    """One pass over one log. After a bad batch it goes on with the next segment."""

    def __init__(self, parts: Parts, verifier: Verifier) -> None:
        self._parts = parts
        self._verifier = verifier
        self._walk: _Walk | None = None
        #: Segments with lower base offsets are done; None: the files beside them are not done.
        self._next_base: int | None = None

    @property
    def is_done(self) -> bool:
        """Whether the pass is over."""
        bases = self._parts.segments.bases
        is_behind = self._next_base is not None and (not bases or self._next_base > bases[-1])
        return self._walk is None and is_behind

    async def step(self) -> int:
        """Do the next step of the pass. Return about how many bytes it read.

        LogCorruptError if a batch is bad. Raises StorageError. Nothing is done after `is_done`.
        """
        self._parts.guard.check()
        walk = self._walk
        try:
            if self._next_base is None:
                self._next_base = 0
                return await self._small_files()
            walk = self._walk = self._walk or await self._begin()
            return 0 if walk is None else await self._go_on(walk)
        except (OSError, CorruptRecordError) as error:
            self._walk = None
            if walk is not None and not self._is_current(walk):
                return 0
            raise self._parts.guard.error("can't verify", error, nothing_done=True) from error

    # A segment

    async def _begin(self) -> _Walk | None:
        """Begin with the next segment; None if there is none."""
        segments, extent = self._parts.segments, self._parts.extent
        assert self._next_base is not None
        segment = next((one for one in segments.all if one.base_offset >= self._next_base), None)
        if segment is None:
            self._next_base = max(self._next_base, segments.bases[-1] + 1 if segments.all else 0)
            return None
        self._next_base = segment.base_offset + 1
        truncations = extent.truncations
        try:
            known = await self._verifier.checksum(segment)
            has_checksum = await segments.disk.exists(segment.path(CHECKSUM))
            check = await self._index_check(segment)
        except OSError:
            if segment in segments.all:
                raise
            return None  # it was removed or replaced meanwhile
        return _Walk(
            segment,
            truncations,
            Chain(extent, segment.base_offset, known),
            segment.new_index(),
            Checksummer(segment.base_offset),
            check,
            has_checksum and known is None,
        )

    async def _index_check(self, segment: Segment) -> IndexCheck | None:
        segments = self._parts.segments
        is_closed = segment in segments.all[:-1]
        if not is_closed or not await segments.disk.exists(segment.path(INDEX)):
            return None
        offsets = await last_bytes(segments.disk, segment.path(INDEX), None)
        times = await last_bytes(segments.disk, segment.path(TIME_INDEX), None)
        return IndexCheck(segment.base_offset, offsets, times)

    async def _go_on(self, walk: _Walk) -> int:
        segment, begin = walk.segment, walk.position
        while walk.position < segment.size and walk.position - begin < STEP_BYTES:
            chunk = await segment.scan(walk.position, checked=True)
            if not self._is_current(walk):
                self._walk = None
                return walk.position - begin
            for position, header in chunk.found:
                misfit = walk.chain.misfit(position, header)
                if misfit is not None:
                    raise CorruptRecordError(f"{segment.file.path}: {misfit}")
                segment.add_to(walk.index, position, header)
                walk.checksum.add(header)
                if walk.index_check is not None:
                    walk.index_check.see(position, header)
            if chunk.bad is not None:
                raise CorruptRecordError(f"{segment.file.path}: {chunk.bad}")
            walk.position = chunk.position
        if walk.position >= segment.size:
            self._walk = None
            await self._finish(walk)
        return walk.position - begin

    def _is_current(self, walk: _Walk) -> bool:
        """Return whether the log was not cut since, and still has the segment."""
        is_cut = walk.truncations != self._parts.extent.truncations
        return not is_cut and walk.segment in self._parts.segments.all

    async def _finish(self, walk: _Walk) -> None:
        """Compare the end of a segment that was read, and mend the files beside it."""
        segment, end = walk.segment, walk.chain.expected
        misfit = self._verifier.end_misfit(segment, end)
        if misfit:
            raise CorruptRecordError(f"{segment.file.path}: {misfit}")
        segment.verified.add(0, walk.position, end)
        is_index_bad = walk.index_check is not None and not walk.index_check.result()
        if not (is_index_bad or walk.is_checksum_bad):
            return
        async with self._parts.guard.exclusive("mending"):
            segments = self._parts.segments
            if not self._is_current(walk) or segment is segments.active:
                return
            with done_without("damaged file", segment.file.path):
                if is_index_bad:
                    _tell(segment.path(INDEX))
                    segment.index = walk.index
                    segments.used_index_of(segment)
                    await segment.write_index()
                if walk.is_checksum_bad:
                    _tell(segment.path(CHECKSUM))
                    known = walk.checksum.result().encode()
                    await replace_whole(segments.disk, segment.path(CHECKSUM), known)

    # The other files

    async def _small_files(self) -> int:
        """Compare the files that belong to the log as a whole. Return about their bytes."""
        parts = self._parts
        if not parts.segments.all:
            return 0
        size = 0
        async with parts.guard.exclusive("mending"):
            with done_without("damaged file", parts.directory.path):
                if await parts.epoch_file.differs_from(parts.extent.epochs):
                    _tell(f"{parts.directory.path}: table of epochs")
                    await parts.epoch_file.write(parts.extent.epochs)
                for path in await parts.checkpoints.mend():
                    _tell(path)
                size, removed = await parts.snapshots.remove_damaged(parts.extent.epoch_before)
                for offset in removed:
                    _tell(f"{parts.directory.path}: snapshot at {offset}")
        return size


def _tell(what: str) -> None:
    log.warning("damaged_file_replaced", file=what)
