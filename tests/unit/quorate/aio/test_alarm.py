"""An alarm rings once, at the moment that was set last."""

from __future__ import annotations

import asyncio

from quorate.aio.alarm import Alarm
from quorate_testing.simulated.loop import SimulatedLoop, simulate


def test_it_rings_at_the_last_moment_that_was_set() -> None:
    async def program(loop: SimulatedLoop) -> list[float]:
        rung: list[float] = []
        alarm = Alarm(lambda: rung.append(loop.time()))
        for when in (5.0, 2.0, 2.0, 3.0):
            alarm.set(when)
        await asyncio.sleep(10)
        return rung

    assert simulate(program, 1) == [3.0]


def test_it_is_silent_after_none_and_can_be_set_again() -> None:
    async def program(loop: SimulatedLoop) -> list[float]:
        rung: list[float] = []
        alarm = Alarm(lambda: rung.append(loop.time()))
        alarm.set(1.0)
        alarm.set(None)
        await asyncio.sleep(2)
        alarm.set(1.0)  # a moment that is past: at once
        await asyncio.sleep(1)
        alarm.set(1.0)  # the same moment again, after it has rung
        await asyncio.sleep(1)
        return rung

    assert simulate(program, 1) == [2.0, 3.0]


def test_it_may_be_set_while_it_rings() -> None:
    async def program(loop: SimulatedLoop) -> list[float]:
        rung: list[float] = []

        def ring() -> None:
            rung.append(loop.time())
            alarm.set(rung[-1] + 1 if len(rung) < 3 else None)

        alarm = Alarm(ring)
        alarm.set(1.0)
        await asyncio.sleep(10)
        return rung

    assert simulate(program, 1) == [1.0, 2.0, 3.0]
