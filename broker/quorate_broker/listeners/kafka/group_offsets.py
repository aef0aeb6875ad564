"""OffsetCommit, OffsetFetch and OffsetDelete: the committed offsets of groups."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from quorate.errors import QuorateError
from quorate.net.principal import Principal
from quorate_broker.groups.machine.values import (
    CommitOffsets,
    FetchedOffset,
    FetchOffsets,
    OffsetCommit,
)
from quorate_broker.groups.records.values import Partition
from quorate_broker.listeners.kafka.call import Call, Handler
from quorate_broker.listeners.kafka.errors import (
    NONE,
    OF_COMMITS,
    OF_GROUPS,
    OF_READS,
    UNKNOWN_TOPIC_ID,
    UNKNOWN_TOPIC_OR_PARTITION,
    code_of,
)
from quorate_broker.listeners.kafka.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestTopic,
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
)
from quorate_broker.listeners.kafka.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteResponse,
    OffsetDeleteResponsePartition,
    OffsetDeleteResponseTopic,
)
from quorate_broker.listeners.kafka.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopics,
    OffsetFetchResponse,
    OffsetFetchResponseGroup,
    OffsetFetchResponsePartition,
    OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
)
from quorate_broker.listeners.kafka.versions import OFFSET_COMMIT, OFFSET_DELETE, OFFSET_FETCH
from quorate_broker.listeners.kafka.wire import NO_UUID
from quorate_broker.operations.groups import Groups, check_named
from quorate_broker.replicas.replicas import Replicas

#: The version from which topics are named by their ids: of OffsetCommit and OffsetFetch.
IDS_FROM: Final = 10
#: Of OffsetFetch: many groups in one request; an error of the group as a whole.
MANY_GROUPS_FROM: Final = 8
GROUP_ERROR_FROM: Final = 2
#: The offset of a partition for which nothing is committed.
NO_OFFSET: Final = -1


class GroupOffsetRequests:
    """Commits, finds and deletes offsets of groups."""

    def __init__(self, groups: Groups, replicas: Replicas) -> None:
        self._groups = groups
        self._replicas = replicas

    def handlers(self) -> Mapping[int, Handler]:
        return {
            OFFSET_COMMIT: self.offset_commit,
            OFFSET_FETCH: self.offset_fetch,
            OFFSET_DELETE: self.offset_delete,
        }

    def _topic_id(self, name: str, topic_id: bytes, version: int) -> bytes | None:
        """Return the id of a topic that a request names; None if there is no such topic."""
        if version >= IDS_FROM:
            return topic_id if topic_id in self._replicas.image.topics else None
        topic = self._replicas.image.topic_named(name)
        return None if topic is None else topic.id

    # OffsetCommit

    async def offset_commit(self, call: Call[OffsetCommitRequest]) -> OffsetCommitResponse:
        request, version = call.request, call.version
        unknown = UNKNOWN_TOPIC_ID if version >= IDS_FROM else UNKNOWN_TOPIC_OR_PARTITION
        ids = [self._topic_id(one.name, one.topic_id, version) for one in request.topics]
        asked = CommitOffsets(
            request.group_id,
            [
                OffsetCommit(
                    (topic_id, one.partition_index),
                    one.committed_offset,
                    one.committed_leader_epoch,
                    one.committed_metadata or "",
                )
                for topic_id, topic in zip(ids, request.topics, strict=True)
                if topic_id is not None
                for one in topic.partitions
            ],
            request.member_id,
            request.generation_id_or_member_epoch,
            request.group_instance_id,
        )
        try:
            refused = (await self._groups.commit_offsets(call.client.principal, asked)).refused
        except QuorateError as error:
            refused = dict.fromkeys((one.partition for one in asked.offsets), error)
        return OffsetCommitResponse(
            topics=[
                _committed(topic, topic_id, refused, unknown)
                for topic_id, topic in zip(ids, request.topics, strict=True)
            ]
        )

    # OffsetFetch

    async def offset_fetch(self, call: Call[OffsetFetchRequest]) -> OffsetFetchResponse:
        request, version = call.request, call.version
        if version >= MANY_GROUPS_FROM:
            check_named([one.group_id for one in request.groups])
            groups = []
            for one in request.groups:
                groups.append(await self._fetched(call.client.principal, one, version))
                await asyncio.sleep(0)
            return OffsetFetchResponse(groups=groups)
        topics = request.topics
        asked = OffsetFetchRequestGroup(
            request.group_id,
            topics=None
            if topics is None
            else [
                OffsetFetchRequestTopics(one.name, NO_UUID, one.partition_indexes) for one in topics
            ],
        )
        found = await self._fetched(call.client.principal, asked, version)
        listed = found.topics
        if found.error_code and version < GROUP_ERROR_FROM:
            listed = [
                OffsetFetchResponseTopics(
                    one.name,
                    NO_UUID,
                    [_nothing(number, found.error_code) for number in one.partition_indexes],
                )
                for one in asked.topics or ()
            ]
        return OffsetFetchResponse(
            topics=[
                OffsetFetchResponseTopic(
                    topic.name,
                    [
                        OffsetFetchResponsePartition(
                            one.partition_index,
                            one.committed_offset,
                            one.committed_leader_epoch,
                            one.metadata,
                            one.error_code,
                        )
                        for one in topic.partitions
                    ],
                )
                for topic in listed
            ],
            error_code=found.error_code,
        )

    async def _fetched(
        self, principal: Principal, asked: OffsetFetchRequestGroup, version: int
    ) -> OffsetFetchResponseGroup:
        topics = asked.topics
        try:
            if topics is None:
                found = await self._groups.fetch_offsets(principal, _request(asked, None))
                return OffsetFetchResponseGroup(asked.group_id, _by_topic(found), NONE)
            ids = [self._topic_id(one.name, one.topic_id, version) for one in topics]
            partitions = [
                (topic_id, number)
                for topic_id, topic in zip(ids, topics, strict=True)
                if topic_id is not None
                for number in topic.partition_indexes
            ]
            found = await self._groups.fetch_offsets(principal, _request(asked, partitions))
        except QuorateError as error:
            return OffsetFetchResponseGroup(asked.group_id, [], code_of(error, OF_READS))
        answers = iter(found)
        # Of a name that no topic has, nothing is committed: older clients ask for such topics.
        unknown = UNKNOWN_TOPIC_ID if version >= IDS_FROM else NONE
        return OffsetFetchResponseGroup(
            asked.group_id,
            [
                OffsetFetchResponseTopics(
                    topic.name,
                    topic.topic_id,
                    [
                        _nothing(number, unknown)
                        if topic_id is None
                        else _offset(number, next(answers))
                        for number in topic.partition_indexes
                    ],
                )
                for topic_id, topic in zip(ids, topics, strict=True)
            ],
            NONE,
        )

    # OffsetDelete

    async def offset_delete(self, call: Call[OffsetDeleteRequest]) -> OffsetDeleteResponse:
        request = call.request
        (described,) = await self._groups.describe_groups_raw(
            call.client.principal, [request.group_id]
        )
        if isinstance(described, QuorateError):
            return OffsetDeleteResponse(error_code=code_of(described, OF_GROUPS))
        gone = UNKNOWN_TOPIC_OR_PARTITION
        ids = [self._topic_id(one.name, NO_UUID, call.version) for one in request.topics]
        asked = CommitOffsets(
            request.group_id,
            [
                OffsetCommit((topic_id, one.partition_index), None)
                for topic_id, topic in zip(ids, request.topics, strict=True)
                if topic_id is not None
                for one in topic.partitions
            ],
        )
        try:
            refused = (await self._groups.commit_offsets(call.client.principal, asked)).refused
        except QuorateError as error:
            return OffsetDeleteResponse(error_code=code_of(error, OF_GROUPS))
        return OffsetDeleteResponse(
            topics=[
                OffsetDeleteResponseTopic(
                    topic.name,
                    [
                        OffsetDeleteResponsePartition(
                            one.partition_index, _code(topic_id, one.partition_index, refused, gone)
                        )
                        for one in topic.partitions
                    ],
                )
                for topic_id, topic in zip(ids, request.topics, strict=True)
            ]
        )


def _request(
    asked: OffsetFetchRequestGroup, partitions: Sequence[Partition] | None
) -> FetchOffsets:
    return FetchOffsets(asked.group_id, partitions, asked.member_id or "", asked.member_epoch)


def _committed(
    topic: OffsetCommitRequestTopic,
    topic_id: bytes | None,
    refused: Mapping[Partition, QuorateError],
    unknown: int,
) -> OffsetCommitResponseTopic:
    return OffsetCommitResponseTopic(
        topic.name,
        topic.topic_id,
        [
            OffsetCommitResponsePartition(
                one.partition_index, _code(topic_id, one.partition_index, refused, unknown)
            )
            for one in topic.partitions
        ],
    )


def _code(
    topic_id: bytes | None,
    number: int,
    refused: Mapping[Partition, QuorateError],
    unknown: int,
) -> int:
    if topic_id is None:
        return unknown
    error = refused.get((topic_id, number))
    return NONE if error is None else code_of(error, OF_COMMITS)


def _nothing(number: int, code: int) -> OffsetFetchResponsePartitions:
    return OffsetFetchResponsePartitions(number, NO_OFFSET, -1, "", code)


def _offset(number: int, found: FetchedOffset | QuorateError) -> OffsetFetchResponsePartitions:
    if isinstance(found, QuorateError):
        return _nothing(number, code_of(found, OF_READS))
    committed = found.committed
    if committed is None:
        return _nothing(number, NONE)
    return OffsetFetchResponsePartitions(
        number, committed.offset, committed.leader_epoch, committed.metadata, NONE
    )


def _by_topic(
    found: Iterable[FetchedOffset | QuorateError],
) -> list[OffsetFetchResponseTopics]:
    topics: defaultdict[tuple[str, bytes], list[OffsetFetchResponsePartitions]] = defaultdict(list)
    for one in found:
        if isinstance(one, FetchedOffset):
            topic_id, number = one.partition
            topics[one.topic, topic_id].append(_offset(number, one))
    return [
        OffsetFetchResponseTopics(name, topic_id, partitions)
        for (name, topic_id), partitions in topics.items()
    ]
