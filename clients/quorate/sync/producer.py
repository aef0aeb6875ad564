"""The blocking producer."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, Generic, Never, Unpack

from quorate.argument_names import named, takes_no_others, unknown_in
from quorate.errors import ClosedError, QuorateError
from quorate.model import Header, KeyIn, RecordMetadata, ValueIn
from quorate.producer import delivery as asynchronous_delivery
from quorate.producer import producer as asynchronous
from quorate.producer.arguments import as_columns, as_headers, as_timestamp, encoded
from quorate.producer.bulk import Bulk
from quorate.producer.record_batch import RecordBatch
from quorate.record.column_builder import RecordColumns
from quorate.record.record import RECORD_OVERHEAD_MAX, record_bytes_max
from quorate.settings import PARTITION, RECORD_TIMESTAMP_MS, TOPIC
from quorate.sync.client import BlockingClient, blocking
from quorate.sync.delivery import Delivery
from quorate.sync.inbox import parts_of
from quorate.sync.pump import Pump
from quorate.sync.settings import ProducerSettings

_Producer = asynchronous.Producer

#: The part of buffer_memory that the inbox may hold. The rest is the buffer of the loop's producer.
INBOX_SHARE: Final = 0.25


class Producer(BlockingClient[asynchronous.Producer], Generic[KeyIn, ValueIn]):
    """Writes records to topics, for programs without an event loop.

    The settings are those of quorate.Producer. `send` returns as soon as the record is in the
    buffer; it waits only while `buffer_memory` bytes are unacknowledged. Any thread may send, and
    the records of one thread keep their order within a partition.

        with Producer(bootstrap_servers="localhost:7092") as producer:
            producer.send("invoice", b"9.50", key=b"customer-42")
    """

    def __init__(self, **settings: Unpack[ProducerSettings[KeyIn, ValueIn]]) -> None:
        asked = _Producer(**settings)
        config = asked._config
        inbox_bytes = max(1, int(config.buffer_bytes_max * INBOX_SHARE))
        # Values are encoded in the thread that sends them, so that its serializer raises there.
        self._encode_key, self._encode_value = asked._encode_key, asked._encode_value
        settings["key_serializer"] = settings["value_serializer"] = None
        settings["buffer_memory"] = max(1, config.buffer_bytes_max - inbox_bytes)
        client = _Producer(**settings)
        self._timeout_s = config.delivery_timeout_s
        super().__init__(client)
        client._room.buffer_memory = config.buffer_bytes_max
        background = self._background
        self._pump = Pump(client, background.loop, inbox_bytes, background.is_here, self._timeout_s)
        self._inbox, self._sent_more = self._pump.inbox, self._pump.sent_more

    @named
    def start(self) -> None:
        """Connect. Raise QuorumUnavailableError if no broker answers within request_timeout_ms."""
        self._run(self._pump.start)
        self._opened()

    @named
    def stop(self) -> None:
        """Flush, then close. Records that cannot be delivered fail after delivery_timeout_ms."""
        self._closing()
        self._inbox.close(ClosedError("this producer was stopped; make a new one"))
        self._run(self._pump.end)

    def close_at_exit(self, timeout_s: float) -> None:
        """Deliver for at most `timeout_s` what is left, and close."""
        self._closing()
        self._inbox.close(ClosedError("the interpreter ends"))

        async def end() -> None:
            # one time limit does not do: stop() would have none after it has cut the wait short
            deadline_s = asyncio.get_running_loop().time() + timeout_s
            try:
                async with asyncio.timeout_at(deadline_s):
                    await self._pump.emptied()
            finally:
                async with asyncio.timeout_at(deadline_s):
                    await self._client.stop()

        self._run(end)

    @takes_no_others
    def send(
        self,
        topic: str,
        value: ValueIn | None = None,
        key: KeyIn | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: Iterable[Header] | None = None,
        **wrong: Never,
    ) -> Delivery:
        """Put a record into the buffer, and return its Delivery. Wait only if the buffer is full.

        Raises UnknownTopicError, InvalidPartitionsError, OverloadedError (the buffer was full for
        delivery_timeout_ms; in a callback at once), ClosedError, and the errors of serializers.
        What else keeps a record from being written, RecordTooLargeError too, is in the Delivery.
        """
        if wrong:
            raise unknown_in(Producer.send, self, wrong)
        cluster = self._client._cluster
        try:
            view = None if cluster is None else cluster.topics.get(topic)
        except TypeError:  # it is not hashable, and so no string
            view = None
        if view is None or partition is not None or not self._background.is_of_this_process:
            self._check("send", topic, partition)
        assert cluster is not None
        record_key: Any = key
        if key is not None and (key.__class__ is not bytes or self._encode_key is not None):
            record_key = encoded(topic, "key", key, self._encode_key)
        record_value: Any = value
        if value.__class__ is not bytes or self._encode_value is not None:
            record_value = encoded(topic, "value", value, self._encode_value)
        if timestamp_ms is None:
            timestamp_ms = cluster.wall_clock_ms()
        else:
            timestamp_ms = RECORD_TIMESTAMP_MS.check("send", "timestamp_ms", timestamp_ms)
        pairs: Sequence[Header] = ()
        size = len(record_value or b"") + RECORD_OVERHEAD_MAX
        if record_key is not None or headers is not None:
            pairs = () if headers is None else as_headers(headers)
            size = record_bytes_max(record_key, record_value, pairs)
        place = self._inbox.put(
            topic, partition, timestamp_ms, record_key, record_value, pairs, size, self._timeout_s
        )
        return Delivery(self, place[0], place[1])

    @named
    def send_many(
        self,
        topic: str,
        values: Sequence[ValueIn | None],
        keys: Sequence[KeyIn | None] | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: Iterable[Header] | None = None,
    ) -> Sequence[Delivery]:
        """Put many records into the buffer, one for each value and its key.

        This costs much less than a `send` for each record. The records have the same headers and
        timestamp. A wrong argument sends nothing. After OverloadedError or ClosedError the first
        records may be in the buffer.
        """
        self._check("send_many", topic, partition)
        clock = self._client._running().wall_clock_ms
        records = as_columns(
            topic,
            values,
            keys,
            as_timestamp("send_many", timestamp_ms, clock),
            headers,
            encode_key=self._encode_key,
            encode_value=self._encode_value,
        )
        deliveries = []
        for bulk in parts_of(topic, partition, records, self._inbox.bytes_max):
            self._inbox.put_all(bulk, self._timeout_s)
            count = len(bulk.records.values)
            deliveries += [Delivery(self, bulk, index) for index in range(count)]
        return deliveries

    @named
    def send_and_wait(
        self,
        topic: str,
        value: ValueIn | None = None,
        key: KeyIn | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: Iterable[Header] | None = None,
    ) -> RecordMetadata:
        """Send a record without lingering, and wait until it is acknowledged."""
        delivery = self.send(topic, value, key, partition, timestamp_ms, headers)

        async def wait() -> RecordMetadata:
            await self._pump.emptied()
            found = delivery._of_loop()
            if isinstance(found, QuorateError):
                self._client.undelivered -= 1  # it was counted, and this caller gets its error
            if isinstance(found, asynchronous_delivery.Delivery):
                batch = found._batch
                batch.urgent = True
                self._client._sender.opened(batch.queue, is_urgent=True)
            return await delivery._wait(None)

        return self._run(wait)

    @named
    def create_batch(self) -> RecordBatch:
        """Return an empty batch of up to `max_batch_size` bytes. One thread fills it."""
        self._background.check(self._what)
        self._client._running()
        return self._client._intake.new_batch()

    @named
    def send_batch(self, batch: RecordBatch, topic: str, *, partition: int) -> Delivery:
        """Put a batch into the buffer: all its records are written, one after another, or none.

        See quorate.Producer.send_batch. Waits until the records sent so far are in the buffer, too.
        """

        async def send() -> Delivery:
            await self._pump.emptied()
            sent = await self._client.send_batch(batch, topic, partition=partition)
            bulk = Bulk(topic, partition, RecordColumns())
            bulk.put(sent._batch, 0, 1)
            return Delivery(self, bulk, 0)

        return self._run(send)

    @named
    def flush(self) -> None:
        """Wait until every record sent so far has its outcome. No batch lingers meanwhile."""
        self._run(self._pump.flush)

    @property
    def undelivered(self) -> int:
        """Number of failed records whose outcome the program had not asked for when they failed."""
        return self._client.undelivered

    partitions_for = blocking(_Producer.partitions_for)

    # -- threads

    def _last_call(self) -> Callable[[], Awaitable[None]]:
        return self._pump.end

    def _check(self, call: str, topic: str, partition: int | None) -> None:
        """Let the producer learn the topic, and check that it has the partition, if one is given.

        Raises UnknownTopicError, InvalidPartitionsError, ClosedError, WrongLoopError, and for what
        is no name or number an error that names `call`.
        """
        TOPIC.check(call, "a topic's name", topic)
        if partition is not None:
            PARTITION.check(call, "partition", partition)
        cluster = self._client._cluster
        view = None if cluster is None else cluster.topics.get(topic)
        if view is None or not self._background.is_of_this_process:
            self._run(lambda: self._client.partitions_for(topic))
        if partition is not None and (
            view is None or partition.__class__ is not int or not 0 <= partition < len(view.numbers)
        ):
            self._run(lambda: self._check_partition(topic, partition))

    # -- the loop

    async def _check_partition(self, topic: str, partition: int) -> None:
        """Raise an error unless the topic has this partition."""
        client = self._client
        view = client._running().topics[topic]
        view = await client._routes.find_partition(view, partition)
        client._routes.choose(view, None, partition)


Producer.__signature__ = inspect.signature(_Producer)  # type: ignore[attr-defined]
