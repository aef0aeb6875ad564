"""What the world of a seed does around its faults, as an operator would, and what it may judge."""

from __future__ import annotations

import asyncio
import errno

import pytest

from quorate_broker.server import BrokerServer
from tests.harness.amounts import few_or_many
from tests.harness.cluster_shape import Shape
from tests.harness.world import World, run_faults

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(120)]

SEEDS = range(few_or_many(3, 20))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_directory_that_failed_once_is_used_again_after_the_faults(seed: int) -> None:
    """A broker with another directory goes on without it until it is restarted."""
    found: list[bytes] = []

    async def fault(world: World) -> None:
        await asyncio.sleep(2)
        [node] = [node for node in world.cluster.brokers if node.name == "broker-1"]

        def fails(_: str, path: str) -> None:
            if path.startswith("/data2/"):
                raise OSError(errno.EIO, "simulated: input/output error", path)

        node.disk.hook = fails
        await asyncio.sleep(3)
        node.disk.hook = None
        assert isinstance(node.server, BrokerServer), "it goes on"
        found.extend(node.server.replicas.failed_directories)

    run_faults(fault, seed, shape=Shape(log_dirs=("/data", "/data2")))
    assert found


@pytest.mark.parametrize("seed", SEEDS)
def test_what_the_leader_of_a_deleted_topic_acknowledges_is_not_of_the_new_topic(
    seed: int,
) -> None:
    """A leader without followers that is cut off acknowledges until it hears of the deletion."""

    async def fault(world: World) -> None:
        await asyncio.sleep(1)
        names = list(world.cluster.nodes)
        cut_off = ["broker-1", *world.clients.names]
        others = [name for name in names if name not in cut_off]
        world.cluster.network.cut(cut_off, others)
        await asyncio.sleep(13)

    shape = Shape(replication_factor=1, min_isr=1, recreates=True)
    outcome = run_faults(fault, seed, shape=shape)
    assert outcome.counters["topics made again"]
