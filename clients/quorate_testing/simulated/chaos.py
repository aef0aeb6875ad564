"""Random faults of a simulated cluster, drawn from a seed as a plan before anything happens.

A fault has its own sub-seed and is undone after its time; several may last at once. No fault of
this module takes a record that was acknowledged with acks=all and min.insync.replicas of 2 or more.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from quorate_testing.simulated.cluster import SimulatedCluster, SimulatedNode
from quorate_testing.simulated.links import LinkQuality

#: Time between two looks at nodes that have stopped themselves.
RESTART_S = 0.7
#: Time in which a node must stop cleanly. Then it is killed.
CLEAN_STOP_S = 10.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault; each kind uses what it needs of the parameters."""

    at_s: float
    kind: str
    #: How long until it is undone.
    seconds: float
    #: How strong it is, 0 to 1.
    level: float
    seed: int

    def __str__(self) -> str:
        return f"{self.at_s:7.3f}  {self.kind:24} {self.seconds:.3f} s, level {self.level:.2f}"

    @property
    def what(self) -> str:
        """The fault in words, without its time."""
        return f"{self.kind} for {self.seconds:.3f} s, level {self.level:.2f}"


def draw_plan(
    chance: random.Random, until_s: float, kinds_of_faults: Mapping[str, Kind]
) -> list[Fault]:
    """Return the faults of a run, by time. They begin before `until_s`."""
    kinds = list(kinds_of_faults)
    weights = [kind.weight for kind in kinds_of_faults.values()]
    plan: list[Fault] = []
    now_s = chance.uniform(1.0, 2.5)
    while now_s < until_s:
        kind = chance.choices(kinds, weights)[0]
        seconds = chance.choice((0.1, 0.5, 1.0, 2.0, 4.0)) * chance.uniform(0.5, 1.2)
        level, seed = round(chance.random(), 3), chance.getrandbits(32)
        plan.append(Fault(round(now_s, 3), kind, round(seconds, 3), level, seed))
        now_s += chance.uniform(0.05, 1.2)
    return plan


class Nemesis:
    """Does the faults of a plan to a cluster, starts again what ended, and undoes all at last."""

    def __init__(
        self,
        cluster: SimulatedCluster,
        kinds: Mapping[str, Kind],
        told: Callable[[str], None] = lambda _: None,
        hosts: Callable[[], Sequence[str]] | None = None,
    ) -> None:
        self.cluster, self.told = cluster, told
        #: The names of the hosts between which the network may fail: nodes, and clients.
        self.hosts = hosts or (lambda: list(cluster.nodes))
        self.injected: Counter[str] = Counter()
        #: How many faults keep a node down.
        self.holders: Counter[str] = Counter()
        self._kinds = kinds

    def under_way(self, fault: Fault) -> FaultUnderWay:
        """Return what does a fault."""
        return FaultUnderWay(self, fault, random.Random(fault.seed))

    async def run(self, plan: Sequence[Fault], since_s: float = 0.0) -> None:
        """Begin each fault at its time after `since_s`, and return when the last is undone."""
        loop = self.cluster.loop
        watching = asyncio.create_task(self._restart())
        try:
            async with asyncio.TaskGroup() as group:
                for fault in plan:
                    await asyncio.sleep(max(0.0, since_s + fault.at_s - loop.time()))
                    self.told(fault.what)
                    group.create_task(self._do(fault), name=fault.kind)
        finally:
            watching.cancel()

    def heal(self) -> None:
        """Undo everything: all nodes run, all links and all disks work."""
        network = self.cluster.network
        network.heal()
        network.set_links(loss=0.0)
        network.set_links(
            delay_min_ms=LinkQuality().delay_min_ms, delay_max_ms=LinkQuality().delay_max_ms
        )
        network.set_links(bytes_per_s=None)
        for node in self.cluster.nodes.values():
            node.disk.mend()
            if node.is_running:
                self.cluster.resume(node.name)
        self.holders.clear()
        self.cluster.start_all()

    # -- down and up

    def down(self, node: SimulatedNode, how: Callable[[str], None]) -> None:
        """Take a node down and hold it."""
        self.holders[node.name] += 1
        how(node.name)

    def let_go(self, node: SimulatedNode) -> None:
        """Hold it down no longer."""
        self.holders[node.name] -= 1
        self._start(node)

    def _start(self, node: SimulatedNode) -> None:
        if self.holders[node.name] <= 0 and not node.is_running:
            self.cluster.start(node.name)

    async def _restart(self) -> None:
        """Start again, as a supervisor does, the nodes that no fault keeps down."""
        while True:
            await asyncio.sleep(RESTART_S)
            for node in self.cluster.nodes.values():
                self._start(node)

    async def _do(self, fault: Fault) -> None:
        if await self._kinds[fault.kind].do(self.under_way(fault)):
            self.injected[fault.kind] += 1


