"""The values that go into a coordinator's machine and come out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Generic, NamedTuple, TypeVar

from quorate.errors import QuorateError
from quorate.net.principal import ANONYMOUS, Principal
from quorate_broker.groups.assignors.values import PartitionSet, TaskMember, TaskTopic
from quorate_broker.groups.records.values import ClassicMetadata, Partition

T = TypeVar("T")

#: Epochs that a member sends in place of its own.
JOIN: Final = 0
LEAVE: Final = -1
#: A static member stops, and comes back within its session: its partitions stay with its name.
LEAVE_STATIC: Final = -2
#: The epoch of a caller that is no member.
NO_MEMBER: Final = -1


class LogRecord(NamedTuple):
    """A record for the group's partition of __consumer_offsets, in Kafka's format."""

    key: bytes
    #: None: a tombstone.
    value: bytes | None


# Membership.


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a member wants to read: topics by name, and all that a pattern (RE2) matches."""

    topics: frozenset[str] = frozenset()
    #: Empty: none. The whole name of a topic must match.
    pattern: str = ""


class Conversation(NamedTuple):
    """A number of calls, each of them sent after a good answer to the one before.

    A conversation that begins later is greater, whichever of the two is heard first.
    """

    #: Grows with each connection to this broker.
    connection: int
    #: Grows with each error that is answered on the connection: the state in it did not leave.
    errors: int = 0


#: Before all that a broker numbers.
FIRST_CONVERSATION: Final = Conversation(0)


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A member's message. A field that is None is unchanged since the last one.

    A member that joins (member_epoch 0), and the first heartbeat of each stream, give all fields.
    A string that the member has not (rack, instance, assignor, pattern) is then empty.
    """

    group_id: str
    member_id: str
    #: The epoch that the member has; or JOIN, LEAVE, LEAVE_STATIC.
    member_epoch: int
    #: The number of the last MemberState that the member has taken in on this stream; 0: none yet.
    #: From then on it starts no partition that this state does not name.
    state_number: int = 0
    instance_id: str | None = None
    rack: str | None = None
    client_id: str = ""
    client_host: str = ""
    session_timeout_ms: int | None = None
    rebalance_timeout_ms: int | None = None
    #: What the member subscribes to: topics by name, and all that a pattern matches.
    topics: frozenset[str] | None = None
    pattern: str | None = None
    #: An assignor's name; empty: the group's default.
    assignor: str | None = None
    #: What the member has now. A partition is in it from before its `assigned` callback begins
    #: until its `revoked` callback is over and its offsets are committed.
    owned: PartitionSet | None = None
    proposal: Proposal | None = None
    #: Who sent it, as the listener knows it. A pattern matches what this principal may describe.
    principal: Principal = ANONYMOUS
    #: What a classic member told beside this when it joined. None: it is no classic member.
    classic: ClassicMetadata | None = None
    #: Of a member without a stream. None: it has one.
    conversation: Conversation | None = None

    @property
    def says_all(self) -> bool:
        """Whether the member wants to be told all: so it says that it may have lost an answer."""
        return (
            self.rebalance_timeout_ms is not None
            and self.owned is not None
            and (self.topics is not None or self.pattern is not None)
        )


@dataclass(frozen=True, slots=True)
class Proposal:
    """The answer to a task: who shall have which partitions."""

    group_epoch: int
    #: By member id. A member that is left out gets nothing.
    partitions: Mapping[str, PartitionSet]


@dataclass(frozen=True, slots=True)
class Task:
    """The member that gets this computes the group's assignment (assignor "client")."""

    group_epoch: int
    members: tuple[TaskMember, ...]
    topics: tuple[TaskTopic, ...]


@dataclass(frozen=True, slots=True)
class MemberState:
    """What a member is told: as the answer to a heartbeat, and whenever it changes."""

    member_epoch: int
    #: Grows with each change of this member's epoch or assignment; the heartbeats echo it.
    state_number: int
    heartbeat_interval_ms: int
    #: All that the member shall have now. None: unchanged since the last state on this stream.
    assignment: PartitionSet | None = None
    task: Task | None = None


class Push(NamedTuple):
    """A state for a member's stream that no heartbeat asked for."""

    group_id: str
    member_id: str
    #: An error: the member is out of the group; the stream ends after it.
    state: MemberState | QuorateError


