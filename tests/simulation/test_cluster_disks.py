"""Brokers with several log directories, in a whole simulated cluster."""

from __future__ import annotations

import asyncio
import errno
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from quorate import Admin, Consumer, Producer, TopicPartition
from quorate.errors import DeliveryTimeoutError, QuorateError, StorageError
from quorate_broker.server import BrokerServer
from quorate_cli.node_disks import format_broker
from quorate_quorum.metadata.partitions import NO_LEADER, PartitionImage
from quorate_testing.simulated.cluster import ClusterShape, SimulatedCluster, SimulatedNode
from quorate_testing.simulated.loop import SimulatedLoop, simulate
from tests.harness.amounts import few_or_many

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(120)]

DIRECTORIES = ("/d1", "/d2")
MIB = 1 << 20
SEEDS = range(few_or_many(1, 3))
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


def broker_of(node: SimulatedNode) -> BrokerServer:
    assert isinstance(node.server, BrokerServer)
    return node.server


def directories_of(node: SimulatedNode) -> dict[str, str]:
    """Return the path of the log directory of each replica of a broker."""
    replicas = broker_of(node).replicas
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


def break_directory(node: SimulatedNode, directory: str) -> None:
    """Let every operation on the files of a directory fail with EIO."""

    def hook(name: str, path: str) -> None:
        if path.startswith(directory):
            raise OSError(errno.EIO, "simulated: input/output error", path)

    node.disk.hook = hook


