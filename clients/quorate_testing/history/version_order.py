"""The order of the values of one key: what is known about the log of a partition."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from quorate_testing.history.operations import Name


class VersionOrder:
    """The values of one key, by offset, as sends and polls told them.

    Offsets may have holes, so two values are neighbours if no known offset is between them. Where
    several values were told for one offset, the first of them stands for it in the order.
    """

    def __init__(self) -> None:
        self.values: dict[int, Name] = {}
        #: Offset -> the further values that were told for it.
        self.conflicts: dict[int, list[Name]] = {}
        #: Value -> its first offset.
        self.first: dict[Name, int] = {}
        #: Value -> all its offsets, if it has several.
        self.repeats: dict[Name, list[int]] = {}
        #: The known offsets, in order; see sort().
        self.offsets: list[int] = []

    def add(self, offset: int, value: Name) -> None:
        """Note that this value was told for this offset."""
        at_offset = self.values.setdefault(offset, value)
        if at_offset != value:
            others = self.conflicts.setdefault(offset, [])
            if value not in others:
                others.append(value)
        first = self.first.setdefault(value, offset)
        if first != offset:
            places = self.repeats.setdefault(value, [first])
            if offset not in places:
                places.append(offset)
                self.first[value] = min(first, offset)

    def sort(self) -> None:
        """Make the order. Call it after the last add()."""
        self.offsets = sorted(self.values)

    def between(self, before: int, after: int) -> Iterator[tuple[int, Name]]:
        """Return the offsets and values strictly between two offsets."""
        for index in range(bisect_left(self.offsets, before + 1), len(self.offsets)):
            offset = self.offsets[index]
            if offset >= after:
                return
            yield offset, self.values[offset]

    def after(self, offset: int) -> tuple[int, Name] | None:
        """Return the next known offset behind one, and its value."""
        value = self.values.get(offset + 1)
        if value is not None:
            return offset + 1, value
        index = bisect_left(self.offsets, offset + 1)
        if index == len(self.offsets):
            return None
        return self.offsets[index], self.values[self.offsets[index]]

    def places(self, value: Name) -> list[int]:
        """Return all offsets of a value."""
        first = self.first.get(value)
        return self.repeats.get(value) or ([] if first is None else [first])

    def last(self, value: Name) -> int | None:
        """Return the last offset of a value."""
        return max(self.places(value), default=None)
