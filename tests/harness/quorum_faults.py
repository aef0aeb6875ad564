"""Faults of a simulated quorum, drawn from the seed as a plan before anything runs.

A fault has its own parameters and its own sub-seed, so any part of a plan can be replayed. It is
undone after its time. Machines are named by number. A fault that the quorum is not promised to
survive is passed over: no majority loses its disks (docs/guarantees.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from quorate.errors import QuorateError
from quorate_quorum.server import QuorumServer
from quorate_quorum.snapshots.file import SnapshotId
from quorate_testing.simulated.links import LinkQuality
from tests.harness.quorum_machines import Machine, Quorum
from tests.harness.quorum_operators import Operator


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault; each kind uses what it needs of the parameters."""

    at_s: float
    kind: str
    #: Indexes of the machines that the fault concerns.
    machine: int
    other: int
    #: How long until it is undone.
    seconds: float
    #: How strong it is, 0 to 1.
    level: float
    seed: int

    def __str__(self) -> str:
        return (
            f"{self.at_s:7.3f}  {self.kind:22} machine {self.machine}, other {self.other}, "
            f"{self.seconds:.3f} s, level {self.level:.2f}"
        )


def draw_plan(chance: random.Random, machines: int, until_s: float) -> list[Fault]:
    """Return the faults of a run, by time."""
    kinds = list(KINDS)
    weights = [KINDS[kind].weight for kind in kinds]
    plan: list[Fault] = []
    now_s = chance.uniform(1.0, 3.0)
    while now_s < until_s:
        machine, other = chance.sample(range(machines), 2)
        plan.append(
            Fault(
                round(now_s, 3),
                chance.choices(kinds, weights)[0],
                machine,
                other,
                round(chance.choice((0.1, 0.5, 1.5, 3.0, 5.0)) * chance.uniform(0.5, 1.2), 3),
                round(chance.random(), 3),
                chance.getrandbits(32),
            )
        )
        now_s += chance.uniform(0.2, 3.0)
    return plan


@dataclass(slots=True)
class Nemesis:
    """Does the faults of a plan to a quorum."""

    quorum: Quorum
    told: Callable[[str], None]
    injected: Counter[str] = field(default_factory=Counter)
    operator: Operator = field(init=False)

    def __post_init__(self) -> None:
        self.operator = Operator(self.quorum)

    async def run(self, plan: Sequence[Fault]) -> None:
        """Begin each fault at its time, and return when the last is undone."""
        loop = self.quorum.loop
        async with asyncio.TaskGroup() as group:
            for fault in plan:
                await asyncio.sleep(max(0.0, fault.at_s - loop.time()))
                self.told(str(fault))
                group.create_task(self._do(fault), name=fault.kind)

    async def _do(self, fault: Fault) -> None:
        machines = self.quorum.machines
        doing = _Doing(
            self.quorum,
            fault,
            machines[fault.machine % len(machines)],
            machines[fault.other % len(machines)],
            random.Random(fault.seed),
            self.operator,
        )
        if await KINDS[fault.kind].do(doing):
            self.injected[fault.kind] += 1