@dataclass
class FaultUnderWay:
    """One fault under way. Each kind's method returns False if it found nothing to act on."""

    nemesis: Nemesis
    fault: Fault
    chance: random.Random
    cluster: SimulatedCluster = field(init=False)

    def __post_init__(self) -> None:
        self.cluster = self.nemesis.cluster

    # -- what a kind may do

    def may_go_dark(self, node: SimulatedNode) -> bool:
        """Return whether a node may lose what it has not synced: voters sync what they promise."""
        return node.is_voter

    def may_fail_a_sync(self, node: SimulatedNode) -> bool:
        """Return whether a node's next sync may fail, and with it lose what it has not synced."""
        return node.is_voter

    async def until_mended(self, node: SimulatedNode) -> bool:
        """Mend the disk after the time of the fault. Meanwhile the node may stop itself."""
        await self.lasts()
        node.disk.mend()
        return True

    # -- who is hit, and for how long

    def some(self, count: int) -> list[SimulatedNode]:
        nodes = list(self.cluster.nodes.values())
        return self.chance.sample(nodes, min(count, len(nodes)))

    def two_sides(self, hosts: Sequence[str] = ()) -> tuple[list[str], list[str]]:
        names = list(hosts or self.nemesis.hosts())
        self.chance.shuffle(names)
        size = self.chance.randint(1, len(names) - 1)
        return names[:size], names[size:]

    def tell(self, what: str, *nodes: SimulatedNode) -> None:
        self.nemesis.told(f"  {what}: {' '.join(node.name for node in nodes)}")

    async def lasts(self) -> None:
        await asyncio.sleep(self.fault.seconds)

    # -- processes and power

    async def kill(self) -> bool:
        return await self.down(self.some(1), self.cluster.kill)

    async def kill_several(self) -> bool:
        return await self.down(self.some(self.chance.randint(2, 3)), self.cluster.kill)

    async def kill_all(self) -> bool:
        return await self.down(self.some(len(self.cluster.nodes)), self.cluster.kill)

    async def lose_power(self) -> bool:
        nodes = self.some(self.chance.randint(1, len(self.cluster.nodes)))
        nodes = [node for node in nodes if self.may_go_dark(node)]
        return bool(nodes) and await self.down(nodes, self.cluster.lose_power)

    async def down(self, nodes: Sequence[SimulatedNode], how: Callable[[str], None]) -> bool:
        """Take nodes down, and start them in any order, up to a second apart."""
        self.tell("down", *nodes)
        for node in nodes:
            self.nemesis.down(node, how)
        await self.lasts()
        for number, node in enumerate(nodes):
            if number:
                await asyncio.sleep(self.chance.choice((0.0, 0.0, self.chance.uniform(0, 1))))
            self.nemesis.let_go(node)
        return True

    async def clean_restart(self) -> bool:
        (node,) = self.some(1)
        self.tell("clean restart", node)
        self.nemesis.holders[node.name] += 1
        was_running, starts = node.is_running, node.starts
        try:
            async with asyncio.timeout(CLEAN_STOP_S):
                await self.cluster.stop(node.name)
        except TimeoutError:
            if node.starts == starts:
                self.cluster.kill(node.name)
        self.nemesis.let_go(node)
        return was_running

    async def pause(self) -> bool:
        nodes = self.some(self.chance.choice((1, 1, 2)))
        self.tell("paused", *nodes)
        processes = [node.process for node in nodes if node.process is not None and node.is_running]
        for process in processes:
            process.pause()
        await self.lasts()
        for process in processes:
            process.resume()
        return bool(processes)

    async def clock(self) -> bool:
        (node,) = self.some(1)
        if node.process is None:
            return False
        self.tell("clock", node)
        node.process.jump_clock(self.chance.uniform(-3_600_000, 3_600_000))
        node.process.set_clock_rate(self.chance.choice((0.9, 1.0, 1.1)))
        return True

    # -- network

    async def cut(self) -> bool:
        return await self._cut(one_way=False)

    async def cut_one_way(self) -> bool:
        return await self._cut(one_way=True)

    async def _cut(self, *, one_way: bool) -> bool:
        these, those = self.two_sides()
        self.nemesis.told(f"  cut: {' '.join(these)} | {' '.join(those)}")
        self.cluster.network.cut(these, those, one_way=one_way)
        await self.lasts()
        self.cluster.network.heal(these, those)
        return True

    async def break_streams(self) -> bool:
        these, those = self.two_sides()
        broken = 0
        for _ in range(self.chance.choice((1, 1, 5))):
            broken += self.cluster.network.break_streams(these, those)
            await asyncio.sleep(0.02)
        return broken > 0

    async def half_open(self) -> bool:
        """Break connections between nodes at one side only.

        Clients notice such a break by gRPC's keepalive, which is not simulated.
        """
        these, those = self.two_sides(list(self.cluster.nodes))
        self.nemesis.told(f"  half-open: {' '.join(these)} notice it, not {' '.join(those)}")
        return self.cluster.network.half_open(these, those) > 0

    async def loss(self) -> bool:
        self.cluster.network.set_links(loss=0.01 + 0.29 * self.fault.level)
        await self.lasts()
        self.cluster.network.set_links(loss=0.0)
        return True

    async def delay(self) -> bool:
        self.cluster.network.set_links(
            delay_min_ms=5.0, delay_max_ms=20.0 + 130.0 * self.fault.level
        )
        await self.lasts()
        calm = LinkQuality()
        self.cluster.network.set_links(
            delay_min_ms=calm.delay_min_ms, delay_max_ms=calm.delay_max_ms
        )
        return True

    # -- disks

    async def slow_disk(self) -> bool:
        (node,) = self.some(1)
        self.tell("slow disk", node)
        node.disk.slow = 0.01 + 0.3 * self.fault.level
        await self.lasts()
        node.disk.slow = 0.0
        return True

    async def full_disk(self) -> bool:
        (node,) = self.some(1)
        self.tell("full disk", node)
        node.disk.fill(int(2000 * self.fault.level))
        return await self.until_mended(node)

    async def failed_sync(self) -> bool:
        """After it the content of the disk is unknown."""
        (node,) = self.some(1)
        if not self.may_fail_a_sync(node):
            return False
        self.tell("failed sync", node)
        node.disk.fail_next_sync()
        return await self.until_mended(node)


