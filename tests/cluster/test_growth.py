"""Real processes: a topic grows while a producer and consumers run; nothing is lost or skipped."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial

import pytest

from quorate import Admin, Consumer, Producer
from quorate.errors import InvalidPartitionsError
from quorate_cli.local import LocalCluster
from quorate_cli.local_shape import Shape, free_port
from tests.cluster.support import PATIENCE_S, create, describe, started, until, whole

#: More than one batch of the metadata log.
MANY = 250


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A cluster of these tests' own, in which one broker may be down."""
    with started(tmp_path_factory.mktemp("four"), Shape(brokers=4, port=free_port(4))) as running:
        yield running


class Flow:
    """A producer and consumers of one topic, until `stop`."""

    def __init__(self, cluster: LocalCluster, topic: str) -> None:
        self.cluster, self.topic = cluster, topic
        #: Value -> partition, of the acknowledged records.
        self.acked: dict[bytes, int] = {}
        #: By consumer: (partition, offset, value) of each record, in the order of reading.
        self.read: dict[str, list[tuple[int, int, bytes]]] = {}
        self.is_over = False

    async def produce(self) -> None:
        async with Producer(bootstrap_servers=self.cluster.bootstrap_servers) as producer:
            number = 0
            while not self.is_over:
                known = len(await producer.partitions_for(self.topic))
                value, key, partition = b"%d" % number, None, None
                if number % 3 == 0:
                    key = b"key-%d" % (number % 50)
                elif number % 3 == 1:
                    partition = number % known
                done = await producer.send_and_wait(self.topic, value, key, partition)
                self.acked[value] = done.partition
                number += 1

    async def consume(self, name: str, started: asyncio.Event) -> None:
        read = self.read[name] = []
        async with Consumer(
            self.topic,
            bootstrap_servers=self.cluster.bootstrap_servers,
            auto_offset_reset=name,
        ) as consumer:
            started.set()
            async for record in consumer:
                assert record.value is not None
                read.append((record.partition, record.offset, record.value))

    async def more(self, holds: Callable[[], bool], what: str) -> None:
        """Wait for 30 more acknowledged records, and for `holds`."""
        goal = len(self.acked) + 30
        await until(lambda: len(self.acked) >= goal and holds(), what)

    def partitions_written(self) -> set[int]:
        return set(self.acked.values())

    def fills(self, count: int) -> bool:
        """Whether records of so many partitions were written, and read by each consumer."""
        by_reader = [{partition for partition, _, _ in read} for read in self.read.values()]
        return all(one == set(range(count)) for one in (self.partitions_written(), *by_reader))

    def has_read_all(self, name: str) -> bool:
        return self.acked.keys() <= {value for _, _, value in self.read[name]}

    def check(self) -> None:
        for name, read in self.read.items():
            values = [value for _, _, value in read]
            assert len(values) == len(set(values)), f"{name}: records are read twice"
            next_offset: dict[int, int] = {}
            for partition, offset, _ in read:
                assert offset == next_offset.get(partition, 0), f"{name}: {partition} skips"
                next_offset[partition] = offset + 1


@contextlib.asynccontextmanager
async def flowing(cluster: LocalCluster, topic: str) -> AsyncIterator[Flow]:
    await create(cluster, topic, 2)
    flow = Flow(cluster, topic)
    ready = {name: asyncio.Event() for name in ("latest", "earliest")}
    reading = [asyncio.create_task(flow.consume(name, one)) for name, one in ready.items()]
    for one in ready.values():
        async with asyncio.timeout(PATIENCE_S):
            await one.wait()
    producing = asyncio.create_task(flow.produce())
    try:
        await flow.more(lambda: True, "the first records")
        yield flow
    finally:
        flow.is_over = True
        async with asyncio.timeout(PATIENCE_S):
            await producing
    await until(lambda: all(map(flow.has_read_all, ready)), "consumers that have read all")
    for task in reading:
        task.cancel()
    await asyncio.gather(*reading, return_exceptions=True)
    flow.check()


async def test_a_topic_grows_under_a_producer_and_its_consumers(four: LocalCluster) -> None:
    async with (
        Admin(bootstrap_servers=four.bootstrap_servers) as admin,
        flowing(four, "grows") as flow,
    ):
        for count in (3, 8):
            assert len((await admin.create_partitions("grows", count)).partitions) == count
            await flow.more(partial(flow.fills, count), f"{count} partitions written and read")
    await whole(four, "grows")


async def test_it_grows_while_a_broker_and_the_quorums_leader_are_killed(
    four: LocalCluster,
) -> None:
    async with (
        Admin(bootstrap_servers=four.bootstrap_servers, request_timeout_ms=60_000) as admin,
        flowing(four, "grows-on") as flow,
    ):
        growing = asyncio.create_task(admin.create_partitions("grows-on", MANY))
        four.kill((await admin.describe_quorum()).leader, 3)
        topic = await growing
        assert len(topic.partitions) == MANY
        await flow.more(lambda: max(flow.partitions_written()) > 2, "records in new partitions")
        four.died()
        four.start([one for one in four.nodes if one not in four.processes])
        await four.wait_ready(timeout=PATIENCE_S)
        await flow.more(lambda: True, "records after the restart")
    await whole(four, "grows-on")


async def test_what_is_asked_wrongly_changes_nothing(four: LocalCluster) -> None:
    await create(four, "stays", 3)
    async with Admin(bootstrap_servers=four.bootstrap_servers) as admin:
        before = await describe(four, "stays")
        for count in (3, 1, 0, -1, 10_001):
            with pytest.raises(InvalidPartitionsError, match=f"has 3 partitions, and {count} were"):
                await admin.create_partitions("stays", count)
        assert await describe(four, "stays") == before
