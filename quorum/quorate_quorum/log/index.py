"""The two sparse indexes of a segment: offset to position, and timestamp to offset.

On disk they are Kafka's `.index` (4-byte relative offset, 4-byte position) and `.timeindex`
(8-byte timestamp, 4-byte relative offset). They are a cache of the segment: read leniently, for a
prefix is as good as the whole, checked against the batches when used, and built again from them.
"""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_left, bisect_right

OFFSET_ENTRY = struct.Struct(">II")
TIME_ENTRY = struct.Struct(">qI")


class SegmentIndex:
    """Where some batches of a segment lie, and the greatest timestamps so far.

    Offsets are relative to the segment's base offset; a batch is named by its last offset, as in
    Kafka. All four columns grow strictly, each pair in step.
    """

    def __init__(self, interval_bytes: int) -> None:
        self._interval_bytes = interval_bytes
        self._offsets = array("I")
        self._positions = array("I")
        self._times = array("q")
        self._time_offsets = array("I")
        self._bytes_since_entry = 0
        self._max_time = -1
        self._max_time_offset = 0

    @property
    def max_timestamp(self) -> int:
        """The greatest timestamp in the segment; -1 if it has none."""
        return self._max_time

    @property
    def last_entry(self) -> tuple[int, int]:
        """(relative last offset, position) of the last batch that has an entry, or (-1, 0)."""
        return (self._offsets[-1], self._positions[-1]) if self._offsets else (-1, 0)

    def add(self, last_offset: int, position: int, size: int, max_timestamp: int) -> None:
        """Note a batch, in order; one already covered may be noted again."""
        if max_timestamp > self._max_time:
            self._max_time = max_timestamp
            self._max_time_offset = last_offset
        if self._bytes_since_entry > self._interval_bytes and position > self.last_entry[1]:
            self._offsets.append(last_offset)
            self._positions.append(position)
            self._note_time()
            self._bytes_since_entry = 0
        self._bytes_since_entry += size

    def floor(self, offset: int) -> tuple[int, int]:
        """(relative last offset, position) of the last entry at or below, or (-1, 0)."""
        found = bisect_right(self._offsets, offset) - 1
        return (self._offsets[found], self._positions[found]) if found >= 0 else (-1, 0)

    def floor_of_time(self, timestamp: int) -> int:
        """A relative offset at or below the first record with at least this timestamp."""
        found = bisect_left(self._times, timestamp) - 1
        return self._time_offsets[found] if found >= 0 else 0

    def truncate(self, end: int) -> None:
        """Forget batches that end above relative offset `end`. Then note again those from
        last_entry on: the times of batches since that entry are forgotten too.
        """
        keep = bisect_left(self._offsets, end)
        del self._offsets[keep:], self._positions[keep:]
        covered = self._offsets[-1] if self._offsets else -1
        keep = bisect_right(self._time_offsets, covered)
        del self._times[keep:], self._time_offsets[keep:]
        self._max_time = self._times[-1] if self._times else -1
        self._max_time_offset = self._time_offsets[-1] if self._times else 0
        self._bytes_since_entry = 0

    def encode_offsets(self) -> bytes:
        return _interleave((self._offsets, 4), (self._positions, 4))

    def encode_times(self) -> bytes:
        """The time index, with a last entry for the greatest timestamp of all."""
        self._note_time()
        return _interleave((self._times, 8), (self._time_offsets, 4))

    def load(self, offsets: bytes, times: bytes, segment_bytes: int) -> None:
        """Take over entries from disk, up to the first that can't be."""
        for offset, position in _entries(OFFSET_ENTRY, offsets):
            last_offset, last_position = self.last_entry
            if offset <= last_offset or not last_position < position < segment_bytes:
                break
            self._offsets.append(offset)
            self._positions.append(position)
        for time, offset in _entries(TIME_ENTRY, times):
            if self._times and (time <= self._times[-1] or offset <= self._time_offsets[-1]):
                break
            self._times.append(time)
            self._time_offsets.append(offset)
        if not self._times:
            del self._offsets[:], self._positions[:]  # the two are written together
        self.truncate((1 << 32) - 1)

    def _note_time(self) -> None:
        if self._max_time > (self._times[-1] if self._times else -1):
            self._times.append(self._max_time)
            self._time_offsets.append(self._max_time_offset)


def _interleave(*columns: tuple[array[int], int]) -> bytes:
    """Join columns of big-endian integers row by row.

    >>> _interleave((array("I", [1, 2]), 4), (array("I", [3, 4]), 4)).hex()
    '00000001000000030000000200000004'
    """
    width = sum(size for _, size in columns)
    rows = bytearray(len(columns[0][0]) * width)
    at = 0
    for column, size in columns:
        swapped = array(column.typecode, column)
        if sys.byteorder == "little":
            swapped.byteswap()
        data = swapped.tobytes()
        for byte in range(size):
            rows[at + byte :: width] = data[byte::size]
        at += size
    return bytes(rows)


def _entries(layout: struct.Struct, content: bytes) -> list[tuple[int, int]]:
    whole = len(content) - len(content) % layout.size
    return list(layout.iter_unpack(content[:whole]))
