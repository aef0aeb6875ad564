"""ListOffsets and OffsetForLeaderEpoch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from quorate.errors import InvalidRequestError, QuorateError, UnknownTopicError
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
        named = _Named(
            (topic.name, one.partition_index) for topic in topics for one in topic.partitions
        )
        topic_ids = self._replicas.image.topic_ids
        places = [
            named.refusal(topic.name, one.partition_index, topic_id) or _asked(topic_id, one)
            for topic in topics
            for topic_id in (topic_ids.get(topic.name, b""),)
            for one in topic.partitions
        ]
        questions = [one for one in places if isinstance(one, OffsetAsked)]
        found = iter(await self._offsets.find(call.client.principal, questions))
        answers = (next(found) if isinstance(one, OffsetAsked) else one for one in places)
        return ListOffsetsResponse(
            topics=[
                ListOffsetsTopicResponse(
                    topic.name,
                    [_listed(one, next(answers), call.version) for one in topic.partitions],
                )
                for topic in topics
            ]
        )

    async def offset_for_leader_epoch(
        self, call: Call[OffsetForLeaderEpochRequest]
    ) -> OffsetForLeaderEpochResponse:
        topics = call.request.topics
        self._offsets.check_count(sum(len(topic.partitions) for topic in topics))
        named = _Named((topic.topic, one.partition) for topic in topics for one in topic.partitions)
        topic_ids = self._replicas.image.topic_ids
        places = [
            named.refusal(topic.topic, one.partition, topic_id)
            or EpochAsked(topic_id, one.partition, one.leader_epoch, one.current_leader_epoch)
            for topic in topics
            for topic_id in (topic_ids.get(topic.topic, b""),)
            for one in topic.partitions
        ]
        questions = [one for one in places if isinstance(one, EpochAsked)]
        found = iter(await self._offsets.epoch_ends(call.client.principal, questions))
        answers = (next(found) if isinstance(one, EpochAsked) else one for one in places)
        return OffsetForLeaderEpochResponse(
            topics=[
                OffsetForLeaderTopicResult(
                    topic.topic,
                    [_epoch_end(one.partition, next(answers)) for one in topic.partitions],
                )
                for topic in topics
            ]
        )


class _Named:
    """The partitions that a request names, some of them perhaps more than once.

    A partition that is named twice is not looked up: the work of a request must not grow with its
    size.
    """

    def __init__(self, partitions: Iterable[tuple[str, int]]) -> None:
        self._times = Counter(partitions)

    def refusal(self, topic: str, partition: int, topic_id: bytes) -> QuorateError | None:
        """Return why nothing is looked up for a partition. An empty id means: no such topic."""
        if self._times[topic, partition] > 1:
            return InvalidRequestError(
                f"the request names {topic[:249]!r}-{partition} twice; name each partition once"
            )
        return None if topic_id else UnknownTopicError(f"no topic is named {topic[:249]!r}")


def _asked(topic_id: bytes, one: ListOffsetsPartition) -> OffsetAsked | OffsetFound:
    """Return the question for a partition, or the answer where none is needed."""
    if one.timestamp in TIERED:
        return OffsetFound(-1, -1, -1, -1)
    timestamp = EARLIEST_TIMESTAMP if one.timestamp == EARLIEST_LOCAL else one.timestamp
    return OffsetAsked(topic_id, one.partition_index, timestamp, one.current_leader_epoch)


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
