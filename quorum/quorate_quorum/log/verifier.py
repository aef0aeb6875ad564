"""Verifies the bytes of a log before a follower or a consumer gets them for the first time.

The CRC of a batch covers its records and most of its header. What it leaves out is compared with
other witnesses:

* base_offset: each batch begins where the batch before it ends. The first of these batches is where
  an entry of the offset index says, or the first of its segment. The last batch of a closed segment
  ends where the next segment begins.
* batch_length: at another length the next batch does not begin there, and the CRC fails.
* leader_epoch: the table of epochs (epochs.py).

In a compacted segment a batch may begin above the end of the one before it, so there the checksum
file is the witness for all three fields (checksum.py). A segment of a compacted log that was not
compacted yet has none; there the next batch shows that an offset is too high, unless gaps are on
both sides. One flipped bit never changes two witnesses in the same way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from quorate.errors import CorruptRecordError
from quorate.record.batch import BatchHeader
from quorate_quorum.log.checksum import SegmentChecksum, checksum_of, stamped
from quorate_quorum.log.extent import Extent
from quorate_quorum.log.segment import CHECKSUM, CHUNK_BYTES, LOOKUP_BYTES, Segment
from quorate_quorum.log.segments import Segments


@dataclass(slots=True)
class Chain:
    """Compares one batch after the other with the witnesses of what its CRC leaves out."""

    extent: Extent
    #: Where the next batch must begin; in a log with gaps, the least offset at which it may begin.
    expected: int
    #: The checksum of a compacted segment; None: it has none.
    known: SegmentChecksum | None = None
    _crc: int = 0

    def misfit(self, position: int, header: BatchHeader) -> str | None:
        """Return why the batch at `position` can't be the next one; None if it can be."""
        base, expected = header.base_offset, self.expected
        self.expected = header.end_offset
        if base < expected or (base > expected and not self.extent.has_gaps):
            # Count on from where the batch should begin, so that the next one is not blamed.
            self.expected = expected + header.last_offset_delta + 1
            return f"where offset {expected} should be lies a batch of {base}"
        start = self.extent.start
        epoch = self.extent.epochs.epoch_at(max(base, start))
        if header.end_offset > start and header.leader_epoch != epoch:
            return f"the batch at {base} says leader_epoch {header.leader_epoch}, not {epoch}"
        return self._block_misfit(position, header)

    def _block_misfit(self, position: int, header: BatchHeader) -> str | None:
        if self.known is None:
            return None
        self._crc = stamped(header, self._crc)
        _, stop, crc = self.known.block_of(position)
        if position + header.size != stop:
            return None
        found, self._crc = self._crc, 0
        return None if found == crc else f"offsets or epochs below byte {stop} were changed"


@dataclass(slots=True)
class _Found:
    """What a look at some batches found."""

    #: Where the good batches end.
    good: int
    #: The offset at which they end.
    end_offset: int
    #: What is wrong with the next batch; "": nothing.
    fault: str = ""
    #: Whether that batch is bad by itself, and not by the offsets or epochs around it.
    is_unreadable: bool = False


