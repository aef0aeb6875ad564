"""One voter's controller over a fake Raft, and the brokers that talk to it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from quorate.errors import raise_if_error
from quorate.net.methods import CREATE_TOPICS
from quorate.net.principal import ANONYMOUS
from quorate.v1 import admin_pb2 as admin
from quorate_quorum.controller.decisions.outcome import Context, Outcome
from quorate_quorum.controller.driver.controller import Controller
from quorate_quorum.controller.driver.reign import Decided, Decision
from quorate_quorum.controller.driver.service import ControllerService
from quorate_quorum.controller.driver.sessions import Session
from quorate_quorum.metadata.delta import replayed
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.watch import Watch
from quorate_quorum.methods import FORWARD
from quorate_quorum.node.environment import Environment
from quorate_quorum.v1 import controller_pb2 as wire
from quorate_quorum.v1 import events_pb2 as ev
from quorate_quorum.v1.events_pb2 import Feature, MetadataEvent
from quorate_testing.in_process import InProcessListener, InProcessNetwork
from quorate_testing.simulated.loop import SimulatedLoop, simulate
from tests.harness.addresses import listening_at
from tests.harness.configs import voter_config
from tests.harness.fake_broker import FakeBroker
from tests.harness.fake_raft import AnyFeature, FakeRaft
from tests.unit.quorate_quorum.metadata.builders import (
    context,
    create_topics,
    directory_id,
    incarnation,
    topic_id,
)

R = TypeVar("R")

CLUSTER = "c1"
ENDPOINT = "v100:9093"


def feature(level: int, name: str = "x") -> MetadataEvent:
    return MetadataEvent(feature=Feature(name=name, level=level))


def one_event(level: int) -> Callable[[MetadataImage, Context], Outcome[int]]:
    return lambda image, context: Outcome((feature(level),), level)


def nothing(image: MetadataImage, context: Context) -> Outcome[int]:
    return Outcome((), image.features.get("x", -1))


class World:
    """Voter 100 with a fake Raft; brokers as the test wants them."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self.loop = loop
        self.failures: list[str] = []
        self.network = InProcessNetwork()
        self.chance = random.Random(3)
        self.environment = Environment(
            network=self.network,
            disk=None,  # type: ignore[arg-type]
            wall_clock_ms=lambda: int(loop.time() * 1000),
            chance=self.chance,
            features=AnyFeature(),
        )
        self.controller = Controller(voter_config(), self.environment, self.failures.append)
        self.raft = FakeRaft(self.controller, endpoint=ENDPOINT)
        self.controller.attach(self.raft, lambda: admin.DescribeQuorumResponse(leader=100))
        self.watch = Watch(CLUSTER, 1, self.raft, self.raft.epoch_at, voter_config())
        self.controller.when_news(self.watch.wake)
        self.brokers: list[FakeBroker] = []

    async def start(self) -> World:
        service = self.service = ControllerService(CLUSTER, 1, self.controller)
        self.raft.format()
        await self.network.serve(ENDPOINT, [service, self.watch])
        self.raft.lead(1)
        self.connection = self.network.connect(ENDPOINT, purpose="control")
        return self

    async def broker(self, node_id: int, **options: Any) -> FakeBroker:
        broker = FakeBroker(
            self.environment, [ENDPOINT], cluster_id=CLUSTER, node_id=node_id, **options
        )
        self.brokers.append(broker)
        await broker.start()
        return broker

    async def unfenced(self, count: int) -> list[FakeBroker]:
        started = [await self.broker(node_id) for node_id in range(count)]
        await self.until(lambda: all(broker.is_unfenced for broker in started))
        return started

    async def until(self, holds: Callable[[], bool], seconds: float = 10) -> float:
        """Wait until something holds; return how long that took."""
        started = self.loop.time()
        while not holds():
            assert self.loop.time() < started + seconds, "it never came to hold"
            await asyncio.sleep(0.01)
        return self.loop.time() - started

    async def run(self, decision: Decision[R]) -> Decided[R]:
        """Let the active controller decide; return when the answer is committed."""
        return await self.controller.active().reign.run(decision)

    def session(self, node_id: int) -> Session:
        session = self.controller.active().leases.sessions.get(node_id)
        assert session is not None, f"broker {node_id} has no open heartbeat stream"
        return session

    def broker_image(self, node_id: int) -> Any:
        return self.controller.image.brokers[node_id]

    async def create(self, name: str, partitions: int = 1, **configs: str) -> bytes:
        request = admin.CreateTopicsRequest()
        request.topics.add(
            name=name,
            topic_id=name.encode().ljust(16, b"\0"),
            num_partitions=partitions,
            replication_factor=-1,
            configs=configs,
        )
        answer = await self.forward(CREATE_TOPICS.path, request.SerializeToString())
        raise_if_error(answer.error)
        created = admin.CreateTopicsResponse.FromString(answer.response).topics[0]
        raise_if_error(created.error)
        return created.topic_id

    async def forward(self, method: str, request: bytes, **fields: Any) -> wire.ForwardResponse:
        asked = wire.ForwardRequest(
            **{
                "method": method,
                "request": request,
                "principal": str(ANONYMOUS),
                "deadline_ms": 5000,
                **fields,
            }
        )
        (answer,) = await self.forward_all([wire.ForwardRequests(requests=[asked])])
        return answer

    async def forward_all(
        self, messages: Sequence[wire.ForwardRequests]
    ) -> list[wire.ForwardResponse]:
        """Send all on one stream, and return the answers as they came."""

        async def requests() -> AsyncIterator[wire.ForwardRequests]:
            for message in messages:
                yield message

        messages[0].cluster_id = messages[0].cluster_id or CLUSTER
        answers: list[wire.ForwardResponse] = []
        async with aclosing(self.connection.stream(FORWARD, requests())) as stream:
            async for message in stream:
                raise_if_error(message.error)
                answers.extend(message.responses)
        return answers

    def partition(self, topic_id: bytes, index: int = 0) -> Any:
        return self.controller.image.topics[topic_id].partitions[index]

    def kill(self, broker: FakeBroker) -> None:
        """As by kill -9: its port refuses, its streams break."""
        assert isinstance(broker.listener, InProcessListener)
        broker.listener.kill()
        asyncio.ensure_future(broker.stop())  # noqa: RUF006

    async def stop(self) -> None:
        await self.controller.stop()
        for broker in self.brokers:
            await broker.stop()
            assert broker.failures == []


