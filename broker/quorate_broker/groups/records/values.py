"""The values of the records of __consumer_offsets.

Every value begins with its version in 16 bits. We write the newest version of Kafka 4.3; offsets of
versions 0 to 4 are read. A field with a tag stands in the section of tagged fields, and only if it
differs from its default. One tag is ours; Kafka passes over tags that it does not know.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from quorate.record.record import varint
from quorate_broker.groups.records.classic import ClassicValue
from quorate_broker.groups.records.keys import (
    ClassicKey,
    CurrentKey,
    GroupKey,
    Key,
    MemberKey,
    OffsetKey,
    TargetKey,
    TargetMemberKey,
)
from quorate_broker.groups.records.wire import (
    INT16,
    INT32,
    INT64,
    NO_TAGS,
    UUID_BYTES,
    Reader,
    checked_version,
    compact_array,
    compact_bytes,
    compact_string,
    int32s,
    tagged,
)

NO_TOPIC_ID: Final = bytes(UUID_BYTES)
VERSION_0: Final = INT16.pack(0)
OFFSET_VERSION: Final = INT16.pack(4)
#: Tags of ours: `partitions_at_first_commit` and `session_timeout_ms`. Kafka counts its own tags of
#: a record up from 0.
FIRST_COMMIT_TAG: Final = 10_000
SESSION_TAG: Final = 10_000
#: Kafka's tag of the metadata of a classic member; a struct that is not null begins with this byte.
CLASSIC_TAG: Final = 0
PRESENT: Final = b"\1"
#: The id of a topic, and the number of one of its partitions.
Partition = tuple[bytes, int]

#: MemberState of Kafka: what a member still has to wait for.
STABLE: Final = 0
UNREVOKED_PARTITIONS: Final = 1
UNRELEASED_PARTITIONS: Final = 2

OFFSET_HEAD: Final = struct.Struct(
    ">"
    "q"  # offset
    "i"  # leader_epoch
)


@dataclass(frozen=True, slots=True)
class OffsetValue:
    """A committed offset."""

    offset: int
    leader_epoch: int
    metadata: str
    committed_at_ms: int
    #: All zeros: written by a program that did not know it.
    topic_id: bytes = NO_TOPIC_ID
    #: The number of partitions that the topic had when the group first committed this one. So the
    #: group is older than each partition from this number on. 0: not known.
    partitions_at_first_commit: int = 0

    def encode(self) -> bytes:
        """Return the bytes of version 4."""
        tags = {} if self.topic_id == NO_TOPIC_ID else {0: self.topic_id}
        if self.partitions_at_first_commit:
            tags[FIRST_COMMIT_TAG] = varint(self.partitions_at_first_commit)
        return (
            OFFSET_VERSION
            + OFFSET_HEAD.pack(self.offset, self.leader_epoch)
            + compact_string(self.metadata)
            + INT64.pack(self.committed_at_ms)
            + tagged(tags)
        )

    @classmethod
    def decode(cls, data: bytes) -> OffsetValue:
        """Read versions 0 to 4. The time of expiry, which only version 1 has, is passed over."""
        reader = Reader(data, "the value of a committed offset")
        version = checked_version(reader, 4)
        offset = reader.int64()
        leader_epoch = reader.int32() if version >= 3 else -1
        metadata = reader.compact_string() if version >= 4 else reader.string()
        committed_at_ms = reader.int64()
        if version == 1:
            reader.int64()
        tags = reader.tagged() if version >= 4 else {}
        topic_id = tags[0].uuid() if 0 in tags else NO_TOPIC_ID
        first = tags[FIRST_COMMIT_TAG].varint() if FIRST_COMMIT_TAG in tags else 0
        return cls(offset, leader_epoch, metadata, committed_at_ms, topic_id, first)


@dataclass(frozen=True, slots=True)
class GroupValue:
    """A group's epoch, and a hash of the topics that its members subscribe to."""

    epoch: int
    #: Of 64 bits, signed; 0: of no topics, or not known.
    metadata_hash: int = 0

    def encode(self) -> bytes:
        """Return the bytes of version 0."""
        tags = {0: INT64.pack(self.metadata_hash)} if self.metadata_hash else {}
        return VERSION_0 + INT32.pack(self.epoch) + tagged(tags)

    @classmethod
    def decode(cls, data: bytes) -> GroupValue:
        """Read version 0."""
        reader = Reader(data, "the value of a group's epoch")
        checked_version(reader, 0)
        epoch, tags = reader.int32(), reader.tagged()
        return cls(epoch, tags[0].int64() if 0 in tags else 0)


