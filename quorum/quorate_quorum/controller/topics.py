"""Topics: created, deleted, configured; and internal ones raised as brokers join."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from quorate.errors import (
    InvalidPartitionsError,
    InvalidReplicationFactorError,
    InvalidRequestError,
    InvalidTopicError,
    NotEnoughReplicasError,
    PolicyViolationError,
    QuorateError,
    TopicExistsError,
    UnknownTopicError,
    to_wire,
)
from quorate.v1 import admin_pb2 as admin
from quorate_quorum.controller.outcome import BATCH_BYTES_MAX, Context, Outcome, size_of
from quorate_quorum.controller.partitions import good_directory, moved, partition_changed
from quorate_quorum.controller.placement import Place, fill, place, ring
from quorate_quorum.metadata.configs import check_config, spec_of, typed
from quorate_quorum.metadata.delta import ID_BYTES, replayed
from quorate_quorum.metadata.image import (
    INTERNAL_PREFIX,
    BrokerImage,
    MetadataImage,
    PartitionImage,
    ReplicaImage,
    TopicImage,
    partition_event,
)
from quorate_quorum.v1 import events_pb2 as ev

NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")
NAME_LENGTH_MAX = 249
PARTITIONS_MAX = 10_000
TOPICS_PER_REQUEST_MAX = 1_000
DEFAULT_REPLICATION_MAX = 3
MIN_ISR = "min.insync.replicas"
FLUSH_ON_ACK = "flush.on.ack"


def check_name(name: str, *, internal: bool = False) -> None:
    """Check a new topic's name; InvalidTopicError says what is wrong with it."""
    if not name:
        raise InvalidTopicError("a topic needs a name")
    if len(name) > NAME_LENGTH_MAX:
        raise InvalidTopicError(
            f"a topic's name has at most {NAME_LENGTH_MAX} characters; {name[:20]}... has"
            f" {len(name)}"
        )
    if name in (".", ".."):
        raise InvalidTopicError(f"a topic cannot be named {name!r}: it names a directory")
    if not NAME.fullmatch(name):
        wrong = next(c for c in name if not NAME.fullmatch(c))
        raise InvalidTopicError(
            f"a topic's name has only a-z A-Z 0-9 . _ and -; {name!r} has {wrong!r}"
        )
    if name.startswith(INTERNAL_PREFIX) and not internal:
        raise InvalidTopicError(f"names that begin with __ are Quorate's own; {name!r} does")


@dataclass(slots=True)
class _Creation:
    """A CreateTopics request under way, over the image with what it made so far."""

    image: MetadataImage
    context: Context
    internal: bool
    events: list[ev.MetadataEvent] = field(default_factory=list)
    size: int = 0
    #: How many replicas lie in each directory; counted once, where a broker has several.
    loads: dict[bytes, int] | None = None

    def add(self, events: list[ev.MetadataEvent]) -> None:
        size = sum(map(size_of, events))
        if self.size + size > BATCH_BYTES_MAX - 1024:
            raise InvalidRequestError(
                f"one request may make {BATCH_BYTES_MAX} bytes of metadata; create fewer topics"
                " or partitions at a time"
            )
        self.image = replayed(self.image, events)
        self.events.extend(events)
        self.size += size

    def directory(self, broker: BrokerImage) -> bytes:
        """Choose the least loaded directory of a broker, the first of equals."""
        if len(broker.directories) == 1:
            return broker.directories[0].id
        if self.loads is None:
            self.loads = _loads(self.image)
        working = [d for d in broker.directories if not d.failed] or list(broker.directories)
        loads = self.loads
        chosen = min(working, key=lambda directory: loads.get(directory.id, 0)).id
        loads[chosen] = loads.get(chosen, 0) + 1
        return chosen


def _loads(image: MetadataImage) -> dict[bytes, int]:
    loads: dict[bytes, int] = {}
    for topic in image.sorted_topics():
        for partition in topic.partitions:
            for replica in partition.replicas:
                loads[replica.directory_id] = loads.get(replica.directory_id, 0) + 1
    return loads


