"""The server's side of a gRPC call: finds the handler, and turns its errors into statuses."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NoReturn

from quorate.errors import InvalidRequestError, QuorateError
from quorate.net.grpc_library import library
from quorate.net.network import Handler, Head, Method, Peer, wrong_cluster

if TYPE_CHECKING:
    from quorate.net.grpc_library import GenericRpcHandler, RpcHandler

log = logging.getLogger(__name__)

#: Longest text of an error, because gRPC's trailers have a size limit.
DETAILS_CHARS_MAX = 1000
#: Key in the metadata of a call. Its value is the id of the cluster that the call is meant for.
CLUSTER_ID_KEY = "quorate-cluster-id"


def table(handlers: Mapping[str, RpcHandler]) -> GenericRpcHandler:
    """Return the table in which a server looks up the handler of a call's path."""

    class Table(library().GenericRpcHandler):  # type: ignore[misc]  # grpc is imported lazily
        def service(self, details: Any) -> RpcHandler | None:
            return handlers.get(details.method)

    return Table()


def rpc_handler(
    method: Method[Any, Any], handler: Handler, cluster_id: str, listener: str
) -> RpcHandler:
    """Return a gRPC handler that calls `handler`, but refuses calls for another cluster."""
    if not method.streams_requests and not method.streams_responses:
        unary: RpcHandler = library().unary_unary_rpc_method_handler(
            _unary(method, handler, cluster_id, listener)
        )
        return unary
    assert method.streams_responses, f"{method.path}: a stream of requests has one of responses"
    stream: RpcHandler = library().stream_stream_rpc_method_handler(
        _streamed(method, handler, cluster_id, listener)
    )
    return stream


class _UnreadableError(Exception):
    """The caller's bytes do not decode."""


def _unary(
    method: Method[Any, Any], handler: Handler, cluster_id: str, listener: str
) -> Callable[[bytes, Any], Awaitable[bytes]]:
    async def handle(data: bytes, context: Any) -> bytes:
        await _refuse_other_cluster(method, context, cluster_id)
        try:
            request = _decode_request(method, data)
            left_s = context.time_remaining()
            timeout_ms = 0 if left_s is None else max(1, int(left_s * 1000))
            peer = Peer(context.peer(), timeout_ms=timeout_ms, listener=listener)
            response = await handler(request, peer)
            return method.encode_response(response)
        except Exception as error:
            await _abort(context, method, error)

    return handle


def _streamed(
    method: Method[Any, Any], handler: Handler, cluster_id: str, listener: str
) -> Callable[[Any, Any], Awaitable[None]]:
    async def handle(_requests: Any, context: Any) -> None:
        await _refuse_other_cluster(method, context, cluster_id)
        requests = _Requests(method, context)
        try:
            argument = requests if method.streams_requests else await requests.only()
            peer = Peer(context.peer(), listener=listener)
            async with aclosing(handler(argument, peer)) as responses:
                async for response in responses:
                    await context.write(method.encode_response(response))
        except Exception as error:
            # The handler may have wrapped an error that its requests raised. The original says
            # more.
            await _abort(context, method, requests.error or error)

    return handle


async def _refuse_other_cluster(method: Method[Any, Any], context: Any, ours: str) -> None:
    for key, value in context.invocation_metadata() or ():
        if key == CLUSTER_ID_KEY:
            refusal = wrong_cluster(Head(method.path, value), ours)
            if refusal is not None:
                await context.abort(library().StatusCode.FAILED_PRECONDITION, refusal)


class _Requests:
    """The decoded requests of one call, for a service to iterate over."""

    def __init__(self, method: Method[Any, Any], context: Any) -> None:
        self._method = method
        self._context = context
        self.error: _UnreadableError | None = None

    def __aiter__(self) -> _Requests:
        return self

    async def __anext__(self) -> Any:
        data = await self._context.read()
        if data is library().aio.EOF:
            raise StopAsyncIteration
        try:
            return _decode_request(self._method, data)
        except _UnreadableError as error:
            self.error = error
            raise

    async def aclose(self) -> None:
        """Do nothing. The call belongs to the server."""

    async def only(self) -> Any:
        async for request in self:
            return request
        raise _UnreadableError("the call has no request")


async def _abort(context: Any, method: Method[Any, Any], error: Exception) -> NoReturn:
    grpc_ = library()
    if isinstance(error, grpc_.aio.AbortError):
        raise error
    text = f"{type(error).__name__}: {error}"[:DETAILS_CHARS_MAX]
    if isinstance(error, _UnreadableError | InvalidRequestError):  # the caller's fault
        log.warning("an unreadable %s came from %s: %s", method.path, context.peer(), text)
        await context.abort(grpc_.StatusCode.INVALID_ARGUMENT, str(error)[:DETAILS_CHARS_MAX])
    if isinstance(error, QuorateError) and error.retriable:  # the caller may retry
        await context.abort(grpc_.StatusCode.UNAVAILABLE, str(error)[:DETAILS_CHARS_MAX])
    log.error("%s from %s failed", method.path, context.peer(), exc_info=error)
    await context.abort(grpc_.StatusCode.INTERNAL, text)
    raise AssertionError("abort returns never")


def _decode_request(method: Method[Any, Any], data: bytes) -> Any:
    try:
        return method.decode_request(data)
    except Exception as error:  # a decoder may raise anything for hostile bytes
        raise _UnreadableError(f"the request does not parse: {error}") from None
