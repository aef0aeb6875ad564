"""Produce: batches into the queues of their partitions, and the answers about them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from quorate.errors import (
    CorruptRecordError,
    InvalidRecordError,
    InvalidRequestError,
    NotLeaderError,
    OutcomeUnknownError,
    ProducerFencedError,
    QuorateError,
    RecordTooLargeError,
    UnknownProducerIdError,
)
from quorate.record import compression
from quorate.v1.common_pb2 import LeaderHint
from quorate_broker.listeners.kafka.call import Client, Refusal
from quorate_broker.listeners.kafka.messages.init_producer_id import InitProducerIdRequest
from quorate_broker.listeners.kafka.messages.produce import (
    PartitionProduceData,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
)
from quorate_broker.listeners.kafka.produce import ProduceRequests
from quorate_broker.replica.hints import hinted
from tests.unit.quorate_broker.listeners.kafka.families import (
    NAME,
    World,
    batch,
    call,
)
from tests.unit.quorate_broker.operations.builders import TOPIC, FakePartition, Produced


def request(
    *partitions: tuple[int, bytes | None],
    acks: int = -1,
    topic: TopicProduceData | None = None,
    transactional_id: str | None = None,
) -> ProduceRequest:
    topic = topic or TopicProduceData(NAME)
    data = [PartitionProduceData(index, records) for index, records in partitions]
    return ProduceRequest(
        transactional_id, acks, 5000, [TopicProduceData(topic.name, topic.topic_id, data)]
    )


async def begun(world: World, asked: ProduceRequest, version: int = 9) -> asyncio.Future[Any]:
    """Begin a Produce request. Return the future of its response."""
    response = await ProduceRequests(world.operations, world.replicas).produce(call(asked, version))
    assert isinstance(response, asyncio.Future)
    return response


def codes(response: ProduceResponse) -> list[tuple[int, int]]:
    """Return (partition, error code) of each partition."""
    return [
        (one.index, one.error_code)
        for topic in response.responses
        for one in topic.partition_responses
    ]


async def refused(asked: ProduceRequest, version: int = 9) -> int:
    """Return the error code of a request with one partition whose batch no queue gets."""
    world = World(p0=FakePartition())
    response = await begun(world, asked, version)
    assert response.done()
    assert world.fake.partitions[0].calls == []
    ((_, code),) = codes(response.result())
    return code


async def test_batches_are_queued_before_the_handler_returns() -> None:
    world = World(p0=FakePartition(), p1=FakePartition())
    response = await begun(world, request((1, batch(b"b")), (0, batch(b"a"))))
    first, second = world.fake.partitions[0].calls[0], world.fake.partitions[1].calls[0]
    assert (first.batch, second.batch) == (batch(b"a"), batch(b"b"))
    assert (first.acks, first.timeout_ms) == (-1, 5000)
    first.outcome.set_result(Produced(7))
    assert not response.done()
    second.outcome.set_result(Produced(8, 99, 3))
    found = await response
    (topic,) = found.responses
    assert [(one.index, one.base_offset) for one in topic.partition_responses] == [(1, 8), (0, 7)]
    assert topic.partition_responses[0].log_append_time_ms == 99
    assert topic.partition_responses[0].log_start_offset == 3


async def test_topics_are_named_by_id_from_version_13_on() -> None:
    world = World(p0=FakePartition())
    topic = TopicProduceData(topic_id=TOPIC)
    response = await begun(world, request((0, batch()), topic=topic), 13)
    world.fake.partitions[0].calls[0].outcome.set_result(Produced(1))
    assert codes(await response) == [(0, 0)]
    unknown = TopicProduceData(topic_id=b"?" * 16)
    response = await begun(world, request((0, batch()), topic=unknown), 13)
    assert codes(await response) == [(0, 100)]


@pytest.mark.parametrize(
    ("records", "code"),
    [
        (None, 87),
        (b"", 87),
        (batch()[:-1], 0),  # its queue finds that it is cut
        (batch() + batch(), 87),
        (batch()[:16] + b"\x01" + batch()[17:], 87),
        (batch()[:22] + b"\x05" + batch()[23:], 76),
    ],
)
async def test_exactly_one_batch_of_magic_2_a_partition(records: bytes | None, code: int) -> None:
    if code:
        assert await refused(request((0, records))) == code
    else:
        world = World(p0=FakePartition())
        await begun(world, request((0, records)))
        assert len(world.fake.partitions[0].calls) == 1


async def test_zstd_is_for_versions_that_know_it() -> None:
    records = batch(b"x" * 1000, codec=compression.ZSTD)
    assert await refused(request((0, records)), 6) == 76
    world = World(p0=FakePartition())
    await begun(world, request((0, records)), 7)
    assert len(world.fake.partitions[0].calls) == 1


@pytest.mark.parametrize("acks", [2, -2, 100])
async def test_other_acks_are_refused(acks: int) -> None:
    assert await refused(request((0, batch()), acks=acks)) == 21


async def test_a_transactional_producer_is_refused_at_once() -> None:
    assert await refused(request((0, batch()), transactional_id="t")) == 35
    world = World()
    requests = ProduceRequests(world.operations, world.replicas)
    response = await requests.init_producer_id(call(InitProducerIdRequest("t"), 4))
    assert (response.error_code, response.producer_id) == (35, -1)


async def test_a_partition_that_is_named_twice_gets_one_batch() -> None:
    world = World(p0=FakePartition())
    response = await begun(world, request((0, batch(b"a")), (0, batch(b"b"))))
    (queued,) = world.fake.partitions[0].calls
    queued.outcome.set_result(Produced(1))
    assert codes(await response) == [(0, 0), (0, 42)]


async def test_an_unknown_topic_or_partition_is_an_error_of_its_own() -> None:
    world = World(p0=FakePartition())
    unknown = await begun(world, request((0, batch()), topic=TopicProduceData("nope")))
    assert codes(await unknown) == [(0, 3)]
    assert codes(await (await begun(world, request((5, batch()))))) == [(5, 3)]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CorruptRecordError("crc"), 2),
        (InvalidRecordError("no records"), 87),
        (RecordTooLargeError("large"), 10),
        (InvalidRequestError("no key"), 87),
        (OutcomeUnknownError("?"), 7),
        (ProducerFencedError("old"), 47),
        (UnknownProducerIdError("who"), 59),
    ],
)
async def test_the_outcome_of_a_batch_is_its_error(error: QuorateError, code: int) -> None:
    world = World(p0=FakePartition())
    response = await begun(world, request((0, batch())))
    world.fake.partitions[0].calls[0].outcome.set_exception(error)
    found = await response
    assert codes(found) == [(0, code)]
    assert found.responses[0].partition_responses[0].error_message == str(error)


async def test_a_refusal_of_the_leader_tells_where_the_log_begins() -> None:
    """Java's producers send a batch of a forgotten producer again and again until they are told."""
    for error, start in ((UnknownProducerIdError("who"), 7), (NotLeaderError("b"), -1)):
        world = World(p0=FakePartition(log_start_offset=7))
        response = await begun(world, request((0, batch())))
        world.fake.partitions[0].calls[0].outcome.set_exception(error)
        (found,) = (await response).responses[0].partition_responses
        assert (found.log_start_offset, found.base_offset) == (start, -1)


