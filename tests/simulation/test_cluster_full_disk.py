"""A broker whose disk is full, or whose process has too much open, in a whole simulated cluster:
it starts, cuts its log, stops cleanly, and serves again as soon as there is room.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable

import pytest

from quorate import Admin, Producer
from quorate.record.batch import BatchBuilder
from quorate_broker.server import BrokerServer
from quorate_quorum.log.run_file import read_run
from quorate_testing.simulated.cluster import ClusterShape, SimulatedCluster, SimulatedNode
from quorate_testing.simulated.loop import SimulatedLoop, simulate
from tests.harness.amounts import few_or_many

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(120)]

SEEDS = range(few_or_many(1, 3))
RECORDS = 20
Scene = Callable[[SimulatedCluster], Awaitable[None]]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  (any condition, not an event)
            await asyncio.sleep(0.05)


def is_serving(node: SimulatedNode) -> bool:
    return isinstance(node.server, BrokerServer) and not node.server.is_fenced


def broker(node: SimulatedNode) -> BrokerServer:
    assert isinstance(node.server, BrokerServer)
    return node.server


def end_of(node: SimulatedNode) -> int:
    return next((one.log_end_offset for one in broker(node).replicas.all()), -1)


def leader_of(cluster: SimulatedCluster) -> SimulatedNode:
    return next(
        node
        for node in cluster.brokers
        if is_serving(node) and any(one.is_leader for one in broker(node).replicas.all())
    )


def run(scene: Scene, seed: int) -> None:
    async def program(loop: SimulatedLoop) -> None:
        cluster = SimulatedCluster(loop, ClusterShape())
        await cluster.format()
        cluster.start_all()
        await until(lambda: all(is_serving(node) for node in cluster.brokers))

        async def fill() -> None:
            async with Admin(bootstrap_servers=cluster.bootstrap_servers) as admin:
                await admin.create_topic("t", 1, 3)
            async with Producer(bootstrap_servers=cluster.bootstrap_servers) as producer:
                for number in range(RECORDS):
                    await producer.send_and_wait("t", b"%d" % number, partition=0)

        await cluster.spawn_client(fill)
        await until(lambda: all(end_of(node) == RECORDS for node in cluster.brokers))
        await scene(cluster)

    simulate(program, seed)


async def write(cluster: SimulatedCluster) -> None:
    async def one() -> None:
        async with Producer(bootstrap_servers=cluster.bootstrap_servers) as producer:
            await producer.send_and_wait("t", b"more", partition=0)

    await cluster.spawn_client(one)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("is_power_lost", [False, True])
def test_a_broker_starts_on_a_full_disk(seed: int, *, is_power_lost: bool) -> None:
    async def scene(cluster: SimulatedCluster) -> None:
        node = cluster.nodes["broker-2"]
        if is_power_lost:
            cluster.lose_power("broker-2")
        else:
            cluster.kill("broker-2")
        node.disk.fill(0)
        await asyncio.sleep(1)
        cluster.start("broker-2")
        await until(lambda: is_serving(node))
        assert node.failure is None
        node.disk.fill(None)
        await write(cluster)
        await until(lambda: end_of(node) == RECORDS + 1)

    run(scene, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_replica_cuts_its_tail_on_a_full_disk(seed: int) -> None:
    async def scene(cluster: SimulatedCluster) -> None:
        node = leader_of(cluster)
        others = [one.name for one in cluster.nodes.values() if one is not node]
        cluster.network.cut([node.name], others)
        builder = BatchBuilder()
        builder.append(1, None, b"a tail that no other replica has")
        (partition,) = broker(node).replicas.all()
        partition.as_leader().queue.produce(
            memoryview(builder.build()),
            acks=1,
            timeout_ms=1000,
            appended=lambda: None,
        )
        await until(lambda: end_of(node) == RECORDS + 1)
        await asyncio.sleep(10)
        node.disk.fill(0)
        cluster.network.heal()
        await until(lambda: end_of(node) == RECORDS and partition.follower is not None)
        assert (node.failure, partition.offline) == (None, None)
        node.disk.fill(None)
        await write(cluster)
        await until(lambda: end_of(node) == RECORDS + 1)

    run(scene, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_clean_stop_on_a_full_disk_blames_no_disk(seed: int) -> None:
    async def scene(cluster: SimulatedCluster) -> None:
        node = cluster.nodes["broker-2"]
        node.disk.fill(0)
        await cluster.stop("broker-2")
        assert node.failure is None
        assert not (await read_run(node.disk, "/data")).sync_failed
        node.disk.fill(None)
        cluster.start("broker-2")
        await until(lambda: is_serving(node) and end_of(node) == RECORDS)

    run(scene, seed)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("when", ["start", "run"])
def test_a_broker_outlives_a_process_that_may_open_nothing(seed: int, when: str) -> None:
    async def scene(cluster: SimulatedCluster) -> None:
        node = cluster.nodes["broker-2"]

        def hook(name: str, path: str) -> None:
            if name == "open" and "/t-0/" in path:
                raise OSError(errno.EMFILE, "simulated: too many open files", path)

        if when == "start":
            cluster.kill("broker-2")
            node.disk.hook = hook
            cluster.start("broker-2")
            await asyncio.sleep(10)
        else:
            node.disk.hook = hook
            await write(cluster)  # into what is open already
            await asyncio.sleep(10)
        assert (node.is_running, node.failure) == (True, None)
        node.disk.hook = None
        await write(cluster)
        end = max(end_of(one) for one in cluster.brokers)
        await until(lambda: is_serving(node) and end_of(node) == end)

    run(scene, seed)