@dataclass(slots=True)
class _Doing:
    """One fault under way. Each kind's method returns False if it found nothing to act on."""

    quorum: Quorum
    fault: Fault
    machine: Machine
    other: Machine
    chance: random.Random
    operator: Operator

    @property
    def someone(self) -> Machine:
        """The leader in two of five cases, else the machine of the plan."""
        return (self.quorum.leader or self.machine) if self.fault.level < 0.4 else self.machine

    def others(self, machine: Machine) -> list[str]:
        return [name for name in self.quorum.names if name != machine.name]

    async def lasts(self) -> None:
        await asyncio.sleep(self.fault.seconds)

    # -- network

    async def delay(self) -> bool:
        self.quorum.network.set_links(delay_min_ms=2.0, delay_max_ms=5.0 + 145.0 * self.fault.level)
        await self.lasts()
        calm = LinkQuality()
        self.quorum.network.set_links(
            delay_min_ms=calm.delay_min_ms, delay_max_ms=calm.delay_max_ms
        )
        return True

    async def loss(self) -> bool:
        self.quorum.network.set_links(loss=0.02 + 0.38 * self.fault.level)
        await self.lasts()
        self.quorum.network.set_links(loss=0.0)
        return True

    async def duplication(self) -> bool:
        self.quorum.network.set_links(duplication=0.5 + 0.5 * self.fault.level, late_max_ms=3000)
        await self.lasts()
        self.quorum.network.set_links(duplication=0.0)
        return True

    async def reordering(self) -> bool:
        self.quorum.network.set_links(reordering=0.3 + 0.6 * self.fault.level, late_max_ms=800)
        await self.lasts()
        self.quorum.network.set_links(reordering=0.0)
        return True

    async def slow_link(self) -> bool:
        pair = [self.machine.name], [self.other.name]
        self.quorum.network.set_links(*pair, bytes_per_s=300 + 5000 * self.fault.level)
        await self.lasts()
        self.quorum.network.set_links(*pair, bytes_per_s=None)
        return True

    async def cut_one_way(self) -> bool:
        return await self._cut([self.machine.name], [self.other.name], one_way=True)

    async def cut(self) -> bool:
        return await self._cut([self.machine.name], [self.other.name])

    async def partition(self) -> bool:
        names = list(self.quorum.names)
        self.chance.shuffle(names)
        size = self.chance.randint(1, len(names) - 1)
        return await self._cut(names[:size], names[size:])

    async def leader_isolated(self) -> bool:
        leader = self.quorum.leader
        if leader is None:
            return False
        return await self._cut([leader.name], self.others(leader), one_way=self.fault.level > 0.7)

    async def slow_leader_isolated(self) -> bool:
        """A leader that resigns late: only rounds keep its reads from being stale."""
        leader = self.quorum.leader
        if leader is None or leader.process is None:
            return False
        process = leader.process
        process.set_clock_rate(0.2 + 0.2 * self.fault.level)
        self.quorum.network.cut([leader.name], self.others(leader))
        await asyncio.sleep(2.5 + 0.5 * self.fault.seconds)
        self.quorum.network.heal([leader.name], self.others(leader))
        process.set_clock_rate(1.0)
        return True

    async def _cut(self, these: list[str], those: list[str], *, one_way: bool = False) -> bool:
        self.quorum.network.cut(these, those, one_way=one_way)
        await self.lasts()
        self.quorum.network.heal(these, those)
        return True

    async def broken_streams(self) -> bool:
        one = self.someone
        return self.quorum.network.break_streams([one.name], self.others(one)) > 0

    async def half_open(self) -> bool:
        return self.quorum.network.half_open([self.machine.name], [self.other.name]) > 0

    # -- processes and power

    async def kill(self) -> bool:
        return await self._down([self.someone], self.quorum.kill)

    async def kill_all(self) -> bool:
        return await self._down(self.quorum.machines, self.quorum.kill)

    async def power_loss(self) -> bool:
        return await self._down([self.someone], self.quorum.cut_power)

    async def power_loss_of_all(self) -> bool:
        return await self._down(self.quorum.machines, self.quorum.cut_power)

    async def power_loss_amid_syncs(self) -> bool:
        """All lose power with much written and little synced: acknowledged records must survive."""
        machines = self.quorum.machines
        disks = [one.disk for one in machines]
        for disk in disks:
            disk.slow_sync = 0.05 + 0.25 * self.fault.level
        found = await self._until(lambda: any(self._unsynced(one) for one in machines))
        await asyncio.sleep(self.chance.uniform(0, 0.6))
        for disk in disks:
            disk.slow_sync = 0.0
        return await self._down(machines, self.quorum.cut_power) and found

    async def clean_restart(self) -> bool:
        one = self.someone
        was_up = one.is_up
        await self.quorum.stop(one)
        await self.lasts()
        self.quorum.let_go(one)
        return was_up

    async def pause(self) -> bool:
        process = self.someone.process
        if process is None or not process.runs:
            return False
        process.pause()
        await self.lasts()
        process.resume()
        return True

    async def _down(self, machines: Sequence[Machine], how: Callable[[Machine], None]) -> bool:
        """Take machines down, and start them in any order, up to 2 s apart."""
        were_up = any(one.is_up for one in machines)
        for one in machines:
            how(one)
        await self.lasts()
        order = list(machines)
        self.chance.shuffle(order)
        for number, one in enumerate(order):
            if number:
                await asyncio.sleep(self.chance.uniform(0, 2) * self.fault.level)
            self.quorum.let_go(one)
        return were_up

    # -- disks

    async def torn_write(self) -> bool:
        """Kill the voter in the middle of a write."""
        disk = self.machine.disk
        if not await self._until(lambda: bool(disk.under_way)):
            return False
        return await self._down([self.machine], self.quorum.kill)

    async def bit_flip_above_sync(self) -> bool:
        """Kill the voter before a sync ends, and damage bytes that were only written."""
        machine, disk = self.machine, self.machine.disk
        disk.slow_sync = 0.05
        found = await self._until(lambda: machine.is_up and bool(self._unsynced(machine)))
        disk.slow_sync = 0.0
        if not found or disk is not machine.disk:  # the disk may have been replaced meanwhile
            return False
        path, position, size = self.chance.choice(self._unsynced(machine))
        self.quorum.kill(machine)
        disk.flip_bit(path, position + self.chance.randrange(size), self.chance.randrange(8))
        await self.lasts()
        self.quorum.let_go(machine)
        return True

    def _unsynced(self, machine: Machine) -> list[tuple[str, int, int]]:
        """Writes to the log that no sync has covered yet."""
        return [write for write in machine.disk.unsynced() if write[0].endswith(".log")]

    async def failed_sync(self) -> bool:
        self.machine.disk.fail_next_sync()
        return await self._excused()

    async def full_disk(self) -> bool:
        self.machine.disk.fill(int(300 * self.fault.level))
        return await self._excused()

    async def slow_sync(self) -> bool:
        self.machine.disk.slow_sync = 0.02 + 0.8 * self.fault.level
        return await self._excused()

    async def slow_disk(self) -> bool:
        self.machine.disk.slow = 0.005 + 0.1 * self.fault.level
        return await self._excused()

    async def _excused(self) -> bool:
        """While the fault lasts the voter may stop itself; with a slow disk, stop too late.

        The supervisor starts it again.
        """
        machine, kind = self.machine, self.fault.kind
        machine.excuses[kind] += 1
        await self.lasts()
        machine.disk.mend()
        await asyncio.sleep(6.0)  # a stop takes up to 4.5 s
        machine.excuses[kind] -= 1
        return True

    async def _until(self, is_so: Callable[[], bool]) -> bool:
        end_s = self.quorum.loop.time() + 3.0
        while not is_so():
            if self.quorum.loop.time() > end_s:
                return False
            await asyncio.sleep(0.0007)  # virtual time
        return True

    # -- clocks

    async def clock_jump(self) -> bool:
        if self.someone.process is None:
            return False
        self.someone.process.jump_clock(7_200_000 * (self.fault.level - 0.5))
        return True

    async def clock_drift(self) -> bool:
        if self.machine.process is None:
            return False
        self.machine.process.set_clock_rate(0.5 + self.fault.level)
        return True

    # -- operators

    async def transfer(self) -> bool:
        """The leader hands over for silence, or makes way for a voter that an operator names."""
        leader = self.quorum.leader
        if leader is None or leader.server is None or leader.process is None:
            return False
        if not leader.process.runs or leader.death is None:
            return False
        if self.fault.level < 0.3:
            leader.process.context().run(partial(leader.server.raft.hand_over, for_silence=True))
            return True
        named = self.other.node_id if self.fault.level < 0.8 else None
        task = leader.process.spawn(_transfer(leader.server, named))
        await asyncio.wait((task, leader.death), timeout=10, return_when=asyncio.FIRST_COMPLETED)
        return True

    async def voter_added(self) -> bool:
        return await self.operator.add(self.machine)

    async def voter_removed(self) -> bool:
        return await self.operator.remove(self.someone)

    async def wiped(self) -> bool:
        return await self.operator.wipe(self.someone, self.fault.seconds)

    async def emptied(self) -> bool:
        return await self.operator.empty(self.someone, self.fault.seconds)

    async def bit_flip_below_sync(self) -> bool:
        return await self.operator.damage(self.someone, self.chance, self.fault.seconds)

    async def bit_flip_in_the_dark(self) -> bool:
        one, seconds = self.someone, self.fault.seconds
        return await self.operator.damage(one, self.chance, seconds, all_dark=True)

    async def snapshot(self) -> bool:
        """A voter takes a snapshot now."""
        server, process, death = self.machine.server, self.machine.process, self.machine.death
        if server is None or process is None or death is None or not process.is_alive:
            return False
        if self.machine.raft is None:
            return False
        taken: list[SnapshotId] = []
        task = process.spawn(_take_snapshot(server, taken))
        await asyncio.wait((task, death), timeout=10, return_when=asyncio.FIRST_COMPLETED)
        return bool(taken)


