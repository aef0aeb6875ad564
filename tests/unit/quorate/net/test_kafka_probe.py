"""Whether an address speaks the Kafka protocol: only an answer to Kafka's first request counts."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from quorate import Admin, Producer
from quorate.errors import InvalidRequestError, PeerError
from quorate.net.grpc_network import GrpcNetwork
from quorate.net.kafka_probe import CORRELATION_ID, REQUEST, SPEAKS_KAFKA, speaks_kafka
from quorate_testing import EmbeddedCluster
from tests.unit.quorate.net.services import ECHO

Answer = Callable[[bytes], bytes]


def kafka(request: bytes) -> bytes:
    """Answer as Kafka's listeners do: they close at what is no request of theirs."""
    if request[:6] != REQUEST[:6]:
        return b""
    return struct.pack(">i", 10) + request[8:12] + struct.pack(">hi", 0, 0)


@asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[str]:
    """Serve one answer a connection; yield the address."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(await reader.read(len(REQUEST))))
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"localhost:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()
        await listener.wait_closed()


@pytest.mark.parametrize(
    ("answer", "is_kafka"),
    [
        (kafka, True),
        (lambda _: b"", False),
        (lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n", False),
        (lambda request: request, False),  # an echo has the correlation id at another place
        (lambda _: struct.pack(">iih", 1 << 30, CORRELATION_ID, 0), False),
        (lambda _: struct.pack(">iih", 10, CORRELATION_ID + 1, 0), False),
        (lambda _: struct.pack(">ii", 4, CORRELATION_ID), False),
    ],
)
async def test_only_an_answer_of_kafka_counts(answer: Answer, is_kafka: bool) -> None:
    async with server(answer) as endpoint:
        assert await speaks_kafka(endpoint) == is_kafka


@pytest.mark.parametrize("endpoint", ["127.0.0.1:1", "no..name:9092", "nothing"])
async def test_no_answer_is_none_of_kafka(endpoint: str) -> None:
    assert not await speaks_kafka(endpoint)


async def test_a_call_to_a_listener_of_kafka_says_so() -> None:
    network = GrpcNetwork()
    async with server(kafka) as endpoint:
        with pytest.raises(PeerError, match="speaks the Kafka protocol, not gRPC") as raised:
            await network.connect(endpoint).unary(ECHO, "a", timeout_ms=20_000)
        assert raised.value.status == SPEAKS_KAFKA
        await network.close()


async def test_a_client_with_kafka_s_address_fails_at_once(
    quorate_cluster: EmbeddedCluster,
) -> None:
    """The time-out is an hour: the test would not end if the client waited for it."""
    servers = quorate_cluster.kafka_bootstrap_servers
    for client in (
        Admin(bootstrap_servers=servers, request_timeout_ms=3_600_000),
        Producer(bootstrap_servers=servers, request_timeout_ms=3_600_000),
    ):
        with pytest.raises(InvalidRequestError) as raised:
            await client.start()
        assert str(raised.value) == (
            f"{servers} speaks the Kafka protocol, and Quorate's clients use another: give the "
            "address of a broker, one of those that `quorate cluster info` lists"
        )
        await client.stop()


async def test_a_right_address_beside_kafka_s_is_found(quorate_cluster: EmbeddedCluster) -> None:
    kafka, own = quorate_cluster.kafka_bootstrap_servers, quorate_cluster.bootstrap_servers
    async with Admin(bootstrap_servers=f"{kafka},{own}") as admin:
        assert await admin.list_topics() == []
