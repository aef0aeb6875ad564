"""Wakes whoever waits for news; nothing is remembered of a ring that nobody waited for."""

from __future__ import annotations

import asyncio


class Bell:
    """Look for what you wait for, and if it is not there wait for `next_ring`, without a turn of
    the loop between: then no ring is missed.
    """

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[None], None] = {}

    def next_ring(self) -> asyncio.Future[None]:
        """Return a future that is done at the next ring."""
        future = asyncio.get_running_loop().create_future()
        self._waiting[future] = None
        future.add_done_callback(lambda done: self._waiting.pop(done, None))
        return future

    def ring(self) -> None:
        """Wake all who wait now."""
        for future in list(self._waiting):
            if not future.done():
                future.set_result(None)