async def _transfer(server: QuorumServer, named: int | None) -> None:
    """Ask for a transfer; a refusal is fine."""
    with contextlib.suppress(QuorateError):
        await server.raft.transfer(named)


async def _take_snapshot(server: QuorumServer, taken: list[SnapshotId]) -> None:
    """Take a snapshot; a refusal is fine."""
    with contextlib.suppress(QuorateError):
        taken.append(await server.take_snapshot())


@dataclass(frozen=True, slots=True)
class Kind:
    """How often a fault is drawn, and how it is done."""

    weight: int
    do: Callable[[_Doing], Awaitable[bool]]


KINDS: dict[str, Kind] = {
    "delay": Kind(2, _Doing.delay),
    "loss": Kind(2, _Doing.loss),
    "duplication": Kind(2, _Doing.duplication),
    "reordering": Kind(2, _Doing.reordering),
    "one-way cut": Kind(3, _Doing.cut_one_way),
    "two-way cut": Kind(2, _Doing.cut),
    "partition": Kind(3, _Doing.partition),
    "leader isolated": Kind(4, _Doing.leader_isolated),
    "slow leader isolated": Kind(3, _Doing.slow_leader_isolated),
    "slow link": Kind(2, _Doing.slow_link),
    "broken streams": Kind(3, _Doing.broken_streams),
    "half-open streams": Kind(3, _Doing.half_open),
    "kill": Kind(4, _Doing.kill),
    "kill of all": Kind(2, _Doing.kill_all),
    "power loss of one": Kind(4, _Doing.power_loss),
    "power loss of all": Kind(2, _Doing.power_loss_of_all),
    "power loss amid syncs": Kind(3, _Doing.power_loss_amid_syncs),
    "clean restart": Kind(3, _Doing.clean_restart),
    "pause": Kind(5, _Doing.pause),
    "torn write": Kind(3, _Doing.torn_write),
    "bit flip above the sync": Kind(2, _Doing.bit_flip_above_sync),
    "bit flip below the sync": Kind(2, _Doing.bit_flip_below_sync),
    "power loss of all and a bit flip": Kind(2, _Doing.bit_flip_in_the_dark),
    "failed sync": Kind(2, _Doing.failed_sync),
    "full disk": Kind(2, _Doing.full_disk),
    "slow sync": Kind(3, _Doing.slow_sync),
    "slow disk": Kind(2, _Doing.slow_disk),
    "clock jump": Kind(2, _Doing.clock_jump),
    "clock drift": Kind(2, _Doing.clock_drift),
    "transfer": Kind(3, _Doing.transfer),
    "snapshot now": Kind(4, _Doing.snapshot),
    "voter removed": Kind(3, _Doing.voter_removed),
    "voter added": Kind(4, _Doing.voter_added),
    "wipe, back as new voter": Kind(2, _Doing.wiped),
    "disk emptied, same directory": Kind(2, _Doing.emptied),
}
