"""Hostile bytes and impossible requests by hand-made calls: a clear error, and the node goes on."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
import pytest

from quorate import Producer
from quorate.errors import QuorateError, TopicExistsError
from quorate.record.batch import BatchBuilder
from quorate.v1.admin_pb2 import (
    CreateTopicsRequest,
    CreateTopicsResponse,
    DescribeTopicsRequest,
    DescribeTopicsResponse,
    MetadataRequest,
    MetadataResponse,
    NewTopic,
)
from quorate.v1.common_pb2 import ErrorCode
from quorate.v1.records_pb2 import (
    FetchFrame,
    FetchPartition,
    FetchRequest,
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ProduceFrame,
    ProduceHeader,
    ProducePartition,
    ProduceResponse,
)
from quorate_cli.local import LocalCluster
from tests.cluster.support import create, describe, still_works

TOPIC = "target"
UNKNOWN_FIELD = b"\xfa\x3e\x03abc"  # field 1007, three bytes


class Wire:
    """A channel to the broker that leads partition 0, with no client library between."""

    def __init__(self, channel: grpc.aio.Channel, topic_id: bytes) -> None:
        self.channel = channel
        self.topic_id = topic_id

    async def call(self, path: str, data: bytes) -> bytes:
        answer: bytes = await self.channel.unary_unary(path, None, None)(data, timeout=20)
        return answer

    async def refused(self, path: str, data: bytes) -> grpc.StatusCode:
        """The status of a call that gets no answer of the protocol."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.call(path, data)
        return caught.value.code()

    def _open(self, path: str) -> Any:
        start: Any = self.channel.stream_stream(path, None, None)
        return start(timeout=20)

    async def first_answer(self, path: str, *requests: bytes) -> bytes:
        """Open a stream, send, return its first answer."""
        call = self._open(path)
        for request in requests:
            await call.write(request)
        answer = await call.read()
        call.cancel()
        assert isinstance(answer, bytes)
        return answer

    async def broken(self, path: str, *requests: bytes) -> grpc.StatusCode:
        """The status with which a stream ends."""
        call = self._open(path)
        try:
            for request in requests:
                await call.write(request)
            await call.read()
        except grpc.aio.AioRpcError:
            pass
        code: grpc.StatusCode = await call.code()
        return code

    async def produce(self, payload: bytes, **fields: Any) -> ErrorCode.ValueType:
        named = {"topic_id": self.topic_id, "leader_epoch": -1, "size": len(payload), **fields}
        header = ProduceHeader(
            request_id=1, acks=-1, timeout_ms=5000, partitions=[ProducePartition(**named)]
        )
        frame = ProduceFrame(header=header, payload=payload).SerializeToString()
        answer = await self.first_answer("/quorate.v1.Records/Produce", frame)
        (result,) = ProduceResponse.FromString(answer).results
        assert result.error.message or not result.error.code
        return result.error.code

    async def fetch(self, **fields: Any) -> ErrorCode.ValueType:
        named = {
            "topic_id": self.topic_id, "leader_epoch": -1, "max_bytes": 1 << 20, **fields,
        }  # fmt: skip
        request = FetchRequest(
            request_id=1, max_wait_ms=10, max_bytes=1 << 20, partitions=[FetchPartition(**named)]
        )
        answer = await self.first_answer("/quorate.v1.Records/Fetch", request.SerializeToString())
        found = FetchFrame.FromString(answer).header.partitions
        return found[0].error.code if found else ErrorCode.ERROR_CODE_NONE


@pytest.fixture
async def wire(cluster: LocalCluster) -> AsyncIterator[Wire]:
    """A channel to the leader; afterwards a normal record goes in and comes out."""
    with contextlib.suppress(TopicExistsError):
        await create(cluster, TOPIC, 1, max_message_bytes="100000")
    topic = await describe(cluster, TOPIC)
    leader = cluster.nodes[topic.partitions[0].leader]
    async with grpc.aio.insecure_channel(
        leader.endpoint, options=[("grpc.max_send_message_length", -1)]
    ) as channel:
        yield Wire(channel, bytes.fromhex(topic.topic_id))
    await still_works(cluster, TOPIC)
    assert not cluster.died()


def batch(*values: bytes) -> bytearray:
    builder = BatchBuilder()
    for value in values or (b"value",):
        builder.append(1_700_000_000_000, None, value)
    return bytearray(builder.build())


