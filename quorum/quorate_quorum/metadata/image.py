"""The cluster's metadata at one offset of the metadata log: immutable, shared, cheap to change.

Built on persistent maps, so that a change copies a path and not the world. The maps' own order
is not the same in two processes: iterate them only through the sorted methods here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeVar

from rpds import HashTrieMap

from quorate_quorum.configs import TopicConfig, effective_min_isr, typed
from quorate_quorum.node import listeners
from quorate_quorum.node.features import Levels, from_wire, to_wire
from quorate_quorum.node.listeners import ListenerAddress
from quorate_quorum.v1 import events_pb2 as ev

K = TypeVar("K")
V = TypeVar("V")

NO_LEADER = -1
NEVER = -1
INTERNAL_PREFIX = "__"
#: Assignments that are held once and not once a partition.
ASSIGNMENTS_SHARED_MAX = 10_000


def _empty() -> HashTrieMap[K, V]:
    return HashTrieMap()


@dataclass(frozen=True, slots=True)
class VoterImage:
    """A member of the metadata quorum."""

    id: int
    directory_id: bytes
    endpoint: str


@dataclass(frozen=True, slots=True)
class DirectoryImage:
    """A log directory of a broker.

    `tail_intact` and `sync_failed` are what the registration said. Unfencing carries that verdict
    out and clears it: from then on the running incarnation has what it has written. `failed` is
    said by heartbeats, and stays until the next registration: nothing on it can lead.
    """

    id: bytes
    tail_intact: bool = True
    sync_failed: bool = False
    failed: bool = False

    @property
    def is_lossless(self) -> bool:
        """Whether it has all that was written to it, also where nothing synced it."""
        return self.tail_intact and not self.sync_failed and not self.failed


@dataclass(frozen=True, slots=True)
class BrokerImage:
    """A registered broker. `epoch` is the offset of its registration record."""

    id: int
    epoch: int
    incarnation: bytes
    listeners: tuple[ListenerAddress, ...]
    #: The name of the listener by which other nodes reach this broker; one of `listeners`.
    inter_broker_listener: str
    rack: str
    host: str
    directories: tuple[DirectoryImage, ...]
    fenced: bool
    shutting_down: bool
    #: The feature levels that its program knows, by name; empty if it did not say.
    features: tuple[tuple[str, Levels], ...] = ()

    @property
    def endpoint(self) -> str:
        """The host:port by which other nodes reach this broker."""
        address = self.listener(self.inter_broker_listener)
        assert address is not None, "a registration names its inter-broker listener"
        return address.endpoint

    def listener(self, name: str) -> ListenerAddress | None:
        """Return the listener of that name, or None if this broker has none."""
        return next((one for one in self.listeners if one.name == name), None)

    def directory(self, directory_id: bytes) -> DirectoryImage | None:
        """Return one of its directories, or None if it did not register that one."""
        for directory in self.directories:
            if directory.id == directory_id:
                return directory
        return None


@dataclass(frozen=True, slots=True)
class ReplicaImage:
    """Where one replica lies: the broker and the directory that the controller chose."""

    broker_id: int
    directory_id: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionImage:
    """A partition's state.

    ISR and ELR are disjoint subsets of the replicas, in the order of assignment; the leader is in
    the ISR; leader_epoch grows with every leader, partition_epoch with every change.
    """

    replicas: tuple[ReplicaImage, ...]
    isr: tuple[int, ...]
    leader: int
    leader_epoch: int = 0
    partition_epoch: int = 0
    adding: tuple[int, ...] = ()
    removing: tuple[int, ...] = ()
    elr: tuple[int, ...] = ()
    last_isr: tuple[int, ...] = ()
    #: The last leader_epoch whose election may have lost records; NEVER if none has.
    recovered_epoch: int = NEVER

    @property
    def broker_ids(self) -> tuple[int, ...]:
        """The assigned brokers, the preferred one first."""
        return tuple(replica.broker_id for replica in self.replicas)

    @property
    def settled_replicas(self) -> int:
        """How many are assigned for good: those that still catch up for the first time do not
        raise what a commit needs.
        """
        return len(self.replicas) - len(self.adding)

    def directory_of(self, broker_id: int) -> bytes | None:
        """Return the directory of a broker's replica, or None if it has none."""
        for replica in self.replicas:
            if replica.broker_id == broker_id:
                return replica.directory_id
        return None

    def check(self) -> None:
        """Assert what must hold of every partition at every offset."""
        ids = self.broker_ids
        known = set(ids)
        assert ids, "a partition has replicas"
        assert len(known) == len(ids), f"replicas repeat: {ids}"
        for name in ("isr", "elr", "last_isr", "adding", "removing"):
            members: tuple[int, ...] = getattr(self, name)
            if members:
                distinct = set(members)
                assert len(distinct) == len(members), f"{name} repeats: {members}"
                assert distinct <= known, f"{name} {members} not in {ids}"
        assert not any(member in self.isr for member in self.elr), "ISR and ELR are disjoint"
        assert self.leader == NO_LEADER or self.leader in self.isr, "the leader is in the ISR"
        assert self.leader_epoch >= 0, "leader_epoch is 0 or more"
        assert self.partition_epoch >= 0, "partition_epoch is 0 or more"
        assert NEVER <= self.recovered_epoch <= self.leader_epoch, "recovered in a known epoch"


