"""Faults of the nodes and disks of a simulated cluster, by name or drawn from the seed."""

from __future__ import annotations

import errno
import random
from collections.abc import Collection
from typing import Annotated, Final

from quorate.errors import InvalidRequestError
from quorate.settings import INT64_MAX, Number, Whole, checked, refused
from quorate_testing.simulated.chaos import KINDS, Kind, Nemesis, draw_plan
from quorate_testing.simulated.cluster import SimulatedCluster as Nodes
from quorate_testing.simulated.loop import Process
from quorate_testing.simulation.clock import SECONDS, SECONDS_MAX
from quorate_testing.simulation.hosts import TEST, Hosts
from quorate_testing.simulation.network import CALM, Host
from quorate_testing.simulation.world import World, takes_time

#: Virtual time after the last random fault in which it is undone.
UNDO_S: Final = 60.0


class ClusterFaults:
    """What may happen to nodes, programs and disks, as `cluster.faults`.

    Nodes are named by id, programs by name. The history names the host of node 0 broker-0, that of
    node 100 voter-100. A fault happens at once, and lasts until it is undone.
    """

    #: The kinds of random().
    KINDS: Final = tuple(KINDS)

    def __init__(self, world: World, nodes: Nodes, hosts: Hosts) -> None:
        self._world = world
        self._nodes = nodes
        self._hosts = hosts

    @property
    def history(self) -> tuple[str, ...]:
        """Everything that was done to the cluster so far, with the virtual time.

        Node 0 is broker-0 in it, and node 100 is voter-100. Programs have their names.
        """
        return tuple(self._world.told)

    # -- nodes and programs

    def kill(self, node: Host) -> None:
        """Kill a node or a program, as by kill -9. What it had written to files is kept.

        No further line of a killed program runs, not even its `finally` blocks. A task that waits
        for it waits for ever.
        """
        name = self._host("kill", node)
        self._world.note(f"kill {name}")
        self._world.do(lambda: self._kill(name))

    def lose_power(self, node: int) -> None:
        """Cut the power of a node's machine. Any part of what it had not synced is lost."""
        name = self._node("lose_power", node)
        self._world.note(f"lose power: {name}")
        self._world.do(lambda: self._nodes.lose_power(name))

    def start(self, node: int) -> None:
        """Start a node that does not run. This does not wait: see start_broker()."""
        name = self._node("start", node)
        if not self._nodes.nodes[name].is_running:
            self._world.note(f"start {name}")
            self._world.do(lambda: self._nodes.start(name))

    @takes_time
    async def stop(self, node: int) -> None:
        """Stop a node cleanly, as by SIGTERM, and wait for its end."""
        name = self._node("stop", node)
        self._world.note(f"stop {name}")
        await self._nodes.stop(name)

    def pause(self, node: Host) -> None:
        """Pause a node or a program, as by SIGSTOP or a long garbage collection."""
        name = self._host("pause", node)
        process = self._process(name)
        self._world.note(f"pause {name}")
        process.pause()

    def resume(self, node: Host) -> None:
        """Resume a node or a program that was paused. It goes on where it was."""
        name = self._host("resume", node)
        process = self._process(name)
        self._world.note(f"resume {name}")
        process.resume()

    @checked
    def jump_clock(
        self, node: Host, seconds: Annotated[float, Number(-SECONDS_MAX, SECONDS_MAX)]
    ) -> None:
        """Set the wall clock of one node or program forward or back, until it starts anew.

        Its timers do not notice. clock.jump() sets all clocks at once.
        """
        name = self._host("jump_clock", node)
        process = self._process(name)
        self._world.note(f"clock of {name} jumps by {seconds:g} s")
        process.jump_clock(seconds * 1000)

    # -- disks

    @checked
    def fill_disk(
        self, node: int, free_bytes: Annotated[int, Whole(0, INT64_MAX, "left to write")] = 0
    ) -> None:
        """Fill the disk of a node: after `free_bytes` more, a write fails with ENOSPC."""
        name = self._node("fill_disk", node)
        self._world.note(f"full disk: {name}, {free_bytes} bytes left")
        self._nodes.nodes[name].disk.fill(free_bytes)

    def fail_disk(self, node: int) -> None:
        """Let every operation on the disk of a node fail with EIO. The node may stop itself."""
        name = self._node("fail_disk", node)
        self._world.note(f"disk fails: {name}")
        self._nodes.nodes[name].disk.hook = _fail

    @checked
    def slow_disk(
        self, node: int, seconds: Annotated[float, Number(0, 3600, "of each operation")] = 0.1
    ) -> None:
        """Make each operation on the disk of a node take so much longer."""
        name = self._node("slow_disk", node)
        self._world.note(f"slow disk: {name}, {seconds:g} s")
        self._nodes.nodes[name].disk.slow = seconds

    def mend_disk(self, node: int) -> None:
        """Undo fill_disk, fail_disk and slow_disk. A node that stopped itself stays down."""
        name = self._node("mend_disk", node)
        self._world.note(f"mend disk: {name}")
        self._mend(name)

    # -- all at once

    def heal(self) -> None:
        """Undo everything: all nodes run, all links and disks work, no program is paused."""
        self._world.check_is_open()
        self._world.note("all faults are undone")
        self._world.do(self._heal)

    @takes_time
    async def random(self, seconds: float, kinds: Collection[str] | None = None) -> None:
        """Do random faults for so many virtual seconds, then undo all: see heal().

        Faults come every 0.05 to 1.2 s and last up to 5 s; several may last at once. The seed
        decides which. `kinds`: some of ClusterFaults.KINDS; None: all. None of them takes a record
        that was acknowledged with acks=all and min.insync.replicas of 2 or more: brokers do not
        lose their power, and only syncs of voters fail.
        """
        call = "ClusterFaults.random"
        seconds = SECONDS.check(call, "seconds", seconds)
        chosen = _chosen(call, kinds)
        self._world.allow(seconds + UNDO_S)
        chance = random.Random(self._nodes.loop.chance.getrandbits(64))
        nemesis = Nemesis(self._nodes, chosen, self._world.note, self._hosts.all)
        plan = draw_plan(chance, seconds, chosen)
        await self._world.as_world(nemesis.run(plan, self._world.loop.world_time()))
        self.heal()

    # -- inside

    def _node(self, call: str, given: object) -> str:
        self._world.check_is_open()
        return self._hosts.node(f"ClusterFaults.{call}", "node", given).name

    def _host(self, call: str, given: object) -> str:
        self._world.check_is_open()
        call = f"ClusterFaults.{call}"
        name = self._hosts.host(call, "node", given)
        if name == TEST:
            allowed = "a node or a program, and the test itself must go on"
            raise ValueError(refused(call, "node", allowed, given))
        return name

    def _process(self, name: str) -> Process:
        process = self._hosts.process(name)
        if process is None:
            raise InvalidRequestError(f"{name} does not run: start it first")
        return process

    def _kill(self, name: str) -> None:
        if name in self._nodes.nodes:
            self._nodes.kill(name)
        elif (process := self._hosts.process(name)) is not None:
            self._world.has_killed = True
            process.kill()

    def _mend(self, name: str) -> None:
        disk = self._nodes.nodes[name].disk
        disk.mend()
        disk.hook = None

    def _heal(self) -> None:
        self._nodes.network.set_links(**CALM)
        self._nodes.network.heal()
        for name in self._nodes.nodes:
            self._mend(name)
            self._nodes.resume(name)
        for process in self._hosts.programs.values():
            process.resume()
        self._nodes.start_all()


def _chosen(call: str, kinds: object) -> dict[str, Kind]:
    """Return the kinds of random faults with these names."""
    allowed = f"some of {', '.join(KINDS)}"
    if kinds is None:
        return dict(KINDS)
    if isinstance(kinds, str) or not isinstance(kinds, Collection):
        raise TypeError(refused(call, "kinds", f"a list: {allowed}", kinds))
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(refused(call, "kinds", allowed, kind))
    if not kinds:
        raise ValueError(refused(call, "kinds", allowed, kinds))
    return {name: kind for name, kind in KINDS.items() if name in kinds}


def _fail(_operation: str, path: str) -> None:
    raise OSError(errno.EIO, "simulated: the disk fails", path)
