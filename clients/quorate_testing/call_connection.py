"""The caller's side of calls without gRPC: connections and their streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Generic, TypeVar

from quorate import errors
from quorate.net.methods import identify
from quorate.net.network import (
    Answered,
    Head,
    Method,
    Network,
    NoAnswer,
    ProbeResult,
    Refused,
    any_cluster,
)
from quorate_testing.call import MESSAGE_BYTES_MAX, End, too_large

Q = TypeVar("Q")
R = TypeVar("R")


class CallConnection:
    """A Connection. Its network gives it the function that opens a call."""

    def __init__(
        self,
        endpoint: str,
        open_call: Callable[[Head], End],
        forget: Callable[[CallConnection], object],
        *,
        cluster_id: Callable[[], str] = any_cluster,
        message_bytes_max: int = MESSAGE_BYTES_MAX,
    ) -> None:
        self._cluster_id = cluster_id
        self.endpoint = endpoint
        self._open_call = open_call
        self._forget = forget
        self._message_bytes_max = message_bytes_max
        self._open: dict[End, None] = {}
        self._is_closed = False

    async def unary(self, method: Method[Q, R], request: Q, *, timeout_ms: int) -> R:
        """Send one request, and return its response."""
        end = self._start(method, timeout_ms)
        late = errors.DeadlineExceededError(
            f"{method.path} at {self.endpoint}: none in {timeout_ms} ms"
        )
        timer = asyncio.get_running_loop().call_later(timeout_ms / 1000, end.fail, late)
        try:
            await end.write(self.encode(method, request))
            end.finish()
            data = await end.read()
        finally:
            timer.cancel()
            self.end_call(end)
        if data is None:
            raise errors.PeerError("INTERNAL", f"{method.path} at {self.endpoint}: no response")
        return self.decode(method, data)

    def stream(self, method: Method[Q, R], requests: AsyncIterator[Q]) -> CallStream[R]:
        """Open a stream. Its owner must close it."""
        return CallStream(self, self._start(method), method, requests)

    async def close(self) -> None:
        """Close the connection, and break its open calls."""
        self._is_closed = True
        self._forget(self)
        for end in list(self._open):
            end.fail(errors.StreamBrokenError(f"the connection to {self.endpoint} was closed here"))

    def end_call(self, end: End) -> None:
        """Forget a call, and cancel it if it is not over."""
        if end in self._open:
            del self._open[end]
            end.fail(errors.StreamBrokenError("the call was ended by its owner"))

    def encode(self, method: Method[Q, Any], request: Q) -> bytes:
        data = method.encode_request(request)
        if len(data) > self._message_bytes_max:
            raise too_large(method, len(data), self._message_bytes_max)
        return data

    def decode(self, method: Method[Any, R], data: bytes) -> R:
        try:
            return method.decode_response(data)
        except Exception as error:  # a decoder may raise anything for bad bytes
            raise errors.PeerError(
                "INTERNAL", f"{self.endpoint} answered {method.path} unreadably: {error}"
            ) from None

    def _start(self, method: Method[Any, Any], timeout_ms: int = 0) -> End:
        if self._is_closed:
            raise errors.StreamBrokenError(f"the connection to {self.endpoint} was closed here")
        end = self._open_call(Head(method.path, self._cluster_id(), timeout_ms))
        self._open[end] = None
        return end


class CallStream(Generic[R]):
    """An open stream. Its owner reads the responses, and a task of the stream sends requests."""

    def __init__(
        self,
        connection: CallConnection,
        end: End,
        method: Method[Q, R],
        requests: AsyncIterator[Q],
    ) -> None:
        self._connection = connection
        self._end = end
        self._method = method
        self._request_error: Exception | None = None
        self._is_ended = False
        self._pump = asyncio.create_task(self._send(requests), name=f"requests of {method.path}")

    def __aiter__(self) -> CallStream[R]:
        return self

    async def __anext__(self) -> R:
        if self._is_ended:
            raise StopAsyncIteration
        try:
            data = await self._end.read()
            if data is not None:
                return self._connection.decode(self._method, data)
        except BaseException:
            # as in gRPC, a cancelled read ends the stream, too
            await self.aclose()
            if self._request_error is not None:
                raise self._request_error from None
            raise
        await self.aclose()
        if self._request_error is not None:
            raise self._request_error
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Cancel the stream if it is still open, and wait until `requests` is closed."""
        self._is_ended = True
        self._connection.end_call(self._end)
        if asyncio.current_task() is not self._pump:
            self._pump.cancel()
            await asyncio.wait((self._pump,))

    async def _send(self, requests: AsyncIterator[Any]) -> None:
        try:
            async for request in requests:
                data = self._connection.encode(self._method, request)
                try:
                    await self._end.write(data)
                except errors.NetworkError:
                    # the stream has ended: the reader gets the error
                    break
            else:
                self._end.finish()
        except Exception as error:
            self._fail(error)
        finally:
            await self._close(requests)

    async def _close(self, requests: AsyncIterator[Any]) -> None:
        close = getattr(requests, "aclose", None)
        if close is None:
            return
        try:
            await close()
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._request_error = self._request_error or error
        self._end.fail(error)


async def probe(network: Network, endpoint: str, timeout_ms: int) -> ProbeResult:
    """Ask which node serves an endpoint, over a new connection."""
    try:
        answer = await identify(network, endpoint, timeout_ms=timeout_ms)
    except errors.PeerRefusedError:
        return Refused()
    except errors.NetworkError:
        return NoAnswer()
    return Answered(answer.node_id, answer.incarnation)
