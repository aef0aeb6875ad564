"""What consumers of the classic protocol tell each other: subscriptions and assignments.

Kafka's clients write them in a format of their own (ConsumerProtocolSubscription and
ConsumerProtocolAssignment), within the opaque bytes of JoinGroup and SyncGroup. The coordinator
reads them to describe a group, and where members of both protocols are in one group.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import Final, NamedTuple

from quorate.errors import CorruptRecordError
from quorate_broker.groups.machine.topics import Topics
from quorate_broker.groups.records.values import Partition
from quorate_broker.groups.records.wire import INT16, INT32, Reader, sized_bytes, string

#: The protocol type of consumers.
CONSUMER: Final = "consumer"
#: Longer subscriptions and assignments are not read, because that would take long.
READ_BYTES_MAX: Final = 256 * 1024
#: The first versions of a subscription with the partitions that the member has, with its
#: generation, and with its rack.
OWNED_FROM: Final = 1
GENERATION_FROM: Final = 2
RACK_FROM: Final = 3
#: The version in which assignments are written: all clients read it.
ASSIGNMENT_VERSION: Final = INT16.pack(0)


class Embedded(NamedTuple):
    """A subscription."""

    topics: frozenset[str]
    #: Topics and partitions that the member has while it joins.
    owned: frozenset[tuple[str, int]]
    rack: str


def read_subscription(metadata: bytes) -> Embedded:
    """Return a subscription. Raises CorruptRecordError if the bytes are something else."""
    reader = _reader(metadata, "the subscription of a classic member")
    version = reader.int16()
    if version < 0:
        raise reader.corrupt(f"version {version}")
    topics = reader.old_array(reader.string)
    _skip_user_data(reader)
    owned = _named_partitions(reader) if version >= OWNED_FROM else frozenset()
    if version >= GENERATION_FROM:
        reader.int32()
    rack = reader.old_nullable_string() if version >= RACK_FROM else None
    return Embedded(frozenset(topics), owned, rack or "")


def read_assignment(assignment: bytes) -> frozenset[tuple[str, int]]:
    """Return the partitions of an assignment. Raises CorruptRecordError."""
    if not assignment:
        return frozenset()
    reader = _reader(assignment, "the assignment of a classic member")
    version = reader.int16()
    if version < 0:
        raise reader.corrupt(f"version {version}")
    return _named_partitions(reader)


def known(named: Collection[tuple[str, int]], topics: Topics) -> frozenset[Partition]:
    """Return those of the partitions that there are."""
    found = ((topics.named(name), number) for name, number in named)
    return frozenset(
        (topic.id, number)
        for topic, number in found
        if topic is not None and 0 <= number < topic.partitions
    )


def unknown(named: Collection[tuple[str, int]], topics: Topics) -> frozenset[tuple[str, int]]:
    """Return those of the partitions that there are not, or that this coordinator sees later."""
    found = {name: topics.named(name) for name, _ in named}
    sizes = {name: 0 if topic is None else topic.partitions for name, topic in found.items()}
    return frozenset(one for one in named if not 0 <= one[1] < sizes[one[0]])


def assignment_bytes(partitions: Collection[Partition], topics: Topics) -> bytes:
    """Return an assignment. Topics that are deleted are left out."""
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    for topic_id, number in sorted(partitions):
        topic = topics.with_id(topic_id)
        if topic is not None:
            numbers[topic.name].append(number)
    return (
        ASSIGNMENT_VERSION
        + INT32.pack(len(numbers))
        + b"".join(
            string(name) + INT32.pack(len(listed)) + b"".join(map(INT32.pack, listed))
            for name, listed in numbers.items()
        )
        + sized_bytes(b"")
    )


def _reader(data: bytes, what: str) -> Reader:
    reader = Reader(data, what)
    if len(data) > READ_BYTES_MAX:
        raise reader.corrupt(f"more than {READ_BYTES_MAX} bytes")
    return reader


def _named_partitions(reader: Reader) -> frozenset[tuple[str, int]]:
    def topic() -> list[tuple[str, int]]:
        name = reader.string()
        return [(name, number) for number in reader.old_array(reader.int32)]

    return frozenset(one for listed in reader.old_array(topic) for one in listed)


def _skip_user_data(reader: Reader) -> None:
    size = reader.int32()
    if size > 0:
        reader.take(size)


def subscribed(metadata: bytes) -> frozenset[str]:
    """Return the topics of a subscription; none if the bytes are something else."""
    try:
        return read_subscription(metadata).topics
    except CorruptRecordError:
        return frozenset()


def assigned(assignment: bytes, topics: Topics) -> frozenset[Partition]:
    """Return the partitions of an assignment that there are; none for other bytes."""
    try:
        return known(read_assignment(assignment), topics)
    except CorruptRecordError:
        return frozenset()