class Parked(Enum):
    """The answer of a step whose caller is answered by a later one."""

    PARKED = "parked"


PARKED: Final = Parked.PARKED


class Reply(NamedTuple):
    """The answer to a call of an earlier step, which was parked under this ticket."""

    ticket: int
    answer: object


@dataclass(frozen=True, slots=True)
class Step(Generic[T]):
    """What one call of the machine decided. The machine has applied `records` already.

    The driver appends the records in one batch, and gives answer, pushes and replies out only when
    these records and all that were appended before are committed. A step without records may
    reflect records that are not committed yet, so its answer waits for those.
    """

    #: An error is an answer as well: it may be the consequence of records of an earlier step.
    answer: T | QuorateError
    records: Sequence[LogRecord] = ()
    pushes: Sequence[Push] = ()
    replies: Sequence[Reply] = ()


# Offsets.


class OffsetCommit(NamedTuple):
    """An offset to commit for one partition."""

    partition: Partition
    #: The next record to read; None takes away what is committed. Kafka clients alone commit
    #: negative offsets, which are stored like others: they read them as "none is committed".
    offset: int | None
    #: Of the last record before the offset; -1: not known.
    leader_epoch: int = -1
    metadata: str = ""


@dataclass(frozen=True, slots=True)
class CommitOffsets:
    """A request to commit offsets."""

    group_id: str
    offsets: Sequence[OffsetCommit]
    #: Empty: the caller is no member. It commits only while the group has no members; it forgets
    #: offsets also of topics to which none subscribes.
    member_id: str = ""
    #: Of a classic member: its generation.
    member_epoch: int = NO_MEMBER
    #: The static name of a classic member, if it tells it.
    instance_id: str | None = None

    @property
    def only_forgets(self) -> bool:
        """Whether the caller is no member, and commits nothing."""
        return not self.member_id and all(one.offset is None for one in self.offsets)


@dataclass(frozen=True, slots=True)
class Committed:
    """The answer to CommitOffsets: the partitions that were refused. All others are committed."""

    refused: Mapping[Partition, QuorateError] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FetchOffsets:
    """A request for committed offsets."""

    group_id: str
    #: None: all that the group has committed for the topics of these names.
    partitions: Sequence[Partition] | None = None
    #: Empty: not checked. Else the epoch must be the member's present one.
    member_id: str = ""
    member_epoch: int = NO_MEMBER
    topics: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class CommittedOffset:
    """One committed offset, as it is stored."""

    topic_id: bytes
    offset: int
    leader_epoch: int
    metadata: str
    committed_at_ms: int
    #: See OffsetValue.
    partitions_at_first_commit: int


class FetchedOffset(NamedTuple):
    """One partition of the answer to FetchOffsets."""

    partition: Partition
    #: The name of the topic; empty if it is not known.
    topic: str
    #: None: nothing is committed.
    committed: CommittedOffset | None


# Administration.


@dataclass(frozen=True, slots=True)
class ListedGroup:
    """A group in a list."""

    group_id: str
    #: Empty, Assigning, Reconciling or Stable; of a classic group PreparingRebalance,
    #: CompletingRebalance, Empty or Stable.
    state: str
    #: "consumer" (KIP-848) or "classic". A group that has only offsets has the protocol "".
    protocol: str
    members: int
    #: What kind of programs the members are: "consumer"; of classic groups also "connect", ...
    protocol_type: str = "consumer"


@dataclass(frozen=True, slots=True)
class DescribedMember:
    """A member in a description."""

    member_id: str
    instance_id: str
    client_id: str
    client_host: str
    rack: str
    member_epoch: int
    subscription: Subscription
    #: What the member has, what it gives back included.
    assignment: PartitionSet
    #: What it shall have.
    target: PartitionSet
    #: It is a member of the classic protocol.
    is_classic: bool = False


@dataclass(frozen=True, slots=True)
class DescribedGroup:
    """A group, described."""

    group_id: str
    state: str
    protocol: str
    group_epoch: int
    assignment_epoch: int
    assignor: str
    members: tuple[DescribedMember, ...]


@dataclass(frozen=True, slots=True)
class RemoveMembers:
    """A request to remove members: those named, by id or by instance, or all."""

    group_id: str
    member_ids: Sequence[str] = ()
    instance_ids: Sequence[str] = ()
    all: bool = False
