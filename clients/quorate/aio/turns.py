"""Spreads tasks that become ready at the same time over several turns of an event loop."""

from __future__ import annotations

import asyncio
from collections import deque


class Turns:
    """Lets `units_a_turn` units of work run in one turn of the event loop. The rest waits.

    An event loop runs every task that is ready before it looks at its sockets and timers again. One
    request for a thousand partitions makes a thousand tasks ready. Each task is short, but together
    they are long, and heartbeats wait for all of them. Tasks that share one Turns object are spread
    over several turns, in the order in which they asked.
    """

    def __init__(self, units_a_turn: int) -> None:
        assert units_a_turn > 0
        self._units_a_turn = units_a_turn
        self._used = 0
        self._is_counting = False
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()

    async def take(self, units: int = 1) -> None:
        """Wait until the present turn has room for `units` more.

        Work that is larger than `units_a_turn` gets a turn of its own. A cancelled wait uses no
        units.
        """
        loop = asyncio.get_running_loop()
        if not self._waiting and self._fits(units):
            self._use(units, loop)
            return
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiting.append((waiter, units))
        await waiter

    def _fits(self, units: int) -> bool:
        return not self._used or self._used + units <= self._units_a_turn

    def _use(self, units: int, loop: asyncio.AbstractEventLoop) -> None:
        self._used += units
        if not self._is_counting:
            self._is_counting = True
            loop.call_soon(self._next_turn, loop)

    def _next_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        self._used = 0
        self._is_counting = False
        while self._waiting and self._fits(self._waiting[0][1]):
            waiter, units = self._waiting.popleft()
            if not waiter.done():
                # The waiter runs in the next turn, and that turn must end before the next count: so
                # the count is planned after the waiter is woken.
                waiter.set_result(None)
                self._used += units
        if self._used:
            self._is_counting = True
            loop.call_soon(self._next_turn, loop)
