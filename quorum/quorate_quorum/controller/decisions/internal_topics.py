"""The cluster's own topics: how they are made, and that they get more replicas as brokers join."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from quorate.errors import InvalidTopicError
from quorate.v1 import admin_pb2 as admin
from quorate_quorum.configs import MIB, ClusterConfig
from quorate_quorum.controller.decisions.free_space import DirectoryChoice
from quorate_quorum.controller.decisions.outcome import Context, Outcome
from quorate_quorum.controller.decisions.placement import fill, ring
from quorate_quorum.controller.decisions.topics import default_factor, place_of, places_of
from quorate_quorum.metadata.history import Cause
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.partitions import PartitionImage, partition_changed
from quorate_quorum.metadata.topics import INTERNAL_TOPICS, OFFSETS_TOPIC, TopicImage
from quorate_quorum.v1 import events_pb2 as ev

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


def raise_internal_topics(image: MetadataImage, context: Context) -> Outcome[int]:
    """Give internal topics more replicas as brokers join, up to the number that is configured.

    Otherwise a cluster that began with one broker would lose the committed offsets of its groups
    together with that broker. New replicas are `adding` until they are in the ISR. A partition from
    which a reassignment removes replicas is passed over. Response: the number of partitions that
    got more replicas.
    """
    places = places_of(image)
    circle = ring(places)
    events: list[ev.MetadataEvent] = []
    choice = DirectoryChoice(image, context.free_space)
    for topic in filter(None, map(image.topic_named, sorted(INTERNAL_TOPICS))):
        target = min(_wanted_factor(image, topic), len(places))
        counts = Counter(b for one in topic.partitions for b in one.broker_ids)
        for index, old in enumerate(topic.partitions):
            missing = target - len(old.target)
            if missing > 0 and not old.removing:  # else an operator moves it: its end comes first
                chosen = [place_of(image.brokers[b]) for b in old.broker_ids]
                count = len(chosen) + missing
                found = fill(chosen, circle, index, count, counts)
                added = [one.broker_id for one in found[len(chosen) :]]
                if not added:
                    continue
                counts.update(added)
                new = _raised(old, added, choice)
                events.append(partition_changed(topic.id, index, old, new))
    return Outcome(tuple(events), len(events))


def _wanted_factor(image: MetadataImage, topic: TopicImage) -> int:
    if topic.name == OFFSETS_TOPIC:
        return ClusterConfig.of(image.configs).offsets_topic_replication_factor
    return default_factor(image)


def _raised(old: PartitionImage, added: Sequence[int], choice: DirectoryChoice) -> PartitionImage:
    return replace(
        old,
        replicas=(*old.replicas, *map(choice.of, added)),
        adding=(*old.adding, *added),
        partition_epoch=old.partition_epoch + 1,
        causes=(Cause(ev.CAUSE_KIND_INTERNAL_TOPIC_RAISED),),
    )
