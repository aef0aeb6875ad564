"""The time of a simulated cluster, which passes when a test lets it pass."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Annotated, Final

from quorate.settings import Number, refused
from quorate_testing.simulation.world import World, takes_time

#: Ten years, the longest step of a clock.
SECONDS_MAX: Final = 10 * 365 * 86_400.0
SECONDS: Final = Number(0, SECONDS_MAX, "virtual seconds")
#: The virtual time between two looks at a predicate.
LOOK_S: Final = 0.01


class ClusterClock:
    """The virtual time of all nodes and programs, as `cluster.clock`."""

    def __init__(self, world: World) -> None:
        self._world = world

    @property
    def now(self) -> float:
        """The virtual seconds since the simulation began. Only advance() and waits move it."""
        return self._world.loop.world_time()

    @property
    def wall_ms(self) -> int:
        """The time of day in milliseconds since 1970, as nodes whose clocks are right see it."""
        return int(self._world.loop.wall_clock_start_ms + self.now * 1000)

    @takes_time
    async def advance(self, seconds: Annotated[float, SECONDS]) -> None:
        """Let virtual time pass, and with it all that happens in it: heartbeats, timeouts, retries.

        A second of a cluster of three voters and three brokers costs about 10 ms of real time. For
        days see jump(). The time does not count for the time limit of the run.
        """
        seconds = SECONDS.check("ClusterClock.advance", "seconds", seconds)
        self._world.allow(seconds)
        await asyncio.sleep(seconds)

    @takes_time
    async def advance_until(
        self,
        predicate: Callable[[], object | Awaitable[object]],
        limit_s: Annotated[float, SECONDS] = 60.0,
    ) -> None:
        """Let virtual time pass until `predicate()` is true.

        It is a function, or an asynchronous one, and is called every 10 virtual ms. Raises
        TimeoutError when it is not true after `limit_s` virtual seconds.
        """
        call = "ClusterClock.advance_until"
        limit_s = SECONDS.check(call, "limit_s", limit_s)
        if not callable(predicate):
            raise TypeError(refused(call, "predicate", "a function without arguments", predicate))
        self._world.allow(limit_s)
        until_s = self.now + limit_s
        while True:
            found = predicate()
            if inspect.isawaitable(found):
                found = await found
            if found:
                return
            if self.now >= until_s:
                raise TimeoutError(
                    f"advance_until: {getattr(predicate, '__qualname__', predicate)} is not true"
                    f" after {limit_s:g} virtual seconds (limit_s)"
                )
            await asyncio.sleep(min(LOOK_S, max(until_s - self.now, 1e-6)))

    def jump(self, seconds: float) -> None:
        """Set the wall clocks of all nodes and programs forward at once, or back.

        Nothing happens in between, so a week costs nothing. What looks at the time of day sees it
        pass: the age of records (retention, compaction), and committed offsets that expire.
        Timeouts do not: advance() is for those. faults.jump_clock() sets the clock of one node.
        """
        seconds = Number(-SECONDS_MAX, SECONDS_MAX).check("ClusterClock.jump", "seconds", seconds)
        self._world.check_is_open()
        self._world.note(f"all wall clocks jump by {seconds:g} s")
        self._world.loop.wall_clock_start_ms += seconds * 1000
