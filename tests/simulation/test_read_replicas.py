"""Consumers that read from followers in their rack, in a whole simulated cluster (KIP-392).

Native consumers, and Kafka clients as far as the protocol goes: each record is read once, in order,
and no record that is not in the log at the end, whatever leaders and followers suffer.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from quorate import Admin, Consumer, Producer, TopicPartition
from quorate.errors import OffsetOutOfRangeError
from quorate_broker.replica.fetched import Fetched
from quorate_broker.replica.follower_reads import FollowerReads
from quorate_testing.simulated.cluster import ClusterShape, SimulatedCluster
from quorate_testing.simulated.loop import SimulatedLoop, simulate
from tests.harness.world import logs

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(120)]

TOPIC = "t"
KEY = TopicPartition(TOPIC, 0)


class Scene:
    """Brokers 0 and 1 are in rack R1, broker 2 in R2. The topic has one partition, led by 0."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self.loop = loop
        self.cluster = SimulatedCluster(loop, ClusterShape(racks=("R1", "R2")))
        self.acked: list[bytes] = []
        self.read: list[bytes] = []
        self.is_over = False

    async def produce(self) -> None:
        number = 0
        async with Producer(
            bootstrap_servers=self.cluster.bootstrap_servers, delivery_timeout_ms=60_000
        ) as producer:
            while not self.is_over:
                value = b"%d" % number
                number += 1
                await producer.send_and_wait(TOPIC, value, partition=0)
                self.acked.append(value)
                await asyncio.sleep(0.05)

    async def consume(self, rack: str) -> None:
        async with Consumer(
            TOPIC,
            bootstrap_servers=self.cluster.bootstrap_servers,
            client_rack=rack,
            auto_offset_reset="none",
        ) as consumer:
            consumer.seek(KEY, 0)
            async for record in consumer:
                assert record.offset == len(self.read), "no record is skipped or read twice"
                assert record.value is not None
                self.read.append(record.value)


async def leader_of(admin: Admin) -> tuple[int, tuple[int, ...]]:
    [partition] = (await admin.describe_topics([TOPIC]))[TOPIC].partitions
    return partition.leader, tuple(partition.isr)


def play(story: Callable[[Scene, Admin], Awaitable[None]], seed: int) -> Scene:
    """Play a story while a program writes, and another in rack R2 reads."""
    scenes: list[Scene] = []

    async def program(loop: SimulatedLoop) -> None:
        scene = Scene(loop)
        scenes.append(scene)
        cluster = scene.cluster
        await cluster.format()
        cluster.start_all()

        async def act() -> None:
            async with Admin(bootstrap_servers=cluster.bootstrap_servers) as admin:
                while sum(not one.fenced for one in (await admin.describe_cluster()).brokers) < 3:
                    pass
                await admin.create_topic(
                    TOPIC, configs={"min.insync.replicas": 2}, assignments=[[0, 1, 2]]
                )
                await asyncio.sleep(0.5)
                writing = cluster.spawn_client(scene.produce, "writer")
                reading = cluster.spawn_client(lambda: scene.consume("R2"), "reader")
                await asyncio.sleep(1)
                await story(scene, admin)
                await asyncio.sleep(2)
                scene.is_over = True
                await writing
                async with asyncio.timeout(60):
                    while scene.read != scene.acked:  # noqa: ASYNC110  (virtual time)
                        await asyncio.sleep(0.05)
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

        await cluster.spawn_client(act)

    with logs(verbose=False):
        simulate(program, seed)
    return scenes[0]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How many answers with records each broker gave as a follower."""
    counts: Counter[int] = Counter()
    plain = FollowerReads.fetch

    async def counted(self: FollowerReads, offset: int, **limits: Any) -> Fetched:
        found = await plain(self, offset, **limits)
        counts[self._replica.broker_id] += bool(found.batches)
        return found

    monkeypatch.setattr(FollowerReads, "fetch", counted)
    return counts


def test_a_consumer_reads_from_the_follower_in_its_rack(served: Counter[int]) -> None:
    async def story(scene: Scene, admin: Admin) -> None:
        before = len(scene.read)
        await asyncio.sleep(1)
        assert len(scene.read) > before + 10

    play(story, 1)
    assert served[2] > 10
    assert set(served) == {2}


@pytest.mark.parametrize("end", ["kill", "pause"])
def test_the_consumer_reads_on_from_the_leader_when_its_follower_is_gone(
    end: str, served: Counter[int]
) -> None:
    """A paused broker keeps its connections, and says nothing."""

    async def story(scene: Scene, admin: Admin) -> None:
        assert served[2] > 3
        cluster = scene.cluster
        getattr(cluster, end)("broker-2")
        await asyncio.sleep(8)
        assert len(scene.acked) - len(scene.read) < 20
        if end == "pause":
            cluster.resume("broker-2")
        else:
            cluster.start("broker-2")
        async with asyncio.timeout(60):
            while len((await leader_of(admin))[1]) < 3:  # noqa: ASYNC110  (virtual time)
                await asyncio.sleep(0.1)
        before = served[2]
        await asyncio.sleep(7)
        assert served[2] > before + 10, "it goes back to the follower"

    play(story, 1)


def test_a_follower_s_word_about_a_position_is_not_final(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only the leader knows if a position exists. The consumer would raise an error otherwise."""
    plain = FollowerReads.fetch
    raised: list[int] = []

    async def odd(self: FollowerReads, offset: int, **limits: Any) -> Fetched:
        if offset % 10 == 5 and offset not in raised:
            raised.append(offset)
            raise OffsetOutOfRangeError("no such offset here")
        return await plain(self, offset, **limits)

    monkeypatch.setattr(FollowerReads, "fetch", odd)

    async def story(scene: Scene, admin: Admin) -> None:
        await asyncio.sleep(2)

    play(story, 1)
    assert raised


@pytest.mark.parametrize("seed", range(1))
def test_leaders_and_followers_change_under_the_consumer(seed: int, served: Counter[int]) -> None:
    async def story(scene: Scene, admin: Admin) -> None:
        chance = random.Random(seed)
        for _ in range(3):
            name = f"broker-{chance.randrange(3)}"
            chance.choice((scene.cluster.kill, scene.cluster.pause))(name)
            await asyncio.sleep(chance.uniform(0.1, 8))
            node = scene.cluster.nodes[name]
            if node.is_running:
                scene.cluster.resume(name)
            else:
                scene.cluster.start(name)
            await asyncio.sleep(chance.uniform(1, 3))
            await admin.elect_leaders()
            await asyncio.sleep(chance.uniform(0, 2))

    scene = play(story, seed)
    assert len(scene.read) > 50
    assert sum(served.values()) > 10
