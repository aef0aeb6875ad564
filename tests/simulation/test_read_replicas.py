"""Consumers that read from followers in their rack, in a whole simulated cluster (KIP-392).

Native consumers, and Kafka clients as far as the protocol goes: each record is read once, in order,
and no record that is not in the log at the end, whatever leaders and followers suffer.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest

from quorate import Admin, Consumer, Producer, TopicPartition
from quorate.errors import (
    LogTruncatedError,
    NotLeaderError,
    OffsetOutOfRangeError,
    QuorateError,
)
from quorate.record.batch import split
from quorate_broker.replica.fetched import Fetched
from quorate_broker.replica.follower_reads import FollowerReads
from quorate_testing.simulated.cluster import ClusterShape, SimulatedCluster
from quorate_testing.simulated.loop import SimulatedLoop, simulate
from tests.harness.amounts import few_or_many
from tests.harness.world import logs

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(120)]

TOPIC = "t"
KEY = TopicPartition(TOPIC, 0)


class Scene:
    """Brokers 0 and 1 are in rack R1, the others in R2. The topic has one partition, led by 0."""

    def __init__(self, loop: SimulatedLoop, brokers: int, settings: dict[str, Any]) -> None:
        self.loop = loop
        self.cluster = SimulatedCluster(
            loop, ClusterShape(brokers=brokers, racks=("R1", "R2"), broker_settings=settings)
        )
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


async def all_unfenced(admin: Admin, count: int) -> None:
    while sum(not one.fenced for one in (await admin.describe_cluster()).brokers) < count:
        pass


async def leader_of(admin: Admin) -> tuple[int, tuple[int, ...]]:
    [partition] = (await admin.describe_topics([TOPIC]))[TOPIC].partitions
    return partition.leader, tuple(partition.isr)


def play(
    story: Callable[[Scene, Admin], Awaitable[None]],
    seed: int,
    *,
    brokers: int = 3,
    replicas: Sequence[int] = (0, 1, 2),
    settings: dict[str, Any] | None = None,
) -> Scene:
    """Play a story while a program writes, and another in rack R2 reads."""
    scenes: list[Scene] = []

    async def program(loop: SimulatedLoop) -> None:
        scene = Scene(loop, brokers, settings or {})
        scenes.append(scene)
        cluster = scene.cluster
        await cluster.format()
        cluster.start_all()

        async def act() -> None:
            async with Admin(bootstrap_servers=cluster.bootstrap_servers) as admin:
                await all_unfenced(admin, brokers)
                await admin.create_topic(
                    TOPIC, configs={"min.insync.replicas": 2}, assignments=[list(replicas)]
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
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[int]]:
    """How many answers with records each broker gave as a follower.

    No record in them is at or above the follower's own high watermark.
    """
    counts: Counter[int] = Counter()
    above: list[str] = []
    plain = FollowerReads.fetch

    async def counted(self: FollowerReads, offset: int, **limits: Any) -> Fetched:
        found = await plain(self, offset, **limits)
        counts[self._replica.broker_id] += bool(found.batches)
        end = max((header.end_offset for header, _ in split(found.batches)), default=0)
        if end > self._machine.high_watermark:
            above.append(f"broker {self._replica.broker_id}: {end}")
        return found

    monkeypatch.setattr(FollowerReads, "fetch", counted)
    yield counts
    assert above == []


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


async def until(holds: Callable[[], bool], what: str) -> None:
    try:
        async with asyncio.timeout(60):
            while not holds():  # noqa: ASYNC110  (virtual time)
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"not within 60 s: {what}") from None


async def in_isr(admin: Admin, broker_id: int, *, is_in: bool) -> None:
    async with asyncio.timeout(60):
        while (broker_id in (await leader_of(admin))[1]) != is_in:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def lag_of(consumer: Consumer) -> int:
    ends = await consumer.end_offsets([KEY])
    return ends[KEY] - await consumer.position(KEY)


async def elected_uncleanly(admin: Admin, broker_id: int) -> None:
    """Accept the loss until the broker leads. At first no broker may run."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(QuorateError):
                await admin.elect_leaders([KEY], unclean=True)
                if (await leader_of(admin))[0] == broker_id:
                    return
            await asyncio.sleep(0.2)


async def moved_to(admin: Admin, target: Sequence[int]) -> None:
    """Begin a move, and return when it is done."""
    assert (await admin.reassign_partitions({KEY: list(target)}))[KEY] is None
    async with asyncio.timeout(60):
        while await admin.list_reassignments():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("seed", range(few_or_many(1, 20)))
def test_a_consumer_reads_on_when_its_follower_is_moved_away(
    seed: int, served: Counter[int]
) -> None:
    """To another broker of the rack, out of the rack, and back; and a move that is cancelled."""

    async def story(scene: Scene, admin: Admin) -> None:
        chance = random.Random(seed)
        await until(lambda: served[2] > 3, "broker 2 serves")
        await moved_to(admin, [0, 1, 3])
        await until(lambda: served[3] > 3, "broker 3 of the same rack serves")
        await moved_to(admin, [0, 1])
        before, count = len(scene.read), sum(served.values())
        await until(lambda: len(scene.read) > before + 10, "the leader serves")
        assert sum(served.values()) == count, "no other replica is in the rack"
        begun = await admin.reassign_partitions({KEY: [2, 0, 1]})
        assert begun[KEY] is None
        await asyncio.sleep(chance.uniform(0, 0.2))
        await admin.reassign_partitions({KEY: None})  # the move may have ended
        await moved_to(admin, [1, 0, 2])
        before = served[2]
        await until(lambda: served[2] > before + 3, "broker 2 serves again")
        await moved_to(admin, [2, 3])  # its follower becomes the leader, in the same rack
        await asyncio.sleep(chance.uniform(0, 1))

    play(story, seed, brokers=4)


