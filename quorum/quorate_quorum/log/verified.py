"""Which bytes of one segment were verified since this process opened it.

A read verifies bytes before it returns them for the first time. Later reads of the same bytes cost
nothing. Bytes that this process appended were verified before the append.
"""

from __future__ import annotations

#: The most ranges that are remembered for a segment. Above this bound the shortest is forgotten,
#: and a later read verifies it again.
RANGES_MAX = 4

#: (start, stop, end offset of the last batch in it) of bytes that were verified.
Range = tuple[int, int, int]


class Verified:
    """The verified bytes of one segment.

    >>> known = Verified(1000)
    >>> known.add(0, 300, 3); known.add(300, 500, 5)
    >>> known.covers(100, 500), known.covers(100, 501), known.covers(1000, 2000)
    (True, False, True)
    >>> known.reaches(500)
    (500, 5)
    """

    __slots__ = ("_ranges", "fresh_from")

    def __init__(self, size: int) -> None:
        #: Bytes from this position on were appended by this process.
        self.fresh_from = size
        #: Ranges in order. They do not overlap, and do not touch.
        self._ranges: tuple[Range, ...] = ()

    def covers(self, start: int, stop: int) -> bool:
        """Return whether all bytes from `start` to `stop` are verified."""
        if start >= self.fresh_from:
            return True
        stop = min(stop, self.fresh_from)
        return any(first <= start and stop <= last for first, last, _ in self._ranges)

    def reaches(self, start: int) -> tuple[int, int] | None:
        """Return where the verified range that holds or touches `start` stops: (position, offset).

        None if there is no such range.
        """
        for first, last, end_offset in self._ranges:
            if first <= start <= last:
                return last, end_offset
        return None

    def add(self, start: int, stop: int, end_offset: int) -> None:
        """Note that the bytes from `start` to `stop` are verified.

        `end_offset` is one past the last offset in them.

        >>> known = Verified(1000)
        >>> for at in range(0, 1000, 100):
        ...     known.add(at, at + 50, at)
        >>> known.covers(900, 950), known.covers(0, 50)
        (True, False)
        """
        apart = []
        for first, last, offset in self._ranges:
            if last < start or stop < first:
                apart.append((first, last, offset))
                continue
            start = min(start, first)
            if last > stop:
                stop, end_offset = last, offset
        new = (start, stop, end_offset)
        if len(apart) >= RANGES_MAX:
            apart.remove(min(apart, key=lambda one: one[1] - one[0]))
        self._ranges = tuple(sorted([*apart, new]))

    def cut(self, position: int) -> None:
        """Note that the segment now ends at `position`: bytes above it are others from now on."""
        self.fresh_from = min(self.fresh_from, position)
        self._ranges = tuple(one for one in self._ranges if one[1] <= position)

    def forget(self, size: int) -> None:
        """Trust none of the `size` bytes that the segment has now."""
        self.fresh_from = size
        self._ranges = ()
