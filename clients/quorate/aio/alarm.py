"""A timer that is set again and again, mostly to the moment that it has already."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Alarm:
    """Calls `ring` once at the moment that was set last."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None
        self._when: float | None = None

    def set(self, when: float | None) -> None:
        """Ring at this time of the loop; None: not at all."""
        if when == self._when:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._when = when
        if when is not None:
            self._timer = asyncio.get_running_loop().call_at(when, self._rings)

    def _rings(self) -> None:
        self._when = self._timer = None
        self._ring()
