"""The nodes of a cluster on this machine: their ids, addresses, folders and settings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quorate_cli.local_shape import HOST, NO_PORT, PORT_STEP, Shape

FIRST_VOTER_ID = 100


@dataclass(frozen=True, slots=True)
class Node:
    """One node: where it listens, and where its files are."""

    id: int
    kind: str  # "voter" or "broker"
    endpoint: str
    rack: str
    folder: Path
    #: Where Kafka clients connect; empty: nowhere.
    kafka: str = ""

    @property
    def name(self) -> str:
        """Return "voter 100" or "broker 0"."""
        return f"{self.kind} {self.id}"

    @property
    def data(self) -> str:
        """Return the log directory of the node."""
        return str(self.folder / "data")


def plan(folder: Path, shape: Shape) -> list[Node]:
    """Return the nodes of a cluster whose ports are chosen: the brokers, and then the voters."""
    nodes = []
    kafka_port = shape.kafka_port
    assert kafka_port is not None, "the ports are chosen"
    for i in range(shape.brokers):
        rack = shape.racks[i * len(shape.racks) // shape.brokers] if shape.racks else ""
        endpoint = f"{HOST}:{shape.port + PORT_STEP * i}"
        kafka = "" if kafka_port == NO_PORT else f"{HOST}:{kafka_port + PORT_STEP * i}"
        nodes.append(Node(i, "broker", endpoint, rack, folder / f"broker-{i}", kafka))
    for i in range(shape.voters):
        endpoint = f"{HOST}:{shape.port + 1 + PORT_STEP * i}"
        node_id = FIRST_VOTER_ID + i
        nodes.append(Node(node_id, "voter", endpoint, "", folder / f"voter-{node_id}"))
    return nodes


def settings_of(node: Node, voters: Sequence[Node]) -> dict[str, object]:
    """Return the settings of a node, by dotted name."""
    listeners = [f"grpc://{node.endpoint}"]
    if node.kafka:
        listeners.append(f"kafka://{node.kafka}")
    settings: dict[str, object] = {
        "node.id": node.id,
        "listeners": listeners,
        "log.dirs": [node.data],
        "quorum.bootstrap.servers": [voter.endpoint for voter in voters],
        "local.cluster": True,
    }
    if node.rack:
        settings["broker.rack"] = node.rack
    if node.kind == "broker":
        # All nodes run on this host. Give each broker a host name of its own, so that the placement
        # of replicas treats the brokers as different hosts.
        settings["broker.host"] = f"{HOST}-{node.id}"
        # The first member of a group of Kafka clients should not wait long for others on a laptop.
        # Without a wait kafka-python 3 may join before it knows the topic's partitions, and then
        # stand still.
        settings["group.initial.rebalance.delay.ms"] = 500
    return settings


def as_toml(settings: Mapping[str, object]) -> str:
    r"""Return a configuration file: strings, numbers, booleans and lists look in it as in JSON.

    >>> as_toml({"node.id": 1, "local.cluster": True, "log.dirs": ["/data"]})
    'node.id = 1\nlocal.cluster = true\nlog.dirs = ["/data"]\n'
    """
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
