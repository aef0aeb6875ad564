"""A broker with two Kafka listeners: one for its own network, one for the world outside.

So it is in a container: clients inside dial its name, and clients outside dial a port of the host.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from quorate_broker.listeners.kafka.messages.describe_cluster import DescribeClusterRequest
from quorate_broker.listeners.kafka.messages.find_coordinator import FindCoordinatorRequest
from quorate_broker.listeners.kafka.messages.metadata import MetadataRequest, MetadataRequestTopic
from quorate_broker.listeners.kafka.versions import (
    DESCRIBE_CLUSTER,
    FIND_COORDINATOR,
    METADATA,
)
from quorate_broker.server import BrokerServer
from quorate_testing.simulated.cluster import ClusterShape, SimulatedCluster, SimulatedNode
from quorate_testing.simulated.loop import SimulatedLoop, simulate
from tests.harness.kafka_connection import KafkaConnection, connect

pytestmark = pytest.mark.simulation

SETTINGS = (
    {
        "listeners": (
            "grpc://broker-0:7092",
            "INSIDE=kafka://broker-0:9092",
            "OUTSIDE=kafka://broker-0:19092",
        ),
        "advertised_listeners": (
            "grpc://broker-0:7092",
            "INSIDE=kafka://broker-0:9092",
            "OUTSIDE=kafka://host.example.org:29092",
        ),
    },
    # the port that is free is the one that clients are told
    {"listeners": ("grpc://broker-1:7092", "INSIDE=kafka://broker-1:0")},
    {"listeners": ("grpc://broker-2:7092",)},
)
INSIDE, OUTSIDE = "broker-0:9092", "broker-0:19092"


class Containers(SimulatedCluster):
    def _settings(self, node: SimulatedNode) -> dict[str, Any]:
        settings = super()._settings(node)
        return settings if node.is_voter else {**settings, **SETTINGS[node.node_id]}

    def all_unfenced(self) -> bool:
        servers = [node.server for node in self.brokers]
        return all(isinstance(one, BrokerServer) and not one.is_fenced for one in servers)


async def told(client: KafkaConnection) -> dict[str, dict[int, tuple[str, int]]]:
    """Return the addresses of the brokers, by request."""
    metadata = await client.ask(METADATA, 9, MetadataRequest([MetadataRequestTopic(name="new")]))
    described = await client.ask(DESCRIBE_CLUSTER, 1, DescribeClusterRequest())
    return {
        "Metadata": {one.node_id: (one.host, one.port) for one in metadata.brokers},
        "DescribeCluster": {one.broker_id: (one.host, one.port) for one in described.brokers},
    }


async def coordinators(client: KafkaConnection) -> dict[int, tuple[str, int]]:
    """Return the addresses of the coordinators of many groups."""
    keys = [f"group-{number}" for number in range(50)]
    asked = FindCoordinatorRequest(coordinator_keys=keys)
    while True:
        answer = await client.ask(FIND_COORDINATOR, 4, asked)
        found = {one.node_id: (one.host, one.port) for one in answer.coordinators if one.host}
        if found:
            return found
        await asyncio.sleep(0.1)


def test_a_client_is_told_the_addresses_of_the_listener_that_it_came_in_by() -> None:
    async def run(loop: SimulatedLoop) -> None:
        cluster = Containers(loop, ClusterShape(voters=1, brokers=3))
        await cluster.format()
        cluster.start_all()
        while not cluster.all_unfenced():  # noqa: ASYNC110 - it is virtual time
            await asyncio.sleep(0.01)
        await cluster.spawn_client(lambda: use(cluster))
        for name in list(cluster.nodes):
            cluster.kill(name)

    async def use(cluster: Containers) -> None:
        (free,) = (one for one in cluster.ports.open if one.startswith("broker-1:"))
        port = int(free.rpartition(":")[2])
        inside = {0: ("broker-0", 9092), 1: ("broker-1", port)}
        outside = {0: ("host.example.org", 29092)}
        for endpoint, expected in ((INSIDE, inside), (OUTSIDE, outside)):
            client = await connect(cluster.ports, endpoint)
            await asyncio.sleep(0.1)
            assert await told(client) == {"Metadata": expected, "DescribeCluster": expected}
            assert await coordinators(client) == expected

    simulate(run, 1)
