"""Finds the handler of a request, decodes the request and encodes its answer.

ApiVersions is answered here, because it is about this table.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from quorate.errors import QuorateError
from quorate_broker.listeners.kafka import versions
from quorate_broker.listeners.kafka.call import Call, Client, Family, Handler, Refusal
from quorate_broker.listeners.kafka.codec import decode_header, decode_request, encode_response
from quorate_broker.listeners.kafka.connection import Request
from quorate_broker.listeners.kafka.errors import INVALID_REQUEST, NONE, UNSUPPORTED_VERSION
from quorate_broker.listeners.kafka.messages.api_versions import (
    ApiVersion,
    ApiVersionsRequest,
    ApiVersionsResponse,
    FinalizedFeatureKey,
    SupportedFeatureKey,
)
from quorate_broker.listeners.kafka.messages.apis import APIS
from quorate_broker.listeners.kafka.versions import API_VERSIONS, PRODUCE
from quorate_broker.listeners.kafka.wire import MalformedRequest, Piece

#: The first version of ApiVersions in which a client names its program.
NAMED_FROM: Final = 3
SOFTWARE: Final = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?")
SOFTWARE_CHARS_MAX: Final = 200
#: The level of Kafka's features that this broker has: groups of the consumer protocol (KIP-848).
#: A feature that is told makes clients behave by it.
FEATURES: Final = {"group.version": 1}

#: The bytes of an answer; None: the client expects none.
Answer = list[Piece] | None


class Dispatcher:
    """The table of all handlers."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._handlers: dict[int, Handler] = {API_VERSIONS: self._api_versions}
        for family in families:
            for api_key, handler in family.handlers().items():
                assert api_key not in self._handlers, f"{APIS[api_key].name} has two handlers"
                self._handlers[api_key] = handler

    @property
    def told(self) -> dict[int, range]:
        """The versions that clients are told, by API key."""
        return {api_key: versions.told(api_key) for api_key in sorted(self._handlers)}

    async def handle(
        self, request: Request, client: Client, decoded: Callable[[], None]
    ) -> Answer | asyncio.Future[Answer]:
        """Return the answer to a request, or its future. Raises Refusal.

        `decoded` is called when the bytes of the request are not needed any more, which is before
        its handler begins. Those of Produce are needed until the handler ends: it looks at the
        records in them. A JoinGroup may wait for minutes, and must not hold its bytes so long.
        """
        api_key, version = request.api_key, request.version
        handler = self._handlers.get(api_key)
        if handler is None or version not in versions.served(api_key):
            return self._unknown(request)
        try:
            header, position = decode_header(request.frame)
            message = decode_request(api_key, version, request.frame, position)
        except MalformedRequest as error:
            raise Refusal(f"{APIS[api_key].name} {version}: {error}") from error
        if api_key != PRODUCE:
            decoded()
        call = Call(message, version, client, header.client_id or "")
        try:
            response = await handler(call)
        except QuorateError as error:
            raise Refusal(f"{APIS[api_key].name} {version}: {error}") from error
        if isinstance(response, asyncio.Future):
            return _encoded_later(request, response)
        return _encoded(request, response)

    def _unknown(self, request: Request) -> Answer:
        """Answer a request of another version, or refuse it.

        A client may ask for the versions in one that this broker does not know. Every client reads
        version 0 of that answer.
        """
        if request.api_key != API_VERSIONS:
            raise Refusal(f"no request of key {request.api_key} and version {request.version}")
        known = [_told(API_VERSIONS, versions.told(API_VERSIONS))]
        response = ApiVersionsResponse(error_code=UNSUPPORTED_VERSION, api_keys=known)
        return encode_response(API_VERSIONS, 0, request.correlation_id, response)

    async def _api_versions(self, call: Call[ApiVersionsRequest]) -> ApiVersionsResponse:
        request = call.request
        if call.version >= NAMED_FROM:
            names = (request.client_software_name, request.client_software_version)
            if not all(
                len(name) <= SOFTWARE_CHARS_MAX and SOFTWARE.fullmatch(name) for name in names
            ):
                return ApiVersionsResponse(error_code=INVALID_REQUEST)
            call.client.software = " ".join(names)
        return ApiVersionsResponse(
            error_code=NONE,
            api_keys=[_told(*one) for one in self.told.items()],
            supported_features=[SupportedFeatureKey(one, 1, FEATURES[one]) for one in FEATURES],
            finalized_features_epoch=0,
            finalized_features=[FinalizedFeatureKey(*one, 1) for one in FEATURES.items()],
        )


def _told(api_key: int, told: range) -> ApiVersion:
    return ApiVersion(api_key, told.start, told.stop - 1)


def _encoded(request: Request, response: Any) -> Answer:
    if response is None:
        return None
    return encode_response(request.api_key, request.version, request.correlation_id, response)


def _encoded_later(request: Request, response: asyncio.Future[Any]) -> asyncio.Future[Answer]:
    """Return the future of the bytes of a response."""
    answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def encode(done: asyncio.Future[Any]) -> None:
        if done.cancelled():
            answer.cancel()
            return
        error = done.exception()
        try:
            if error is not None:
                raise error
            answer.set_result(_encoded(request, done.result()))
        except BaseException as problem:
            answer.set_exception(problem)

    response.add_done_callback(encode)
    return answer
