"""The segments of one log, oldest first. The last one is active: appends go there."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass

from quorate.errors import CorruptRecordError
from quorate_quorum.disk import Disk, File
from quorate_quorum.log.directory import Directory
from quorate_quorum.log.extent import Extent
from quorate_quorum.log.segment import LOG, Segment, file_name

#: The most closed segments that keep their indexes in memory (at most 5 MiB each).
INDEXES_MAX = 4


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """A segment, as retention sees it."""

    base_offset: int
    end_offset: int
    size: int
    max_timestamp: int
    #: Milliseconds since the file last changed.
    unchanged_ms: int
    #: Why the segment's timestamps can't be read; "": they can.
    damage: str = ""


class Segments:
    """The segments of one log. `bases` are the base offsets of `all`; both change together.

    Each segment ends where the next one begins. Segments are removed at the two ends only, each
    durably before the next one, so that a crash leaves no gap.
    """

    def __init__(self, directory: Directory, extent: Extent, index_interval_bytes: int) -> None:
        self._directory = directory
        self._extent = extent
        self._index_interval_bytes = index_interval_bytes
        self.all: list[Segment] = []
        self.bases: list[int] = []
        #: The number of times that a compacted segment has replaced others.
        self.replacements = 0
        #: Held during such a replacement.
        self.replacing = asyncio.Lock()
        #: The closed segments whose index is in memory, the most recently used last.
        self._indexed: OrderedDict[int, Segment] = OrderedDict()

    @property
    def disk(self) -> Disk:
        return self._directory.disk

    @property
    def active(self) -> Segment:
        return self.all[-1]

    @property
    def size(self) -> int:
        """The size of all segments in bytes."""
        return sum(segment.size for segment in self.all)

    def at(self, offset: int) -> int:
        """Return the index in `all` of the segment that holds `offset`; -1 if it is below all."""
        return bisect_right(self.bases, offset) - 1

    def with_next_base(self) -> list[tuple[Segment, int]]:
        """Return each segment with the next one's base offset.

        The last segment has one past the log's end instead.
        """
        if not self.all:
            return []
        next_bases = [*self.bases[1:], self._extent.end + 1]
        return list(zip(self.all, next_bases, strict=True))

    def end_of(self, segment: Segment) -> int:
        """Return the offset at which a segment ends: the next one's base, or the log's end."""
        after = self.at(segment.base_offset) + 1
        return self.bases[after] if after < len(self.bases) else self._extent.end

    async def describe(self) -> list[SegmentInfo]:
        """Describe each segment, oldest first. A damaged one has a reason in `damage`."""
        while True:
            replacements = self.replacements
            found: list[SegmentInfo] = []
            failure: OSError | None = None
            try:
                for segment, next_base in self.with_next_base():
                    found.append(await self._described(segment, next_base))
            except OSError as error:
                failure = error
            if await self.were_replaced_since(replacements):
                continue
            if failure is not None:
                raise failure
            return found

    async def _described(self, segment: Segment, next_base: int) -> SegmentInfo:
        newest, damage = -1, ""
        try:
            newest = await segment.max_timestamp()
        except CorruptRecordError as error:
            damage = str(error)
        unchanged_ms = await segment.unchanged_ms()
        self.used_index_of(segment)
        end = min(next_base, self._extent.end)
        return SegmentInfo(segment.base_offset, end, segment.size, newest, unchanged_ms, damage)

    async def were_replaced_since(self, replacements: int) -> bool:
        """Wait for a replacement under way. Return whether the count differs from `replacements`.

        An operation that began before the replacement may have failed because its segments are
        gone. Then it begins again.
        """
        async with self.replacing:
            return self.replacements != replacements

    async def open(self, base_offset: int) -> None:
        """Open a segment that is on the disk. Segments are opened oldest first."""
        self._add(base_offset, await self._directory.disk.open(self._path(base_offset)))

    async def begin(self, base_offset: int) -> None:
        """Make a new active segment."""
        await self._directory.make()
        file = await self._directory.disk.open(self._path(base_offset), create=True)
        segment = self._add(base_offset, file)
        segment.index = segment.new_index()
        self._directory.changed()

    async def replace(self, old: list[Segment], base_offset: int) -> Segment:
        """Replace neighbouring segments by the one that is on the disk now, and return that one.

        The caller closes the old segments' files.
        """
        file = await self._directory.disk.open(self._path(base_offset))
        new = self._segment(base_offset, file)
        at = self.all.index(old[0])
        self.all[at : at + len(old)] = [new]
        self.bases[at : at + len(old)] = [base_offset]
        for segment in old:
            self._indexed.pop(segment.base_offset, None)
        self.replacements += 1
        return new

    async def drop(self, segment: Segment) -> None:
        """Remove the first or the last segment durably."""
        at = self.all.index(segment)
        del self.all[at], self.bases[at]
        self._indexed.pop(segment.base_offset, None)
        await segment.remove()
        self._directory.changed()
        await self._directory.sync()

    async def move_last(self, offset: int) -> None:
        """Empty the only segment, rename it to begin at `offset`, and close it.

        A crash leaves the old name or the new one. Without any segment, an open would not know the
        log's offset.
        """
        segment = self.all.pop()
        self.bases.pop()
        await segment.cut(0, segment.base_offset)
        await segment.file.sync()
        await segment.file.close()
        if segment.base_offset != offset:
            await self._directory.disk.rename(segment.path(LOG), self._path(offset))
        self._directory.changed()
        await self._directory.sync()

    async def position_of(self, segment: Segment, offset: int) -> int:
        """Return the position, as Segment.position_of. The loaded index stays in memory a while."""
        position = await segment.position_of(offset)
        self.used_index_of(segment)
        return position

    def used_index_of(self, segment: Segment) -> None:
        """Note a use of a segment's index. Only the INDEXES_MAX most recently used ones stay."""
        if segment in self.all[-1:] or segment.index is None:  # `all` is empty during some cuts
            return
        self._indexed[segment.base_offset] = segment
        self._indexed.move_to_end(segment.base_offset)
        if len(self._indexed) > INDEXES_MAX:
            self._indexed.popitem(last=False)[1].unload_index()

    async def close(self) -> None:
        for segment in self.all:
            await segment.file.close()

    def _segment(self, base_offset: int, file: File) -> Segment:
        interval_bytes = self._index_interval_bytes
        directory = self._directory
        return Segment(directory.disk, directory.path, base_offset, file, interval_bytes)

    def _add(self, base_offset: int, file: File) -> Segment:
        segment = self._segment(base_offset, file)
        self.all.append(segment)
        self.bases.append(base_offset)
        return segment

    def _path(self, base_offset: int) -> str:
        return self._directory.file(file_name(base_offset, LOG))
