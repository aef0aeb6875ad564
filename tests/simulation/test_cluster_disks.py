"""Brokers with several log directories, in a whole simulated cluster."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from quorate import Admin, Consumer, Producer, TopicPartition
from quorate_broker.server import BrokerServer
from quorate_quorum.metadata.partitions import NO_LEADER, PartitionImage
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


def state_of(cluster: SimulatedCluster, topic: str) -> PartitionImage | None:
    """Return the state of partition 0, as the first serving broker knows it."""
    for node in cluster.brokers:
        if isinstance(node.server, BrokerServer) and is_serving(node):
            image = node.server.replicas.image
            found = image.topic_named(topic)
            return None if found is None else found.partitions[0]
    return None


def is_leaderless(cluster: SimulatedCluster, topic: str) -> bool:
    state = state_of(cluster, topic)
    return state is not None and state.leader == NO_LEADER


async def copy(node: SimulatedNode, source: str, target: str) -> None:
    """Copy a directory of files, as an operator could."""
    await node.disk.make_directory(target)
    for name in node.disk.names(source):
        file = await node.disk.open(f"{target}/{name}", create=True)
        await file.append((node.disk.content(f"{source}/{name}"),))
        await file.close()


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


async def values(cluster: SimulatedCluster, topic: str) -> list[bytes]:
    """Return the values of partition 0."""
    found: list[bytes] = []
    servers = cluster.bootstrap_servers
    async with Consumer(bootstrap_servers=servers, auto_offset_reset="earliest") as consumer:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        end = (await consumer.end_offsets([partition]))[partition]
        while await consumer.position(partition) < end:
            found.append((await consumer.getone()).value or b"")
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_the_only_replica_whose_directory_was_moved_by_hand_is_not_lost(seed: int) -> None:
    """The empty one in its place would lead, and the copy would be removed as a stray."""

    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        (node,) = cluster.brokers
        await admin.create_topic("t", 1, 1)
        await write(cluster, "t", 1)
        assert directories_of(node)["t-0"] == "/d2"
        await cluster.stop(node.name)
        await node.disk.rename("/d2/t-0", "/d1/t-0")
        cluster.start(node.name)
        await until(lambda: is_leaderless(cluster, "t"))
        await asyncio.sleep(130)
        assert is_leaderless(cluster, "t")
        (moved,) = [name for name in node.disk.names("/d1") if name.startswith("t-0.")]
        await cluster.stop(node.name)
        await node.disk.rename(f"/d1/{moved}", "/d2/t-0")
        cluster.start(node.name)
        await until(lambda: is_serving(node) and not is_leaderless(cluster, "t"))
        assert await values(cluster, "t") == [bytes(1000)]

    run(scene, seed, brokers=1)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("is_moved", [True, False])
def test_a_copy_in_another_directory_is_removed_once_the_replica_is_in_sync(
    seed: int, *, is_moved: bool
) -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        await admin.create_topic("t", 1, 3)
        await write(cluster, "t", 1)
        node = cluster.brokers[1]
        await until(lambda: directories_of(node) == {"t-0": "/d2"})
        await cluster.stop(node.name)
        if is_moved:
            await node.disk.rename("/d2/t-0", "/d1/t-0")
        else:
            await copy(node, "/d2/t-0", "/d1/t-0")
        cluster.start(node.name)
        await until(lambda: is_serving(node))
        await until(lambda: not [name for name in node.disk.names("/d1") if name.startswith("t-0")])
        assert directories_of(node) == {"t-0": "/d2"}
        state = state_of(cluster, "t")
        assert state is not None
        assert set(state.isr) == {0, 1, 2}
        assert await values(cluster, "t") == [bytes(1000)]

    run(scene, seed)
