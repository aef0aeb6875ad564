"""A bell: one side rings when there is news, the other side waits for the ring."""

from __future__ import annotations

import asyncio


class Bell:
    """Wakes the tasks that wait for news. The bell does not hold the news.

    There are two ways to wait, and neither misses a ring:

    * Many waiters: look for the news; if there is none, await `next_ring()`. No other `await` may
      stand between the two.
    * One waiter with work between its waits: call `reset()`, look for the news, do the work, then
      `await wait(timeout_ms)`. A ring during the work is remembered until the next `reset()`.
      Several rings wake the waiter once.
    """

    def __init__(self) -> None:
        self._has_rung = False
        self._waiting: dict[asyncio.Future[None], None] = {}

    def ring(self) -> None:
        """Wake every task that waits now, and remember the ring until `reset()`."""
        self._has_rung = True
        for future in list(self._waiting):
            if not future.done():
                future.set_result(None)

    def reset(self) -> None:
        """Forget the rings so far. Call it before you look for the news, never after."""
        self._has_rung = False

    def next_ring(self) -> asyncio.Future[None]:
        """Return a future that is done at the next ring; earlier rings do not count."""
        future = asyncio.get_running_loop().create_future()
        self._waiting[future] = None
        future.add_done_callback(lambda done: self._waiting.pop(done, None))
        return future

    async def wait(self, timeout_ms: float | None = None) -> None:
        """Wait until the bell has rung since the last `reset()`, or until the timeout."""
        if self._has_rung:
            return
        try:
            async with asyncio.timeout(None if timeout_ms is None else timeout_ms / 1000):
                await self.next_ring()
        except TimeoutError:
            return
