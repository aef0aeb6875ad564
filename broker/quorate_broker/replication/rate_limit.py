"""Limits how many bytes a second are copied: a token bucket, with a line of those that wait.

A machine. The caller gives the time, in milliseconds of any clock that never goes back.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

#: What a limit that is not used saves up: the bytes of so much time. No grant is larger.
BURST_MS: Final = 1000


@dataclass(slots=True)
class RateLimit(Generic[K]):
    """The copies that share one limit, by any key.

    A copy asks for a grant, copies about so many bytes, and reports what it copied.

    * A grant is given while there is no debt. It takes its bytes at once, and so makes the debt for
      which the next grant waits. So a batch that is larger than the limit is copied, too.
    * In any time, at most the bytes of this time and one BURST_MS are granted, and one grant more.
    * Grants are given in the order in which the copies asked.
    """

    #: Bytes a second, 1 or more.
    rate: int
    #: The time at which the limit begins, and then of the last change of `_level`.
    _at_ms: float
    #: Bytes that may be granted at once, at most those of BURST_MS. Negative: the debt.
    _level: float = 0.0
    #: Those that wait, in order, with the bytes that they want.
    _line: dict[K, int] = field(default_factory=dict)
    #: The grants that are not reported yet, in bytes.
    _granted: dict[K, int] = field(default_factory=dict)

    @property
    def grant_max(self) -> int:
        """The largest grant, in bytes."""
        return max(1, self.rate * BURST_MS // 1000)

    def ask(self, key: K, size: int, now_ms: float) -> int:
        """Return the bytes that a copy is granted, `size` or fewer; 0 if it waits in the line.

        A copy that has a grant keeps it, and one that waits keeps its place.
        """
        if key not in self._granted:
            self._line.setdefault(key, min(size, self.grant_max))
            if next(iter(self._line)) == key:
                self.grant(now_ms)
        return self._granted.get(key, 0)

    def grant(self, now_ms: float) -> K | None:
        """Give the first of the line its grant, if there is no debt. Return its key, else None."""
        self._fill(now_ms)
        if not self._line or self._level < 0:
            return None
        key = next(iter(self._line))
        size = self._granted[key] = self._line.pop(key)
        self._level -= size
        return key

    def used(self, key: K, size: int) -> None:
        """End the grant of a copy that copied `size` bytes.

        Bytes without a grant do not count. The copy leaves the line, too.
        """
        self._line.pop(key, None)
        granted = self._granted.pop(key, None)
        if granted is not None:
            self._level = min(self._level + granted - size, self.grant_max)

    def leave(self, key: K) -> None:
        """Take a copy out of the line, and take back its grant."""
        self.used(key, 0)

    @property
    def next_ms(self) -> float | None:
        """The time at which the first of the line gets its grant; None if no copy waits."""
        if not self._line:
            return None
        return self._at_ms + max(0.0, -self._level) * 1000 / self.rate

    def is_idle(self, now_ms: float) -> bool:
        """Whether no copy waits or has a grant, and there is no debt."""
        self._fill(now_ms)
        return not self._line and not self._granted and self._level >= 0

    def _fill(self, now_ms: float) -> None:
        passed_ms = max(0.0, now_ms - self._at_ms)
        self._level = min(self._level + passed_ms * self.rate / 1000, self.grant_max)
        self._at_ms += passed_ms
