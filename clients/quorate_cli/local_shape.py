"""The shape of a cluster on this machine: how many nodes, their racks and their ports."""

from __future__ import annotations

import contextlib
import json
import socket
from dataclasses import dataclass, fields, replace
from pathlib import Path

MEMORY = "cluster.json"
HOST = "127.0.0.1"
PORT_STEP = 100
ANY_PORT = 0
#: The kafka_port of a cluster without listeners for Kafka clients.
NO_PORT = -1
#: The kafka_port that is used if it is free, and none is named.
USUAL_KAFKA_PORT = 9092
PORT_ATTEMPTS = 100
VOTERS_MAX = 9
BROKERS_MAX = 99


class EndpointTakenError(OSError):
    """A process listens on an endpoint of the cluster already."""

    def __init__(self, message: str, endpoint: str) -> None:
        super().__init__(message)
        self.endpoint = endpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The numbers of nodes, the racks, and the first ports. Port 0 means any free ports.

    kafka_port is that of Kafka clients; None: 9092 if it is free, else any free ports.
    """

    voters: int = 3
    brokers: int = 3
    racks: tuple[str, ...] = ()
    port: int = 7092
    kafka_port: int | None = NO_PORT

    def __post_init__(self) -> None:
        if not 1 <= self.voters <= VOTERS_MAX:
            raise ValueError(f"--voters must be 1 to {VOTERS_MAX}, not {self.voters}")
        if not 1 <= self.brokers <= BROKERS_MAX:
            raise ValueError(f"--brokers must be 1 to {BROKERS_MAX}, not {self.brokers}")
        highest = self.port + 1 + PORT_STEP * (max(self.voters, self.brokers) - 1)
        if not self.port >= ANY_PORT or highest > 65535:
            raise ValueError(
                f"--port must be 1 to 65535 for every node (0: any that are free), not {self.port};"
                f" the last node would listen on {highest}"
            )
        self._check_kafka_port()
        if len(self.racks) > self.brokers:
            raise ValueError(
                f"--racks names {len(self.racks)} racks, and there are {self.brokers} brokers"
            )

    def _check_kafka_port(self) -> None:
        if self.kafka_port in (None, NO_PORT, ANY_PORT):
            return
        kafka_ports = ports_from(self.kafka_port, self.brokers)
        if min(kafka_ports) < ANY_PORT or max(kafka_ports) > 65535:
            raise ValueError(
                "--kafka-port must be 1 to 65535 for every broker (0: any that are free; off:"
                f" none), not {self.kafka_port}; the last broker would listen on {kafka_ports[-1]}"
            )
        taken = {*ports_from(self.port, self.brokers), *ports_from(self.port + 1, self.voters)}
        if self.port != ANY_PORT and taken & set(kafka_ports):
            raise ValueError(
                f"--kafka-port {self.kafka_port} and --port {self.port} give two listeners the"
                f" port {min(taken & set(kafka_ports))}"
            )


def ports_from(first: int, nodes: int) -> list[int]:
    """Return the ports of `nodes` nodes of one kind.

    >>> ports_from(7092, 3)
    [7092, 7192, 7292]
    """
    return [first + PORT_STEP * i for i in range(nodes)]


def check_port_free(endpoint: str, option: str = "--port") -> None:
    """Raise EndpointTakenError if a process listens there already."""
    host, _, port = endpoint.rpartition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            raise EndpointTakenError(
                f"{endpoint} cannot be used ({error.strerror}); choose another {option} (0: any), "
                "or stop what listens there",
                endpoint,
            ) from None


def free_port(nodes: int) -> int:
    """Return the first port for `nodes` nodes of each kind. All their ports are free now."""
    for _ in range(PORT_ATTEMPTS):
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port = int(probe.getsockname()[1])
        if port + PORT_STEP * nodes > 65000:
            continue
        try:
            for i in range(nodes):
                check_port_free(f"{HOST}:{port + PORT_STEP * i}")
                check_port_free(f"{HOST}:{port + 1 + PORT_STEP * i}")
        except OSError:
            continue
        return port
    raise OSError("no free ports were found on 127.0.0.1")


def free_kafka_port(brokers: int, *, usual: bool) -> int:
    """Return the first port for the Kafka listeners of `brokers` brokers, all free now.

    With `usual`, it is 9092, if that is free.
    """
    if usual:
        with contextlib.suppress(OSError):
            for port in ports_from(USUAL_KAFKA_PORT, brokers):
                check_port_free(f"{HOST}:{port}")
            return USUAL_KAFKA_PORT
    return free_port(brokers)


def placed(shape: Shape) -> Shape:
    """Return the shape. A port of 0 is replaced by one that is free now."""
    if shape.port == ANY_PORT:
        shape = replace(shape, port=free_port(max(shape.voters, shape.brokers)))
    for _ in range(PORT_ATTEMPTS):
        if shape.kafka_port not in (None, ANY_PORT):
            return shape
        port = free_kafka_port(shape.brokers, usual=shape.kafka_port is None)
        # the ports that were chosen for gRPC are free until the nodes start
        with contextlib.suppress(ValueError):
            shape = replace(shape, kafka_port=port)
    raise OSError("no free ports were found on 127.0.0.1")


def remembered(folder: Path, shape: Shape) -> Shape:
    """Return the shape of the cluster that the folder has already; else `shape`.

    Raises ValueError if a value of `shape` differs both from that cluster and from the default: the
    endpoints and ids are in the metadata log, and cannot change.
    """
    memory = folder / MEMORY
    if not memory.exists():
        return shape
    try:
        found = json.loads(memory.read_text())
        # a cluster from before there were Kafka listeners has none
        values = {one.name: found[one.name] for one in fields(Shape) if one.name != "kafka_port"}
        values["kafka_port"] = found.get("kafka_port", NO_PORT)
        old = Shape(**{**values, "racks": tuple(found["racks"])})
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{memory} is not what `quorate up` wrote: {error!r}") from None
    for name in ("voters", "brokers", "racks", "port", "kafka_port"):
        given, kept = getattr(shape, name), getattr(old, name)
        if name.endswith("port") and given in (None, ANY_PORT):
            continue
        if given not in (kept, getattr(Shape(), name)):
            option = name.replace("_", "-")
            raise ValueError(
                f"--{option}: the cluster in {folder} was made with {kept}, which "
                f"cannot become {given}; leave --{option} out, or use another --data"
            )
    return old
