"""The producer as users see it."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, ClassVar, Generic, Never

from quorate.aio.owner import Owner
from quorate.argument_names import takes_no_others, unknown_in
from quorate.cluster.client import Client
from quorate.cluster.cluster import Cluster
from quorate.model import Header, KeyIn, RecordMetadata, ValueIn
from quorate.object_rules import Object
from quorate.producer.accumulator import Accumulator, AccumulatorConfig
from quorate.producer.arguments import as_columns, as_headers, as_timestamp, encoded, level_of
from quorate.producer.buffer_room import BufferRoom
from quorate.producer.delivery import Deliveries, Delivery, count_undelivered, until_done
from quorate.producer.intake import Intake
from quorate.producer.partition_queue import Batch
from quorate.producer.partitioner import Partitioner, Sticky
from quorate.producer.record_batch import RecordBatch
from quorate.producer.routes import Routes
from quorate.producer.sender import Sender
from quorate.producer.unstopped import UnstoppedProducer
from quorate.record.compression import codec_named
from quorate.record.record import RECORD_OVERHEAD_MAX, record_bytes_max
from quorate.serializers import Encode, SerializerOf, encoder
from quorate.settings import (
    BYTES_MAX,
    CLIENT_ID,
    DAY_MS,
    INT32_MAX,
    INT64_MAX,
    PARTITION,
    RECORD_TIMESTAMP_MS,
    SECURITY,
    SERVERS,
    TIMEOUT_MS,
    TOPIC,
    Coder,
    Flag,
    Function,
    Number,
    OneOf,
    Text,
    Whole,
    checked,
)

ACKS = {"all": -1, -1: -1, 0: 0, 1: 1}


#: Makes a Delivery whose fields the caller sets: a call of its __init__ costs as much as the rest.
_without_init = Delivery.__new__

PARTITIONER = Function(takes="key, partitions, available")


class Producer(Client, Generic[KeyIn, ValueIn]):
    """Writes records to topics.

    ``acks``: "all" (all in-sync replicas have the record), 1 (the leader has it) or 0 (as 1, but a
    record without an answer is not sent again). ``enable_idempotence=None`` means True for
    acks="all", else False; True with other acks is a ValueError. ``linger_ms``: how long a record
    may wait for further records while a request is under way to its broker. ``max_in_flight``:
    unacknowledged batches per partition, 1 to 5; the order holds under retries. Without idempotence
    a broker cannot detect a gap, so with acks=1 only one batch of a partition is under way at a
    time.

    ``send`` waits only while ``buffer_memory`` bytes of records are unacknowledged. A batch of one
    partition has up to ``max_batch_size`` bytes. ``compression_type``: None, "gzip", "snappy",
    "lz4" or "zstd". ``compression_level``: Kafka's numbers, 1 to 9 for gzip, 1 to 17 for lz4,
    -131072 to 22 for zstd; None: the codec's default. A record that is not acknowledged after
    ``delivery_timeout_ms`` has failed. Without serializers, keys and values are bytes or None. A
    serializer is a callable or has serialize(topic, value).

        async with Producer(bootstrap_servers="localhost:7092") as producer:
            await producer.send_and_wait("invoice", b"9.50", key=b"customer-42")
    """

    _what: ClassVar[str] = "producer"

    @checked
    def __init__(
        self,
        *,
        bootstrap_servers: Annotated[str | Sequence[str], SERVERS] = "localhost:7092",
        client_id: Annotated[str, CLIENT_ID] = "quorate-python",
        acks: Annotated[str | int, OneOf(("all", 1, 0, -1), "replicas that must have it")] = "all",
        enable_idempotence: Annotated[bool | None, Flag("a retry writes nothing twice")] = None,
        compression_type: Annotated[str | None, Text("name of the codec")] = None,
        compression_level: Annotated[int | None, Whole(-INT32_MAX, INT32_MAX, "of it")] = None,
        max_batch_size: Annotated[int, BYTES_MAX] = 131072,
        linger_ms: Annotated[float, Number(0, DAY_MS, "how long to wait for company")] = 5,
        buffer_memory: Annotated[int, Whole(1, INT64_MAX, "bytes on their way")] = 33554432,
        request_timeout_ms: Annotated[int, TIMEOUT_MS] = 30000,
        delivery_timeout_ms: Annotated[int, TIMEOUT_MS] = 120000,
        max_in_flight: Annotated[int, Whole(1, 5, "unacknowledged batches a partition")] = 5,
        partitioner: Annotated[Partitioner | None, PARTITIONER] = None,
        key_serializer: Annotated[SerializerOf[KeyIn] | None, Coder("serialize")] = None,
        value_serializer: Annotated[SerializerOf[ValueIn] | None, Coder("serialize")] = None,
        security: Annotated[object | None, SECURITY] = None,
    ) -> None:
        if enable_idempotence and ACKS[acks] != -1:
            raise ValueError(f'enable_idempotence=True needs acks="all", not {acks!r}')
        super().__init__(bootstrap_servers, client_id)
        self._acks = ACKS[acks]
        self._request_timeout_ms = request_timeout_ms
        idempotent = self._acks == -1 if enable_idempotence is None else enable_idempotence
        retries_blindly = not idempotent and self._acks != 0
        self._config = AccumulatorConfig(
            batch_bytes_max=max_batch_size,
            buffer_bytes_max=buffer_memory,
            linger_s=linger_ms / 1000,
            delivery_timeout_s=delivery_timeout_ms / 1000,
            max_in_flight=1 if retries_blindly else max_in_flight,
            codec=(codec := codec_named(compression_type or "none")),
            level=level_of(codec, compression_level),
            idempotent=idempotent,
        )
        self._partitioner = partitioner
        self._encode_key: Encode | None = encoder(key_serializer)
        self._encode_value: Encode | None = encoder(value_serializer)
        self._accumulator = Accumulator(self._config)
        self._room = BufferRoom(self._accumulator)
        #: Set by start().
        self._sender: Sender
        self._routes: Routes
        self._sticky: dict[str, Sticky]
        self._intake: Intake
        #: Warns if the producer is garbage collected, or the interpreter ends, without stop().
        self._unstopped: weakref.finalize[[], Producer[KeyIn, ValueIn]] | None = None
        #: Number of failed records whose outcome no task had asked for.
        self.undelivered = 0

    async def start(self) -> None:
        """Connect. Raise QuorumUnavailableError if no broker answers within request_timeout_ms."""
        await self._start_once()

    async def stop(self) -> None:
        """Flush, then close. Records that cannot be delivered fail after delivery_timeout_ms."""
        await self._stop_once()

    async def _begin(self, cluster: Cluster, owner: Owner) -> None:
        timeout_ms = self._request_timeout_ms
        await cluster.start(timeout_ms=timeout_ms)
        self._check_not_stopped(owner)
        self._cluster = cluster
        self._routes = Routes(cluster, self._accumulator, self._partitioner)
        self._sticky = self._routes.sticky
        self._sender = Sender(
            cluster, self._accumulator, self._routes, acks=self._acks, request_timeout_ms=timeout_ms
        )
        self._intake = Intake(
            cluster, self._accumulator, self._routes, self._room, self._sender, self._batch_ended
        )
        self._owner.on_failure(self._room.close)
        loop = asyncio.get_running_loop()
        remains = UnstoppedProducer(loop, cluster, self._sender, self._accumulator)
        self._unstopped = weakref.finalize(self, remains.tell)
        self._sender.start()

    async def _end(self) -> None:
        if self._unstopped is not None:
            self._unstopped.detach()
        stopped = self._stopped_error()
        # Take no more records. A record that is taken after the flush would never be sent.
        self._accumulator.closed = self._accumulator.closed or stopped
        self._room.close(stopped)
        try:
            await self.flush()
        finally:
            self._accumulator.close(stopped)
            await self._sender.stop()

    @takes_no_others
    async def send(  # noqa: C901, PLR0912 - one hot path
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

        Raises UnknownTopicError, InvalidPartitionsError, RecordTooLargeError (for a record larger
        than buffer_memory), ClosedError, and the errors of serializers. A record that no message
        can carry is not put into the buffer, and its Delivery fails at once.
        """
        if wrong:
            raise unknown_in(Producer.send, self, wrong)
        self._owner.check()
        cluster = self._cluster
        if cluster is None:
            raise self._not_running_error()
        intake = self._intake
        # yield before the record is taken: a caller that is cancelled here has sent nothing
        if intake.must_yield:
            intake.must_yield = False
            await asyncio.sleep(0)
        try:
            view = cluster.topics.get(topic)
        except TypeError:  # it is not hashable, and so no string
            view = cluster.topics.get(TOPIC.check("send", "a topic's name", topic))
        if view is None:
            view = await self._routes.find(TOPIC.check("send", "a topic's name", topic))
        if partition is not None and (
            partition.__class__ is not int or not 0 <= partition < len(view.numbers)
        ):
            view = await self._routes.find_partition(view, partition)
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
        accumulator = self._accumulator
        if (
            self._room.waiting
            or accumulator.bytes_used + size > accumulator.config.buffer_bytes_max
        ):
            await intake.wait_for_room(size)
            view = cluster.topics.get(topic, view)
        # There is no await from here on: what happened during the waits above is visible now.
        if record_key is None and partition is None and accumulator.closed is None:
            # The next record of an open batch: all that Intake.put does for it, without the calls.
            sticky = self._sticky.get(topic)
            if sticky is not None and sticky.available is view.available:
                assert sticky.queue is not None
                batch = sticky.queue.open
                if batch is not None and batch.builder.size + size <= batch.bytes_max:
                    builder = batch.builder
                    if timestamp_ms != builder.time_ms or headers is not None or builder.keys:
                        index = builder.append(timestamp_ms, None, record_value, pairs, size)
                    else:
                        index = len(builder.values)
                        builder.values.append(record_value)
                        builder.size += size
                    accumulator.bytes_used += size
                    delivery = _without_init(Delivery)
                    delivery._batch = batch
                    delivery._index = index
                    delivery._owner = self._owner
                    delivery._callbacks = None
                    return delivery
        batch, index = intake.put(
            view, partition, timestamp_ms, record_key, record_value, pairs, size
        )
        return Delivery(batch, index, self._owner)

    async def send_many(
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
        timestamp. Their partitions are chosen as by `send`. A wrong argument sends nothing. Any
        other error, or a cancellation, may leave the first records in the buffer.
        """
        self._owner.check()
        clock = self._running().wall_clock_ms
        TOPIC.check("send_many", "a topic's name", topic)
        records = as_columns(
            topic,
            values,
            keys,
            as_timestamp("send_many", timestamp_ms, clock),
            headers,
            encode_key=self._encode_key,
            encode_value=self._encode_value,
        )
        return Deliveries(await self._intake.put_many(topic, partition, records), self._owner)

    async def send_and_wait(
        self,
        topic: str,
        value: ValueIn | None = None,
        key: KeyIn | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: Iterable[Header] | None = None,
    ) -> RecordMetadata:
        """Send a record without lingering, and wait until it is acknowledged."""
        delivery = await self.send(topic, value, key, partition, timestamp_ms, headers)
        delivery._batch.urgent = True
        self._sender.opened(delivery._batch.queue, is_urgent=True)
        return await delivery

    def create_batch(self) -> RecordBatch:
        """Return an empty batch of up to `max_batch_size` bytes. See `send_batch`."""
        self._owner.check()
        self._running()
        return self._intake.new_batch()

    @checked
    async def send_batch(
        self,
        batch: Annotated[RecordBatch, Object(RecordBatch)],
        topic: Annotated[str, TOPIC],
        *,
        partition: Annotated[int, PARTITION],
    ) -> Delivery:
        """Put a batch into the buffer: all its records are written, one after another, or none.

        Returns the Delivery of its first record: the others follow. Raises the errors of `send`,
        ValueError for an empty batch or another producer's, InvalidRequestError for a sent one.
        """
        self._owner.check()
        self._running()
        return Delivery(await self._intake.put_whole(topic, partition, batch), 0, self._owner)

    async def flush(self) -> None:
        """Wait until every record sent so far has its outcome. No batch lingers meanwhile."""
        self._owner.check()
        if self._cluster is None:
            return
        self._accumulator.flushes += 1
        self._sender.wake()
        try:
            unfinished = self._accumulator.unfinished()
            # a record that no message carries fails in this turn
            await asyncio.sleep(0)
            for batch in unfinished:
                await until_done(batch)
        finally:
            self._accumulator.flushes -= 1

    @checked
    async def partitions_for(self, topic: Annotated[str, TOPIC]) -> set[int]:
        """Return the numbers of a topic's partitions."""
        self._owner.check()
        self._running()
        return set((await self._routes.find(topic)).numbers)

    # -- inside ----------------------------------------------------------------------------------

    def _batch_ended(self, batch: Batch) -> None:
        self.undelivered += count_undelivered(batch)
        self._room.give()