async def test_the_records_that_a_batch_is_refused_for_are_named() -> None:
    """Clients give the other records of the batch an error of their own (Kafka's KIP-467)."""
    world = World(p0=FakePartition())
    response = await begun(world, request((0, batch())))
    error = InvalidRequestError("records 2, 5 are without a key")
    error.refused_records = (2, 5)
    world.fake.partitions[0].calls[0].outcome.set_exception(error)
    (answer,) = (await response).responses[0].partition_responses
    assert [(one.batch_index, one.batch_index_error_message) for one in answer.record_errors] == [
        (2, str(error)),
        (5, str(error)),
    ]


async def test_not_the_leader_names_the_leader_and_its_address() -> None:
    world = World(p0=FakePartition())
    response = await begun(world, request((0, batch())), 10)
    error = hinted(NotLeaderError("moved"), LeaderHint(leader=2, leader_epoch=8))
    world.fake.partitions[0].calls[0].outcome.set_exception(error)
    found = await response
    leader = found.responses[0].partition_responses[0].current_leader
    assert (codes(found), leader.leader_id, leader.leader_epoch) == ([(0, 6)], 2, 8)
    assert [(one.node_id, one.host, one.port, one.rack) for one in found.node_endpoints] == [
        (2, "k2", 9092, "R2")
    ]


async def test_acks_0_has_no_answer() -> None:
    world = World(p0=FakePartition())
    response = await begun(world, request((0, batch()), acks=0))
    world.fake.partitions[0].calls[0].outcome.set_result(Produced(0))
    assert await response is None


async def test_an_error_with_acks_0_closes_the_connection() -> None:
    world = World(p0=FakePartition())
    response = await begun(world, request((0, batch()), acks=0))
    world.fake.partitions[0].calls[0].outcome.set_exception(NotLeaderError("moved"))
    with pytest.raises(Refusal, match="acks=0"):
        await response
    with pytest.raises(Refusal, match="acks=0"):
        await (await begun(world, request((0, None), acks=0)))


async def test_a_request_without_partitions_is_answered() -> None:
    world = World()
    response = await begun(world, ProduceRequest(acks=-1))
    assert (await response).responses == []


async def test_the_partitions_of_a_request_are_bounded() -> None:
    world = World({"request_partitions_max": 2}, p0=FakePartition())
    asked = request(*((i, batch()) for i in range(3)))
    with pytest.raises(InvalidRequestError, match="3 partitions"):
        await begun(world, asked)


async def test_the_next_request_waits_while_too_many_bytes_are_not_appended() -> None:
    world = World({"stream_queued_max_bytes": 1024}, p0=FakePartition())
    requests = ProduceRequests(world.operations, world.replicas)
    asked = call(request((0, batch(bytes(2000)))), 9)
    handling = asyncio.ensure_future(requests.produce(asked))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not handling.done()
    world.fake.partitions[0].calls[0].appended()
    await handling


async def test_the_end_of_a_connection_cancels_no_batch() -> None:
    world = World(p0=FakePartition())
    requests = ProduceRequests(world.operations, world.replicas)
    client = Client("127.0.0.1", "kafka")
    await requests.produce(call(request((0, batch())), 9, client))
    client.close()
    (queued,) = world.fake.partitions[0].calls
    assert not queued.outcome.cancelled()
    queued.appended()
    queued.outcome.set_result(Produced(0))
    await asyncio.sleep(0)
    assert world.operations.produce.budget.held == 0
