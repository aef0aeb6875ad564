"""Faults of a simulated cluster, drawn from the seed as a plan before anything runs.

A fault has its own sub-seed and is undone after its time; several may last at once. Faults
that acks=all does not promise to survive are done only in seeds whose shape says so (`beyond`): see
cluster_shape and cluster_damage.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from dataclasses import dataclass, field

from quorate_testing.simulated.cluster import SimulatedCluster, SimulatedNode
from quorate_testing.simulated.links import LinkQuality
from tests.harness.cluster_damage import Damages, flip, replica_directories

RESTART_S = 0.7
#: Time in which a node stops after a fault of its disk.
STOP_S = 6.0


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


def draw_plan(chance: random.Random, until_s: float) -> list[Fault]:
    """Return the faults of a run, by time."""
    kinds = list(KINDS)
    weights = [KINDS[kind].weight for kind in kinds]
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
        topic: str,
        damages: Damages,
        told: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.cluster, self.topic, self.damages, self.told = cluster, topic, damages, told
        self.injected: Counter[str] = Counter()
        #: How many faults keep a node down.
        self.holders: Counter[str] = Counter()
        #: How many faults may make a node stop itself; it is no violation then.
        self.excuses: Counter[str] = Counter()

    async def run(self, plan: Sequence[Fault]) -> None:
        """Begin each fault at its time, and return when the last is undone."""
        loop = self.cluster.loop
        watching = asyncio.create_task(self._restart())
        try:
            async with asyncio.TaskGroup() as group:
                for fault in plan:
                    await asyncio.sleep(max(0.0, fault.at_s - loop.time()))
                    self.told(str(fault))
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

    def is_excused(self, node: SimulatedNode) -> bool:
        """Whether a fault of the node's disk is a reason for it to stop itself."""
        return self.excuses[node.name] > 0

    def excuse_ends(self, node: SimulatedNode) -> None:
        """From now on this fault of the disk is no reason for the node to stop itself."""
        self.excuses[node.name] -= 1

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
        doing = _Doing(self, fault, random.Random(fault.seed))
        if await KINDS[fault.kind].do(doing):
            self.injected[fault.kind] += 1


