"""One real voter and one real broker, used by the client library, in virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from quorate import Admin, Consumer, Producer
from quorate.net.network import current_chance, current_network, current_wall_clock_ms
from quorate_broker.server import BrokerServer
from quorate_quorum.log.identity import Identity, write_identity
from quorate_quorum.node.config import BrokerConfig, ConfigError, QuorumConfig
from quorate_quorum.node.environment import Environment
from quorate_quorum.node.server import NodeFailed
from quorate_quorum.raft.driver.bootstrap import format_voter
from quorate_quorum.raft.machine.voters import Voter
from quorate_quorum.server import QuorumServer
from quorate_testing.in_process import InProcessNetwork
from quorate_testing.simulated.disk import SimulatedDisk
from quorate_testing.simulated.loop import SimulatedLoop, simulate

VOTER, BROKER = "v100:7093", "b0:7092"


class World:
    """A cluster of two nodes, and a client's place in it."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self.loop = loop
        self.network = InProcessNetwork()
        self.disks = {100: SimulatedDisk(random.Random(1)), 0: SimulatedDisk(random.Random(2))}
        self.runs = 0
        current_network.set(self.network)
        current_chance.set(random.Random(5))
        current_wall_clock_ms.set(self.wall_clock_ms)

    def wall_clock_ms(self) -> int:
        return 1_700_000_000_000 + int(self.loop.time() * 1000)

    def environment(self, node_id: int) -> Environment:
        self.runs += 1
        return Environment(
            network=self.network,
            disk=self.disks[node_id],
            wall_clock_ms=self.wall_clock_ms,
            chance=random.Random(self.runs),
        )

    async def format(self) -> None:
        directory_id = b"v" * 16
        await format_voter(
            self.disks[100],
            "/data",
            Identity("c1", 100, directory_id, 1),
            [Voter(100, directory_id, VOTER)],
            {},
        )
        await write_identity(self.disks[0], "/data", Identity("c1", 0, b"b" * 16, 0))
        await self.disks[0].sync_directory("/")

    async def start(self) -> None:
        self.voter = QuorumServer(
            QuorumConfig(node_id=100, listeners=(VOTER,), log_dirs=("/data",)),
            self.environment(100),
        )
        self.broker = BrokerServer(
            BrokerConfig(
                node_id=0,
                listeners=(BROKER,),
                log_dirs=("/data",),
                quorum_bootstrap_servers=(VOTER,),
            ),
            self.environment(0),
        )
        await self.voter.start()
        await self.broker.start()
        await self.broker.unfenced()

    async def stop(self) -> None:
        await self.broker.stop()
        await self.voter.stop()
        await self.broker.stopped()
        await self.voter.stopped()


def in_a_world(program: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    async def run(loop: SimulatedLoop) -> None:
        world = World(loop)
        await world.format()
        await world.start()
        await program(world)
        await world.stop()
        await world.network.close()

    simulate(run, seed=1, time_max_s=600)


async def read(count: int) -> list[bytes | None]:
    found: list[bytes | None] = []
    async with Consumer("t", bootstrap_servers=BROKER, auto_offset_reset="earliest") as consumer:
        async for record in consumer:
            found.append(record.value)
            if len(found) == count:
                break
    return found


def test_create_produce_and_consume() -> None:
    async def program(world: World) -> None:
        async with Admin(bootstrap_servers=BROKER) as admin:
            await admin.create_topic("t", num_partitions=3, replication_factor=1)
            described = await admin.describe_cluster()
            assert (described.cluster_id, described.controller) == ("c1", 100)
        async with Producer(bootstrap_servers=BROKER) as producer:
            sent = [await producer.send("t", b"%d" % number) for number in range(1000)]
            await producer.flush()
            assert {(await one).offset >= 0 for one in sent} == {True}
        assert sorted(await read(1000), key=lambda value: int(value or b"")) == [
            b"%d" % number for number in range(1000)
        ]

    in_a_world(program)


@pytest.mark.parametrize("stops_between", [False, True])
def test_the_cluster_comes_back_after_a_clean_stop_and_after_a_power_cut(
    stops_between: bool,
) -> None:
    """Synced files are lost if the name of their directory is not synced (rule names-last)."""

    async def program(world: World) -> None:
        async with Admin(bootstrap_servers=BROKER) as admin:
            await admin.create_topic(
                "t", num_partitions=1, replication_factor=1, configs={"flush.on.ack": "true"}
            )
        async with Producer(bootstrap_servers=BROKER) as producer:
            await producer.send_and_wait("t", b"first")
        if stops_between:
            await world.stop()
            await world.start()
        async with Producer(bootstrap_servers=BROKER) as producer:
            await producer.send_and_wait("t", b"second")

        world.broker.fail("power cut")
        world.voter.fail("power cut")
        for disk in world.disks.values():
            disk.lose_power()
        for server in (world.broker, world.voter):
            with pytest.raises(NodeFailed):
                await server.stopped()
        await world.start()
        assert await read(2) == [b"first", b"second"]

    in_a_world(program)


def test_a_broker_with_the_id_of_a_voter_stops_and_says_what_to_do() -> None:
    async def program(world: World) -> None:
        world.disks[-1] = SimulatedDisk(random.Random(3))
        await write_identity(world.disks[-1], "/data", Identity("c1", 100, b"x" * 16, 0))
        config = BrokerConfig(
            node_id=100,
            listeners=("b100:7092",),
            log_dirs=("/data",),
            quorum_bootstrap_servers=(VOTER,),
        )
        twin = BrokerServer(config, world.environment(-1))
        with pytest.raises(ConfigError, match=r"node\.id 100 is the id of the voter at v100:7093"):
            await twin.start()

    in_a_world(program)
