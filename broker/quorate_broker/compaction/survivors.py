"""Tells batches of which no record stays from the others, so that a pass need not look into them.

Of the records that a pass has put into its map, only the last of each key stays, and the map has
the offsets of these. In a log that writes few keys often, most batches have none of them. To
decompress such a batch again, and look up each of its keys, would take half of the time of a pass.
"""

from __future__ import annotations

from collections.abc import Iterable

#: The most marks. Each stands for some offsets, so that the memory does not grow with the log.
MARKS_MAX = 1 << 20


class Survivors:
    """The parts of the range [first, end) that may have records that stay.

    It may name too many parts, and never too few.
    """

    def __init__(self, first: int, end: int) -> None:
        self._first = first
        self._end = end
        #: The number of offsets for which one mark stands.
        self._width = max(-(-(end - first) // MARKS_MAX), 1)
        self._marks = bytearray(max(end - first, 0) // self._width + 1)

    def mark(self, base: int, end: int) -> None:
        """Note that each record in [base, end) may stay: its key is not in the map."""
        start = max(base - self._first, 0) // self._width
        stop = (end - 1 - self._first) // self._width + 1
        self._marks[start:stop] = b"\1" * (stop - start)

    def mark_all(self, offsets: Iterable[int]) -> None:
        """Note that the records at these offsets stay."""
        first, width, marks = self._first, self._width, self._marks
        for offset in offsets:
            if offset >= first:
                marks[(offset - first) // width] = 1

    def has_none(self, base: int, end: int) -> bool:
        """Return whether certainly no record in [base, end) stays."""
        if not self._first <= base < end <= self._end:
            return False
        start = (base - self._first) // self._width
        stop = (end - 1 - self._first) // self._width + 1
        return self._marks.find(1, start, stop) < 0
