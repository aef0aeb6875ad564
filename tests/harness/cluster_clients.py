"""The programs that use a simulated cluster: producer, consumer, administrator."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from quorate import Admin, Consumer, Delivery, Producer, TopicPartition
from quorate.errors import (
    CorruptRecordError,
    InvalidPartitionsError,
    LogTruncatedError,
    OffsetOutOfRangeError,
    OutcomeUnknownError,
    QuorateError,
    QuorumUnavailableError,
    StorageError,
    TopicExistsError,
    UnknownTopicError,
)
from quorate.model import AnyRecord
from quorate_testing.simulated.cluster import SimulatedCluster
from tests.harness.cluster_history import History, key_of
from tests.harness.cluster_shape import Shape
from tests.harness.invariants import Violation

T = TypeVar("T")

TOPIC = "events"
PARTITIONS = 3
#: The most partitions of a topic that grows.
PARTITIONS_MAX = 9
#: How long an administrator repeats a request until it is done.
ADMIN_S = 60.0


class Clients:
    """The clients of one cluster. Each method is the main program of a process of its own."""

    def __init__(self, cluster: SimulatedCluster, shape: Shape, chance: random.Random) -> None:
        self.cluster, self.shape, self.chance = cluster, shape, chance
        self.history = History()
        #: Whether records may be unreadable, or lost: then the consumer may raise errors of it.
        self.is_damaged: Callable[[], bool] = lambda: False
        self.is_loss_possible: Callable[[], bool] = lambda: False
        self.stop = False
        self.recreated = 0
        #: How many partitions the topic has, as far as the administrator knows.
        self.partitions = PARTITIONS
        self.cancelled = 0
        self._number = 0

    # -- producer

    async def produce(self) -> None:
        shape = self.shape
        async with Producer(
            bootstrap_servers=self.cluster.bootstrap_servers,
            delivery_timeout_ms=shape.delivery_timeout_ms,
            request_timeout_ms=shape.request_timeout_ms,
            max_batch_size=shape.max_batch_size,
            compression_type=shape.codec,
        ) as producer:
            while not self.stop:
                for _ in range(self.chance.choice((1, 1, 3, 10))):
                    await self._send(producer)
                if shape.cancels and self.chance.random() < 0.1:
                    await self._given_up(producer.flush())
                await asyncio.sleep(self.chance.uniform(0.0, 0.3))
            await producer.flush()
        await asyncio.sleep(0)

    async def _send(self, producer: Producer) -> None:
        partition = self.chance.randrange(self.partitions)
        value = b"%d" % self._number
        self._number += 1
        key = key_of(value) if self.shape.compacts else None
        self.history.sent_s[value] = self.cluster.loop.time()
        sending = producer.send(TOPIC, value, key=key, partition=partition)
        try:
            if self.shape.cancels and self.chance.random() < 0.1:
                delivery = await self._given_up(sending)
            else:
                delivery = await sending
        except QuorateError as error:
            self.history.failed[value] = error
            return
        if delivery is None:
            self.history.unsure[value] = None
            return
        self.history.sent[value] = delivery
        delivery.add_done_callback(partial(self._noted, value))

    async def _given_up(self, call: Awaitable[T]) -> T | None:
        """Await a call for a moment, then cancel it; None if it had not ended."""
        task = asyncio.ensure_future(call)
        try:
            await asyncio.sleep(self.chance.choice((0.0, 0.0, 0.001, 0.01)))
        finally:
            task.cancel()
        try:
            return await task
        except asyncio.CancelledError:
            self.cancelled += 1
            return None

    def _noted(self, value: bytes, delivery: Delivery) -> None:
        try:
            metadata = delivery.result()
        except QuorateError as error:
            self.history.failed[value] = error
            return
        self.history.acked[value] = (metadata.partition, metadata.offset)
        self.history.acked_at.append(self.cluster.loop.time())

    # -- consumers

    async def consume(self) -> None:
        """Read all that is written, for as long as the cluster lives."""
        last: dict[int, int] = {}
        async with Consumer(
            TOPIC,
            bootstrap_servers=self.cluster.bootstrap_servers,
            client_rack=self.shape.reads_in or None,
            auto_offset_reset="earliest",
        ) as consumer:
            while True:
                record = await self._next(consumer)
                if record is None:
                    continue
                may_go_back = self.shape.recreates or self.is_loss_possible()
                if record.offset <= last.get(record.partition, -1) and not may_go_back:
                    raise Violation(
                        f"the consumer of {TOPIC}-{record.partition} went from offset "
                        f"{last[record.partition]} to {record.offset}"
                    )
                last[record.partition] = record.offset
                assert record.value is not None
                self.history.live[record.value] = None
                self._saw(record.partition, record.offset, record.value)

    async def _next(self, consumer: Consumer) -> AnyRecord | None:
        """Return the next record; None if the call was cancelled, or raised an allowed error."""
        try:
            if self.shape.cancels and self.chance.random() < 0.2:
                return await self._given_up(consumer.getone())
            return await consumer.getone()
        except QuorateError as error:
            if not self._may_be_told(error):
                raise
            self.history.told[type(error).__name__] += 1
            await asyncio.sleep(0.1)
            return None

    def _may_be_told(self, error: QuorateError) -> bool:
        if self.shape.recreates:
            return True
        if isinstance(error, LogTruncatedError | OffsetOutOfRangeError):
            return self.is_loss_possible()
        if isinstance(error, StorageError):  # the only replica of all that is committed is offline
            return True
        return isinstance(error, CorruptRecordError) and self.is_damaged()

    def _saw(self, partition: int, offset: int, value: bytes) -> None:
        self.history.reads += 1
        before = self.history.seen.setdefault((partition, offset), value)
        if before != value and not self.shape.recreates and not self.is_loss_possible():
            raise Violation(f"{TOPIC}-{partition} offset {offset} was {before!r}, now {value!r}")

    async def read_all(self) -> None:
        """Read the whole topic at the end of the run."""
        history = self.history
        history.final = {number: [] for number in range(self.partitions)}
        async with Consumer(
            TOPIC, bootstrap_servers=self.cluster.bootstrap_servers, auto_offset_reset="earliest"
        ) as consumer:
            partitions = self._all_partitions()
            ends = await self._again(lambda: consumer.end_offsets(partitions))
            while any([await consumer.position(p) < end for p, end in sorted(ends.items())]):
                for records in (await self._some_of(consumer)).values():
                    for record in records:
                        assert record.value is not None
                        self._saw(record.partition, record.offset, record.value)
                        history.final[record.partition].append(record.value)
                        history.final_at[(record.partition, record.offset)] = record.value

            history.starts = {
                one.partition: start
                for one, start in (
                    await self._again(lambda: consumer.beginning_offsets(partitions))
                ).items()
            }

    async def _some_of(self, consumer: Consumer) -> dict[TopicPartition, list[AnyRecord]]:
        try:
            return await consumer.getmany(timeout_ms=1000)
        except QuorateError as error:
            if not self._may_be_told(error):
                raise
            await asyncio.sleep(0.1)
            return {}

    # -- administrator

    async def create_topic(self) -> None:
        shape = self.shape
        configs: dict[str, str | float] = {
            "min.insync.replicas": shape.min_isr,
            "flush.on.ack": shape.syncs_on_ack,
            "compression.type": shape.topic_codec,
        }
        if shape.compacts:
            configs["cleanup.policy"] = "compact,delete" if shape.retention_ms else "compact"
            configs["min.cleanable.dirty.ratio"] = 0.01
            configs["max.compaction.lag.ms"] = 1000
            configs["delete.retention.ms"] = 1000
        if shape.retention_ms:
            configs["retention.ms"] = shape.retention_ms
            configs["segment.ms"] = shape.retention_ms // 4
        async with Admin(bootstrap_servers=self.cluster.bootstrap_servers) as admin:

            async def create() -> None:
                try:
                    await admin.create_topic(TOPIC, PARTITIONS, shape.replication_factor, configs)
                except TopicExistsError:
                    if not shape.recreates:
                        raise

            await self._again(create)

    async def trim(self, until_s: float) -> None:
        """Delete the oldest records now and then, up to any offset that the log has."""
        servers = self.cluster.bootstrap_servers
        async with (
            Admin(bootstrap_servers=servers, request_timeout_ms=5000) as admin,
            Consumer(bootstrap_servers=servers) as consumer,
        ):
            while self.cluster.loop.time() < until_s:
                await asyncio.sleep(self.chance.uniform(0.5, 3))
                try:
                    ends = await consumer.end_offsets(self._all_partitions())
                    before = {one: self.chance.randint(0, end) for one, end in ends.items()}
                    for one, offset in before.items():
                        asked = self.history.trim_asked
                        asked[one.partition] = max(asked.get(one.partition, 0), offset)
                    starts = await admin.delete_records(before)
                except QuorateError as error:
                    self.history.told[f"trim: {type(error).__name__}"] += 1
                    continue
                done = self.history.trimmed
                for one in starts:
                    done[one.partition] = max(done.get(one.partition, 0), before[one])

    def _all_partitions(self) -> list[TopicPartition]:
        return [TopicPartition(TOPIC, number) for number in range(self.partitions)]

    async def grow(self, until_s: float) -> None:
        """Give the topic more partitions, now and then."""
        servers = self.cluster.bootstrap_servers
        async with Admin(bootstrap_servers=servers, request_timeout_ms=5000) as admin:
            while self.partitions < PARTITIONS_MAX:
                await asyncio.sleep(self.chance.uniform(1, 8))
                if self.cluster.loop.time() > until_s:
                    return
                count = min(PARTITIONS_MAX, self.partitions + self.chance.randint(1, 2))
                await self._again(partial(self._grow_to, admin, count))
                self.partitions = count

    async def _grow_to(self, admin: Admin, count: int) -> None:
        """Give the topic so many partitions. It is no error if an earlier try has done it."""
        try:
            await admin.create_partitions(TOPIC, count)
        except OutcomeUnknownError as error:
            raise QuorumUnavailableError(f"ask again: {error}") from error
        except InvalidPartitionsError:
            if len((await admin.describe_topics([TOPIC]))[TOPIC].partitions) != count:
                raise

    async def churn(self, until_s: float) -> None:
        """Delete the topic and make it again, now and then, and once at the end."""
        while self.cluster.loop.time() < until_s:
            await asyncio.sleep(self.chance.uniform(1, 8))
            await self.recreate()

    async def recreate(self) -> None:
        async with Admin(bootstrap_servers=self.cluster.bootstrap_servers) as admin:

            async def delete() -> None:
                try:
                    await admin.delete_topics([TOPIC])
                except UnknownTopicError:
                    return  # an earlier try did it

            self.history.next_at_deletion = self._number
            await self._again(delete)
        await asyncio.sleep(self.chance.choice((0.0, 0.0, 0.5)))
        await self.create_topic()
        self.history.first_of_topic = self._number
        self.recreated += 1

    async def _again(self, ask: Callable[[], Awaitable[T]]) -> T:
        until_s = self.cluster.loop.time() + ADMIN_S
        while True:
            try:
                return await ask()
            except QuorateError as error:
                if not error.retriable and not self.shape.recreates:
                    raise
                if self.cluster.loop.time() > until_s:
                    raise
                await asyncio.sleep(0.1)
