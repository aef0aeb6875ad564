"""Consumers of a group in a whole simulated cluster: joins, leaves, crashes, failovers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from quorate import Admin, Consumer, Producer, Record, TopicPartition
from quorate.errors import NonEmptyGroupError
from quorate_testing.simulated.cluster import ClusterShape, SimulatedCluster
from quorate_testing.simulated.loop import Process, SimulatedLoop, current_process, simulate
from tests.harness.amounts import few_or_many

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(120)]

PARTITIONS = 6
Scene = Callable[[SimulatedCluster, Admin], Awaitable[None]]


def in_a_cluster(scene: Scene, seed: int = 1) -> None:
    """Play a scene in a cluster with the topic t of six partitions and three replicas."""

    async def program(loop: SimulatedLoop) -> None:
        cluster = SimulatedCluster(loop, ClusterShape())
        await cluster.format()
        cluster.start_all()

        async def play() -> None:
            async with Admin(bootstrap_servers=cluster.bootstrap_servers) as admin:
                unfenced = 0
                while unfenced < len(cluster.brokers):
                    found = await admin.describe_cluster()
                    unfenced = sum(not one.fenced for one in found.brokers)
                await admin.create_topic("t", PARTITIONS, 3)
                await scene(cluster, admin)

        await cluster.spawn_client(play)

    simulate(program, seed)


@dataclass
class Reader:
    """A consumer of the group that reads all the time, and notes what it was given and told."""

    consumer: Consumer
    records: list[Record[Any, Any]] = field(default_factory=list)
    told: list[tuple[str, frozenset[TopicPartition]]] = field(default_factory=list)

    def on_partitions_assigned(self, keys: list[TopicPartition]) -> None:
        self.told.append(("assigned", frozenset(keys)))

    async def on_partitions_revoked(self, keys: list[TopicPartition]) -> None:
        self.told.append(("revoked", frozenset(keys)))

    async def on_partitions_lost(self, keys: list[TopicPartition]) -> None:
        self.told.append(("lost", frozenset(keys)))

    async def read(self) -> None:
        async for record in self.consumer:
            self.records.append(record)


@asynccontextmanager
async def reader(cluster: SimulatedCluster, **settings: Any) -> AsyncIterator[Reader]:
    settings.setdefault("auto_offset_reset", "earliest")
    consumer = Consumer(bootstrap_servers=cluster.bootstrap_servers, group_id="g", **settings)
    one = Reader(consumer)
    consumer.subscribe(["t"], listener=one)
    async with consumer:
        reading = asyncio.create_task(one.read())
        try:
            yield one
        finally:
            reading.cancel()
            await asyncio.wait([reading])


class Program:
    """A reader in a process of its own, which can be killed and paused."""

    def __init__(self, cluster: SimulatedCluster, **settings: Any) -> None:
        self.reader: Reader | None = None
        self.process: Process | None = None
        self._leaves = asyncio.Event()
        self.task = cluster.spawn_client(lambda: self._run(cluster, settings))

    async def _run(self, cluster: SimulatedCluster, settings: dict[str, Any]) -> None:
        self.process = current_process()
        async with reader(cluster, **settings) as self.reader:
            await self._leaves.wait()

    def has(self, count: int) -> bool:
        return self.reader is not None and len(self.reader.consumer.assignment()) == count

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()

    async def leave(self) -> None:
        self._leaves.set()
        await self.task


def readers(*programs: Program) -> list[Reader]:
    return [one.reader for one in programs if one.reader is not None]


async def write(cluster: SimulatedCluster, values: range) -> None:
    async with Producer(bootstrap_servers=cluster.bootstrap_servers) as producer:
        for number in values:
            await producer.send("t", b"%d" % number, partition=number % PARTITIONS)


async def until(holds: Callable[[], bool], what: str) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110  (any condition, not an event)
            await asyncio.sleep(0.005)


def values(*found: Reader) -> list[int]:
    return sorted(int(record.value or b"") for one in found for record in one.records)


async def coordinator(admin: Admin) -> str:
    return f"broker-{(await admin.describe_groups(['g']))['g'].coordinator}"


def test_two_members_share_the_work_and_each_record_is_read_once() -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        await write(cluster, range(60))
        async with reader(cluster) as first:
            await until(lambda: len(first.records) == 60, "all read")
            async with reader(cluster) as second:
                await until(lambda: len(second.consumer.assignment()) == 3, "shared")
                await until(lambda: len(first.consumer.assignment()) == 3, "shared")
                await write(cluster, range(60, 120))
                await until(lambda: len(first.records + second.records) >= 120, "all read")
                assert values(first, second) == list(range(120))
                assert len(second.records) == 30
            await until(lambda: len(first.consumer.assignment()) == 6, "all again")
            [described] = (await admin.describe_groups(["g"])).values()
            assert (described.state, len(described.members)) == ("Stable", 1)
            assert len(described.members[0].assignment) == 6
            assert [one.group_id for one in await admin.list_groups()] == ["g"]
            with pytest.raises(NonEmptyGroupError):
                await admin.alter_group_offsets("g", {TopicPartition("t", 0): 0})
        committed = await admin.list_group_offsets("g")
        assert [value.offset for value in committed.values()] == [20] * 6
        await admin.alter_group_offsets("g", {TopicPartition("t", 0): 15})
        async with reader(cluster) as third:
            await until(lambda: len(third.records) == 5, "read again")
        await admin.delete_groups(["g"])
        assert await admin.list_groups() == []

    in_a_cluster(scene)


@pytest.mark.parametrize("seed", range(few_or_many(1, 3)))
def test_a_member_that_is_killed_is_replaced_within_a_second(seed: int) -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        await write(cluster, range(60))
        first, second = Program(cluster), Program(cluster)
        await until(lambda: first.has(3) and second.has(3), "shared")
        await until(lambda: len(set(values(*readers(first, second)))) == 60, "all read")
        loop = asyncio.get_running_loop()
        killed_at = loop.time()
        first.kill()
        await until(lambda: second.has(6), "taken over")
        assert loop.time() - killed_at < 1
        await write(cluster, range(60, 120))
        survivors = readers(second)
        await until(lambda: set(range(60, 120)) <= set(values(*survivors)), "all read")
        await second.leave()

    in_a_cluster(scene, seed)


@pytest.mark.parametrize("seed", range(few_or_many(1, 3)))
def test_the_death_of_the_coordinator_moves_no_partition_and_loses_no_offset(seed: int) -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        await write(cluster, range(60))
        async with reader(cluster) as first, reader(cluster) as second:
            both = (first, second)
            await until(lambda: len(first.consumer.assignment()) == 3, "shared")
            await until(lambda: len(second.consumer.assignment()) == 3, "shared")
            await until(lambda: len(set(values(*both))) == 60, "all read")
            told = [list(one.told) for one in both]
            await asyncio.gather(*(one.consumer.commit() for one in both))
            loop = asyncio.get_running_loop()
            cluster.kill(await coordinator(admin))
            killed_at = loop.time()
            await asyncio.gather(*(one.consumer.commit() for one in both))
            waited = loop.time() - killed_at
            await asyncio.sleep(10)
            assert [one.told for one in both] == told
            committed = await admin.list_group_offsets("g")
            assert [value.offset for value in committed.values()] == [10] * 6
            print(f"seed {seed}: a commit took {waited:.2f} s over the death of the coordinator")

    in_a_cluster(scene, seed)


def test_only_partitions_that_must_move_are_revoked() -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        first, second = Program(cluster), Program(cluster)
        await until(lambda: first.has(3) and second.has(3), "shared")
        kept = [one.consumer.assignment() for one in readers(first, second)]
        before = [len(one.told) for one in readers(first, second)]
        third = Program(cluster)
        await until(lambda: first.has(2) and second.has(2) and third.has(2), "shared by three")
        for one, had, told in zip(readers(first, second), kept, before, strict=True):
            assert one.consumer.assignment() < had
            assert one.told[told:] == [("revoked", had - one.consumer.assignment())]
        events = [len(one.told) for one in readers(first, second)]
        await third.leave()
        await until(lambda: first.has(3) and second.has(3), "shared again")
        for one, told in zip(readers(first, second), events, strict=True):
            assert [name for name, _ in one.told[told:]] == ["assigned"]
        await first.leave()
        await second.leave()

    in_a_cluster(scene)


def test_a_static_member_that_is_killed_and_comes_back_moves_nothing() -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        first = Program(cluster)
        static = Program(cluster, group_instance_id="a", session_timeout_ms=30_000)
        await until(lambda: first.has(3) and static.has(3), "shared")
        had = [one.consumer.assignment() for one in readers(first, static)]
        told = len(readers(first)[0].told)
        for _ in range(2):
            static.kill()
            await asyncio.sleep(2)
            static = Program(cluster, group_instance_id="a", session_timeout_ms=30_000)
            await until(lambda: static.has(3), "back")  # noqa: B023 (awaited here)
        await static.leave()
        await asyncio.sleep(2)
        static = Program(cluster, group_instance_id="a", session_timeout_ms=30_000)
        await until(lambda: static.has(3), "back after a stop")
        assert [one.consumer.assignment() for one in readers(first, static)] == had
        assert len(readers(first)[0].told) == told
        static.kill()
        await until(lambda: first.has(6), "taken over after the session")
        await first.leave()

    in_a_cluster(scene)


def test_a_program_that_hangs_is_replaced_within_its_session() -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        first, second = Program(cluster, session_timeout_ms=6000), Program(cluster)
        await until(lambda: first.has(3) and second.has(3), "shared")
        assert first.process is not None
        loop = asyncio.get_running_loop()
        paused_at = loop.time()
        first.process.pause()
        await until(lambda: second.has(6), "taken over")
        assert loop.time() - paused_at < 7
        first.process.resume()
        await until(lambda: first.has(3) and second.has(3), "shared again")
        assert "lost" in [name for name, _ in readers(first)[0].told]
        await first.leave()
        await second.leave()

    in_a_cluster(scene)


@pytest.mark.parametrize("policy", ["earliest", "latest"])
def test_partitions_that_are_added_are_read_from_their_beginning(policy: str) -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        first = Program(cluster, auto_offset_reset=policy)
        second = Program(cluster, auto_offset_reset=policy)
        await until(lambda: first.has(3) and second.has(3), "shared")
        await admin.create_partitions("t", 8)
        async with Producer(bootstrap_servers=cluster.bootstrap_servers) as producer:
            for number in range(20):
                await producer.send_and_wait("t", b"%d" % number, partition=6 + number % 2)
        await until(lambda: values(*readers(first, second)) == list(range(20)), "all read")
        await first.leave()
        await second.leave()

    in_a_cluster(scene)


def test_with_latest_a_group_reads_of_the_past_what_is_newer_than_its_first_commit() -> None:
    """It commits one partition of six by hand. The topic grows while the group is down."""

    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        await write(cluster, range(60))
        settings: dict[str, Any] = {"auto_offset_reset": "latest", "enable_auto_commit": False}
        first = TopicPartition("t", 0)
        async with reader(cluster, **settings) as one:
            await write(cluster, range(60, 61))
            await until(lambda: values(one) == [60], "the new record is read")
            await one.consumer.commit({first: 11})
        async with reader(cluster, **settings) as one:
            await asyncio.sleep(5)
            assert values(one) == []
        await admin.create_partitions("t", 8)
        async with Producer(bootstrap_servers=cluster.bootstrap_servers) as producer:
            await producer.send_and_wait("t", b"70", partition=6)
            await producer.send_and_wait("t", b"71", partition=7)
        async with reader(cluster, **settings) as one:
            await until(lambda: len(one.consumer.assignment()) == 8, "all assigned")
            await asyncio.sleep(5)
            assert values(one) == [70, 71]
        await admin.alter_group_offsets("new", {first: 0})
        settings |= {"bootstrap_servers": cluster.bootstrap_servers, "group_id": "new"}
        async with Consumer("t", **settings) as other:
            found = [await other.getone() for _ in range(11)]
            assert {record.partition for record in found} == {0}
            assert await other.getmany(timeout_ms=5000) == {}
        committed = await admin.list_group_offsets("g")
        assert {key: value.offset for key, value in committed.items()} == {first: 11}

    in_a_cluster(scene)


def test_a_pattern_reads_topics_that_are_created_later_and_not_those_that_are_deleted() -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        consumer = Consumer(
            bootstrap_servers=cluster.bootstrap_servers, group_id="p", auto_offset_reset="earliest"
        )
        consumer.subscribe(pattern="t[0-9]*")
        async with consumer:
            await until(lambda: len(consumer.assignment()) == PARTITIONS, "the first topic")
            await admin.create_topic("t1", 2, 3)
            await admin.create_topic("u1", 2, 3)
            await until(lambda: len(consumer.assignment()) == PARTITIONS + 2, "the new topic")
            await admin.delete_topics(["t"])
            await until(lambda: {key.topic for key in consumer.assignment()} == {"t1"}, "gone")
            await admin.create_topic("t", 1, 3)
            await until(lambda: len(consumer.assignment()) == 3, "made again")

    in_a_cluster(scene)


def test_two_groups_read_independently() -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        await write(cluster, range(12))
        async with (
            reader(cluster) as first,
            Consumer(
                "t",
                bootstrap_servers=cluster.bootstrap_servers,
                group_id="other",
                auto_offset_reset="earliest",
            ) as other,
        ):
            await until(lambda: values(first) == list(range(12)), "all read")
            found = [await other.getone() for _ in range(12)]
            assert sorted(int(record.value or b"") for record in found) == list(range(12))
        groups = await admin.list_groups()
        assert [(one.group_id, one.state) for one in groups] == [("g", "Empty"), ("other", "Empty")]

    in_a_cluster(scene)
