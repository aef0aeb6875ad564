"""Deletes topics; and the rule of numbers of replicas."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from quorate.errors import (
    InvalidReplicationFactorError,
    InvalidRequestError,
    NotEnoughReplicasError,
    PolicyViolationError,
    QuorateError,
    UnknownTopicError,
    to_wire,
)
from quorate.v1 import admin_pb2 as admin
from quorate_quorum.configs import (
    ClusterConfig,
)
from quorate_quorum.controller.decisions.outcome import Outcome
from quorate_quorum.controller.decisions.placement import Place
from quorate_quorum.metadata.brokers import BrokerImage
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.topics import TopicImage
from quorate_quorum.v1 import events_pb2 as ev

TOPICS_PER_REQUEST_MAX = 1_000
#: The most topics that one turn of the event loop deletes: each may have many partitions.
DELETED_PER_TURN = 50
#: The most brokers that an error tells of.
TOLD_MAX = 20

#: Returns the error for a caller that may not delete a topic; None if the caller may. Arguments:
#: the topic's name, and its id if the caller named the topic by its id.
Refusal = Callable[[str, bytes], QuorateError | None]


def replication_factor(image: MetadataImage, asked: int) -> int:
    """Return the number of replicas of a new topic; for `asked` -1 the cluster's default.

    If default.replication.factor is not set, the default is 3, or the number of registered brokers
    if that is lower. Raises InvalidReplicationFactorError if the number is out of range.
    Raises NotEnoughReplicasError, which is retriable, if no broker is registered.
    """
    registered = len(image.brokers)
    if not registered:
        raise NotEnoughReplicasError("no broker is registered yet: try again soon")
    factor = asked
    if asked == -1:
        factor = default_factor(image)
    if factor < 1:
        raise InvalidReplicationFactorError(
            f"replication_factor must be 1 or more (-1: the cluster's default), not {factor}"
        )
    if factor > registered:
        source = "" if asked != -1 else ", the cluster's default.replication.factor,"
        raise InvalidReplicationFactorError(
            f"replication_factor {factor}{source} is more than the {registered} registered brokers"
        )
    return factor


def default_factor(image: MetadataImage) -> int:
    """Return the cluster's default. If configured, it may be more than the number of brokers."""
    return ClusterConfig.of(image.configs).replication_factor(len(image.brokers))


def place_of(broker: BrokerImage) -> Place:
    """Return the fields of a broker that placement needs."""
    return Place(broker.id, broker.rack, broker.host)


def places_of(image: MetadataImage) -> list[Place]:
    """Return the brokers that may get replicas, by id."""
    return [
        place_of(broker) for broker in image.sorted_brokers() if why_no_replicas(broker) is None
    ]


def too_few(image: MetadataImage) -> str:
    """Return the sentence about brokers for an error: too few may get replicas now."""
    reasons = {broker.id: why_no_replicas(broker) for broker in image.sorted_brokers()}
    able = sum(why is None for why in reasons.values())
    if not any(broker.cordoned for broker in image.brokers.values()):
        return f"{able} of {len(reasons)} are unfenced now: try again soon"
    told = ", ".join(f"broker {b} {why}" for b, why in islice(reasons.items(), TOLD_MAX) if why)
    return (
        f"{able} of {len(reasons)} may get replicas: {told}; ask for fewer, or first `quorate"
        " cluster undrain` a broker"
    )


def why_no_replicas(broker: BrokerImage) -> str | None:
    """Return why a broker may get no new replicas; None if it may."""
    if broker.fenced:
        return "is fenced"
    if broker.shutting_down:
        return "is shutting down"
    if broker.cordoned:
        return "is drained"
    if all(directory.failed for directory in broker.directories):
        return "has no log directory that works"
    return None


def delete_topics(
    image: MetadataImage, request: admin.DeleteTopicsRequest, refusal: Refusal
) -> Outcome[admin.DeleteTopicsResponse]:
    """Delete topics by name and by id. Each has its own result.

    Rights are checked here, on the image in which the topics are found. If they were checked on
    another image, a topic that is missing there, or has another name there, would be deleted
    without a right. Topics beyond TOPICS_PER_REQUEST_MAX are refused, because 10,000 at once block
    the event loop for 0.2 s.
    """
    response = admin.DeleteTopicsResponse()
    gone: dict[bytes, None] = {}
    asked = [*((name, b"") for name in request.topics), *(("", i) for i in request.topic_ids)]
    for count, (name, topic_id) in enumerate(asked):
        result = response.topics.add(name=name, topic_id=topic_id)
        try:
            if count >= TOPICS_PER_REQUEST_MAX:
                raise InvalidRequestError(
                    f"one request deletes at most {TOPICS_PER_REQUEST_MAX} topics; ask again for"
                    " the rest"
                )
            topic = _deletable(image, name, topic_id, refusal)
            if topic.id in gone:
                raise UnknownTopicError(f"no topic {name or topic_id.hex()!r}: named twice")
        except QuorateError as error:
            result.error.CopyFrom(to_wire(error))
        else:
            gone[topic.id] = None
            result.name, result.topic_id = topic.name, topic.id
    events = [ev.MetadataEvent(remove_topic=ev.RemoveTopic(topic_id=i)) for i in gone]
    return Outcome(tuple(events), response)


def _deletable(image: MetadataImage, name: str, topic_id: bytes, refusal: Refusal) -> TopicImage:
    """Return the topic with this id or, without an id, this name. Raises if it can't be deleted."""
    topic = image.topics.get(topic_id) if topic_id else image.topic_named(name)
    if topic is not None or not topic_id:  # no right is needed for an id that no topic has
        refused = refusal(name if topic is None else topic.name, topic_id)
        if refused is not None:
            raise refused
    if topic is None:
        raise UnknownTopicError(f"no topic {name or topic_id.hex()!r}")
    if topic.is_internal:
        raise PolicyViolationError(f"topic {topic.name!r} is Quorate's own")
    return topic


def parts_of(request: admin.DeleteTopicsRequest) -> list[admin.DeleteTopicsRequest]:
    """Split a request into parts. One turn of the event loop decides one part.

    A request with too many topics is not split: `delete_topics` must see the whole to refuse the
    topics beyond the bound.
    """
    asked = [(name, b"") for name in request.topics] + [("", i) for i in request.topic_ids]
    if not DELETED_PER_TURN < len(asked) <= TOPICS_PER_REQUEST_MAX:
        return [request]
    return [
        admin.DeleteTopicsRequest(
            topics=[name for name, topic_id in part if not topic_id],
            topic_ids=[topic_id for _, topic_id in part if topic_id],
        )
        for first in range(0, len(asked), DELETED_PER_TURN)
        if (part := asked[first : first + DELETED_PER_TURN])
    ]
