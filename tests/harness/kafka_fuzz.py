"""Hostile requests against a simulated broker, and what must hold afterwards.

A world is one voter and one broker, with a Kafka listener. It gets some thousand attempts of
tests/harness/hostile_requests, one after the other. The rules:

* No request ends in an error that its handler did not foresee: the broker logs no error, no task
  of it fails, and it lives to the end.
* Every answer is one that a client of that version can read.
* A request costs at most CPU_MS_PER_KIB of CPU for each KiB that it has, and as much at least.
  This counts all processes of the world. What is above is sent again twice at the end: the least
  of the three counts, because a busy machine makes one measurement wrong, and not three.
* Good clients work all the time. When the attempts are over and their connections closed, the
  broker holds no bytes of requests, and no connections. It starts again from what is on its disk.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from quorate.record.batch import BatchBuilder
from quorate_broker.listeners.kafka.listener import KafkaListeners
from quorate_broker.listeners.kafka.messages.create_topics import (
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
)
from quorate_broker.listeners.kafka.messages.delete_topics import DeleteTopicsRequest
from quorate_broker.listeners.kafka.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from quorate_broker.listeners.kafka.messages.find_coordinator import FindCoordinatorRequest
from quorate_broker.listeners.kafka.messages.join_group import (
    JoinGroupRequest,
    JoinGroupRequestProtocol,
)
from quorate_broker.listeners.kafka.messages.metadata import MetadataRequest
from quorate_broker.listeners.kafka.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from quorate_broker.listeners.kafka.messages.produce import (
    PartitionProduceData,
    ProduceRequest,
    TopicProduceData,
)
from quorate_broker.listeners.kafka.messages.sync_group import (
    SyncGroupRequest,
    SyncGroupRequestAssignment,
)
from quorate_broker.listeners.kafka.versions import (
    CREATE_TOPICS,
    DELETE_TOPICS,
    FETCH,
    FIND_COORDINATOR,
    JOIN_GROUP,
    METADATA,
    OFFSET_COMMIT,
    PRODUCE,
    SYNC_GROUP,
)
from quorate_broker.listeners.kafka.wire import MalformedRequest
from quorate_broker.server import BrokerServer
from quorate_testing.simulated.loop import SimulatedLoop, simulate
from tests.harness.hostile_batches import TIME_MS
from tests.harness.hostile_requests import Attempt, HostileRequests, Known
from tests.harness.kafka_direct import BROKER, DirectConnection, KafkaCluster
from tests.harness.kafka_messages import decode_response

CPU_MS_PER_KIB: Final = 10.0
#: Virtual seconds for an answer. Some requests wait longer, or have none: their client leaves.
ANSWER_S: Final = 0.03
#: A good client works, and the topics of attempts are cleared away, after so many attempts.
ROUND: Final = 500
#: Topics that always exist: partitions and cleanup.policy.
TOPICS: Final = {"zoo": (3, "delete"), "table": (2, "compact")}
MEMBERS_MAX: Final = 8
SEEN_MAX: Final = 5
#: What an error of these events is not: a fault of a handler.
FORESEEN: Final = ("kafka connection ended",)


class Violated(AssertionError):
    """A rule of the module does not hold."""


@dataclass
class Outcome:
    """What became of the attempts of one world."""

    counts: Counter[str] = field(default_factory=Counter)
    #: The most CPU milliseconds a KiB of a request, and which it was.
    worst: tuple[float, str] = (0.0, "")
    faults: list[str] = field(default_factory=list)


def run_world(seed: int, attempts: int, *, cpu_ms_per_kib: float = CPU_MS_PER_KIB) -> Outcome:
    """Send attempts to a new broker. Raises Violated. The seed gives the same attempts again."""

    def program(loop: SimulatedLoop) -> Coroutine[Any, Any, Outcome]:
        return _World(loop, seed, cpu_ms_per_kib).run(attempts)

    return simulate(program, seed)


class _World:
    def __init__(self, loop: SimulatedLoop, seed: int, cpu_ms_per_kib: float) -> None:
        self._cpu_ms_per_kib = cpu_ms_per_kib
        self._loop = loop
        self._seed = seed
        self._cluster = KafkaCluster(loop)
        self._known = Known({})
        self._outcome = Outcome()
        self._slow: list[tuple[Attempt, float]] = []
        self._connection: DirectConnection | None = None
        self._now = Attempt("nothing", ())

    async def run(self, attempts: int) -> Outcome:
        with _errors(self._fault):
            await self._cluster.begin()
            client = self._good()
            await self._clear(client)
            client.close()
            listeners = self._listeners()
            chance = random.Random(self._seed)
            requests = HostileRequests(chance, self._known, listeners.dispatcher.told)
            for number in range(attempts):
                await self._attempt(requests.next())
                if number % ROUND == ROUND - 1:
                    await self._good_work(number)
            await self._look_again_at_the_slow()
            await self._end(listeners)
            await self._good_work(attempts)
            self._cluster.kill(BROKER)
            self._cluster.start(BROKER)
            await self._cluster.is_up()
            await self._good_work(attempts + 1)
            self._cluster.end()
        return self._outcome

    # attempts

    async def _attempt(self, attempt: Attempt, *, again: bool = False) -> float:
        """Send it. Return the CPU milliseconds that it took in all."""
        self._now = attempt
        connection = self._connection
        if connection is None or connection.is_closed:
            connection = self._connection = self._cluster.connect()
            await asyncio.sleep(0)
        began = time.thread_time()
        answered = False
        timer = self._loop.call_later(ANSWER_S, connection.came.set)
        for piece in attempt.pieces:
            connection.came.clear()
            connection.send(piece)
            await asyncio.sleep(0)
        if not connection.found and not connection.is_closed:
            await connection.came.wait()
        timer.cancel()
        taken_ms = (time.thread_time() - began) * 1000
        while (answer := connection.next_answer()) is not None:
            answered = True
            self._read(attempt, answer)
        if not answered or not attempt.is_whole:
            connection.close()
            self._connection = None
        if not again:
            self._count(attempt, taken_ms, answered, connection.is_closed)
        return taken_ms

    def _count(self, attempt: Attempt, taken_ms: float, answered: bool, is_closed: bool) -> None:
        kind = "answered" if answered else "closed" if is_closed else "left without an answer"
        self._outcome.counts[kind] += 1
        allowed = self._cpu_ms_per_kib * max(attempt.size / 1024, 1)
        if taken_ms > allowed:
            self._slow.append((attempt, taken_ms))
        else:
            per_kib = taken_ms / max(attempt.size / 1024, 1)
            self._outcome.worst = max(self._outcome.worst, (per_kib, attempt.name))
        node = self._cluster.nodes[BROKER]
        if not node.is_running:
            self._fault(f"the broker has ended: {node.failure}")

    def _read(self, attempt: Attempt, answer: bytes) -> None:
        """Check that a client can read an answer to a request whose header is as it says."""
        if attempt.api is None:
            return
        try:
            _, message = decode_response(*attempt.api, answer)
        except (MalformedRequest, AssertionError) as error:
            self._fault(f"an answer that no client can read: {error!r}")
            return
        if attempt.api[0] == JOIN_GROUP and message.member_id:
            self._known.members = [*self._known.members, message.member_id][-MEMBERS_MAX:]

    def _fault(self, what: str) -> None:
        data = b" ".join(self._now.pieces).hex()
        told = f"{what}\n  at {self._now.name}: {data[:4000]}"
        if len(self._outcome.faults) < SEEN_MAX:
            self._outcome.faults.append(told)
        self._outcome.counts["faults"] += 1

    async def _look_again_at_the_slow(self) -> None:
        for attempt, taken_ms in self._slow:
            again = [await self._attempt(attempt, again=True) for _ in range(2)]
            least = min(taken_ms, *again) / max(attempt.size / 1024, 1)
            self._outcome.worst = max(self._outcome.worst, (least, attempt.name))
            if least > self._cpu_ms_per_kib:
                self._now = attempt
                self._fault(f"{least:.1f} ms of CPU a KiB, of {attempt.size} bytes")

    async def _end(self, listeners: KafkaListeners) -> None:
        """Close the last connection. The broker must hold nothing of any of them."""
        if self._connection is not None:
            self._connection.close()
        await asyncio.sleep(1.0)
        if listeners.connections:
            raise Violated(f"{len(listeners.connections)} connections are open after their end")
        if held := listeners.budget.held:
            raise Violated(f"the broker holds {held} bytes of requests, and has none")

    def _listeners(self) -> KafkaListeners:
        server = self._cluster.nodes[BROKER].server
        assert isinstance(server, BrokerServer)
        assert server.kafka is not None
        return server.kafka

    # good clients

    def _good(self) -> DirectConnection:
        return self._cluster.connect()

    async def _good_work(self, number: int) -> None:
        """Let a good client do what clients do; then clear away the topics of attempts."""
        self._now = Attempt("the work of a good client", ())
        client, name = self._good(), f"good-{number}"
        await self._create(client, name, 1, "delete")
        await self._produce_and_fetch(client, name)
        await self._join_and_commit(client, name)
        await self._clear(client)
        client.close()
        gc.collect()

    async def _create(self, client: DirectConnection, name: str, count: int, policy: str) -> None:
        configs = [CreatableTopicConfig("cleanup.policy", policy)]
        topic = CreatableTopic(name, count, 1, configs=configs)
        made = await client.ask(CREATE_TOPICS, 5, CreateTopicsRequest([topic], 10_000))
        self._expect(made.topics[0].error_code == 0, made)

    async def _produce_and_fetch(self, client: DirectConnection, name: str) -> None:
        builder = BatchBuilder()
        builder.append(TIME_MS, b"key", b"value")
        sent = builder.build()
        data = TopicProduceData(name, partition_data=[PartitionProduceData(0, sent)])
        code, answer = 1, None
        for _ in range(20):  # the broker may not lead its new partition yet
            answer = await client.ask(PRODUCE, 9, ProduceRequest(None, -1, 1000, [data]))
            code = answer.responses[0].partition_responses[0].error_code
            if not code:
                break
            await asyncio.sleep(0.05)
        self._expect(code == 0, answer)
        topics = [FetchTopic(name, partitions=[FetchPartition(0, partition_max_bytes=1000)])]
        request = FetchRequest(max_wait_ms=1000, min_bytes=1, max_bytes=1 << 20, topics=topics)
        fetched = await client.ask(FETCH, 12, request)
        found = bytes(fetched.responses[0].partitions[0].records)
        self._expect(found[16:] == sent[16:], fetched)

    async def _join_and_commit(self, client: DirectConnection, name: str) -> None:
        protocols = [JoinGroupRequestProtocol("range", b"any")]
        join = JoinGroupRequest(name, 10_000, 10_000, "", None, "consumer", protocols)
        code, joined = 1, None
        for _ in range(50):  # the topic of the coordinator may be new, and its groups not loaded
            await client.ask(FIND_COORDINATOR, 3, FindCoordinatorRequest(name))
            joined = await client.ask(JOIN_GROUP, 3, join)
            code = joined.error_code
            if not code:
                break
            await asyncio.sleep(0.1)
        self._expect(code == 0, joined)
        assert joined is not None
        generation, member = joined.generation_id, joined.member_id
        assignments = [SyncGroupRequestAssignment(member, b"all")]
        sync = SyncGroupRequest(name, generation, member, assignments=assignments)
        synced = await client.ask(SYNC_GROUP, 3, sync)
        self._expect(synced.assignment == b"all", synced)
        topic = OffsetCommitRequestTopic(
            name, partitions=[OffsetCommitRequestPartition(0, 1, committed_metadata="")]
        )
        commit = OffsetCommitRequest(name, generation, member, None, -1, [topic])
        committed = await client.ask(OFFSET_COMMIT, 7, commit)
        self._expect(committed.topics[0].partitions[0].error_code == 0, committed)

    async def _clear(self, client: DirectConnection) -> None:
        """Delete all topics that are not of this world, and create again those that are."""
        found = await client.ask(METADATA, 12, MetadataRequest(None))
        there = {one.name: one for one in found.topics if not one.is_internal}
        passing = [name for name in there if name not in TOPICS]
        if passing:
            await client.ask(
                DELETE_TOPICS, 5, DeleteTopicsRequest(topic_names=passing, timeout_ms=10_000)
            )
        for name, (count, policy) in TOPICS.items():
            if name not in there:
                await self._create(client, name, count, policy)
        found = await client.ask(METADATA, 12, MetadataRequest(None))
        self._known.topics = {
            one.name: one.topic_id for one in found.topics if one.name in TOPICS or one.is_internal
        }

    def _expect(self, holds: bool, answer: object) -> None:
        if not holds:
            raise Violated(f"seed {self._seed}: a good client got {answer}")


@contextmanager
def _errors(told: Callable[[str], None]) -> Iterator[None]:
    """Tell each error that is logged."""

    def tell(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        error = event.get("exc_info")
        told(f"an error was logged: {event}" + (f": {error!r}" if error else ""))
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(
        processors=[tell], wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR)
    )
    try:
        yield
    finally:
        structlog.configure(**before)
