"""The record of a group of the classic protocol: one value holds the group with all its members."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from quorate_broker.groups.records.wire import (
    INT16,
    INT32,
    INT64,
    Reader,
    checked_version,
    nullable_string,
    sized_bytes,
    string,
)

#: Kafka writes this version; 0 to 4 are read.
VERSION_3: Final = INT16.pack(3)
NEWEST: Final = 4


@dataclass(frozen=True, slots=True)
class ClassicMemberValue:
    """A member of a stable generation. The meaning of its bytes is the members' own matter."""

    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    #: -1: not known.
    rebalance_timeout_ms: int
    session_timeout_ms: int
    #: The metadata that the member gave for the group's protocol.
    subscription: bytes
    assignment: bytes

    def encode(self) -> bytes:
        """Return the bytes within a value of version 3."""
        return (
            string(self.member_id)
            + nullable_string(self.instance_id)
            + string(self.client_id)
            + string(self.client_host)
            + INT32.pack(self.rebalance_timeout_ms)
            + INT32.pack(self.session_timeout_ms)
            + sized_bytes(self.subscription)
            + sized_bytes(self.assignment)
        )


@dataclass(frozen=True, slots=True)
class ClassicValue:
    """A generation of a group. Without members the group is empty."""

    #: "consumer" for consumers, "connect" for workers of Kafka Connect.
    protocol_type: str
    generation: int
    #: What the members agreed on, the assignor for instance. None: there are no members.
    protocol: str | None
    leader: str | None
    #: When the group came into this state, in ms since 1970; -1: not known.
    timestamp_ms: int
    members: tuple[ClassicMemberValue, ...] = ()

    def encode(self) -> bytes:
        """Return the bytes of version 3."""
        return (
            VERSION_3
            + string(self.protocol_type)
            + INT32.pack(self.generation)
            + nullable_string(self.protocol)
            + nullable_string(self.leader)
            + INT64.pack(self.timestamp_ms)
            + INT32.pack(len(self.members))
            + b"".join(one.encode() for one in self.members)
        )

    @classmethod
    def decode(cls, data: bytes) -> ClassicValue:
        """Read versions 0 to 4."""
        reader = Reader(data, "the value of a classic group")
        version = checked_version(reader, NEWEST)
        is_flexible = version >= 4
        text = reader.compact_string if is_flexible else reader.string
        text_or_null = reader.nullable_string if is_flexible else reader.old_nullable_string
        blob = reader.compact_bytes if is_flexible else reader.sized_bytes

        def member() -> ClassicMemberValue:
            value = ClassicMemberValue(
                text(),
                text_or_null() if version >= 3 else None,
                text(),
                text(),
                reader.int32() if version >= 1 else -1,
                reader.int32(),
                blob(),
                blob(),
            )
            if is_flexible:
                reader.tagged()
            return value

        protocol_type, generation = text(), reader.int32()
        protocol, leader = text_or_null(), text_or_null()
        timestamp_ms = reader.int64() if version >= 2 else -1
        members = reader.array(member) if is_flexible else reader.old_array(member)
        if is_flexible:
            reader.tagged()
        return cls(protocol_type, generation, protocol, leader, timestamp_ms, tuple(members))
