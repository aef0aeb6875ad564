"""The Records service: Produce, Fetch, ListOffsets and InitProducerId for clients.

The streams are in produce.py and fetch.py; this is their door, and the two small calls.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from quorate.errors import InvalidRequestError, OverloadedError, QuorateError, StoppingError
from quorate.net.methods import FETCH, INIT_PRODUCER_ID, LIST_OFFSETS, PRODUCE
from quorate.v1.records_pb2 import (
    InitProducerIdResponse,
    ListedOffset,
    ListOffsetsResponse,
    ProduceResponse,
)
from quorate_broker.listeners.grpc.fetch import FetchLimits, FetchSession
from quorate_broker.listeners.grpc.produce import ByteBudget, ProduceLimits, ProduceStream
from quorate_broker.operations.answers import (
    address_hint,
    check_count,
    error_of,
    locate,
    refuse_duplicates,
)
from quorate_broker.replica.waiters import hint_of

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterator,
        Awaitable,
        Callable,
        Coroutine,
        Iterable,
        Mapping,
    )

    from quorate.net.frame import Frame
    from quorate.net.network import Handler, Method, Peer
    from quorate.v1.records_pb2 import (
        FetchedPartition,
        FetchHeader,
        FetchRequest,
        InitProducerIdRequest,
        ListOffsetsPartition,
        ListOffsetsRequest,
        ProduceHeader,
        ProduceResult,
    )
    from quorate_broker.replicas import Replicas

EARLIEST_TIMESTAMP = -2
PRODUCER_EPOCH_MAX = 32_767  # 16 bits, signed, in a batch
UNANSWERED_IDS_MAX = 10_000  # InitProducerId calls that wait for a block


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordsLimits:
    """Bounds of the service."""

    produce: ProduceLimits = field(default_factory=ProduceLimits)
    fetch: FetchLimits = field(default_factory=FetchLimits)
    list_partitions_max: int = 10_000
    streams_max: int = 10_000


class ProducerIds:
    """Producer ids for InitProducerId, taken from the controller in blocks.

    `allocate` asks the controller for the next block; it may raise any QuorateError.
    """

    def __init__(self, allocate: Callable[[], Awaitable[range]]) -> None:
        self._allocate = allocate
        self._block = range(0)
        self._asking = asyncio.Lock()
        self._waiting = 0

    async def next(self) -> int:
        """Return an id that nobody else was or will be given."""
        if not self._block:
            await self._next_block()
        found = self._block[0]
        self._block = self._block[1:]
        return found

    async def _next_block(self) -> None:
        if self._waiting >= UNANSWERED_IDS_MAX:
            raise OverloadedError("too many producers wait for an id: ask another broker")
        self._waiting += 1
        try:
            async with self._asking:
                while not self._block:
                    self._block = await self._allocate()
        finally:
            self._waiting -= 1


class RecordsService:
    """See the module. `stop` ends the streams that are open; it takes no new batches."""

    def __init__(
        self, replicas: Replicas, producer_ids: ProducerIds, limits: RecordsLimits | None = None
    ) -> None:
        self._replicas = replicas
        self._producer_ids = producer_ids
        self._limits = limits or RecordsLimits()
        self._budget = ByteBudget(self._limits.produce.broker_bytes_max)
        #: Open streams by a number, in the order of their opening.
        self._streams: dict[int, ProduceStream | FetchSession] = {}
        self._opened = 0
        self._stopping = False

    def handlers(self) -> Mapping[Method[Any, Any], Handler]:
        return {
            PRODUCE: self.produce,
            FETCH: self.fetch,
            LIST_OFFSETS: self.list_offsets,
            INIT_PRODUCER_ID: self.init_producer_id,
        }

    def stop(self) -> None:
        """Take nothing new; each stream ends when what it owes is answered."""
        self._stopping = True
        for stream in list(self._streams.values()):
            stream.stop()

    async def produce(
        self, requests: AsyncIterator[Frame[ProduceHeader]], peer: Peer
    ) -> AsyncGenerator[ProduceResponse, None]:
        stream = ProduceStream(self._replicas, self._budget, self._limits.produce)
        async with self._open(stream, stream.read(requests)):
            while results := await stream.next_results():
                self._address_hints(results, peer)
                yield ProduceResponse(results=results)

    async def fetch(
        self, requests: AsyncIterator[FetchRequest], peer: Peer
    ) -> AsyncGenerator[Frame[FetchHeader], None]:
        session = FetchSession(self._replicas, self._limits.fetch)
        async with self._open(session, session.read(requests)):
            while (answer := await session.next_answer()) is not None:
                self._address_hints(answer.header.partitions, peer)
                yield answer

    async def list_offsets(self, request: ListOffsetsRequest, peer: Peer) -> ListOffsetsResponse:
        check_count(len(request.partitions), self._limits.list_partitions_max, self._replicas)
        refuse_duplicates((p.topic_id, p.partition) for p in request.partitions)
        listed = []
        for wanted in request.partitions:
            listed.append(await self._list_offset(wanted))
            await asyncio.sleep(0)  # what lies in memory is found without a wait
        self._address_hints(listed, peer)
        return ListOffsetsResponse(partitions=listed)

    async def init_producer_id(
        self, request: InitProducerIdRequest, peer: Peer
    ) -> InitProducerIdResponse:
        """Give a new producer id, or raise the epoch of the one that the caller has."""
        try:
            known, epoch = request.producer_id, request.producer_epoch
            if known < -1 or not -1 <= epoch <= PRODUCER_EPOCH_MAX:
                raise InvalidRequestError(
                    f"producer_id {known} with producer_epoch {epoch} can't be: ids are -1 (a new "
                    f"one) or more, epochs -1 to {PRODUCER_EPOCH_MAX}"
                )
            if known == -1 or epoch in (-1, PRODUCER_EPOCH_MAX):
                return InitProducerIdResponse(
                    producer_id=await self._producer_ids.next(), producer_epoch=0
                )
            return InitProducerIdResponse(producer_id=known, producer_epoch=epoch + 1)
        except QuorateError as error:
            return InitProducerIdResponse(error=error_of(error), producer_id=-1, producer_epoch=-1)

    async def _list_offset(self, wanted: ListOffsetsPartition) -> ListedOffset:
        topic_id, partition = wanted.topic_id, wanted.partition
        try:
            if wanted.timestamp_ms < EARLIEST_TIMESTAMP:
                raise InvalidRequestError(
                    f"timestamp_ms must be -2 (earliest), -1 (latest) or a time, "
                    f"not {wanted.timestamp_ms}"
                )
            found = locate(self._replicas, topic_id, partition, wanted.leader_epoch)
            offset, timestamp_ms, leader_epoch = await found.list_offset(
                wanted.timestamp_ms, wanted.leader_epoch
            )
        except QuorateError as error:
            return ListedOffset(
                topic_id=topic_id,
                partition=partition,
                error=error_of(error),
                offset=-1,
                timestamp_ms=-1,
                leader_epoch=-1,
                leader=hint_of(error),
            )
        return ListedOffset(
            topic_id=topic_id,
            partition=partition,
            offset=offset,
            timestamp_ms=timestamp_ms,
            leader_epoch=leader_epoch,
            high_watermark=found.high_watermark,
        )

    def _address_hints(
        self, results: Iterable[ProduceResult | FetchedPartition | ListedOffset], peer: Peer
    ) -> None:
        for result in results:
            if result.HasField("leader"):
                address_hint(result.leader, peer, self._replicas.image)

    def _open(
        self, stream: ProduceStream | FetchSession, reading: Coroutine[Any, Any, None]
    ) -> _OpenStream:
        if self._stopping or len(self._streams) >= self._limits.streams_max:
            reading.close()
            raise StoppingError("this broker takes no more streams: ask another")
        self._opened += 1
        return _OpenStream(self._streams, self._opened, stream, reading)


class _OpenStream:
    """Owns a stream's reader for as long as the stream is open."""

    def __init__(
        self,
        streams: dict[int, ProduceStream | FetchSession],
        number: int,
        stream: ProduceStream | FetchSession,
        reading: Coroutine[Any, Any, None],
    ) -> None:
        self._streams = streams
        self._number = number
        self._stream = stream
        self._reader = asyncio.create_task(reading, name=f"stream-{number}")
        streams[number] = stream

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        del self._streams[self._number]
        self._reader.cancel()
        await asyncio.wait([self._reader])
        self._stream.close()
        if not self._reader.cancelled():
            failure = self._reader.exception()
            if failure is not None and kind is None:
                raise failure  # a defect: a reader ends only at the client's end
