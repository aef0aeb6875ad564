"""Whole quorums in virtual time, under every fault, with invariants after every event."""

from __future__ import annotations

import asyncio
import functools
import logging
import random
from collections.abc import Awaitable, Callable

import pytest
import structlog

from quorate_testing.simulated.loop import SimulatedLoop, simulate
from tests.harness.amounts import few_or_many
from tests.harness.quorum_world import QuorumWorld, SimulatedVoter

pytestmark = pytest.mark.simulation


@pytest.fixture(autouse=True)
def quiet() -> None:
    """Log no changes of role: a simulated quorum has hundreds of them."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))


#: `make sim-quorum` runs a world with all of these faults, and more of them, under 700 seeds.
SEEDS = range(few_or_many(8, 30))
SECONDS = 30.0


class Nemesis:
    """One fault after another, from one seed. At most a minority loses its power."""

    def __init__(self, world: QuorumWorld, chance: random.Random) -> None:
        self.world = world
        self.chance = chance
        self.faults: list[Callable[[], Awaitable[None]]] = [
            self.kill_one,
            self.kill_all,
            self.power_one,
            self.power_all,
            self.cut_one,
            self.cut_one_way,
            self.cut_leader,
            self.break_streams,
            self.half_open,
            self.pause,
            self.lose_messages,
            self.stop_cleanly,
            self.hand_over,
            self.slow_disk,
        ]

    async def run(self, seconds: float) -> None:
        end = self.world.loop.time() + seconds
        while self.world.loop.time() < end:
            await asyncio.sleep(self.chance.uniform(0.3, 2.5))
            await self.chance.choice(self.faults)()

    def any(self) -> SimulatedVoter:
        return self.chance.choice(self.world.voters)

    async def rest(self, low: float = 0.05, high: float = 2.5) -> None:
        await asyncio.sleep(self.chance.uniform(low, high))

    async def kill_one(self) -> None:
        one = self.any()
        one.kill()
        await self.rest()
        one.start()

    async def kill_all(self) -> None:
        for one in self.world.voters:
            one.kill()
        await self.restart_all()

    async def power_one(self) -> None:
        one = self.any()
        one.lose_power()
        await self.rest()
        one.start()

    async def power_all(self) -> None:
        for one in self.world.voters:
            one.lose_power()
        await self.restart_all()

    async def restart_all(self) -> None:
        order = list(self.world.voters)
        self.chance.shuffle(order)
        for one in order:
            await self.rest(0, 0.7)
            one.start()

    async def cut_one(self) -> None:
        await self.cut_off(self.any())

    async def cut_leader(self) -> None:
        await self.cut_off(self.world.leader or self.any())

    async def cut_off(self, one: SimulatedVoter) -> None:
        others = [v.name for v in self.world.voters if v is not one]
        self.world.network.cut([one.name], others)
        await self.rest(0.1, 5)
        self.world.network.heal()

    async def cut_one_way(self) -> None:
        one, other = self.chance.sample(self.world.voters, 2)
        self.world.network.cut([one.name], [other.name], one_way=True)
        await self.rest(0.1, 4)
        self.world.network.heal()

    async def break_streams(self) -> None:
        one = self.any()
        others = [v.name for v in self.world.voters if v is not one]
        self.world.network.break_streams([one.name], others)

    async def half_open(self) -> None:
        one, other = self.chance.sample(self.world.voters, 2)
        self.world.network.half_open([one.name], [other.name])

    async def pause(self) -> None:
        one = self.any()
        if one.process is not None and one.is_up:
            process = one.process
            process.pause()
            await self.rest(0.1, 4)
            process.resume()

    async def lose_messages(self) -> None:
        self.world.network.set_links(loss=self.chance.uniform(0.05, 0.4))
        await self.rest()
        self.world.network.set_links(loss=0.0)

    async def stop_cleanly(self) -> None:
        one = self.world.leader or self.any()
        if one.is_up and one.node is not None:
            await one.stop()
            await self.rest()
            one.start()

    async def hand_over(self) -> None:
        leader = self.world.leader
        if leader is not None and leader.node is not None and leader.process is not None:
            move = functools.partial(leader.node.hand_over, for_silence=self.chance.random() < 0.5)
            leader.process.context().run(move)

    async def slow_disk(self) -> None:
        one = self.any()
        one.disk.slow = self.chance.uniform(0.05, 0.6)
        await self.rest()
        one.disk.slow = 0.0


async def client(world: QuorumWorld) -> None:
    """Write for ever, now and then several at a time."""
    while True:
        for _ in range(world.chance.randint(0, 3)):
            world.propose(world.chance.randint(1, 300))
        await world.write()
        await asyncio.sleep(world.chance.uniform(0.02, 0.2))


async def reader(world: QuorumWorld) -> None:
    """Check linearizable reads: a read's offset is above all that was acknowledged before it."""
    while True:
        await asyncio.sleep(world.chance.uniform(0.05, 0.3))
        voter = world.chance.choice(world.voters)
        if not voter.is_up or voter.node is None or voter.process is None:
            continue
        before = max(world.history.acknowledged.values(), default=-1)
        task = voter.process.spawn(voter.node.read_round(), name="read")
        await asyncio.wait([task], timeout=5)
        if not task.done():
            task.cancel()
        elif not task.cancelled() and task.exception() is None:
            assert task.result() > before, "a stale read"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_quorum_under_every_fault_loses_nothing(seed: int) -> None:
    async def program(loop: SimulatedLoop) -> None:
        world = QuorumWorld(loop, seed, 5 if seed % 5 == 0 else 3)
        await world.start()
        work = [asyncio.create_task(client(world)), asyncio.create_task(reader(world))]
        await Nemesis(world, random.Random(seed)).run(SECONDS)
        await world.converge()
        for task in work:
            assert not task.done() or task.exception() is None
            task.cancel()
        assert len(world.history.acknowledged) > 20, "hardly anything was committed"

    simulate(program, seed)
