"""What changed: replays events over an image and makes the next one.

Events hold absolute values, so a replay can assert them: a broken one means that controller and
image disagree about the past, and the node stops rather than go on with a wrong world.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from rpds import HashTrieMap

from quorate_quorum.metadata.image import (
    NEVER,
    NO_LEADER,
    DirectoryImage,
    FormingTopic,
    MetadataImage,
    TopicImage,
    VoterImage,
    broker_image,
    changed_image,
    partition_image,
)
from quorate_quorum.metadata.image import PartitionImage as Partition
from quorate_quorum.node.features import UnknownLevelError
from quorate_quorum.v1 import events_pb2 as ev

ID_BYTES = 16
CLUSTER = b""


@dataclass(slots=True)
class _Draft:
    """A topic while it changes: the partitions as a list, so that n changes cost n."""

    topic: TopicImage
    partitions: list[Partition]
    configs: HashTrieMap[str, str]
    #: How many partitions it will have before it is seen; 0: it is.
    forming: int = 0

    def finish(self) -> TopicImage:
        return replace(self.topic, partitions=tuple(self.partitions), configs=self.configs)


class MetadataDelta:
    """The changes from one image to the next, in the order in which they came.

    changed_brokers: ids registered, changed or unregistered. changed_topics: ids of topics created
    or whose own configs changed. removed_topics: as they last were. changed_partitions:
    (topic id, partition), created ones too, removed ones not. changed_configs: topic ids whose
    own configs changed, b"" for the cluster's. generation: the quorum_generation into which a jump
    led; 0 where history goes on. After such a jump "removed" means unknown to the new history.
    """

    def __init__(self, image: MetadataImage) -> None:
        self.image = image
        self.generation = 0
        self.removed_topics: list[TopicImage] = []
        self._features = image.features
        self._voters = image.voters
        self._configs = image.configs
        self._brokers = image.brokers
        self._topics = image.topics
        self._topic_ids = image.topic_ids
        self._forming = image.forming
        self._next_producer_id = image.next_producer_id
        self._topics_created = image.topics_created
        self._partitions_created = image.partitions_created
        #: By how much the count of replicas of a broker has changed.
        self._replicas_moved: Counter[int] = Counter()
        self._drafts: dict[bytes, _Draft] = {}
        # dicts as ordered sets
        self._changed_brokers: dict[int, None] = {}
        self._changed_topics: dict[bytes, None] = {}
        self._changed_partitions: dict[tuple[bytes, int], None] = {}
        self._changed_configs: dict[bytes, None] = {}

    @property
    def changed_brokers(self) -> list[int]:
        return list(self._changed_brokers)

    @property
    def changed_topics(self) -> list[bytes]:
        return list(self._changed_topics)

    @property
    def changed_partitions(self) -> list[tuple[bytes, int]]:
        return list(self._changed_partitions)

    @property
    def changed_configs(self) -> list[bytes]:
        return list(self._changed_configs)

    @classmethod
    def between(cls, old: MetadataImage, new: MetadataImage) -> MetadataDelta:
        """Return what differs, for who jumps: what went inside the gap is named as removed."""
        delta = cls(old)
        for broker_id in sorted({*old.brokers, *new.brokers}):
            if old.brokers.get(broker_id) != new.brokers.get(broker_id):
                delta._changed_brokers[broker_id] = None
        delta.removed_topics = [t for t in old.sorted_topics() if t.id not in new.topics]
        if old.configs != new.configs:
            delta._changed_configs[CLUSTER] = None
        for topic in new.sorted_topics():
            delta._compare_topic(old.topics.get(topic.id), topic)
        return delta

    def _compare_topic(self, old: TopicImage | None, new: TopicImage) -> None:
        if old is new:
            return
        known = () if old is None else old.partitions
        if old is None or old.configs != new.configs:
            self._changed_topics[new.id] = None
            if new.configs:
                self._changed_configs[new.id] = None
        for index, partition in enumerate(new.partitions):
            if index >= len(known) or known[index] != partition:
                self._changed_partitions[new.id, index] = None

    def replay(  # noqa: C901 - one row for each kind of event
        self, event: ev.MetadataEvent, *, offset: int | None = None
    ) -> None:
        """Apply one event.

        `offset`: where the event stands in the log, or None where it comes from a snapshot; a
        registration in the log must carry its own offset. An event that contradicts the image
        raises AssertionError.
        """
        kind = event.WhichOneof("event")
        match kind:
            case "epoch_start":
                assert event.epoch_start.epoch >= self.image.epoch, "epochs only grow"
            case "voters":
                self._replay_voters(event.voters)
            case "feature":
                self._features = self._features.insert(event.feature.name, event.feature.level)
            case "config":
                self._replay_config(event.config)
            case "register_broker":
                self._replay_registration(event.register_broker, offset)
            case "broker_change":
                self._replay_broker_change(event.broker_change)
            case "unregister_broker":
                self._replay_unregistration(event.unregister_broker)
            case "topic":
                self._replay_topic(event.topic)
            case "remove_topic":
                self._replay_removal(event.remove_topic)
            case "partition":
                self._replay_partition(event.partition)
            case "partition_change":
                self._replay_partition_change(event.partition_change)
            case "producer_ids":
                self._replay_producer_ids(event.producer_ids)
            case "created":
                self._replay_created(event.created)
            case _:
                raise AssertionError("an event without a kind never passes decode_events")

    def finish(self, offset: int, epoch: int) -> MetadataImage:
        """Return the image after all replayed events; `offset` is one past the last of them."""
        assert offset >= self.image.offset, "offsets only grow"
        assert epoch >= self.image.epoch, "epochs only grow"
        self.settle()
        return MetadataImage(
            offset=offset,
            epoch=epoch,
            features=self._features,
            voters=self._voters,
            configs=self._configs,
            brokers=self._brokers,
            topics=self._topics,
            topic_ids=self._topic_ids,
            forming=self._forming,
            next_producer_id=self._next_producer_id,
            partitions_created=self._partitions_created,
            topics_created=self._topics_created,
            replica_counts=counted(self.image.replica_counts, self._replicas_moved),
        )

    def settle(self) -> None:
        """Make topics of the drafts so far; now and then in a long replay, it spreads the work."""
        for topic_id, draft in self._drafts.items():
            if draft.forming:
                forming = FormingTopic(draft.finish(), draft.forming)
                self._forming = self._forming.insert(topic_id, forming)
            else:
                self._topics = self._topics.insert(topic_id, draft.finish())
        self._drafts.clear()

    def _replay_voters(self, event: ev.Voters) -> None:
        ids = [voter.id for voter in event.voters]
        assert ids, "there is a voter"
        assert len(set(ids)) == len(ids), f"voters repeat: {ids}"
        self._voters = tuple(VoterImage(v.id, v.directory_id, v.endpoint) for v in event.voters)

    def _replay_config(self, event: ev.Config) -> None:
        assert event.name, "a config has a name"
        value = event.value if event.HasField("value") else None
        if not event.topic_id:
            self._configs = _configured(self._configs, event.name, value)
        else:
            draft = self._draft(event.topic_id)
            draft.configs = _configured(draft.configs, event.name, value)
            if draft.forming:
                return
            self._changed_topics[event.topic_id] = None
        self._changed_configs[event.topic_id] = None

    def _replay_registration(self, event: ev.RegisterBroker, offset: int | None) -> None:
        assert offset is None or event.broker_epoch == offset, (
            f"broker_epoch {event.broker_epoch} stands at {offset}"
        )
        if not event.listeners:
            raise UnknownLevelError(
                f"broker {event.broker_id} is registered without listeners: a program from before"
                " brokers could have several wrote this metadata log, and this program does not"
                " read it. Format new directories"
            )
        old = self._brokers.get(event.broker_id)
        assert old is None or event.broker_epoch > old.epoch, "broker_epoch only grows"
        assert offset is None or event.fenced, "a registration starts fenced"
        self._brokers = self._brokers.insert(event.broker_id, broker_image(event))
        self._changed_brokers[event.broker_id] = None

    def _replay_broker_change(self, event: ev.BrokerChange) -> None:
        broker = self._brokers.get(event.broker_id)
        assert broker is not None, f"broker {event.broker_id} is not registered"
        assert broker.epoch == event.broker_epoch, "a change names the registration it is of"
        directories = broker.directories
        fenced = event.fenced if event.HasField("fenced") else broker.fenced
        if broker.fenced and not fenced:
            directories = tuple(DirectoryImage(d.id, failed=d.failed) for d in directories)
        for failed in event.failed_directories:
            assert broker.directory(failed) is not None, "a directory that it registered"
            directories = tuple(
                replace(directory, failed=True) if directory.id == failed else directory
                for directory in directories
            )
        shutting_down = (
            event.shutting_down if event.HasField("shutting_down") else broker.shutting_down
        )
        changed = replace(
            broker, fenced=fenced, shutting_down=shutting_down, directories=directories
        )
        self._brokers = self._brokers.insert(broker.id, changed)
        self._changed_brokers[broker.id] = None

    def _replay_unregistration(self, event: ev.UnregisterBroker) -> None:
        broker = self._brokers.get(event.broker_id)
        assert broker is not None, f"broker {event.broker_id} is not registered"
        assert broker.epoch == event.broker_epoch, "a change names the registration it is of"
        assert broker.fenced, "only a fenced broker is forgotten"
        self._brokers = self._brokers.remove(broker.id)
        self._changed_brokers[broker.id] = None

    def _replay_topic(self, event: ev.Topic) -> None:
        assert len(event.topic_id) == ID_BYTES, "a topic id is 16 bytes"
        assert event.topic_id not in self._topics, "a topic id is new"
        assert event.topic_id not in self._forming, "a topic id is new"
        assert event.topic_id not in self._drafts, "a topic id is new"
        assert event.partitions >= 0, "a number of partitions"
        topic = TopicImage(event.topic_id, event.name, created_ms=event.created_ms)
        draft = self._drafts[topic.id] = _Draft(topic, [], topic.configs, event.partitions)
        self._topics_created += 1
        if not draft.forming:
            self._show(draft)

    def _show(self, draft: _Draft) -> None:
        """From now on the topic is seen, with all that it has."""
        topic = draft.topic
        assert topic.name not in self._topic_ids, "a topic name is new"
        draft.forming = 0
        self._topic_ids = self._topic_ids.insert(topic.name, topic.id)
        self._changed_topics[topic.id] = None
        if draft.configs:
            self._changed_configs[topic.id] = None
        for index in range(len(draft.partitions)):
            self._changed_partitions[topic.id, index] = None

    def _replay_removal(self, event: ev.RemoveTopic) -> None:
        draft = self._draft(event.topic_id)
        topic = draft.finish()
        for partition in topic.partitions:
            self._replicas_moved.subtract(partition.broker_ids)
        del self._drafts[topic.id]
        if draft.forming:
            return  # nobody has seen it
        self._topics = self._topics.discard(topic.id)
        self._topic_ids = self._topic_ids.remove(topic.name)
        self._changed_topics.pop(topic.id, None)
        self._changed_configs.pop(topic.id, None)
        for index in range(len(topic.partitions)):
            self._changed_partitions.pop((topic.id, index), None)
        if topic.id in self.image.topics:
            self.removed_topics.append(self.image.topics[topic.id])

    def _replay_partition(self, event: ev.Partition) -> None:
        draft = self._draft(event.topic_id)
        assert event.partition == len(draft.partitions), "partitions are made in order"
        partition = partition_image(event)
        partition.check()
        draft.partitions.append(partition)
        self._replicas_moved.update(partition.broker_ids)
        self._partitions_created += 1
        if not draft.forming:
            self._changed_partitions[event.topic_id, event.partition] = None
        elif len(draft.partitions) == draft.forming:
            self._show(draft)

    def _replay_partition_change(self, event: ev.PartitionChange) -> None:
        draft = self._draft(event.topic_id)
        assert 0 <= event.partition < len(draft.partitions), "the partition is there"
        old = draft.partitions[event.partition]
        new = changed_image(old, event)
        new.check()
        assert new.partition_epoch == old.partition_epoch + 1, "partition_epoch grows by one"
        assert new.leader_epoch >= old.leader_epoch, "leader_epoch never goes back"
        if new.leader != old.leader:
            assert new.leader_epoch > old.leader_epoch, "no two leaders share a leader_epoch"
        if new.recovered_epoch != old.recovered_epoch:
            assert new.recovered_epoch == new.leader_epoch != NEVER, "recovered by this election"
            assert new.leader != NO_LEADER, "a recovery elects"
        draft.partitions[event.partition] = new
        if new.replicas is not old.replicas:
            self._replicas_moved.subtract(old.broker_ids)
            self._replicas_moved.update(new.broker_ids)
        if not draft.forming:
            self._changed_partitions[event.topic_id, event.partition] = None

    def _replay_producer_ids(self, event: ev.ProducerIds) -> None:
        assert event.next_producer_id > self._next_producer_id, "producer ids are given out once"
        self._next_producer_id = event.next_producer_id

    def _replay_created(self, event: ev.Created) -> None:
        assert event.topics >= self._topics_created, "topics created only grow"
        assert event.partitions >= self._partitions_created, "partitions created only grow"
        self._topics_created, self._partitions_created = event.topics, event.partitions

    def _draft(self, topic_id: bytes) -> _Draft:
        draft = self._drafts.get(topic_id)
        if draft is None:
            forming = self._forming.get(topic_id)
            topic = self._topics.get(topic_id) if forming is None else forming.topic
            assert topic is not None, f"no topic has id {topic_id.hex()}"
            expected = 0 if forming is None else forming.partitions
            draft = _Draft(topic, list(topic.partitions), topic.configs, expected)
            self._drafts[topic_id] = draft
            self._topics = self._topics.discard(topic_id)
            self._forming = self._forming.discard(topic_id)
        return draft


def _configured(
    configs: HashTrieMap[str, str], name: str, value: str | None
) -> HashTrieMap[str, str]:
    return configs.discard(name) if value is None else configs.insert(name, value)


def counted(counts: HashTrieMap[int, int], moved: Mapping[int, int]) -> HashTrieMap[int, int]:
    """Return counts after these differences; those that fall to 0 are left out."""
    for key, difference in moved.items():
        count = counts.get(key, 0) + difference
        assert count >= 0, f"broker {key} has {count} replicas"
        counts = counts.insert(key, count) if count else counts.discard(key)
    return counts


def replayed(
    image: MetadataImage, events: Iterable[ev.MetadataEvent], *, epoch: int | None = None
) -> MetadataImage:
    """Return the image after one batch of events that follows it in the log."""
    delta = MetadataDelta(image)
    offset = image.offset
    for event in events:
        delta.replay(event, offset=offset)
        offset += 1
    return delta.finish(offset, image.epoch if epoch is None else epoch)