@dataclass(frozen=True, slots=True)
class Kind:
    """How often a fault is drawn, and how it is done."""

    weight: int
    do: Callable[[Any], Awaitable[bool]]


KINDS: dict[str, Kind] = {
    "kill": Kind(4, FaultUnderWay.kill),
    "kill several": Kind(2, FaultUnderWay.kill_several),
    "kill all": Kind(2, FaultUnderWay.kill_all),
    "power loss": Kind(3, FaultUnderWay.lose_power),
    "clean restart": Kind(2, FaultUnderWay.clean_restart),
    "pause": Kind(3, FaultUnderWay.pause),
    "clock jump": Kind(1, FaultUnderWay.clock),
    "cut": Kind(3, FaultUnderWay.cut),
    "cut one way": Kind(2, FaultUnderWay.cut_one_way),
    "break streams": Kind(3, FaultUnderWay.break_streams),
    "half-open": Kind(2, FaultUnderWay.half_open),
    "loss": Kind(2, FaultUnderWay.loss),
    "delay": Kind(1, FaultUnderWay.delay),
    "slow disk": Kind(2, FaultUnderWay.slow_disk),
    "full disk": Kind(2, FaultUnderWay.full_disk),
    "failed sync": Kind(2, FaultUnderWay.failed_sync),
}