@dataclass(frozen=True, slots=True)
class TopicImage:
    """A topic: its partitions in order, and its own configs."""

    id: bytes
    name: str
    partitions: tuple[PartitionImage, ...] = ()
    configs: HashTrieMap[str, str] = field(default_factory=_empty)
    #: By the clock of the controller that made it; 0: not known.
    created_ms: int = 0

    @property
    def is_internal(self) -> bool:
        """Whether it is Quorate's own."""
        return self.name.startswith(INTERNAL_PREFIX)


@dataclass(frozen=True, slots=True)
class FormingTopic:
    """A topic whose partitions go to the log in several batches: nobody sees it before the last."""

    topic: TopicImage
    #: How many it will have; more than it has.
    partitions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataImage:
    """All of the cluster's metadata once the log below `offset` is applied."""

    #: One past the last applied record.
    offset: int = 0
    #: Of the last applied batch; -1: none.
    epoch: int = -1
    features: HashTrieMap[str, int] = field(default_factory=_empty)
    voters: tuple[VoterImage, ...] = ()
    configs: HashTrieMap[str, str] = field(default_factory=_empty)
    brokers: HashTrieMap[int, BrokerImage] = field(default_factory=_empty)
    topics: HashTrieMap[bytes, TopicImage] = field(default_factory=_empty)
    topic_ids: HashTrieMap[str, bytes] = field(default_factory=_empty)
    #: By topic id; in none of the two above.
    forming: HashTrieMap[bytes, FormingTopic] = field(default_factory=_empty)
    #: All producer ids below are given out.
    next_producer_id: int = 0
    partitions_created: int = 0
    topics_created: int = 0
    #: How many replicas are assigned to each broker, of forming topics too; brokers with none are
    #: left out.
    replica_counts: HashTrieMap[int, int] = field(default_factory=_empty)

    def sorted_brokers(self) -> list[BrokerImage]:
        """Return all registered brokers, by id."""
        return [self.brokers[broker_id] for broker_id in sorted(self.brokers)]

    def sorted_topics(self) -> list[TopicImage]:
        """Return all topics, by name."""
        return [self.topics[self.topic_ids[name]] for name in sorted(self.topic_ids)]

    def topic_named(self, name: str) -> TopicImage | None:
        """Return a topic by its name, or None."""
        topic_id = self.topic_ids.get(name)
        return None if topic_id is None else self.topics[topic_id]

    def seen_or_forming(self, topic_id: bytes) -> TopicImage | None:
        """Return a topic by its id, one that is still being made too; None if there is none."""
        topic = self.topics.get(topic_id)
        forming = self.forming.get(topic_id) if topic is None else None
        return topic if forming is None else forming.topic

    def sorted_forming(self) -> list[FormingTopic]:
        """Return the topics that are still being made, by id."""
        return [self.forming[topic_id] for topic_id in sorted(self.forming)]

    def all_topics(self) -> list[TopicImage]:
        """Return all topics by name, then those still being made: all that names a broker."""
        return [*self.sorted_topics(), *(forming.topic for forming in self.sorted_forming())]

    def partition(self, topic_id: bytes, partition: int) -> PartitionImage | None:
        """Return a partition by its topic's id, or None."""
        topic = self.topics.get(topic_id)
        if topic is None or not 0 <= partition < len(topic.partitions):
            return None
        return topic.partitions[partition]

    def topic_config(self, topic: TopicImage) -> TopicConfig:
        """Return every setting of a topic: its own value, else the cluster's, else the default."""
        return TopicConfig.of(topic.configs, self.configs)

    def config_value(self, topic: TopicImage, name: str) -> int | float | bool | str:
        """Return one setting of a topic, typed."""
        return typed(name, topic.configs, self.configs)

    def min_isr(self, topic: TopicImage, partition: PartitionImage) -> int:
        """Return how many in-sync replicas a commit in this partition needs."""
        configured = self.config_value(topic, "min.insync.replicas")
        assert isinstance(configured, int), "a number in the table"
        return effective_min_isr(configured, partition.settled_replicas)

    def is_unfenced(self, broker_id: int) -> bool:
        """Whether a broker is registered and trusted."""
        broker = self.brokers.get(broker_id)
        return broker is not None and not broker.fenced

    def is_eligible(self, partition: PartitionImage, broker_id: int) -> bool:
        """Whether a replica may enter the ISR or lead: its broker is unfenced and staying, and
        its directory is there and works.
        """
        broker = self.brokers.get(broker_id)
        if broker is None or broker.fenced or broker.shutting_down:
            return False
        directory_id = partition.directory_of(broker_id)
        directory = None if directory_id is None else broker.directory(directory_id)
        return directory is not None and not directory.failed

    def to_events(self) -> Iterator[ev.MetadataEvent]:
        """Yield events that make this image from the empty one; the same image, the same events."""
        for name in sorted(self.features):
            yield _event(feature=ev.Feature(name=name, level=self.features[name]))
        if self.voters:
            yield _event(voters=voters_event(self.voters))
        for name in sorted(self.configs):
            yield _event(config=ev.Config(name=name, value=self.configs[name]))
        for broker in self.sorted_brokers():
            yield _event(register_broker=broker_event(broker))
        for name in sorted(self.topic_ids):  # looked up as they are drawn: who draws takes turns
            yield from _topic_events(self.topics[self.topic_ids[name]], 0)
        for forming in self.sorted_forming():
            yield from _topic_events(forming.topic, forming.partitions)
        if self.next_producer_id:
            yield _event(producer_ids=ev.ProducerIds(next_producer_id=self.next_producer_id))
        if self.topics_created or self.partitions_created:
            yield _event(
                created=ev.Created(topics=self.topics_created, partitions=self.partitions_created)
            )


