"""Replicas that are out of use though their disk is good: opened again, later and later.

Their log met an error that is about one file, or about this process: too many open files, no room
in the middle of a cut. Nothing is lost by that, so another try is all that is needed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

Key = tuple[bytes, int]

FIRST_DELAY_S = 1.0
DELAY_MAX_S = 30.0


class Reopening:
    """Calls `reopen` with the keys that were wanted since, after a delay that grows while they
    keep coming. `failed` is told if that itself fails.
    """

    def __init__(
        self, reopen: Callable[[list[Key]], Awaitable[None]], failed: Callable[[str], None]
    ) -> None:
        self._reopen = reopen
        self._failed = failed
        self._wanted: dict[Key, None] = {}
        self._task: asyncio.Task[None] | None = None
        self._is_stopped = False

    def want(self, key: Key) -> None:
        """Open this one again soon."""
        if self._is_stopped:
            return
        self._wanted[key] = None
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="open replicas again")
            self._task.add_done_callback(self._ended)

    async def stop(self) -> None:
        """Open nothing any more. Safe to call twice."""
        self._is_stopped = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        delay = FIRST_DELAY_S
        while self._wanted:
            await asyncio.sleep(delay)
            wanted, self._wanted = self._wanted, {}
            await self._reopen(list(wanted))
            delay = min(delay * 2, DELAY_MAX_S)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and task.exception() is not None:
            self._failed(f"replicas can't be opened again: {task.exception()!r}")
