"""What is measured: a cluster of this project in processes of its own, or a running Kafka."""

from __future__ import annotations

import argparse
import importlib
import time
from pathlib import Path
from typing import Any, Protocol

from bench.voters import ask
from quorate import Admin
from quorate.net.grpc_network import GrpcNetwork
from quorate.net.methods import FIND_COORDINATORS
from quorate.v1.groups_pb2 import FindCoordinatorsRequest
from quorate_cli.local import LocalCluster, process_cpu_seconds
from quorate_cli.local_shape import Shape, free_port

PATIENCE_S = 60.0


class Target(Protocol):
    """A cluster, for the measures."""

    #: The client library of the members, and of the load.
    client: str
    bootstrap_servers: str

    def create_topic(self, name: str, partitions: int, replicas: int) -> None:
        """Make a topic."""

    def coordinator(self, group: str) -> int:
        """Return the process of the broker that coordinates a group, or of the only broker."""

    def kill_coordinator(self, group: str) -> float:
        """Kill that process. Return the time of the kill."""

    def recover(self) -> None:
        """Start the broker that was killed, and wait until it takes part again."""

    def committed(self, group: str) -> dict[int, int]:
        """Return the committed offsets of a group by partition."""

    def broker_pids(self) -> list[int]:
        """Return the processes of all brokers."""

    def stop(self) -> None:
        """Stop what this target has started."""


class QuorateTarget:
    """A cluster of real processes, with its defaults."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.client = "quorate"
        shape = Shape(voters=1, brokers=options.brokers, port=free_port(options.brokers))
        self._cluster = LocalCluster(folder / "cluster", shape)
        self._killed: int | None = None
        self._cluster.prepare()
        self._cluster.start()
        ask(self._cluster.wait_ready(timeout=PATIENCE_S))
        self.bootstrap_servers = self._cluster.bootstrap_servers

    def create_topic(self, name: str, partitions: int, replicas: int) -> None:
        async def create() -> None:
            async with Admin(bootstrap_servers=self.bootstrap_servers) as admin:
                await admin.create_topic(name, partitions, replicas)

        ask(create())

    def _coordinator_id(self, group: str) -> int:
        async def find() -> int:
            network = GrpcNetwork()
            connection = network.connect(self.bootstrap_servers.split(",")[0], purpose="control")
            request = FindCoordinatorsRequest(group_ids=[group])
            found = await connection.unary(FIND_COORDINATORS, request, timeout_ms=10_000)
            await network.close()
            return found.coordinators[0].coordinator.leader

        until = time.monotonic() + PATIENCE_S
        while (broker := ask(find())) not in self._cluster.processes:
            assert time.monotonic() < until, f"group {group} has no coordinator"
            time.sleep(0.1)
        return broker

    def coordinator(self, group: str) -> int:
        return self._cluster.processes[self._coordinator_id(group)].pid

    def kill_coordinator(self, group: str) -> float:
        self._killed = self._coordinator_id(group)
        at = time.monotonic()
        self._cluster.kill(self._killed)
        return at

    def recover(self) -> None:
        assert self._killed is not None, "a broker was killed"
        self._cluster.start([self._killed])
        ask(self._cluster.wait_ready(timeout=PATIENCE_S))

    def committed(self, group: str) -> dict[int, int]:
        async def fetch() -> dict[int, int]:
            async with Admin(bootstrap_servers=self.bootstrap_servers) as admin:
                found = await admin.list_group_offsets(group)
            return {partition.partition: one.offset for partition, one in found.items()}

        return ask(fetch())

    def broker_pids(self) -> list[int]:
        brokers = [node.id for node in self._cluster.brokers]
        return [self._cluster.processes[one].pid for one in brokers]

    def stop(self) -> None:
        for node, status in self._cluster.died():
            print(f"{node.name} ended with status {status}")
        self._cluster.stop(timeout=PATIENCE_S)


class KafkaTarget:
    """A Kafka cluster that runs already. Its processes are named only for their CPU time."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.client = "confluent"
        self.bootstrap_servers = options.kafka
        self._pids: list[int] = options.pids
        self._admin_module: Any = importlib.import_module("confluent_kafka.admin")
        self._admin = self._admin_module.AdminClient({"bootstrap.servers": options.kafka})

    def create_topic(self, name: str, partitions: int, replicas: int) -> None:
        wanted = self._admin_module.NewTopic(name, partitions, replicas)
        self._admin.create_topics([wanted])[name].result()

    def coordinator(self, group: str) -> int:
        return self._pids[0]

    def kill_coordinator(self, group: str) -> float:
        raise NotImplementedError("a Kafka that this bench has not started is not killed")

    def recover(self) -> None:
        raise NotImplementedError("a Kafka that this bench has not started is not killed")

    def committed(self, group: str) -> dict[int, int]:
        kafka = importlib.import_module("confluent_kafka")
        wanted = kafka.ConsumerGroupTopicPartitions(group)
        found = self._admin.list_consumer_group_offsets([wanted])[group].result()
        return {one.partition: one.offset for one in found.topic_partitions}

    def broker_pids(self) -> list[int]:
        return self._pids

    def stop(self) -> None:
        """Leave it running."""


def cpu_seconds(pids: list[int]) -> float:
    """Return the CPU time that these processes have used together."""
    return sum(process_cpu_seconds(pid) or 0.0 for pid in pids)
