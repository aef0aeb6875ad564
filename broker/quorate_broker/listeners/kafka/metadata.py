"""Metadata: the brokers that a client can reach, and the topics that it asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from quorate.errors import InvalidTopicError, QuorateError, UnknownTopicError
from quorate_broker.listeners.kafka import authorized
from quorate_broker.listeners.kafka.auto_creation import AutoCreation
from quorate_broker.listeners.kafka.call import Call, Handler
from quorate_broker.listeners.kafka.errors import (
    BY_ID,
    LEADER_NOT_AVAILABLE,
    LISTENER_NOT_FOUND,
    NONE,
    code_of,
)
from quorate_broker.listeners.kafka.messages.metadata import (
    MetadataRequest,
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponsePartition,
    MetadataResponseTopic,
)
from quorate_broker.listeners.kafka.reach import reachable
from quorate_broker.listeners.kafka.recently_fenced import RecentlyFenced
from quorate_broker.listeners.kafka.versions import METADATA
from quorate_broker.operations.metadata import Metadata, TopicMissing, check_count
from quorate_broker.operations.partitions import PARTITIONS_A_TURN
from quorate_broker.operations.rights import Rights
from quorate_quorum.configs import ClusterConfig
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.partitions import PartitionImage
from quorate_quorum.metadata.topic_names import check_name
from quorate_quorum.metadata.topics import TopicImage
from quorate_quorum.node.listeners import ListenerAddress

NO_LEADER: Final = -1
#: The version from which null asks for all topics. In version 0 an empty list does.
NULL_IS_ALL_FROM: Final = 1
#: The version from which an error of a partition may say that the leader has no such listener.
LISTENER_ERROR_FROM: Final = 6
#: The version from which a topic without a name may be in an answer.
NAMELESS_FROM: Final = 12


class MetadataRequests:
    """Answers Metadata from this broker's image, after the creation of missing topics."""

    def __init__(
        self,
        metadata: Metadata,
        auto_creation: AutoCreation,
        recently_fenced: RecentlyFenced,
        rights: Rights,
        cluster_id: str,
        broker_id: int,
    ) -> None:
        self._metadata = metadata
        self._auto_creation = auto_creation
        self._recently_fenced = recently_fenced
        self._rights = rights
        self._cluster_id = cluster_id
        self._broker_id = broker_id

    def handlers(self) -> Mapping[int, Handler]:
        return {METADATA: self.metadata}

    async def metadata(self, call: Call[MetadataRequest]) -> MetadataResponse:
        request, principal = call.request, call.client.principal
        check_count(0 if request.topics is None else len(request.topics))
        image = await self._metadata.image(0)
        refused: Mapping[str, QuorateError] = {}
        missing = _missing_names(call, image)
        if missing:
            refused = await self._create(missing, call, image)
            image = await self._metadata.image(0)
        addresses = reachable(call.client, image)
        topics = []
        for topic in self._topics(call, image):
            told = await _topic(topic, image, addresses, call.version, refused)
            if request.include_topic_authorized_operations and isinstance(topic, TopicImage):
                may = authorized.told(self._rights.on_topic(principal, topic.name))
                told = replace(told, topic_authorized_operations=may)
            topics.append(told)
        named = addresses | self._recently_fenced.reachable(call.client, image)
        return MetadataResponse(
            brokers=[
                MetadataResponseBroker(
                    broker_id, address.host, address.port, image.brokers[broker_id].rack or None
                )
                for broker_id, address in named.items()
            ],
            cluster_id=self._cluster_id,
            # Admin clients send their requests to this broker. The controller of a quorum does not
            # speak Kafka, and every broker passes on to it.
            controller_id=self._broker_id,
            topics=topics,
            cluster_authorized_operations=(
                authorized.told_of_cluster(self._rights.on_cluster(principal))
                if request.include_cluster_authorized_operations
                else authorized.NOT_ASKED
            ),
        )

    async def _create(
        self, missing: Sequence[str], call: Call[MetadataRequest], image: MetadataImage
    ) -> Mapping[str, QuorateError]:
        """Create the topics that this client may know to be missing. Return the refusals."""
        principal = call.client.principal
        names = (
            one.name
            for one in self._metadata.topics(image, principal, missing)
            if isinstance(one, TopicMissing) and isinstance(one.error, UnknownTopicError)
        )
        cluster = ClusterConfig.of(image.configs)
        return await self._auto_creation.create(names, principal, cluster)

    def _topics(
        self, call: Call[MetadataRequest], image: MetadataImage
    ) -> Iterable[TopicImage | TopicMissing]:
        asked, principal = call.request.topics, call.client.principal
        if asked is None or (not asked and call.version < NULL_IS_ALL_FROM):
            return self._metadata.all_topics(image, principal)
        names = dict.fromkeys(one.name for one in asked if one.name is not None)
        ids = dict.fromkeys(one.topic_id for one in asked if one.name is None)
        return self._metadata.topics(image, principal, list(names), list(ids))


