"""The table of handlers: which requests are decoded, answered, refused."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from quorate.errors import InvalidRequestError
from quorate_broker.listeners.kafka.call import Call, Client, Handler, Refusal
from quorate_broker.listeners.kafka.codec import RequestHeader
from quorate_broker.listeners.kafka.connection import Request
from quorate_broker.listeners.kafka.dispatch import Dispatcher
from quorate_broker.listeners.kafka.messages.api_versions import (
    ApiVersionsRequest,
    ApiVersionsResponse,
)
from quorate_broker.listeners.kafka.messages.metadata import MetadataRequest, MetadataResponse
from quorate_broker.listeners.kafka.messages.produce import ProduceRequest
from quorate_broker.listeners.kafka.versions import API_VERSIONS, METADATA, PRODUCE, served, told
from tests.harness.kafka_messages import decode_response, encode_header, encode_request


class Echo:
    """A family that answers with what a test gives it, and keeps the calls."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.calls: list[Call[Any]] = []

    def handlers(self) -> Mapping[int, Handler]:
        return {METADATA: self.handle, PRODUCE: self.handle}

    async def handle(self, call: Call[Any]) -> Any:
        self.calls.append(call)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def request_of(api_key: int, version: int, message: Any = None, *, body: bytes = b"") -> Request:
    header = RequestHeader(api_key, version, 77, "me")
    pieces = [encode_header(header), body] if message is None else encode_request(header, message)
    return Request(0, api_key, version, 77, b"".join(pieces))


async def handled(request: Request, family: Echo, client: Client | None = None) -> Any:
    """Return the response to a request; None: there is none."""
    client = client or Client("127.0.0.1", "kafka")
    answer = await Dispatcher([family]).handle(request, client, lambda: None)
    if isinstance(answer, asyncio.Future):
        answer = await answer
    if answer is None:
        return None
    version = request.version
    if request.api_key == API_VERSIONS and version not in served(API_VERSIONS):
        version = 0
    correlation_id, response = decode_response(request.api_key, version, b"".join(answer))
    assert correlation_id == 77
    return response


@pytest.mark.parametrize("version", served(METADATA))
async def test_a_request_reaches_its_handler_in_every_version(version: int) -> None:
    family = Echo(MetadataResponse(controller_id=3))
    response = await handled(request_of(METADATA, version, MetadataRequest()), family)
    (call,) = family.calls
    assert (call.version, call.client_id, call.client.listener) == (version, "me", "kafka")
    assert response.controller_id == (3 if version else -1)


@pytest.mark.parametrize(("api_key", "is_dropped"), [(METADATA, True), (PRODUCE, False)])
async def test_the_bytes_of_a_request_are_dropped_before_its_handler_waits(
    *, api_key: int, is_dropped: bool
) -> None:
    """Requests that wait, as JoinGroup does for minutes, would use up the memory of producers."""
    begun: list[str] = []

    class Waiting(Echo):
        async def handle(self, call: Call[Any]) -> Any:
            begun.append("handler")
            return await super().handle(call)

    message = MetadataRequest() if api_key == METADATA else ProduceRequest()
    request = request_of(api_key, 9, message)
    await Dispatcher([Waiting(None)]).handle(
        request, Client("127.0.0.1", "kafka"), lambda: begun.append("dropped")
    )
    assert begun == (["dropped", "handler"] if is_dropped else ["handler"])


async def test_a_future_response_is_encoded_when_it_is_there() -> None:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    family = Echo(future)
    asyncio.get_running_loop().call_soon(future.set_result, MetadataResponse(controller_id=3))
    response = await handled(request_of(METADATA, 9, MetadataRequest()), family)
    assert response.controller_id == 3


async def test_the_error_of_a_future_response_is_passed_on() -> None:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    future.set_exception(Refusal("acks=0"))
    with pytest.raises(Refusal, match="acks=0"):
        await handled(request_of(METADATA, 9, MetadataRequest()), Echo(future))


@pytest.mark.parametrize(
    ("api_key", "version"),
    [(METADATA, 14), (METADATA, -1), (PRODUCE, 2), (PRODUCE, 14), (1000, 0), (-1, 0), (1, 4)],
)
async def test_an_unknown_request_is_refused(api_key: int, version: int) -> None:
    family = Echo()
    request = Request(0, api_key, version, 77, b"\0" * 30)
    with pytest.raises(Refusal, match=f"key {api_key} and version {version}"):
        await handled(request, family)
    assert family.calls == []


@pytest.mark.parametrize("body", [b"", b"\0\0\0\x01", b"\xff" * 40, b"\0\0\0\0\0\0\0\0"])
async def test_a_request_that_cannot_be_read_is_refused(body: bytes) -> None:
    family = Echo()
    with pytest.raises(Refusal, match="Metadata 8"):
        await handled(request_of(METADATA, 8, body=body), family)
    assert family.calls == []


async def test_three_bytes_behind_a_request_are_left_alone() -> None:
    """Librdkafka's request for the metadata of all topics has three of them."""
    family = Echo(MetadataResponse(controller_id=3))
    response = await handled(request_of(METADATA, 13, body=bytes.fromhex("00000000010000")), family)
    (call,) = family.calls
    assert call.request.topics is None
    assert response.controller_id == 3


async def test_a_request_that_names_too_much_is_refused() -> None:
    with pytest.raises(Refusal, match="Metadata 9: too many topics"):
        await handled(
            request_of(METADATA, 9, MetadataRequest()), Echo(InvalidRequestError("too many topics"))
        )


@pytest.mark.parametrize("version", served(API_VERSIONS))
async def test_clients_are_told_the_requests_that_have_a_handler(version: int) -> None:
    request = ApiVersionsRequest("librdkafka", "2.16.1")
    response = await handled(request_of(API_VERSIONS, version, request), Echo())
    assert isinstance(response, ApiVersionsResponse)
    found = {one.api_key: (one.min_version, one.max_version) for one in response.api_keys}
    assert found == {PRODUCE: (0, 13), METADATA: (0, 13), API_VERSIONS: (0, 4)}
    assert response.error_code == 0


@pytest.mark.parametrize("version", [5, 99, -1])
async def test_an_unknown_version_of_api_versions_is_answered_in_version_0(version: int) -> None:
    """A client of a newer Kafka asks in its newest version first (franz-go sends 5)."""
    request = Request(0, API_VERSIONS, version, 77, b"\xff" * 30)
    response = await handled(request, Echo())
    assert response.error_code == 35
    assert [(one.api_key, one.max_version) for one in response.api_keys] == [(API_VERSIONS, 4)]


@pytest.mark.parametrize(
    ("name", "version", "code"),
    [
        ("apache-kafka-java", "4.3.1", 0),
        ("a", "1", 0),
        ("", "1", 42),
        ("-a", "1", 42),
        ("a b", "1", 42),
        ("a", "1\n", 42),
        ("a" * 201, "1", 42),
    ],
)
async def test_the_name_of_the_clients_software_is_checked(
    name: str, version: str, code: int
) -> None:
    client = Client("127.0.0.1", "kafka")
    message = ApiVersionsRequest(name, version)
    response = await handled(request_of(API_VERSIONS, 3, message), Echo(), client)
    assert response.error_code == code
    assert client.software == ("" if code else f"{name} {version}")


def test_old_versions_of_produce_are_told_and_not_served() -> None:
    """Librdkafka below 2.11.1 would not compress otherwise (KAFKA-18659)."""
    assert (told(PRODUCE), served(PRODUCE)) == (range(14), range(3, 14))