def create_topics(
    image: MetadataImage,
    request: admin.CreateTopicsRequest,
    context: Context,
    *,
    internal: bool = False,
) -> Outcome[admin.CreateTopicsResponse]:
    """Create each topic that can be; each has its own result.

    A repeat with the same topic id returns the first result. While fewer brokers are unfenced
    than a topic needs replicas, it fails with NOT_ENOUGH_REPLICAS, which is retriable.
    `internal`: by the cluster itself, which may use names that begin with "__".
    """
    creation = _Creation(image, context, internal)
    response = admin.CreateTopicsResponse()
    for count, new in enumerate(request.topics):
        result = response.topics.add(name=new.name, topic_id=new.topic_id)
        try:
            if count >= TOPICS_PER_REQUEST_MAX:
                raise InvalidRequestError(
                    f"one request creates at most {TOPICS_PER_REQUEST_MAX} topics"
                )
            _describe(result, _created(creation, new))
        except QuorateError as error:
            result.error.CopyFrom(to_wire(error))
    events = () if request.validate_only else tuple(creation.events)
    return Outcome(events, response)


def _describe(result: admin.CreatedTopic, topic: TopicImage) -> None:
    result.topic_id = topic.id
    result.num_partitions = len(topic.partitions)
    result.replication_factor = len(topic.partitions[0].replicas)


def _created(creation: _Creation, new: admin.NewTopic) -> TopicImage:
    """Create one topic, or return the one that an earlier try of this very call made."""
    topic_id = new.topic_id or creation.context.new_id()
    if len(topic_id) != ID_BYTES:
        raise InvalidRequestError(f"a topic id has {ID_BYTES} bytes, not {len(topic_id)}")
    known = creation.image.topics.get(topic_id)
    if known is not None:
        if known.name != new.name:
            raise InvalidRequestError(f"that topic id belongs to topic {known.name!r}")
        return known
    check_name(new.name, internal=creation.internal)
    if new.name in creation.image.topic_ids:
        raise TopicExistsError(f"topic {new.name!r} exists")
    configs = _configs(creation.image, new.configs)
    if new.assignments:
        assignments = _explicit(creation.image, new)
    else:
        assignments = _placed(creation.image, new)
    events = [ev.MetadataEvent(topic=ev.Topic(topic_id=topic_id, name=new.name))]
    events += [
        ev.MetadataEvent(config=ev.Config(topic_id=topic_id, name=name, value=value))
        for name, value in configs.items()
    ]
    for index, assignment in enumerate(assignments):
        partition = _partition(creation, assignment)
        events.append(ev.MetadataEvent(partition=partition_event(topic_id, index, partition)))
    creation.add(events)
    return creation.image.topics[topic_id]


def _configs(image: MetadataImage, given: Mapping[str, str]) -> dict[str, str]:
    configs = {name: check_config(name, given[name], of_topic=True) for name in sorted(given)}
    if FLUSH_ON_ACK not in configs and FLUSH_ON_ACK in image.configs:
        # fixed now: the cluster's default of this moment becomes the topic's own
        configs[FLUSH_ON_ACK] = image.configs[FLUSH_ON_ACK]
    return configs


def _partition(creation: _Creation, assignment: list[int]) -> PartitionImage:
    """Return a new partition: whoever is alive is in sync with nothing, and the first leads."""
    brokers = creation.image.brokers
    replicas = tuple(ReplicaImage(b, creation.directory(brokers[b])) for b in assignment)
    partition = PartitionImage(replicas=replicas, isr=(), leader=-1)
    isr = tuple(b for b in assignment if creation.image.is_eligible(partition, b))
    if not isr:
        raise NotEnoughReplicasError(
            f"none of brokers {assignment} is alive; a partition needs one to begin with"
        )
    return replace(partition, isr=isr, leader=isr[0])


def _explicit(image: MetadataImage, new: admin.NewTopic) -> list[list[int]]:
    assignments = [list(given.replicas) for given in new.assignments]
    _check_partitions(len(assignments))
    if new.num_partitions not in (-1, 0, len(assignments)):
        raise InvalidPartitionsError(
            f"num_partitions is {new.num_partitions}, but {len(assignments)} are assigned"
        )
    factor = len(assignments[0])
    if new.replication_factor not in (-1, 0, factor):
        raise InvalidReplicationFactorError(
            f"replication_factor is {new.replication_factor}, but {factor} replicas are assigned"
        )
    for index, replicas in enumerate(assignments):
        if not replicas or len(set(replicas)) != len(replicas):
            raise InvalidRequestError(
                f"partition {index} must be assigned to different brokers, not {replicas}"
            )
        if len(replicas) != factor:
            raise InvalidReplicationFactorError(
                f"partition {index} has {len(replicas)} replicas, partition 0 has {factor}"
            )
        unknown = [b for b in replicas if b not in image.brokers]
        if unknown:
            raise InvalidRequestError(
                f"partition {index} is assigned to brokers {unknown}, which are not registered;"
                f" {sorted(image.brokers)} are"
            )
    return assignments


