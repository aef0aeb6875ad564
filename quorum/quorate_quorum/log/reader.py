"""Finds the bytes of whole batches: near the log's end by memory, elsewhere by the index."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict

from quorate.errors import CorruptRecordError
from quorate.record.batch import HEADER_BYTES, check, parse_header
from quorate_quorum.log.extent import Extent
from quorate_quorum.log.segment import Segment, walk
from quorate_quorum.log.segments import Segments
from quorate_quorum.log.verifier import Verifier

#: The most positions of newest batches that are kept, so that reads at the log's end need no index.
RECENT_BATCHES_MAX = 4096
#: The most next positions of readers that are kept, so that a reader that goes on needs no index.
READERS_MAX = 32
#: The least bytes that a read of older batches fetches, to search them for the batch.
_READ_BYTES_MIN = 4096


class RecentBatches:
    """The positions of the newest batches of the active segment.

    The first of `_offsets` is where the oldest batch begins; the others are where batches end.
    `_positions` are the same places in bytes, so both lists have the same length. Both are empty
    while not even the end of the log is known.
    """

    def __init__(self) -> None:
        self._offsets: list[int] = []
        self._positions: list[int] = []

    def restart(self, end_offset: int, position: int) -> None:
        """Keep only the end of the log, which is at `position` of the active segment."""
        self._offsets = [end_offset]
        self._positions = [position]

    def forget(self) -> None:
        self._offsets = []
        self._positions = []

    def add(self, end_offset: int, position: int) -> None:
        """Note a batch that ends at `end_offset`, and at `position` of the active segment."""
        self._offsets.append(end_offset)
        self._positions.append(position)

    def thin_out(self) -> None:
        """If too many batches are noted, forget the older half."""
        if len(self._offsets) > RECENT_BATCHES_MAX:
            del self._offsets[: -RECENT_BATCHES_MAX // 2]
            del self._positions[: -RECENT_BATCHES_MAX // 2]

    def holds(self, offset: int) -> bool:
        return bool(self._offsets) and offset >= self._offsets[0]

    def find(self, offset: int, end: int, bytes_max: int, *, at_least_one: bool) -> tuple[int, int]:
        """Return the start and stop positions of the batches that a read asks for (Reader.read).

        >>> recent = RecentBatches()
        >>> recent.restart(10, 0); recent.add(12, 100); recent.add(15, 300)
        >>> recent.find(11, 15, 1000, at_least_one=True)
        (0, 300)
        >>> recent.find(11, 14, 1000, at_least_one=True)
        (0, 100)
        >>> recent.find(13, 14, 1000, at_least_one=True)
        (100, 100)
        """
        offsets, positions = self._offsets, self._positions
        first = bisect_right(offsets, offset) - 1
        start = positions[first]
        last = min(bisect_right(offsets, end) - 1, bisect_right(positions, start + bytes_max) - 1)
        if last <= first:
            if not at_least_one or offsets[first + 1] > end:
                return start, start
            last = first + 1
        return start, positions[last]


class Reader:
    """Reads one log. If the log is cut during a read, the caller drops the result.

    Bytes that this process did not append are verified before they are returned for the first time.
    """

    def __init__(self, segments: Segments, extent: Extent) -> None:
        self._segments = segments
        self._extent = extent
        self.verifier = Verifier(segments, extent)
        self.recent = RecentBatches()
        #: The offset that a reader will ask for next -> (its segment, its position there).
        self._next: OrderedDict[int, tuple[Segment, int]] = OrderedDict()
        if segments.all:
            self.restart()

    def restart(self) -> None:
        """Keep only the end of the log, because the active segment is new or was cut."""
        self.recent.restart(self._extent.end, self._segments.active.size)

    def forget(self) -> None:
        """Forget every position, because a cut begins."""
        self.recent.forget()
        self._next.clear()

    def forget_older(self) -> None:
        """Forget the positions in closed segments, because compacted segments replaced some."""
        self._next.clear()

    async def read(self, offset: int, end: int, bytes_max: int, *, at_least_one: bool) -> bytes:
        """Return whole batches that end at or below `end`. The first one holds `offset`.

        The batches have at most `bytes_max` bytes; with `at_least_one` the first may be larger.
        They never cross the end of a segment. Raises OSError, CorruptRecordError.
        """
        if not self.recent.holds(offset):
            return await self._read_by_index(offset, end, bytes_max, at_least_one)
        start, stop = self.recent.find(offset, end, bytes_max, at_least_one=at_least_one)
        if start == stop:
            return b""
        return await self._segments.active.file.read_at(start, stop - start)

    async def read_anew(self, offset: int, end: int) -> bytes:
        """Return the batch that holds `offset`, after it is verified again. Raises as `read`."""
        segments = self._segments
        at = segments.at(offset)
        if at >= 0:
            segments.all[at].verified.forget(segments.all[at].size)
        return await self._read_by_index(offset, end, 1, True)

    async def _read_by_index(
        self, offset: int, end: int, bytes_max: int, at_least_one: bool
    ) -> bytes:
        segments = self._segments
        while True:
            replacements = segments.replacements
            try:
                return await self._read_older(offset, end, bytes_max, at_least_one)
            except (OSError, CorruptRecordError):
                if not await segments.were_replaced_since(replacements):
                    raise

    async def _read_older(self, offset: int, end: int, bytes_max: int, at_least_one: bool) -> bytes:
        segments = self._segments
        at = segments.at(offset)
        while at < len(segments.all):
            segment = segments.all[at]
            known, position = self._next.pop(offset, (None, 0))
            if known is not segment:
                position = await segments.position_of(segment, offset)
            if position < segment.size:
                return await self._read_at(segment, position, offset, end, bytes_max, at_least_one)
            if at + 1 < len(segments.all):
                raise CorruptRecordError(f"{segment.file.path} ends below offset {offset}")
            at += 1
        return b""

    async def _read_at(
        self,
        segment: Segment,
        position: int,
        offset: int,
        end: int,
        bytes_max: int,
        at_least_one: bool,
    ) -> bytes:
        truncations = self._extent.truncations
        length = max(bytes_max, _READ_BYTES_MIN)
        data = await segment.file.read_at(position, min(length, segment.size - position))
        gaps_from = segment.base_offset if self._extent.has_gaps else None
        start, stop, next_offset, wanted = walk(
            data, offset=offset, end=end, bytes_max=bytes_max, gaps_from=gaps_from
        )
        if wanted:
            position += start
            data = await segment.file.read_at(position, wanted)
            start, stop, next_offset, wanted = walk(
                data, offset=offset, end=end, bytes_max=bytes_max, gaps_from=gaps_from
            )
        if stop == start and truncations == self._extent.truncations:
            until = self._segments.end_of(segment)
            gaps = self._extent.has_gaps
            await _check_batch_at(segment, position + start, offset, until, gaps=gaps)
        if stop - start > bytes_max and not at_least_one:
            return b""
        if stop > start and truncations == self._extent.truncations:
            good = await self.verifier.good_end(segment, offset, position + start, position + stop)
            if good < position + stop:
                data = data[: good - position]
                start, stop, next_offset, _ = walk(
                    data, offset=offset, end=end, bytes_max=bytes_max, gaps_from=gaps_from
                )
        if stop > start and truncations == self._extent.truncations:
            # Only if the log was not cut: after a cut, the position may lie in the middle of a
            # batch.
            self._next[next_offset] = (segment, position + stop)
            if len(self._next) > READERS_MAX:
                self._next.popitem(last=False)
        return data if stop - start == len(data) else data[start:stop]


async def _check_batch_at(
    segment: Segment, position: int, offset: int, until: int, *, gaps: bool
) -> None:
    """Check the batch with `offset`, which a read left out. CorruptRecordError if damaged.

    Without this check, a batch with a flipped bit in its length or offsets would look for ever like
    one that may not be read yet. The batch must end at or below `until`, where the segment ends. In
    a log with gaps it may begin above `offset`.
    """
    header = parse_header(await segment.file.read_at(position, HEADER_BYTES))
    if position + header.size > segment.size:
        raise CorruptRecordError(
            f"the batch with offset {offset} says {header.size} bytes, and "
            f"{segment.size - position} follow"
        )
    check(await segment.file.read_at(position, header.size), header)
    begins = header.base_offset <= offset or gaps
    if not begins or not offset < header.end_offset <= until:
        raise CorruptRecordError(
            f"where offset {offset} should be lies a batch of {header.base_offset}"
        )
