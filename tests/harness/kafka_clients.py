"""Programs with the clients of other libraries: each writes or reads some records.

"quorate" in place of a library is Quorate's own client.
"""

from __future__ import annotations

import asyncio
import itertools
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import aiokafka
from confluent_kafka import Consumer as ConfluentConsumer
from confluent_kafka import Producer as ConfluentProducer
from confluent_kafka import TopicPartition as ConfluentPartition

from quorate import Consumer, Producer, TopicPartition

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # kafka-python warns about its own resources when imported
    import kafka as kafka_python

__all__ = [
    "LIBRARIES",
    "PARTITIONS",
    "WAIT_S",
    "Read",
    "Sent",
    "consume",
    "expected",
    "kafka_python",
    "produce",
]

#: The partitions of every topic that is read.
PARTITIONS = 3
WAIT_S = 20.0
LIBRARIES = ("confluent", "aiokafka", "kafka-python")


class Read(NamedTuple):
    """A record as a consumer sees it."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


class Sent(NamedTuple):
    key: bytes | None
    value: bytes | None
    partition: int
    timestamp_ms: int
    headers: tuple[tuple[str, bytes], ...] = ()


def produce(
    library: str,
    servers: str,
    topic: str,
    records: Sequence[Sent],
    *,
    codec: str = "none",
    acks: str = "all",
    is_idempotent: bool = False,
) -> None:
    """Write records with one of the libraries, in order."""
    if library == "confluent":
        _confluent_produce(servers, topic, records, codec, acks, is_idempotent=is_idempotent)
    elif library == "aiokafka":
        asyncio.run(
            _aiokafka_produce(servers, topic, records, codec, acks, is_idempotent=is_idempotent)
        )
    elif library == "kafka-python":
        _kafka_python_produce(servers, topic, records, codec, acks, is_idempotent=is_idempotent)
    else:
        asyncio.run(_native_produce(servers, topic, records, codec))


def _confluent_produce(
    servers: str, topic: str, records: Sequence[Sent], codec: str, acks: str, *, is_idempotent: bool
) -> None:
    failures: list[Any] = []
    producer = ConfluentProducer(
        {
            "bootstrap.servers": servers,
            "compression.type": codec,
            "acks": acks,
            "enable.idempotence": is_idempotent,
            "linger.ms": 20,
        }
    )
    for one in records:
        producer.produce(
            topic,
            one.value,
            one.key,
            partition=one.partition,
            timestamp=one.timestamp_ms,
            headers=list(one.headers),
            on_delivery=lambda error, _: failures.append(error) if error else None,
        )
    assert producer.flush(WAIT_S) == 0
    assert failures == []


async def _aiokafka_produce(
    servers: str, topic: str, records: Sequence[Sent], codec: str, acks: str, *, is_idempotent: bool
) -> None:
    producer = aiokafka.AIOKafkaProducer(
        bootstrap_servers=servers,
        compression_type=None if codec == "none" else codec,
        acks="all" if acks == "all" else int(acks),
        enable_idempotence=is_idempotent,
        linger_ms=20,
    )
    await producer.start()
    try:
        sent = [
            await producer.send(
                topic,
                one.value,
                one.key,
                partition=one.partition,
                timestamp_ms=one.timestamp_ms,
                headers=list(one.headers),
            )
            for one in records
        ]
        await asyncio.wait_for(asyncio.gather(*sent), WAIT_S)
    finally:
        await producer.stop()


def _kafka_python_produce(
    servers: str, topic: str, records: Sequence[Sent], codec: str, acks: str, *, is_idempotent: bool
) -> None:
    producer = kafka_python.KafkaProducer(
        bootstrap_servers=servers,
        compression_type=None if codec == "none" else codec,
        acks="all" if acks == "all" else int(acks),
        enable_idempotence=is_idempotent,
        linger_ms=20,
    )
    try:
        sent = [
            producer.send(
                topic,
                one.value,
                one.key,
                partition=one.partition,
                timestamp_ms=one.timestamp_ms,
                headers=list(one.headers),
            )
            for one in records
        ]
        for future in sent:
            future.get(WAIT_S)
    finally:
        producer.close(WAIT_S)


async def _native_produce(servers: str, topic: str, records: Sequence[Sent], codec: str) -> None:
    async with Producer(
        bootstrap_servers=servers, compression_type=None if codec == "none" else codec
    ) as producer:
        sent = [
            await producer.send(
                topic,
                one.value,
                one.key,
                partition=one.partition,
                timestamp_ms=one.timestamp_ms,
                headers=list(one.headers),
            )
            for one in records
        ]
        for one in sent:
            await one


def consume(library: str, servers: str, topic: str, count: int) -> list[Read]:
    """Read that many records from the beginning, by assigned partitions."""
    if library == "confluent":
        found = _confluent_consume(servers, topic, count)
    elif library == "aiokafka":
        found = asyncio.run(_aiokafka_consume(servers, topic, count))
    elif library == "kafka-python":
        found = _kafka_python_consume(servers, topic, count)
    else:
        found = asyncio.run(_native_consume(servers, topic, count))
    return sorted(found, key=lambda one: (one.partition, one.offset))


def _confluent_consume(servers: str, topic: str, count: int) -> list[Read]:
    consumer = ConfluentConsumer(
        {"bootstrap.servers": servers, "group.id": "none", "enable.auto.commit": False}
    )
    found: list[Read] = []
    try:
        consumer.assign([ConfluentPartition(topic, index, 0) for index in range(PARTITIONS)])
        while len(found) < count:
            messages = consumer.consume(count - len(found), WAIT_S)
            assert messages, f"{len(found)} of {count} records came"
            for one in messages:
                assert one.error() is None
                found.append(_confluent_read(one))
    finally:
        consumer.close()
    return found


def _confluent_read(one: Any) -> Read:
    return Read(
        one.partition(),
        one.offset(),
        one.timestamp()[1],
        one.key(),
        one.value(),
        tuple(one.headers() or ()),
    )


async def _aiokafka_consume(servers: str, topic: str, count: int) -> list[Read]:
    consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=servers)
    await consumer.start()
    found: list[Read] = []
    try:
        partitions = [aiokafka.TopicPartition(topic, index) for index in range(PARTITIONS)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning()
        async with asyncio.timeout(WAIT_S):
            while len(found) < count:
                for messages in (await consumer.getmany(timeout_ms=500)).values():
                    found.extend(_read(one) for one in messages)
    finally:
        await consumer.stop()
    return found


def _kafka_python_consume(servers: str, topic: str, count: int) -> list[Read]:
    consumer = kafka_python.KafkaConsumer(
        bootstrap_servers=servers,
        auto_offset_reset="earliest",
        consumer_timeout_ms=int(WAIT_S * 1000),
        enable_auto_commit=False,
    )
    try:
        consumer.assign([kafka_python.TopicPartition(topic, index) for index in range(PARTITIONS)])
        return [_read(one) for one in itertools.islice(consumer, count)]
    finally:
        consumer.close()


async def _native_consume(servers: str, topic: str, count: int) -> list[Read]:
    async with Consumer(bootstrap_servers=servers, auto_offset_reset="earliest") as consumer:
        consumer.assign([TopicPartition(topic, index) for index in range(PARTITIONS)])
        found: list[Read] = []
        async with asyncio.timeout(WAIT_S):
            while len(found) < count:
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    found.extend(
                        Read(
                            one.partition,
                            one.offset,
                            one.timestamp_ms,
                            one.key,
                            one.value,
                            tuple(one.headers),
                        )
                        for one in records
                    )
        return found


def _read(one: Any) -> Read:
    return Read(
        one.partition, one.offset, one.timestamp, one.key, one.value, tuple(one.headers or ())
    )


def expected(records: Sequence[Sent]) -> list[Read]:
    """Return what every consumer must see of records that were written in this order."""
    offsets: dict[int, Iterator[int]] = {i: itertools.count() for i in range(PARTITIONS)}
    found = [
        Read(
            one.partition,
            next(offsets[one.partition]),
            one.timestamp_ms,
            one.key,
            one.value,
            one.headers,
        )
        for one in records
    ]
    return sorted(found, key=lambda one: (one.partition, one.offset))
