"""Partitions by the id of their topic, as the calls of groups name them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from quorate.v1.groups_pb2 import Partitions


class Part(NamedTuple):
    """A partition, by its topic's id and its number."""

    topic_id: bytes
    partition: int


Parts = frozenset[Part]
NO_PARTS: Parts = frozenset()


def to_wire(parts: Iterable[Part]) -> Partitions:
    """Return partitions as a message, by topic."""
    topics: dict[bytes, list[int]] = {}
    for topic_id, partition in sorted(parts):
        topics.setdefault(topic_id, []).append(partition)
    message = Partitions()
    for topic_id, numbers in topics.items():
        message.topics.add(topic_id=topic_id, partitions=numbers)
    return message


def from_wire(message: Partitions) -> Parts:
    """Return the partitions of a message."""
    return frozenset(
        Part(topic.topic_id, number) for topic in message.topics for number in topic.partitions
    )
