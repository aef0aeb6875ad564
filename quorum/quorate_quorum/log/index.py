"""The two sparse indexes of a segment: offset to position, and timestamp to offset.

On disk they are Kafka's `.index` (4-byte relative offset, 4-byte position) and `.timeindex` (8-byte
timestamp, 4-byte relative offset). The index files are a cache: they are checked against the
batches before use, and built again from the batches if they are missing or bad. A file that is bad
from some entry on is used up to that entry, because a prefix of an index is a valid index.
The files have no checksum: an entry that is wrong can look possible, so Segment compares the last
ones with the batches.
"""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import islice
from operator import lt

OFFSET_ENTRY = struct.Struct(">II")
TIME_ENTRY = struct.Struct(">qI")
#: The largest index, as in Kafka (log.index.size.max.bytes).
INDEX_BYTES_MAX = 10 * 1024 * 1024
#: The number of entries that are loaded from disk in one turn of the event loop.
PIECE_ROWS = 16_384


class SegmentIndex:
    """The positions of some batches of a segment, and the greatest timestamps up to each.

    Offsets are relative to the segment's base offset. An entry has the last offset of its batch, as
    in Kafka. All four columns grow strictly; the two columns of a pair have the same length.
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
        """The greatest timestamp in the segment; -1 if the segment has none."""
        return self._max_time

    @property
    def newest(self) -> tuple[int, int]:
        """(max_timestamp, relative last offset of the first batch that has it); (-1, 0) if none."""
        return self._max_time, self._max_time_offset

    @property
    def is_full(self) -> bool:
        """Whether one of the two indexes is as large on disk as it may be."""
        return (
            len(self._offsets) * OFFSET_ENTRY.size >= INDEX_BYTES_MAX
            or len(self._times) * TIME_ENTRY.size >= INDEX_BYTES_MAX
        )

    @property
    def last_entry(self) -> tuple[int, int]:
        """(relative last offset, position) of the last entry; (-1, 0) if there is no entry."""
        return (self._offsets[-1], self._positions[-1]) if self._offsets else (-1, 0)

    def add(self, last_offset: int, position: int, size: int, max_timestamp: int) -> None:
        """Note a batch. Batches come in order. A batch that was noted before may come again."""
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
        """Return (relative last offset, position) of the last entry up to `offset`, or (-1, 0)."""
        found = bisect_right(self._offsets, offset) - 1
        return (self._offsets[found], self._positions[found]) if found >= 0 else (-1, 0)

    def floor_of_time(self, timestamp: int) -> tuple[int, int]:
        """Return (timestamp, relative last offset) of the last entry below a time, or (-1, -1).

        All records up to this offset have lower timestamps.
        """
        found = bisect_left(self._times, timestamp) - 1
        return (self._times[found], self._time_offsets[found]) if found >= 0 else (-1, -1)

    def truncate(self, end: int) -> None:
        """Forget the batches that end above the relative offset `end`.

        The times of batches after last_entry are forgotten, too: the caller then notes the batches
        from last_entry on again.
        """
        keep = bisect_left(self._offsets, end)
        del self._offsets[keep:], self._positions[keep:]
        covered = self._offsets[-1] if self._offsets else -1
        keep = bisect_right(self._time_offsets, covered)
        del self._times[keep:], self._time_offsets[keep:]
        self._max_time = self._times[-1] if self._times else -1
        self._max_time_offset = self._time_offsets[-1] if self._times else 0
        self._bytes_since_entry = 0

    @property
    def counts(self) -> tuple[int, int]:
        """The number of entries of the offset index, and of the time index."""
        return len(self._offsets), len(self._times)

    def encode_offsets(self, first: int = 0) -> bytes:
        """Return the bytes of the offset index, from the entry number `first` on."""
        return _interleave((self._offsets[first:], 4), (self._positions[first:], 4))

    def encode_times(self, first: int = 0) -> bytes:
        """Return the bytes of the time index, after noting the segment's greatest timestamp.

        They begin with the entry number `first`.
        """
        self._note_time()
        return _interleave((self._times[first:], 8), (self._time_offsets[first:], 4))

    def load(self, offsets: bytes, times: bytes, segment_bytes: int) -> Iterator[None]:
        """Load entries from disk, up to the first invalid one. Each step takes one turn.

        A full index has about 260,000 entries of each kind. The caller compares `last_entry` and
        `newest` with the batches, then calls `truncate`, and notes the batches after `last_entry`.
        """
        for last_offsets, positions in _pieces(offsets, "I", "I"):
            last_offset, last_position = self.last_entry
            good = min(_rising(last_offset, last_offsets), _rising(last_position, positions))
            good = bisect_left(positions, segment_bytes, 0, good)
            self._offsets.extend(last_offsets[:good])
            self._positions.extend(positions[:good])
            if good < len(positions):
                break
            yield
        for some_times, time_offsets in _pieces(times, "q", "I"):
            last_time = self._times[-1] if self._times else -(1 << 63) - 1
            last_offset = self._time_offsets[-1] if self._times else -1
            good = min(_rising(last_time, some_times), _rising(last_offset, time_offsets))
            self._times.extend(some_times[:good])
            self._time_offsets.extend(time_offsets[:good])
            if good < len(some_times):
                self._forget_offsets_without_times()
                break
            yield
        if not self._times:
            # Both files are written together, so offsets without times can't be trusted.
            del self._offsets[:], self._positions[:]
        else:
            self._max_time, self._max_time_offset = self._times[-1], self._time_offsets[-1]

    def _forget_offsets_without_times(self) -> None:
        """Forget the offsets above the last time entry, because later time entries are bad.

        Otherwise the greatest timestamp of the batches between the two would be missed.
        """
        keep = bisect_right(self._offsets, self._time_offsets[-1]) if self._times else 0
        del self._offsets[keep:], self._positions[keep:]

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


def _pieces(content: bytes, *types: str) -> Iterator[list[array[int]]]:
    """Yield columns of big-endian integers, some rows at a time, without an incomplete last row.

    >>> list(_pieces(bytes.fromhex("0000000100000003000000020000000400"), "I", "I"))
    [[array('I', [1, 2]), array('I', [3, 4])]]
    """
    sizes = [array(one).itemsize for one in types]
    width = sum(sizes)
    whole = len(content) - len(content) % width
    for start in range(0, whole, PIECE_ROWS * width):
        stop = min(start + PIECE_ROWS * width, whole)
        rows = (stop - start) // width
        columns: list[array[int]] = []
        for one, size in zip(types, sizes, strict=True):
            data = bytearray(rows * size)
            for byte in range(size):
                data[byte::size] = content[start + byte : stop : width]
            column: array[int] = array(one, bytes(data))
            if sys.byteorder == "little":
                column.byteswap()
            columns.append(column)
            start += size
        yield columns


def _rising(before: int, column: array[int]) -> int:
    """Return the length of the strictly growing prefix. It must begin above `before`, else it is 0.

    >>> _rising(0, array("I", [1, 2, 3])), _rising(0, array("I", [1, 3, 3, 4]))
    (3, 2)
    >>> _rising(1, array("I", [1, 2, 3])), _rising(0, array("I"))
    (0, 0)
    """
    if not column or column[0] <= before:
        return 0
    if all(map(lt, column, islice(column, 1, None))):
        return len(column)
    rises = zip(column, islice(column, 1, None), strict=False)
    return next(at for at, (one, after) in enumerate(rises, 1) if one >= after)
