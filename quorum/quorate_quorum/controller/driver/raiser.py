"""Gives the internal topics more replicas when brokers join, a few in each turn of the loop."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from quorate.aio.bell import Bell
from quorate_quorum.controller.decisions.internal_topics import Raising
from quorate_quorum.controller.driver.reign import Reign


@dataclass(eq=False)
class Raiser:
    """Looks at the internal topics when it is rung, and from time to time.

    `retry_ms`: the pause if the log is full. `idle_ms`: the longest time between two looks.
    """

    _reign: Reign
    retry_ms: int
    idle_ms: int
    _has_work: Bell = field(default_factory=Bell)

    def look(self) -> None:
        """Look soon: a broker may take replicas now."""
        self._has_work.ring()

    async def run(self) -> None:
        """Look, and wait for the next look, until the reign ends."""
        while True:
            self._has_work.reset()
            await self._look()
            await self._has_work.wait(self.idle_ms)

    async def _look(self) -> None:
        raising, is_done = Raising(), False
        while not is_done:
            found = self._reign.attempt("raise internal topics", raising.next)
            if found is None:  # the log takes no more now: what was decided is decided anew
                raising = Raising()
                await asyncio.sleep(self.retry_ms / 1000)
            is_done = found is True
            await asyncio.sleep(0)
