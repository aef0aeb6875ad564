"""Times in words, for sentences."""

from __future__ import annotations

from typing import Final

#: The time from which each unit is used no more, its milliseconds, and its name.
_UNITS: Final = ((120_000, 1_000, "s"), (7_200_000, 60_000, "min"), (172_800_000, 3_600_000, "h"))
_DAY_MS: Final = 86_400_000


def duration(ms: int) -> str:
    """Return a time in words. A time below 0 counts as 0.

    >>> [duration(ms) for ms in (0, 450, 9_230, 75_000, 600_000, 10_800_000, 432_000_000)]
    ['0 ms', '450 ms', '9.2 s', '75 s', '10 min', '3 h', '5 days']
    """
    if ms < 1_000:
        return f"{max(ms, 0)} ms"
    if ms < 10_000:
        return f"{ms / 1_000:.1f} s"
    for longest, unit, name in _UNITS:
        if ms < longest:
            return f"{ms // unit} {name}"
    return f"{ms // _DAY_MS} days"