Program = Callable[[World], Coroutine[Any, Any, None]]


def in_a_world(program: Program) -> None:
    async def run(loop: SimulatedLoop) -> None:
        world = await World(loop).start()
        try:
            await asyncio.wait_for(program(world), 200)
        finally:
            await world.stop()
        assert world.failures == []

    simulate(run, seed=1, time_max_s=400)


async def beats(**fields: Any) -> AsyncIterator[wire.HeartbeatRequest]:
    yield wire.HeartbeatRequest(cluster_id=CLUSTER, **fields)
    await asyncio.sleep(1000)


def request(
    broker: int = 0,
    run: int = 2,
    *,
    disks: tuple[int, ...] = (0,),
    tail_intact: bool = True,
    sync_failed: bool = False,
) -> wire.RegisterRequest:
    return wire.RegisterRequest(
        broker_id=broker,
        incarnation=incarnation(broker, run),
        **listening_at(f"b{broker}:9092"),
        host=f"h{broker}",
        directories=[
            ev.Directory(
                directory_id=directory_id(broker, i),
                tail_intact=tail_intact,
                sync_failed=sync_failed,
            )
            for i in disks
        ],
    )


def new(
    name: str = "orders",
    partitions: int = 1,
    factor: int = -1,
    *,
    number: int = 1,
    configs: dict[str, str] | None = None,
    assignments: list[list[int]] | None = None,
) -> admin.NewTopic:
    return admin.NewTopic(
        name=name,
        topic_id=topic_id(number),
        num_partitions=partitions,
        replication_factor=factor,
        configs=configs or {},
        assignments=[admin.ReplicaAssignment(replicas=ids) for ids in assignments or []],
    )


def create(
    image: MetadataImage,
    *topics: admin.NewTopic,
    validate_only: bool = False,
    internal: bool = False,
) -> tuple[MetadataImage, list[admin.CreatedTopic]]:
    request = admin.CreateTopicsRequest(topics=topics, validate_only=validate_only)
    outcome = create_topics(image, request, context(image), internal=internal)
    return replayed(image, outcome.events), list(outcome.response.topics)
