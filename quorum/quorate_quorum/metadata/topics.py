"""Topics, their configs and their partitions: an aspect of the metadata."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from rpds import HashTrieMap

from quorate_quorum.configs import TopicConfig, effective_min_isr, typed
from quorate_quorum.metadata.aspect import AspectDelta, Line, LogPlace, empty, event_of, replays
from quorate_quorum.metadata.carried import NOT_CARRIED, Carrier, carried
from quorate_quorum.metadata.configs import (
    CLUSTER,
    OwnConfigs,
    altered,
    config_events,
    configured,
)
from quorate_quorum.metadata.partitions import (
    CHANGE,
    NEVER,
    NO_LEADER,
    PARTITION,
    Key,
    PartitionImage,
    ReplicaImage,
    of_now,
    with_past,
)
from quorate_quorum.v1 import events_pb2 as ev

ID_BYTES: Final = 16
#: The internal topic that has the consumer groups and their committed offsets.
OFFSETS_TOPIC: Final = "__consumer_offsets"
#: The names of the cluster's own topics. Kafka's brokers have the last two for transactions and
#: share groups; the cluster may come to need them. Other names with two underscores are anyone's.
INTERNAL_TOPICS: Final = frozenset((OFFSETS_TOPIC, "__transaction_state", "__share_group_state"))


# The images.


@dataclass(frozen=True, slots=True)
class TopicImage:
    """A topic: its partitions in order, and its own configs."""

    id: bytes = field(metadata=carried("topic_id"))
    name: str
    partitions: tuple[PartitionImage, ...] = field(default=(), metadata=NOT_CARRIED)
    configs: OwnConfigs = field(default_factory=empty, metadata=NOT_CARRIED)
    #: The time of creation, by the controller's clock, in milliseconds since 1970; 0: not known.
    created_ms: int = 0

    @property
    def is_internal(self) -> bool:
        """Whether this is an internal topic of Quorate."""
        return self.name in INTERNAL_TOPICS


@dataclass(frozen=True, slots=True)
class FormingTopic:
    """A topic whose partitions go to the log in several batches. The last one makes it visible."""

    topic: TopicImage
    #: The number of partitions that the topic will have. Now it has fewer.
    partitions: int


TOPIC = Carrier(TopicImage, ev.Topic)


# The part of the image.


@dataclass(frozen=True, kw_only=True)
class Topics:
    """The topics, and the cluster's own configs, which are the defaults of all topics."""

    #: The cluster's own configs.
    configs: OwnConfigs = field(default_factory=empty)
    #: The visible topics, by topic id; and their ids, by name.
    topics: HashTrieMap[bytes, TopicImage] = field(default_factory=empty)
    topic_ids: HashTrieMap[str, bytes] = field(default_factory=empty)
    #: The forming topics, by topic id. They are not in the two maps above.
    forming: HashTrieMap[bytes, FormingTopic] = field(default_factory=empty)
    #: The numbers of partitions and topics that were ever created, removed ones included. By these
    #: numbers placement finds the next position in its ring of brokers.
    partitions_created: int = 0
    topics_created: int = 0
    #: By broker and log directory: the number of replicas that are assigned to it, in forming
    #: topics, too. A directory without replicas is not in the map.
    replica_counts: HashTrieMap[ReplicaImage, int] = field(default_factory=empty)
    #: The partitions of visible topics that are being reassigned.
    reassigned: HashTrieMap[Key, None] = field(default_factory=empty)

    def replicas_on(self, broker_id: int) -> int:
        """Return the number of replicas that are assigned to a broker."""
        counts = self.replica_counts.items()
        return sum(count for place, count in counts if place.broker_id == broker_id)

    def replicas_in(self, broker_id: int, directory_id: bytes) -> int:
        """Return the number of replicas that are assigned to a log directory of a broker."""
        return self.replica_counts.get(ReplicaImage(broker_id, directory_id), 0)

    def sorted_topics(self) -> list[TopicImage]:
        """Return all topics, by name."""
        return [self.topics[self.topic_ids[name]] for name in sorted(self.topic_ids)]

    def topic_named(self, name: str) -> TopicImage | None:
        """Return the visible topic with this name; None if there is none."""
        topic_id = self.topic_ids.get(name)
        return None if topic_id is None else self.topics[topic_id]

    def seen_or_forming(self, topic_id: bytes) -> TopicImage | None:
        """Return the topic with this id, visible or forming; None if there is none."""
        topic = self.topics.get(topic_id)
        forming = self.forming.get(topic_id) if topic is None else None
        return topic if forming is None else forming.topic

    def sorted_forming(self) -> list[FormingTopic]:
        """Return the forming topics, by id."""
        return [self.forming[topic_id] for topic_id in sorted(self.forming)]

    def all_topics(self) -> list[TopicImage]:
        """Return all visible topics by name, then the forming ones."""
        return [*self.sorted_topics(), *(forming.topic for forming in self.sorted_forming())]

    def partition(self, topic_id: bytes, partition: int) -> PartitionImage | None:
        """Return a partition of a visible topic; None if there is none."""
        topic = self.topics.get(topic_id)
        if topic is None or not 0 <= partition < len(topic.partitions):
            return None
        return topic.partitions[partition]

    def topic_config(self, topic: TopicImage) -> TopicConfig:
        """Return every setting of a topic: its own value, else the cluster's, else the default."""
        return TopicConfig.of(topic.configs, self.configs)

    def config_value(self, topic: TopicImage, name: str) -> int | float | bool | str:
        """Return one setting of a topic as a number, truth value or text."""
        return typed(name, topic.configs, self.configs)

    def min_isr(self, topic: TopicImage, partition: PartitionImage) -> int:
        """Return how many in-sync replicas a commit in this partition needs."""
        configured = self.config_value(topic, "min.insync.replicas")
        assert isinstance(configured, int), "a number in the table"
        return effective_min_isr(configured, partition.permanent_replicas)

    def config_events(self) -> Iterator[ev.MetadataEvent]:
        """Yield the events that make the cluster's own configs."""
        yield from config_events(CLUSTER, self.configs)

    def topic_events(self) -> Iterator[ev.MetadataEvent]:
        """Yield the events that make the topics."""
        # Look each topic up here: a list of topics could be old after a pause.
        for name in sorted(self.topic_ids):
            yield from _topic_events(self.topics[self.topic_ids[name]], 0)
        for forming in self.sorted_forming():
            yield from _topic_events(forming.topic, forming.partitions)

    def created_events(self) -> Iterator[ev.MetadataEvent]:
        """Yield the event that sets the two counts.

        This event must come after the events of the topics, because their replay raises the counts.
        """
        if self.topics_created or self.partitions_created:
            yield event_of(
                created=ev.Created(topics=self.topics_created, partitions=self.partitions_created)
            )


