"""A topic gets more partitions in a whole simulated cluster, while nodes are killed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import pytest

from quorate import Admin, Consumer, Producer
from quorate.errors import (
    InvalidPartitionsError,
    OutcomeUnknownError,
    PolicyViolationError,
    QuorateError,
    UnknownTopicError,
)
from quorate_broker.server import BrokerServer
from quorate_quorum.controller.driver import reign
from quorate_quorum.server import QuorumServer
from quorate_testing.simulated.cluster import ClusterShape, SimulatedCluster, SimulatedNode
from quorate_testing.simulated.loop import SimulatedLoop, simulate
from tests.harness.amounts import few_or_many
from tests.harness.invariants import partitions_of

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(120)]

#: More than one slice, so that a kill comes between two of them.
LARGE = 800


@pytest.fixture(autouse=True)
def _slices_are_committed_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without this, the slices of a growth follow one another faster than a commit."""
    monkeypatch.setattr(reign, "UNCOMMITTED_MAX", 50)


def with_cluster(
    scene: Callable[[SimulatedCluster, Admin], Awaitable[None]], seed: int = 1
) -> None:
    """Play a scene in a cluster of three voters and four brokers, of which none is fenced."""

    async def program(loop: SimulatedLoop) -> None:
        cluster = SimulatedCluster(loop, ClusterShape(brokers=4, racks=("R1", "R2")))
        await cluster.format()
        cluster.start_all()

        async def play() -> None:
            servers = cluster.bootstrap_servers
            async with Admin(bootstrap_servers=servers, request_timeout_ms=60_000) as admin:
                while sum(not one.fenced for one in (await admin.describe_cluster()).brokers) < 4:
                    pass
                await scene(cluster, admin)

        await cluster.spawn_client(play)

    simulate(program, seed, time_max_s=600)


def controller(cluster: SimulatedCluster) -> SimulatedNode | None:
    """The voter that leads the newest reign."""
    leading = [
        (node.server.raft.epoch, node)
        for node in cluster.voters
        if isinstance(node.server, QuorumServer) and node.server.raft.is_leader
    ]
    return max(leading, key=lambda one: one[0])[1] if leading else None


def known_by_voters(cluster: SimulatedCluster, topic: str) -> int:
    """The number of the topic's partitions in the newest committed image of a voter."""
    counts = [0]
    for node in cluster.voters:
        if isinstance(node.server, QuorumServer) and node.server._rooms is not None:
            found = node.server._rooms.controller.image.topic_named(topic)
            counts.append(0 if found is None else len(found.partitions))
    return max(counts)


async def until(holds: Callable[[], bool], pause_s: float = 0.1) -> None:
    async with asyncio.timeout(120):
        while not holds():  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(pause_s)


async def all_in_sync(cluster: SimulatedCluster, topic: str, partitions: int) -> None:
    """Wait until no broker is fenced, and each partition has a leader with a full ISR."""

    def whole() -> bool:
        led = []
        for node in cluster.brokers:
            if not isinstance(node.server, BrokerServer) or node.server.is_fenced:
                return False
            held = [one for one in partitions_of(node.server) if one.topic == topic]
            led += [one.partition for one in held if one.is_leader and len(one.isr) == 3]
        return sorted(led) == list(range(partitions))

    await until(whole)


def test_what_is_asked_wrongly_changes_nothing_and_names_both_numbers() -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        await admin.create_topic("t", 3, 3)
        for count in (3, 2, 1, 0, -1, 10_001, 2**31 - 1):
            for validate_only in (True, False):
                with pytest.raises(InvalidPartitionsError, match=f"has 3 partitions, and {count} "):
                    await admin.create_partitions("t", count, validate_only=validate_only)
        with pytest.raises(UnknownTopicError, match="'nothing'"):
            await admin.create_partitions("nothing", 5)
        with pytest.raises(InvalidPartitionsError, match="that is 2 more, but 1 are assigned"):
            await admin.create_partitions("t", 5, assignments=[[0, 1, 2]])
        assert len((await admin.create_partitions("t", 5, validate_only=True)).partitions) == 3
        assert len((await admin.describe_topics(["t"]))["t"].partitions) == 3
        topic = await admin.create_partitions("t", 5, assignments=[[2, 0, 1], [1, 2, 0]])
        assert [one.replicas for one in topic.partitions[3:]] == [(2, 0, 1), (1, 2, 0)]

    with_cluster(scene)


def test_an_internal_topic_is_not_grown() -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        voter = controller(cluster)
        assert voter is not None
        assert isinstance(voter.server, QuorumServer)
        assert voter.server._rooms is not None
        assert voter.process is not None
        active = voter.server._rooms.controller.active()
        await voter.process.spawn(active.create_internal_topic("__consumer_offsets"), name="make")
        while "__consumer_offsets" not in await admin.list_topics(internal=True):
            pass
        before = (await admin.describe_topics(["__consumer_offsets"]))["__consumer_offsets"]
        with pytest.raises(PolicyViolationError, match="is Quorate's own"):
            await admin.create_partitions("__consumer_offsets", 50)
        after = (await admin.describe_topics(["__consumer_offsets"]))["__consumer_offsets"]
        assert after == before

    with_cluster(scene)


