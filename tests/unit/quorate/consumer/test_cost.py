"""What a record costs does not grow with the partitions: counted in calls, not in time."""

from __future__ import annotations

import asyncio
import sys
from types import FrameType
from typing import Any, cast

from quorate import Consumer
from quorate.net.network import Peer
from quorate.v1.records_pb2 import FetchPartition, FetchRequest
from quorate_broker.listeners.grpc.answers import Hints
from quorate_broker.listeners.grpc.fetch import FetchStream
from quorate_broker.operations.fetch import Fetch
from quorate_broker.replica.fetched import Fetched
from quorate_quorum.node.authorizer import ALLOW_ALL
from quorate_quorum.node.config import BrokerConfig
from tests.harness.fake_leaders import FakeCluster, with_cluster
from tests.unit.quorate_broker.builders import batch_of

RECORDS = 4000
PER_BATCH = 10
#: The calls of one turn of a partition.
TURN_CALLS_MAX = 40


class Calls:
    """Counts the functions that are called, ours and those of the interpreter."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Calls:
        sys.setprofile(self._event)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _event(self, frame: FrameType, event: str, argument: object) -> None:
        self.count += event in ("call", "c_call")


def calls_to_read(partitions: int) -> float:
    """Return the calls per record of a consumer, fetching included, brokers excluded."""

    async def program(cluster: FakeCluster) -> float:
        topic = cluster.add_topic("t", partitions)
        for number in range(RECORDS // PER_BATCH):
            topic.partitions[number % partitions].append(bytes(batch_of(*[b"v"] * PER_BATCH)))
        async with Consumer(
            "t", bootstrap_servers=cluster.bootstrap, auto_offset_reset="earliest"
        ) as c:
            await asyncio.sleep(1)
            with Calls() as calls:
                read = 0
                while read < RECORDS:
                    read += sum(map(len, (await c.getmany(max_records=100)).values()))
            return calls.count / read

    return with_cluster(program)


def test_reading_costs_the_same_with_one_partition_and_with_hundreds() -> None:
    calls_to_read(1)  # what a process does once, such as an import, belongs to neither
    one, many = calls_to_read(1), calls_to_read(400)
    print(f"calls per record: {one:.2f} with one partition, {many:.2f} with 400")
    # ten records share the turn of a partition, and its one batch
    assert many - one <= TURN_CALLS_MAX / PER_BATCH


class Idle:
    """A partition at whose end a fetch waits."""

    topic = "zoo"

    def __init__(self) -> None:
        self.end = 0
        self.wakes: list[Any] = []

    async def fetch(self, offset: int, **_: object) -> Any:
        return Fetched(b"x" * (self.end - offset), self.end, 0)

    def as_leader(self, _: int) -> Idle:
        return self

    @property
    def watches(self) -> Idle:
        return self

    def add(self, wake: Any) -> Any:
        self.wakes.append(wake)
        return lambda: None


async def calls_to_serve(partitions: int) -> int:
    """Return the calls of a broker's session to answer with one record of one partition."""
    held = [Idle() for _ in range(partitions)]

    class Replicas:
        def get(self, topic_id: bytes, partition: int) -> Idle:
            return held[partition]

    queue: asyncio.Queue[FetchRequest] = asyncio.Queue()

    async def requests() -> Any:
        while True:
            yield await queue.get()

    config = BrokerConfig(node_id=0, listeners=("b0:7092",), log_dirs=("/data",))
    replicas, peer = cast(Any, Replicas()), Peer("test")
    fetch = Fetch(replicas, config, ALLOW_ALL)
    session = FetchStream(fetch, peer, Hints(peer, replicas), config)
    reading = asyncio.create_task(session.read(requests()))
    named = [
        FetchPartition(topic_id=b"t" * 16, partition=n, leader_epoch=-1, max_bytes=9)
        for n in range(partitions)
    ]
    queue.put_nowait(FetchRequest(request_id=1, max_bytes=99, partitions=named))
    await session.next_answer()
    queue.put_nowait(FetchRequest(request_id=2, max_bytes=99, max_wait_ms=60_000))
    answering = asyncio.ensure_future(session.next_answer())
    for _ in range(10):
        await asyncio.sleep(0)
    with Calls() as calls:
        held[3].end = 1
        for wake in held[3].wakes:
            wake()
        answer = await answering
    assert answer is not None
    assert [one.partition for one in answer.header.partitions] == [3]
    reading.cancel()
    session.close()
    return calls.count


async def test_serving_a_record_costs_the_same_in_a_small_session_and_in_a_large_one() -> None:
    small, large = await calls_to_serve(10), await calls_to_serve(900)
    print(f"calls: {small} in a session of 10, {large} in one of 900")
    assert large <= small + 5
