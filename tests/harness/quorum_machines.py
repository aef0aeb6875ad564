"""A quorum of real voters (QuorumServer) in one simulated world: machines, disks, network.

A machine keeps its disk and its id; the processes on it come and go. A fault that takes a machine
down holds it down. A supervisor restarts a voter that stopped itself because of a fault of its
disk. A voter that stops itself for any other reason is a violation.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any

from quorate.errors import QuorateError
from quorate_cli.node_disks import format_voters
from quorate_quorum.controller.driver.controller import Controller
from quorate_quorum.disk import replace_whole
from quorate_quorum.log.identity import Identity, read_identity
from quorate_quorum.node.config import ConfigError, QuorumConfig
from quorate_quorum.node.environment import Environment
from quorate_quorum.node.server import STOPPED_EARLY, STOPPED_LATE, NodeFailed
from quorate_quorum.raft.driver.bootstrap import format_new_voter, make_durably, metadata_directory
from quorate_quorum.raft.machine.raft import Raft
from quorate_quorum.server import QuorumServer
from quorate_testing.simulated.disk import SimulatedDisk
from quorate_testing.simulated.links import LinkQuality
from quorate_testing.simulated.loop import Process, SimulatedLoop
from quorate_testing.simulated.network import SimulatedNetwork
from tests.harness.invariants import Violation

CLUSTER_ID = "simulated"
FIRST_ID = 100
PORT = 7093
DATA = "/data"
RESTART_S = 0.7


@dataclass(slots=True)
class Machine:
    """One computer: its disk, and the voter that runs on it now, if any."""

    node_id: int
    name: str
    disk: SimulatedDisk
    #: The directory id of its present disk.
    directory_id: bytes = b""
    #: How many disks it had before.
    disks_lost: int = 0
    #: The files of its present disk as format wrote them.
    formatted: list[tuple[str, bytes]] = field(default_factory=list)
    process: Process | None = None
    server: QuorumServer | None = None
    runs: int = 0
    #: How many faults keep it down.
    holders: int = 0
    #: Faults that may make its voter stop itself; it is no violation then.
    excuses: Counter[str] = field(default_factory=Counter)
    #: Done when the present process is dead.
    death: asyncio.Future[None] | None = None

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return f"{self.name}:{PORT}"

    @property
    def is_up(self) -> bool:
        """Whether a process lives on it, paused or not."""
        return self.process is not None and self.process.is_alive

    def is_excused(self, reason: str) -> bool:
        """Return whether a fault of its disk may be the reason why its voter ended.

        A broken rule or invariant has no excuse. A slow disk excuses only a clean stop that took
        too long.
        """
        if "Violation" in reason or "AssertionError" in reason:
            return False
        slow = sum(self.excuses[kind] for kind in ("slow sync", "slow disk"))
        return self.excuses.total() > (0 if reason == STOPPED_LATE else slow)

    @property
    def raft(self) -> Raft | None:
        """The Raft machine of its voter, once there is one."""
        if self.server is None or not self.is_up or self.server._rooms is None:
            return None
        return getattr(self.server.raft.loop, "raft", None)

    @property
    def controller(self) -> Controller | None:
        """The controller of its voter; None until the voter has built its rooms."""
        if self.raft is None or self.server is None or self.server._rooms is None:
            return None
        return self.server._rooms.controller

    @property
    def is_leader(self) -> bool:
        """Whether its voter believes that it is the controller."""
        controller = self.controller
        return controller is not None and controller.is_active


class Quorum:
    """Machines and their network. The last `spares` of them are observers at first."""

    def __init__(
        self, loop: SimulatedLoop, size: int, settings: dict[str, Any], *, spares: int = 0
    ) -> None:
        self.loop = loop
        self.voters_at_first = size
        self.settings = settings
        #: While this is true clients make no calls.
        self.is_idle = False
        self.network = SimulatedNetwork(loop, self._chance())
        self.machines = [
            Machine(
                FIRST_ID + i,
                f"voter-{FIRST_ID + i}",
                SimulatedDisk(self._chance(), latency_max=0.002),
            )
            for i in range(size + spares)
        ]

    @property
    def names(self) -> list[str]:
        """The names of all machines."""
        return [machine.name for machine in self.machines]

    @property
    def leader(self) -> Machine | None:
        """The machine that decides in the newest epoch."""
        leaders = [m for m in self.machines if m.is_leader]
        return max(leaders, key=lambda m: m.raft.epoch if m.raft else -1, default=None)

    async def begin(self) -> None:
        """Format all disks, and start all voters."""
        voters = self.machines[: self.voters_at_first]
        disks = {machine.node_id: machine.disk for machine in voters}
        await format_voters(
            CLUSTER_ID,
            [(machine.node_id, machine.endpoint, DATA) for machine in voters],
            disk_of=lambda node_id: disks[node_id],
            chance=self._chance(),
        )
        for machine in voters:
            machine.directory_id = (await read_identity(machine.disk, DATA)).directory_id
            machine.formatted = _files(machine.disk)
        for machine in self.machines[self.voters_at_first :]:
            machine.directory_id = await self._format_new_voter(machine, machine.disk)
            machine.formatted = _files(machine.disk)
        for machine in self.machines:
            self._start(machine)

    async def replace_disk(self, machine: Machine) -> None:
        """Kill its voter and hold it down; replace its disk by one formatted for a new voter."""
        self.kill(machine)
        disk = self._new_disk()
        directory_id = await self._format_new_voter(machine, disk)
        self._put_in(machine, disk, directory_id)
        machine.formatted = _files(disk)

    async def empty_disk(self, machine: Machine) -> None:
        """As replace_disk, but the disk has the old directory id and the files of its format."""
        self.kill(machine)
        disk = self._new_disk()
        await make_durably(disk, metadata_directory(DATA))  # on a new voter's disk it has no file
        for path, content in machine.formatted:
            await disk.make_directory(path.rpartition("/")[0])
            await replace_whole(disk, path, content)
        self._put_in(machine, disk, machine.directory_id)

    def _new_disk(self) -> SimulatedDisk:
        return SimulatedDisk(self._chance(), latency_max=0.002)

    def _put_in(self, machine: Machine, disk: SimulatedDisk, directory_id: bytes) -> None:
        """Swap the disk at once: faults that came while it was prepared hit the old disk."""
        machine.disks_lost += 1
        machine.disk, machine.directory_id = disk, directory_id

    async def _format_new_voter(self, machine: Machine, disk: SimulatedDisk) -> bytes:
        directory_id = self._chance().randbytes(16)
        identity = Identity(CLUSTER_ID, machine.node_id, directory_id, 0)
        await format_new_voter(disk, DATA, identity)
        return directory_id

    # -- up and down

    def kill(self, machine: Machine) -> None:
        """Kill -9, and hold it down."""
        machine.holders += 1
        self._end(machine)
        machine.disk.crash_process()

    def cut_power(self, machine: Machine) -> None:
        """Cut its power, and hold it down."""
        machine.holders += 1
        self._end(machine)
        machine.disk.lose_power()

    async def stop(self, machine: Machine) -> None:
        """SIGTERM, and hold it down; killed if it is not gone in ten seconds."""
        machine.holders += 1
        process, server, death = machine.process, machine.server, machine.death
        if process is None or server is None or death is None or not process.is_alive:
            return
        process.spawn(server.stop(), name=f"stop {machine.name}")
        await asyncio.wait([death], timeout=10)
        if machine.process is process and process.is_alive:
            self._end(machine)
            machine.disk.crash_process()

    def let_go(self, machine: Machine) -> None:
        """Hold it down no longer."""
        machine.holders -= 1
        if not machine.holders and not machine.is_up:
            self._start(machine)

    def heal(self) -> None:
        """Undo every fault but damage on disk: all links, processes and disks work."""
        self.network.heal()
        calm = LinkQuality()
        self.network.set_links(delay_min_ms=calm.delay_min_ms, delay_max_ms=calm.delay_max_ms)
        self.network.set_links(loss=0.0)
        self.network.set_links(bytes_per_s=None)
        self.network.set_links(duplication=0.0)
        self.network.set_links(reordering=0.0)
        for machine in self.machines:
            machine.disk.mend()
            if machine.process is not None and machine.process.is_alive:
                machine.process.resume()
            machine.holders = 0
            if not machine.is_up:
                self._start(machine)

    def _end(self, machine: Machine) -> None:
        if machine.process is not None:
            machine.process.kill()
        machine.server = None

    def _start(self, machine: Machine) -> None:
        process = self.loop.process(machine.name)
        death: asyncio.Future[None] = self.loop.create_future()
        process.at_death(lambda: None if death.done() else death.set_result(None))
        machine.process, machine.death = process, death
        machine.runs += 1
        process.spawn(self._live(machine, process), name=f"{machine.name}, run {machine.runs}")

    async def _live(self, machine: Machine, process: Process) -> None:
        server = QuorumServer(
            QuorumConfig(
                node_id=machine.node_id,
                listeners=(machine.endpoint,),
                log_dirs=(DATA,),
                quorum_bootstrap_servers=tuple(one.endpoint for one in self.machines),
                allow_insecure_listeners=True,
                **self.settings,
            ),
            Environment(
                network=self.network.host(machine.name),
                disk=machine.disk,
                wall_clock_ms=process.wall_clock_ms,
                chance=self._chance(),
            ),
        )
        machine.server = server
        reason = ""
        try:
            await server.start()
            await server.stopped()
        except NodeFailed as error:
            if str(error) != STOPPED_EARLY:  # a clean stop may come before the start has ended
                reason = str(error)
        except (OSError, ConfigError, QuorateError) as error:
            reason = str(error) or repr(error)
        machine.server = None
        # The world runs the rest, outside of this process.
        self.loop.call_soon(self._ended, machine, process, reason, context=Context())

    def _ended(self, machine: Machine, process: Process, reason: str) -> None:
        if not process.is_alive:
            return
        process.kill()
        machine.disk.crash_process()
        if reason and not machine.is_excused(reason):
            raise Violation(f"{machine.name} stopped itself: {reason}")
        if not machine.holders:
            self.loop.call_later(RESTART_S, self._again, machine, context=Context())

    def _again(self, machine: Machine) -> None:
        if not machine.is_up and not machine.holders:
            self._start(machine)

    def _chance(self) -> random.Random:
        return random.Random(self.loop.chance.getrandbits(64))


def _files(disk: SimulatedDisk) -> list[tuple[str, bytes]]:
    return [(path, disk.content(path)) for path, _ in disk.files()]
