"""The keys of the records of __consumer_offsets: which record of which group it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final

from quorate_broker.groups.records.wire import INT16, INT32, Reader, string


@dataclass(frozen=True, slots=True)
class OffsetKey:
    """A committed offset of a group."""

    TYPE: ClassVar = 1
    group_id: str
    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class ClassicKey:
    """A group of the classic protocol, whole."""

    TYPE: ClassVar = 2
    group_id: str


@dataclass(frozen=True, slots=True)
class GroupKey:
    """The epoch of a group."""

    TYPE: ClassVar = 3
    group_id: str


@dataclass(frozen=True, slots=True)
class MemberKey:
    """What a member of a group told about itself."""

    TYPE: ClassVar = 5
    group_id: str
    member_id: str


@dataclass(frozen=True, slots=True)
class TargetKey:
    """The epoch of a group's target assignment."""

    TYPE: ClassVar = 6
    group_id: str


@dataclass(frozen=True, slots=True)
class TargetMemberKey:
    """What the target assignment gives to a member."""

    TYPE: ClassVar = 7
    group_id: str
    member_id: str


@dataclass(frozen=True, slots=True)
class CurrentKey:
    """What a member has, and in which epoch."""

    TYPE: ClassVar = 8
    group_id: str
    member_id: str


Key = OffsetKey | ClassicKey | GroupKey | MemberKey | TargetKey | TargetMemberKey | CurrentKey
OFFSET_PREFIX: Final = INT16.pack(OffsetKey.TYPE)


def encode_key(key: Key) -> bytes:
    """Return a key's bytes: its type in 16 bits, then its fields in the order of the class."""
    if isinstance(key, OffsetKey):
        fields = string(key.group_id) + string(key.topic) + INT32.pack(key.partition)
        return OFFSET_PREFIX + fields
    if isinstance(key, ClassicKey | GroupKey | TargetKey):
        return INT16.pack(key.TYPE) + string(key.group_id)
    return INT16.pack(key.TYPE) + string(key.group_id) + string(key.member_id)


def _offset_key(reader: Reader) -> OffsetKey:
    return OffsetKey(reader.string(), reader.string(), reader.int32())


#: Type 0 is an offset as well: programs before Kafka 0.9 wrote it.
READERS: Final[dict[int, Callable[[Reader], Key]]] = {
    0: _offset_key,
    1: _offset_key,
    2: lambda reader: ClassicKey(reader.string()),
    3: lambda reader: GroupKey(reader.string()),
    5: lambda reader: MemberKey(reader.string(), reader.string()),
    6: lambda reader: TargetKey(reader.string()),
    7: lambda reader: TargetMemberKey(reader.string(), reader.string()),
    8: lambda reader: CurrentKey(reader.string(), reader.string()),
}


def decode_key(data: bytes) -> Key | None:
    """Return a record's key; None if its type is not one of ours.

    Kafka's coordinator writes further types (share and streams groups, resolved patterns, the older
    partition metadata). Raises CorruptRecordError for bytes that are no key.
    """
    reader = Reader(data, "the key of a record of __consumer_offsets")
    read = READERS.get(reader.int16())
    return None if read is None else read(reader)