def _topic_events(topic: TopicImage, expected: int) -> Iterator[ev.MetadataEvent]:
    yield event_of(topic=TOPIC.message(topic, partitions=expected))
    yield from config_events(topic.id, topic.configs)
    for index, partition in enumerate(topic.partitions):
        made = PARTITION.message(partition, topic_id=topic.id, partition=index)
        yield event_of(partition=made)


# The part of the delta.


@dataclass(slots=True)
class _Draft:
    """A topic during a replay. Its partitions are a list, so that a change does not copy them."""

    topic: TopicImage
    partitions: list[PartitionImage]
    configs: OwnConfigs
    #: The number of partitions at which the topic becomes visible; 0: it is visible already.
    forming: int = 0

    def finish(self) -> TopicImage:
        return replace(self.topic, partitions=tuple(self.partitions), configs=self.configs)


class TopicsDelta(AspectDelta[Topics], part=Topics):
    """The topics and partitions that were created, changed or removed."""

    def __init__(self, old: Topics) -> None:
        super().__init__(old)
        self.configs = old.configs
        self.topics = old.topics
        self.topic_ids = old.topic_ids
        self.forming = old.forming
        self.partitions_created = old.partitions_created
        self.topics_created = old.topics_created
        self.replica_counts = old.replica_counts
        self.reassigned = old.reassigned
        #: The ids of topics that were created or whose own configs changed. This and the following
        #: dicts are ordered sets, in the order of the changes.
        self.changed: dict[bytes, None] = {}
        #: The partitions that were created or changed, without removed ones.
        self.changed_partitions: dict[Key, None] = {}
        #: The ids of topics whose own configs changed; CLUSTER if the cluster's changed.
        self.changed_configs: dict[bytes, None] = {}
        #: The removed topics, as they are in the old image.
        self.removed: list[TopicImage] = []
        #: By broker and log directory: the change of the number of its replicas.
        self._replicas_moved: Counter[ReplicaImage] = Counter()
        self._drafts: dict[bytes, _Draft] = {}

    @replays("topic")
    def _create(self, event: ev.Topic, _: LogPlace | None) -> None:
        assert len(event.topic_id) == ID_BYTES, "a topic id is 16 bytes"
        for known in (self.topics, self.forming, self._drafts):
            assert event.topic_id not in known, "a topic id is new"
        assert event.partitions >= 0, "a number of partitions"
        topic = TOPIC.image(event)
        draft = self._drafts[topic.id] = _Draft(topic, [], topic.configs, event.partitions)
        self.topics_created += 1
        if not draft.forming:
            self._show(draft)

    @replays("remove_topic")
    def _remove(self, event: ev.RemoveTopic, _: LogPlace | None) -> None:
        draft = self._draft(event.topic_id)
        topic = draft.finish()
        for partition in topic.partitions:
            self._replicas_moved.subtract(partition.replicas)
        del self._drafts[topic.id]
        if draft.forming:
            return  # the topic was hidden, so no map or list has to forget it
        self.topics = self.topics.discard(topic.id)
        self.topic_ids = self.topic_ids.remove(topic.name)
        self.changed.pop(topic.id, None)
        self.changed_configs.pop(topic.id, None)
        for index in range(len(topic.partitions)):
            self.changed_partitions.pop((topic.id, index), None)
            self.reassigned = self.reassigned.discard((topic.id, index))
        if topic.id in self.old.topics:
            self.removed.append(self.old.topics[topic.id])

    @replays("partition")
    def _create_partition(self, event: ev.Partition, place: LogPlace | None) -> None:
        draft = self._draft(event.topic_id)
        assert event.partition == len(draft.partitions), "partitions are made in order"
        partition = of_now(PARTITION.image(event))
        partition.check()
        if place is not None:
            partition = with_past(partition, event.causes, place)
        draft.partitions.append(partition)
        self._replicas_moved.update(partition.replicas)
        self.partitions_created += 1
        if not draft.forming:
            self._show_partition((event.topic_id, event.partition), partition)
        elif len(draft.partitions) == draft.forming:
            self._show(draft)

    @replays("partition_change")
    def _change_partition(self, event: ev.PartitionChange, place: LogPlace | None) -> None:
        draft = self._draft(event.topic_id)
        assert 0 <= event.partition < len(draft.partitions), "the partition is there"
        old = draft.partitions[event.partition]
        new = of_now(CHANGE.changed(old, event))
        new.check()
        assert new.partition_epoch == old.partition_epoch + 1, "partition_epoch grows by one"
        assert new.leader_epoch >= old.leader_epoch, "leader_epoch never goes back"
        if new.leader != old.leader:
            assert new.leader_epoch > old.leader_epoch, "no two leaders share a leader_epoch"
        if new.replicas is not old.replicas and not set(old.broker_ids) <= set(new.broker_ids):
            assert new.leader_epoch > old.leader_epoch, "a removed replica ends the leader_epoch"
        if new.recovered_epoch != old.recovered_epoch:
            assert new.recovered_epoch == new.leader_epoch != NEVER, "recovered by this election"
            assert new.leader != NO_LEADER, "a recovery elects"
        if place is not None:
            new = with_past(new, event.causes, place)
        draft.partitions[event.partition] = new
        if new.replicas is not old.replicas:
            self._replicas_moved.subtract(old.replicas)
            self._replicas_moved.update(new.replicas)
        if not draft.forming:
            self._show_partition((event.topic_id, event.partition), new)

    @replays("created")
    def _count(self, event: ev.Created, _: LogPlace | None) -> None:
        assert event.topics >= self.topics_created, "topics created only grow"
        assert event.partitions >= self.partitions_created, "partitions created only grow"
        self.topics_created, self.partitions_created = event.topics, event.partitions

    @replays("config")
    def _configure(self, event: ev.Config, _: LogPlace | None) -> None:
        if not event.topic_id:
            self.configs = configured(self.configs, event)
            self.changed_configs[CLUSTER] = None
            return
        draft = self._draft(event.topic_id)
        draft.configs = configured(draft.configs, event)
        if not draft.forming:
            self.changed[event.topic_id] = None
            self.changed_configs[event.topic_id] = None

    def finish_drafts(self) -> None:
        """Turn the present drafts into topics. A long replay calls this often, in several turns."""
        for topic_id, draft in self._drafts.items():
            if draft.forming:
                forming = FormingTopic(draft.finish(), draft.forming)
                self.forming = self.forming.insert(topic_id, forming)
            else:
                self.topics = self.topics.insert(topic_id, draft.finish())
        self._drafts.clear()
        self.replica_counts = counted(self.replica_counts, self._replicas_moved)
        self._replicas_moved.clear()

    def finish(self) -> dict[str, Any]:
        self.finish_drafts()
        return super().finish()

    def compare(self, new: Topics) -> None:
        self.removed = [one for one in self.old.sorted_topics() if one.id not in new.topics]
        if self.old.configs != new.configs:
            self.changed_configs[CLUSTER] = None
        for topic in new.sorted_topics():
            self._compare(self.old.topics.get(topic.id) or TopicImage(topic.id, ""), topic)

    def _compare(self, old: TopicImage, new: TopicImage) -> None:
        if old is new:
            return
        if old.configs != new.configs:
            self.changed_configs[new.id] = None
        if replace(old, partitions=new.partitions) != new:
            self.changed[new.id] = None
        for index, partition in enumerate(new.partitions):
            if index >= len(old.partitions) or old.partitions[index] != partition:
                self.changed_partitions[new.id, index] = None

    def lines(self, new: Topics) -> Iterator[Line]:
        if changed := altered(self.old.configs, new.configs):
            yield "cluster_config_altered", {"changed": changed}
        for topic in self.removed:
            yield "topic_deleted", {"topic": topic.name, "topic_id": topic.id.hex()}
        for topic_id in self.changed:
            before, now = self.old.topics.get(topic_id), new.topics[topic_id]
            if before is None:
                yield "topic_created", _described(now)
            elif changed := altered(before.configs, now.configs):
                yield "topic_config_altered", {"topic": now.name, "changed": changed}
        for topic_id in dict.fromkeys(topic_id for topic_id, _ in self.changed_partitions):
            before, now = self.old.topics.get(topic_id), new.topics[topic_id]
            if before is not None and len(now.partitions) > len(before.partitions):
                counts = {"before": len(before.partitions), "partitions": len(now.partitions)}
                yield "topic_grown", {"topic": now.name, **counts}

    def _show(self, draft: _Draft) -> None:
        """Make the topic visible, and note all its partitions and configs as changed."""
        topic = draft.topic
        assert topic.name not in self.topic_ids, "a topic name is new"
        draft.forming = 0
        self.topic_ids = self.topic_ids.insert(topic.name, topic.id)
        self.changed[topic.id] = None
        if draft.configs:
            self.changed_configs[topic.id] = None
        for index, partition in enumerate(draft.partitions):
            self._show_partition((topic.id, index), partition)

    def _show_partition(self, key: Key, partition: PartitionImage) -> None:
        """Note a partition of a visible topic as changed."""
        self.changed_partitions[key] = None
        if partition.is_reassigned:
            self.reassigned = self.reassigned.insert(key, None)
        else:
            self.reassigned = self.reassigned.discard(key)

    def _draft(self, topic_id: bytes) -> _Draft:
        draft = self._drafts.get(topic_id)
        if draft is None:
            forming = self.forming.get(topic_id)
            topic = self.topics.get(topic_id) if forming is None else forming.topic
            assert topic is not None, f"no topic has id {topic_id.hex()}"
            expected = 0 if forming is None else forming.partitions
            draft = _Draft(topic, list(topic.partitions), topic.configs, expected)
            self._drafts[topic_id] = draft
            self.topics = self.topics.discard(topic_id)
            self.forming = self.forming.discard(topic_id)
        return draft


def _described(topic: TopicImage) -> dict[str, Any]:
    return {
        "topic": topic.name,
        "topic_id": topic.id.hex(),
        "partitions": len(topic.partitions),
        "replication_factor": len(topic.partitions[0].replicas),
        "configs": {name: topic.configs[name] for name in sorted(topic.configs)},
    }


def counted(
    counts: HashTrieMap[ReplicaImage, int], moved: Mapping[ReplicaImage, int]
) -> HashTrieMap[ReplicaImage, int]:
    """Return the counts after these differences. A count of 0 is removed."""
    for key, difference in moved.items():
        count = counts.get(key, 0) + difference
        assert count >= 0, f"{key} has {count} replicas"
        counts = counts.insert(key, count) if count else counts.discard(key)
    return counts
