"""Random failovers, crashes and cuts over three brokers: nothing acknowledged may be lost."""

from __future__ import annotations

import asyncio
import random

import pytest

from quorate.errors import QuorateError
from quorate_testing.simulated.loop import SimulatedLoop, simulate
from quorate_testing.simulated.network import SimulatedNetwork
from tests.unit.quorate_broker.builders import Broker, World, no_controller, until


class Run:
    """One schedule, from its seed."""

    def __init__(self, seed: int, network: SimulatedNetwork | None = None) -> None:
        self.chance = random.Random(seed)
        self.network = network
        self.world = World(lag_ms=400, network_of=network.host if network else None)
        self.acknowledged: dict[int, bytes] = {}
        self.sequence = 0
        self.sending: list[asyncio.Task[None]] = []

    async def carry_out(self) -> None:
        world = self.world
        await world.start(min_isr=2)
        for _ in range(25):
            await self.step()
            for _ in range(self.chance.randrange(4)):
                self.send()
            await asyncio.sleep(self.chance.uniform(0, 0.02))
        await self.heal()
        await asyncio.gather(*self.sending)
        await self.check()
        await world.stop()

    async def step(self) -> None:
        world, chance = self.world, self.chance
        match chance.randrange(5):
            case 0:
                candidates = [b for b in world.state.isr if b in world.running]
                await self.elect(chance.choice(candidates) if candidates else -1)
            case 1 if len(world.running) == 3:
                await self.crash(chance.choice(list(world.running.values())))
            case 2:
                await self.heal()
            case 3 if self.network:
                hosts = [f"broker-{broker_id}" for broker_id in (1, 2, 3)]
                self.chance.shuffle(hosts)
                self.network.cut(hosts[:1], hosts[1:], one_way=self.chance.random() < 0.5)
            case 3:  # a controller that cannot be reached, or can again
                world.on_alter = None if world.on_alter else no_controller
            case _:
                pass

    async def elect(self, leader: int) -> None:
        await self.world.change(leader=leader)

    async def crash(self, broker: Broker) -> None:
        """Kill a process; the controller fences it and elects another of the ISR."""
        world = self.world
        await broker.stop()
        await world.fence(broker.id)
        isr = [member for member in world.state.isr if member != broker.id]
        if not isr:
            await world.change(leader=-1)
        elif world.state.leader == broker.id:
            await world.change(leader=isr[0], isr=isr)
        elif len(isr) < len(world.state.isr):
            await world.change(isr=isr)

    async def heal(self) -> None:
        world = self.world
        if self.network:
            self.network.heal()
        for broker in world.brokers.values():
            if broker.id not in world.running:
                await broker.start()
                await world.register(broker)
        if world.state.leader not in world.running:
            await self.elect(next(b for b in world.state.isr if b in world.running))

    def send(self) -> None:
        leader = self.world.running.get(self.world.state.leader)
        if leader is not None:
            self.sequence += 1
            self.sending.append(asyncio.create_task(self.send_to(leader, b"%d" % self.sequence)))

    async def send_to(self, leader: Broker, value: bytes) -> None:
        try:
            produced = await leader.produce(value, timeout_ms=500)
        except QuorateError:
            return  # refused, or unknown
        assert produced.base_offset not in self.acknowledged
        self.acknowledged[produced.base_offset] = value

    async def check(self) -> None:
        """Check that the three logs are equal and hold each acknowledged record at its offset."""
        world = self.world
        world.on_alter = None
        await until(lambda: set(world.state.isr) == {1, 2, 3})
        leader = world.running[world.state.leader]
        await until(lambda: len(leader.partition.isr) == 3)  # the answer may be on its way
        await leader.produce(b"last")
        end = leader.partition.log_end_offset
        await until(lambda: all(b.partition.log_end_offset == end for b in world.running.values()))
        logs = [await broker.stored() for broker in world.brokers.values()]
        assert logs[0] == logs[1] == logs[2]
        for offset, value in self.acknowledged.items():
            assert logs[0][offset] == value


@pytest.mark.parametrize("seed", range(12))
async def test_nothing_acknowledged_is_lost(seed: int) -> None:
    await Run(seed).carry_out()


def simulated(seed: int) -> tuple[dict[int, bytes], float]:
    """Run a schedule in virtual time over links that delay, and are cut; return what happened."""

    async def program(loop: SimulatedLoop) -> tuple[dict[int, bytes], float]:
        network = SimulatedNetwork(loop, loop.chance)
        network.set_links(delay_min_ms=0.1, delay_max_ms=8)
        run = Run(seed, network)
        await run.carry_out()
        return run.acknowledged, loop.time()

    return simulate(program, seed)


@pytest.mark.parametrize("seed", range(100, 130))
def test_nothing_acknowledged_is_lost_over_bad_links(seed: int) -> None:
    simulated(seed)


def test_a_seed_gives_the_same_run_again() -> None:
    assert simulated(7) == simulated(7)
