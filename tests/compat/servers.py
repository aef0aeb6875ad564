"""The two clusters that a suite runs against: Apache Kafka, the measure, and Quorate."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Protocol

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from quorate import Admin
from quorate_cli.local import LocalCluster
from quorate_cli.local_shape import ANY_PORT, HOST, Shape, free_port
from tests.compat import jars

BROKERS = 3
#: The shortest session timeout of a group's member: suites do not wait long for one that is gone.
SESSION_MS_MIN = 1000
START_S = 240
STORAGE = "kafka.tools.StorageTool"
RACK_AWARE = "org.apache.kafka.common.replica.RackAwareReplicaSelector"
CLUSTER_ID = "cXVvcmF0ZS1jb21wYXQtMQ"


@dataclass(frozen=True, slots=True)
class Setup:
    """What a suite wants of both clusters, where it is not their default."""

    #: Settings that both have by the same name.
    settings: Mapping[str, str] = field(default_factory=dict)
    #: Each broker is in a rack of its own, RACK and its id, and is read by clients of that rack.
    racks: bool = False
    brokers: int = BROKERS


class Servers(Protocol):
    """A cluster whose brokers can be killed and started again by their index."""

    name: str
    version: str
    #: host:port of every broker, separated by commas.
    bootstrap: str
    #: The id of the broker with index 0. kafka-python's suite names broker 0.
    first_id: int
    setup: Setup

    def start(self, index: int) -> None:
        """Start a broker that was killed."""

    def kill(self, index: int) -> None:
        """Kill a broker, as a lost machine would."""


class QuorateServers:
    """Three voters and the brokers of Quorate, as `quorate up` starts them."""

    name = "quorate"
    first_id = 0

    def __init__(self, folder: Path, setup: Setup) -> None:
        self.version = version_of("quorate")
        self.setup = setup
        ids = range(self.first_id, self.first_id + setup.brokers)
        racks = tuple(map(_rack, ids)) if setup.racks else ()
        shape = Shape(brokers=setup.brokers, port=ANY_PORT, kafka_port=ANY_PORT, racks=racks)
        self._cluster = LocalCluster(folder, shape)
        self.bootstrap = ",".join(node.kafka for node in self._cluster.brokers)

    def up(self) -> None:
        """Start all nodes, and wait until all are there."""
        self._cluster.prepare()
        self._add_settings()
        self._cluster.start()
        asyncio.run(self._cluster.wait_ready(timeout=START_S))
        if self.setup.settings:
            asyncio.run(self._configure())

    def _add_settings(self) -> None:
        """Add what the files of Apache Kafka's brokers name, too."""
        for node in self._cluster.brokers:
            told = [f"grpc://{node.endpoint}", f"kafka://{node.kafka}"]
            settings = {
                "advertised.listeners": told,
                "group.min.session.timeout.ms": SESSION_MS_MIN,
            }
            with (node.folder / "config.toml").open("a") as file:
                file.writelines(f"{key} = {value}\n" for key, value in settings.items())

    def down(self) -> None:
        """Stop all nodes."""
        self._cluster.stop()

    def start(self, index: int) -> None:
        self._cluster.start([index])

    def kill(self, index: int) -> None:
        self._cluster.kill(index)

    async def _configure(self) -> None:
        async with Admin(bootstrap_servers=self._cluster.bootstrap_servers) as admin:
            await admin.alter_configs(set=self.setup.settings)


class KafkaServers:
    """Nodes of Apache Kafka, each a broker and a controller."""

    name = "kafka"
    first_id = 0

    def __init__(self, folder: Path, setup: Setup) -> None:
        self.setup = setup
        self.version = jars.version()
        self._folder = folder
        first = free_port(setup.brokers)
        self._ports = [first + 100 * i for i in range(setup.brokers)]
        self.bootstrap = ",".join(f"{HOST}:{port}" for port in self._ports)
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def up(self) -> None:
        """Format the disks, start all nodes, and wait until all are there."""
        for index in range(self.setup.brokers):
            self._format(index)
        for index in range(self.setup.brokers):
            self.start(index)
        end = time.monotonic() + START_S
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        while time.monotonic() < end:
            with contextlib.suppress(KafkaException):
                if len(admin.list_topics(timeout=2).brokers) == self.setup.brokers:
                    return
            time.sleep(0.2)
        raise TimeoutError(f"Apache Kafka did not start within {START_S} s: see {self._folder}")

    def down(self) -> None:
        """Kill all nodes: their disks are thrown away."""
        for process in self._processes.values():
            process.kill()
            process.wait()

    def start(self, index: int) -> None:
        with (self._folder / f"node-{index}.log").open("ab") as output:
            self._processes[index] = subprocess.Popen(
                jars.java("kafka.Kafka", self._properties(index), heap="512m"),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def kill(self, index: int) -> None:
        self._processes[index].send_signal(signal.SIGKILL)
        self._processes[index].wait()

    def _properties(self, index: int) -> Path:
        return self._folder / f"node-{index}.properties"

    def _format(self, index: int) -> None:
        port = self._ports[index]
        voters = ",".join(
            f"{self.first_id + i}@{HOST}:{port + 1}" for i, port in enumerate(self._ports)
        )
        settings = {
            "process.roles": "broker,controller",
            "node.id": self.first_id + index,
            "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{port + 1}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.quorum.voters": voters,
            "log.dirs": self._folder / f"node-{index}",
            "group.initial.rebalance.delay.ms": 500,
            "group.min.session.timeout.ms": SESSION_MS_MIN,
            # A busy machine starts three JVMs slowly.
            "initial.broker.registration.timeout.ms": 1000 * START_S,
            "offsets.topic.replication.factor": self.setup.brokers,
            "transaction.state.log.replication.factor": self.setup.brokers,
            "transaction.state.log.min.isr": min(2, self.setup.brokers),
            **self.setup.settings,
        }
        if self.setup.racks:
            settings["broker.rack"] = _rack(self.first_id + index)
            settings["replica.selector.class"] = RACK_AWARE
        lines = [f"{key}={value}\n" for key, value in settings.items()]
        self._properties(index).write_text("".join(lines))
        asked = ["format", "-t", CLUSTER_ID, "-c", self._properties(index)]
        subprocess.run(jars.java(STORAGE, *asked), check=True, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def running(server: str, folder: Path, setup: Setup) -> Iterator[Servers]:
    """Yield a cluster that is up; take it down at the end in any case."""
    folder.mkdir(parents=True)
    servers = (
        KafkaServers(folder, setup)
        if server == "kafka"
        else QuorateServers(folder / "cluster", setup)
    )
    try:
        servers.up()
        yield servers
    finally:
        servers.down()


def _rack(broker_id: int) -> str:
    return f"RACK{broker_id}"


def ports(number: int) -> list[int]:
    """Return ports that are free now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind((HOST, 0))
        return [int(one.getsockname()[1]) for one in sockets]
