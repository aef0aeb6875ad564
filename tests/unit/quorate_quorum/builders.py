"""Voters as in production, in a simulated world, and brokers that only follow them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

from quorate.errors import (
    QuorateError,
    raise_if_error,
)
from quorate.net.methods import CREATE_TOPICS
from quorate.net.principal import ANONYMOUS
from quorate.v1 import admin_pb2 as admin
from quorate_quorum.log.identity import Identity
from quorate_quorum.node.config import QuorumConfig
from quorate_quorum.node.environment import Environment
from quorate_quorum.raft.driver.bootstrap import format_voter
from quorate_quorum.raft.machine.voters import Voter
from quorate_quorum.server import QuorumServer
from quorate_testing.simulated.disk import SimulatedDisk
from quorate_testing.simulated.loop import Process, SimulatedLoop, simulate
from quorate_testing.simulated.network import SimulatedNetwork
from tests.harness.fake_broker import FakeBroker

CLUSTER = "c1"
DATA = "/data"


class Machine:
    """One voter's disk, and the process that runs on it now."""

    def __init__(self, world: VoterWorld, node_id: int) -> None:
        self.world = world
        self.node_id = node_id
        self.name = f"voter-{node_id}"
        self.endpoint = f"{self.name}:7093"
        self.directory_id = bytes([node_id]) * 16
        self.disk = SimulatedDisk(random.Random(node_id), latency_max=0.001)
        self.process: Process
        self.server: QuorumServer

    def config(self, **settings: Any) -> QuorumConfig:
        return QuorumConfig(
            node_id=self.node_id,
            listeners=(self.endpoint,),
            log_dirs=(DATA,),
            allow_insecure_listeners=True,
            **settings,
        )

    async def start(self, **settings: Any) -> QuorumServer:
        self.process = self.world.loop.process(self.name)
        environment = Environment(
            network=self.world.network.host(self.name),
            disk=self.disk,
            wall_clock_ms=self.process.wall_clock_ms,
            chance=random.Random(self.node_id),
        )
        self.server = QuorumServer(self.config(**settings), environment)
        await self.run(self.server.start())
        return self.server

    async def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return await self.process.spawn(work)

    def kill(self) -> None:
        self.process.kill()
        self.disk.crash_process()


class VoterWorld:
    def __init__(self, loop: SimulatedLoop) -> None:
        self.loop = loop
        self.network = SimulatedNetwork(loop, random.Random(5))
        self.voters: list[Machine] = []
        self.brokers: list[FakeBroker] = []

    async def format(self, count: int) -> VoterWorld:
        self.voters = [Machine(self, 100 + n) for n in range(count)]
        members = [Voter(m.node_id, m.directory_id, m.endpoint) for m in self.voters]
        for machine in self.voters:
            identity = Identity(CLUSTER, machine.node_id, machine.directory_id, 1)
            await format_voter(machine.disk, DATA, identity, members, {})
        return self

    async def start(self) -> VoterWorld:
        for machine in self.voters:
            await machine.start()
        return self

    async def controller(self, *among: Machine) -> Machine:
        found: list[Machine] = []

        def look() -> bool:
            found[:] = [m for m in among or self.voters if m.server.is_controller]
            return bool(found)

        await self.until(look)
        return found[0]

    async def until(self, holds: Callable[[], bool], seconds: float = 20) -> float:
        started = self.loop.time()
        while not holds():
            assert self.loop.time() < started + seconds, "it never came to hold"
            await asyncio.sleep(0.01)
        return self.loop.time() - started

    async def broker(self, node_id: int, *, tells_levels: bool = True) -> FakeBroker:
        process = self.loop.process(f"b{node_id}")
        environment = Environment(
            network=self.network.host(process.name),
            disk=None,  # type: ignore[arg-type]
            chance=random.Random(node_id),
        )
        broker = await process.spawn(self._made(environment, node_id, tells_levels))
        self.brokers.append(broker)
        await process.spawn(broker.start())
        await self.until(lambda: broker.is_unfenced)
        return broker

    async def _made(self, environment: Environment, node_id: int, tells_levels: bool) -> FakeBroker:
        endpoints = [machine.endpoint for machine in self.voters]
        return FakeBroker(
            environment,
            endpoints,
            cluster_id=CLUSTER,
            node_id=node_id,
            tells_levels=tells_levels,
        )

    async def create(self, broker: FakeBroker, name: str) -> None:
        """Create a topic through a broker, as an administrator does: look, then ask again."""
        request = admin.CreateTopicsRequest()
        request.topics.add(
            name=name,
            topic_id=name.encode().ljust(16, b"\0"),
            num_partitions=3,
            replication_factor=-1,
        )
        process = self.loop.process(f"b{broker.node_id}")
        for _ in range(20):
            try:
                answer: admin.CreateTopicsResponse = await process.spawn(
                    broker.client.forward(
                        CREATE_TOPICS, request, principal=ANONYMOUS, timeout_ms=5000
                    )
                )
                raise_if_error(answer.topics[0].error)
            except QuorateError:
                await asyncio.sleep(0.1)
            else:
                return
        raise AssertionError(f"topic {name} was not created")


Program = Callable[[VoterWorld], Coroutine[Any, Any, None]]


def in_a_world(program: Program, *, voters: int = 3, seed: int = 1) -> None:
    async def run(loop: SimulatedLoop) -> None:
        world = await VoterWorld(loop).format(voters)
        await program(world)
        for broker in world.brokers:
            assert broker.failures == []

    simulate(run, seed=seed, time_max_s=300)
