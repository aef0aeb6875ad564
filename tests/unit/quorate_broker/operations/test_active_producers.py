"""Which producers write to partitions: each partition for itself, within bounds."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import pytest

from quorate.errors import InvalidRequestError, TopicAuthorizationFailedError, UnknownTopicError
from quorate_broker.operations import active_producers
from quorate_broker.operations.active_producers import ActiveProducer, ActiveProducers
from quorate_broker.replica.producer_memory import ProducerMemory
from quorate_broker.replica.producers import Producers
from quorate_quorum.node.authorizer import ALLOW_ALL, Authorizer
from quorate_quorum.node.environment import Environment
from tests.unit.quorate_broker.operations.builders import (
    ANN,
    TOPIC,
    DenyAll,
    FakePartition,
    FakeReplicas,
    config,
)

NOW_MS = 1_700_000_000_000


class Header(NamedTuple):
    producer_id: int
    producer_epoch: int
    base_sequence: int
    last_offset_delta: int
    base_offset: int


class Written(FakePartition):
    """A partition to which producers have written."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = ProducerMemory()
        self.producers = Producers(self.memory)


def operation(authorizer: Authorizer = ALLOW_ALL, **partitions: Written) -> ActiveProducers:
    replicas: Any = FakeReplicas(**partitions)
    replicas.environment = Environment(
        network=cast(Any, None), disk=cast(Any, None), wall_clock_ms=lambda: NOW_MS
    )
    return ActiveProducers(replicas, config(request_partitions_max=3), authorizer)


async def test_what_a_partition_remembers_of_its_producers_is_told() -> None:
    written = Written()
    written.producers.observe(Header(7, 1, 0, 4, 0))
    written.memory.now_ms += 400
    written.producers.observe(Header(9, 0, 3, 1, 5))
    written.memory.now_ms += 100
    assert await operation(p0=written).of(ANN, TOPIC, 0) == [
        ActiveProducer(7, 1, 4, NOW_MS - 500),
        ActiveProducer(9, 0, 4, NOW_MS - 100),
    ]


async def test_of_very_many_producers_those_that_were_heard_last_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(active_producers, "TOLD_MAX", 3)
    monkeypatch.setattr(active_producers, "PRODUCERS_A_TURN", 2)
    written = Written()
    for number in range(5):
        written.producers.observe(Header(number, 0, 0, 0, number))
    told = await operation(p0=written).of(ANN, TOPIC, 0)
    assert [one.producer_id for one in told] == [2, 3, 4]


@pytest.mark.parametrize("partition", [1, -1])
async def test_a_partition_that_does_not_exist(partition: int) -> None:
    with pytest.raises(UnknownTopicError):
        await operation(p0=Written()).of(ANN, TOPIC, partition)


async def test_who_may_not_read_a_topic_is_not_told_its_producers() -> None:
    with pytest.raises(TopicAuthorizationFailedError):
        await operation(DenyAll(), p0=Written()).of(ANN, TOPIC, 0)


def test_a_request_names_a_bounded_number_of_partitions() -> None:
    operation().check_count(3)
    with pytest.raises(InvalidRequestError, match="3 are allowed"):
        operation().check_count(4)
