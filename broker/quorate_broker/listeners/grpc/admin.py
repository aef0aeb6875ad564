"""The Admin service. It answers reads from this broker's image, and passes other calls on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final

from quorate.errors import AuthorizationError, QuorateError
from quorate.net import methods
from quorate.net.methods import (
    CREATE_TOPICS,
    DELETE_TOPICS,
    DESCRIBE_CLUSTER,
    DESCRIBE_CONFIGS,
    DESCRIBE_HEALTH,
    DESCRIBE_LOG_DIRS,
    DESCRIBE_QUORUM,
    DESCRIBE_TOPICS,
    EXPLAIN_PARTITION,
    METADATA,
    TRANSFER_LEADERSHIP,
)
from quorate.net.network import Handler, Method, Peer
from quorate.v1.admin_pb2 import (
    BrokerEndpoint,
    ClusterBroker,
    ConfigEntry,
    CreatedTopic,
    CreateTopicsRequest,
    CreateTopicsResponse,
    DeletedTopic,
    DeleteTopicsRequest,
    DeleteTopicsResponse,
    DescribeClusterRequest,
    DescribeClusterResponse,
    DescribeConfigsRequest,
    DescribeConfigsResponse,
    DescribedLogDir,
    DescribedReplica,
    DescribedTopic,
    DescribeHealthRequest,
    DescribeHealthResponse,
    DescribeLogDirsRequest,
    DescribeLogDirsResponse,
    DescribeQuorumResponse,
    DescribeTopicsRequest,
    DescribeTopicsResponse,
    ExplainPartitionRequest,
    ExplainPartitionResponse,
    MetadataRequest,
    MetadataResponse,
    PartitionMetadata,
    TopicMetadata,
    TransferLeadershipResponse,
)
from quorate.v1.common_pb2 import Error
from quorate_broker.listeners.grpc.answers import error_of, hindrances_of, listener_for
from quorate_broker.listeners.grpc.explanations import events_of, out_of_sync_replicas
from quorate_broker.operations import log_dirs, metadata
from quorate_broker.operations.metadata import TopicMissing, check_count
from quorate_broker.operations.operations import Operations
from quorate_broker.operations.partitions import PARTITIONS_A_TURN
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.partitions import PartitionImage
from quorate_quorum.metadata.topics import TopicImage
from quorate_quorum.node.authorizer import BY_CONTROLLER, Required

_ANSWERED_HERE: Final[Mapping[Method[Any, Any], Required]] = {
    METADATA: metadata.TOPICS_REQUIRED,
    DESCRIBE_TOPICS: metadata.TOPICS_REQUIRED,
    DESCRIBE_CONFIGS: metadata.CONFIGS_REQUIRED,
    DESCRIBE_CLUSTER: metadata.CLUSTER_REQUIRED,
    DESCRIBE_LOG_DIRS: log_dirs.REQUIRED,
    EXPLAIN_PARTITION: metadata.TOPICS_REQUIRED,
}
#: All other calls of the service. They are passed on to the controller.
_PASSED_ON: Final = tuple(
    one
    for one in vars(methods).values()
    if isinstance(one, Method)
    and one.path.startswith("/quorate.v1.Admin/")
    and one not in _ANSWERED_HERE
)
REQUIRED: Final[Mapping[Method[Any, Any], Required | str]] = {
    **_ANSWERED_HERE,
    **dict.fromkeys(_PASSED_ON, BY_CONTROLLER),
}


class AdminService:
    """The Admin service: see the module.

    A Metadata answer has the time of `wall_clock_ms`. Clients compare this time with times that are
    in the image.
    """

    required = REQUIRED

    def __init__(
        self, operations: Operations, cluster_id: str, wall_clock_ms: Callable[[], int]
    ) -> None:
        self._metadata = operations.metadata
        self._admin = operations.admin
        self._log_dirs = operations.log_dirs
        self._cluster_id = cluster_id
        self._wall_clock_ms = wall_clock_ms

    def handlers(self) -> Mapping[Method[Any, Any], Handler]:
        return {
            METADATA: self.metadata,
            DESCRIBE_TOPICS: self.describe_topics,
            DESCRIBE_CONFIGS: self.describe_configs,
            DESCRIBE_CLUSTER: self.describe_cluster,
            DESCRIBE_LOG_DIRS: self.describe_log_dirs,
            EXPLAIN_PARTITION: self.explain_partition,
            **{method: partial(self.forward, method) for method in _PASSED_ON},
            DESCRIBE_HEALTH: self.describe_health,
        }

    async def metadata(self, request: MetadataRequest, peer: Peer) -> MetadataResponse:
        check_count(len(request.topics) + len(request.topic_ids))
        image = await self._metadata.image(peer.timeout_ms)
        response = MetadataResponse(
            cluster_id=self._cluster_id,
            controller=self._metadata.controller_id,
            image_offset=image.offset,
            image_epoch=image.epoch,
        )
        if request.HasField("known_image_offset") and (image.offset, image.epoch) == (
            request.known_image_offset,
            request.known_image_epoch,
        ):
            response.unchanged = True
            return response
        topics: Iterable[TopicImage | TopicMissing] = (
            self._metadata.all_topics(image, peer.principal)
            if request.all_topics
            else self._metadata.topics(image, peer.principal, request.topics, request.topic_ids)
        )
        hindrances = hindrances_of(peer, image)
        response.topics.extend([await _topic(topic, hindrances) for topic in topics])
        response.brokers.extend(
            BrokerEndpoint(broker_id=broker.id, listener=listener, rack=broker.rack)
            for broker in image.sorted_brokers()
            if not broker.fenced and (listener := listener_for(peer, broker)) is not None
        )
        response.now_ms = self._wall_clock_ms()
        return response

    async def describe_topics(
        self, request: DescribeTopicsRequest, peer: Peer
    ) -> DescribeTopicsResponse:
        check_count(len(request.topics))
        image = await self._metadata.image(peer.timeout_ms)
        topics: Iterable[TopicImage | TopicMissing] = (
            self._metadata.topics(image, peer.principal, request.topics)
            if request.topics
            else self._metadata.all_topics(image, peer.principal)
        )
        hindrances, now_ms = hindrances_of(peer, image), self._wall_clock_ms()
        return DescribeTopicsResponse(
            topics=[
                DescribedTopic(
                    topic=await _topic(topic, hindrances, image, now_ms),
                    configs=self._metadata.own_configs(topic, peer.principal),
                )
                for topic in topics
            ]
        )

    async def explain_partition(
        self, request: ExplainPartitionRequest, peer: Peer
    ) -> ExplainPartitionResponse:
        try:
            image = await self._metadata.image(peer.timeout_ms)
            found = self._metadata.explained(
                image, peer.principal, request.topic, request.partition
            )
        except QuorateError as error:
            return ExplainPartitionResponse(error=error_of(error))
        hindrances = hindrances_of(peer, image)
        return ExplainPartitionResponse(
            topic_id=found.topic.id,
            state=_partition(found.number, found.state, hindrances, image, self._wall_clock_ms()),
            min_isr=found.min_isr,
            events=events_of(found.changes),
            complete=bool(found.changes) and found.changes[0].is_creation,
            waits_for=found.waits_for,
        )

    async def describe_configs(
        self, request: DescribeConfigsRequest, peer: Peer
    ) -> DescribeConfigsResponse:
        try:
            image = await self._metadata.image(peer.timeout_ms)
            found = self._metadata.configs(image, peer.principal, request.topic)
        except QuorateError as error:
            return DescribeConfigsResponse(error=error_of(error))
        return DescribeConfigsResponse(
            entries=[
                ConfigEntry(name=one.name, value=one.value, source=one.source) for one in found
            ]
        )

    async def describe_cluster(
        self, request: DescribeClusterRequest, peer: Peer
    ) -> DescribeClusterResponse:
        try:
            image = await self._metadata.cluster(peer.principal, peer.timeout_ms)
        except AuthorizationError as error:
            return DescribeClusterResponse(error=error_of(error), controller=-1)
        return DescribeClusterResponse(
            cluster_id=self._cluster_id,
            controller=self._metadata.controller_id,
            brokers=[
                ClusterBroker(
                    broker_id=broker.id,
                    rack=broker.rack,
                    host=broker.host,
                    listener=listener_for(peer, broker),
                    fenced=broker.fenced,
                    broker_epoch=broker.epoch,
                    shutting_down=broker.shutting_down,
                    drained=broker.cordoned,
                    log_dirs=len(broker.directories),
                    failed_log_dirs=sum(one.failed for one in broker.directories),
                )
                for broker in image.sorted_brokers()
            ],
            image_offset=image.offset,
            quorum_generation=self._metadata.quorum_generation,
        )

    async def describe_health(
        self, request: DescribeHealthRequest, peer: Peer
    ) -> DescribeHealthResponse:
        """Pass the call on. In the answer, replace the endpoint of each broker.

        The new endpoint is that of the listener that the caller can use.
        """
        answer: DescribeHealthResponse = await self.forward(DESCRIBE_HEALTH, request, peer)
        brokers = self._metadata.brokers
        for node in answer.nodes:
            if not node.voter and node.id in brokers:
                listener = listener_for(peer, brokers[node.id])
                node.endpoint = "" if listener is None else listener.endpoint
        return answer

    async def describe_log_dirs(
        self, request: DescribeLogDirsRequest, peer: Peer
    ) -> DescribeLogDirsResponse:
        check_count(len(request.topics))
        try:
            found = await self._log_dirs.describe(peer.principal, request.topics or None)
        except QuorateError as error:
            return DescribeLogDirsResponse(error=error_of(error))
        return DescribeLogDirsResponse(
            log_dirs=[
                DescribedLogDir(
                    path=one.path,
                    directory_id=one.directory_id,
                    failure=one.failure,
                    free_bytes=one.free_bytes,
                    replicas=[DescribedReplica(**replica._asdict()) for replica in one.replicas],
                )
                for one in found
            ]
        )

    async def forward(self, method: Method[Any, Any], request: Any, peer: Peer) -> Any:
        """Pass a call on to the controller. An error is returned in the answer."""
        try:
            check_count(_topics_named(request))
            return await self._admin.forward(
                method,
                request,
                peer.principal,
                timeout_ms=getattr(request, "timeout_ms", 0),
                caller_timeout_ms=peer.timeout_ms,
            )
        except QuorateError as error:
            return _failed(method, request, error_of(error))


def _topics_named(request: Any) -> int:
    """Return how many topics a request names. The request may be of any method."""
    named = (getattr(request, field, ()) for field in ("topics", "topic_ids"))
    return sum(len(one) for one in named)


def _failed(method: Method[Any, Any], request: Any, error: Error) -> Any:
    """Return an answer with an error, for a call that failed or whose outcome is unknown."""
    specially = _FAILED.get(method)
    if specially is not None:
        return specially(request, error)
    response = method.decode_response(b"")
    response.error.CopyFrom(error)
    return response


def _not_created(request: CreateTopicsRequest, error: Error) -> CreateTopicsResponse:
    failed = [
        CreatedTopic(name=topic.name, topic_id=topic.topic_id, error=error)
        for topic in request.topics[: metadata.TOPICS_MAX]
    ]
    return CreateTopicsResponse(topics=failed)


def _not_deleted(request: DeleteTopicsRequest, error: Error) -> DeleteTopicsResponse:
    failed = [DeletedTopic(name=name, error=error) for name in request.topics]
    failed += [DeletedTopic(topic_id=one, error=error) for one in request.topic_ids]
    return DeleteTopicsResponse(topics=failed[: metadata.TOPICS_MAX])


#: How an answer with an error is made, for methods whose answer has no error field, or has the id
#: of a node: the default 0 would mean node 0.
_FAILED: Final[Mapping[Method[Any, Any], Callable[[Any, Error], Any]]] = {
    CREATE_TOPICS: _not_created,
    DELETE_TOPICS: _not_deleted,
    DESCRIBE_QUORUM: lambda _, error: DescribeQuorumResponse(error=error, leader=-1),
    DESCRIBE_HEALTH: lambda _, error: DescribeHealthResponse(error=error, controller=-1),
    TRANSFER_LEADERSHIP: lambda _, error: TransferLeadershipResponse(error=error, leader=-1),
}


async def _topic(
    topic: TopicImage | TopicMissing,
    hindrances: Mapping[int, Error],
    image: MetadataImage | None = None,
    now_ms: int = 0,
) -> TopicMetadata:
    """Describe a topic. Only some partitions are described in each turn of the loop.

    With `image`, the description names the replicas that are offline, and those out of the ISR.
    """
    if isinstance(topic, TopicMissing):
        await asyncio.sleep(0)
        return TopicMetadata(name=topic.name, topic_id=topic.topic_id, error=error_of(topic.error))
    found = TopicMetadata(
        name=topic.name,
        topic_id=topic.id,
        internal=topic.is_internal,
        created_ms=topic.created_ms,
    )
    for first in range(0, len(topic.partitions), PARTITIONS_A_TURN):
        found.partitions.extend(
            _partition(index, partition, hindrances, image, now_ms)
            for index, partition in enumerate(
                topic.partitions[first : first + PARTITIONS_A_TURN], first
            )
        )
        await asyncio.sleep(0)
    return found


def _partition(
    index: int,
    partition: PartitionImage,
    hindrances: Mapping[int, Error],
    image: MetadataImage | None,
    now_ms: int,
) -> PartitionMetadata:
    return PartitionMetadata(
        partition=index,
        leader=partition.leader,
        leader_epoch=partition.leader_epoch,
        replicas=partition.broker_ids,
        isr=partition.isr,
        elr=partition.elr,
        partition_epoch=partition.partition_epoch,
        error=hindrances.get(partition.leader),
        offline=() if image is None else _offline(image, partition),
        adding=() if image is None else partition.adding,
        out_of_sync=() if image is None else out_of_sync_replicas(image, partition, now_ms),
    )


def _offline(image: MetadataImage, partition: PartitionImage) -> list[int]:
    return [one for one in partition.broker_ids if not image.is_live(partition, one)]
