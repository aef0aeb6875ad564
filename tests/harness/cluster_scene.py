"""A simulated cluster with a topic of one partition, for tests that tell one story."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, MutableMapping
from functools import partial
from typing import Any

import structlog

from quorate import Admin, Consumer, Producer
from quorate.record.batch import split
from quorate_broker.replica.partition import Partition
from quorate_broker.server import BrokerServer
from quorate_quorum.metadata.partitions import PartitionImage
from quorate_quorum.server import QuorumServer
from quorate_testing.simulated.cluster import DATA, ClusterShape, SimulatedCluster, SimulatedNode
from quorate_testing.simulated.loop import SimulatedLoop, simulate
from tests.harness.world import logs

TOPIC = "t"
REPLICA = "/data/t-0"
LOG = f"{REPLICA}/00000000000000000000.log"


class Scene:
    """A cluster with a topic of one partition, and the records that were acknowledged."""

    def __init__(
        self,
        loop: SimulatedLoop,
        *,
        replicas: int,
        configs: dict[str, str],
        broker_settings: dict[str, Any] | None = None,
        voter_settings: dict[str, Any] | None = None,
        brokers: int = 0,
        racks: tuple[str, ...] = (),
        log_dirs: tuple[str, ...] = (DATA,),
    ) -> None:
        """`brokers`: their number; 0: as many as replicas."""
        self.loop = loop
        self.replicas = replicas
        self.configs = configs
        self.cluster = SimulatedCluster(
            loop,
            ClusterShape(
                brokers=brokers or max(replicas, 1),
                racks=racks,
                log_dirs=log_dirs,
                voter_settings={"unclean_recovery_wait_ms": 5_000, **(voter_settings or {})},
                broker_settings=broker_settings or {},
            ),
        )
        self.acked: dict[int, bytes] = {}
        self.sent = 0
        #: The events in the logs of all nodes, from warnings on.
        self.told: list[str] = []

    # what is done

    async def begin(self) -> None:
        await self.cluster.format()
        self.cluster.start_all()
        await self.until(self.all_unfenced, "all brokers are unfenced")

        async def make() -> None:
            async with Admin(bootstrap_servers=self.cluster.bootstrap_servers) as admin:
                await admin.create_topic(TOPIC, 1, self.replicas, self.configs)

        await self.cluster.spawn_client(make)

    async def produce(self, count: int, *, timeout_ms: int = 30_000, filling: bytes = b"") -> None:
        """Send and await one record after another: one batch each."""

        async def run() -> None:
            async with Producer(
                bootstrap_servers=self.cluster.bootstrap_servers, delivery_timeout_ms=timeout_ms
            ) as producer:
                for _ in range(count):
                    value = b"%d" % self.sent + filling
                    self.sent += 1
                    found = await producer.send_and_wait(TOPIC, value, partition=0)
                    self.acked[found.offset] = value

        await self.cluster.spawn_client(run)

    async def read(self) -> dict[int, bytes]:
        """Return offset -> value of all that a consumer reads."""
        found: dict[int, bytes] = {}

        async def run() -> None:
            async with Consumer(
                TOPIC,
                bootstrap_servers=self.cluster.bootstrap_servers,
                auto_offset_reset="earliest",
            ) as consumer:
                while got := await consumer.getmany(timeout_ms=3_000):
                    for records in got.values():
                        found.update((r.offset, r.value or b"") for r in records)

        await self.cluster.spawn_client(run)
        return found

    async def kill_all(self) -> None:
        """Kill -9 of all brokers at once; return when the controller has fenced them."""
        for node in self.cluster.brokers:
            self.cluster.kill(node.name)
        await self.until(lambda: self.state.leader < 0, "no replica leads")

    async def until(
        self, condition: Callable[[], bool], what: str, *, within_s: float = 60
    ) -> None:
        pause = 0.0005
        try:
            async with asyncio.timeout(within_s):
                while not condition():
                    await asyncio.sleep(pause)
                    pause = min(pause * 1.05, 0.1)
        except TimeoutError:
            raise AssertionError(f"not within {within_s} s: {what}; {self.state}") from None

    async def whole(self) -> None:
        """Wait until every replica is in the ISR."""
        await self.until(
            lambda: self.all_unfenced() and len(self.state.isr) == self.replicas, "the ISR is whole"
        )

    # what is seen

    def all_unfenced(self) -> bool:
        return all(
            isinstance(node.server, BrokerServer) and not node.server.is_fenced
            for node in self.cluster.brokers
        )

    @property
    def state(self) -> PartitionImage:
        for node in self.cluster.voters:
            if isinstance(node.server, QuorumServer) and node.server.is_controller:
                topic = node.server.image.topic_named(TOPIC)
                assert topic is not None
                return topic.partitions[0]
        raise AssertionError("no voter leads")

    def node(self, broker_id: int) -> SimulatedNode:
        return self.cluster.nodes[f"broker-{broker_id}"]

    def replica(self, broker_id: int) -> Partition:
        server = self.node(broker_id).server
        assert isinstance(server, BrokerServer)
        [found] = [one for one in server.replicas.all() if one.topic == TOPIC]
        return found

    def logs_are_equal(self) -> bool:
        contents = {
            self.node(replica.broker_id).disk.content(LOG) for replica in self.state.replicas
        }
        return len(contents) == 1

    def position_of(self, broker_id: int, offset: int) -> int:
        """Return where the batch at that offset begins in a replica's file."""
        content = self.node(broker_id).disk.content(LOG)
        return sum(header.size for header, _ in split(content) if header.end_offset <= offset)


async def flip(scene: Scene, broker_id: int, offset: int = 20) -> None:
    """Flip one bit of one record."""
    at = scene.position_of(broker_id, offset)
    scene.node(broker_id).disk.flip_bit(LOG, at + 64)


def play(
    act: Callable[[Scene], Coroutine[Any, Any, None]],
    *,
    replicas: int = 3,
    configs: dict[str, str] | None = None,
    broker_settings: dict[str, Any] | None = None,
    voter_settings: dict[str, Any] | None = None,
    brokers: int = 0,
    racks: tuple[str, ...] = (),
    log_dirs: tuple[str, ...] = (DATA,),
    seed: int = 1,
) -> None:
    """Begin a scene and play it."""

    async def program(loop: SimulatedLoop) -> None:
        scene = Scene(
            loop,
            replicas=replicas,
            configs=configs or {},
            broker_settings=broker_settings,
            voter_settings=voter_settings,
            brokers=brokers,
            racks=racks,
            log_dirs=log_dirs,
        )
        structlog.configure(
            wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
            processors=[partial(_collect, scene.told)],
        )
        await scene.begin()
        await act(scene)

    with logs(verbose=False):
        simulate(program, seed)


def _collect(told: list[str], _: Any, __: str, event: MutableMapping[str, Any]) -> Any:
    told.append(event["event"])
    raise structlog.DropEvent
