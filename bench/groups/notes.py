"""What members notice, and what follows from it. All times are those of time.monotonic()."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Any, NamedTuple


class Read(NamedTuple):
    """A member was given records of a partition: those from `first` to `last`."""

    at: float
    member: str
    partition: int
    first: int
    last: int


class Event(NamedTuple):
    """Partitions were "assigned", "revoked", "lost"; a member "has" just them, or got a "state"."""

    at: float
    member: str
    what: str
    partitions: list[int]


class Commit(NamedTuple):
    """A commit that was acknowledged."""

    began: float
    at: float
    member: str
    partition: int
    offset: int


@dataclass(slots=True)
class Notes:
    """All that was noticed in one process or in several."""

    reads: list[Read] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    commits: list[Commit] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def add(self, found: dict[str, Any]) -> None:
        """Add what a process has dumped."""
        self.reads += [Read(*one) for one in found["reads"]]
        self.events += [Event(*one) for one in found["events"]]
        self.commits += [Commit(*one) for one in found["commits"]]
        self.failures += found["failures"]

    def taken(self) -> dict[str, Any]:
        """Return all of it for a dump, and begin anew."""
        found = {
            "reads": self.reads,
            "events": self.events,
            "commits": self.commits,
            "failures": self.failures,
        }
        self.reads, self.events, self.commits, self.failures = [], [], [], []
        return found


class Move(NamedTuple):
    """A partition went from one member to another: `gap_s` from the last read to the first."""

    partition: int
    at: float
    gap_s: float
    old: str
    new: str


def in_order(reads: Iterable[Read]) -> list[tuple[int, list[Read]]]:
    """Return the reads of each partition in the order of their times."""
    sorted_reads = sorted(reads, key=lambda read: (read.partition, read.at))
    return [
        (number, list(found)) for number, found in groupby(sorted_reads, key=lambda r: r.partition)
    ]


def moves(reads: Iterable[Read]) -> list[Move]:
    """Return each change of a partition's reader.

    >>> moves([Read(1.0, "a", 7, 0, 4), Read(1.5, "b", 7, 5, 5), Read(2.0, "b", 7, 6, 6)])
    [Move(partition=7, at=1.5, gap_s=0.5, old='a', new='b')]
    """
    return [
        Move(number, second.at, second.at - first.at, first.member, second.member)
        for number, found in in_order(reads)
        for first, second in pairwise(found)
        if first.member != second.member
    ]


def pauses(reads: Iterable[Read]) -> dict[int, float]:
    """Return for each partition the longest time between two reads of one member.

    >>> pauses([Read(1.0, "a", 7, 0, 4), Read(1.5, "a", 7, 5, 5), Read(9.0, "b", 7, 6, 6)])
    {7: 0.5}
    """
    return {
        number: max((b.at - a.at for a, b in pairwise(found) if a.member == b.member), default=0.0)
        for number, found in in_order(reads)
    }


def within(reads: Iterable[Read], since: float, until: float) -> list[Read]:
    """Return the reads of a time."""
    return [read for read in reads if since <= read.at < until]


def spread(values: Sequence[float], scale: float = 1000.0, digits: int = 0) -> dict[str, float]:
    """Return how many values there are, their median, 99th percentile and maximum.

    >>> spread([0.010, 0.030, 0.020])
    {'n': 3, 'median': 20.0, 'p99': 30.0, 'max': 30.0}
    """
    if not values:
        return {"n": 0}
    ordered = sorted(values)

    def at(part: float) -> float:
        return round(ordered[min(int(len(ordered) * part), len(ordered) - 1)] * scale, digits)

    return {"n": len(ordered), "median": at(0.5), "p99": at(0.99), "max": at(1.0)}
