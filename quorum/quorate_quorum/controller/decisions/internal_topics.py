"""The cluster's own topics: how they are made, and that they get more replicas as brokers join."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from quorate.errors import InvalidTopicError
from quorate.v1 import admin_pb2 as admin
from quorate_quorum.configs import MIB, ClusterConfig
from quorate_quorum.controller.decisions.free_space import DirectoryChoice
from quorate_quorum.controller.decisions.outcome import Context, Outcome
from quorate_quorum.controller.decisions.placement import Place, fill, ring
from quorate_quorum.controller.decisions.topics import default_factor, place_of, places_of
from quorate_quorum.metadata.history import Cause
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.partitions import partition_changed
from quorate_quorum.metadata.topics import INTERNAL_TOPICS, OFFSETS_TOPIC, TopicImage
from quorate_quorum.v1 import events_pb2 as ev

#: The most partitions that one turn of the event loop looks at, and the most that it changes.
LOOKED_MAX: Final = 1_000
CHANGED_MAX: Final = 50

#: The configs of __consumer_offsets that do not follow the cluster's defaults. One step of a group
#: is one batch, and the largest step has the members of a large group.
OFFSETS_CONFIGS: Final[Mapping[str, str]] = {
    "cleanup.policy": "compact",
    "max.message.bytes": str(16 * MIB),
    "message.timestamp.after.max.ms": str(60 * 60 * 1000),
    "message.timestamp.type": "CreateTime",
    "unclean.leader.election.enable": "false",
}


def internal_topic(image: MetadataImage, name: str) -> admin.CreateTopicsRequest:
    """Return the request that makes an internal topic, with as many replicas as are possible now.

    Raises InvalidTopicError if the cluster has no such topic of its own.
    """
    if name != OFFSETS_TOPIC:
        raise InvalidTopicError(f"{name[:249]!r} is no internal topic; {OFFSETS_TOPIC} is one")
    cluster = ClusterConfig.of(image.configs)
    alive = len(places_of(image))
    request = admin.CreateTopicsRequest()
    request.topics.add(
        name=name,
        num_partitions=cluster.offsets_topic_num_partitions,
        replication_factor=max(1, min(cluster.offsets_topic_replication_factor, alive)),
        configs={**OFFSETS_CONFIGS, "segment.bytes": str(cluster.offsets_topic_segment_bytes)},
    )
    return request


@dataclass(slots=True)
class Raising:
    """One look at the internal topics as brokers join: `next`, until its response is True.

    They get more replicas, up to the number that is configured. Otherwise a cluster that began with
    one broker would lose the committed offsets of its groups together with that broker. New
    replicas are `adding` until they are in the ISR. A partition from which a reassignment removes
    replicas is passed over.
    """

    _left: Iterator[tuple[str, int, bool]] | None = None
    #: By topic: how many of its replicas each broker has. The first lap over its partitions counts.
    _counts: dict[str, Counter[int]] = field(default_factory=dict)

    def next(self, image: MetadataImage, context: Context) -> Outcome[bool]:
        """Decide the next partitions. Response: whether these were the last ones."""
        if self._left is None:
            self._left = _two_laps(image)
        circle = ring(places_of(image))
        choice = DirectoryChoice(image, context.free_space)
        events: list[ev.MetadataEvent] = []
        for looked, (name, index, is_counted) in enumerate(self._left, 1):
            topic = image.topic_named(name)
            if topic is not None and index < len(topic.partitions):
                counts = self._counts.setdefault(name, Counter())
                if is_counted:
                    events += _raised(image, topic, index, circle, counts, choice)
                else:
                    counts.update(topic.partitions[index].broker_ids)
            if looked == LOOKED_MAX or len(events) >= CHANGED_MAX:
                return Outcome(tuple(events), False)
        return Outcome(tuple(events), True)


def _two_laps(image: MetadataImage) -> Iterator[tuple[str, int, bool]]:
    """Yield the partitions of each internal topic once, then once more with True."""
    for topic in filter(None, map(image.topic_named, sorted(INTERNAL_TOPICS))):
        for is_counted in (False, True):
            for index in range(len(topic.partitions)):
                yield topic.name, index, is_counted


def _wanted_factor(image: MetadataImage, topic: TopicImage) -> int:
    if topic.name == OFFSETS_TOPIC:
        return ClusterConfig.of(image.configs).offsets_topic_replication_factor
    return default_factor(image)


def _raised(
    image: MetadataImage,
    topic: TopicImage,
    index: int,
    circle: Sequence[Place],
    counts: Counter[int],
    choice: DirectoryChoice,
) -> list[ev.MetadataEvent]:
    """Return the event that gives a partition the replicas that it lacks, if it can have any."""
    old = topic.partitions[index]
    missing = min(_wanted_factor(image, topic), len(circle)) - len(old.target)
    if missing <= 0 or old.removing:  # an operator moves it: the end of that move comes first
        return []
    chosen = [place_of(image.brokers[b]) for b in old.broker_ids]
    found = fill(chosen, circle, index, len(chosen) + missing, counts)
    added = [one.broker_id for one in found[len(chosen) :]]
    if not added:
        return []
    counts.update(added)
    new = replace(
        old,
        replicas=(*old.replicas, *map(choice.of, added)),
        adding=(*old.adding, *added),
        original=old.before,
        partition_epoch=old.partition_epoch + 1,
        causes=(Cause(ev.CAUSE_KIND_INTERNAL_TOPIC_RAISED),),
    )
    return [partition_changed(topic.id, index, old, new)]