def _missing_names(call: Call[MetadataRequest], image: MetadataImage) -> list[str]:
    """Return the topics that the request asks for, that do not exist, and that it may create."""
    asked = call.request.topics
    if not asked or not call.request.allow_auto_topic_creation:
        return []
    names = dict.fromkeys(one.name for one in asked if one.name is not None)
    missing = [name for name in names if name not in image.topic_ids]
    if not missing or not ClusterConfig.of(image.configs).auto_create_topics_enable:
        return []
    return missing


async def _topic(
    topic: TopicImage | TopicMissing,
    image: MetadataImage,
    addresses: Mapping[int, ListenerAddress],
    version: int,
    refused: Mapping[str, QuorateError],
) -> MetadataResponseTopic:
    """Describe a topic. Only some partitions are described in each turn of the loop."""
    if isinstance(topic, TopicMissing):
        await asyncio.sleep(0)
        return _missing(topic, version, refused)
    found: list[MetadataResponsePartition] = []
    for first in range(0, len(topic.partitions), PARTITIONS_A_TURN):
        found.extend(
            _partition(index, partition, image, addresses, version)
            for index, partition in enumerate(
                topic.partitions[first : first + PARTITIONS_A_TURN], first
            )
        )
        await asyncio.sleep(0)
    return MetadataResponseTopic(NONE, topic.name, topic.id, topic.is_internal, found)


def _missing(
    topic: TopicMissing, version: int, refused: Mapping[str, QuorateError]
) -> MetadataResponseTopic:
    if not topic.topic_id:
        error = refused.get(topic.name) or topic.error
        return MetadataResponseTopic(_code_of_missing(topic.name, error), topic.name)
    name = None if version >= NAMELESS_FROM else ""
    return MetadataResponseTopic(code_of(topic.error, BY_ID), name, topic.topic_id)


def _code_of_missing(name: str, error: QuorateError) -> int:
    """Return the code of an error. A name that no topic can have is an error of its own."""
    if isinstance(error, UnknownTopicError):
        try:
            check_name(name, internal=True)
        except InvalidTopicError as invalid:
            return code_of(invalid)
    return code_of(error)


def leader_told(
    partition: PartitionImage, image: MetadataImage, addresses: Mapping[int, ListenerAddress]
) -> tuple[int, int]:
    """Return the error code of a partition, and its leader if the client can reach it."""
    leader = partition.leader
    if leader in addresses:
        return NONE, leader
    has_leader = leader in image.brokers and not image.brokers[leader].fenced
    return LISTENER_NOT_FOUND if has_leader else LEADER_NOT_AVAILABLE, NO_LEADER


def _partition(
    index: int,
    partition: PartitionImage,
    image: MetadataImage,
    addresses: Mapping[int, ListenerAddress],
    version: int,
) -> MetadataResponsePartition:
    error_code, leader = leader_told(partition, image, addresses)
    if error_code == LISTENER_NOT_FOUND and version < LISTENER_ERROR_FROM:
        error_code = LEADER_NOT_AVAILABLE
    return MetadataResponsePartition(
        error_code,
        index,
        leader,
        partition.leader_epoch,
        partition.broker_ids,
        partition.isr,
        [one for one in partition.broker_ids if not image.is_live(partition, one)],
    )
