"""A whole cluster in virtual time: the servers of production in a simulated world.

Each node is a machine: it has a disk, and runs one process (quorate_testing.simulated.loop) at a
time. The disk is kept when the process ends. A test causes faults at nodes, by name ("voter-100",
"broker-0"), in the network, or on disks.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from quorate.errors import QuorateError
from quorate.net.network import current_chance, current_network, current_wall_clock_ms
from quorate_broker.server import BrokerServer
from quorate_cli.node_disks import format_broker, format_voters
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.node.config import BrokerConfig, ConfigError, QuorumConfig
from quorate_quorum.node.environment import Environment
from quorate_quorum.node.server import NodeFailed
from quorate_quorum.server import QuorumServer
from quorate_testing.simulated.disk import SimulatedDisk
from quorate_testing.simulated.loop import Process, SimulatedLoop
from quorate_testing.simulated.network import SimulatedNetwork
from quorate_testing.simulated.sockets import Ports

T = TypeVar("T")

FIRST_VOTER_ID = 100
PORT = 7092
DATA = "/data"


@dataclass(slots=True)
class SimulatedNode:
    """One machine: its disk, and the process that runs on it now, or None."""

    name: str
    node_id: int
    is_voter: bool
    rack: str
    disk: SimulatedDisk
    process: Process | None = None
    server: QuorumServer | BrokerServer | None = None
    #: Whether the server of the process has started.
    has_started: bool = False
    #: The reason why the last process stopped itself; None if it did not stop itself.
    failure: str | None = None
    starts: int = 0
    #: Set when the last process has ended.
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def endpoint(self) -> str:
        """The address on which the node listens."""
        return f"{self.name}:{PORT}"

    @property
    def is_running(self) -> bool:
        """Whether the node has a living process. The process may be paused."""
        return self.process is not None and self.process.is_alive


@dataclass(slots=True)
class ClusterShape:
    """The size and settings of a simulated cluster."""

    voters: int = 3
    brokers: int = 3
    racks: tuple[str, ...] = ()
    #: The log directories of each broker.
    log_dirs: tuple[str, ...] = (DATA,)
    disk_latency_max_s: float = 0.001
    broker_settings: dict[str, Any] = field(default_factory=dict)
    voter_settings: dict[str, Any] = field(default_factory=dict)


class SimulatedCluster:
    """Voters and brokers in one simulated loop."""

    def __init__(self, loop: SimulatedLoop, shape: ClusterShape | None = None) -> None:
        self.loop = loop
        self.shape = shape or ClusterShape()
        self.network = SimulatedNetwork(loop, self._chance())
        #: The addresses of listeners whose protocol is not gRPC.
        self.ports = Ports(loop, self.network)
        self.cluster_id = "simulated"
        self.nodes: dict[str, SimulatedNode] = {}
        self._clients = 0
        for i in range(self.shape.voters):
            self._add(f"voter-{FIRST_VOTER_ID + i}", FIRST_VOTER_ID + i, is_voter=True, rack="")
        racks = self.shape.racks
        for i in range(self.shape.brokers):
            rack = racks[i * len(racks) // self.shape.brokers] if racks else ""
            self._add(f"broker-{i}", i, is_voter=False, rack=rack)

    @property
    def voters(self) -> list[SimulatedNode]:
        """The voters, by id."""
        return [node for node in self.nodes.values() if node.is_voter]

    @property
    def brokers(self) -> list[SimulatedNode]:
        """The brokers, by id."""
        return [node for node in self.nodes.values() if not node.is_voter]

    @property
    def bootstrap_servers(self) -> str:
        """The endpoints of all brokers, separated by commas."""
        return ",".join(node.endpoint for node in self.brokers)

    def controller(self) -> SimulatedNode | None:
        """Return the running voter that is the controller of the newest epoch; None: there is none.

        An old controller that is paused or cut off may still take itself for the controller.
        """
        found = [
            (server.raft.epoch, node)
            for node, server in self._started_voters()
            if server.is_controller
        ]
        return max(found, key=lambda one: one[0])[1] if found else None

    def image(self) -> MetadataImage | None:
        """Return the newest committed image of a running voter; None if no voter runs."""
        images = [server.image for _, server in self._started_voters()]
        return max(images, key=lambda image: image.offset, default=None)

    def _started_voters(self) -> list[tuple[SimulatedNode, QuorumServer]]:
        return [
            (node, node.server)
            for node in self.voters
            if isinstance(node.server, QuorumServer) and node.is_running and node.has_started
        ]

    async def format(self) -> None:
        """Format the disk of every node."""
        chance = self._chance()
        disks = {node.node_id: node.disk for node in self.nodes.values()}
        await format_voters(
            self.cluster_id,
            [(node.node_id, node.endpoint, DATA) for node in self.voters],
            disk_of=lambda node_id: disks[node_id],
            chance=chance,
        )
        for node in self.brokers:
            await format_broker(
                self.cluster_id, node.node_id, self.shape.log_dirs, disk=node.disk, chance=chance
            )

    # -- starts, stops and faults of nodes -------------------------------------------------------

    def start(self, name: str) -> None:
        """Start a process on a node that has none."""
        node = self.nodes[name]
        assert not node.is_running, f"{name} runs already"
        process = self.loop.process(name)
        node.process = process
        node.failure = None
        node.has_started = False
        node.starts += 1
        node.gone = asyncio.Event()
        process.spawn(self._live(node, process), name=name)

    def start_all(self) -> None:
        """Start every node that does not run."""
        for name, node in self.nodes.items():
            if not node.is_running:
                self.start(name)

    def kill(self, name: str) -> None:
        """Kill the process, as by kill -9.

        Completed writes survive; a write under way may be torn.
        """
        node = self.nodes[name]
        self._end(node, node.disk.crash_process)

    def lose_power(self, name: str) -> None:
        """Cut the machine's power. Any part of the writes that were not synced may be lost."""
        node = self.nodes[name]
        self._end(node, node.disk.lose_power)

    def _end(self, node: SimulatedNode, crash: Callable[[], None]) -> None:
        node.server = None
        if node.process is not None:
            node.process.kill()
        crash()
        node.gone.set()

    def pause(self, name: str) -> None:
        """Pause the process, as by SIGSTOP."""
        process = self.nodes[name].process
        if process is not None:
            process.pause()

    def resume(self, name: str) -> None:
        """Resume the process, as by SIGCONT."""
        process = self.nodes[name].process
        if process is not None:
            process.resume()

    async def stop(self, name: str) -> None:
        """Stop the server, as by SIGTERM, and wait until its process has ended."""
        node = self.nodes[name]
        if node.process is None or not node.process.is_alive or node.server is None:
            return
        node.process.spawn(node.server.stop(), name=f"stop {name}")
        await node.gone.wait()

    def spawn_client(
        self, main: Callable[[], Coroutine[Any, Any, T]], name: str = ""
    ) -> asyncio.Task[T]:
        """Run a coroutine in a process of its own, as a program with the client library.

        Returns the task of the coroutine.
        """
        self._clients += 1
        process = self.loop.process(name or f"client-{self._clients}")
        network = self.network.host(process.name)
        chance = self._chance()

        async def run() -> T:
            current_network.set(network)
            current_chance.set(chance)
            current_wall_clock_ms.set(process.wall_clock_ms)
            return await main()

        return process.spawn(run(), name=process.name)

    # -- internals -------------------------------------------------------------------------------

    def _chance(self) -> random.Random:
        return random.Random(self.loop.chance.getrandbits(64))

    def _add(self, name: str, node_id: int, *, is_voter: bool, rack: str) -> None:
        disk = SimulatedDisk(self._chance(), latency_max=self.shape.disk_latency_max_s)
        self.nodes[name] = SimulatedNode(name, node_id, is_voter, rack, disk)

    async def _live(self, node: SimulatedNode, process: Process) -> None:
        environment = Environment(
            network=self.network.host(node.name),
            disk=node.disk,
            wall_clock_ms=process.wall_clock_ms,
            chance=self._chance(),
            sockets=self.ports.of(process),
        )
        server = self._server(node, environment)
        node.server = server
        try:
            await server.start()
            node.has_started = True
            await server.stopped()
        except NodeFailed as error:
            node.failure = error.reason
        except (OSError, ConfigError, QuorateError) as error:
            node.failure = str(error) or repr(error)
        finally:
            if node.server is server:
                self._end(node, node.disk.crash_process)

    def voter_config(self, node: SimulatedNode) -> QuorumConfig:
        """Return the configuration of a voter."""
        return QuorumConfig(**self._settings(node), **self.shape.voter_settings)

    def _settings(self, node: SimulatedNode) -> dict[str, Any]:
        return {
            "node_id": node.node_id,
            "listeners": (node.endpoint,),
            "log_dirs": (DATA,),
            "quorum_bootstrap_servers": tuple(voter.endpoint for voter in self.voters),
            "allow_insecure_listeners": True,
        }

    def _server(self, node: SimulatedNode, environment: Environment) -> QuorumServer | BrokerServer:
        if node.is_voter:
            return QuorumServer(self.voter_config(node), environment)
        settings = {
            **self._settings(node),
            "log_dirs": self.shape.log_dirs,
            **self.shape.broker_settings,
        }
        return BrokerServer(BrokerConfig(broker_rack=node.rack, **settings), environment)