@pytest.mark.parametrize("seed", range(few_or_many(1, 3)))
def test_a_controller_that_is_killed_amid_a_large_growth_is_no_hindrance(seed: int) -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        await admin.create_topic("t", 3, 3)
        growing = asyncio.ensure_future(admin.create_partitions("t", LARGE))
        await until(lambda: known_by_voters(cluster, "t") > 3, 0.001)
        voter = controller(cluster)
        assert voter is not None
        half = known_by_voters(cluster, "t")
        cluster.kill(voter.name)
        assert 3 < half < LARGE, "the kill comes in the middle"
        topic = await growing
        assert len(topic.partitions) == LARGE
        assert all(one.leader >= 0 for one in topic.partitions)
        with pytest.raises(InvalidPartitionsError, match=f"has {LARGE} partitions, and {LARGE} "):
            await admin.create_partitions("t", LARGE)
        cluster.start(voter.name)
        await all_in_sync(cluster, "t", LARGE)

    with_cluster(scene, seed)


def test_a_quorum_that_is_lost_amid_a_growth_leaves_it_unknown_and_the_same_call_ends_it() -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        await admin.create_topic("t", 3, 3)
        servers = cluster.bootstrap_servers
        async with Admin(bootstrap_servers=servers, request_timeout_ms=3_000) as hasty:
            growing = asyncio.ensure_future(hasty.create_partitions("t", LARGE))
            await until(lambda: known_by_voters(cluster, "t") > 3, 0.001)
            voters = [node.name for node in cluster.voters[:2]]
            for name in voters:
                cluster.kill(name)
            with pytest.raises(QuorateError) as raised:
                await growing
            assert raised.value.retriable or isinstance(raised.value, OutcomeUnknownError)
            for name in voters:
                cluster.start(name)
        assert len((await admin.create_partitions("t", LARGE)).partitions) == LARGE
        await all_in_sync(cluster, "t", LARGE)

    with_cluster(scene)


@dataclass(slots=True)
class Flow:
    """One producer and two consumers of a topic that grows."""

    cluster: SimulatedCluster
    chance: random.Random
    acked: dict[bytes, int] = field(default_factory=dict)
    #: By consumer: the values that it has read, in order, by partition.
    read: dict[str, dict[int, list[bytes]]] = field(default_factory=dict)
    is_over: bool = False

    async def produce(self) -> None:
        """Write with keys, without keys, and to any partition that the producer knows."""
        number = 0
        async with Producer(
            bootstrap_servers=self.cluster.bootstrap_servers, delivery_timeout_ms=60_000
        ) as producer:
            while not self.is_over:
                value = b"%d" % number
                key = self.chance.choice((None, b"key-%d" % (number % 40)))
                known = sorted(await producer.partitions_for("t"))
                partition = self.chance.choice((None, None, self.chance.choice(known)))
                done = await producer.send_and_wait("t", value, key, partition)
                self.acked[value] = done.partition
                number += 1
                await asyncio.sleep(self.chance.uniform(0.0, 0.02))

    async def consume(self, policy: str, started: asyncio.Event) -> None:
        read = self.read[policy] = {}
        async with Consumer(
            "t", bootstrap_servers=self.cluster.bootstrap_servers, auto_offset_reset=policy
        ) as consumer:
            started.set()
            async for record in consumer:
                assert record.value is not None
                read.setdefault(record.partition, []).append(record.value)

    def is_read_by(self, policy: str) -> bool:
        found = {value for values in self.read[policy].values() for value in values}
        return self.acked.keys() <= found

    def check(self) -> None:
        for policy, read in self.read.items():
            values = [value for values in read.values() for value in values]
            assert len(values) == len(set(values)), f"{policy}: records are read twice"
            for value, partition in self.acked.items():
                assert value in read[partition], f"{policy}: {value!r} was acknowledged"
            for partition, found in read.items():
                numbers = [int(value) for value in found]
                assert numbers == sorted(numbers), f"{policy}: t-{partition} is out of order"


@pytest.mark.parametrize("seed", range(few_or_many(1, 3)))
def test_nothing_is_lost_or_passed_over_while_a_topic_grows_under_kills(seed: int) -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        chance = random.Random(seed)
        flow = Flow(cluster, chance)
        await admin.create_topic("t", 1, 3, {"min.insync.replicas": 2})
        started = {policy: asyncio.Event() for policy in ("earliest", "latest")}
        reading = [
            cluster.spawn_client(partial(flow.consume, policy, event), f"reader-{policy}")
            for policy, event in started.items()
        ]
        for event in started.values():
            await event.wait()
        producing = cluster.spawn_client(flow.produce, "producer")
        count = 1
        for more in (chance.randint(1, 5), chance.randint(110, 150), chance.randint(1, 50)):
            await asyncio.sleep(chance.uniform(0.5, 3))
            count += more
            growing = asyncio.ensure_future(admin.create_partitions("t", count))
            await asyncio.sleep(chance.choice((0.0, 0.01, 0.03, 0.1)))
            down = [chance.choice(cluster.brokers)]
            if chance.random() < 0.6 and (voter := controller(cluster)) is not None:
                down.append(voter)
            for node in down:
                cluster.kill(node.name)
            assert len((await growing).partitions) == count
            await asyncio.sleep(chance.uniform(0.0, 2))
            for node in down:
                cluster.start(node.name)
            await all_in_sync(cluster, "t", count)
        await asyncio.sleep(5)
        flow.is_over = True
        await producing
        await until(lambda: all(map(flow.is_read_by, started)))
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        flow.check()
        assert len(flow.acked) > 100
        assert max(flow.acked.values()) > 1, "the new partitions are written"

    with_cluster(scene, seed)


