"""How far polls were behind: a figure for reports, and no error."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from quorate_testing.history.facts import Facts
from quorate_testing.history.operations import Name, Operation


@dataclass(frozen=True, slots=True)
class Lag:
    """A poll of `process` began at `start`, and did not see what `key` had `lag` earlier."""

    lag: int
    process: Name
    key: str
    start: int


@dataclass(slots=True)
class _Growth:
    """When the log of a key was known to hold an offset: a rising list of (time, offset)."""

    times: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)

    def known(self, time: int, offset: int) -> None:
        if not self.offsets or offset > self.offsets[-1]:
            self.times.append(time)
            self.offsets.append(offset)

    def since(self, offset: int) -> int | None:
        """Return when the log was known to hold this offset or a later one."""
        index = bisect_left(self.offsets, offset)
        return self.times[index] if index < len(self.times) else None


@dataclass(slots=True)
class _Reader:
    """A process: the last offset that it has read of each of its keys (-1: none)."""

    positions: dict[str, int] = field(default_factory=dict)
    #: Start of its last poll that is done.
    polled: int | None = None


def worst_lag(facts: Facts) -> Lag | None:
    """Return the worst lag of a poll that is done; None if no poll was behind.

    While a position stays, the lag of each poll is worse than that of the poll before. So it is
    enough to look at the last poll before the position moves, or is given up.
    """
    growth = _growth(facts)
    worst = Lag(0, "", "", 0)
    for process, operations in _by_process(facts).items():
        reader = _Reader()
        for operation in operations:
            leaves = _leaves(reader, operation)
            for key in leaves if reader.polled is not None else ():
                worst = _worse(worst, growth, process, reader, key)
            _follow(reader, operation)
        for key in reader.positions if reader.polled is not None else ():
            worst = _worse(worst, growth, process, reader, key)
    return worst if worst.lag else None


def _worse(worst: Lag, growth: dict[str, _Growth], process: Name, reader: _Reader, key: str) -> Lag:
    since = growth[key].since(reader.positions[key] + 1)
    start = reader.polled
    assert start is not None
    lag = 0 if since is None else start - since
    return Lag(lag, process, key, start) if lag > worst.lag else worst


def _leaves(reader: _Reader, operation: Operation) -> list[str]:
    """Return the keys whose positions this operation moves or gives up."""
    if operation.outcome != "done":
        return []
    if operation.kind in {"assign", "subscribe", "crash"}:
        return list(reader.positions)
    return [key for key, records in operation.polls() if records and key in reader.positions]


def _follow(reader: _Reader, operation: Operation) -> None:
    """Change the positions as the operation does."""
    if operation.outcome != "done":
        return
    positions = reader.positions
    if operation.kind == "assign":
        stay = {} if operation.seeks else positions
        reader.positions = {key: stay.get(key, -1) for key in operation.keys}
        reader.polled = None
    elif operation.kind in {"subscribe", "crash"}:
        reader.positions, reader.polled = {}, None
    elif operation.kind in {"poll", "txn"}:
        for key, records in operation.polls():
            if records:
                positions[key] = max(records[-1][0], positions.get(key, -1))
        reader.polled = operation.start


def _growth(facts: Facts) -> dict[str, _Growth]:
    growth: dict[str, _Growth] = defaultdict(_Growth)
    for time, key, offset in sorted(_known(facts)):
        growth[key].known(time, offset)
    return growth


def _known(facts: Facts) -> Iterator[tuple[int, str, int]]:
    """Return (time, key, offset): from this time on the log is known to hold the offset."""
    for operation in facts.operations:
        if operation.outcome != "done" or operation.end is None:
            continue
        for send in operation.sends():
            if send.offset is not None:
                yield operation.end, send.key, send.offset
        for key, records in operation.polls():
            if records:
                yield operation.end, key, records[-1][0]


def _by_process(facts: Facts) -> dict[Name, list[Operation]]:
    found: dict[Name, list[Operation]] = defaultdict(list)
    for operation in facts.operations:
        found[operation.process].append(operation)
    return found
