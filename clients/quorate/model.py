"""The values that users get. They cannot be changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, NamedTuple

if TYPE_CHECKING:
    # Type checkers know this module without an installation. The default lets programs write
    # `Record` for `Record[Any, Any]`; Python itself has such defaults since 3.13.
    from typing_extensions import TypeVar

    K = TypeVar("K", covariant=True, default=Any)
    V = TypeVar("V", covariant=True, default=Any)
    # A consumer without deserializers returns bytes.
    KeyOut = TypeVar("KeyOut", covariant=True, default=bytes)
    ValueOut = TypeVar("ValueOut", covariant=True, default=bytes)
    # A producer without serializers takes bytes, but the default must be Any: from a lambda as a
    # serializer, type checkers infer the default, and a lambda takes values of any type.
    KeyIn = TypeVar("KeyIn", contravariant=True, default=Any)
    ValueIn = TypeVar("ValueIn", contravariant=True, default=Any)
else:
    from typing import TypeVar

    #: The types of the keys and values of a record, that a consumer returns, and that a producer
    #: takes.
    K = TypeVar("K", covariant=True)
    V = TypeVar("V", covariant=True)
    KeyOut = TypeVar("KeyOut", covariant=True)
    ValueOut = TypeVar("ValueOut", covariant=True)
    KeyIn = TypeVar("KeyIn", contravariant=True)
    ValueIn = TypeVar("ValueIn", contravariant=True)

TimestampType = Literal["create_time", "log_append_time"]
Header = tuple[str, bytes | None]

#: Least timestamp that a producer may write: Kafka's clients may have records from before 1970. Its
#: delta to any delete horizon fits into 64 bits, also if it comes as a small delta to this time.
TIMESTAMP_MIN: Final = -(1 << 61)


class TopicPartition(NamedTuple):
    """A partition, by its topic's name and its number."""

    topic: str
    partition: int


class RecordMetadata(NamedTuple):
    """Where an acknowledged record was written.

    ``offset`` is -1 if an earlier attempt wrote the record, and the leader does not know where.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int


class Record(NamedTuple, Generic[K, V]):
    """A record as a consumer reads it. It is a tuple, because a tuple is made quickly."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    timestamp_type: TimestampType
    key: K | None
    value: V | None
    headers: Sequence[Header]
    leader_epoch: int

    @property
    def timestamp(self) -> int:
        """The same as timestamp_ms. Other clients have this name."""
        return self.timestamp_ms


AnyRecord = Record[Any, Any]


class OffsetAndTimestamp(NamedTuple):
    """The answer of Consumer.offsets_for_times for one partition."""

    offset: int
    timestamp_ms: int


class OffsetAndMetadata(NamedTuple):
    """A committed offset: the next record to read, and a text of the application.

    `leader_epoch` is that of the last record before the offset; -1 if it is not known.
    """

    offset: int
    metadata: str = ""
    leader_epoch: int = -1


class CommittedOffset(NamedTuple):
    """A committed offset of a group, with the time of its commit (ms since 1970)."""

    offset: int
    metadata: str
    leader_epoch: int
    committed_at_ms: int


@dataclass(frozen=True, slots=True)
class GroupListing:
    """A consumer group in a list.

    `state` is "Empty", "Assigning", "Reconciling" or "Stable". `protocol` is "consumer", "classic",
    or "" if the group has only offsets. `coordinator` is a broker's id.
    """

    group_id: str
    state: str
    protocol: str
    members: int
    coordinator: int


@dataclass(frozen=True, slots=True)
class MemberDescription:
    """A member of a consumer group. `assignment` is what it has, `target` what it shall have."""

    member_id: str
    instance_id: str
    client_id: str
    client_host: str
    rack: str
    member_epoch: int
    topics: tuple[str, ...]
    pattern: str
    assignment: tuple[TopicPartition, ...]
    target: tuple[TopicPartition, ...]


@dataclass(frozen=True, slots=True)
class GroupDescription:
    """A consumer group and its members. `coordinator` is a broker's id; -1: not known."""

    group_id: str
    state: str
    protocol: str
    group_epoch: int
    assignment_epoch: int
    assignor: str
    coordinator: int
    members: tuple[MemberDescription, ...]


