"""The programs that write to a simulated cluster and read from it."""

from __future__ import annotations

import asyncio
import random
from asyncio import Task
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, TypeVar

from quorate import Consumer, Delivery, Producer, TopicPartition
from quorate.errors import (
    CorruptRecordError,
    LogTruncatedError,
    OffsetOutOfRangeError,
    QuorateError,
    StorageError,
)
from quorate.model import AnyRecord
from quorate.record.compression import NAMES
from quorate_testing.simulated.cluster import SimulatedCluster
from tests.harness.cluster_history import History, key_of
from tests.harness.cluster_shape import Shape
from tests.harness.invariants import Violation

T = TypeVar("T")

TOPIC = "events"
PARTITIONS = 3
PRODUCER, CONSUMER = "producer", "consumer"
#: How long an administrator repeats a request until it is done.
ADMIN_S = 60.0


@asynccontextmanager
async def started(make: Callable[[], AbstractAsyncContextManager[T]]) -> AsyncIterator[T]:
    """Start a client, and try again for as long as it finds no cluster; stop it at the end."""
    async with AsyncExitStack() as stack:
        while True:
            try:
                client = await stack.enter_async_context(make())
                break
            except QuorateError:
                await asyncio.sleep(0.1)
        yield client


class Clients:
    """The producers and consumers of one cluster, each the main program of a process of its own."""

    def __init__(self, cluster: SimulatedCluster, shape: Shape, chance: random.Random) -> None:
        self.cluster, self.shape, self.chance = cluster, shape, chance
        self.history = History(live=[{} for _ in shape.reads_in], under_way_max=shape.producers)
        #: Whether records may be unreadable, or lost: then consumers may raise errors of it.
        self.is_damaged: Callable[[], bool] = lambda: False
        self.is_loss_possible: Callable[[], bool] = lambda: False
        #: Told of each record of the present topic that is acknowledged: partition, offset.
        self.on_acknowledged: Callable[[int, int], None] = lambda _partition, _offset: None
        self.stop = False
        #: How many partitions the topic has, as far as the administrator knows.
        self.partitions = PARTITIONS
        #: The number of the next send.
        self.number = 0
        self.cancelled = 0
        self.deaths = 0
        self._producers = 0
        #: Consumer -> partition -> the last offset that it has read.
        self._last: list[dict[int, int]] = [{} for _ in shape.reads_in]
        self._running: dict[str, tuple[Callable[[], Coroutine[Any, Any, None]], Task[None]]] = {}

    # -- processes

    def start(self, kind: str) -> None:
        """Start all producers, or all consumers."""
        if kind == PRODUCER:
            for number in range(self.shape.producers):
                self._run(f"{PRODUCER}-{number}", self.produce)
        else:
            for number in range(len(self.shape.reads_in)):
                self._run(f"{CONSUMER}-{number}", partial(self.consume, number))

    def tasks(self, kind: str) -> list[Task[None]]:
        """Return the tasks of the producers, or of the consumers, that live."""
        return [task for name, (_, task) in self._running.items() if name.startswith(kind)]

    @property
    def names(self) -> list[str]:
        """The names of the processes."""
        return list(self._running)

    async def die(self, until_s: float) -> None:
        """Kill a client now and then, and start another in its place."""
        while self.cluster.loop.time() < until_s:
            await asyncio.sleep(self.chance.uniform(1, 5))
            name = self.chance.choice(self.names)
            main, task = self._running[name]
            if task.done():
                continue
            self.cluster.loop.process(name).kill()
            await asyncio.sleep(self.chance.choice((0.0, 0.1, 1.0)))
            self._run(name, main)
            self.deaths += 1

    def _run(self, name: str, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._running[name] = main, self.cluster.spawn_client(main, name)

    # -- producers

    async def produce(self) -> None:
        """Write until `stop`. Another process has another producer number."""
        shape, me = self.shape, self._producers
        self._producers += 1
        is_first = me == 0
        codec = shape.codec if is_first else self.chance.choice(NAMES)
        async with started(
            lambda: Producer(
                bootstrap_servers=self.cluster.bootstrap_servers,
                delivery_timeout_ms=shape.delivery_timeout_ms,
                request_timeout_ms=shape.request_timeout_ms,
                max_batch_size=shape.max_batch_size,
                compression_type=codec,
            )
        ) as producer:
            while not self.stop:
                for _ in range(self.chance.choice((1, 1, 3, 10))):
                    await self._send(producer, me)
                if shape.cancels and self.chance.random() < 0.1:
                    await self._given_up(producer.flush())
                await asyncio.sleep(self.chance.uniform(0.0, 0.3) * shape.producers)
            await producer.flush()
        await asyncio.sleep(0)

    async def _send(self, producer: Producer, me: int) -> None:
        partition = self.chance.randrange(self.partitions)
        value = b"%d" % self.number
        self.number += 1
        if me:
            self.history.producer_of[value] = me
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
        if int(value) >= self.history.first_of_topic:
            self.on_acknowledged(metadata.partition, metadata.offset)

    # -- consumers

    async def consume(self, me: int) -> None:
        """Read all that is written, for as long as the cluster lives.

        Another process of this consumer goes on behind the last record that was read.
        """
        last = self._last[me]
        async with started(
            lambda: Consumer(
                bootstrap_servers=self.cluster.bootstrap_servers,
                client_rack=self.shape.reads_in[me] or None,
                auto_offset_reset="earliest",
            )
        ) as consumer:
            consumer.subscribe([TOPIC])
            await self._go_on_at(consumer, last)
            while True:
                record = await self._next(consumer)
                if record is None:
                    continue
                may_go_back = self.shape.recreates or self.is_loss_possible()
                if record.offset <= last.get(record.partition, -1) and not may_go_back:
                    raise Violation(
                        f"consumer {me} of {TOPIC}-{record.partition} went from offset "
                        f"{last[record.partition]} to {record.offset}"
                    )
                last[record.partition] = record.offset
                assert record.value is not None
                self.history.live[me][record.value] = None
                self._saw(record.partition, record.offset, record.value)

    async def _go_on_at(self, consumer: Consumer, last: dict[int, int]) -> None:
        """Seek behind the records that an earlier process of this consumer has read."""
        wanted = {TopicPartition(TOPIC, number): offset + 1 for number, offset in last.items()}
        while not wanted.keys() <= consumer.assignment():  # noqa: ASYNC110  (virtual time)
            await asyncio.sleep(0.01)  # the assignment comes with the metadata
        for partition, offset in wanted.items():
            consumer.seek(partition, offset)

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
            partitions = self.all_partitions()
            ends = await self.again(lambda: consumer.end_offsets(partitions))
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
                    await self.again(lambda: consumer.beginning_offsets(partitions))
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

    # -- what administrators use, too

    def all_partitions(self) -> list[TopicPartition]:
        return [TopicPartition(TOPIC, number) for number in range(self.partitions)]

    async def again(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask until there is an answer; raise the error if it is another than may be repeated."""
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