PATHS = [
    "/quorate.v1.Node/Identify",
    "/quorate.v1.Admin/Metadata",
    "/quorate.v1.Admin/CreateTopics",
    "/quorate.v1.Records/ListOffsets",
    "/quorate.v1.Records/InitProducerId",
]
STREAMS = ["/quorate.v1.Records/Produce", "/quorate.v1.Records/Fetch"]


@pytest.mark.parametrize("path", PATHS)
async def test_garbage_as_a_message(wire: Wire, path: str) -> None:
    assert await wire.refused(path, b"\xff" * 100) is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("path", STREAMS)
async def test_garbage_on_a_stream(wire: Wire, path: str) -> None:
    assert await wire.broken(path, b"\xff" * 100) is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "path",
    [
        "/quorate_quorum.v1.Controller/Register",
        "/quorate.v1.Node/Identify",
    ],
)
async def test_garbage_for_a_voter(wire: Wire, cluster: LocalCluster, path: str) -> None:
    async with grpc.aio.insecure_channel(cluster.voters[0].endpoint) as channel:
        status = await Wire(channel, b"").refused(path, b"\xff" * 100)
    assert status is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "path",
    [
        "/quorate_quorum.v1.Raft/Fetch",
        "/quorate_quorum.v1.Metadata/Watch",
        "/quorate_quorum.v1.Controller/Heartbeat",
        "/quorate_quorum.v1.Controller/AlterPartitions",
        "/quorate_quorum.v1.Controller/Forward",
    ],
)
async def test_garbage_on_a_stream_of_a_voter(wire: Wire, cluster: LocalCluster, path: str) -> None:
    async with grpc.aio.insecure_channel(cluster.voters[0].endpoint) as channel:
        status = await Wire(channel, b"").broken(path, b"\xff" * 100)
    assert status is grpc.StatusCode.INVALID_ARGUMENT


async def test_an_unknown_field_is_passed_over(wire: Wire) -> None:
    request = MetadataRequest(topics=[TOPIC]).SerializeToString() + UNKNOWN_FIELD
    answer = MetadataResponse.FromString(await wire.call("/quorate.v1.Admin/Metadata", request))
    assert answer.topics[0].name == TOPIC


async def test_an_unknown_method(wire: Wire) -> None:
    assert await wire.refused("/quorate.v1.Admin/Frob", b"") is grpc.StatusCode.UNIMPLEMENTED


async def test_a_message_above_the_limit_of_the_wire(wire: Wire) -> None:
    code = await wire.refused("/quorate.v1.Admin/Metadata", bytes((64 << 20) + 1))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_an_unknown_topic_by_name(wire: Wire) -> None:
    request = DescribeTopicsRequest(topics=["no", "a/b", ""]).SerializeToString()
    answer = await wire.call("/quorate.v1.Admin/DescribeTopics", request)
    for one in DescribeTopicsResponse.FromString(answer).topics:
        assert one.topic.error.code == ErrorCode.ERROR_CODE_UNKNOWN_TOPIC


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"topic_id": bytes(16)}, ErrorCode.ERROR_CODE_UNKNOWN_TOPIC),
        ({"topic_id": b"short"}, ErrorCode.ERROR_CODE_INVALID_REQUEST),
        ({"topic_id": bytes(5000)}, ErrorCode.ERROR_CODE_INVALID_REQUEST),
        ({"partition": 7}, ErrorCode.ERROR_CODE_UNKNOWN_TOPIC),
        ({"partition": -1}, ErrorCode.ERROR_CODE_INVALID_REQUEST),
        ({"partition": (1 << 31) - 1}, ErrorCode.ERROR_CODE_UNKNOWN_TOPIC),
        ({"leader_epoch": (1 << 31) - 1}, ErrorCode.ERROR_CODE_UNKNOWN_LEADER_EPOCH),
    ],
    ids=str,
)
async def test_a_place_that_is_none(
    wire: Wire, fields: dict[str, Any], code: ErrorCode.ValueType
) -> None:
    allowed = {code}
    if "partition" in fields:  # either error is safe
        allowed |= {ErrorCode.ERROR_CODE_UNKNOWN_TOPIC, ErrorCode.ERROR_CODE_INVALID_PARTITIONS}
    assert await wire.produce(bytes(batch()), **fields) in allowed
    assert await wire.fetch(fetch_offset=0, **fields) in allowed


@pytest.mark.parametrize("offset", [-1, -(1 << 63), 1 << 40, (1 << 63) - 1])
async def test_an_offset_that_cannot_be_fetched(wire: Wire, offset: int) -> None:
    assert await wire.fetch(fetch_offset=offset) in (
        ErrorCode.ERROR_CODE_OFFSET_OUT_OF_RANGE,
        ErrorCode.ERROR_CODE_INVALID_REQUEST,
    )


