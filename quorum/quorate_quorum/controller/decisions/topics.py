"""Deletes topics and alters configs; and the rule of numbers of replicas."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import islice

from quorate.errors import (
    InvalidReplicationFactorError,
    InvalidRequestError,
    NotEnoughReplicasError,
    PolicyViolationError,
    QuorateError,
    UnknownBrokerError,
    UnknownTopicError,
    to_wire,
)
from quorate.v1 import admin_pb2 as admin
from quorate_quorum.configs import (
    ClusterConfig,
    check_config,
    min_isr_warnings,
    refusal_of,
    spec_of,
    spec_of_broker,
)
from quorate_quorum.controller.decisions.outcome import Outcome
from quorate_quorum.controller.decisions.partitions import moved
from quorate_quorum.controller.decisions.placement import Place
from quorate_quorum.metadata.aspect import event_of
from quorate_quorum.metadata.brokers import CHANGE, BrokerImage
from quorate_quorum.metadata.delta import replayed
from quorate_quorum.metadata.history import Cause
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.partitions import partition_changed
from quorate_quorum.metadata.topics import TopicImage
from quorate_quorum.v1 import events_pb2 as ev

TOPICS_PER_REQUEST_MAX = 1_000
CONFIGS_PER_REQUEST_MAX = 1_000
#: The most topics that one turn of the event loop deletes: each may have many partitions.
DELETED_PER_TURN = 50
#: The most brokers that an error tells of.
TOLD_MAX = 20
MIN_ISR = "min.insync.replicas"
#: The configs of an internal topic that stay as they were made. With another value, records that
#: the cluster needs would be deleted, or the cluster's own appends would be refused.
FIXED_ON_INTERNAL = frozenset(
    (
        "cleanup.policy",
        "max.message.bytes",
        "message.timestamp.after.max.ms",
        "message.timestamp.type",
        "unclean.leader.election.enable",
    )
)

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


def alter_configs(
    image: MetadataImage, request: admin.AlterConfigsRequest
) -> Outcome[admin.AlterConfigsResponse]:
    """Set and remove configs, all or none: of a topic, of a broker, or of the cluster.

    If a lower min.insync.replicas makes an ISR large enough to commit, the same Outcome empties the
    ELR: its members would lack the records that the ISR commits from then on.
    """
    try:
        if request.HasField("broker_id"):
            events = _broker_config_events(image, request)
        else:
            events = _config_events(image, request)
    except QuorateError as error:
        return Outcome((), admin.AlterConfigsResponse(error=to_wire(error)))
    response = admin.AlterConfigsResponse()
    topic = image.topic_named(request.topic) if request.topic else None
    if topic is not None:
        replicas = len(topic.partitions[0].replicas)
        response.warnings.extend(min_isr_warnings(request.set, replicas))
    if request.validate_only:
        return Outcome((), response)
    after = replayed(image, events)
    if any(event.config.name == MIN_ISR for event in events):
        # The changes of ELRs come first. If the log ended after the config alone, an ELR would stay
        # whose members lack what the ISR commits.
        events = [*_voided(after), *events]
    return Outcome(tuple(events), response)


def _config_events(
    image: MetadataImage, request: admin.AlterConfigsRequest
) -> list[ev.MetadataEvent]:
    topic = image.topic_named(request.topic) if request.topic else None
    if request.topic and topic is None:
        raise UnknownTopicError(f"no topic {request.topic!r}")
    _check_count(request)
    topic_id, now = (b"", image.configs) if topic is None else (topic.id, topic.configs)
    wanted: dict[str, str | None] = {}
    for name in request.remove:
        spec_of(name, of_topic=topic is not None)
        if name in wanted:
            raise InvalidRequestError(f"{name} is removed twice in one request")
        wanted[name] = None
    for name in sorted(request.set):
        if name in wanted:
            raise InvalidRequestError(f"{name} is both set and removed")
        wanted[name] = check_config(name, request.set[name], of_topic=topic is not None)
    if topic is not None and (refusal := refusal_of(now, wanted)):
        raise PolicyViolationError(refusal)
    if topic is not None and topic.is_internal:
        _check_internal(topic, wanted)
    events = []
    for name, value in wanted.items():
        if value != now.get(name):
            config = ev.Config(topic_id=topic_id, name=name)
            if value is not None:
                config.value = value
            events.append(ev.MetadataEvent(config=config))
    return events


def _broker_config_events(
    image: MetadataImage, request: admin.AlterConfigsRequest
) -> list[ev.MetadataEvent]:
    _check_count(request)
    if request.topic:
        raise InvalidRequestError("a request names a topic or a broker, not both")
    broker = image.brokers.get(request.broker_id)
    if broker is None:
        raise UnknownBrokerError(
            f"broker {request.broker_id} is not registered; {sorted(image.brokers)} are"
        )
    wanted = dict(broker.configs)
    for name in request.remove:
        spec_of_broker(name)
        wanted.pop(name, None)
    for name in sorted(request.set):
        spec = spec_of_broker(name)
        wanted[name] = spec.shown(spec.parsed(request.set[name]))
    new = replace(broker, configs=tuple(sorted(wanted.items())))
    if new == broker:
        return []
    change = CHANGE.change(broker, new, broker_id=broker.id, broker_epoch=broker.epoch)
    return [event_of(broker_change=change)]


def _check_count(request: admin.AlterConfigsRequest) -> None:
    count = len(request.set) + len(request.remove)
    if count > CONFIGS_PER_REQUEST_MAX:
        raise InvalidRequestError(
            f"a request names {count} configs; {CONFIGS_PER_REQUEST_MAX} are allowed"
        )


def _check_internal(topic: TopicImage, wanted: Mapping[str, str | None]) -> None:
    """Raise PolicyViolationError for a config without which an internal topic cannot work."""
    refused = sorted(FIXED_ON_INTERNAL.intersection(wanted))
    if refused:
        raise PolicyViolationError(
            f"topic {topic.name!r} is Quorate's own, and {', '.join(refused)} of it cannot be"
            " altered: its records would be lost or refused; its other configs can"
        )


def _voided(image: MetadataImage) -> Iterator[ev.MetadataEvent]:
    """Yield the events that empty the ELRs of partitions whose ISR is now large enough."""
    because = (Cause(ev.CAUSE_KIND_MIN_ISR_CHANGED),)
    for topic in image.all_topics():
        for index, old in enumerate(topic.partitions):
            if old.elr:
                new = moved(image, topic, old, isr=old.isr, leader=old.leader, because=because)
                if new is not old:
                    yield partition_changed(topic.id, index, old, new)
