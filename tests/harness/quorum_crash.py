"""Crash points: a voter dies at the n-th thing that it does in a run, for each n.

One run of a quorum numbers all that one voter does to its disk and sends to others. A replay of the
same seed is the same run, in which that voter dies as it begins the n-th of these. Then the other
voter with the longest log goes down, too. So what was acknowledged must be on the disk of the
crashed voter, or on the third disk, which lags at that time where the run can make it lag. These
two must elect a leader, then all three must agree. The rules of quorum_rules are checked all the
time, and at the end quorum_judge finds every acknowledged write once.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from quorate_quorum.raft.machine.raft import Raft
from quorate_testing.simulated.loop import SimulatedLoop, simulate
from tests.harness.invariants import Violation
from tests.harness.quorum_clients import KEYS, Clients, Kind
from tests.harness.quorum_judge import judge
from tests.harness.quorum_machines import Machine, Quorum
from tests.harness.quorum_rules import Rules
from tests.harness.world import logs

SETTINGS = {"metadata_log_segment_bytes": 1024, "quorum_fetch_snapshot_max_bytes": 300}
PATIENCE_S = 20.0
#: Operations that change nothing on a disk: no crash points.
UNCOUNTED = ("open", "read")
CLIENT_PAUSE_S = 0.01

Crash = Literal["kill", "power"]
CRASHES: tuple[Crash, ...] = ("kill", "power")


class Point(NamedTuple):
    """Something that the voter began to do."""

    #: write, sync, rename, truncate, create, remove, send or reply.
    kind: str
    #: The file, or the receiver.
    what: str
    #: The part of the run in which it happens.
    part: str


#: Operation of the disk -> its kind in the table.
KINDS = {
    "append": "write",
    "overwrite": "write",
    "sync_directory": "directory sync",
    "make_directory": "create",
}


def record(seed: int) -> list[Point]:
    """Return all that the voter does in the run of a seed, in order."""
    with logs(verbose=False):
        return simulate(lambda loop: _Run(loop, -1, "kill").run(), seed)


def crash_at(seed: int, number: int, crash: Crash, expected: Point) -> None:
    """Replay the run with a crash at that point; raise Violation, or another error, at a fault."""
    with logs(verbose=False):
        points = simulate(lambda loop: _Run(loop, number, crash).run(), seed)
    assert points[-1] == expected, f"point {number} was {expected}, and is {points[-1]} now"


@dataclass(slots=True)
class _Run:
    loop: SimulatedLoop
    crash_at: int
    crash: Crash
    quorum: Quorum = field(init=False)
    rules: Rules = field(init=False)
    clients: Clients = field(init=False)
    points: list[Point] = field(default_factory=list)
    part: str = ""
    crashed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.quorum = Quorum(self.loop, 3, SETTINGS)
        self.rules = Rules(self.quorum)
        self.clients = Clients(self.quorum, random.Random(self.loop.chance.getrandbits(64)))

    @property
    def victim(self) -> Machine:
        """The voter that crashes."""
        return self.quorum.machines[0]

    @property
    def others(self) -> list[Machine]:
        return self.quorum.machines[1:]

    async def run(self) -> list[Point]:
        """Do the parts of the run, up to the crash if there is one; then let all voters recover."""
        self.loop.on_instant = self._instant_ends
        self.victim.disk.hook = lambda name, path: self._reached(
            KINDS.get(name, name), path.rpartition("/")[2]
        )
        self.quorum.network.hook = self._message
        try:
            async with asyncio.timeout(120):
                await self._go()
        except BaseException as error:
            error.add_note(f"at {self.loop.time():.6f} s, crash point {self.crash_at}")
            raise
        finally:
            self.loop.on_instant = None
        return self.points

    async def _go(self) -> None:
        await self.quorum.begin()
        parts = asyncio.create_task(self._parts())
        waiting = asyncio.create_task(self.crashed.wait())
        await asyncio.wait((parts, waiting), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self.crashed.is_set():
            parts.cancel()
            await asyncio.wait([parts])
        else:
            await parts
            assert self.crash_at < 0, f"the run has {len(self.points)} points"
        await self._recover()

    # -- the run

    async def _parts(self) -> None:
        parts: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            ("first start", self._first_start),
            ("leading", self._leading),
            ("cut off", self._cut_off),
            ("cutting", self._cutting),
            ("restart after a kill", self._restart_after_a_kill),
            ("clean stop", self._clean_stop),
            ("installing", self._installing),
            ("following", self._following),
        ]
        for self.part, go in parts:
            await go()
        self.part = ""

    async def _first_start(self) -> None:
        await self._write(2)

    async def _leading(self) -> None:
        """The victim becomes the leader, decides, takes a snapshot and cuts its log below it."""
        await self._lead(self.victim)
        await self._write(6)
        with self._one_lags():
            await self._write(6)
            await self._snapshot(self.victim)
            await self._write(2)

    async def _cut_off(self) -> None:
        """The victim leads on, cut off: it appends alone while the others elect another leader."""
        names = [machine.name for machine in self.others]
        self.quorum.network.cut([self.victim.name], names)
        lost = [
            asyncio.create_task(self.clients.operate(self.victim, "write", key)) for key in KEYS
        ]
        await self._until(lambda: any(machine.is_leader for machine in self.others))
        await self._write(2)
        await asyncio.wait(lost)

    async def _cutting(self) -> None:
        """The victim cuts off what it appended alone."""
        before = self.rules.truncations
        self.quorum.network.heal()
        await self._until(lambda: self.rules.truncations > before)
        await self._agree()

    async def _restart_after_a_kill(self) -> None:
        await self._lead(self.victim)
        await self._write(1)
        self.quorum.kill(self.victim)
        self.quorum.let_go(self.victim)
        await self._write(2)
        await self._agree()

    async def _clean_stop(self) -> None:
        await self._lead(self.victim)
        await self.quorum.stop(self.victim)
        await self._write(10)
        for machine in self.others:
            await self._snapshot(machine)
        await self._write(2)

    async def _installing(self) -> None:
        """The others' logs begin above the victim's end: it installs a snapshot."""
        before = self.rules.snapshots_loaded
        self.quorum.let_go(self.victim)
        await self._agree()
        assert self.rules.snapshots_loaded > before, "no snapshot was installed"

    async def _following(self) -> None:
        await self._lead(self.others[0])
        with self._one_lags():
            await self._write(4)
            await self._snapshot(self.victim)
            await self._write(2)
        await self._agree()

    # -- its steps

    @contextmanager
    def _one_lags(self) -> Iterator[None]:
        """Cut the third voter off: the victim and one other voter commit without it."""
        far = self.others[1].name
        near = [machine.name for machine in self.quorum.machines if machine.name != far]
        self.quorum.network.cut([far], near)
        yield
        self.quorum.network.heal()

    async def _write(self, count: int) -> None:
        for number in range(count):
            await self._until_done("write", KEYS[number % len(KEYS)])

    async def _until_done(self, kind: Kind, key: str) -> None:
        while True:
            leader = self.quorum.leader
            if leader is not None:
                operation = await self.clients.operate(leader, kind, key)
                if operation.status == "ok":
                    return
            await asyncio.sleep(CLIENT_PAUSE_S)

    async def _lead(self, machine: Machine) -> None:
        """Transfer leadership to that machine; try again until it leads."""
        while not machine.is_leader:
            leader = self.quorum.leader
            if leader is not None and leader.server is not None and leader.process is not None:
                transfer = leader.server.raft.transfer(machine.node_id)
                task = leader.process.spawn(transfer, name="transfer")
                await asyncio.wait([task], timeout=1)
            await asyncio.sleep(CLIENT_PAUSE_S)

    async def _snapshot(self, machine: Machine) -> None:
        assert machine.server is not None
        assert machine.process is not None
        await asyncio.wait([machine.process.spawn(machine.server.take_snapshot())], timeout=10)

    async def _agree(self) -> None:
        """Wait until all machines that are up have applied all that is committed."""
        goal = self.rules.committed_end
        await self._until(lambda: all(_applied(m) >= goal for m in self.quorum.machines if m.is_up))

    async def _until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not is_so():  # noqa: ASYNC110  # virtual time
                await asyncio.sleep(CLIENT_PAUSE_S)

    # -- the crash

    def _message(self, kind: Literal["send", "reply"], source: str, target: str) -> None:
        if source == self.victim.name:
            self._reached(kind, target)

    def _reached(self, kind: str, what: str) -> None:
        if not self.part or kind in UNCOUNTED or self.crashed.is_set() or not self.victim.is_up:
            return
        self.points.append(Point(kind, what, self.part))
        if len(self.points) - 1 != self.crash_at:
            return
        if self.crash == "kill":
            self.quorum.kill(self.victim)
        else:
            self.quorum.cut_power(self.victim)
        self.crashed.set()

    # -- and after

    async def _recover(self) -> None:
        """First the victim and one other must recover; then all three."""
        self.quorum.network.heal()
        if self.crashed.is_set():
            furthest = max(self.others, key=_end)
            self.quorum.kill(furthest)
            await asyncio.sleep(0.1)
            self.victim.holders = 1  # a clean stop may have been under way
            self.quorum.let_go(self.victim)
            await self._works()
            assert self.victim.is_up
        self.quorum.heal()
        await self._works()
        await self._agree()
        judge(self.clients.history, self.rules.values())
        for machine in self.quorum.machines:
            assert machine.controller is not None
            self.rules.compare_image(machine, machine.controller.image)

    async def _works(self) -> None:
        """Write and read every key."""
        async with asyncio.timeout(PATIENCE_S):
            for key in KEYS:
                await self._until_done("write", key)
                await self._until_done("read", key)

    def _instant_ends(self) -> None:
        try:
            self.rules.check()
        except Violation as error:
            error.add_note(f"at {self.loop.time():.6f} s, after {' '.join(self.loop.ran)} ran")
            raise


def _applied(machine: Machine) -> int:
    controller = machine.controller
    return -1 if controller is None else controller.image.offset


def _end(machine: Machine) -> tuple[int, int]:
    raft: Raft | None = machine.raft
    return (-1, -1) if raft is None else (raft.ledger.last_epoch, raft.ledger.log_end_offset)
