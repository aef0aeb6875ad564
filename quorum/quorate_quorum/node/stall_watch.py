"""Measures stalls of the event loop, because a node whose loop stalls answers no heartbeat."""

from __future__ import annotations

import asyncio
from typing import Final, NoReturn

import structlog

log = structlog.get_logger(__name__)


class StallWatch:
    """Counts and logs the stalls: times longer than 50 ms in which the event loop did not run.

    It checks every 20 ms, so it may miss a stall under 70 ms. It logs at most once a minute, with
    the number of stalls since the last line and the longest of them.
    """

    INTERVAL_S: Final = 0.02
    STALL_S: Final = 0.05
    LOG_INTERVAL_S: Final = 60.0

    def __init__(self) -> None:
        #: The number of stalls so far, and the length of the longest one.
        self.count = 0
        self.longest_ms = 0.0

    async def run(self) -> NoReturn:
        """Watch until cancelled."""
        loop = asyncio.get_running_loop()
        logged_at = -self.LOG_INTERVAL_S
        unlogged: list[float] = []
        while True:
            due = loop.time() + self.INTERVAL_S
            await asyncio.sleep(self.INTERVAL_S)
            now = loop.time()
            late = now - due
            if late <= self.STALL_S:
                continue
            self.count += 1
            unlogged.append(late)
            self.longest_ms = max(self.longest_ms, late * 1000)
            if now - logged_at >= self.LOG_INTERVAL_S:
                log.warning(
                    "the event loop stalled",
                    longest_ms=round(max(unlogged) * 1000),
                    stalls=len(unlogged),
                    stalls_since_start=self.count,
                )
                logged_at = now
                unlogged.clear()
