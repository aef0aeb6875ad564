"""Kafka's messages by API key: headers, the request in a frame, the bytes of a response.

header, position = decode_header(frame)
request = decode_request(header.api_key, header.version, frame, position)
pieces = encode_response(header.api_key, header.version, header.correlation_id, response)

The pieces have no length before them: framing writes it.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from struct import Struct
from types import ModuleType
from typing import Any, Final, NamedTuple

from quorate_broker.listeners.kafka import messages
from quorate_broker.listeners.kafka.messages.apis import APIS
from quorate_broker.listeners.kafka.wire import (
    UNREADABLE,
    Buffer,
    LeftOver,
    MalformedRequest,
    Piece,
    skip_tags,
    unreadable,
)

API_VERSIONS: Final = 18
_HEADER: Final = Struct(
    ">"
    "h"  # API key
    "h"  # version
    "i"  # correlation id
    "h"  # length of the client id; -1: null. It is of the older encoding in every version
)
_CORRELATION_ID: Final = Struct(">i")
_FLEXIBLE: Final = Struct(
    ">"
    "i"  # correlation id
    "x"  # no tagged fields
)
#: Kafka takes bytes behind a request. librdkafka 2.16 leaves so many behind its Metadata request
#: for all topics: it reserves four bytes for the count, and writes a compact count of one byte.
COUNT_LEFT_OVER: Final = 3


class RequestHeader(NamedTuple):
    """What stands before a request."""

    api_key: int
    version: int
    correlation_id: int
    client_id: str | None


class EncodedBody(NamedTuple):
    """A response that its handler has encoded, without its header: see in_parts."""

    pieces: list[Piece]


def is_flexible(api_key: int, version: int) -> bool:
    """Return whether this version of an API has the compact encoding, also in its headers."""
    return version >= APIS[api_key].flexible


def decode_header(frame: Buffer) -> tuple[RequestHeader, int]:
    """Return the header of a request, and the position of its body.

    The tagged fields of the header are skipped only if the API is known here: the body of another
    one cannot be read. Raises MalformedRequest.
    """
    try:
        api_key, version, correlation_id, size = _HEADER.unpack_from(frame)
        position = _HEADER.size
        client_id = None
        if size >= 0:
            client_id = frame[position : position + size].decode()
            position += size
        if api_key in APIS and is_flexible(api_key, version):
            position = skip_tags(frame, position)
    except UNREADABLE as error:
        raise unreadable("the header of a request", error) from error
    if position > len(frame):
        raise MalformedRequest(f"a header of {position} bytes in a frame of {len(frame)}")
    return RequestHeader(api_key, version, correlation_id, client_id), position


def decode_request(api_key: int, version: int, frame: Buffer, position: int) -> Any:
    """Return the request that fills the frame from this position on. Raises MalformedRequest.

    Up to COUNT_LEFT_OVER bytes behind a request are left alone.
    """
    decode = messages_of(api_key).REQUEST_DECODERS.get(version)
    if decode is None:
        raise MalformedRequest(f"{APIS[api_key].name} has no version {version}")
    try:
        return decode(frame, position, len(frame))
    except LeftOver as error:
        too_many = len(frame) - error.position > COUNT_LEFT_OVER
        if too_many or not is_flexible(api_key, version):
            raise
        return decode(frame, position, error.position)


def encode_response(api_key: int, version: int, correlation_id: int, response: Any) -> list[Piece]:
    """Return a response with its header, as pieces. Records are pieces of their own."""
    pieces: list[Piece]
    if isinstance(response, EncodedBody):
        pieces = list(response.pieces)
    else:
        pieces = messages_of(api_key).RESPONSE_ENCODERS[version](response)
    # A client that asks for the versions does not know yet whether the broker has flexible ones.
    has_tags = api_key != API_VERSIONS and is_flexible(api_key, version)
    pieces.insert(0, (_FLEXIBLE if has_tags else _CORRELATION_ID).pack(correlation_id))
    return pieces


@cache
def messages_of(api_key: int) -> ModuleType:
    """Return the module of an API's messages. Raises MalformedRequest for an API that has none."""
    api = APIS.get(api_key)
    if api is None:
        raise MalformedRequest(f"no API has the key {api_key}")
    return import_module(f"{messages.__name__}.{api.module}")