class Verifier:
    """Verifies parts of one log's segments. Verified.covers tells which parts need no check."""

    def __init__(self, segments: Segments, extent: Extent) -> None:
        self._segments = segments
        self._extent = extent

    async def good_end(self, segment: Segment, offset: int, start: int, stop: int) -> int:
        """Return where the good batches from `start` on end: at `stop`, or at a bad batch.

        Batches begin at both positions; the one at `start` holds `offset`, or is the first above
        it. The work is that of these batches, and of up to an entry of the index or two blocks of
        the checksum file more. CorruptRecordError if the batch at `start` is bad.
        """
        verified = segment.verified
        if verified.covers(start, stop):
            return stop
        truncations = self._extent.truncations
        known = await self.checksum(segment)
        found = await self._look(segment, offset, start, stop, known)
        if truncations != self._extent.truncations:
            return stop  # the caller drops what it has read
        good = found.good
        if known is not None and found.fault:
            if found.is_unreadable and start < good < stop:
                return await self.good_end(segment, offset, start, good)
            good = start  # any batch of the block may be the bad one
        if found.fault and good <= start:
            raise CorruptRecordError(f"{segment.file.path}: {found.fault}")
        if good > start:
            verified.add(start, good, found.end_offset)
        return good if found.fault else stop

    async def _look(
        self, segment: Segment, offset: int, start: int, stop: int, known: SegmentChecksum | None
    ) -> _Found:
        """Check the batches from `start` to `stop`, as far as they are good."""
        finish = stop
        reached = segment.verified.reaches(start)
        if known is not None:
            begin, expected = known.block_of(start)[0], segment.base_offset
            finish = known.block_of(stop - 1)[1]
        elif reached is not None:
            begin, expected = reached
        else:
            begin, expected = await self._witness(segment, offset, start)
        chain = Chain(self._extent, expected, known)
        found = before_last = _Found(max(begin, start), expected)
        try:
            async for where, header in _batches(segment, begin, start, stop, finish):
                misfit = chain.misfit(where, header)
                if misfit is not None and (where >= start or known is not None):
                    found.fault = misfit
                    return found
                if start <= where < stop:
                    before_last, found = found, _Found(where + header.size, header.end_offset)
        except CorruptRecordError as error:
            found.fault, found.is_unreadable = str(error), True
            return found
        if stop == segment.size:
            found.fault = self.end_misfit(segment, found.end_offset)
            found.good = start if found.fault else stop
        elif known is None and self._extent.has_gaps:
            before_last.fault = await _next_misfit(segment, stop, found.end_offset)
            return before_last if before_last.fault else found
        return found

    async def checksum(self, segment: Segment) -> SegmentChecksum | None:
        """Return the checksum of a compacted segment; None if it has none that is whole.

        The file has a CRC of its own. If it is damaged, the batches are not to blame.
        """
        if not self._extent.has_gaps:
            return None
        known = await checksum_of(self._segments.disk, segment.path(CHECKSUM))
        return known if known is not None and known.size == segment.size else None

    async def _witness(self, segment: Segment, offset: int, start: int) -> tuple[int, int]:
        """Return a position at or before `start`, and the offset of the batch there.

        An entry of the index is believed if the batch agrees: both name the batch's last offset.
        """
        index = await segment.loaded_index()
        self._segments.used_index_of(segment)
        last_offset, position = index.floor(offset - segment.base_offset)
        if last_offset >= 0 and position <= start:
            found = (await segment.scan(position, checked=False)).found
            if found and found[0][1].last_offset == segment.base_offset + last_offset:
                return position, found[0][1].base_offset
        return 0, segment.base_offset

    def end_misfit(self, segment: Segment, end_offset: int) -> str:
        """Return how the end of a closed segment differs from the next segment's begin, or ""."""
        end = self._segments.end_of(segment)
        is_closed = segment in self._segments.all[:-1]
        if not is_closed or end_offset == end or (end_offset < end and self._extent.has_gaps):
            return ""
        return f"it ends at offset {end_offset}, and the next segment begins at {end}"


async def _next_misfit(segment: Segment, position: int, end_offset: int) -> str:
    """Return how the batch at `position` contradicts that the one before ends at `end_offset`.

    In a log with gaps no batch before it shows that an offset is too high, but the next one does.
    """
    chunk = await segment.scan(position, checked=False, bytes_max=LOOKUP_BYTES)
    if not chunk.found or chunk.found[0][1].base_offset >= end_offset:
        return ""
    return f"a batch of {chunk.found[0][1].base_offset} lies behind {end_offset}"


async def _batches(
    segment: Segment, begin: int, start: int, stop: int, finish: int
) -> AsyncIterator[tuple[int, BatchHeader]]:
    """Yield the batches from `begin` to `finish`, and check the CRCs from `start` to `stop`.

    The others are only to tell where a batch should begin. Raises CorruptRecordError.
    """
    for first, last, checked in ((begin, start, False), (max(begin, start), stop, True)):
        async for one in _pass(segment, first, last, checked=checked):
            yield one
    async for one in _pass(segment, stop, finish, checked=False):
        yield one


async def _pass(
    segment: Segment, position: int, stop: int, *, checked: bool
) -> AsyncIterator[tuple[int, BatchHeader]]:
    while position < stop:
        length = min(CHUNK_BYTES, stop - position)
        chunk = await segment.scan(position, checked=checked, bytes_max=length)
        for one in chunk.found:
            yield one
        if chunk.bad is not None:
            raise CorruptRecordError(chunk.bad)
        if chunk.position == position:
            return  # the log was cut below this position; the caller drops what it has read
        position = chunk.position
        await asyncio.sleep(0)