#: How a consumer names the topic, and its group ("": none).
KINDS = {
    "pattern": ("pattern", ""),
    "group": ("topic", "g"),
    "group with a pattern": ("pattern", "g"),
}


@dataclass(slots=True)
class Members:
    """Two consumers of one kind. Both begin at the end: auto_offset_reset is latest.

    In a group they share the partitions. Without one each reads all.
    """

    cluster: SimulatedCluster
    names: str
    group: str
    read: list[dict[int, list[bytes]]] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    placed: list[asyncio.Event] = field(default_factory=list)

    def start(self) -> None:
        self.read.append({})
        self.placed.append(asyncio.Event())
        number = len(self.tasks)
        main = partial(self._run, self.read[-1], self.placed[-1])
        self.tasks.append(self.cluster.spawn_client(main, f"member-{number}"))

    async def _run(self, read: dict[int, list[bytes]], placed: asyncio.Event) -> None:
        async with Consumer(
            bootstrap_servers=self.cluster.bootstrap_servers,
            group_id=self.group or None,
            auto_offset_reset="latest",
            auto_commit_interval_ms=500,
        ) as consumer:
            if self.names == "pattern":
                await consumer.subscribe(pattern="^t$")
            else:
                await consumer.subscribe(["t"])
            while True:
                records = await consumer.getmany(timeout_ms=100)
                for key, found in records.items():
                    values = [record.value for record in found if record.value is not None]
                    read.setdefault(key.partition, []).extend(values)
                for key in consumer.assignment():
                    await consumer.position(key)
                if consumer.assignment() or self.group:
                    placed.set()

    def missing(self, acked: dict[bytes, int]) -> list[tuple[bytes, int, int]]:
        """Return the acknowledged records that a reader lacks: value, partition, reader.

        The reader is -1 for a group: none of its members has read the record.
        """
        if self.group:
            found = {(v, p) for read in self.read for p, values in read.items() for v in values}
            return [(value, p, -1) for value, p in acked.items() if (value, p) not in found]
        return [
            (value, partition, number)
            for number, read in enumerate(self.read)
            for value, partition in acked.items()
            if value not in read.get(partition, ())
        ]

    def check_order(self) -> None:
        """No reader skips back, except that a group gives again what was not committed."""
        for read in self.read:
            for partition, values in read.items():
                numbers = [int(value) for value in values]
                if not self.group:
                    assert numbers == sorted(set(numbers)), f"t-{partition}"
                    continue
                back = [b for a, b in pairwise(numbers) if b <= a]
                assert len(back) <= len(self.tasks), f"t-{partition}: {numbers}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(few_or_many(1, 10)))
def test_consumers_of_each_kind_read_added_partitions_from_their_beginning_under_kills(
    kind: str, seed: int
) -> None:
    """The trap of `latest`: a partition that is added would lose its first records."""

    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        chance = random.Random(seed)
        await admin.create_topic("t", 2, 3, {"min.insync.replicas": 2})
        members, flow = Members(cluster, *KINDS[kind]), Flow(cluster, chance)
        members.start()
        members.start()
        for placed in members.placed:
            await placed.wait()
        await asyncio.sleep(8)  # the group is stable, and has positions
        producing = cluster.spawn_client(flow.produce, "producer")
        count = 2
        for fault in chance.sample(("broker", "voter", "member", "none"), 3):
            await asyncio.sleep(chance.uniform(0.2, 2))
            count += chance.randint(1, 4)
            growing = asyncio.ensure_future(admin.create_partitions("t", count))
            await asyncio.sleep(chance.choice((0.0, 0.02, 0.3)))
            voter = controller(cluster)
            down = chance.choice(cluster.brokers) if fault == "broker" else None
            down = voter if fault == "voter" else down
            if fault == "member" and members.group:
                members.tasks[0].cancel()
                members.start()
            if down is not None:
                cluster.kill(down.name)
            assert len((await growing).partitions) == count
            await asyncio.sleep(chance.uniform(0.0, 2))
            if down is not None:
                cluster.start(down.name)
            await all_in_sync(cluster, "t", count)
        await asyncio.sleep(3)
        flow.is_over = True
        await producing
        await until(lambda: not members.missing(flow.acked))
        for task in members.tasks:
            task.cancel()
        await asyncio.gather(*members.tasks, return_exceptions=True)
        members.check_order()
        assert len(set(flow.acked.values())) > 2, "the added partitions are written"

    with_cluster(scene, seed)
