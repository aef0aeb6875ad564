"""One group with members of three kinds: Kafka's classic ones, KIP-848 ones, and native ones."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Protocol, Self

import aiokafka
import pytest
from confluent_kafka import Consumer as ConfluentConsumer
from confluent_kafka import ConsumerGroupTopicPartitions, Producer
from confluent_kafka.admin import AdminClient

from quorate import Consumer
from quorate_testing import EmbeddedCluster

PARTITIONS = 6
#: Generous, since other programs may have the processors.
WAIT_S = 120.0
#: Longer than a program may be without a processor, and shorter than the test waits.
SESSION_MS = 40_000


@pytest.fixture(scope="module")
def cluster() -> Iterator[EmbeddedCluster]:
    with EmbeddedCluster(brokers=2) as cluster:
        yield cluster


class Program(Protocol):
    """What a thread does as a member of the group."""

    def run(self, thread: Reading) -> None:
        """Read until `thread.stops` is set, then leave the group with all committed."""


class Reading:
    """A program that reads in a thread of its own, from entry to exit."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self.stops = threading.Event()
        self.values: list[str] = []
        #: The partitions that it reads from.
        self.owned: frozenset[int] = frozenset()
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._live, name="a member")

    def _live(self) -> None:
        try:
            self._program.run(self)
        except BaseException as error:
            self.error = error
        finally:
            self.owned = frozenset()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def leave(self) -> None:
        self.stops.set()
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive(), "the program does not stop"
        assert self.error is None, self.error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stops.set()
        self._thread.join(WAIT_S)


class Confluent:
    """A member with librdkafka, of either protocol."""

    def __init__(self, servers: str, topic: str, group: str, **settings: str | int) -> None:
        self._settings = {
            "bootstrap.servers": servers,
            "group.id": group,
            "auto.offset.reset": "earliest",
            **{name.replace("_", "."): value for name, value in settings.items()},
        }
        self._topic = topic

    def run(self, thread: Reading) -> None:
        consumer = ConfluentConsumer(self._settings)
        consumer.subscribe([self._topic])
        try:
            while not thread.stops.is_set():
                message = consumer.poll(0.05)
                thread.owned = frozenset(one.partition for one in consumer.assignment())
                if message is not None:
                    assert message.error() is None, message.error()
                    value = message.value()
                    assert isinstance(value, bytes)
                    thread.values.append(value.decode())
        finally:
            consumer.close()


class AioKafka:
    """A classic member with aiokafka, which gives all back before it joins again."""

    def __init__(self, servers: str, topic: str, group: str) -> None:
        self._servers, self._topic, self._group = servers, topic, group

    def run(self, thread: Reading) -> None:
        asyncio.run(self._read(thread))

    async def _read(self, thread: Reading) -> None:
        consumer = aiokafka.AIOKafkaConsumer(
            self._topic,
            bootstrap_servers=self._servers,
            group_id=self._group,
            auto_offset_reset="earliest",
            session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=500,
        )
        await consumer.start()
        try:
            while not thread.stops.is_set():
                found = await consumer.getmany(timeout_ms=50)
                thread.owned = frozenset(one.partition for one in consumer.assignment())
                for records in found.values():
                    thread.values += [(one.value or b"").decode() for one in records]
        finally:
            await consumer.stop()


class Native:
    """A member with Quorate's own client."""

    def __init__(self, servers: str, topic: str, group: str) -> None:
        self._servers, self._topic, self._group = servers, topic, group

    def run(self, thread: Reading) -> None:
        asyncio.run(self._read(thread))

    async def _read(self, thread: Reading) -> None:
        consumer = Consumer(
            self._topic,
            bootstrap_servers=self._servers,
            group_id=self._group,
            auto_offset_reset="earliest",
            session_timeout_ms=SESSION_MS,
        )
        await consumer.start()
        while not thread.stops.is_set():
            found = await consumer.getmany(timeout_ms=50)
            thread.owned = frozenset(one.partition for one in consumer.assignment())
            for records in found.values():
                thread.values += [(one.value or b"").decode() for one in records]
        await consumer.stop()