EMPTY = MetadataImage()


def _event(**fields: object) -> ev.MetadataEvent:
    return ev.MetadataEvent(**fields)  # type: ignore[arg-type]


def _topic_events(topic: TopicImage, expected: int) -> Iterator[ev.MetadataEvent]:
    yield _event(
        topic=ev.Topic(
            topic_id=topic.id,
            name=topic.name,
            partitions=expected,
            created_ms=topic.created_ms,
        )
    )
    for name in sorted(topic.configs):
        yield _event(config=ev.Config(topic_id=topic.id, name=name, value=topic.configs[name]))
    for index, partition in enumerate(topic.partitions):
        yield _event(partition=partition_event(topic.id, index, partition))


def voters_event(voters: tuple[VoterImage, ...]) -> ev.Voters:
    """Return the event that makes these the voters."""
    return ev.Voters(
        voters=[
            ev.Voter(id=voter.id, directory_id=voter.directory_id, endpoint=voter.endpoint)
            for voter in voters
        ]
    )


def broker_event(broker: BrokerImage) -> ev.RegisterBroker:
    """Return the event that registers a broker in the state it has."""
    return ev.RegisterBroker(
        broker_id=broker.id,
        broker_epoch=broker.epoch,
        incarnation=broker.incarnation,
        listeners=map(listeners.to_wire, broker.listeners),
        inter_broker_listener=broker.inter_broker_listener,
        rack=broker.rack,
        host=broker.host,
        directories=[
            ev.Directory(
                directory_id=directory.id,
                tail_intact=directory.tail_intact,
                sync_failed=directory.sync_failed,
                failed=directory.failed,
            )
            for directory in broker.directories
        ],
        fenced=broker.fenced,
        shutting_down=broker.shutting_down,
        features=to_wire(dict(broker.features)),
    )