@dataclass(frozen=True, slots=True)
class ClassicMetadata:
    """What a member of the classic protocol told beside that, in a group of the other protocol."""

    session_timeout_ms: int
    #: The protocols that it supports, the dearest first, each with its metadata.
    protocols: tuple[tuple[str, bytes], ...]

    @property
    def size(self) -> int:
        """Bytes of all protocols."""
        return sum(len(name.encode()) + len(data) for name, data in self.protocols)

    def encode(self) -> bytes:
        """Return the bytes of the tagged field."""
        protocols = (
            compact_string(name) + compact_bytes(data) + NO_TAGS for name, data in self.protocols
        )
        timeout = INT32.pack(self.session_timeout_ms)
        return PRESENT + timeout + compact_array(protocols) + NO_TAGS

    @classmethod
    def decode(cls, reader: Reader) -> ClassicMetadata | None:
        """Read the tagged field, which may be null."""
        if reader.take(1) != PRESENT:
            return None

        def protocol() -> tuple[str, bytes]:
            found = reader.compact_string(), reader.compact_bytes()
            reader.tagged()
            return found

        return cls(reader.int32(), tuple(reader.array(protocol)))


@dataclass(frozen=True, slots=True)
class MemberValue:
    """What a member told about itself. None: it has no such thing."""

    instance_id: str | None
    rack: str | None
    client_id: str
    client_host: str
    topics: tuple[str, ...]
    pattern: str | None
    rebalance_timeout_ms: int
    assignor: str | None
    #: Of a member with a stream. 0: it has none, and the cluster's session timeout counts.
    session_timeout_ms: int = 0
    #: None: it is a member of the consumer protocol.
    classic: ClassicMetadata | None = None

    @property
    def has_stream(self) -> bool:
        """Whether the member has a stream while it is there."""
        return self.session_timeout_ms > 0

    @property
    def classic_bytes(self) -> int:
        """Bytes of what a classic member told: its topics, and its protocols with their metadata.

        0: it is a member of the consumer protocol.
        """
        if self.classic is None:
            return 0
        return self.classic.size + sum(len(name.encode()) for name in self.topics)

    def encode(self) -> bytes:
        """Return the bytes of version 0."""
        tags = {} if self.classic is None else {CLASSIC_TAG: self.classic.encode()}
        if self.session_timeout_ms:
            tags[SESSION_TAG] = varint(self.session_timeout_ms)
        return (
            VERSION_0
            + compact_string(self.instance_id)
            + compact_string(self.rack)
            + compact_string(self.client_id)
            + compact_string(self.client_host)
            + compact_array(compact_string(name) for name in self.topics)
            + compact_string(self.pattern)
            + INT32.pack(self.rebalance_timeout_ms)
            + compact_string(self.assignor)
            + tagged(tags)
        )

    @classmethod
    def decode(cls, data: bytes) -> MemberValue:
        """Read version 0."""
        reader = Reader(data, "the value of a member")
        checked_version(reader, 0)
        fields = (
            reader.nullable_string(),
            reader.nullable_string(),
            reader.compact_string(),
            reader.compact_string(),
            tuple(reader.array(reader.compact_string)),
            reader.nullable_string(),
            reader.int32(),
            reader.nullable_string(),
        )
        tags = reader.tagged()
        session_timeout_ms = tags[SESSION_TAG].varint() if SESSION_TAG in tags else 0
        classic = ClassicMetadata.decode(tags[CLASSIC_TAG]) if CLASSIC_TAG in tags else None
        return cls(*fields, session_timeout_ms, classic)


@dataclass(frozen=True, slots=True)
class TargetValue:
    """The epoch of a target assignment, and when it was computed (ms since 1970; 0: not known)."""

    epoch: int
    timestamp_ms: int = 0

    def encode(self) -> bytes:
        """Return the bytes of version 0."""
        tags = {0: INT64.pack(self.timestamp_ms)} if self.timestamp_ms else {}
        return VERSION_0 + INT32.pack(self.epoch) + tagged(tags)

    @classmethod
    def decode(cls, data: bytes) -> TargetValue:
        """Read version 0."""
        reader = Reader(data, "the value of a target assignment's epoch")
        checked_version(reader, 0)
        epoch, tags = reader.int32(), reader.tagged()
        return cls(epoch, tags[0].int64() if 0 in tags else 0)


