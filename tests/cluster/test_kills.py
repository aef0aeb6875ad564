"""kill -9, SIGSTOP and SIGTERM of real processes: nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from quorate import Admin, Producer
from quorate.errors import QuorateError
from quorate_cli.local import LocalCluster
from quorate_cli.local_shape import Shape, free_port
from tests.cluster.support import PATIENCE_S, create, describe, read, started, until, whole

PARTITIONS = 3


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A cluster of these tests' own; each leaves it with every node running."""
    with started(tmp_path_factory.mktemp("fragile"), Shape(port=free_port(3))) as running:
        yield running


class Load:
    """A producer that goes on writing; what was acknowledged must be there at the end."""

    def __init__(self) -> None:
        self.acked: list[bytes] = []
        self.failed: list[QuorateError] = []
        self.stopped = False

    async def run(self, cluster: LocalCluster, topic: str) -> None:
        async with Producer(bootstrap_servers=cluster.bootstrap_servers) as producer:
            number = 0
            while not self.stopped:
                value = b"%d" % number
                sent = await producer.send(topic, value, partition=number % PARTITIONS)
                number += 1
                try:
                    await sent
                    self.acked.append(value)
                except QuorateError as error:
                    self.failed.append(error)

    async def more(self, count: int = 30) -> None:
        """Wait for that many more acknowledgements."""
        goal = len(self.acked) + count
        await until(lambda: len(self.acked) >= goal, f"{count} more acknowledged records")


@contextlib.asynccontextmanager
async def under_load(cluster: LocalCluster, topic: str) -> AsyncIterator[Load]:
    """Write all the while; afterwards all nodes are there again and so is every record, once."""
    await create(cluster, topic, PARTITIONS)
    load = Load()
    task = asyncio.create_task(load.run(cluster, topic))
    await load.more()
    try:
        yield load
        await load.more()
    finally:
        load.stopped = True
        async with asyncio.timeout(PATIENCE_S):
            await task
        cluster.died()
        cluster.start([one for one in cluster.nodes if one not in cluster.processes])
        await cluster.wait_ready(timeout=PATIENCE_S)
    await whole(cluster, topic)
    found = await read(cluster, topic)
    assert len(found) == len(set(found)), "records were doubled"
    assert set(load.acked) <= set(found), "acknowledged records were lost"
    assert not load.failed


async def leader_of(cluster: LocalCluster, topic: str) -> int:
    return (await describe(cluster, topic)).partitions[0].leader


async def controller_of(cluster: LocalCluster) -> int:
    async with Admin(bootstrap_servers=cluster.bootstrap_servers) as admin:
        return (await admin.describe_quorum()).leader


async def test_kill_of_a_leading_broker(fragile: LocalCluster) -> None:
    async with under_load(fragile, "kill-broker") as load:
        victim = await leader_of(fragile, "kill-broker")
        fragile.kill(victim)
        await load.more()
        assert await leader_of(fragile, "kill-broker") not in (victim, -1)


async def test_kill_of_the_quorums_leader(fragile: LocalCluster) -> None:
    async with under_load(fragile, "kill-voter") as load:
        victim = await controller_of(fragile)
        fragile.kill(victim)
        await load.more()

        async def another_leads() -> bool:
            with contextlib.suppress(QuorateError):
                return await controller_of(fragile) not in (victim, -1)
            return False

        await until(another_leads, "another controller")


async def test_kill_of_a_broker_and_the_quorums_leader_at_once(fragile: LocalCluster) -> None:
    async with under_load(fragile, "kill-both") as load:
        fragile.kill(await leader_of(fragile, "kill-both"), await controller_of(fragile))
        await load.more()


async def test_kill_of_all_six_at_once(fragile: LocalCluster) -> None:
    async with under_load(fragile, "kill-all"):
        fragile.kill(*fragile.nodes)
        fragile.start()


async def test_a_paused_leader_does_no_harm(fragile: LocalCluster) -> None:
    async with under_load(fragile, "pause") as load:
        victim = await leader_of(fragile, "pause")
        fragile.signal(victim, signal.SIGSTOP)
        try:

            async def another_leads() -> bool:
                async with Admin(
                    bootstrap_servers=[one.endpoint for one in fragile.brokers if one.id != victim]
                ) as admin:
                    topic = (await admin.describe_topics(["pause"]))["pause"]
                    return topic.partitions[0].leader not in (victim, -1)

            await until(another_leads, "another leader")
            await load.more()
        finally:
            fragile.signal(victim, signal.SIGCONT)


async def test_a_clean_stop_of_a_leader_is_status_0(fragile: LocalCluster) -> None:
    async with under_load(fragile, "leave") as load:
        victim = await leader_of(fragile, "leave")
        assert await asyncio.to_thread(fragile.stop, [victim]) == {victim: 0}
        await load.more()


def test_all_six_stop_cleanly_at_once(tmp_path: Path) -> None:
    with started(tmp_path, Shape(port=free_port(3))) as cluster:
        assert cluster.stop(timeout=PATIENCE_S) == dict.fromkeys(cluster.nodes, 0)


@pytest.mark.parametrize("voters_first", [False, True], ids=["brokers first", "quorum first"])
def test_each_stops_cleanly_one_after_another(tmp_path: Path, voters_first: bool) -> None:
    """Also without a quorum: a broker waits a bounded time for the permission to stop."""
    with started(tmp_path, Shape(port=free_port(3))) as cluster:
        for node_id in sorted(cluster.nodes, reverse=voters_first):
            assert cluster.stop([node_id], timeout=PATIENCE_S) == {node_id: 0}
