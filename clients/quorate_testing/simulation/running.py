"""A simulated cluster that runs: its nodes, its programs, and what a test does with them."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from quorate import Admin
from quorate.errors import InvalidRequestError
from quorate.net.network import current_chance, current_network, current_wall_clock_ms
from quorate.settings import refused
from quorate_broker.server import BrokerServer
from quorate_quorum.metadata.partitions import PartitionImage
from quorate_testing.simulated.cluster import (
    ClusterShape,
    SimulatedNode,
)
from quorate_testing.simulated.cluster import (
    SimulatedCluster as Nodes,
)
from quorate_testing.simulated.not_simulated import SimulationError
from quorate_testing.simulation.clock import ClusterClock
from quorate_testing.simulation.faults import ClusterFaults
from quorate_testing.simulation.hosts import OPERATOR, TEST, Hosts
from quorate_testing.simulation.network import ClusterNetwork
from quorate_testing.simulation.world import World

T = TypeVar("T")

#: The longest virtual time of a start.
START_S: Final = 60.0
#: The virtual time between two looks at a broker that starts.
LOOK_S: Final = 0.01


class RunningCluster:
    """What a SimulatedCluster consists of while it runs."""

    def __init__(self, world: World, shape: ClusterShape) -> None:
        self.world = world
        self.nodes: Nodes = world.do(lambda: Nodes(world.loop, shape))
        self.hosts = Hosts(self.nodes)
        self.clock = ClusterClock(world)
        self.network = ClusterNetwork(world, self.nodes, self.hosts)
        self.faults = ClusterFaults(world, self.nodes, self.hosts)
        #: The last task of each program, by name.
        self.tasks: dict[str, asyncio.Task[Any]] = {}

    def spawn(self, main: Callable[[], Coroutine[Any, Any, T]], name: str) -> asyncio.Task[T]:
        """Start a program of this name. See SimulatedCluster.spawn()."""
        if name in (TEST, OPERATOR) or name in self.nodes.nodes:
            allowed = "a name that no node has, and not the test's own"
            raise ValueError(refused("SimulatedCluster.spawn", "name", allowed, name))
        if (last := self.hosts.process(name)) is not None:
            if not self.tasks[name].done():
                raise InvalidRequestError(
                    f"a program {name!r} runs already: choose another name, or kill it first"
                )
            self.world.do(last.kill)
        task: asyncio.Task[T] = self.world.do(lambda: self.nodes.spawn_client(main, name))
        self.hosts.programs[name] = self.nodes.loop.process(name)
        self.tasks[name] = task
        return task

    async def as_operator(self, work: Callable[[Admin], Awaitable[object]]) -> None:
        """Do something with an Admin that no fault of the network cuts off."""

        async def connected() -> None:
            async with Admin(bootstrap_servers=self.nodes.bootstrap_servers) as admin:
                await work(admin)

        await self.nodes.spawn_client(connected, OPERATOR)

    def broker(self, call: str, broker_id: object) -> SimulatedNode:
        """Return the broker with this id. Raises TypeError or ValueError."""
        call = f"SimulatedCluster.{call}"
        node = self.hosts.node(call, "broker_id", broker_id)
        if node.is_voter:
            ids = ", ".join(str(one.node_id) for one in self.nodes.brokers)
            allowed = f"the id of a broker ({ids}); for voters there is cluster.faults"
            raise ValueError(refused(call, "broker_id", allowed, broker_id))
        return node

    def partition(self, topic: str, partition: int) -> PartitionImage | None:
        """Return a partition as the voters know it; None if they do not know it."""
        image = self.nodes.image()
        found = None if image is None else image.topic_named(topic)
        if found is None or partition >= len(found.partitions):
            return None
        return found.partitions[partition]

    async def all_may_lead(self, brokers: Sequence[SimulatedNode]) -> None:
        """Wait until brokers are unfenced. Raises SimulationError if one does not get there."""
        until_s = self.clock.now + START_S
        while waiting := [node for node in brokers if not _may_lead(node)]:
            for node in waiting:
                if node.failure is not None:
                    raise SimulationError(f"{node.name} stopped itself: {node.failure}")
            if self.clock.now > until_s:
                names = ", ".join(node.name for node in waiting)
                controller = self.nodes.controller()
                running = [node.name for node in self.nodes.nodes.values() if node.is_running]
                raise SimulationError(
                    f"{names}: not unfenced after {START_S:g} virtual seconds; the controller is"
                    f" {controller and controller.name}; these run: {', '.join(running)}"
                )
            await asyncio.sleep(LOOK_S)

    @contextlib.contextmanager
    def as_test(self) -> Iterator[None]:
        """Let the clients that the running task makes be those of this cluster."""
        loop = self.world.loop
        network = current_network.set(self.nodes.network.host(TEST))
        chance = current_chance.set(random.Random(loop.chance.getrandbits(64)))
        wall_clock_ms = current_wall_clock_ms.set(loop.process(TEST).wall_clock_ms)
        try:
            yield
        finally:
            current_network.reset(network)
            current_chance.reset(chance)
            current_wall_clock_ms.reset(wall_clock_ms)

    def end(self) -> None:
        """Kill every node and program. The loop goes on."""
        for name in self.nodes.nodes:
            self.world.do(partial(self.nodes.kill, name))
        for process in self.hosts.programs.values():
            self.world.do(process.kill)


def _may_lead(node: SimulatedNode) -> bool:
    return isinstance(node.server, BrokerServer) and not node.server.is_fenced
