"""The scrub of many small logs costs little."""

from __future__ import annotations

import asyncio

import pytest

from quorate_broker.replicas import scrubber
from quorate_broker.replicas.scrubber import Scrubber
from quorate_quorum.log.scrub import Scrub
from quorate_testing.simulated.loop import SimulatedLoop, simulate
from tests.unit.quorate_broker.builders import World

SECONDS = 10


def test_steps_in_small_logs_are_as_rare_as_steps_that_read_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A step in a small log opens files: 256 of them a second took 7 % of a core."""
    steps = 0
    step = Scrub.step

    async def counted(scrub: Scrub) -> int:
        nonlocal steps
        steps += 1
        return await step(scrub)

    monkeypatch.setattr(Scrub, "step", counted)
    monkeypatch.setattr(scrubber, "PASS_MIN_S", 0.0)

    async def run(loop: SimulatedLoop) -> None:
        world = World(brokers=1)
        await world.start(min_isr=1)
        leader = world.brokers[1]
        await leader.produce(b"v")
        scrub = Scrubber(leader.replicas, leader.failures.append)
        scrub.start()
        await asyncio.sleep(SECONDS)
        await scrub.stop()
        await world.stop()

    simulate(run, seed=1)
    assert 0 < steps <= SECONDS * (1 << 20) / (32 << 10) + 1
