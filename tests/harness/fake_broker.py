"""A broker as the quorum sees it: it listens, registers, beats and follows the image; no logs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from quorate.net.network import Listener, Peer
from quorate.v1 import node_pb2
from quorate_quorum.client.client import QuorumClient
from quorate_quorum.client.heartbeat import HeartbeatStream
from quorate_quorum.metadata.delta import MetadataDelta
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.node.config import BrokerConfig
from quorate_quorum.node.environment import Environment
from quorate_quorum.node.features import to_wire
from quorate_quorum.node.identify import NodeService
from quorate_quorum.v1.controller_pb2 import (
    HeartbeatRequest,
    HeartbeatResponse,
    RegisterRequest,
    ReplicaEnd,
)
from quorate_quorum.v1.events_pb2 import Directory
from tests.harness.addresses import listening_at


class BusyNode(NodeService):
    """Answers after `busy_s`, as a process whose event loop has long turns."""

    busy_s = 0.0

    async def identify(
        self, request: node_pb2.IdentifyRequest, peer: Peer
    ) -> node_pb2.IdentifyResponse:
        await asyncio.sleep(self.busy_s)
        return await super().identify(request, peer)


class FakeBroker:
    """A broker without logs. It registers one disk, with `directory_id` and `tail_intact`."""

    def __init__(
        self,
        environment: Environment,
        bootstrap: Sequence[str],
        *,
        cluster_id: str,
        node_id: int,
        directory_id: bytes = b"",
        tells_levels: bool = True,
    ) -> None:
        self.environment = environment
        self.cluster_id = cluster_id
        self.node_id = node_id
        self.endpoint = f"b{node_id}:9092"
        self.directory_id = directory_id or bytes([node_id]) * 16
        self.incarnation = environment.new_id()
        self.tail_intact = True
        #: Whether it tells the feature levels that it knows. The first release did not.
        self.tells_levels = tells_levels
        self.broker_epoch = -1
        self.answers: list[HeartbeatResponse] = []
        self.failures: list[str] = []
        self.wants_shutdown = False
        self.is_behind = False
        #: How long it takes to answer a dial.
        self.busy_s = 0.0
        self.failed_directories: list[bytes] = []
        #: (last_epoch, log_end_offset): its answer when it is asked for the ends of its replicas.
        self.end = (0, 0)
        self._ends: list[ReplicaEnd] = []
        config = BrokerConfig(
            node_id=node_id,
            listeners=(self.endpoint,),
            log_dirs=("/data",),
            quorum_bootstrap_servers=tuple(bootstrap),
        )
        self.client = QuorumClient(
            config, environment, cluster_id=cluster_id, fail=self.failures.append
        )
        self.stream: HeartbeatStream | None = None
        self.listener: Listener | None = None

    @property
    def last(self) -> HeartbeatResponse:
        return self.answers[-1]

    @property
    def is_unfenced(self) -> bool:
        return bool(self.answers) and not self.last.fenced and not self.last.HasField("error")

    async def start(self) -> None:
        node = BusyNode("broker", self.cluster_id, self.node_id, self.incarnation, False)
        node.busy_s = self.busy_s
        self.listener = await self.environment.network.serve(self.endpoint, [node])
        self.client.subscribe(self)
        await self.client.start()
        await self.register()
        self.stream = self.client.heartbeat(self.state, self._answered)

    async def register(self) -> None:
        answer = await self.client.register(
            RegisterRequest(
                broker_id=self.node_id,
                incarnation=self.incarnation,
                **listening_at(self.endpoint),
                host=f"h{self.node_id}",
                features=to_wire(self.environment.features) if self.tells_levels else (),
                directories=[
                    Directory(directory_id=self.directory_id, tail_intact=self.tail_intact)
                ],
            )
        )
        self.broker_epoch = answer.broker_epoch

    async def stop(self) -> None:
        if self.stream is not None:
            await self.stream.close()
        await self.client.stop()
        if self.listener is not None:
            await self.listener.stop(0)

    def image_changed(self, delta: MetadataDelta, image: MetadataImage) -> None:
        if self.stream is not None and not self.is_behind:
            self.stream.push()

    def state(self) -> HeartbeatRequest:
        ends, self._ends = self._ends, []
        return HeartbeatRequest(
            broker_id=self.node_id,
            broker_epoch=self.broker_epoch,
            incarnation=self.incarnation,
            applied_offset=0 if self.is_behind else self.client.image.offset,
            want_shutdown=self.wants_shutdown,
            failed_directories=self.failed_directories,
            replica_ends=ends,
        )

    def _answered(self, answer: HeartbeatResponse) -> None:
        self.answers.append(answer)
        if answer.ends_wanted:
            self._ends = [
                ReplicaEnd(
                    topic_id=wanted.topic_id,
                    partition=wanted.partition,
                    last_epoch=self.end[0],
                    log_end_offset=self.end[1],
                )
                for wanted in answer.ends_wanted
            ]
            assert self.stream is not None
            self.stream.push()
