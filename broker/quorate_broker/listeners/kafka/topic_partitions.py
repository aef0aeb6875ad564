"""DescribeTopicPartitions: topics with their partitions, told in portions (KIP-966)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from itertools import dropwhile
from typing import Final

from msgspec.structs import replace

from quorate_broker.listeners.kafka import authorized
from quorate_broker.listeners.kafka.call import Call, Handler, Refusal
from quorate_broker.listeners.kafka.errors import NONE, code_of
from quorate_broker.listeners.kafka.messages.describe_topic_partitions import (
    DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponseCursor,
    DescribeTopicPartitionsResponsePartition,
    DescribeTopicPartitionsResponseTopic,
)
from quorate_broker.listeners.kafka.metadata import leader_told
from quorate_broker.listeners.kafka.reach import reachable
from quorate_broker.listeners.kafka.versions import DESCRIBE_TOPIC_PARTITIONS
from quorate_broker.operations.metadata import Metadata, TopicMissing, check_count
from quorate_broker.operations.partitions import PARTITIONS_A_TURN
from quorate_broker.operations.rights import Rights
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.partitions import PartitionImage
from quorate_quorum.metadata.topics import TopicImage
from quorate_quorum.node.listeners import ListenerAddress

#: The most partitions in one answer, even if the client takes more.
PARTITIONS_MAX: Final = 2000


class TopicPartitionRequests:
    """Answers DescribeTopicPartitions from this broker's image, in the order of the names."""

    def __init__(self, metadata: Metadata, rights: Rights) -> None:
        self._metadata = metadata
        self._rights = rights

    def handlers(self) -> Mapping[int, Handler]:
        return {DESCRIBE_TOPIC_PARTITIONS: self.describe}

    async def describe(
        self, call: Call[DescribeTopicPartitionsRequest]
    ) -> DescribeTopicPartitionsResponse:
        request, cursor = call.request, call.request.cursor
        check_count(len(request.topics))
        if request.response_partition_limit < 1:
            raise Refusal(f"{request.response_partition_limit} partitions are asked for")
        if cursor is not None and cursor.partition_index < 0:
            raise Refusal(f"a cursor at partition {cursor.partition_index}")
        image = await self._metadata.image(0)
        addresses = reachable(call.client, image)
        left = min(request.response_partition_limit, PARTITIONS_MAX)
        found: list[DescribeTopicPartitionsResponseTopic] = []
        for topic in self._topics(call, image):
            if isinstance(topic, TopicMissing):
                missing = code_of(topic.error)
                found.append(DescribeTopicPartitionsResponseTopic(missing, topic.name))
                continue
            is_at_cursor = cursor is not None and topic.name == cursor.topic_name
            first = cursor.partition_index if cursor is not None and is_at_cursor else 0
            if left == 0:
                return _portion(found, topic.name, first)
            end = min(len(topic.partitions), first + left)
            if first < end:
                told = await _described(topic, first, end, image, addresses)
                may = self._rights.on_topic(call.client.principal, topic.name)
                found.append(replace(told, topic_authorized_operations=authorized.told(may)))
                left -= end - first
            if end < len(topic.partitions):
                return _portion(found, topic.name, end)
        return DescribeTopicPartitionsResponse(topics=found)

    def _topics(
        self, call: Call[DescribeTopicPartitionsRequest], image: MetadataImage
    ) -> Iterable[TopicImage | TopicMissing]:
        """Return the topics from the cursor on."""
        request, principal = call.request, call.client.principal
        start = "" if request.cursor is None else request.cursor.topic_name
        if request.topics:
            names = sorted({topic.name for topic in request.topics if topic.name >= start})
            return self._metadata.topics(image, principal, names)
        return dropwhile(
            lambda topic: topic.name < start, self._metadata.all_topics(image, principal)
        )


def _portion(
    topics: list[DescribeTopicPartitionsResponseTopic], topic: str, partition: int
) -> DescribeTopicPartitionsResponse:
    """Return an answer after which the client asks for the rest, from a partition on."""
    cursor = DescribeTopicPartitionsResponseCursor(topic, partition)
    return DescribeTopicPartitionsResponse(topics=topics, next_cursor=cursor)


async def _described(
    topic: TopicImage,
    first: int,
    end: int,
    image: MetadataImage,
    addresses: Mapping[int, ListenerAddress],
) -> DescribeTopicPartitionsResponseTopic:
    partitions: list[DescribeTopicPartitionsResponsePartition] = []
    for start in range(first, end, PARTITIONS_A_TURN):
        stop = min(end, start + PARTITIONS_A_TURN)
        partitions.extend(
            _partition(index, topic.partitions[index], image, addresses)
            for index in range(start, stop)
        )
        await asyncio.sleep(0)
    return DescribeTopicPartitionsResponseTopic(
        NONE, topic.name, topic.id, topic.is_internal, partitions
    )


def _partition(
    index: int,
    partition: PartitionImage,
    image: MetadataImage,
    addresses: Mapping[int, ListenerAddress],
) -> DescribeTopicPartitionsResponsePartition:
    error_code, leader = leader_told(partition, image, addresses)
    return DescribeTopicPartitionsResponsePartition(
        error_code,
        index,
        leader,
        partition.leader_epoch,
        partition.broker_ids,
        partition.isr,
        list(partition.elr),
        [],
        [one for one in partition.broker_ids if not image.is_live(partition, one)],
    )
