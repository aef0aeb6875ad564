"""The running event loop's clock: the only clock for waits and deadlines.

Tests and simulations run on a loop that has its own clock. So this module and its users do not read
`time.monotonic()`, and they never compare times of two loops. The timestamps in records come from
another clock, the time of day: `Environment.wall_clock_ms` in the servers.
"""

from __future__ import annotations

import asyncio

#: Largest value of a uint32 field. Timeouts in requests have such fields.
UINT32_MAX = 0xFFFF_FFFF


def loop_ms() -> int:
    """Return the running loop's time, in milliseconds."""
    return int(asyncio.get_running_loop().time() * 1000)


class Deadline:
    """The moment at which an operation must end, however many steps it has."""

    __slots__ = ("_at", "_loop", "timeout_ms")

    def __init__(self, timeout_ms: float) -> None:
        self.timeout_ms = timeout_ms
        self._loop = asyncio.get_running_loop()
        self._at = self._loop.time() + timeout_ms / 1000

    @property
    def has_passed(self) -> bool:
        return self._loop.time() >= self._at

    @property
    def left_s(self) -> float:
        """Seconds left, 0 or more."""
        return max(0.0, self._at - self._loop.time())

    @property
    def left_ms(self) -> int:
        """Milliseconds left, rounded down, 0 or more; fits a uint32."""
        return min(int(self.left_s * 1000), UINT32_MAX)
