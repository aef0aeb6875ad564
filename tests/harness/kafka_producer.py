"""An idempotent producer of the Kafka protocol, in the simulated world.

It acts as librdkafka does: several batches of a partition are under way, and after an error all
that are not acknowledged are sent again, in order, with the same sequence numbers.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from quorate.record.batch import BatchBuilder
from quorate_broker.listeners.kafka import errors
from quorate_broker.listeners.kafka.messages.init_producer_id import InitProducerIdRequest
from quorate_broker.listeners.kafka.messages.metadata import MetadataRequest, MetadataRequestTopic
from quorate_broker.listeners.kafka.messages.produce import (
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    TopicProduceData,
)
from quorate_broker.listeners.kafka.versions import INIT_PRODUCER_ID, METADATA, PRODUCE
from quorate_testing.simulated.sockets import Ports
from tests.harness.kafka_connection import ConnectionLost, KafkaConnection, connect

ALL = -1
REQUEST_MS = 200
ANSWER_S = 3.0
BACKOFF_S = 0.05
PAUSE_MAX_S = 0.06
RECORDS_MAX = 3
#: The errors after which a client sends again.
RETRIABLE = frozenset(
    (
        errors.UNKNOWN_TOPIC_OR_PARTITION,
        errors.LEADER_NOT_AVAILABLE,
        errors.NOT_LEADER_OR_FOLLOWER,
        errors.REQUEST_TIMED_OUT,
        errors.NOT_ENOUGH_REPLICAS,
        errors.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        errors.KAFKA_STORAGE_ERROR,
        errors.LISTENER_NOT_FOUND,
    )
)


class SendAgain(Exception):
    """The leader must be looked up, and what is not acknowledged sent again."""


class Refused(AssertionError):
    """An answer that no fault may cause."""


class Sent(NamedTuple):
    sequence: int
    values: tuple[bytes, ...]


@dataclass(eq=False)
class KafkaProducer:
    """Writes numbers to one partition until `is_stopped`, then waits for all acknowledgements."""

    ports: Ports
    endpoints: list[str]
    topic: str
    partition: int
    chance: random.Random
    in_flight_max: int = 5
    is_stopped: bool = False
    #: The acknowledged records, in order: offset and value.
    acked: list[tuple[int, bytes]] = field(default_factory=list)
    #: How often batches were sent again.
    retries: int = 0
    producer_id: int = -1
    _number: int = 0
    _sequence: int = 0
    _unacked: deque[Sent] = field(default_factory=deque)

    async def run(self) -> None:
        while not (self.is_stopped and not self._unacked):
            try:
                async with asyncio.timeout(ANSWER_S):
                    if self.producer_id < 0:
                        await self._init()
                    leader = await self._leader()
                    connection = await connect(self.ports, leader)
            except (ConnectionLost, SendAgain, TimeoutError):
                await asyncio.sleep(BACKOFF_S)
                continue
            try:
                await self._write(connection)
            except (ConnectionLost, SendAgain, TimeoutError):
                self.retries += bool(self._unacked)
                await asyncio.sleep(BACKOFF_S)
            finally:
                connection.close()

    async def _init(self) -> None:
        connection = await connect(self.ports, self.chance.choice(self.endpoints))
        try:
            answer = await connection.ask(INIT_PRODUCER_ID, 4, InitProducerIdRequest(None))
        finally:
            connection.close()
        if answer.error_code:
            raise SendAgain
        self.producer_id = answer.producer_id

    async def _leader(self) -> str:
        connection = await connect(self.ports, self.chance.choice(self.endpoints))
        asked = MetadataRequest([MetadataRequestTopic(name=self.topic)])
        try:
            answer = await connection.ask(METADATA, 9, asked)
        finally:
            connection.close()
        (topic,) = answer.topics
        for one in topic.partitions:
            if one.partition_index == self.partition and not one.error_code:
                found = next(b for b in answer.brokers if b.node_id == one.leader_id)
                return f"{found.host}:{found.port}"
        raise SendAgain

    async def _write(self, connection: KafkaConnection) -> None:
        """Send all that is not acknowledged, and then new batches, until an error."""
        under_way = 0
        while True:
            while under_way < min(len(self._unacked), self.in_flight_max):
                self._send(connection, self._unacked[under_way])
                under_way += 1
            if not self.is_stopped and len(self._unacked) < self.in_flight_max:
                self._add()
                await asyncio.sleep(self.chance.uniform(0, PAUSE_MAX_S))
                continue
            if not under_way:
                return
            async with asyncio.timeout(ANSWER_S):
                answer = await connection.answer()
            self._acknowledged(answer.responses[0].partition_responses[0])
            under_way -= 1

    def _add(self) -> None:
        count = self.chance.randint(1, RECORDS_MAX)
        values = tuple(b"%d" % (self._number + i) for i in range(count))
        self._unacked.append(Sent(self._sequence, values))
        self._number += count
        self._sequence += count

    def _send(self, connection: KafkaConnection, sent: Sent) -> None:
        data = batch(sent.values, self.producer_id, sent.sequence)
        connection.send(PRODUCE, 9, produce_request(self.topic, self.partition, data))

    def _acknowledged(self, answer: PartitionProduceResponse) -> None:
        if answer.error_code in RETRIABLE:
            raise SendAgain
        sent = self._unacked[0]
        if answer.error_code != errors.NONE:
            raise Refused(f"{self.topic}-{self.partition}: {answer} to {sent}")
        self._unacked.popleft()
        self.acked += [(answer.base_offset + i, value) for i, value in enumerate(sent.values)]


def batch(
    values: tuple[bytes, ...], producer_id: int, sequence: int, *, producer_epoch: int = 0
) -> bytes:
    builder = BatchBuilder(
        producer_id=producer_id, producer_epoch=producer_epoch, base_sequence=sequence
    )
    for value in values:
        builder.append(1_700_000_000_000, None, value)
    return builder.build()


def produce_request(topic: str, partition: int, data: bytes) -> ProduceRequest:
    topics = [TopicProduceData(topic, partition_data=[PartitionProduceData(partition, data)])]
    return ProduceRequest(None, ALL, REQUEST_MS, topics)
