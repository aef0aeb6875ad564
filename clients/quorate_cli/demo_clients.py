"""The producers of `quorate demo`: Quorate's own client, and clients of Kafka.

All write with acks=all and idempotence, and otherwise with the defaults of their library.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from enum import StrEnum
from typing import Any, Protocol

from quorate import Delivery, Producer
from quorate.errors import QuorateError

#: How often the loop asks librdkafka for outcomes, which is the precision of their times.
POLL_S = 0.002


class Client(StrEnum):
    """A library with a producer."""

    QUORATE = "quorate"
    CONFLUENT = "confluent-kafka"
    AIOKAFKA = "aiokafka"


#: Called once for each record: with its partition, or with why it was not acknowledged.
Outcome = Callable[[int | Exception], None]


class Records(Protocol):
    """An open producer."""

    async def send(self, topic: str, value: bytes, key: bytes, outcome: Outcome) -> None:
        """Give the client a record. Wait only while its buffer is full."""


def open_producer(client: Client, servers: str) -> AbstractAsyncContextManager[Records]:
    """Return a producer. At the end of its context every record has its outcome.

    `servers` are the addresses of the listeners of the client's protocol. Raises ImportError if the
    library is not installed.
    """
    if client is Client.CONFLUENT:
        return _confluent(servers)
    if client is Client.AIOKAFKA:
        return _aiokafka(servers)
    return _quorate(servers)


class _OfQuorate:
    def __init__(self, producer: Producer) -> None:
        self._producer = producer

    async def send(self, topic: str, value: bytes, key: bytes, outcome: Outcome) -> None:
        def note(delivery: Delivery) -> None:
            try:
                outcome(delivery.result().partition)
            except QuorateError as error:
                outcome(error)

        delivery = await self._producer.send(topic, value, key)
        delivery.add_done_callback(note)


@asynccontextmanager
async def _quorate(servers: str) -> AsyncIterator[Records]:
    async with Producer(bootstrap_servers=servers) as producer:
        yield _OfQuorate(producer)


class _OfConfluent:
    """A producer of librdkafka, which has threads of its own. Outcomes come when it is polled."""

    def __init__(self, producer: Any) -> None:
        self._producer = producer

    async def send(self, topic: str, value: bytes, key: bytes, outcome: Outcome) -> None:
        def note(error: Any, message: Any) -> None:
            outcome(message.partition() if error is None else Exception(str(error)))

        while True:
            try:
                self._producer.produce(topic, value, key, on_delivery=note)
            except BufferError:
                await asyncio.sleep(POLL_S)
            else:
                return

    async def poll(self) -> None:
        while True:
            self._producer.poll(0)
            await asyncio.sleep(POLL_S)

    async def flushed(self) -> None:
        while len(self._producer):  # noqa: ASYNC110 - librdkafka has no event for it
            await asyncio.sleep(POLL_S)


@asynccontextmanager
async def _confluent(servers: str) -> AsyncIterator[Records]:
    import confluent_kafka

    records = _OfConfluent(
        confluent_kafka.Producer(
            {
                "bootstrap.servers": servers,
                "acks": "all",
                "enable.idempotence": True,
                # No line for each lost connection: the demo kills the other side.
                "log_level": 0,
            }
        )
    )
    polling = asyncio.ensure_future(records.poll())
    try:
        yield records
        await records.flushed()
    finally:
        polling.cancel()


class _OfAiokafka:
    def __init__(self, producer: Any) -> None:
        self._producer = producer

    async def send(self, topic: str, value: bytes, key: bytes, outcome: Outcome) -> None:
        def note(future: asyncio.Future[Any]) -> None:
            error = future.exception()
            if error is not None:
                outcome(error if isinstance(error, Exception) else Exception(str(error)))
            else:
                outcome(future.result().partition)

        future = await self._producer.send(topic, value, key)
        future.add_done_callback(note)


@asynccontextmanager
async def _aiokafka(servers: str) -> AsyncIterator[Records]:
    import aiokafka

    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # for the same reason
    async with aiokafka.AIOKafkaProducer(
        bootstrap_servers=servers, acks="all", enable_idempotence=True
    ) as producer:
        yield _OfAiokafka(producer)
