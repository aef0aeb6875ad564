"""Services for tests of the three networks: an echo, and its ways to fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from quorate.errors import InvalidRequestError
from quorate.net.methods import IDENTIFY
from quorate.net.network import Handler, Method, Peer
from quorate.v1 import node_pb2

SIZE_MAX = 8 * 1024 * 1024


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"no text: {error}") from None


def text_method(path: str, *, requests: bool = False, responses: bool = False) -> Method[str, str]:
    return Method(path, str.encode, _text, str.encode, _text, requests, responses)


def raw(method: Method[str, str]) -> Method[bytes, bytes]:
    """Return the method for a caller that sends and gets raw bytes instead of text."""
    return Method(
        method.path, bytes, bytes, bytes, bytes, method.streams_requests, method.streams_responses
    )


ECHO = text_method("/test.Echo/Echo")
FAIL = text_method("/test.Echo/Fail")
SLOW = text_method("/test.Echo/Slow")
UNKNOWN = text_method("/test.Echo/Unknown")
STREAM = text_method("/test.Echo/Stream", requests=True, responses=True)
COUNT = text_method("/test.Echo/Count", responses=True)
FAIL_LATE = text_method("/test.Echo/FailLate", requests=True, responses=True)
GREEDY = text_method("/test.Echo/Greedy", requests=True, responses=True)


class EchoService:
    def __init__(self) -> None:
        self.closed: list[str] = []
        self.closing = asyncio.Event()
        self.both_closed = asyncio.Event()
        self.peers: list[Peer] = []
        self.stream_peers: list[Peer] = []
        self.refusal: Exception | None = None
        #: Slow calls that arrived. On a busy machine a deadline may pass before the arrival.
        self.slow_calls = 0

    def handlers(self) -> Mapping[Method[Any, Any], Handler]:
        return {
            ECHO: self.echo,
            FAIL: self.fail,
            SLOW: self.slow,
            STREAM: self.stream,
            COUNT: self.count,
            FAIL_LATE: self.fail_late,
            GREEDY: self.greedy,
            IDENTIFY: self.identify,
        }

    async def identify(self, _request: Any, _peer: Peer) -> node_pb2.IdentifyResponse:
        return node_pb2.IdentifyResponse(node_id=7, incarnation=b"one run")

    async def echo(self, request: str, peer: Peer) -> str:
        self.peers.append(peer)
        if self.refusal is not None:
            raise self.refusal
        return request

    async def fail(self, request: str, _peer: Peer) -> str:
        raise RuntimeError(f"cannot do {request}")

    async def slow(self, request: str, _peer: Peer) -> str:
        self.slow_calls += 1
        try:
            await asyncio.sleep(3600)
        finally:
            self._closed("slow")
        return request

    async def stream(self, requests: AsyncIterator[str], peer: Peer) -> AsyncIterator[str]:
        self.stream_peers.append(peer)
        try:
            async for request in requests:
                yield request
        finally:
            self._closed("stream")

    async def count(self, request: str, _peer: Peer) -> AsyncIterator[str]:
        for number in range(int(request)):
            yield str(number)

    async def fail_late(self, requests: AsyncIterator[str], _peer: Peer) -> AsyncIterator[str]:
        async for request in requests:
            yield request
            raise RuntimeError("late")

    async def greedy(self, requests: AsyncIterator[str], _peer: Peer) -> AsyncIterator[str]:
        """Read no request, so that the writer must wait."""
        yield "open"
        try:
            await asyncio.sleep(3600)
        finally:
            self._closed("greedy")

    def _closed(self, name: str) -> None:
        self.closed.append(name)
        self.closing.set()
        if len(self.closed) == 2:
            self.both_closed.set()
