"""A bell wakes all tasks that wait for it, and no ring is missed."""

from __future__ import annotations

import asyncio

from quorate.aio.bell import Bell
from quorate_testing.simulated.loop import SimulatedLoop, simulate


def test_a_ring_wakes_every_waiter_once() -> None:
    async def program(loop: SimulatedLoop) -> None:
        bell = Bell()
        first, second = bell.next_ring(), bell.next_ring()
        bell.ring()
        await asyncio.gather(first, second)
        assert not bell.next_ring().done()

    simulate(program, 1)


def test_a_waiter_that_has_gone_does_not_hinder_the_others() -> None:
    async def program(loop: SimulatedLoop) -> None:
        bell = Bell()
        gone, stays = bell.next_ring(), bell.next_ring()
        gone.cancel()
        bell.ring()
        await stays

    simulate(program, 1)


def test_a_ring_while_the_waiter_works_is_remembered_until_the_reset() -> None:
    async def program(loop: SimulatedLoop) -> None:
        bell = Bell()
        bell.reset()
        bell.ring()
        bell.ring()
        before = loop.time()
        await bell.wait(1000)
        assert loop.time() == before
        bell.reset()
        await bell.wait(1000)
        assert loop.time() - before >= 1

    simulate(program, 1)


def test_a_wait_without_a_timeout_ends_with_the_ring() -> None:
    async def program(loop: SimulatedLoop) -> None:
        bell = Bell()
        loop.call_later(5, bell.ring)
        await bell.wait()
        assert loop.time() >= 5

    simulate(program, 1)
