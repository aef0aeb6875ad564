"""The producer as users see it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Annotated, Any, Self

import structlog

from quorate.cluster import Cluster, TopicView
from quorate.errors import (
    ClosedError,
    InvalidPartitionsError,
    RecordTooLargeError,
)
from quorate.model import Header, RecordMetadata
from quorate.owner import Owner
from quorate.producer.accumulator import Accumulator, AccumulatorConfig
from quorate.producer.delivery import Delivery, batch_done
from quorate.producer.partition_queue import Batch, PartitionQueue
from quorate.producer.partitioner import Partitioner, Sticky, partition_for_key
from quorate.producer.sender import Sender
from quorate.record.compression import codec_named
from quorate.serializers import Encode, encoder
from quorate.settings import (
    BYTES_MAX,
    CLIENT_ID,
    DAY_MS,
    INT64_MAX,
    PARTITION,
    RECORD_TIMESTAMP_MS,
    SECURITY,
    SERVERS,
    TIMEOUT_MS,
    Coder,
    Flag,
    Function,
    Number,
    OneOf,
    Text,
    Whole,
    checked,
)

log = structlog.get_logger(__name__)

ACKS = {"all": -1, -1: -1, 0: 0, 1: 1}


class Producer:
    """Write records to topics.

    ``acks``: "all" (every in-sync replica has it), 1 (the leader has it) or 0 (sent, nothing
    known). ``enable_idempotence=None`` means true for acks="all", false otherwise; True with
    other acks is a ValueError. ``linger_ms``: how long a record may wait for company while a
    request is under way to its broker. ``max_in_flight``: unacknowledged batches per partition,
    1 to 5; order holds under retry. Without idempotence a broker can't tell a gap, so with acks=1
    one batch of a partition is under way at a time.

    ``send`` waits only while ``buffer_memory`` bytes of records are on their way. A batch of one
    partition holds up to ``max_batch_size`` bytes; ``compression_type`` is None or "zstd". A record
    that is not acknowledged after ``delivery_timeout_ms`` has failed. Without serializers, keys and
    values are bytes or None; a serializer is a callable or has serialize(topic, value).

        async with Producer(bootstrap_servers="localhost:7092") as producer:
            await producer.send_and_wait("invoice", b"9.50", key=b"customer-42")
    """

    @checked
    def __init__(
        self,
        *,
        bootstrap_servers: Annotated[str | Sequence[str], SERVERS] = "localhost:7092",
        client_id: Annotated[str, CLIENT_ID] = "quorate-python",
        acks: Annotated[str | int, OneOf(("all", 1, 0, -1), "replicas that must have it")] = "all",
        enable_idempotence: Annotated[bool | None, Flag("a retry writes nothing twice")] = None,
        compression_type: Annotated[str | None, Text('"none" or "zstd"')] = None,
        max_batch_size: Annotated[int, BYTES_MAX] = 131072,
        linger_ms: Annotated[float, Number(0, DAY_MS, "how long to wait for company")] = 5,
        buffer_memory: Annotated[int, Whole(1, INT64_MAX, "bytes on their way")] = 33554432,
        request_timeout_ms: Annotated[int, TIMEOUT_MS] = 30000,
        delivery_timeout_ms: Annotated[int, TIMEOUT_MS] = 120000,
        max_in_flight: Annotated[int, Whole(1, 5, "unacknowledged batches a partition")] = 5,
        partitioner: Annotated[
            Partitioner | None, Function(takes="key, partitions, available")
        ] = None,
        key_serializer: Annotated[object | None, Coder("serialize")] = None,
        value_serializer: Annotated[object | None, Coder("serialize")] = None,
        security: Annotated[object | None, SECURITY] = None,
    ) -> None:
        if enable_idempotence and ACKS[acks] != -1:
            raise ValueError(f'enable_idempotence=True needs acks="all", not {acks!r}')
        self._bootstrap = bootstrap_servers
        self._client_id = client_id
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
            codec=codec_named(compression_type or "none"),
            idempotent=idempotent,
        )
        self._partitioner = partitioner
        self._encode_key: Encode | None = encoder(key_serializer)
        self._encode_value: Encode | None = encoder(value_serializer)
        self._accumulator = Accumulator(self._config)
        self._owner = Owner("producer")
        self._cluster: Cluster | None = None
        self._sender: Sender | None = None
        self._sticky: dict[str, Sticky] = {}
        #: What _choose and _queue say for a record without a key, until a batch is done or the
        #: partitions with leaders change: a short cut on the hot path.
        self._stuck: dict[str, tuple[Sequence[int], PartitionQueue]] = {}
        self._room: deque[asyncio.Future[None]] = deque()
        self._queues: dict[str, tuple[TopicView, dict[int, PartitionQueue]]] = {}
        self._must_yield = False
        self._closing = False
        #: Records that failed while nobody had asked for their Delivery.
        self.undelivered = 0

    async def start(self) -> None:
        """Connect; QuorumUnavailableError if no bootstrap server answers in request_timeout_ms."""
        self._owner.bind()
        if self._closing:
            raise ClosedError("this producer was stopped; make a new one")
        if self._cluster is not None:
            return
        cluster = Cluster(self._bootstrap, client_id=self._client_id, owner=self._owner)
        try:
            await cluster.start(timeout_ms=self._request_timeout_ms)
        except BaseException:
            await cluster.stop()
            raise
        self._cluster = cluster
        self._sender = Sender(
            cluster,
            self._accumulator,
            acks=self._acks,
            request_timeout_ms=self._request_timeout_ms,
        )
        self._sender.start()

    async def stop(self) -> None:
        """Flush, then close. What cannot be delivered has failed after delivery_timeout_ms."""
        self._owner.check()
        if self._cluster is None or self._closing:
            return
        self._closing = True
        try:
            await self.flush()
        finally:
            assert self._sender is not None
            self._accumulator.fail_all(ClosedError("the producer was stopped"))
            await self._sender.stop()
            await self._cluster.stop()
            await self._owner.end_all()
            while self._room:
                waiter = self._room.popleft()
                if not waiter.done():
                    waiter.set_result(None)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def send(  # noqa: C901, PLR0912 - one hot path
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: Iterable[Header] | None = None,
    ) -> Delivery:
        """Put a record into the buffer and return its Delivery; wait only while it is full.

        Raises UnknownTopicError, InvalidPartitionsError, RecordTooLargeError, ClosedError, and
        what a serializer raises.
        """
        self._owner.check()
        cluster = self._cluster
        if cluster is None or self._closing:
            raise ClosedError("this producer is not running; call start() or use `async with`")
        if self._must_yield:  # before the record is taken: whoever is cancelled here sent nothing
            self._must_yield = False
            await asyncio.sleep(0)
        view = cluster.topics.get(topic)
        if view is None:
            view = await cluster.topic(topic)
        if self._encode_key is not None and key is not None:
            key = self._encode_key(topic, key)
        if self._encode_value is not None and value is not None:
            value = self._encode_value(topic, value)
        if key.__class__ is not bytes and key is not None:
            key = _as_bytes("key", key)
        if value.__class__ is not bytes and value is not None:
            value = _as_bytes("value", value)
        if timestamp_ms is None:
            timestamp_ms = cluster.wall_clock_ms()
        else:
            timestamp_ms = RECORD_TIMESTAMP_MS.check("send", "timestamp_ms", timestamp_ms)
        pairs = _as_headers(headers) if headers else ()
        size = (len(key) if key else 0) + (len(value) if value else 0) + 32
        accumulator = self._accumulator
        if self._room or accumulator.bytes_used + size > accumulator.config.buffer_bytes_max:
            await self._wait_for_room(size)
            view = cluster.topics.get(topic, view)
        sender = self._sender
        assert sender is not None
        if sender.failure is not None:
            raise sender.failure.with_traceback(None)
        stuck = self._stuck.get(topic)
        if key is None and partition is None and stuck is not None and stuck[0] is view.available:
            queue = stuck[1]
        else:
            queue = self._queue(view, self._choose(view, key, partition))
        batch = queue.open
        if batch is not None and batch.builder.size + size <= accumulator.config.batch_bytes_max:
            index = accumulator.add(batch, timestamp_ms, key, value, pairs)
        else:
            now = asyncio.get_running_loop().time()
            batch, index, completed = accumulator.append(
                queue, now, timestamp_ms, key, value, pairs
            )
            self._batch_opened(batch, view, completed)
        if self._room:
            self._give_room()
        return Delivery(batch, index, timestamp_ms)

    async def send_many(
        self,
        topic: str,
        values: Sequence[Any],
        keys: Sequence[Any] | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: Iterable[Header] | None = None,
    ) -> Sequence[Delivery]:
        """Put many records into the buffer; the same as `send` for each value and its key."""
        if keys is not None and len(keys) != len(values):
            raise ValueError(
                f"send_many got {len(values)} values and {len(keys)} keys; they must match"
            )
        shared = _as_headers(headers) if headers else None
        send = self.send
        if keys is None:
            return [
                await send(topic, value, None, partition, timestamp_ms, shared) for value in values
            ]
        return [
            await send(topic, value, key, partition, timestamp_ms, shared)
            for value, key in zip(values, keys, strict=True)
        ]

    async def send_and_wait(
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: Iterable[Header] | None = None,
    ) -> RecordMetadata:
        """Send a record, without lingering, and wait until it is acknowledged."""
        delivery = await self.send(topic, value, key, partition, timestamp_ms, headers)
        delivery._batch.urgent = True
        assert self._sender is not None
        self._sender.opened(delivery._batch.queue, is_urgent=True)
        return await delivery

    async def flush(self) -> None:
        """Wait until every record sent so far is acknowledged or has failed; without lingering."""
        self._owner.check()
        assert self._sender is not None or not self._accumulator.unfinished()
        if self._sender is None:
            return
        self._accumulator.flushes += 1
        self._sender.wake()
        try:
            for batch in self._accumulator.unfinished():
                await batch_done(batch)
        finally:
            self._accumulator.flushes -= 1

    async def partitions_for(self, topic: str) -> set[int]:
        """Return the numbers of a topic's partitions."""
        self._owner.check()
        if self._cluster is None:
            raise ClosedError("this producer is not running; call start() or use `async with`")
        return set((await self._cluster.topic(topic)).numbers)

    # -- inside ----------------------------------------------------------------------------------

    def _queue(self, view: TopicView, partition: int) -> PartitionQueue:
        """Return a partition's queue, kept by its topic's view: a topic made again has another."""
        known = self._queues.get(view.name)
        if known is None or known[0] is not view:
            known = self._queues[view.name] = (view, {})
        queue = known[1].get(partition)
        if queue is None:
            queue = self._accumulator.queue(view.name, view.topic_id, partition)
            known[1][partition] = queue
        return queue

    def _choose(self, view: TopicView, key: bytes | None, partition: int | None) -> int:
        if partition is not None:
            partition = PARTITION.check("send", "partition", partition)
            if partition >= len(view.numbers):
                raise InvalidPartitionsError(
                    f"topic {view.name!r} has partitions 0 to {len(view.numbers) - 1}, "
                    f"and no partition {partition}"
                )
            return partition
        if self._partitioner is not None:
            chosen = PARTITION.check(
                "send",
                "what the partitioner returns",
                self._partitioner(key, view.numbers, view.available),
            )
            if chosen not in view.numbers:
                raise InvalidPartitionsError(
                    f"the partitioner chose {chosen!r} for topic {view.name!r}, "
                    f"which has partitions 0 to {len(view.numbers) - 1}"
                )
            return chosen
        if key is not None:
            return partition_for_key(key, len(view.numbers))
        sticky = self._sticky.get(view.name)
        if sticky is None:
            assert self._cluster is not None
            sticky = self._sticky[view.name] = Sticky(self._cluster.chance)
        return sticky.partition(view.numbers, view.available)

    def _batch_opened(self, batch: Batch, view: TopicView, completed: bool) -> None:
        """A batch begins: watch its end, tell the sender, and let it run if one became full."""
        batch.callbacks.append(lambda: self._batch_ended(batch))
        assert self._sender is not None
        self._sender.opened(batch.queue, is_urgent=completed)
        if completed:
            self._must_yield = True
            self._stuck.pop(view.name, None)
            sticky = self._sticky.get(view.name)
            if sticky is not None:
                sticky.batch_done(view.numbers, view.available)
                if view.available:
                    chosen = sticky.partition(view.numbers, view.available)
                    self._stuck[view.name] = (view.available, self._queue(view, chosen))

    def _batch_ended(self, batch: Batch) -> None:
        unobserved = batch.count - batch.observed
        if batch.error is not None and unobserved:
            self.undelivered += unobserved
            log.error(
                "records were not delivered, and nobody awaits them",
                topic=batch.queue.topic,
                partition=batch.queue.partition,
                records=unobserved,
                error=str(batch.error),
            )
        self._give_room()

    def _give_room(self) -> None:
        """Let the first of those that wait look again; it lets the next one look when it is in."""
        if self._accumulator.bytes_used >= self._config.buffer_bytes_max:
            return
        while self._room:
            waiter = self._room.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    async def _wait_for_room(self, size: int) -> None:
        if size > self._config.buffer_bytes_max:
            raise RecordTooLargeError(
                f"a record of {size} bytes is larger than buffer_memory, "
                f"{self._config.buffer_bytes_max} bytes"
            )
        assert self._sender is not None
        self._accumulator.flushes += 1  # what fills the buffer must not linger
        is_first = True
        try:
            self._sender.wake()
            while (is_first and self._room) or not self._accumulator.has_room(size):
                waiter = asyncio.get_running_loop().create_future()
                # Who was first and did not fit stays first.
                (self._room.append if is_first else self._room.appendleft)(waiter)
                is_first = False
                await waiter
                if self._closing:
                    raise ClosedError("the producer was stopped while the record waited for room")
        except BaseException:
            self._give_room()  # the turn that was given to us is the next one's
            raise
        finally:
            self._accumulator.flushes -= 1


def _as_headers(headers: Iterable[Header]) -> tuple[Header, ...]:
    pairs = tuple(headers)
    for pair in pairs:
        match pair:
            case (str(), bytes() | None):
                continue
        raise TypeError(
            f"headers must be pairs of a string and bytes or None, not {pair!r}; "
            'for example [("source", b"shop")]'
        )
    return pairs


def _as_bytes(name: str, value: Any) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise TypeError(
        f"{name} must be bytes or None, not {type(value).__name__}; "
        f"pass {name}_serializer to the producer for other types"
    )
