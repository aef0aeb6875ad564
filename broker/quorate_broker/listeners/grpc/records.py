"""The Records service: Produce, Fetch, ListOffsets and InitProducerId for clients.

The streams are in produce.py and fetch.py; this is their door, and the two small calls.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from quorate.errors import QuorateError, StoppingError
from quorate.net.methods import FETCH, INIT_PRODUCER_ID, LIST_OFFSETS, PRODUCE
from quorate.v1.records_pb2 import (
    InitProducerIdResponse,
    ListedOffset,
    ListOffsetsResponse,
    ProduceResponse,
)
from quorate_broker.listeners.grpc import fetch, produce
from quorate_broker.listeners.grpc.answers import address_hint, error_of
from quorate_broker.listeners.grpc.fetch import FetchSession
from quorate_broker.listeners.grpc.produce import ByteBudget, ProduceStream
from quorate_broker.operations import offsets, producer_ids
from quorate_broker.operations.offsets import OffsetAsked, OffsetFound, Offsets
from quorate_broker.replica.waiters import hint_of
from quorate_quorum.node.authorizer import Caller

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterator,
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
        ListOffsetsRequest,
        ProduceHeader,
        ProduceResult,
    )
    from quorate_broker.operations.producer_ids import ProducerIds
    from quorate_broker.replicas import Replicas
    from quorate_quorum.node.authorizer import Authorizer, Required
    from quorate_quorum.node.config import BrokerConfig

REQUIRED: Final[Mapping[Method[Any, Any], Required]] = {
    PRODUCE: produce.REQUIRED,
    FETCH: fetch.REQUIRED,
    LIST_OFFSETS: offsets.REQUIRED,
    INIT_PRODUCER_ID: producer_ids.REQUIRED,
}


class RecordsService:
    """See the module. `stop` ends the streams that are open; it takes no new batches."""

    required = REQUIRED

    def __init__(
        self,
        replicas: Replicas,
        producer_ids: ProducerIds,
        config: BrokerConfig,
        authorizer: Authorizer,
    ) -> None:
        self._replicas = replicas
        self._producer_ids = producer_ids
        self._offsets = Offsets(replicas, authorizer, config.request_partitions_max)
        self._config = config
        self._authorizer = authorizer
        self._budget = ByteBudget(config.queued_max_bytes)
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
        caller = Caller(peer.principal, self._authorizer)
        stream = ProduceStream(self._replicas, caller, self._budget, self._config)
        async with self._open(stream, stream.read(requests)):
            while results := await stream.next_results():
                self._address_hints(results, peer)
                yield ProduceResponse(results=results)

    async def fetch(
        self, requests: AsyncIterator[FetchRequest], peer: Peer
    ) -> AsyncGenerator[Frame[FetchHeader], None]:
        caller = Caller(peer.principal, self._authorizer)
        session = FetchSession(self._replicas, caller, self._config)
        async with self._open(session, session.read(requests)):
            while (answer := await session.next_answer()) is not None:
                self._address_hints(answer.header.partitions, peer)
                yield answer

    async def list_offsets(self, request: ListOffsetsRequest, peer: Peer) -> ListOffsetsResponse:
        self._offsets.check_count(len(request.partitions))
        asked = [
            OffsetAsked(one.topic_id, one.partition, one.timestamp_ms, one.leader_epoch)
            for one in request.partitions
        ]
        found = await self._offsets.find(peer.principal, asked)
        listed = [_listed(*one) for one in zip(asked, found, strict=True)]
        self._address_hints(listed, peer)
        return ListOffsetsResponse(partitions=listed)

    async def init_producer_id(
        self, request: InitProducerIdRequest, peer: Peer
    ) -> InitProducerIdResponse:
        try:
            found = await self._producer_ids.init(
                peer.principal, request.producer_id, request.producer_epoch
            )
        except QuorateError as error:
            return InitProducerIdResponse(error=error_of(error), producer_id=-1, producer_epoch=-1)
        return InitProducerIdResponse(producer_id=found.id, producer_epoch=found.epoch)

    def _address_hints(
        self, results: Iterable[ProduceResult | FetchedPartition | ListedOffset], peer: Peer
    ) -> None:
        for result in results:
            if result.HasField("leader"):
                address_hint(result.leader, peer, self._replicas.image)

    def _open(
        self, stream: ProduceStream | FetchSession, reading: Coroutine[Any, Any, None]
    ) -> _OpenStream:
        if self._stopping or len(self._streams) >= self._config.streams_max:
            reading.close()
            raise StoppingError("this broker takes no more streams: ask another")
        self._opened += 1
        return _OpenStream(self._streams, self._opened, stream, reading)


def _listed(asked: OffsetAsked, found: OffsetFound | QuorateError) -> ListedOffset:
    if isinstance(found, QuorateError):
        return ListedOffset(
            topic_id=asked.topic_id,
            partition=asked.partition,
            error=error_of(found),
            offset=-1,
            timestamp_ms=-1,
            leader_epoch=-1,
            leader=hint_of(found),
        )
    return ListedOffset(
        topic_id=asked.topic_id,
        partition=asked.partition,
        offset=found.offset,
        timestamp_ms=found.timestamp_ms,
        leader_epoch=found.leader_epoch,
        high_watermark=found.high_watermark,
    )


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