@dataclass(frozen=True, slots=True)
class AssignorMember:
    """A member of a consumer group, as an assignor of the application sees it."""

    member_id: str
    instance_id: str
    rack: str
    #: The topics that the member subscribes to.
    topics: frozenset[str]
    #: What the member has by the last assignment.
    assigned: frozenset[TopicPartition]


@dataclass(frozen=True, slots=True)
class OutOfSyncReplica:
    """A replica that is not in the ISR: since when, and why.

    `reason` is the end of a sentence, "it is out of the ISR, because ...".
    """

    broker_id: int
    #: When it left the ISR, or was added, in milliseconds since 1970; 0: not known any more.
    since_ms: int
    #: How long it is out until now, in milliseconds; -1: not known.
    for_ms: int
    reason: str


@dataclass(frozen=True, slots=True)
class PartitionDescription:
    """A partition in the cluster's metadata. `leader` is -1 if there is none.

    `offline`: the brokers of `replicas` that are fenced, or whose log directory with the replica
    failed. `adding`: those to which a reassignment copies the partition (describe_topics).
    `out_of_sync`: the replicas that are not in the ISR, with the reasons.
    """

    partition: int
    leader: int
    leader_epoch: int
    replicas: tuple[int, ...]
    isr: tuple[int, ...]
    elr: tuple[int, ...] = ()
    offline: tuple[int, ...] = ()
    adding: tuple[int, ...] = ()
    out_of_sync: tuple[OutOfSyncReplica, ...] = ()

    @property
    def is_under_replicated(self) -> bool:
        """Whether a replica is not in the ISR, other than those in `adding`."""
        return any(b not in self.isr and b not in self.adding for b in self.replicas)


@dataclass(frozen=True, slots=True)
class PartitionEvent:
    """A change of a partition: what the controller did, why, and the state after it.

    `leader` is -1 if there was none.
    """

    #: The offset of its record in the metadata log.
    offset: int
    #: When the controller decided it, in milliseconds since 1970; 0: not known.
    time_ms: int
    #: "the controller ..., because ...", in plain English, without a full stop.
    sentence: str
    #: The names of its causes, such as "broker_silent".
    causes: tuple[str, ...]
    leader: int
    leader_epoch: int
    isr: tuple[int, ...]
    elr: tuple[int, ...]
    replicas: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PartitionExplanation:
    """Why a partition has this leader, ISR and ELR: the changes that led here."""

    topic: str
    state: PartitionDescription
    #: How many in-sync replicas a commit needs.
    min_isr: int
    #: The oldest first. The cluster keeps the last 30 or so of a partition.
    events: tuple[PartitionEvent, ...]
    #: Whether the first event is the creation of the partition. If not, earlier ones are not kept.
    complete: bool
    #: Without a leader: the end of a sentence that begins with the partition, "waits for ...".
    waits_for: str = ""


@dataclass(frozen=True, slots=True)
class TopicDescription:
    """A topic, its partitions in order, and the configs that were set for it."""

    name: str
    topic_id: str
    partitions: tuple[PartitionDescription, ...]
    #: Empty, too, if the caller is not allowed to describe the topic's configs.
    configs: Mapping[str, str] = field(default_factory=dict)
    internal: bool = False
    #: A result of create_topic: a sentence for each setting that acts otherwise than it says.
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BrokerDescription:
    """A registered broker. It gave up `failed_log_dirs` of its `log_dirs` log directories.

    `drained`: it gets no new replicas, and leads only where no other replica can.
    """

    id: int
    rack: str
    host: str
    endpoint: str
    fenced: bool
    broker_epoch: int
    log_dirs: int = 0
    failed_log_dirs: int = 0
    drained: bool = False


@dataclass(frozen=True, slots=True)
class ClusterDescription:
    """The cluster: its controller (-1: unknown) and its registered brokers.

    `image_offset`: the offset of the metadata log of which this is true.
    """

    cluster_id: str
    controller: int
    brokers: tuple[BrokerDescription, ...]
    image_offset: int = -1


