"""How long a new broker takes to be current where there are 30,000 partitions.

Voters as processes hold 10,000 topics of three partitions, whose brokers are only registered (by
this process, which keeps their leases). Then a new image follows a voter by Watch, and a new broker
process starts: it is unfenced once it has applied its own registration, the newest record of all.
"""

from __future__ import annotations

import asyncio
import os
import time

from bench.voters import PATIENCE_S, Voters, ask, door, new_client, running
from quorate.errors import raise_if_error
from quorate.net.methods import CREATE_TOPICS
from quorate.net.principal import ANONYMOUS
from quorate.v1.admin_pb2 import CreateTopicsRequest
from quorate.v1.common_pb2 import Listener
from quorate_cli.local_nodes import Node
from quorate_quorum.client.client import QuorumClient
from quorate_quorum.client.heartbeat import HeartbeatStream
from quorate_quorum.metadata.delta import MetadataDelta
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.v1.controller_pb2 import HeartbeatRequest, HeartbeatResponse, RegisterRequest
from quorate_quorum.v1.events_pb2 import Directory

Figures = dict[str, list[float]]

TOPICS = 10_000
PARTITIONS = 3
TOPICS_PER_REQUEST = 100
#: Registered here; the cluster's own broker, 0, is the new one.
REGISTERED = (1, 2, 3)
NEW = 0
#: Small, so that a new broker gets a snapshot and the log behind it, as in an old cluster.
SNAPSHOT_BYTES = 1 << 20
PATIENCE_MS = int(PATIENCE_S * 1000)


class PatientVoters(Voters):
    """Voters that fence no broker: one busy process heartbeats for three brokers."""

    def _program(self, node: Node) -> list[str]:
        program = super()._program(node)
        if node.kind == "voter":
            program += ["--set", f"broker.session.timeout.ms={PATIENCE_MS}"]
        return program


class OldVoters(PatientVoters):
    """Patient voters that take snapshots."""

    def _program(self, node: Node) -> list[str]:
        program = super()._program(node)
        if node.kind == "voter":
            name = "metadata.log.max.record.bytes.between.snapshots"
            program += ["--set", f"{name}={SNAPSHOT_BYTES}"]
        return program


def current() -> Figures:
    """Seconds from nothing to current: an image by Watch, and a broker process."""
    by_log, _ = _measured(PatientVoters)
    by_snapshot, process_s = _measured(OldVoters)
    return {
        "10,000 topics x 3: Watch from 0 to current, by the log, s": [by_log],
        "10,000 topics x 3: Watch to current, by snapshot, s": [by_snapshot],
        "10,000 topics x 3: new broker process to unfenced, s": [process_s],
    }


def _measured(kind: type[Voters]) -> tuple[float, float]:
    with running(kind) as cluster:
        return ask(_current(cluster))


async def _current(cluster: Voters) -> tuple[float, float]:
    async with door(cluster) as client:
        leases = [await _register(client, broker_id) for broker_id in REGISTERED]
        await _until_unfenced(client, *REGISTERED)
        for first in range(0, TOPICS, TOPICS_PER_REQUEST):
            await _create(client, first)
        watch_s = await _watch_s(cluster, client.image.offset)
        process_s = await _process_s(cluster, client)
        for lease in leases:
            await lease.close()
        return watch_s, process_s


async def _register(client: QuorumClient, broker_id: int) -> HeartbeatStream:
    incarnation = os.urandom(16)
    registered = await client.register(
        RegisterRequest(
            broker_id=broker_id,
            incarnation=incarnation,
            listeners=[Listener(name="grpc", protocol="grpc", endpoint=f"127.0.0.1:{broker_id}")],
            inter_broker_listener="grpc",
            host=f"host{broker_id}",
            directories=[Directory(directory_id=os.urandom(16))],
        )
    )

    def state() -> HeartbeatRequest:
        return HeartbeatRequest(
            broker_id=broker_id,
            broker_epoch=registered.broker_epoch,
            incarnation=incarnation,
            applied_offset=client.image.offset,
        )

    def answered(response: HeartbeatResponse) -> None:
        raise_if_error(response.error)

    return client.heartbeat(state, answered)


async def _create(client: QuorumClient, first: int) -> None:
    request = CreateTopicsRequest()
    for number in range(first, first + TOPICS_PER_REQUEST):
        request.topics.add(
            name=f"topic-{number}",
            topic_id=number.to_bytes(16, "big"),
            num_partitions=PARTITIONS,
            replication_factor=3,
        )
    answer = await client.forward(
        CREATE_TOPICS, request, principal=ANONYMOUS, timeout_ms=PATIENCE_MS
    )
    for topic in answer.topics:
        raise_if_error(topic.error)


async def _watch_s(cluster: Voters, offset: int) -> float:
    """Return how long a new image takes until it holds all that is committed now."""
    async with new_client(cluster) as client:
        started = time.perf_counter()
        await client.start()
        await client.wait_applied(offset, timeout_ms=PATIENCE_MS)
        took_s = time.perf_counter() - started
        assert len(client.image.topics) == TOPICS
        return took_s


async def _process_s(cluster: Voters, client: QuorumClient) -> float:
    started = time.perf_counter()
    cluster.start([NEW])
    await _until_unfenced(client, NEW)
    return time.perf_counter() - started


class _Changes:
    """Rings at each change of an image."""

    def __init__(self) -> None:
        self.came = asyncio.Event()

    def image_changed(self, delta: MetadataDelta, image: MetadataImage) -> None:
        self.came.set()


async def _until_unfenced(client: QuorumClient, *broker_ids: int) -> None:
    changes = _Changes()
    client.subscribe(changes)
    async with asyncio.timeout(PATIENCE_S):
        while True:
            brokers = [client.image.brokers.get(broker_id) for broker_id in broker_ids]
            if all(broker is not None and not broker.fenced for broker in brokers):
                return
            changes.came.clear()
            await changes.came.wait()
