"""What no Kafka client sends, over real sockets: the connection is closed, the broker goes on."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from quorate_broker.listeners.kafka.codec import RequestHeader
from quorate_broker.listeners.kafka.listener import KafkaListeners
from quorate_broker.listeners.kafka.messages.api_versions import ApiVersionsRequest
from quorate_broker.listeners.kafka.messages.metadata import MetadataRequest, MetadataRequestTopic
from quorate_broker.listeners.kafka.messages.produce import (
    PartitionProduceData,
    ProduceRequest,
    TopicProduceData,
)
from quorate_broker.listeners.kafka.versions import API_VERSIONS, METADATA, PRODUCE
from quorate_quorum.node.listeners import parse
from quorate_quorum.node.sockets import RealSockets
from tests.harness.kafka_messages import decode_response, encode_request
from tests.unit.quorate_broker.listeners.kafka.families import NAME, World
from tests.unit.quorate_broker.operations.builders import FakePartition, config, operations

WAIT_S = 20.0
TURNS_MAX = 100_000


class Listening:
    """A Kafka listener on a free port, and its connections."""

    def __init__(self, **bounds: int) -> None:
        self.world = World(bounds, p0=FakePartition())
        self.config = config(**bounds)
        self.endpoint = ""

    async def open(self) -> None:
        ready = asyncio.Event()
        ready.set()
        client: Any = SimpleNamespace(
            image=self.world.fake.image, leader_id=100, quorum_generation=1
        )
        made = operations(self.world.fake, self.config, client=client, ready=ready)
        self.listeners = KafkaListeners(made, self.world.replicas, self.config, "cluster")
        self.listener = await self.listeners.open(
            RealSockets(), parse("kafka://127.0.0.1:0", port_min=0)
        )
        self.endpoint = self.listener.endpoint

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, _, port = self.endpoint.rpartition(":")
        return await asyncio.open_connection(host, int(port))

    async def sent(self, data: bytes) -> bytes:
        """Send bytes on a new connection. Return what came until the broker closed it."""
        reader, writer = await self.connect()
        writer.write(data)
        try:
            async with asyncio.timeout(WAIT_S):
                return await reader.read()
        except ConnectionResetError:
            return b""
        finally:
            writer.close()

    async def check(self) -> None:
        """Check that the listener answers a good request."""
        reader, writer = await self.connect()
        writer.write(framed(API_VERSIONS, 3, ApiVersionsRequest("test", "1")))
        async with asyncio.timeout(WAIT_S):
            size = int.from_bytes(await reader.readexactly(4), "big")
            answer = await reader.readexactly(size)
        assert decode_response(API_VERSIONS, 3, answer)[1].error_code == 0
        writer.close()


def framed(api_key: int, version: int, message: Any) -> bytes:
    data = b"".join(encode_request(RequestHeader(api_key, version, 1, "test"), message))
    return struct.pack(">i", len(data)) + data


@pytest.fixture
async def listening() -> AsyncIterator[Listening]:
    made = Listening(request_partitions_max=100)
    await made.open()
    yield made
    await made.listener.stop(0)


def many_partitions() -> bytes:
    data = [PartitionProduceData(index, b"") for index in range(10_000)]
    return framed(PRODUCE, 9, ProduceRequest(None, -1, 1000, [TopicProduceData(NAME, b"", data)]))


def many_topics() -> bytes:
    topics = [MetadataRequestTopic(name=f"t{index}") for index in range(10_001)]
    return framed(METADATA, 9, MetadataRequest(topics))


BAD = {
    "a length of 2 GiB": struct.pack(">i", 2**31 - 1),
    "a length below 0": struct.pack(">i", -5),
    "a length without a request": struct.pack(">i", 3) + b"abc",
    "an HTTP request": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a client of gRPC": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a TLS hello": bytes.fromhex("160301020001fc0303") + bytes(100),
    "an unknown key": struct.pack(">ihhih", 10, 9999, 0, 1, -1),
    "an unknown version": struct.pack(">ihhih", 10, METADATA, 99, 1, -1),
    "a cut request": struct.pack(">ihhih", 10, METADATA, 1, 1, -1),
    "a client id beyond the request": struct.pack(">ihhih", 10, METADATA, 1, 1, 3000),
    "10,000 partitions": many_partitions(),
    "10,001 topics": many_topics(),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
async def test_it_closes_the_connection_and_says_why(listening: Listening, data: bytes) -> None:
    with structlog.testing.capture_logs() as lines:
        assert await listening.sent(data) == b""
        await listening.check()
    reasons = [one["reason"] for one in lines if one["event"] == "kafka connection ended"]
    assert reasons
    assert reasons[0]
    assert not [one for one in lines if one["log_level"] == "error"]


async def test_connections_are_bounded_in_all_and_for_each_address() -> None:
    for bound in ("max_connections_total", "max_connections_per_ip"):
        listening = Listening(**{bound: 2})
        await listening.open()
        open_ones = [await listening.connect() for _ in range(2)]
        assert await listening.sent(b"") == b""  # closed at once
        open_ones[0][1].close()
        await open_ones[0][1].wait_closed()
        for _ in range(TURNS_MAX):
            if len(listening.listeners.connections) < 2:
                break
            await asyncio.sleep(0)
        await listening.check()
        open_ones[1][1].close()
        await listening.listener.stop(0)


async def test_a_stop_ends_idle_connections_at_once(listening: Listening) -> None:
    reader, writer = await listening.connect()
    await listening.check()
    stopping = asyncio.ensure_future(listening.listener.stop(10_000))
    async with asyncio.timeout(WAIT_S):
        assert await reader.read() == b""
    writer.close()
    await stopping
    with pytest.raises(OSError, match="Connect call failed"):
        await listening.connect()
