"""Compares the two index files of a segment with its batches, one batch after the other."""

from __future__ import annotations

from collections.abc import Iterator

from quorate.record.batch import BatchHeader
from quorate_quorum.log.index import OFFSET_ENTRY, TIME_ENTRY


class IndexCheck:
    """Finds out whether each entry of the index files names a batch of the segment.

    Which batches have entries is not compared: a valid index may have fewer than another one.
    """

    def __init__(self, base_offset: int, offsets: bytes, times: bytes) -> None:
        self._base_offset = base_offset
        self._is_good = not (len(offsets) % OFFSET_ENTRY.size or len(times) % TIME_ENTRY.size)
        self._offsets = _rows(OFFSET_ENTRY.iter_unpack(offsets)) if self._is_good else iter(())
        self._times = _rows(TIME_ENTRY.iter_unpack(times)) if self._is_good else iter(())
        self._offset = next(self._offsets, None)
        self._time = next(self._times, None)
        self._max_timestamp = -1

    def see(self, position: int, header: BatchHeader) -> None:
        """Compare the entries of the batch at `position`. Batches come in order, all of them."""
        last_offset = header.last_offset - self._base_offset
        if self._offset is not None and self._offset[1] <= position:
            self._is_good = self._is_good and self._offset == (last_offset, position)
            self._offset = next(self._offsets, None)
        is_newest = header.max_timestamp > self._max_timestamp
        self._max_timestamp = max(self._max_timestamp, header.max_timestamp)
        if self._time is not None and self._time[1] <= last_offset:
            expected = (header.max_timestamp, last_offset)
            self._is_good = self._is_good and is_newest and self._time == expected
            self._time = next(self._times, None)

    def result(self) -> bool:
        """Return whether all entries are right. All batches must have been seen."""
        return self._is_good and self._offset is None and self._time is None


def _rows(rows: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    yield from rows
