"""A bell that wakes one task: what streams wait on between one message and the next."""

from __future__ import annotations

import asyncio


class Bell:
    """Rung twice, it wakes once. Reset it before you look at what there is to say."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        self._rung.set()

    def reset(self) -> None:
        self._rung.clear()

    async def wait(self, timeout_ms: float) -> None:
        """Return when rung since the last reset, or after the timeout."""
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                await self._rung.wait()
        except TimeoutError:
            return
