"""Finds the end of a log's good batches when the log is opened."""

from __future__ import annotations

from dataclasses import dataclass

from quorate.errors import CorruptRecordError
from quorate.record.batch import BatchHeader
from quorate_quorum.disk import Disk
from quorate_quorum.log.checksum import check_whole
from quorate_quorum.log.extent import Extent
from quorate_quorum.log.segment import RELATIVE_MAX, Inspect, Segment
from quorate_quorum.log.segments import Segments


@dataclass(frozen=True, slots=True)
class GoodEnd:
    """The place where the good batches of a log end."""

    #: One past the last good batch; None if no batch was found and the scan began inside a segment.
    offset: int | None
    #: The index of the segment in Segments.all, and the position in that segment.
    at: int
    position: int
    #: What is wrong with the batch that follows; None: no batch follows.
    bad: str | None


@dataclass(eq=False)
class Scan:
    """One scan. Each batch must be good, follow the one before it, and not have an older epoch.

    In a log with gaps, a batch may begin above the end of the one before it. The scan notes good
    batches in the indexes of the segments and in the extent's epochs.
    """

    _segments: Segments
    _extent: Extent
    _inspect: Inspect | None
    #: The offset at which the next batch must begin; None if the scan starts inside a segment.
    _expected: int | None
    #: The disk with the checksum files; None: the scan does not compare them.
    _checksums: Disk | None = None
    #: All below this offset had survived a sync, so a batch of the active segment ends there.
    _synced: int = 0
    #: Whether the scan decides what a salvage keeps.
    is_salvage: bool = False
    #: The last good batch: the least offset that it may have, its segment, its position.
    _last: tuple[int, int, int] | None = None
    #: Whether the last good batch is the first one of its epoch.
    _began_epoch: bool = False
    #: Whether the last good batch must be given up: see _is_in_doubt.
    _is_doubtful: bool = False

    async def run(self, first: int, position: int) -> GoodEnd:
        """Check batches from `position` in segment `first` to the log's end, or to a bad batch."""
        for at in range(first, len(self._segments.all)):
            segment = self._segments.all[at]
            if self._expected is not None and segment.base_offset != self._expected:
                bad: str | None = f"no segment begins at {self._expected}"
                if self._is_in_doubt(segment.base_offset):
                    return self._before_last(bad)
                return GoodEnd(self._expected, at, 0, bad)
            position, bad = await self._pass(at, position)
            if bad is not None and self._is_doubtful:
                return self._before_last(bad)
            if bad is not None:
                return GoodEnd(self._expected, at, position, bad)
            if self._checksums is not None:  # the whole log is scanned, and with all checks
                segment.verified.fresh_from = 0
            position = 0
        return GoodEnd(self._expected, len(self._segments.all), 0, None)

    async def _pass(self, at: int, position: int) -> tuple[int, str | None]:
        """Scan one segment. Return where its good batches end, and what is wrong there, or None."""
        segment = self._segments.all[at]
        if self._checksums is not None:
            try:
                await check_whole(self._checksums, segment)
            except CorruptRecordError as error:
                return position, str(error)
        segment.index = index = segment.index or segment.new_index()
        while position < segment.size:
            chunk = await segment.scan(position, checked=True, inspect=self._inspect)
            for where, header in chunk.found:
                least = self._expected
                misfit = self._misfit(segment, header)
                if misfit is not None:
                    self._is_doubtful = self._is_in_doubt(header.base_offset, header.leader_epoch)
                    return where, misfit
                self._last = None if least is None else (least, at, where)
                segment.add_to(index, where, header)
                self._began_epoch = self._extent.epochs.assign(
                    header.leader_epoch, header.base_offset
                )
                self._expected = header.end_offset
            position = chunk.position
            if chunk.bad is not None:
                return position, chunk.bad
        return position, None

    def _misfit(self, segment: Segment, header: BatchHeader) -> str | None:
        """Return why a good batch can't be the next one of this log; None if it can."""
        offset = header.base_offset
        if self._expected is None:
            self._expected = offset
        if offset < self._expected or (offset > self._expected and not self._extent.has_gaps):
            return f"a batch has offset {offset} where {self._expected} should be"
        if self._expected < self._synced < header.end_offset and self._must_end_at_synced(segment):
            return f"a batch has offset {offset}, and none ends at {self._synced}"
        if header.leader_epoch < self._extent.epochs.epoch_at(offset):
            return f"the batch at {offset} is of epoch {header.leader_epoch}, older than the last"
        if not 0 <= header.last_offset - segment.base_offset <= RELATIVE_MAX:
            return f"the batch at {offset} is not one of segment {segment.base_offset}"
        return None

    def _is_in_doubt(self, next_offset: int, next_epoch: int | None = None) -> bool:
        """Return whether the last batch may be the bad one, and must be given up, too.

        In a log with gaps, either of two offsets that contradict each other may be wrong. So may
        either of two epochs, if no other batch has the epoch of the last one: with an epoch that is
        too high, the log would take no batch of its leader. Only a salvage gives up both.
        """
        if not self.is_salvage or self._last is None:
            return False
        is_behind = self._expected is not None and next_offset < self._expected
        is_older = next_epoch is not None and next_epoch < self._extent.epochs.last
        return (is_behind and self._extent.has_gaps) or (is_older and self._began_epoch)

    def _before_last(self, bad: str | None) -> GoodEnd:
        """Return the place before the last good batch."""
        assert self._last is not None
        return GoodEnd(*self._last, bad)

    def _must_end_at_synced(self, segment: Segment) -> bool:
        """Return whether a batch of this segment must end where the last sync did.

        In a log with gaps nothing else shows that the offset of the last batch is too high.
        Compaction may have removed that batch from a closed segment, and a start that was moved
        into a gap or a batch was synced, too.
        """
        is_after_start = self._synced > self._extent.start
        return self._extent.has_gaps and is_after_start and segment is self._segments.active


async def scan_start(segment: Segment, good: int) -> int:
    """Give the first segment of a scan its index. Return the position from which to scan.

    All batches below the offset `good` are good, so the scan begins at the index's last entry below
    it.
    """
    segment.index = segment.new_index()
    if good <= segment.base_offset:
        return 0
    index = await segment.index_on_disk()
    index.truncate(good - segment.base_offset)
    if not await segment.names_a_batch(*index.last_entry):
        return 0
    segment.index = index
    return index.last_entry[1]