@pytest.mark.parametrize("seed", SEEDS)
def test_a_failed_directory_takes_only_its_own_replicas_offline(seed: int) -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        node = cluster.brokers[0]
        await admin.create_topic("t", 24, 3)
        await write(cluster, "t", 24)
        placed = directories_of(node)
        gone = {int(name[2:]) for name, path in placed.items() if path == "/d2"}
        break_directory(node, "/d2")
        await write(cluster, "t", 24)
        topic = (await admin.describe_topics(["t"]))["t"]
        while set().union(*(one.offline for one in topic.partitions)) != {0}:
            await asyncio.sleep(0.1)
            topic = (await admin.describe_topics(["t"]))["t"]
        assert {one.partition for one in topic.partitions if one.offline == (0,)} == gone
        for one in topic.partitions:
            assert (one.leader != 0) or (one.partition not in gone)
            assert set(one.isr) == ({1, 2} if one.partition in gone else {0, 1, 2})
        assert any(one.leader == 0 for one in topic.partitions), "the other directory works on"
        (broker,) = [one for one in (await admin.describe_cluster()).brokers if one.id == 0]
        assert (broker.fenced, broker.failed_log_dirs, broker.log_dirs) == (False, 1, 2)
        (trouble,) = (await admin.describe_health()).nodes
        assert trouble.state == "failed_directory"
        told = {one.path: one for one in await admin.describe_log_dirs() if one.broker_id == 0}
        assert "Errno 5" in told["/d2"].failure
        assert (told["/d1"].failure, told["/d2"].free_bytes) == ("", -1)
        await admin.create_topic("new", 5, 3)
        await until(lambda: len([n for n in directories_of(node) if n.startswith("new-")]) == 5)
        assert {p for n, p in directories_of(node).items() if n.startswith("new-")} == {"/d1"}
        node.disk.hook = None
        await cluster.stop(node.name)
        cluster.start(node.name)
        await until(lambda: is_serving(node))
        while any(one.offline or len(one.isr) < 3 for one in topic.partitions):
            await asyncio.sleep(0.1)
            topic = (await admin.describe_topics(["t"]))["t"]
        assert {n: directories_of(node)[n] for n in placed} == placed
        assert await values(cluster, "t") == [bytes(1000)] * 2

    run(scene, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_last_directory_stops_the_broker(seed: int) -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        node = cluster.brokers[0]
        await admin.create_topic("t", 24, 3)
        break_directory(node, "/d2")
        await write(cluster, "t", 24)
        assert node.is_running
        break_directory(node, "/d")
        await write(cluster, "t", 24)
        await until(lambda: not node.is_running)
        assert "the last log directory failed: /d1" in (node.failure or "")
        assert len(await values(cluster, "t")) == 2

    run(scene, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_directory_that_was_unmounted_is_given_up_although_nothing_fails(seed: int) -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        node = cluster.brokers[0]
        await admin.create_topic("t", 24, 3)
        await until(lambda: len(directories_of(node)) == 24)
        gone = {int(name[2:]) for name, path in directories_of(node).items() if path == "/d2"}
        node.disk.lose_directory("/d2")
        await node.disk.make_directory("/d2")
        await until(lambda: broker_of(node).replicas.failed_directories != {})
        await write(cluster, "t", 24)
        topic = (await admin.describe_topics(["t"]))["t"]
        assert {one.partition for one in topic.partitions if one.offline == (0,)} == gone
        assert node.disk.names("/d2") == (), "nothing is written below the mount point"

    run(scene, seed)


async def fill(cluster: SimulatedCluster, topic: str) -> tuple[int, QuorateError]:
    """Write records until a write fails. Return the number of acknowledged ones, and the error."""
    servers = cluster.bootstrap_servers
    async with Producer(bootstrap_servers=servers, delivery_timeout_ms=5000) as producer:
        for number in range(1000):
            try:
                await producer.send_and_wait(topic, bytes(50_000), partition=0)
            except QuorateError as error:
                return number, error
    raise AssertionError("the disk was never full")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_full_disk_refuses_records_serves_others_is_freed_and_heals(seed: int) -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        (node,) = cluster.brokers
        for directory in DIRECTORIES:
            node.disk.limit(directory, 3 * MIB)
        await admin.create_topic("t", 1, 1, {"segment.bytes": str(MIB)})
        acked, error = await fill(cluster, "t")
        assert acked > 40
        assert isinstance(error, DeliveryTimeoutError)
        assert isinstance(error.__cause__, StorageError)
        assert "the disk is full" in str(error)
        assert len(await values(cluster, "t")) == acked, "reading goes on"
        cluster.kill(node.name)
        cluster.start(node.name)
        await until(lambda: is_serving(node))
        assert len(await values(cluster, "t")) == acked, "a restart on the full disk"
        partition = TopicPartition("t", 0)
        assert await admin.delete_records({partition: acked // 2}) == {partition: acked // 2}
        await write(cluster, "t", 1)
        await fill(cluster, "t")
        await admin.alter_configs("t", set={"retention.bytes": str(MIB)})
        await write(cluster, "t", 1)
        await admin.alter_configs("t", remove=["retention.bytes"])
        await fill(cluster, "t")
        for directory in DIRECTORIES:
            node.disk.limit(directory, None)
        await write(cluster, "t", 1)
        assert (node.failure, broker_of(node).replicas.failed_directories) == (None, {})

    run(scene, seed, brokers=1)


async def whole(admin: Admin, topic: str) -> None:
    """Wait until all replicas of a topic are in sync."""
    while True:
        found = (await admin.describe_topics([topic]))[topic]
        if all(len(one.isr) == len(one.replicas) for one in found.partitions):
            return
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_directory_can_be_added_and_one_be_taken_out(seed: int) -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        node = cluster.brokers[0]
        await admin.create_topic("t", 12, 3)
        await write(cluster, "t", 12)
        before = directories_of(node)
        assert set(before.values()) == {"/d1", "/d2"}
        await cluster.stop(node.name)
        await format_broker(cluster.cluster_id, node.node_id, ["/d1", "/d2", "/d3"], disk=node.disk)
        cluster.shape.log_dirs = ("/d1", "/d2", "/d3")
        cluster.start(node.name)
        await until(lambda: is_serving(node))
        await asyncio.sleep(2)
        assert directories_of(node) == before
        await admin.create_topic("new", 1, 3)
        await until(lambda: directories_of(node).get("new-0") == "/d3")
        node.disk.limit("/d3", 20 * MIB)
        await asyncio.sleep(3)
        await cluster.stop(node.name)
        cluster.shape.log_dirs = ("/d1", "/d3")
        cluster.start(node.name)
        await until(lambda: is_serving(node))
        await whole(admin, "t")
        after = directories_of(node)
        assert {name: after[name] for name, path in before.items() if path == "/d1"} == {
            name: path for name, path in before.items() if path == "/d1"
        }
        assert {after[name] for name, path in before.items() if path == "/d2"} == {"/d1", "/d3"}
        assert await values(cluster, "t") == [bytes(1000)]

    run(scene, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_replicas_on_a_directory_that_comes_back_do_not_displace_newer_ones(seed: int) -> None:
    """The replica in its place has more than the copy on the disk that was away."""

    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        node = cluster.brokers[0]
        await admin.create_topic("t", 12, 3)
        await write(cluster, "t", 12)
        away = {name for name, path in directories_of(node).items() if path == "/d2"}
        for directories in (("/d1",), DIRECTORIES):
            await cluster.stop(node.name)
            cluster.shape.log_dirs = directories
            cluster.start(node.name)
            await until(lambda: is_serving(node))
            await whole(admin, "t")
            assert set(directories_of(node).values()) == {"/d1"}
            await write(cluster, "t", 12)
        found = {name.partition(".")[0] for name in node.disk.names("/d2") if ".stray" in name}
        assert found == away, "they are set aside"
        assert not away & set(node.disk.names("/d2"))
        await asyncio.sleep(130)
        assert not [name for name in node.disk.names("/d2") if ".stray" in name]
        for other in cluster.brokers[1:]:
            await cluster.stop(other.name)
        assert await values(cluster, "t") == [bytes(1000)] * 3

    run(scene, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_only_replica_waits_for_its_directory_and_is_not_made_anew(seed: int) -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        (node,) = cluster.brokers
        await admin.create_topic("t", 8, 1)
        await write(cluster, "t", 8)
        before = directories_of(node)
        away = {int(name[2:]) for name, path in before.items() if path == "/d2"}
        assert away
        await cluster.stop(node.name)
        cluster.shape.log_dirs = ("/d1",)
        cluster.start(node.name)
        await until(lambda: is_serving(node))
        await asyncio.sleep(100)
        topic = (await admin.describe_topics(["t"]))["t"]
        assert {one.partition for one in topic.partitions if one.leader == NO_LEADER} == away
        assert set(directories_of(node).values()) == {"/d1"}
        await cluster.stop(node.name)
        cluster.shape.log_dirs = DIRECTORIES
        cluster.start(node.name)
        await until(lambda: is_serving(node))
        await whole(admin, "t")
        assert directories_of(node) == before
        await write(cluster, "t", 8)
        ends = [one.log_end_offset for one in broker_of(node).replicas.all()]
        assert ends == [2] * 8

    run(scene, seed, brokers=1)
