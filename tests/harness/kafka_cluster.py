"""A simulated cluster whose brokers have Kafka listeners, too, with one topic."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from quorate import Admin, Consumer, TopicPartition
from quorate_broker.server import BrokerServer
from quorate_quorum.metadata.partitions import PartitionImage
from quorate_quorum.server import QuorumServer
from quorate_testing.simulated.cluster import SimulatedCluster, SimulatedNode

TOPIC = "t"


class KafkaCluster(SimulatedCluster):
    """A cluster whose brokers have a Kafka listener, too."""

    def _settings(self, node: SimulatedNode) -> dict[str, Any]:
        settings = super()._settings(node)
        if not node.is_voter:
            settings["listeners"] = (f"grpc://{node.endpoint}", f"kafka://{node.name}:9092")
        return settings

    @property
    def kafka_endpoints(self) -> list[str]:
        return [f"{node.name}:9092" for node in self.brokers]

    async def begin(self, partitions: int, **configs: str | int) -> None:
        """Start all nodes, and create the topic with three replicas of each partition."""
        await self.format()
        self.start_all()
        await until(self.all_unfenced)

        async def create() -> None:
            async with Admin(bootstrap_servers=self.bootstrap_servers) as admin:
                await admin.create_topic(TOPIC, partitions, 3, configs=configs)

        await self.spawn_client(create)

    def all_unfenced(self) -> bool:
        servers = [node.server for node in self.brokers]
        return all(isinstance(one, BrokerServer) and not one.is_fenced for one in servers)

    def state(self, partition: int) -> PartitionImage | None:
        """The state of a partition, as the controller knows it; None while there is none."""
        for node in self.voters:
            if isinstance(node.server, QuorumServer) and node.server.is_controller:
                topic = node.server.image.topic_named(TOPIC)
                assert topic is not None
                return topic.partitions[partition]
        return None

    def leader(self, partition: int) -> SimulatedNode:
        """The broker that leads a partition, as the controller knows it."""
        state = self.state(partition)
        found = None if state is None else self.nodes.get(f"broker-{state.leader}")
        return self.brokers[0] if found is None else found

    def controller(self) -> SimulatedNode:
        for node in self.voters:
            if isinstance(node.server, QuorumServer) and node.server.is_controller:
                return node
        return self.voters[0]


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - it is virtual time
        await asyncio.sleep(0.01)


async def read(cluster: SimulatedCluster, partition: int) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []

    async def run() -> None:
        async with Consumer(
            bootstrap_servers=cluster.bootstrap_servers, auto_offset_reset="earliest"
        ) as consumer:
            one = TopicPartition(TOPIC, partition)
            consumer.assign([one])
            end = (await consumer.end_offsets([one]))[one]
            while len(found) < end:
                record = await consumer.getone()
                found.append((record.offset, record.value or b""))

    await cluster.spawn_client(run)
    return found
