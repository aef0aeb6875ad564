"""The steps of a shard's machine that the operations on groups ask for.

A step is short: what names many partitions is several steps, each in another turn of the loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

from quorate.errors import QuorateError
from quorate_broker.groups.machine.classic.values import DescribedClassicGroup
from quorate_broker.groups.machine.shard import ShardMachine
from quorate_broker.groups.machine.values import (
    CommitOffsets,
    Committed,
    DescribedGroup,
    FetchedOffset,
    FetchOffsets,
    ListedGroup,
    Step,
)

T = TypeVar("T")

#: The most partitions of one step.
PARTITIONS_A_STEP = 500


def parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield the items in parts, each for one step. Without items, one empty part: it is checked."""
    for first in range(0, max(len(items), 1), PARTITIONS_A_STEP):
        yield items[first : first + PARTITIONS_A_STEP]


def parts_by_size(topics: Iterable[tuple[str, int]]) -> list[tuple[str, ...]]:
    """Return names in parts that have together PARTITIONS_A_STEP partitions, or one topic more.

    >>> parts_by_size([("a", 400), ("b", 400), ("c", 1)])
    [('a', 'b'), ('c',)]
    """
    parts: list[tuple[str, ...]] = []
    part: list[str] = []
    size = 0
    for name, partitions in topics:
        part.append(name)
        size += partitions
        if size >= PARTITIONS_A_STEP:
            parts.append(tuple(part))
            part, size = [], 0
    return [*parts, tuple(part)] if part else parts


class Sizes(NamedTuple):
    """The topics of a group that has committed more than one step may tell, and their offsets."""

    topics: tuple[tuple[str, int], ...]


def fetch_if_small(
    request: FetchOffsets, machine: ShardMachine, now_ms: int, wall_ms: int
) -> Step[tuple[FetchedOffset, ...] | Sizes]:
    """Return all offsets of a group; of a large one, what is to be asked in parts."""
    topics = machine.committed_topics(request.group_id).answer
    if isinstance(topics, QuorateError):
        return Step(topics)
    if sum(size for _, size in topics) > PARTITIONS_A_STEP:
        return Step(Sizes(topics))
    named = replace(request, topics=tuple(name for name, _ in topics))
    return Step(machine.fetch_offsets(named).answer)


def commit(
    request: CommitOffsets, machine: ShardMachine, now_ms: int, wall_ms: int
) -> Step[Committed]:
    """Commit offsets; the caller has split them into parts."""
    return machine.commit_offsets(request, now_ms, wall_ms)


def fetch(
    request: FetchOffsets, machine: ShardMachine, now_ms: int, wall_ms: int
) -> Step[tuple[FetchedOffset, ...]]:
    """Return committed offsets."""
    return machine.fetch_offsets(request)


def list_groups(machine: ShardMachine, now_ms: int, wall_ms: int) -> Step[tuple[ListedGroup, ...]]:
    """Return all groups of the shard."""
    return machine.list_groups()


def describe(
    group_id: str, machine: ShardMachine, now_ms: int, wall_ms: int
) -> Step[DescribedGroup | DescribedClassicGroup]:
    """Return a group."""
    return machine.describe_group(group_id)


def delete(group_id: str, machine: ShardMachine, now_ms: int, wall_ms: int) -> Step[bool]:
    """Delete a group, or a part of its offsets. Return whether all is deleted."""
    return machine.delete_group(group_id, now_ms, wall_ms)