@dataclass(slots=True)
class _Doing:
    """One fault under way. Each kind's method returns False if it found nothing to act on."""

    nemesis: Nemesis
    fault: Fault
    chance: random.Random
    cluster: SimulatedCluster = field(init=False)

    def __post_init__(self) -> None:
        self.cluster = self.nemesis.cluster

    def some(self, count: int) -> list[SimulatedNode]:
        return self.chance.sample(list(self.cluster.nodes.values()), count)

    def a_broker(self) -> SimulatedNode:
        return self.chance.choice(self.cluster.brokers)

    def two_sides(self) -> tuple[list[str], list[str]]:
        names = list(self.cluster.nodes)
        self.chance.shuffle(names)
        size = self.chance.randint(1, len(names) - 1)
        return names[:size], names[size:]

    async def lasts(self) -> None:
        await asyncio.sleep(self.fault.seconds)

    # -- processes and power

    async def kill(self) -> bool:
        return await self._down(self.some(1), self.cluster.kill)

    async def kill_several(self) -> bool:
        return await self._down(self.some(self.chance.randint(2, 3)), self.cluster.kill)

    async def kill_all(self) -> bool:
        return await self._down(self.some(len(self.cluster.nodes)), self.cluster.kill)

    async def lose_power(self) -> bool:
        nodes = self.some(self.chance.randint(1, len(self.cluster.nodes)))
        nodes = [node for node in nodes if self._may_go_dark(node)]
        return bool(nodes) and await self._down(nodes, self.cluster.lose_power)

    def _may_go_dark(self, node: SimulatedNode) -> bool:
        damages = self.nemesis.damages
        return node.is_voter or damages.shape.syncs_on_ack or damages.may_hurt(node)

    async def _down(self, nodes: Sequence[SimulatedNode], how: Callable[[str], None]) -> bool:
        """Take nodes down, and start them in any order, up to a second apart."""
        self.nemesis.told(f"down: {' '.join(node.name for node in nodes)}")
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
        self.nemesis.holders[node.name] += 1
        was_running, starts = node.is_running, node.starts
        try:
            async with asyncio.timeout(10.0):
                await self.cluster.stop(node.name)
        except TimeoutError:
            if node.starts == starts:
                self.cluster.kill(node.name)
        self.nemesis.let_go(node)
        return was_running

    async def pause(self) -> bool:
        nodes = self.some(self.chance.choice((1, 1, 2)))
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
        return self.cluster.network.half_open(*self.two_sides()) > 0

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
        disk = self.some(1)[0].disk
        disk.slow = 0.01 + 0.3 * self.fault.level
        await self.lasts()
        disk.slow = 0.0
        return True

    async def full_disk(self) -> bool:
        (node,) = self.some(1)
        node.disk.fill(int(2000 * self.fault.level))
        return await self._excused(node)

    async def failed_sync(self) -> bool:
        """After it the content of the disk is unknown: at a broker it counts as damage."""
        (node,) = self.some(1)
        if not (node.is_voter or self.nemesis.damages.may_hurt(node)):
            return False
        node.disk.fail_next_sync()
        if not node.is_voter:
            self.nemesis.damages.failing.append(node.disk)
        return await self._excused(node)

    async def _excused(self, node: SimulatedNode) -> bool:
        """While the fault lasts the node may stop itself; the supervisor starts it again."""
        self.nemesis.excuses[node.name] += 1
        await self.lasts()
        node.disk.mend()
        self.cluster.loop.call_later(STOP_S, self.nemesis.excuse_ends, node, context=Context())
        return True

    async def flip_log(self) -> bool:
        return await self._flip("log")

    async def flip_index(self) -> bool:
        return await self._flip("index")

    async def flip_checkpoint(self) -> bool:
        return await self._flip("checkpoint")

    async def flip_metadata(self) -> bool:
        return await self._flip("metadata")

    async def _flip(self, part: str) -> bool:
        """Flip a bit on a broker's disk: the broker is killed and comes back, or runs on."""
        node, nemesis = self.a_broker(), self.nemesis
        if not nemesis.damages.may_hurt(node):
            return False
        is_killed = self.fault.level < 0.6
        if is_killed:
            nemesis.down(node, self.cluster.kill)
        damage = flip(node.disk, nemesis.topic, part, self.chance)
        if damage is not None:
            nemesis.damages.note(node, damage)
            nemesis.told(f"flipped: {node.name} {damage.path}, byte {damage.position}")
        if is_killed:
            await self.lasts()
            nemesis.let_go(node)
        return damage is not None

    async def lost_directory(self) -> bool:
        """A replica's directory is gone when its broker comes back."""
        node, nemesis = self.a_broker(), self.nemesis
        if not nemesis.damages.may_hurt(node):
            return False
        nemesis.down(node, self.cluster.kill)
        found = replica_directories(node.disk, nemesis.topic)
        lost = self.chance.sample(found, self.chance.randint(1, len(found))) if found else []
        for path in lost:
            node.disk.lose_directory(path)
            nemesis.told(f"lost: {node.name} {path}")
        await self.lasts()
        nemesis.let_go(node)
        return bool(lost)


@dataclass(frozen=True, slots=True)
class Kind:
    """How often a fault is drawn, and how it is done."""

    weight: int
    do: Callable[[_Doing], Awaitable[bool]]


KINDS: dict[str, Kind] = {
    "kill": Kind(4, _Doing.kill),
    "kill several": Kind(2, _Doing.kill_several),
    "kill all": Kind(2, _Doing.kill_all),
    "power loss": Kind(3, _Doing.lose_power),
    "clean restart": Kind(2, _Doing.clean_restart),
    "pause": Kind(3, _Doing.pause),
    "clock jump": Kind(1, _Doing.clock),
    "cut": Kind(3, _Doing.cut),
    "cut one way": Kind(2, _Doing.cut_one_way),
    "break streams": Kind(3, _Doing.break_streams),
    "half-open": Kind(2, _Doing.half_open),
    "loss": Kind(2, _Doing.loss),
    "delay": Kind(1, _Doing.delay),
    "slow disk": Kind(2, _Doing.slow_disk),
    "full disk": Kind(2, _Doing.full_disk),
    "failed sync": Kind(2, _Doing.failed_sync),
    "bit flip, log": Kind(3, _Doing.flip_log),
    "bit flip, index": Kind(1, _Doing.flip_index),
    "bit flip, checkpoint": Kind(1, _Doing.flip_checkpoint),
    "bit flip, metadata": Kind(1, _Doing.flip_metadata),
    "lost directory": Kind(2, _Doing.lost_directory),
}