class Scene:
    """A topic, the group that reads it, and what was written so far."""

    def __init__(self, cluster: EmbeddedCluster, topic: str) -> None:
        self._cluster, self.topic, self.group = cluster, topic, f"g-{topic}"
        cluster.create_topic(topic, PARTITIONS)
        self._producer = Producer({"bootstrap.servers": cluster.kafka_bootstrap_servers})
        self.written: list[str] = []
        self.readings: list[Reading] = []

    def write(self) -> None:
        """Write ten records to each partition."""
        for at in range(10 * PARTITIONS):
            value = f"{len(self.written)}"
            self._producer.produce(self.topic, value.encode(), partition=at % PARTITIONS)
            self.written.append(value)
        assert self._producer.flush(WAIT_S) == 0

    def until(self, what: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not holds():
            for one in self.readings:
                assert one.error is None, one.error
            told = [(sorted(one.owned), len(one.values)) for one in self.readings]
            assert time.monotonic() < deadline, f"not in time: {what}; {told}"
            threading.Event().wait(0.02)

    def is_shared(self, *members: Reading) -> bool:
        """Return whether these members have all partitions between them, in equal parts."""
        owned = [one.owned for one in members]
        return (
            sorted(number for one in owned for number in one) == [*range(PARTITIONS)]
            and max(map(len, owned)) - min(map(len, owned)) <= 1
        )

    def settle(self, *members: Reading) -> None:
        """Wait for equal parts, and until all that was written is read; write in between."""
        self.write()
        self.until("equal parts", lambda: self.is_shared(*members))
        self.write()
        self.until("all is read", lambda: len({*self.read()}) == len(self.written))

    def read(self) -> list[str]:
        return [value for one in self.readings for value in one.values]

    def committed(self) -> dict[int, int]:
        admin = AdminClient({"bootstrap.servers": self._cluster.kafka_bootstrap_servers})
        asked = ConsumerGroupTopicPartitions(self.group)
        (told,) = admin.list_consumer_group_offsets([asked]).values()
        return {one.partition: one.offset for one in told.result().topic_partitions}


@pytest.mark.parametrize("classic", ["confluent", "aiokafka"])
def test_members_of_three_kinds_hand_over_without_loss_and_without_double(
    cluster: EmbeddedCluster, classic: str
) -> None:
    scene = Scene(cluster, f"three-kinds-{classic}")
    servers, topic, group = cluster.kafka_bootstrap_servers, scene.topic, scene.group

    def old_program() -> Program:
        if classic == "aiokafka":
            return AioKafka(servers, topic, group)
        return Confluent(
            servers,
            topic,
            group,
            partition_assignment_strategy="cooperative-sticky",
            session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=500,
        )

    with ExitStack() as stack:

        def begin(program: Program) -> Reading:
            reading = stack.enter_context(Reading(program))
            scene.readings.append(reading)
            return reading

        old = begin(old_program())
        scene.settle(old)
        polling = begin(Confluent(servers, topic, group, group_protocol="consumer"))
        scene.settle(old, polling)
        native = begin(Native(cluster.bootstrap_servers, topic, group))
        scene.settle(old, polling, native)
        old.leave()
        scene.settle(polling, native)
        old_again = begin(old_program())
        scene.settle(old_again, polling, native)
        polling.leave()
        scene.settle(old_again, native)
        native.leave()
        # The group is a classic one again.
        scene.settle(old_again)
        old_again.leave()
    twice = [value for value, count in Counter(scene.read()).items() if count > 1]
    assert twice == []
    assert {*scene.read()} == {*scene.written}
    each = len(scene.written) // PARTITIONS
    assert scene.committed() == dict.fromkeys(range(PARTITIONS), each)
