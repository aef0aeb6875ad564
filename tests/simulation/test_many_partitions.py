"""More partitions than a bound names: nothing stops, whatever the bound is."""

from __future__ import annotations

import asyncio

import pytest

from quorate import Admin, Consumer, Producer
from quorate_broker.server import BrokerServer
from quorate_testing.simulated.cluster import ClusterShape, SimulatedCluster
from quorate_testing.simulated.loop import SimulatedLoop, simulate

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(120)]

PARTITIONS = 12


async def _unfenced(cluster: SimulatedCluster) -> None:
    while not all(  # noqa: ASYNC110 - virtual time
        isinstance(node.server, BrokerServer) and not node.server.is_fenced
        for node in cluster.brokers
    ):
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("bound", ["request_partitions_max", "fetch_session_partitions_max"])
def test_a_bound_below_the_partitions_of_a_broker_stops_no_stream(bound: str) -> None:
    """The fault: a follower or consumer of more partitions than the bound never reads."""

    async def program(loop: SimulatedLoop) -> int:
        cluster = SimulatedCluster(loop, ClusterShape(voters=1, broker_settings={bound: 2}))
        await cluster.format()
        cluster.start_all()
        await _unfenced(cluster)
        read = 0

        async def client() -> None:
            nonlocal read
            servers = cluster.bootstrap_servers
            async with Admin(bootstrap_servers=servers) as admin:
                await admin.create_topic("t", PARTITIONS, 3)
            async with Producer(bootstrap_servers=servers, delivery_timeout_ms=20_000) as producer:
                sent = [await producer.send("t", b"x", partition=p) for p in range(PARTITIONS)]
                await asyncio.gather(*sent)
            async with Consumer(
                "t", bootstrap_servers=servers, auto_offset_reset="earliest"
            ) as consumer:
                async with asyncio.timeout(30):
                    while read < PARTITIONS:
                        found = await consumer.getmany(timeout_ms=1000)
                        read += sum(map(len, found.values()))

        await cluster.spawn_client(client)
        return read

    assert simulate(program, seed=1) == PARTITIONS