def _placed(image: MetadataImage, new: admin.NewTopic) -> list[list[int]]:
    partitions = new.num_partitions
    if partitions == -1:
        partitions = int(typed("num.partitions", {}, image.configs))
    _check_partitions(partitions)
    factor = replication_factor(image, new.replication_factor)
    places = _places(image)
    if factor > len(places):
        raise NotEnoughReplicasError(
            f"replication_factor {factor} needs as many live brokers, and {len(places)} of"
            f" {len(image.brokers)} are unfenced now: try again soon"
        )
    start = image.partitions_created % len(places)
    return place(places, partitions, factor, start, image.topics_created)


def _check_partitions(partitions: int) -> None:
    if not 1 <= partitions <= PARTITIONS_MAX:
        raise InvalidPartitionsError(
            f"num_partitions must be 1 to {PARTITIONS_MAX} (-1: the cluster's default), not"
            f" {partitions}"
        )


def replication_factor(image: MetadataImage, asked: int) -> int:
    """Return how many replicas a new topic gets; -1 asks for the cluster's default.

    That default is the lesser of 3 and the registered brokers, unless configured. Raises
    InvalidReplicationFactorError.
    """
    registered = len(image.brokers)
    if not registered:
        raise NotEnoughReplicasError("no broker is registered yet: try again soon")
    factor = asked
    if asked == -1:
        factor = _default_factor(image)
    if factor < 1:
        raise InvalidReplicationFactorError(
            f"replication_factor must be 1 or more (-1: the cluster's default), not {factor}"
        )
    if factor > registered:
        raise InvalidReplicationFactorError(
            f"replication_factor {factor} is more than the {registered} registered brokers"
        )
    return factor


def _default_factor(image: MetadataImage) -> int:
    """The cluster's default: as configured, which may be more than there are brokers."""
    configured = int(typed("default.replication.factor", {}, image.configs))
    return configured if configured > 0 else min(DEFAULT_REPLICATION_MAX, len(image.brokers))


def _places(image: MetadataImage) -> list[Place]:
    """Return the brokers that may be given replicas: alive, staying, with a working disk."""
    return [
        Place(broker.id, broker.rack, broker.host)
        for broker in image.sorted_brokers()
        if not broker.fenced
        and not broker.shutting_down
        and any(not directory.failed for directory in broker.directories)
    ]


def delete_topics(
    image: MetadataImage, request: admin.DeleteTopicsRequest, context: Context
) -> Outcome[admin.DeleteTopicsResponse]:
    """Delete topics by name and by id; each has its own result.

    Those beyond TOPICS_PER_REQUEST_MAX are refused: 10,000 at once held the loop up for 0.2 s.
    """
    del context
    response = admin.DeleteTopicsResponse()
    gone: dict[bytes, None] = {}
    asked: list[tuple[str, bytes]] = [
        (name, image.topic_ids.get(name, b"")) for name in request.topics
    ]
    asked += [("", topic_id) for topic_id in request.topic_ids]
    for count, (name, topic_id) in enumerate(asked):
        topic = image.topics.get(topic_id)
        result = response.topics.add(name=name if topic is None else topic.name, topic_id=topic_id)
        error: QuorateError
        if count >= TOPICS_PER_REQUEST_MAX:
            error = InvalidRequestError(
                f"one request deletes at most {TOPICS_PER_REQUEST_MAX} topics; ask again for the"
                " rest"
            )
            result.error.CopyFrom(to_wire(error))
        elif topic is None or topic_id in gone:
            error = UnknownTopicError(f"no topic {name or topic_id.hex()!r}")
            result.error.CopyFrom(to_wire(error))
        elif topic.is_internal:
            error = PolicyViolationError(f"topic {topic.name!r} is Quorate's own")
            result.error.CopyFrom(to_wire(error))
        else:
            gone[topic_id] = None
    events = [ev.MetadataEvent(remove_topic=ev.RemoveTopic(topic_id=i)) for i in gone]
    return Outcome(tuple(events), response)


