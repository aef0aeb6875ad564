"""The Records service: the streams Produce and Fetch, and the unary calls about records."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from quorate.aio.beside import beside
from quorate.errors import QuorateError, StoppingError
from quorate.net.frame import Frame
from quorate.net.methods import DELETE_RECORDS, FETCH, INIT_PRODUCER_ID, LIST_OFFSETS, PRODUCE
from quorate.net.network import Handler, Method, Peer
from quorate.v1.records_pb2 import (
    DeletedRecords,
    DeleteRecordsRequest,
    DeleteRecordsResponse,
    FetchHeader,
    FetchRequest,
    InitProducerIdRequest,
    InitProducerIdResponse,
    ListedOffset,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ProduceHeader,
    ProduceResponse,
)
from quorate_broker.listeners.grpc.answers import Hints, error_of
from quorate_broker.listeners.grpc.fetch import FetchStream
from quorate_broker.listeners.grpc.produce import ProduceStream
from quorate_broker.operations import delete_records, fetch, offsets, produce, producer_ids
from quorate_broker.operations.delete_records import DeletionAsked
from quorate_broker.operations.offsets import OffsetAsked, OffsetFound
from quorate_broker.operations.operations import Operations
from quorate_broker.replicas.replicas import Replicas
from quorate_quorum.node.authorizer import Required
from quorate_quorum.node.config import BrokerConfig

REQUIRED: Final[Mapping[Method[Any, Any], Required]] = {
    PRODUCE: produce.REQUIRED,
    FETCH: fetch.REQUIRED,
    LIST_OFFSETS: offsets.REQUIRED,
    DELETE_RECORDS: delete_records.REQUIRED,
    INIT_PRODUCER_ID: producer_ids.REQUIRED,
}


class RecordsService:
    """The Records service: see the module."""

    required = REQUIRED

    def __init__(self, operations: Operations, replicas: Replicas, config: BrokerConfig) -> None:
        self._operations = operations
        self._replicas = replicas
        self._config = config
        #: Number -> open stream, in the order of their opening.
        self._streams: dict[int, ProduceStream | FetchStream] = {}
        self._opened = 0
        self._stopping = False

    def handlers(self) -> Mapping[Method[Any, Any], Handler]:
        return {
            PRODUCE: self.produce,
            FETCH: self.fetch,
            LIST_OFFSETS: self.list_offsets,
            DELETE_RECORDS: self.delete_records,
            INIT_PRODUCER_ID: self.init_producer_id,
        }

    def stop(self) -> None:
        """Accept no new stream or batch. Each stream ends when its open requests are answered."""
        self._stopping = True
        for stream in list(self._streams.values()):
            stream.stop()

    async def produce(
        self, requests: AsyncIterator[Frame[ProduceHeader]], peer: Peer
    ) -> AsyncGenerator[ProduceResponse, None]:
        hints = Hints(peer, self._replicas)
        stream = ProduceStream(self._operations.produce, peer, hints, self._config)
        async with self._open(stream, requests):
            while results := await stream.next_results():
                yield ProduceResponse(results=results)

    async def fetch(
        self, requests: AsyncIterator[FetchRequest], peer: Peer
    ) -> AsyncGenerator[Frame[FetchHeader], None]:
        hints = Hints(peer, self._replicas)
        stream = FetchStream(self._operations.fetch, peer, hints, self._config)
        async with self._open(stream, requests):
            while (answer := await stream.next_answer()) is not None:
                yield answer

    async def list_offsets(self, request: ListOffsetsRequest, peer: Peer) -> ListOffsetsResponse:
        self._operations.offsets.check_count(len(request.partitions))
        asked = [
            OffsetAsked(one.topic_id, one.partition, one.timestamp_ms, one.leader_epoch)
            for one in request.partitions
        ]
        found = await self._operations.offsets.find(peer.principal, asked)
        hints = Hints(peer, self._replicas)
        listed = [_listed(*pair, hints) for pair in zip(asked, found, strict=True)]
        return ListOffsetsResponse(partitions=listed)

    async def delete_records(
        self, request: DeleteRecordsRequest, peer: Peer
    ) -> DeleteRecordsResponse:
        operation = self._operations.delete_records
        operation.check_count(len(request.partitions))
        asked = [
            DeletionAsked(one.topic_id, one.partition, one.before_offset, one.leader_epoch)
            for one in request.partitions
        ]
        found = await operation.delete(
            peer.principal,
            asked,
            timeout_ms=request.timeout_ms,
            caller_timeout_ms=peer.timeout_ms,
        )
        hints = Hints(peer, self._replicas)
        deleted = [_deleted(*pair, hints) for pair in zip(asked, found, strict=True)]
        return DeleteRecordsResponse(partitions=deleted)

    async def init_producer_id(
        self, request: InitProducerIdRequest, peer: Peer
    ) -> InitProducerIdResponse:
        try:
            found = await self._operations.producer_ids.init(
                peer.principal, request.producer_id, request.producer_epoch
            )
        except QuorateError as error:
            return InitProducerIdResponse(error=error_of(error), producer_id=-1, producer_epoch=-1)
        return InitProducerIdResponse(producer_id=found.id, producer_epoch=found.epoch)

    @asynccontextmanager
    async def _open(
        self, stream: ProduceStream | FetchStream, requests: AsyncIterator[Any]
    ) -> AsyncGenerator[None, None]:
        """Register a stream, and run its reader, while the stream is open."""
        if self._stopping or len(self._streams) >= self._config.streams_max:
            raise StoppingError("this broker takes no more streams: ask another")
        self._opened += 1
        number = self._opened
        self._streams[number] = stream
        try:
            async with beside(stream.read(requests), f"stream-{number}"):
                yield
        finally:
            del self._streams[number]
            stream.close()


def _listed(asked: OffsetAsked, found: OffsetFound | QuorateError, hints: Hints) -> ListedOffset:
    if isinstance(found, QuorateError):
        return ListedOffset(
            topic_id=asked.topic_id,
            partition=asked.partition,
            error=error_of(found),
            offset=-1,
            timestamp_ms=-1,
            leader_epoch=-1,
            leader=hints.of(found),
        )
    return ListedOffset(
        topic_id=asked.topic_id,
        partition=asked.partition,
        offset=found.offset,
        timestamp_ms=found.timestamp_ms,
        leader_epoch=found.leader_epoch,
        high_watermark=found.high_watermark,
    )


def _deleted(asked: DeletionAsked, found: int | QuorateError, hints: Hints) -> DeletedRecords:
    topic_id, partition = asked.topic_id, asked.partition
    if isinstance(found, QuorateError):
        return DeletedRecords(
            topic_id=topic_id,
            partition=partition,
            error=error_of(found),
            log_start_offset=-1,
            leader=hints.of(found),
        )
    return DeletedRecords(topic_id=topic_id, partition=partition, log_start_offset=found)
