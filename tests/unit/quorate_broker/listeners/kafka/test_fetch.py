"""Fetch without a session: every partition that is asked for is in the answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from quorate.errors import FencedLeaderEpochError, InvalidRequestError, NotLeaderError
from quorate.v1.common_pb2 import LeaderHint
from quorate_broker.listeners.kafka.call import Refusal
from quorate_broker.listeners.kafka.errors import INVALID_REQUEST
from quorate_broker.listeners.kafka.fetch import FetchRequests
from quorate_broker.listeners.kafka.messages.fetch import (
    FetchPartition,
    FetchRequest,
    FetchResponse,
    FetchTopic,
    PartitionData,
    ReplicaState,
)
from quorate_broker.replica.divergence import Divergence
from quorate_broker.replica.hints import hinted
from quorate_broker.replica.leader_replica import DivergedError
from tests.unit.quorate_broker.listeners.kafka.families import NAME, World, call
from tests.unit.quorate_broker.operations.builders import TOPIC, FakePartition, settle

FOREVER_MS = 60_000


def asked(
    *partitions: tuple[int, int],
    topic: FetchTopic | None = None,
    wait_ms: int = 0,
    min_bytes: int = 1,
    max_bytes: int = 1 << 20,
    each: int = 1 << 20,
    **fields: Any,
) -> FetchRequest:
    topic = topic or FetchTopic(NAME)
    named = [
        FetchPartition(index, fetch_offset=offset, partition_max_bytes=each)
        for index, offset in partitions
    ]
    return FetchRequest(
        max_wait_ms=wait_ms,
        min_bytes=min_bytes,
        max_bytes=max_bytes,
        topics=[FetchTopic(topic.topic, topic.topic_id, named)],
        **fields,
    )


async def fetched(world: World, request: FetchRequest, version: int = 12) -> FetchResponse:
    requests = FetchRequests(world.operations, world.replicas)
    return await requests.fetch(call(request, version))


def partitions_of(response: FetchResponse) -> list[PartitionData]:
    return [one for topic in response.responses for one in topic.partitions]


async def test_every_partition_is_in_the_answer_also_those_without_records() -> None:
    world = World(p0=FakePartition(b"abc", 3), p1=FakePartition(b"", 0), p2=FakePartition(b"d", 1))
    found = partitions_of(await fetched(world, asked((2, 0), (1, 0), (0, 1))))
    assert [(one.partition_index, bytes(one.records or b"")) for one in found] == [
        (2, b"d"),
        (1, b""),
        (0, b"bc"),
    ]
    assert all(one.records is not None for one in found)
    assert [(one.high_watermark, one.last_stable_offset) for one in found] == [
        (1, 1),
        (0, 0),
        (3, 3),
    ]
    assert [one.aborted_transactions for one in found] == [None] * 3


async def test_partitions_that_find_no_room_are_in_the_answer() -> None:
    partitions = {f"p{i}": FakePartition(b"x" * 50, 50) for i in range(5)}
    world = World(**partitions)  # type: ignore[arg-type]
    request = asked(*((i, 0) for i in range(5)), max_bytes=100)
    found = partitions_of(await fetched(world, request))
    assert sorted(one.partition_index for one in found) == list(range(5))
    assert sum(len(one.records or b"") for one in found) == 100
    assert {one.high_watermark for one in found} == {50}


async def test_the_first_records_come_even_if_they_are_too_large() -> None:
    world = World(p0=FakePartition(b"abc", 3))
    (found,) = partitions_of(await fetched(world, asked((0, 0), max_bytes=0, each=0)))
    assert bytes(found.records or b"") == b"a"


async def test_a_fetch_waits_for_records_and_no_longer() -> None:
    partition = FakePartition(b"", 0)
    world = World(p0=partition)
    fetching = asyncio.ensure_future(fetched(world, asked((0, 0), wait_ms=FOREVER_MS)))
    await settle()
    assert not fetching.done()
    partition.move(b"a")
    (found,) = partitions_of(await fetching)
    assert bytes(found.records or b"") == b"a"
    assert partition.wakes == []  # the partition forgets the request


async def test_a_fetch_that_is_cancelled_leaves_nothing_behind() -> None:
    partition = FakePartition(b"", 0)
    fetching = asyncio.ensure_future(
        fetched(World(p0=partition), asked((0, 0), wait_ms=FOREVER_MS))
    )
    await settle()
    fetching.cancel()
    await asyncio.wait([fetching])
    assert partition.wakes == []


async def test_an_error_is_answered_at_once() -> None:
    world = World(p0=FakePartition(b"", 0))
    found = partitions_of(await fetched(world, asked((0, 5), (7, 0), wait_ms=FOREVER_MS)))
    assert [(one.partition_index, one.error_code) for one in found] == [(0, 1), (7, 3)]
    unknown = asked((0, 0), topic=FetchTopic("nope"), wait_ms=FOREVER_MS)
    assert [one.error_code for one in partitions_of(await fetched(world, unknown))] == [3]


async def test_topics_are_named_by_id_from_version_13_on() -> None:
    world = World(p0=FakePartition(b"a", 1))
    known = asked((0, 0), topic=FetchTopic(topic_id=TOPIC))
    unknown = asked((0, 0), topic=FetchTopic(topic_id=b"?" * 16))
    assert [one.error_code for one in partitions_of(await fetched(world, known, 13))] == [0]
    assert [one.error_code for one in partitions_of(await fetched(world, unknown, 13))] == [100]


async def test_a_log_that_was_cut_is_told_as_the_diverging_epoch() -> None:
    partition = FakePartition(b"abc", 3, error=DivergedError("cut", Divergence(4, 2)))
    (found,) = partitions_of(await fetched(World(p0=partition), asked((0, 3))))
    assert (found.error_code, found.records) == (0, b"")
    assert (found.diverging_epoch.epoch, found.diverging_epoch.end_offset) == (4, 2)


@pytest.mark.parametrize(
    ("error", "code"), [(NotLeaderError("moved"), 6), (FencedLeaderEpochError("old"), 74)]
)
async def test_not_the_leader_names_the_leader_and_its_address(
    error: NotLeaderError, code: int
) -> None:
    hinted(error, LeaderHint(leader=2, leader_epoch=8))
    request = asked((0, 0), topic=FetchTopic(topic_id=TOPIC))
    response = await fetched(World(p0=FakePartition(error=error)), request, 16)
    (found,) = partitions_of(response)
    assert (found.error_code, found.current_leader.leader_id) == (code, 2)
    assert [(one.node_id, one.host) for one in response.node_endpoints] == [(2, "k2")]


@pytest.mark.parametrize(
    ("session_id", "epoch", "error"), [(0, -1, 0), (0, 0, 0), (5, 1, 70), (5, -1, 70), (0, 3, 71)]
)
async def test_a_session_is_refused(session_id: int, epoch: int, error: int) -> None:
    world = World(p0=FakePartition(b"a", 1))
    request = asked((0, 0), session_id=session_id, session_epoch=epoch)
    response = await fetched(world, request)
    assert (response.error_code, response.session_id) == (error, 0)
    assert bool(response.responses) == (error == 0)


async def test_followers_are_refused() -> None:
    world = World(p0=FakePartition(b"a", 1))
    for fields in ({"replica_id": 1}, {"replica_state": ReplicaState(1, 1)}):
        with pytest.raises(Refusal, match="follower"):
            await fetched(world, asked((0, 0), **fields))


async def test_the_partitions_of_a_request_are_bounded() -> None:
    world = World({"request_partitions_max": 2}, p0=FakePartition())
    with pytest.raises(InvalidRequestError, match="3 partitions"):
        await fetched(world, asked((0, 0), (1, 0), (2, 0)))


@pytest.mark.parametrize("version", [4, 12, 18])
async def test_a_partition_that_is_named_twice_is_refused_in_an_answer(version: int) -> None:
    """A closed connection would tell the client nothing, and it would ask again for ever."""
    world = World(p0=FakePartition(b"abc", 3), p1=FakePartition(b"abc", 3))
    request = asked((0, 0), (1, 0), (0, 0), topic=FetchTopic(NAME, TOPIC), wait_ms=FOREVER_MS)
    found = partitions_of(await fetched(world, request, version))
    assert [(one.partition_index, one.error_code) for one in found] == [
        (0, INVALID_REQUEST),
        (1, INVALID_REQUEST),
        (0, INVALID_REQUEST),
    ]
