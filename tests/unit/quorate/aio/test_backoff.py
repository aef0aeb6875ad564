"""Waits between tries grow with failures, and start over after a success."""

from __future__ import annotations

import random

from quorate.aio.backoff import Backoff
from quorate.aio.bell import Bell
from quorate_testing.simulated.loop import SimulatedLoop, simulate


async def _waited_ms(loop: SimulatedLoop, backoff: Backoff, sooner: Bell | None = None) -> int:
    before = loop.time()
    await backoff.wait(sooner)
    return round((loop.time() - before) * 1000)


def test_waits_double_up_to_the_longest_until_a_success() -> None:
    async def program(loop: SimulatedLoop) -> None:
        backoff = Backoff(30, 100)
        assert [await _waited_ms(loop, backoff) for _ in range(4)] == [30, 60, 100, 100]
        backoff.reset()
        assert await _waited_ms(loop, backoff) == 30

    simulate(program, 1)


def test_chance_shortens_a_wait_to_no_less_than_half() -> None:
    async def program(loop: SimulatedLoop) -> None:
        backoff = Backoff(100, 100, random.Random(7))
        waits = [await _waited_ms(loop, backoff) for _ in range(50)]
        assert 50 <= min(waits) < max(waits) <= 100

    simulate(program, 1)


def test_news_ends_a_wait_sooner() -> None:
    async def program(loop: SimulatedLoop) -> None:
        news = Bell()
        loop.call_later(0.01, news.ring)
        assert await _waited_ms(loop, Backoff(500, 500), news) == 10

    simulate(program, 1)
