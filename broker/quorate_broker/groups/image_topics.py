"""The topics of an image, as the machine of consumer groups asks for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from quorate_broker.groups.machine.topics import Topic
from quorate_quorum.metadata.delta import MetadataDelta
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.topics import TopicImage


@dataclass(frozen=True, slots=True)
class ImageTopics:
    """The Topics of one image. An image never changes, so this object does not either."""

    image: MetadataImage

    def named(self, name: str) -> Topic | None:
        found = self.image.topic_named(name)
        return None if found is None else _topic(found)

    def with_id(self, topic_id: bytes) -> Topic | None:
        found = self.image.topics.get(topic_id)
        return None if found is None else _topic(found)

    def names(self) -> Iterator[str]:
        return iter(self.image.topic_ids)

    def racks(self, topic_id: bytes) -> Sequence[frozenset[str]]:
        topic = self.image.topics.get(topic_id)
        if topic is None:
            return ()
        racks = {broker.id: broker.rack for broker in self.image.brokers.values()}
        return [
            frozenset(rack for one in partition.broker_ids if (rack := racks.get(one, "")))
            for partition in topic.partitions
        ]


def changed_names(delta: MetadataDelta, image: MetadataImage) -> set[str]:
    """Return the names of topics that were made, deleted, or got other partitions or replicas.

    Changes of leaders and ISRs do not concern groups. A broker's new rack is seen only when
    something else changes the topic.
    """
    names = {topic.name for topic in delta.topics.removed}
    old = delta.image
    for topic_id in delta.topics.changed:
        if topic_id in image.topics and topic_id not in old.topics:
            names.add(image.topics[topic_id].name)
    for topic_id, index in delta.topics.changed_partitions:
        topic = image.topics.get(topic_id)
        if topic is None:
            continue
        before, now = old.partition(topic_id, index), image.partition(topic_id, index)
        if before is None or now is None or before.broker_ids != now.broker_ids:
            names.add(topic.name)
    return names


def _topic(topic: TopicImage) -> Topic:
    return Topic(topic.id, topic.name, len(topic.partitions))
