"""Offsets of times: each partition for itself, within bounds."""

from __future__ import annotations

from typing import Any, cast

import pytest

from quorate.errors import (
    InvalidRequestError,
    QuorateError,
    TopicAuthorizationFailedError,
    UnknownTopicError,
)
from quorate_broker.operations.offsets import OffsetAsked, Offsets
from quorate_quorum.node.authorizer import ALLOW_ALL
from tests.unit.quorate_broker.operations.builders import (
    ANN,
    TOPIC,
    DenyAll,
    FakePartition,
    FakeReplicas,
    config,
)


def offsets(replicas: FakeReplicas, **bounds: int) -> Offsets:
    return Offsets(cast(Any, replicas), config(**bounds), ALLOW_ALL)


def asked(partition: int, timestamp_ms: int) -> OffsetAsked:
    return OffsetAsked(TOPIC, partition, timestamp_ms, -1)


async def test_a_partition_that_is_named_twice_is_refused() -> None:
    """Ten thousand times one lookup by time held a broker's loop for 45 s."""
    replicas = FakeReplicas(p0=FakePartition(b"abcd", 3))
    with pytest.raises(InvalidRequestError, match="-0 twice; name each"):
        await offsets(replicas).find(ANN, [asked(0, 1), asked(0, 2)])


def test_as_many_partitions_as_are_held_may_always_be_named() -> None:
    replicas = FakeReplicas(**{f"p{i}": FakePartition(b"", 0) for i in range(4)})
    bounded = offsets(replicas, request_partitions_max=2)
    bounded.check_count(4)
    with pytest.raises(InvalidRequestError, match="5 partitions are named at once; 4 are"):
        bounded.check_count(5)


async def test_each_partition_is_answered_for_itself() -> None:
    logs = [FakePartition(b"abcd", 3, log_start_offset=1) for _ in range(3)]
    replicas = FakeReplicas(p0=logs[0], p2=logs[1], p3=logs[2])
    found = await offsets(replicas).find(
        ANN, [asked(0, -2), asked(2, -1), asked(1, -1), asked(-1, -1), asked(3, -4)]
    )
    assert [one.offset for one in found if not isinstance(one, QuorateError)] == [1, 3]
    assert [type(one) for one in found[2:]] == [
        UnknownTopicError,
        InvalidRequestError,
        InvalidRequestError,
    ]


async def test_whoever_may_not_see_the_topic_is_refused() -> None:
    replicas = FakeReplicas(p0=FakePartition(b"abcd", 3))
    refused = Offsets(cast(Any, replicas), config(), DenyAll())
    [found] = await refused.find(ANN, [asked(0, -1)])
    assert isinstance(found, TopicAuthorizationFailedError)
