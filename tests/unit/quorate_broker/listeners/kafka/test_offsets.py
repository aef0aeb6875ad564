"""ListOffsets and OffsetForLeaderEpoch: each partition of a request gets its own answer."""

from __future__ import annotations

import asyncio

import pytest

from quorate_broker.listeners.kafka.errors import (
    INVALID_REQUEST,
    NONE,
    UNKNOWN_TOPIC_OR_PARTITION,
)
from quorate_broker.listeners.kafka.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopic,
)
from quorate_broker.listeners.kafka.messages.offset_for_leader_epoch import (
    OffsetForLeaderEpochRequest,
    OffsetForLeaderPartition,
    OffsetForLeaderTopic,
)
from quorate_broker.listeners.kafka.offsets import OffsetRequests
from quorate_quorum.metadata.image import MetadataImage
from tests.unit.quorate_broker.listeners.kafka.families import (
    NAME,
    World,
    broker,
    call,
    image_of,
    partition,
)
from tests.unit.quorate_broker.operations.builders import FakePartition

EARLIEST, LATEST = -2, -1
GONE = "gone"


def listed(*topics: tuple[str, tuple[tuple[int, int], ...]]) -> ListOffsetsRequest:
    """Return a request for (partition, timestamp) of topics."""
    return ListOffsetsRequest(
        topics=[
            ListOffsetsTopic(name, [ListOffsetsPartition(index, -1, time) for index, time in asked])
            for name, asked in topics
        ]
    )


def found_in(response: ListOffsetsResponse) -> list[tuple[str, int, int, int]]:
    return [
        (topic.name, one.partition_index, one.error_code, one.offset)
        for topic in response.topics
        for one in topic.partitions
    ]


def with_topics(*names: str) -> MetadataImage:
    return image_of([broker(0)], **{name: [partition(0)] for name in names})


def requests_of(world: World) -> OffsetRequests:
    return OffsetRequests(world.operations.offsets, world.replicas)


@pytest.mark.parametrize(
    ("before", "after"),
    [((NAME, GONE), (NAME,)), ((NAME,), (NAME, GONE))],
    ids=["deleted", "created"],
)
async def test_a_topic_that_goes_or_comes_during_the_search_does_not_shift_the_other_answers(
    before: tuple[str, ...], after: tuple[str, ...]
) -> None:
    world = World(p0=FakePartition(b"abc", 3, log_start_offset=1))
    world.fake.image = with_topics(*before)
    request = listed((GONE, ((0, EARLIEST),)), (NAME, ((0, LATEST),)))
    listing = asyncio.ensure_future(requests_of(world).list_offsets(call(request, 7)))
    await asyncio.sleep(0)
    world.fake.image = with_topics(*after)
    assert found_in(await listing) == [
        (GONE, 0, UNKNOWN_TOPIC_OR_PARTITION, -1),
        (NAME, 0, NONE, 3),
    ]


async def test_a_partition_that_is_named_twice_is_refused_and_the_others_are_answered() -> None:
    logs = [FakePartition(b"abc", 3), FakePartition(b"ab", 2)]
    world = World(p0=logs[0], p1=logs[1])
    request = listed(
        (NAME, ((0, EARLIEST), (1, LATEST))), (NAME, ((0, LATEST),)), (GONE, ((0, 5), (0, 5)))
    )
    assert found_in(await requests_of(world).list_offsets(call(request, 7))) == [
        (NAME, 0, INVALID_REQUEST, -1),
        (NAME, 1, NONE, 2),
        (NAME, 0, INVALID_REQUEST, -1),
        (GONE, 0, INVALID_REQUEST, -1),
        (GONE, 0, INVALID_REQUEST, -1),
    ]


async def test_an_epoch_of_a_partition_that_is_named_twice_is_refused() -> None:
    world = World(p0=FakePartition())
    named = [OffsetForLeaderPartition(index, -1, 0) for index in (0, 7, 0)]
    request = OffsetForLeaderEpochRequest(topics=[OffsetForLeaderTopic(NAME, named)])
    answer = await requests_of(world).offset_for_leader_epoch(call(request, 4))
    assert [(one.partition, one.error_code) for one in answer.topics[0].partitions] == [
        (0, INVALID_REQUEST),
        (7, UNKNOWN_TOPIC_OR_PARTITION),
        (0, INVALID_REQUEST),
    ]
