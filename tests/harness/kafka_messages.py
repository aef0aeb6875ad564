"""The client's side of Kafka's messages: encodes requests, decodes responses.

The generator makes it, like the server's side, when an API is first used; it is in no file. The
values are those of the server's modules.
"""

from __future__ import annotations

from functools import cache
from linecache import cache as sources
from types import ModuleType
from typing import Any

from proto.kafka.generate import HERE, client_module
from proto.kafka.notation import Api, read
from quorate_broker.listeners.kafka.codec import (
    API_VERSIONS,
    RequestHeader,
    is_flexible,
)
from quorate_broker.listeners.kafka.wire import Buffer, Piece


@cache
def apis() -> dict[int, Api]:
    """Return what the notation says of each API, by key."""
    return {api.key: api for api in read((HERE / "messages.txt").read_text())}


@cache
def client_messages(api_key: int) -> ModuleType:
    """Return a module with REQUEST_ENCODERS and RESPONSE_DECODERS, by version."""
    api = apis()[api_key]
    name = f"tests.harness.kafka_messages.{api.module}"
    text = client_module(api)
    # So that a traceback shows its lines.
    sources[name] = (len(text), None, text.splitlines(keepends=True), name)
    module = ModuleType(name)
    exec(compile(text, name, "exec"), module.__dict__)
    return module


def encode_header(header: RequestHeader) -> bytes:
    """Return the header of a request."""
    fixed = (header.api_key.to_bytes(2, "big"), header.version.to_bytes(2, "big"))
    client_id = b"\xff\xff"
    if header.client_id is not None:
        data = header.client_id.encode()
        client_id = len(data).to_bytes(2, "big") + data
    tags = b"\0" if is_flexible(header.api_key, header.version) else b""
    correlation_id = header.correlation_id.to_bytes(4, "big", signed=True)
    return b"".join((*fixed, correlation_id, client_id, tags))


def encode_request(header: RequestHeader, request: Any) -> list[Piece]:
    """Return a request with its header, as pieces; the length before it is the caller's."""
    body: list[Piece] = client_messages(header.api_key).REQUEST_ENCODERS[header.version](request)
    return [encode_header(header), *body]


def decode_response(api_key: int, version: int, frame: Buffer) -> tuple[int, Any]:
    """Return the correlation id of a response, and the response. Raises MalformedRequest."""
    position = 4
    if api_key != API_VERSIONS and is_flexible(api_key, version):
        assert frame[position] == 0, "the server writes no tagged fields in a header"
        position += 1
    decode = client_messages(api_key).RESPONSE_DECODERS[version]
    return int.from_bytes(frame[:4], "big", signed=True), decode(frame, position, len(frame))
