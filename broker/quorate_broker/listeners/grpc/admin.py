"""The Admin service: reads from this broker's image, writes forwarded to the controller.

The controller decides with the original principal; what it answers is passed on as it is. What
was created is answered for only when this broker knows it, so that the caller's next step may
come here.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from quorate.errors import (
    InvalidRequestError,
    OverloadedError,
    QuorateError,
    QuorumUnavailableError,
    RequestTimedOutError,
    UnknownTopicError,
    to_wire,
)
from quorate.net.methods import (
    ADD_VOTER,
    ALTER_CONFIGS,
    CREATE_TOPICS,
    DELETE_TOPICS,
    DESCRIBE_CLUSTER,
    DESCRIBE_CONFIGS,
    DESCRIBE_FEATURES,
    DESCRIBE_HEALTH,
    DESCRIBE_QUORUM,
    DESCRIBE_TOPICS,
    METADATA,
    REMOVE_VOTER,
    TRANSFER_LEADERSHIP,
    UNREGISTER_BROKER,
    UPDATE_FEATURE,
)
from quorate.v1.admin_pb2 import (
    AddVoterResponse,
    AlterConfigsResponse,
    BrokerEndpoint,
    ClusterBroker,
    ConfigEntry,
    CreatedTopic,
    CreateTopicsResponse,
    DeletedTopic,
    DeleteTopicsResponse,
    DescribeClusterResponse,
    DescribeConfigsResponse,
    DescribedTopic,
    DescribeFeaturesResponse,
    DescribeHealthResponse,
    DescribeQuorumResponse,
    DescribeTopicsResponse,
    MetadataResponse,
    PartitionMetadata,
    RemoveVoterResponse,
    TopicMetadata,
    TransferLeadershipResponse,
    UnregisterBrokerResponse,
    UpdateFeatureResponse,
)
from quorate_broker.operations.answers import (
    PARTITIONS_A_TURN,
    TOPIC_ID_BYTES,
    error_of,
    listener_for,
    refuse_duplicates,
)
from quorate_quorum.configs import CONFIGS, effective

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from quorate.net.network import Handler, Method, Peer
    from quorate.v1.admin_pb2 import (
        AddVoterRequest,
        AlterConfigsRequest,
        CreateTopicsRequest,
        DeleteTopicsRequest,
        DescribeClusterRequest,
        DescribeConfigsRequest,
        DescribeFeaturesRequest,
        DescribeHealthRequest,
        DescribeQuorumRequest,
        DescribeTopicsRequest,
        MetadataRequest,
        RemoveVoterRequest,
        TransferLeadershipRequest,
        UnregisterBrokerRequest,
        UpdateFeatureRequest,
    )
    from quorate_broker.publisher import Publisher
    from quorate_quorum.client.client import QuorumClient
    from quorate_quorum.metadata.image import MetadataImage, TopicImage

Q = TypeVar("Q")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminLimits:
    """Bounds and waits of the service."""

    #: Calls on their way to the controller.
    forwards_max: int = 1000
    #: Topics that one request may name.
    topics_max: int = 10_000
    #: What a caller gets who names no timeout, and the longest that one may name.
    timeout_ms: int = 30_000
    timeout_ms_max: int = 300_000
    #: How long a read waits for a broker that has just started to know the cluster.
    ready_timeout_ms: int = 5_000


class AdminService:
    """See the module. `ready` is set once the image has passed this broker's registration.

    Before that reads wait: a broker that comes back must not tell what it knew long ago.
    """

    def __init__(
        self,
        cluster_id: str,
        client: QuorumClient,
        publisher: Publisher,
        ready: asyncio.Event,
        wall_clock_ms: Callable[[], int],
        limits: AdminLimits | None = None,
    ) -> None:
        self._cluster_id = cluster_id
        self._client = client
        self._publisher = publisher
        self._ready = ready
        self._wall_clock_ms = wall_clock_ms
        self._limits = limits or AdminLimits()
        self._forwards = 0

    def handlers(self) -> Mapping[Method[Any, Any], Handler]:
        return {
            METADATA: self.metadata,
            CREATE_TOPICS: self.create_topics,
            DELETE_TOPICS: self.delete_topics,
            DESCRIBE_TOPICS: self.describe_topics,
            ALTER_CONFIGS: self.alter_configs,
            DESCRIBE_CONFIGS: self.describe_configs,
            DESCRIBE_CLUSTER: self.describe_cluster,
            DESCRIBE_QUORUM: self.describe_quorum,
            DESCRIBE_HEALTH: self.describe_health,
            UNREGISTER_BROKER: self.unregister_broker,
            DESCRIBE_FEATURES: self.describe_features,
            UPDATE_FEATURE: self.update_feature,
            TRANSFER_LEADERSHIP: self.transfer_leadership,
            ADD_VOTER: self.add_voter,
            REMOVE_VOTER: self.remove_voter,
        }

    # Reads

    async def metadata(self, request: MetadataRequest, peer: Peer) -> MetadataResponse:
        self._check_count(len(request.topics) + len(request.topic_ids))
        image = await self._image(peer)
        if request.HasField("known_image_offset") and (image.offset, image.epoch) == (
            request.known_image_offset,
            request.known_image_epoch,
        ):
            return MetadataResponse(
                cluster_id=self._cluster_id,
                controller=self._client.leader_id,
                image_offset=image.offset,
                image_epoch=image.epoch,
                unchanged=True,
            )
        if request.all_topics:
            topics = [await _topic(topic) for topic in image.sorted_topics()]
        else:
            refuse_duplicates((*request.topics, *request.topic_ids))
            topics = [await _topic_named(image, name) for name in request.topics]
            topics += [await _topic_of_id(image, topic_id) for topic_id in request.topic_ids]
        return MetadataResponse(
            cluster_id=self._cluster_id,
            controller=self._client.leader_id,
            brokers=[
                BrokerEndpoint(broker_id=broker.id, listener=listener, rack=broker.rack)
                for broker in image.sorted_brokers()
                if not broker.fenced and (listener := listener_for(peer, broker)) is not None
            ],
            topics=topics,
            image_offset=image.offset,
            image_epoch=image.epoch,
            now_ms=self._wall_clock_ms(),
        )

    async def describe_topics(
        self, request: DescribeTopicsRequest, peer: Peer
    ) -> DescribeTopicsResponse:
        self._check_count(len(request.topics))
        image = await self._image(peer)
        refuse_duplicates(request.topics)
        names = list(request.topics) or sorted(image.topic_ids)
        return DescribeTopicsResponse(topics=[await _described(image, name) for name in names])

    async def describe_configs(
        self, request: DescribeConfigsRequest, peer: Peer
    ) -> DescribeConfigsResponse:
        """Every setting of a topic, or of the cluster, with its source."""
        try:
            image = await self._image(peer)
            if request.topic:
                entries = _of_topic(_known(image, request.topic).configs, image.configs)
            else:
                entries = [_entry(name, {}, image.configs) for name in sorted(CONFIGS)]
            return DescribeConfigsResponse(entries=entries)
        except QuorateError as error:
            return DescribeConfigsResponse(error=error_of(error))

    async def describe_cluster(
        self, request: DescribeClusterRequest, peer: Peer
    ) -> DescribeClusterResponse:
        image = await self._image(peer)
        return DescribeClusterResponse(
            cluster_id=self._cluster_id,
            controller=self._client.leader_id,
            brokers=[
                ClusterBroker(
                    broker_id=broker.id,
                    rack=broker.rack,
                    host=broker.host,
                    listener=listener_for(peer, broker),
                    fenced=broker.fenced,
                    broker_epoch=broker.epoch,
                    shutting_down=broker.shutting_down,
                )
                for broker in image.sorted_brokers()
            ],
            image_offset=image.offset,
            quorum_generation=self._client.quorum_generation,
        )

    # Writes, and what only the controller knows

    async def create_topics(self, request: CreateTopicsRequest, peer: Peer) -> CreateTopicsResponse:
        try:
            self._check_count(len(request.topics))
            return await self._forward(CREATE_TOPICS, request, peer, request.timeout_ms)
        except QuorateError as error:
            failed = [
                CreatedTopic(name=topic.name, topic_id=topic.topic_id, error=error_of(error))
                for topic in request.topics[: self._limits.topics_max]
            ]
            return CreateTopicsResponse(topics=failed)

    async def delete_topics(self, request: DeleteTopicsRequest, peer: Peer) -> DeleteTopicsResponse:
        try:
            self._check_count(len(request.topics) + len(request.topic_ids))
            return await self._forward(DELETE_TOPICS, request, peer, request.timeout_ms)
        except QuorateError as error:
            said = error_of(error)
            failed = [DeletedTopic(name=name, error=said) for name in request.topics]
            failed += [DeletedTopic(topic_id=one, error=said) for one in request.topic_ids]
            return DeleteTopicsResponse(topics=failed[: self._limits.topics_max])

    async def alter_configs(self, request: AlterConfigsRequest, peer: Peer) -> AlterConfigsResponse:
        try:
            return await self._forward(ALTER_CONFIGS, request, peer, 0)
        except QuorateError as error:
            return AlterConfigsResponse(error=error_of(error))

    async def describe_quorum(
        self, request: DescribeQuorumRequest, peer: Peer
    ) -> DescribeQuorumResponse:
        try:
            return await self._forward(DESCRIBE_QUORUM, request, peer, 0)
        except QuorateError as error:
            return DescribeQuorumResponse(error=error_of(error), leader=-1)

    async def describe_health(
        self, request: DescribeHealthRequest, peer: Peer
    ) -> DescribeHealthResponse:
        try:
            answer = await self._forward(DESCRIBE_HEALTH, request, peer, request.timeout_ms)
            brokers = self._client.image.brokers
            for node in answer.nodes:
                if not node.voter and node.id in brokers:
                    listener = listener_for(peer, brokers[node.id])
                    node.endpoint = "" if listener is None else listener.endpoint
            return answer
        except QuorateError as error:
            return DescribeHealthResponse(error=error_of(error), controller=-1)

    async def unregister_broker(
        self, request: UnregisterBrokerRequest, peer: Peer
    ) -> UnregisterBrokerResponse:
        try:
            return await self._forward(UNREGISTER_BROKER, request, peer, 0)
        except QuorateError as error:
            return UnregisterBrokerResponse(error=error_of(error))

    async def describe_features(
        self, request: DescribeFeaturesRequest, peer: Peer
    ) -> DescribeFeaturesResponse:
        try:
            return await self._forward(DESCRIBE_FEATURES, request, peer, 0)
        except QuorateError as error:
            return DescribeFeaturesResponse(error=error_of(error))

    async def update_feature(
        self, request: UpdateFeatureRequest, peer: Peer
    ) -> UpdateFeatureResponse:
        try:
            return await self._forward(UPDATE_FEATURE, request, peer, 0)
        except QuorateError as error:
            return UpdateFeatureResponse(error=error_of(error))

    async def transfer_leadership(
        self, request: TransferLeadershipRequest, peer: Peer
    ) -> TransferLeadershipResponse:
        try:
            return await self._forward(TRANSFER_LEADERSHIP, request, peer, 0)
        except QuorateError as error:
            return TransferLeadershipResponse(error=error_of(error), leader=-1)

    async def add_voter(self, request: AddVoterRequest, peer: Peer) -> AddVoterResponse:
        try:
            return await self._forward(ADD_VOTER, request, peer, 0)
        except QuorateError as error:
            return AddVoterResponse(error=error_of(error))

    async def remove_voter(self, request: RemoveVoterRequest, peer: Peer) -> RemoveVoterResponse:
        try:
            return await self._forward(REMOVE_VOTER, request, peer, 0)
        except QuorateError as error:
            return RemoveVoterResponse(error=error_of(error))

    async def _forward(self, method: Method[Q, R], request: Q, peer: Peer, timeout_ms: int) -> R:
        """Ask the controller; return when this broker has carried out the effect.

        A broker that is slow to do so answers all the same: what is decided is decided.
        """
        loop = asyncio.get_running_loop()
        wait_ms = min(timeout_ms or self._limits.timeout_ms, self._limits.timeout_ms_max)
        wait_ms = _answered_in_time(wait_ms, peer)
        deadline = loop.time() + wait_ms / 1000
        if self._forwards >= self._limits.forwards_max:
            raise OverloadedError(f"{self._forwards} calls wait for the controller already")
        self._forwards += 1
        try:
            response = await self._client.forward(
                method, request, principal=peer.principal, timeout_ms=wait_ms
            )
        finally:
            self._forwards -= 1
        left_ms = max(0, int((deadline - loop.time()) * 1000))
        with suppress(RequestTimedOutError):
            await self._publisher.wait_applied(self._client.image.offset, timeout_ms=left_ms)
        return response

    async def _image(self, peer: Peer) -> MetadataImage:
        if not self._ready.is_set():
            wait_ms = _answered_in_time(self._limits.ready_timeout_ms, peer)
            try:
                async with asyncio.timeout(wait_ms / 1000):
                    await self._ready.wait()
            except TimeoutError:
                raise QuorumUnavailableError(
                    "this broker has not caught up with the cluster's metadata yet: "
                    "ask another one, or later"
                ) from None
        return self._client.image

    def _check_count(self, count: int) -> None:
        if count > self._limits.topics_max:
            raise InvalidRequestError(
                f"a request names {count} topics; {self._limits.topics_max} are allowed"
            )


def _answered_in_time(wait_ms: int, peer: Peer) -> int:
    """Return how long to wait so that the caller still hears why it was in vain."""
    return min(wait_ms, peer.timeout_ms * 4 // 5) if peer.timeout_ms else wait_ms


def _known(image: MetadataImage, name: str) -> TopicImage:
    topic = image.topic_named(name)
    if topic is None:
        raise UnknownTopicError(
            f"no topic is named {name[:249]!r}; list_topics() and `quorate topic list` show all"
        )
    return topic


async def _topic_named(image: MetadataImage, name: str) -> TopicMetadata:
    try:
        return await _topic(_known(image, name))
    except UnknownTopicError as error:
        return TopicMetadata(name=name, error=to_wire(error))


async def _topic_of_id(image: MetadataImage, topic_id: bytes) -> TopicMetadata:
    topic = image.topics.get(topic_id)
    if topic is not None:
        return await _topic(topic)
    error: QuorateError = UnknownTopicError(f"no topic has the id {topic_id[:16].hex()}")
    if len(topic_id) != TOPIC_ID_BYTES:
        error = InvalidRequestError(f"a topic id has {TOPIC_ID_BYTES} bytes, not {len(topic_id)}")
    return TopicMetadata(topic_id=topic_id, error=to_wire(error))


async def _topic(topic: TopicImage) -> TopicMetadata:
    """Describe a topic, some partitions in each turn of the loop."""
    found = TopicMetadata(
        name=topic.name,
        topic_id=topic.id,
        internal=topic.is_internal,
        created_ms=topic.created_ms,
    )
    for first in range(0, len(topic.partitions), PARTITIONS_A_TURN):
        found.partitions.extend(
            PartitionMetadata(
                partition=index,
                leader=partition.leader,
                leader_epoch=partition.leader_epoch,
                replicas=partition.broker_ids,
                isr=partition.isr,
                elr=partition.elr,
                partition_epoch=partition.partition_epoch,
            )
            for index, partition in enumerate(
                topic.partitions[first : first + PARTITIONS_A_TURN], first
            )
        )
        await asyncio.sleep(0)
    return found


async def _described(image: MetadataImage, name: str) -> DescribedTopic:
    topic = image.topic_named(name)
    configs = {} if topic is None else {key: topic.configs[key] for key in sorted(topic.configs)}
    return DescribedTopic(topic=await _topic_named(image, name), configs=configs)


def _of_topic(own: Mapping[str, str], cluster: Mapping[str, str]) -> list[ConfigEntry]:
    """What a topic takes when it is created it never takes from the cluster later."""
    return [
        _entry(name, own, {} if CONFIGS[name].scope == "created" else cluster)
        for name in sorted(CONFIGS)
        if CONFIGS[name].scope != "cluster"
    ]


def _entry(name: str, own: Mapping[str, str], cluster: Mapping[str, str]) -> ConfigEntry:
    value, source = effective(name, own, cluster)
    return ConfigEntry(name=name, value=value, source=source)