@dataclass(frozen=True, slots=True)
class TargetMemberValue:
    """The partitions that a member shall have."""

    partitions: frozenset[Partition]

    def encode(self) -> bytes:
        """Return the bytes of version 0."""
        topics = _by_topic(dict.fromkeys(self.partitions, 0))
        encoded = (
            topic_id + int32s(number for number, _ in partitions) + NO_TAGS
            for topic_id, partitions in topics
        )
        return VERSION_0 + compact_array(encoded) + NO_TAGS

    @classmethod
    def decode(cls, data: bytes) -> TargetMemberValue:
        """Read version 0."""
        reader = Reader(data, "the value of a member's target assignment")
        checked_version(reader, 0)
        found = _read_topics(reader)
        reader.tagged()
        return cls(frozenset(found))


@dataclass(frozen=True, slots=True)
class CurrentValue:
    """What a member has. Each partition has the epoch in which the member got it (KIP-1251)."""

    epoch: int
    previous_epoch: int
    state: int
    assigned: Mapping[Partition, int] = field(default_factory=dict)
    #: What the member must give back.
    revoking: Mapping[Partition, int] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Return the bytes of version 0."""
        head = struct.pack(">iib", self.epoch, self.previous_epoch, self.state)
        return (
            VERSION_0
            + head
            + _topics_with_epochs(self.assigned)
            + _topics_with_epochs(self.revoking)
            + NO_TAGS
        )

    @classmethod
    def decode(cls, data: bytes) -> CurrentValue:
        """Read version 0. Older programs write no epochs of partitions: they get the member's."""
        reader = Reader(data, "the value of a member's current assignment")
        checked_version(reader, 0)
        epoch, previous_epoch, state = reader.int32(), reader.int32(), reader.int8()
        assigned = _read_topics(reader, epoch)
        revoking = _read_topics(reader, epoch)
        reader.tagged()
        return cls(epoch, previous_epoch, state, assigned, revoking)


Value = (
    OffsetValue
    | ClassicValue
    | GroupValue
    | MemberValue
    | TargetValue
    | TargetMemberValue
    | CurrentValue
)

VALUES: Final[dict[type[Key], type[Value]]] = {
    OffsetKey: OffsetValue,
    ClassicKey: ClassicValue,
    GroupKey: GroupValue,
    MemberKey: MemberValue,
    TargetKey: TargetValue,
    TargetMemberKey: TargetMemberValue,
    CurrentKey: CurrentValue,
}


def decode_value(key: Key, data: bytes) -> Value:
    """Return the value of a record with this key.

    Raises CorruptRecordError, or UnsupportedError for a version of a newer program.
    """
    return VALUES[type(key)].decode(data)


def _by_topic(partitions: Mapping[Partition, int]) -> list[tuple[bytes, list[tuple[int, int]]]]:
    """Return the topics by id, each with its partitions and their epochs in order."""
    topics: defaultdict[bytes, list[tuple[int, int]]] = defaultdict(list)
    for (topic_id, number), epoch in partitions.items():
        topics[topic_id].append((number, epoch))
    return [(topic_id, sorted(topics[topic_id])) for topic_id in sorted(topics)]


def _topics_with_epochs(partitions: Mapping[Partition, int]) -> bytes:
    return compact_array(
        topic_id
        + int32s(number for number, _ in numbers)
        + tagged({0: int32s(epoch for _, epoch in numbers)})
        for topic_id, numbers in _by_topic(partitions)
    )


def _read_topics(reader: Reader, epoch: int = 0) -> dict[Partition, int]:
    """Read an array of topics with partitions. A partition without an epoch gets `epoch`."""

    def topic() -> list[tuple[Partition, int]]:
        topic_id, numbers, tags = reader.uuid(), reader.int32s(), reader.tagged()
        epochs = tags[0].int32s() if 0 in tags else []
        if len(epochs) != len(numbers):
            epochs = [epoch] * len(numbers)
        return [((topic_id, number), one) for number, one in zip(numbers, epochs, strict=True)]

    return dict(one for topics in reader.array(topic) for one in topics)