@dataclass(frozen=True, slots=True)
class ReplicaSize:
    """One replica: the bytes of its log, and the range of its offsets."""

    topic: str
    partition: int
    size: int
    log_start_offset: int
    log_end_offset: int
    is_leader: bool
    #: Why the last pass of compaction over this log failed; empty if it did not fail.
    compaction_failure: str = ""
    #: Why the replica is damaged or offline, or that it lost records; empty if none of that holds.
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class LogDirDescription:
    """A log directory of a broker.

    `failure` says why it is not used, or why its broker does not answer. `free_bytes` is -1 if it
    is not known.
    """

    broker_id: int
    path: str
    directory_id: str
    failure: str
    free_bytes: int
    replicas: tuple[ReplicaSize, ...]

    @property
    def size(self) -> int:
        """The sum of the bytes of the logs of these replicas."""
        return sum(one.size for one in self.replicas)


@dataclass(frozen=True, slots=True)
class QuorumReplicaDescription:
    """A voter or observer, as the quorum's leader sees it.

    `last_caught_up_ms` is -1 if the replica never had all records.
    """

    id: int
    directory_id: str
    endpoint: str
    log_end_offset: int
    lag: int
    last_caught_up_ms: int

    @property
    def lag_ms(self) -> int:
        """The largest possible age, in milliseconds, of the oldest record that the replica lacks.

        0 if it lacks no record; -1 if it never had all records.
        """
        return 0 if self.lag == 0 else self.last_caught_up_ms


@dataclass(frozen=True, slots=True)
class QuorumDescription:
    """The metadata quorum."""

    leader: int
    epoch: int
    quorum_generation: int
    high_watermark: int
    voters: tuple[QuorumReplicaDescription, ...]
    observers: tuple[QuorumReplicaDescription, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeTrouble:
    """A node in trouble.

    `kind` is "voter" or "broker". The `state` of a voter is "not_heard" or "behind". The `state` of
    a broker is "fenced", "shutting_down" or "failed_directory". `endpoint` is "" for a broker
    without a listener of the name by which this client came in.
    """

    kind: str
    id: int
    endpoint: str
    state: str
    reason: str

    def __str__(self) -> str:
        at = f"at {self.endpoint}" if self.endpoint else "(which has no listener for this client)"
        return f"{self.kind} {self.id} {at} {self.reason}"


@dataclass(frozen=True, slots=True)
class PartitionTrouble:
    """One kind of trouble: the number of its partitions, and up to 100 as TOPIC/PARTITION."""

    count: int = 0
    examples: tuple[str, ...] = ()
    #: Of partitions without a leader, what each example waits for: the end of a sentence that
    #: begins with it. Empty for other troubles.
    waits_for: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ClusterHealth:
    """The troubles of the cluster, as the controller sees them.

    Partitions in `offline` have no leader, those in `under_min_isr` refuse acks="all", and those in
    `under_replicated` have a replica that is not in the ISR.
    """

    controller: int
    nodes: tuple[NodeTrouble, ...] = ()
    offline: PartitionTrouble = PartitionTrouble()
    under_min_isr: PartitionTrouble = PartitionTrouble()
    under_replicated: PartitionTrouble = PartitionTrouble()

    @property
    def healthy(self) -> bool:
        """Whether there is a controller, no node is in trouble, and every replica is in sync."""
        troubles = (self.offline, self.under_min_isr, self.under_replicated)
        return self.controller >= 0 and not self.nodes and not any(t.count for t in troubles)


@dataclass(frozen=True, slots=True)
class NodeLevels:
    """The lowest and the highest level of a feature that a node's program knows.

    `kind` is "voter" or "broker". `highest` is 0 until this controller has heard from the node.
    """

    kind: str
    id: int
    lowest: int
    highest: int


@dataclass(frozen=True, slots=True)
class FeatureDescription:
    """A feature of the cluster: its level in force, and the levels that each node knows."""

    name: str
    level: int
    nodes: tuple[NodeLevels, ...]


@dataclass(frozen=True, slots=True)
class VoterChange:
    """The result of add_voter and remove_voter.

    `already`: the quorum was in the wanted state before the call, and nothing was done.
    `directory_id` is 32 hex digits; it is empty if the call named no disk and no voter had this id.
    """

    voter_id: int
    directory_id: str
    already: bool


@dataclass(frozen=True, slots=True)
class LeadershipTransfer:
    """The present leader of the metadata quorum.

    `already`: this voter led before the call, and nothing was done.
    """

    leader: int
    already: bool


@dataclass(frozen=True, slots=True)
class ConfigDescription:
    """A setting. `source` says where its value comes from: "topic", "cluster" or "default"."""

    name: str
    value: str
    source: str