def alter_configs(
    image: MetadataImage, request: admin.AlterConfigsRequest, context: Context
) -> Outcome[admin.AlterConfigsResponse]:
    """Set and remove configs of a topic, or (topic empty) the cluster's defaults; all or nothing.

    Where a lower min.insync.replicas lets an ISR commit alone, its ELR is void in the same Outcome.
    """
    del context
    try:
        events = _config_events(image, request)
    except QuorateError as error:
        return Outcome((), admin.AlterConfigsResponse(error=to_wire(error)))
    if request.validate_only:
        return Outcome((), admin.AlterConfigsResponse())
    after = replayed(image, events)
    if any(event.config.name == MIN_ISR for event in events):
        events.extend(_voided(after))
    return Outcome(tuple(events), admin.AlterConfigsResponse())


def _config_events(
    image: MetadataImage, request: admin.AlterConfigsRequest
) -> list[ev.MetadataEvent]:
    topic = image.topic_named(request.topic) if request.topic else None
    if request.topic and topic is None:
        raise UnknownTopicError(f"no topic {request.topic!r}")
    topic_id, now = (b"", image.configs) if topic is None else (topic.id, topic.configs)
    wanted: dict[str, str | None] = {}
    for name in request.remove:
        spec_of(name, of_topic=topic is not None)
        wanted[name] = None
    for name in sorted(request.set):
        if name in wanted:
            raise InvalidRequestError(f"{name} is both set and removed")
        wanted[name] = check_config(name, request.set[name], of_topic=topic is not None)
    if topic is not None and FLUSH_ON_ACK in wanted and _flushes(wanted) != _flushes(now):
        raise PolicyViolationError(
            f"{FLUSH_ON_ACK} is fixed when a topic is created: what was written under one value"
            " cannot be trusted under the other"
        )
    events = []
    for name, value in wanted.items():
        if value != now.get(name):
            config = ev.Config(topic_id=topic_id, name=name)
            if value is not None:
                config.value = value
            events.append(ev.MetadataEvent(config=config))
    return events


def _flushes(configs: Mapping[str, str | None] | Mapping[str, str]) -> bool:
    return configs.get(FLUSH_ON_ACK) == "true"


def _voided(image: MetadataImage) -> Iterator[ev.MetadataEvent]:
    """Yield the changes of partitions whose ISR is now enough without their ELR."""
    for topic in image.sorted_topics():
        for index, old in enumerate(topic.partitions):
            if old.elr:
                new = moved(image, topic, old, isr=old.isr, leader=old.leader)
                if new is not old:
                    yield partition_changed(topic, index, old, new)


def raise_internal_topics(image: MetadataImage, context: Context) -> Outcome[int]:
    """Give internal topics more replicas as brokers join, up to the default replication factor.

    So a cluster that began with one broker keeps what its groups committed when that one goes.
    New replicas are `adding` until they are in the ISR. Response: how many partitions were raised.
    """
    del context
    places = _places(image)
    circle = ring(places)
    events: list[ev.MetadataEvent] = []
    for topic in image.sorted_topics():
        if not topic.is_internal or not image.brokers:
            continue
        target = min(_default_factor(image), len(places))
        for index, old in enumerate(topic.partitions):
            if len(old.replicas) < target:
                new = _raised(image, circle, index, old, target)
                events.append(partition_changed(topic, index, old, new))
    return Outcome(tuple(events), len(events))


def _raised(
    image: MetadataImage, circle: list[Place], index: int, old: PartitionImage, target: int
) -> PartitionImage:
    chosen = []
    for broker_id in old.broker_ids:
        broker = image.brokers[broker_id]
        chosen.append(Place(broker.id, broker.rack, broker.host))
    added = [p.broker_id for p in fill(chosen, circle, index, target)[len(chosen) :]]
    replicas = list(old.replicas)
    for broker_id in added:
        directory_id = good_directory(image.brokers[broker_id], index)
        assert directory_id is not None, "only brokers with a working directory are places"
        replicas.append(ReplicaImage(broker_id, directory_id))
    return replace(
        old,
        replicas=tuple(replicas),
        adding=(*old.adding, *added),
        partition_epoch=old.partition_epoch + 1,
    )
