"""Brokers with several log directories, in a whole simulated cluster."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from quorate import Admin, Producer
from quorate_broker.server import BrokerServer
from quorate_testing.simulated.cluster import ClusterShape, SimulatedCluster, SimulatedNode
from quorate_testing.simulated.loop import SimulatedLoop, simulate

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(120)]

DIRECTORIES = ("/d1", "/d2")
MIB = 1 << 20
SEEDS = range(3)
Scene = Callable[[SimulatedCluster, Admin], Awaitable[None]]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  (any condition, not an event)
            await asyncio.sleep(0.05)


def is_serving(node: SimulatedNode) -> bool:
    return isinstance(node.server, BrokerServer) and not node.server.is_fenced


def run(scene: Scene, seed: int, *, brokers: int = 3) -> None:
    """Play a scene in a cluster whose brokers have two log directories."""

    async def program(loop: SimulatedLoop) -> None:
        cluster = SimulatedCluster(loop, ClusterShape(brokers=brokers, log_dirs=DIRECTORIES))
        await cluster.format()
        for node in cluster.brokers:
            node.disk.limit("/d1", 10 * MIB)
            node.disk.limit("/d2", 30 * MIB)
        cluster.start_all()
        await until(lambda: all(is_serving(node) for node in cluster.brokers))
        await asyncio.sleep(2)

        async def play() -> None:
            async with Admin(bootstrap_servers=cluster.bootstrap_servers) as admin:
                await scene(cluster, admin)

        await cluster.spawn_client(play)

    simulate(program, seed)


def directories_of(node: SimulatedNode) -> dict[str, str]:
    """Return the path of the log directory of each replica of a broker."""
    assert isinstance(node.server, BrokerServer)
    replicas = node.server.replicas
    return {one.name: replicas.directories[one.directory_id].path for one in replicas.all()}


async def write(cluster: SimulatedCluster, topic: str, partitions: int, size: int = 1000) -> None:
    """Write a record to each partition."""
    async with Producer(bootstrap_servers=cluster.bootstrap_servers) as producer:
        for partition in range(partitions):
            await producer.send_and_wait(topic, bytes(size), partition=partition)


@pytest.mark.parametrize("seed", SEEDS)
def test_new_replicas_go_where_the_most_space_is_and_a_restart_finds_them(seed: int) -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        await admin.create_topic("first", 1, 3)
        await until(lambda: all("first-0" in directories_of(one) for one in cluster.brokers))
        assert [directories_of(one)["first-0"] for one in cluster.brokers] == ["/d2"] * 3
        await admin.create_topic("t", 40, 3)
        await until(lambda: all(len(directories_of(one)) == 41 for one in cluster.brokers))
        placed = [directories_of(one) for one in cluster.brokers]
        for one in placed:
            assert 10 <= Counter(one.values())["/d1"] <= 12
        await write(cluster, "t", 40)
        for node in cluster.brokers:
            await cluster.stop(node.name)
            cluster.start(node.name)
            await until(lambda node=node: is_serving(node))  # type: ignore[misc]
        await until(lambda: [directories_of(one) for one in cluster.brokers] == placed)
        for node in cluster.brokers:
            assert not [name for d in DIRECTORIES for name in node.disk.names(d) if "stray" in name]

    run(scene, seed)