async def test_offsets_asked_for_impossible_times(wire: Wire) -> None:
    for timestamp_ms in (-4, -(1 << 63), (1 << 63) - 1):
        one = ListOffsetsPartition(
            topic_id=wire.topic_id, timestamp_ms=timestamp_ms, leader_epoch=-1
        )
        request = ListOffsetsRequest(partitions=[one]).SerializeToString()
        answer = ListOffsetsResponse.FromString(
            await wire.call("/quorate.v1.Records/ListOffsets", request)
        )
        assert answer.partitions[0].error.code or answer.partitions[0].offset == -1


def flipped(data: bytearray, position: int) -> bytes:
    data[position] ^= 0x40
    return bytes(data)


def written(data: bytearray, position: int, value: bytes) -> bytes:
    data[position : position + len(value)] = value
    return bytes(data)


BATCHES: dict[str, Callable[[], bytes]] = {
    "a value changed on the way": lambda: flipped(batch(b"x" * 40), 90),
    "a wrong CRC": lambda: flipped(batch(), 18),
    "a magic that is none": lambda: written(batch(), 16, b"\x01"),
    "a length that is too short": lambda: written(batch(), 8, (10).to_bytes(4, "big")),
    "a length that is too long": lambda: written(batch(), 8, (1 << 20).to_bytes(4, "big")),
    "a negative length": lambda: written(batch(), 8, b"\xff\xff\xff\xff"),
    "a count that lies": lambda: written(batch(), 57, (1000).to_bytes(4, "big")),
    "a negative count": lambda: written(batch(), 57, b"\xff\xff\xff\xff"),
    "a last offset that lies": lambda: written(batch(), 23, (7).to_bytes(4, "big")),
    "half a header": lambda: bytes(batch()[:30]),
    "nothing": lambda: b"",
    "two batches for one": lambda: bytes(batch() + batch()),
    "no batch at all": lambda: b"garbage " * 20,
}


@pytest.mark.parametrize("case", BATCHES)
async def test_a_batch_that_is_not_what_it_says(wire: Wire, case: str) -> None:
    assert await wire.produce(BATCHES[case]()) in (
        ErrorCode.ERROR_CODE_CORRUPT_RECORD,
        ErrorCode.ERROR_CODE_INVALID_REQUEST,
    )


async def test_a_batch_above_max_message_bytes(wire: Wire, cluster: LocalCluster) -> None:
    code = await wire.produce(bytes(batch(bytes(100_001))))
    assert code == ErrorCode.ERROR_CODE_RECORD_TOO_LARGE
    async with Producer(bootstrap_servers=cluster.bootstrap_servers) as producer:
        with pytest.raises(QuorateError, match="100000"):
            await producer.send_and_wait(TOPIC, bytes(100_001))


async def test_sizes_that_do_not_add_up_to_the_payload(wire: Wire) -> None:
    for size in (0, 1, (1 << 32) - 1):
        header = ProduceHeader(
            request_id=1, acks=-1, timeout_ms=5000,
            partitions=[ProducePartition(topic_id=wire.topic_id, leader_epoch=-1, size=size)],
        )  # fmt: skip
        frame = ProduceFrame(header=header, payload=bytes(batch())).SerializeToString()
        try:
            answer = await wire.first_answer("/quorate.v1.Records/Produce", frame)
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT  # noqa: PT017
        else:
            (result,) = ProduceResponse.FromString(answer).results
            assert result.error.code


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "a/b"}, "'/'"),
        ({"name": "x" * 250}, "249"),
        ({"name": ""}, "name"),
        ({"name": ".."}, "'..'"),
        ({"name": "p", "num_partitions": -5}, "-5"),
        ({"name": "p", "num_partitions": (1 << 31) - 1}, "10000"),
        ({"name": "p", "replication_factor": 4}, "3 registered brokers"),
        ({"name": "p", "configs": {"retention.mss": "1"}}, "retention.ms?"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_topic_that_cannot_be(wire: Wire, fields: dict[str, Any], words: str) -> None:
    new = NewTopic(
        **{"topic_id": b"i" * 16, "num_partitions": 1, "replication_factor": 3, **fields}
    )
    request = CreateTopicsRequest(topics=[new], timeout_ms=5000).SerializeToString()
    answer = await wire.call("/quorate.v1.Admin/CreateTopics", request)
    (created,) = CreateTopicsResponse.FromString(answer).topics
    assert created.error.code
    assert words in created.error.message
