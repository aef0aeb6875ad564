"""Deadlines count in the running loop's time."""

from __future__ import annotations

import asyncio

from quorate.aio.clock import UINT32_MAX, Deadline, loop_ms
from quorate_testing.simulated.loop import SimulatedLoop, simulate


def test_a_deadline_runs_out_with_the_loop_s_clock_and_never_goes_below_zero() -> None:
    async def program(loop: SimulatedLoop) -> None:
        begun_ms = loop_ms()
        deadline = Deadline(1500)
        await asyncio.sleep(1)
        assert loop_ms() - begun_ms in (1000, 1001)
        assert deadline.left_ms in (499, 500)
        assert not deadline.has_passed
        await asyncio.sleep(1)
        assert (deadline.left_ms, deadline.left_s, deadline.has_passed) == (0, 0.0, True)

    simulate(program, 1)


def test_what_is_left_fits_the_field_that_it_travels_in() -> None:
    async def program(loop: SimulatedLoop) -> None:
        assert Deadline(1e15).left_ms == UINT32_MAX

    simulate(program, 1)