def broker_image(event: ev.RegisterBroker) -> BrokerImage:
    """Return the broker that an event registers."""
    return BrokerImage(
        id=event.broker_id,
        epoch=event.broker_epoch,
        incarnation=event.incarnation,
        listeners=tuple(map(listeners.from_wire, event.listeners)),
        inter_broker_listener=event.inter_broker_listener,
        rack=event.rack,
        host=event.host,
        directories=tuple(
            DirectoryImage(
                directory.directory_id,
                directory.tail_intact,
                directory.sync_failed,
                directory.failed,
            )
            for directory in event.directories
        ),
        fenced=event.fenced,
        shutting_down=event.shutting_down,
        features=tuple(sorted(from_wire(event.features).items())),
    )


def replica_events(replicas: tuple[ReplicaImage, ...]) -> list[ev.Replica]:
    """Return the wire's form of an assignment."""
    return [
        ev.Replica(broker_id=replica.broker_id, directory_id=replica.directory_id)
        for replica in replicas
    ]


def partition_event(topic_id: bytes, index: int, partition: PartitionImage) -> ev.Partition:
    """Return the event that makes a partition in this state."""
    return ev.Partition(
        topic_id=topic_id,
        partition=index,
        replicas=replica_events(partition.replicas),
        adding=partition.adding,
        removing=partition.removing,
        isr=partition.isr,
        elr=partition.elr,
        last_isr=partition.last_isr,
        leader=partition.leader,
        leader_epoch=partition.leader_epoch,
        partition_epoch=partition.partition_epoch,
        recovered_epoch=partition.recovered_epoch,
    )


@lru_cache(maxsize=ASSIGNMENTS_SHARED_MAX)
def _assignment(replicas: tuple[tuple[int, bytes], ...]) -> tuple[ReplicaImage, ...]:
    """Return the image's form of an assignment, the same object for the same one: few differ, and
    each object is one more to be passed over by every run of the garbage collector.
    """
    return tuple([ReplicaImage(broker_id, directory_id) for broker_id, directory_id in replicas])


def partition_image(event: ev.Partition) -> PartitionImage:
    """Return the partition that an event makes."""
    return PartitionImage(
        replicas=_assignment(tuple([(r.broker_id, r.directory_id) for r in event.replicas])),
        adding=tuple(event.adding),
        removing=tuple(event.removing),
        isr=tuple(event.isr),
        elr=tuple(event.elr),
        last_isr=tuple(event.last_isr),
        leader=event.leader,
        leader_epoch=event.leader_epoch,
        partition_epoch=event.partition_epoch,
        recovered_epoch=event.recovered_epoch,
    )


def change_event(
    topic_id: bytes, index: int, old: PartitionImage, new: PartitionImage
) -> ev.PartitionChange:
    """Return the event that turns one state of a partition into the next."""
    event = ev.PartitionChange(
        topic_id=topic_id, partition=index, partition_epoch=new.partition_epoch
    )
    for name in ("leader", "leader_epoch", "recovered_epoch"):
        if getattr(new, name) != getattr(old, name):
            setattr(event, name, getattr(new, name))
    for name in ("isr", "elr", "last_isr", "adding", "removing"):
        if getattr(new, name) != getattr(old, name):
            getattr(event, name).SetInParent()
            getattr(event, name).brokers.extend(getattr(new, name))
    if new.replicas != old.replicas:
        event.replicas.SetInParent()
        event.replicas.replicas.extend(replica_events(new.replicas))
    return event


def changed_image(old: PartitionImage, event: ev.PartitionChange) -> PartitionImage:
    """Return a partition after a change; what the event leaves out stays."""

    def members(name: str, before: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(getattr(event, name).brokers) if event.HasField(name) else before  # type: ignore[arg-type]

    replicas = old.replicas
    if event.HasField("replicas"):
        replicas = _assignment(
            tuple([(r.broker_id, r.directory_id) for r in event.replicas.replicas])
        )
    recovered = event.HasField("recovered_epoch")
    return PartitionImage(
        replicas=replicas,
        isr=members("isr", old.isr),
        leader=event.leader if event.HasField("leader") else old.leader,
        leader_epoch=event.leader_epoch if event.HasField("leader_epoch") else old.leader_epoch,
        partition_epoch=event.partition_epoch,
        adding=members("adding", old.adding),
        removing=members("removing", old.removing),
        elr=members("elr", old.elr),
        last_isr=members("last_isr", old.last_isr),
        recovered_epoch=event.recovered_epoch if recovered else old.recovered_epoch,
    )
