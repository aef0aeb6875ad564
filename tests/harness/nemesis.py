"""Faults for a simulated cluster, drawn by chance and bounded by what was promised.

Every fault is undone after a while. What acks=all does not promise to survive is not done: on a
topic without flush.on.ack, at most one broker loses its power until every replica is in sync
again (fewer than min ISR).
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from quorate_testing.simulated.cluster import SimulatedCluster, SimulatedNode
from quorate_testing.simulated.network import LinkQuality


@dataclass(slots=True)
class Nemesis:
    """Does faults to a cluster until a deadline; heal() undoes them all."""

    cluster: SimulatedCluster
    chance: random.Random
    #: Whether brokers may lose power together: only if the topic syncs before it acknowledges.
    brokers_may_all_lose_power: bool
    injected: Counter[str] = field(default_factory=Counter)
    told: Callable[[str], None] = lambda _: None
    #: Brokers that lost power and are not known to be in sync again.
    lossy: dict[str, None] = field(default_factory=dict)
    all_in_sync: Callable[[], bool] = lambda: False

    async def run(self, seconds: float) -> None:
        """Inject faults, one after another and sometimes together."""
        loop = self.cluster.loop
        end = loop.time() + seconds
        while loop.time() < end:
            await asyncio.sleep(self.chance.uniform(0.3, 3.0))
            await self._one()

    def heal(self) -> None:
        """Undo everything: all nodes run, all links work."""
        network = self.cluster.network
        network.heal()
        network.set_loss(0.0)
        network.set_delay(LinkQuality().delay_min_ms, LinkQuality().delay_max_ms)
        network.set_bandwidth(None)
        for node in self.cluster.nodes.values():
            node.disk.slow = 0.0
            if node.is_running:
                self.cluster.resume(node.name)
        self.cluster.start_all()

    async def _one(self) -> None:
        faults: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (4, self._kill_one),
            (1, self._kill_several),
            (1, self._kill_all),
            (2, self._lose_power),
            (3, self._pause),
            (3, self._cut),
            (2, self._cut_one_way),
            (3, self._break),
            (2, self._half_open),
            (2, self._lossy_network),
            (1, self._slow_network),
            (2, self._slow_disk),
            (2, self._clean_restart),
            (1, self._clock),
        ]
        fault = self.chance.choices([f for _, f in faults], [w for w, _ in faults])[0]
        await fault()

    # -- nodes -----------------------------------------------------------------------------------

    async def _kill_one(self) -> None:
        await self._kill(self._some(1), "kill")

    async def _kill_several(self) -> None:
        await self._kill(self._some(self.chance.randint(2, 3)), "kill several")

    async def _kill_all(self) -> None:
        await self._kill(list(self.cluster.nodes.values()), "kill all")

    async def _kill(self, nodes: list[SimulatedNode], name: str) -> None:
        self._note(name, nodes)
        for node in nodes:
            self.cluster.kill(node.name)
        await self._start_again(nodes)

    async def _lose_power(self) -> None:
        if self.lossy and self.all_in_sync():
            self.lossy.clear()
        nodes = [
            node for node in self._some(self.chance.randint(1, 6)) if self._may_lose_power(node)
        ]
        if not nodes:
            return
        self._note("power loss", nodes)
        for node in nodes:
            self.cluster.lose_power(node.name)
        await self._start_again(nodes)

    def _may_lose_power(self, node: SimulatedNode) -> bool:
        if node.is_voter or self.brokers_may_all_lose_power:
            return True
        if self.lossy:
            return False
        self.lossy[node.name] = None
        return True

    async def _start_again(self, nodes: list[SimulatedNode]) -> None:
        await asyncio.sleep(self.chance.uniform(0.05, 4.0))
        self.chance.shuffle(nodes)
        for node in nodes:
            if not node.is_running:
                self.cluster.start(node.name)
            await asyncio.sleep(self.chance.choice((0.0, 0.0, self.chance.uniform(0, 1))))

    async def _clean_restart(self) -> None:
        nodes = self._some(1)
        self._note("clean restart", nodes)
        for node in nodes:
            if node.is_running and node.process is not None and not node.process.is_paused:
                await self.cluster.stop(node.name)
                await asyncio.sleep(0.01)
            if not node.is_running:
                self.cluster.start(node.name)

    async def _pause(self) -> None:
        nodes = self._some(self.chance.choice((1, 1, 2)))
        self._note("pause", nodes)
        for node in nodes:
            self.cluster.pause(node.name)
        await asyncio.sleep(self.chance.choice((0.1, 0.5, 2.0, 5.0)))
        for node in nodes:
            self.cluster.resume(node.name)

    async def _clock(self) -> None:
        nodes = self._some(1)
        self._note("clock jump", nodes)
        for node in nodes:
            if node.process is not None:
                node.process.jump_clock(self.chance.uniform(-3_600_000, 3_600_000))
                node.process.set_clock_rate(self.chance.choice((0.9, 1.0, 1.1)))

    async def _slow_disk(self) -> None:
        nodes = self._some(1)
        self._note("slow disk", nodes)
        for node in nodes:
            node.disk.slow = self.chance.uniform(0.01, 0.4)
        await asyncio.sleep(self.chance.uniform(0.5, 4.0))
        for node in nodes:
            node.disk.slow = 0.0

    # -- network ---------------------------------------------------------------------------------

    async def _cut(self) -> None:
        await self._cut_network(one_way=False)

    async def _cut_one_way(self) -> None:
        await self._cut_network(one_way=True)

    async def _cut_network(self, *, one_way: bool) -> None:
        names = list(self.cluster.nodes)
        self.chance.shuffle(names)
        size = self.chance.randint(1, len(names) - 1)
        self._note("cut one way" if one_way else "cut", names[:size])
        self.cluster.network.cut(names[:size], names[size:], one_way=one_way)
        await asyncio.sleep(self.chance.choice((0.2, 1.0, 3.0, 6.0)))
        self.cluster.network.heal()

    async def _break(self) -> None:
        sources, targets = self._two_sides()
        self._note("break streams", [*sources, "|", *targets])
        for _ in range(self.chance.choice((1, 1, 5))):
            self.cluster.network.break_streams(sources, targets)
            await asyncio.sleep(0.02)

    async def _half_open(self) -> None:
        sources, targets = self._two_sides()
        self._note("half-open", [*sources, "|", *targets])
        self.cluster.network.half_open(sources, targets)

    async def _lossy_network(self) -> None:
        self._note("loss", [])
        self.cluster.network.set_loss(self.chance.uniform(0.01, 0.3))
        await asyncio.sleep(self.chance.uniform(0.5, 4.0))
        self.cluster.network.set_loss(0.0)

    async def _slow_network(self) -> None:
        self._note("delay", [])
        self.cluster.network.set_delay(5.0, self.chance.uniform(20.0, 150.0))
        await asyncio.sleep(self.chance.uniform(0.5, 4.0))
        self.cluster.network.set_delay(LinkQuality().delay_min_ms, LinkQuality().delay_max_ms)

    # -- inside ----------------------------------------------------------------------------------

    def _some(self, count: int) -> list[SimulatedNode]:
        return self.chance.sample(list(self.cluster.nodes.values()), count)

    def _two_sides(self) -> tuple[list[str], list[str]]:
        names = list(self.cluster.nodes)
        self.chance.shuffle(names)
        size = self.chance.randint(1, len(names) - 1)
        return names[:size], names[size:]

    def _note(self, name: str, what: list[SimulatedNode] | list[str]) -> None:
        self.injected[name] += 1
        names = " ".join(one if isinstance(one, str) else one.name for one in what)
        self.told(f"{name}: {names}")
