"""A new replica goes to the log directory with the most free bytes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from quorate.v1 import admin_pb2 as admin
from quorate_quorum.controller.decisions import brokers as decide
from quorate_quorum.controller.decisions.free_space import EQUAL_FROM, FreeSpace
from quorate_quorum.controller.decisions.sweep import Sweep
from quorate_quorum.metadata.delta import replayed
from quorate_quorum.v1 import controller_pb2 as wire
from quorate_quorum.v1.controller_pb2 import DirectorySpace
from tests.harness.addresses import listening_at
from tests.unit.quorate_quorum.controller.builders import create, new
from tests.unit.quorate_quorum.metadata.builders import (
    brokers,
    built,
    context,
    create_topics,
    directory_id,
    incarnation,
    partition_made,
    raised,
    topic_event,
    topic_id,
)

GIB = 1 << 30


def space_of(*free: int, unwritten: tuple[int, ...] = ()) -> FreeSpace:
    """Return what broker 0 told of its directories."""
    space = FreeSpace()
    counts = (*unwritten, *(0 for _ in free))
    space.told(
        0,
        [
            DirectorySpace(directory_id=directory_id(0, n), free_bytes=one, unwritten=counts[n])
            for n, one in enumerate(free)
        ],
    )
    return space


def chosen(space: FreeSpace, count: int, disks: int = 2) -> list[int]:
    """Return the numbers of the directories of `count` new partitions of one request."""
    image = brokers([0], disks=disks)
    request = admin.CreateTopicsRequest(topics=[new(partitions=count)])
    outcome = create_topics(image, request, replace(context(image), free_space=space))
    found = replayed(image, outcome.events).topics[topic_id(1)].partitions
    numbers = {directory_id(0, n): n for n in range(disks)}
    return [numbers[one.replicas[0].directory_id] for one in found]


def test_a_new_replica_goes_to_the_directory_with_the_most_free_bytes() -> None:
    assert chosen(space_of(10 * GIB, 40 * GIB, 20 * GIB), 1, disks=3) == [1]
    assert chosen(space_of(0, 1), 1) == [1]


def test_replicas_that_are_placed_at_once_share_the_free_bytes() -> None:
    in_proportion = Counter(chosen(space_of(10 * GIB, 30 * GIB), 400))
    assert 100 <= in_proportion[0] <= 100 / EQUAL_FROM
    assert Counter(chosen(space_of(100, 101), 10)) == {0: 5, 1: 5}


@pytest.mark.parametrize("requests", [1, 5])
def test_what_was_just_placed_counts_until_the_broker_tells_of_it(requests: int) -> None:
    space = space_of(10 * GIB, 30 * GIB)
    found = [one for _ in range(requests) for one in chosen(space, 40 // requests)]
    assert 10 <= Counter(found)[0] <= 12
    told_again = space_of(10 * GIB, 30 * GIB, unwritten=(0, 30))
    assert chosen(told_again, 10) == [0] * 9 + [1], "the second is full of what it will hold"


def test_directories_with_nearly_equal_space_get_equal_numbers() -> None:
    """Two directories of one file system are measured one after the other."""
    space = space_of(100 * GIB, 100 * GIB + 1)
    assert chosen(space, 6) == [0, 1] * 3
    assert chosen(space_of(0, 0), 4) == [0, 1, 0, 1]


def test_a_directory_that_failed_or_was_not_told_gets_none() -> None:
    image = brokers([0], disks=3)
    broker = image.brokers[0]
    first, second, third = broker.directories
    space = space_of(30 * GIB, 20 * GIB)
    failed = replace(broker, directories=(replace(first, failed=True), second, third))
    assert space.choose(failed, lambda _: 0) == second.id
    unsynced = replace(broker, directories=(replace(first, sync_failed=True), second, third))
    assert space.choose(unsynced, lambda _: 0) == second.id


def test_without_free_bytes_it_goes_to_the_directory_with_the_fewest_replicas() -> None:
    assert chosen(FreeSpace(), 4) == [0, 1, 0, 1]


def test_new_replicas_of_internal_topics_go_where_the_most_space_is() -> None:
    image, _ = create(brokers([1]), new("__consumer_offsets", 4), internal=True)
    image = brokers([0], on=image, disks=2)
    with_space = replace(context(image), free_space=space_of(GIB, 3 * GIB))
    image = raised(image, with_space)
    used = Counter(one.directory_of(0) for one in image.topics[topic_id(1)].partitions)
    assert used == {directory_id(0, 0): 1, directory_id(0, 1): 3}


def test_replicas_whose_directory_is_gone_go_where_the_most_space_is_one_by_one() -> None:
    """Round robin, half of them would fill a directory that has little room."""
    image = brokers([0, 1], disks=3)
    events = [topic_event(1, "t")]
    events += [partition_made(1, number, [0, 1]) for number in range(40)]
    image = built(*events, on=image)
    request = wire.RegisterRequest(
        broker_id=0, incarnation=incarnation(0, 2), **listening_at("b0:1")
    )
    for kept in (1, 2):
        request.directories.add(directory_id=directory_id(0, kept), tail_intact=True)
    outcome = decide.register(image, request, context(image), session_lives=lambda _: False)
    image = replayed(image, outcome.events)
    space = FreeSpace()
    told = {1: 10 * GIB, 2: 30 * GIB}
    space.told(
        0,
        [DirectorySpace(directory_id=directory_id(0, n), free_bytes=b) for n, b in told.items()],
    )
    sweep = Sweep(changed_max=7)
    sweep.begin([0])
    while sweep.is_busy:
        part = sweep.next(image, space)
        image = replayed(image, part.events)
        sweep.took(part)
    used = Counter(one.directory_of(0) for one in image.topics[topic_id(1)].partitions)
    assert used.keys() == {directory_id(0, 1), directory_id(0, 2)}
    assert 10 <= used[directory_id(0, 1)] <= 11