@pytest.mark.parametrize("end", ["kill", "pause"])
def test_a_consumer_reads_on_when_its_whole_rack_is_gone(end: str, served: Counter[int]) -> None:
    """The consumer itself is in the rack, and lives."""

    async def story(scene: Scene, admin: Admin) -> None:
        await until(lambda: served[2] + served[3] > 3, "a broker of the rack serves")
        for name in ("broker-2", "broker-3"):
            getattr(scene.cluster, end)(name)
        await asyncio.sleep(10)
        assert len(scene.acked) - len(scene.read) < 20
        assert len(scene.acked) > 60, "min ISR is held elsewhere"
        for name in ("broker-2", "broker-3"):
            if end == "kill":
                scene.cluster.start(name)
            else:
                scene.cluster.resume(name)
        before = served[2] + served[3]
        await until(lambda: served[2] + served[3] > before + 10, "it goes back to its rack")

    play(story, 1, brokers=4, replicas=(0, 1, 2, 3))


def test_a_follower_that_falls_behind_and_leaves_the_isr_serves_no_more(
    served: Counter[int],
) -> None:
    """Its disk is slow. It hears its leader all the time, and its consumer reaches it."""

    async def story(scene: Scene, admin: Admin) -> None:
        await until(lambda: served[2] > 3, "broker 2 serves")
        disk = scene.cluster.nodes["broker-2"].disk
        disk.slow = 60.0
        await in_isr(admin, 2, is_in=False)
        await asyncio.sleep(1)
        before, count = len(scene.read), served[2]
        await asyncio.sleep(3)
        assert len(scene.read) > before + 20
        assert served[2] == count
        disk.slow = 0.0
        await until(lambda: served[2] > count + 3, "it goes back when the follower is in the ISR")

    play(story, 1, settings={"replica_lag_time_max_ms": 2_000})


@pytest.mark.parametrize("seed", range(few_or_many(1, 20)))
def test_a_consumer_of_a_follower_learns_where_the_log_was_cut(
    seed: int, served: Counter[int]
) -> None:
    """An unclean election loses what broker 2, from which it was read, and broker 0 had."""

    async def program(loop: SimulatedLoop) -> None:
        chance = random.Random(seed)
        cluster = SimulatedCluster(
            loop,
            ClusterShape(racks=("R1", "R2"), voter_settings={"unclean_recovery_wait_ms": 2_000}),
        )
        await cluster.format()
        cluster.start_all()

        async def write(values: Sequence[bytes]) -> None:
            async with Producer(bootstrap_servers=cluster.bootstrap_servers) as producer:
                for value in values:
                    await producer.send_and_wait(TOPIC, value, partition=0)

        async def act() -> None:
            async with Admin(bootstrap_servers=cluster.bootstrap_servers) as admin:
                await all_unfenced(admin, 3)
                await admin.create_topic(
                    TOPIC, configs={"min.insync.replicas": 1}, assignments=[[0, 1, 2]]
                )
                await write([b"kept-%d" % n for n in range(10)])
                cluster.kill("broker-1")
                await in_isr(admin, 1, is_in=False)
                async with Consumer(
                    bootstrap_servers=cluster.bootstrap_servers,
                    client_rack="R2",
                    auto_offset_reset="none",
                ) as consumer:
                    await consumer.assign([KEY])
                    consumer.seek(KEY, 0)
                    await write([b"lost-%d" % n for n in range(10)])
                    read = [(await consumer.getone()).value for _ in range(20)]
                    assert read[10:] == [b"lost-%d" % n for n in range(10)]
                    await write([b"lost-10"])
                    assert (await consumer.getone()).value == b"lost-10"
                    assert served[2] > 0
                    for name in ("broker-0", "broker-2"):
                        cluster.kill(name)
                    cluster.start("broker-1")
                    await elected_uncleanly(admin, 1)
                    late = chance.choice([True, False])
                    if not late:
                        cluster.start("broker-2")
                    await write([b"new-%d" % n for n in range(chance.choice([3, 30]))])
                    if late:
                        cluster.start("broker-2")
                    with pytest.raises(LogTruncatedError) as raised:
                        async with asyncio.timeout(60):
                            await consumer.getone()
                    assert raised.value.safe_offset == 10
                    consumer.seek(KEY, 10)
                    async with asyncio.timeout(60):
                        assert (await consumer.getone()).value == b"new-0"
                    await in_isr(admin, 2, is_in=True)
                    before, found = served[2], [b"new-0"]
                    async with asyncio.timeout(60):
                        while served[2] == before or not found[-1].startswith(b"last"):
                            await write([b"last"])
                            while await lag_of(consumer):
                                found.append((await consumer.getone()).value or b"")
                    assert not any(b"lost" in value for value in found)

        await cluster.spawn_client(act)

    with logs(verbose=False):
        simulate(program, seed)


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


def test_a_follower_that_refuses_is_left_alone_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The consumer would go to and fro between it and the leader, and hardly read."""
    asked: list[int] = []
    plain = FollowerReads.fetch

    async def refuse(self: FollowerReads, offset: int, **limits: Any) -> Fetched:
        asked.append(offset)
        if len(asked) > 50:  # let a consumer that goes to and fro come to an end
            return await plain(self, offset, **limits)
        raise NotLeaderError("this follower serves no consumers")

    monkeypatch.setattr(FollowerReads, "fetch", refuse)

    async def story(scene: Scene, admin: Admin) -> None:
        asked.clear()
        await asyncio.sleep(12)
        assert 1 <= len(asked) <= 4

    play(story, 1)


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
