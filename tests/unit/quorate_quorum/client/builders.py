"""Voters whose Raft a test moves by hand, and a client to them, in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import Any

from quorate.errors import (
    NotControllerError,
    to_wire,
)
from quorate.net.methods import CREATE_TOPICS
from quorate.net.network import Handler, Method, Peer
from quorate.v1.admin_pb2 import CreatedTopic, CreateTopicsResponse
from quorate_quorum.client.client import QuorumClient
from quorate_quorum.metadata.delta import MetadataDelta
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.watch import Watch
from quorate_quorum.methods import (
    ALLOCATE_PRODUCER_IDS,
    ALTER_PARTITIONS,
    FORWARD,
    HEARTBEAT,
    REGISTER,
)
from quorate_quorum.node.config import BrokerConfig
from quorate_quorum.node.environment import Environment
from quorate_quorum.v1 import controller_pb2 as wire
from quorate_quorum.v1.events_pb2 import Feature, MetadataEvent
from quorate_testing.in_process import InProcessListener, InProcessNetwork
from quorate_testing.simulated.loop import SimulatedLoop, simulate
from tests.harness.configs import voter_config
from tests.harness.fake_raft import AnyFeature, FakeRaft

CLUSTER = "c1"
NOT_CONTROLLER = to_wire(NotControllerError("not me"))


def feature(level: int) -> MetadataEvent:
    return MetadataEvent(feature=Feature(name="x", level=level))


class FakeVoter:
    """A real Watch over a fake Raft, and a controller that does as the test says."""

    def __init__(self, network: InProcessNetwork, node_id: int, generation: int = 1) -> None:
        self.network = network
        self.node_id = node_id
        self.endpoint = f"v{node_id}:9093"
        self.raft = FakeRaft(self, node_id=node_id, endpoint=self.endpoint)
        self.watch = Watch(
            CLUSTER, generation, self.raft, self.raft.epoch_at, voter_config(node_id)
        )
        self.asked: list[str] = []
        self.beats: list[wire.HeartbeatRequest] = []
        self.forwarded: Callable[[wire.ForwardRequest], Any] = self._created
        self.registered = wire.RegisterResponse(broker_epoch=5, quorum_generation=generation)
        self.is_mute = False
        self._listener: InProcessListener | None = None
        self.raft.format()

    async def start(self) -> FakeVoter:
        self._listener = await self.network.serve(self.endpoint, [self, self.watch])
        return self

    def kill(self) -> None:
        assert self._listener is not None
        self._listener.kill()

    def handlers(self) -> Mapping[Method[Any, Any], Handler]:
        return {
            REGISTER: self.register,
            FORWARD: self.forward,
            HEARTBEAT: self.heartbeat,
            ALTER_PARTITIONS: self.alter,
            ALLOCATE_PRODUCER_IDS: self.allocate,
        }

    # -- RaftListener

    def committed(self, batches: Sequence[bytes], high_watermark: int) -> None:
        if hasattr(self, "watch"):
            self.watch.wake()

    def became_leader(self, epoch: int, handed_over_for_silence: bool) -> None: ...
    def lost_leadership(self, epoch: int) -> None: ...
    def leader_known(self, leader_id: int, epoch: int, endpoint: str) -> None:
        self.watch.wake()

    # -- Controller

    def _hint(self) -> dict[str, Any]:
        raft = self.raft
        return {
            "error": NOT_CONTROLLER,
            "leader_id": raft.leader_id,
            "leader_endpoint": raft.leader_endpoint,
        }

    async def register(self, request: wire.RegisterRequest, peer: Peer) -> wire.RegisterResponse:
        self.asked.append("register")
        if not self.raft.is_leader:
            return wire.RegisterResponse(**self._hint())
        return self.registered

    async def forward(
        self, requests: AsyncIterator[wire.ForwardRequests], peer: Peer
    ) -> AsyncIterator[wire.ForwardResponses]:
        first = True
        async for message in requests:
            assert message.cluster_id == (CLUSTER if first else "")
            first = False
            for request in message.requests:
                self.asked.append("forward")
                if self.raft.is_leader:
                    answer = await self.forwarded(request)
                else:
                    answer = wire.ForwardResponse(**self._hint())
                if answer is not None:
                    answer.request_id = answer.request_id or request.request_id
                    yield wire.ForwardResponses(responses=[answer])

    async def _created(self, request: wire.ForwardRequest) -> wire.ForwardResponse:
        asked = CREATE_TOPICS.decode_request(request.request)
        self.raft.propose(self.raft.epoch, [feature(len(asked.topics))])
        made = CreateTopicsResponse(topics=[CreatedTopic(name=t.name) for t in asked.topics])
        return wire.ForwardResponse(
            response=made.SerializeToString(), apply_offset=self.raft.log_end_offset
        )

    async def heartbeat(
        self, requests: AsyncIterator[wire.HeartbeatRequest], peer: Peer
    ) -> AsyncIterator[wire.HeartbeatResponse]:
        self.asked.append("heartbeat")
        async for request in requests:
            if not self.raft.is_leader:
                yield wire.HeartbeatResponse(**self._hint())
                return
            self.beats.append(request)
            if self.is_mute:
                await asyncio.sleep(1000)
            yield wire.HeartbeatResponse(
                leader_id=self.node_id,
                leader_endpoint=self.endpoint,
                epoch=self.raft.epoch,
                high_watermark=self.raft.high_watermark,
                interval_ms=500,
                fenced=True,
            )

    async def alter(
        self, requests: AsyncIterator[wire.AlterPartitionsRequest], peer: Peer
    ) -> AsyncIterator[wire.AlterPartitionsResponse]:
        self.asked.append("alter")
        held: list[wire.AlterPartitionsRequest] = []
        async for request in requests:
            if not self.raft.is_leader:
                yield wire.AlterPartitionsResponse(
                    error=NOT_CONTROLLER, request_id=request.request_id
                )
                continue
            held.append(request)
            if len(held) == 2:  # answered in the other order
                for late in reversed(held):
                    yield wire.AlterPartitionsResponse(
                        request_id=late.request_id,
                        partitions=[
                            wire.AlteredPartition(partition=p.partition) for p in late.partitions
                        ],
                    )
                held.clear()

    async def allocate(
        self, request: wire.AllocateProducerIdsRequest, peer: Peer
    ) -> wire.AllocateProducerIdsResponse:
        if not self.raft.is_leader:
            return wire.AllocateProducerIdsResponse(**self._hint())
        return wire.AllocateProducerIdsResponse(first_producer_id=3000, count=1000)


def client_config(voters: Sequence[FakeVoter], **settings: int) -> BrokerConfig:
    return BrokerConfig(
        node_id=1,
        listeners=("b1:9092",),
        log_dirs=("/data",),
        quorum_bootstrap_servers=tuple(voter.endpoint for voter in voters),
        **settings,  # type: ignore[arg-type]
    )


class World:
    """Voters 100, 101, 102 on one network; a client to them."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self.loop = loop
        self.network = InProcessNetwork()
        self.voters: list[FakeVoter] = []
        self.failures: list[str] = []
        self.client: QuorumClient

    async def start(self, count: int = 3, leader: int = 0, **settings: int) -> World:
        self.voters = [await FakeVoter(self.network, 100 + n).start() for n in range(count)]
        environment = Environment(
            network=self.network,
            disk=None,  # type: ignore[arg-type]
            chance=random.Random(7),
            features=AnyFeature(),
        )
        self.client = QuorumClient(
            client_config(self.voters, **settings),
            environment,
            cluster_id=CLUSTER,
            fail=self.failures.append,
        )
        self.lead(leader, 1)
        return self

    def lead(self, index: int, epoch: int) -> FakeVoter:
        leader = self.voters[index]
        for voter in self.voters:
            if voter is not leader:
                voter.raft.lose(leader.node_id, epoch, leader.endpoint)
        leader.raft.lead(epoch)
        self.replicate(leader)
        return leader

    def replicate(self, leader: FakeVoter) -> None:
        for voter in self.voters:
            if voter is not leader:
                voter.raft.follow(leader.raft)


def in_a_world(
    program: Callable[[World], Coroutine[Any, Any, None]],
    *,
    count: int = 3,
    seed: int = 1,
    **settings: int,
) -> None:
    async def run(loop: SimulatedLoop) -> None:
        world = await World(loop).start(count, **settings)
        try:
            await asyncio.wait_for(program(world), 50)
        finally:
            await world.client.stop()
        assert world.failures == []

    simulate(run, seed=seed, time_max_s=100)


class Recorder:
    def __init__(self) -> None:
        self.offsets: list[int] = []

    def image_changed(self, delta: MetadataDelta, image: MetadataImage) -> None:
        assert delta.image.offset == (self.offsets[-1] if self.offsets else 0)
        self.offsets.append(image.offset)


def state(applied: int = 3) -> wire.HeartbeatRequest:
    return wire.HeartbeatRequest(broker_id=1, broker_epoch=5, applied_offset=applied)
