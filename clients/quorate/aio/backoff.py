"""The wait before another try. The wait grows with each failure in a row."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

    from quorate.aio.bell import Bell


def backoff_ms(failures: int, first_ms: float, max_ms: float) -> float:
    """Return the wait in milliseconds after `failures` failures in a row.

    The wait begins with `first_ms` and doubles with each failure, up to `max_ms`.

    >>> [backoff_ms(failures, 30, 500) for failures in (1, 2, 3, 6, 1_000_000)]
    [30.0, 60.0, 120.0, 500, 500]
    """
    doublings = min(max(failures - 1, 0), 32)
    return min(first_ms * float(1 << doublings), max_ms)


class Backoff:
    """The waits of one loop that repeats an action until it succeeds. Call `reset` after a success.

    `chance` multiplies each wait by a random factor from 0.5 to 1. Otherwise nodes that lost the
    same peer at the same moment would all reconnect at the same moment.
    """

    def __init__(self, first_ms: float, max_ms: float, chance: random.Random | None = None) -> None:
        self._first_ms = first_ms
        self._max_ms = max_ms
        self._chance = chance
        self._failures = 0

    def reset(self) -> None:
        """Begin with the shortest wait again."""
        self._failures = 0

    async def wait(self, sooner: Bell | None = None) -> None:
        """Count one more failure, and wait. A ring of `sooner` ends the wait early."""
        self._failures += 1
        delay_ms = backoff_ms(self._failures, self._first_ms, self._max_ms)
        if self._chance is not None:
            delay_ms *= self._chance.uniform(0.5, 1.0)
        if sooner is None:
            await asyncio.sleep(delay_ms / 1000)
        else:
            await sooner.wait(delay_ms)
