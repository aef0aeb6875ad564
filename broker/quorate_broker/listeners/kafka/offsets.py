"""ListOffsets and OffsetForLeaderEpoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from quorate.errors import QuorateError, UnknownTopicError
from quorate_broker.listeners.kafka.call import Call, Handler
from quorate_broker.listeners.kafka.errors import (
    LEADER_NOT_AVAILABLE,
    NONE,
    OFFSET_NOT_AVAILABLE,
    code_of,
)
from quorate_broker.listeners.kafka.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsPartitionResponse,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopicResponse,
)
from quorate_broker.listeners.kafka.messages.offset_for_leader_epoch import (
    EpochEndOffset,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
    OffsetForLeaderTopicResult,
)
from quorate_broker.listeners.kafka.versions import LIST_OFFSETS, OFFSET_FOR_LEADER_EPOCH
from quorate_broker.operations.offsets import (
    EARLIEST_TIMESTAMP,
    EpochAsked,
    EpochEnd,
    OffsetAsked,
    OffsetFound,
    Offsets,
)
from quorate_broker.replicas.replicas import Replicas

#: The start of what lies on the broker's own disk, which is all.
EARLIEST_LOCAL: Final = -4
#: Places in tiered storage, which there is none of: nothing is found.
TIERED: Final = (-5, -6)
#: The version from which clients know OFFSET_NOT_AVAILABLE.
OFFSET_NOT_AVAILABLE_FROM: Final = 5


class OffsetRequests:
    """Finds offsets by time and by epoch."""

    def __init__(self, offsets: Offsets, replicas: Replicas) -> None:
        self._offsets = offsets
        self._replicas = replicas

    def handlers(self) -> Mapping[int, Handler]:
        return {
            LIST_OFFSETS: self.list_offsets,
            OFFSET_FOR_LEADER_EPOCH: self.offset_for_leader_epoch,
        }

    async def list_offsets(self, call: Call[ListOffsetsRequest]) -> ListOffsetsResponse:
        topics = call.request.topics
        self._offsets.check_count(sum(len(topic.partitions) for topic in topics))
        asked = [
            _asked(topic_id, one)
            for topic in topics
            if (topic_id := self._topic_id(topic.name)) is not None
            for one in topic.partitions
            if one.timestamp not in TIERED
        ]
        found = iter(await self._offsets.find(call.client.principal, asked))
        return ListOffsetsResponse(
            topics=[
                ListOffsetsTopicResponse(
                    topic.name,
                    [
                        _listed(one, self._offset(topic.name, one, found), call.version)
                        for one in topic.partitions
                    ],
                )
                for topic in topics
            ]
        )

    def _offset(
        self,
        topic: str,
        one: ListOffsetsPartition,
        found: Iterator[OffsetFound | QuorateError],
    ) -> OffsetFound | QuorateError:
        if self._topic_id(topic) is None:
            return _unknown(topic)
        return OffsetFound(-1, -1, -1, -1) if one.timestamp in TIERED else next(found)

    async def offset_for_leader_epoch(
        self, call: Call[OffsetForLeaderEpochRequest]
    ) -> OffsetForLeaderEpochResponse:
        topics = call.request.topics
        self._offsets.check_count(sum(len(topic.partitions) for topic in topics))
        asked = [
            EpochAsked(topic_id, one.partition, one.leader_epoch, one.current_leader_epoch)
            for topic in topics
            if (topic_id := self._topic_id(topic.topic)) is not None
            for one in topic.partitions
        ]
        found = iter(await self._offsets.epoch_ends(call.client.principal, asked))
        return OffsetForLeaderEpochResponse(
            topics=[
                OffsetForLeaderTopicResult(
                    topic.topic,
                    [
                        _epoch_end(
                            one.partition,
                            _unknown(topic.topic)
                            if self._topic_id(topic.topic) is None
                            else next(found),
                        )
                        for one in topic.partitions
                    ],
                )
                for topic in topics
            ]
        )

    def _topic_id(self, name: str) -> bytes | None:
        return self._replicas.image.topic_ids.get(name)


def _asked(topic_id: bytes, one: ListOffsetsPartition) -> OffsetAsked:
    timestamp = EARLIEST_TIMESTAMP if one.timestamp == EARLIEST_LOCAL else one.timestamp
    return OffsetAsked(topic_id, one.partition_index, timestamp, one.current_leader_epoch)


def _unknown(topic: str) -> UnknownTopicError:
    return UnknownTopicError(f"no topic is named {topic[:249]!r}")


def _listed(
    asked: ListOffsetsPartition, found: OffsetFound | QuorateError, version: int
) -> ListOffsetsPartitionResponse:
    if isinstance(found, QuorateError):
        code = code_of(found)
        if code == OFFSET_NOT_AVAILABLE and version < OFFSET_NOT_AVAILABLE_FROM:
            code = LEADER_NOT_AVAILABLE
        return ListOffsetsPartitionResponse(asked.partition_index, code)
    return ListOffsetsPartitionResponse(
        asked.partition_index, NONE, found.timestamp_ms, found.offset, found.leader_epoch
    )


def _epoch_end(partition: int, found: EpochEnd | QuorateError) -> EpochEndOffset:
    if isinstance(found, QuorateError):
        return EpochEndOffset(code_of(found), partition)
    return EpochEndOffset(NONE, partition, found.leader_epoch, found.end_offset)
