"""The Network over gRPC: the only room that imports grpc, and only at the first connect or serve.

gRPC carries bytes here; what they mean is the Method's affair, on both sides. So unreadable
bytes are an answer (INVALID_ARGUMENT, PeerError), never a crash. Every call object has an owner
that finishes or cancels it, for gRPC collects none that is forgotten.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import logging
import os
import re
import socket
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from quorate.errors import (
    DeadlineExceededError,
    InvalidRequestError,
    NetworkError,
    PeerError,
    PeerRefusedError,
    QuorateError,
    StreamBrokenError,
    WrongClusterError,
    WrongLoopError,
)
from quorate.methods import IDENTIFY
from quorate.network import (
    Answered,
    Handler,
    Head,
    Method,
    NoAnswer,
    Peer,
    ProbeResult,
    Purpose,
    Refused,
    Service,
    any_cluster,
    wrong_cluster,
)
from quorate.v1 import node_pb2

if TYPE_CHECKING:
    import grpc
    import grpc.aio

    RpcHandler = grpc.RpcMethodHandler[Any, Any]

Q = TypeVar("Q")
R = TypeVar("R")

log = logging.getLogger(__name__)

#: Trailers have a limit of their own: an error's text is cut before it.
DETAILS_CHARS_MAX = 1000
#: In the metadata of a call: the cluster that it is meant for.
CLUSTER_ID_KEY = "quorate-cluster-id"
#: How long a stop may last beyond its grace, for handlers that are slow to be cancelled.
STOP_SLACK_S = 2.0
#: For the answer to the last call of a connection, so long a dead peer delays its end.
LAST_CALL_TIMEOUT_S = 0.2
#: Between two dials of one probe.
PROBE_AGAIN_S = 0.01

#: gRPC says UNAVAILABLE for a call that never left and for one that broke half way; only its
#: text tells. A channel that never connected has sent nothing.
_NEVER_CONNECTED = re.compile(r"failed to connect to all addresses.*refused", re.I | re.S)


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcOptions:
    """The bounds of a GrpcNetwork. Times in milliseconds; defaults suit local networks."""

    message_bytes_max: int = 64 * 1024 * 1024
    reconnect_backoff_initial_ms: int = 50
    #: Also the longest that one attempt to connect may take.
    reconnect_backoff_min_ms: int = 500
    reconnect_backoff_max_ms: int = 200
    #: Calls open at once on one connection; more of them wait.
    calls_per_connection_max: int = 1000
    keepalive_time_ms: int = 10_000
    keepalive_timeout_ms: int = 5_000

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, not {getattr(self, name)}")

    def _common(self) -> list[tuple[str, int]]:
        return [
            ("grpc.max_send_message_length", self.message_bytes_max),
            ("grpc.max_receive_message_length", self.message_bytes_max),
            ("grpc.keepalive_time_ms", self.keepalive_time_ms),
            ("grpc.keepalive_timeout_ms", self.keepalive_timeout_ms),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
        ]

    def channel_arguments(self) -> list[tuple[str, int]]:
        """Return what a channel is made with."""
        return [
            *self._common(),
            ("grpc.initial_reconnect_backoff_ms", self.reconnect_backoff_initial_ms),
            ("grpc.min_reconnect_backoff_ms", self.reconnect_backoff_min_ms),
            ("grpc.max_reconnect_backoff_ms", self.reconnect_backoff_max_ms),
            ("grpc.dns_min_time_between_resolutions_ms", 1000),
            # Control and data, and the nodes of an embedded cluster, share no TCP connection.
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", 0),
            ("grpc.enable_retries", 0),
        ]

    def server_arguments(self) -> list[tuple[str, int]]:
        """Return what a server is made with."""
        return [
            *self._common(),
            # Else a second server binds the same port, without an error.
            ("grpc.so_reuseport", 0),
            ("grpc.max_concurrent_streams", self.calls_per_connection_max),
            ("grpc.http2.min_ping_interval_without_data_ms", 1000),
            ("grpc.http2.max_ping_strikes", 0),
        ]


class GrpcNetwork:
    """The Network of real processes. Belongs to one event loop."""

    def __init__(self, options: GrpcOptions | None = None) -> None:
        self._options = options or GrpcOptions()
        self._connections: dict[int, GrpcConnection] = {}
        self._connections_made = 0

    def connect(
        self,
        endpoint: str,
        *,
        purpose: Purpose = "data",
        cluster_id: Callable[[], str] = any_cluster,
    ) -> GrpcConnection:
        """Return a connection of its own: no two share a TCP connection, whatever their purpose."""
        self._connections_made += 1
        number = self._connections_made
        connection = GrpcConnection(
            endpoint, self._options, cluster_id, lambda: self._connections.pop(number, None)
        )
        self._connections[number] = connection
        return connection

    async def serve(
        self, endpoint: str, services: Sequence[Service], *, cluster_id: str = ""
    ) -> GrpcListener:
        """Listen; raise OSError naming the endpoint if the port is in use."""
        host, _port = _split(endpoint)
        _check_fork()
        server = _grpc().aio.server(options=self._options.server_arguments())
        _held.add(server)
        handlers = {
            method.path: _rpc_handler(method, handler, cluster_id)
            for service in services
            for method, handler in service.handlers().items()
        }
        server.add_generic_rpc_handlers((_table(handlers),))
        try:
            port = server.add_insecure_port(_target(endpoint))
        except RuntimeError as error:
            raise _bind_error(endpoint, str(error)) from None
        await server.start()
        return GrpcListener(f"{host}:{port}", server)

    async def probe(self, endpoint: str, *, timeout_ms: int) -> ProbeResult:
        """Connect with plain TCP, which tells refused from silent; then ask who is there.

        A process that dies closes its listening port last, or not first: whoever connects and then
        hears nothing but the end has met such a port, so it dials again while there is time.
        """
        deadline = asyncio.get_running_loop().time() + timeout_ms / 1000
        try:
            async with asyncio.timeout_at(deadline):
                while True:
                    host, port = _split(_target(endpoint))
                    _reader, writer = await asyncio.open_connection(host.strip("[]"), port)
                    writer.close()
                    try:
                        return await self._identify(endpoint, deadline)
                    except NetworkError:
                        await asyncio.sleep(PROBE_AGAIN_S)
        except ConnectionRefusedError:
            return Refused()
        except (OSError, TimeoutError, ValueError):  # ValueError: no such address can be
            return NoAnswer()

    async def _identify(self, endpoint: str, deadline: float) -> Answered:
        left_ms = int((deadline - asyncio.get_running_loop().time()) * 1000)
        connection = self.connect(endpoint, purpose="control")
        try:
            answer = await connection.unary(
                IDENTIFY, node_pb2.IdentifyRequest(), timeout_ms=max(1, left_ms)
            )
        finally:
            await connection.close()
        return Answered(answer.node_id, answer.incarnation)

    async def close(self) -> None:
        """Close every connection that this network made."""
        await asyncio.gather(*(one.close_at_the_end() for one in list(self._connections.values())))


class GrpcConnection:
    """One channel to one endpoint, made at the first call."""

    def __init__(
        self,
        endpoint: str,
        options: GrpcOptions,
        cluster_id: Callable[[], str],
        forget: Callable[[], object],
    ) -> None:
        self._cluster_id = cluster_id
        self._endpoint = endpoint
        self._options = options
        self._forget = forget
        self._channel: grpc.aio.Channel | None = None
        self._streams: dict[int, GrpcStream[Any]] = {}
        self._streams_opened = 0
        #: A call was ended by us: gRPC may yet have to tell of it.
        self._has_cancelled = False
        self._closed = False

    async def unary(self, method: Method[Q, R], request: Q, *, timeout_ms: int) -> R:
        """Send one request, return its response."""
        start = self._open_channel().unary_unary(method.path, None, None)
        call = start(
            method.encode_request(request), timeout=timeout_ms / 1000, metadata=self._metadata()
        )
        try:
            answer = await call
        except _grpc().aio.AioRpcError as error:
            raise _call_error(error, self._endpoint, method.path) from None
        except asyncio.CancelledError:
            call.cancel()
            self._has_cancelled = True
            if self._closed and not _is_being_cancelled():
                raise StreamBrokenError(_closed_text(self._endpoint, method.path)) from None
            raise
        return _decode_response(method, answer, self._endpoint)

    def stream(self, method: Method[Q, R], requests: AsyncIterator[Q]) -> GrpcStream[R]:
        """Open a stream; its owner must close it."""
        start = self._open_channel().stream_stream(method.path, None, None)
        call = start(None, metadata=self._metadata())
        self._streams_opened += 1
        number = self._streams_opened
        self._has_cancelled = True  # as nearly every stream is, sooner or later
        stream = GrpcStream(
            call, method, requests, self._endpoint, lambda: self._streams.pop(number, None)
        )
        self._streams[number] = stream
        return stream

    async def close(self) -> None:
        """Break what is open on it."""
        if self._closed:
            return
        self._closed = True
        self._forget()
        for stream in list(self._streams.values()):
            stream.abandon()
        if self._channel is not None:
            await self._channel.close(None)

    async def close_at_the_end(self) -> None:
        """Close, and leave nothing of it to the event loop that comes after this one."""
        for stream in list(self._streams.values()):
            stream.abandon()
        if self._has_cancelled and self._channel is not None and not self._closed:
            await self._hear_of_the_ends(self._channel)
        await self.close()

    async def _hear_of_the_ends(self, channel: grpc.aio.Channel) -> None:
        """Wait until gRPC has told this loop of the calls that were cancelled.

        It tells the loop that began a call, in its own time. If that loop is closed by then, as
        after asyncio.run(), the next loop of the process meets the event, fails in its place, and
        leaves what was queued behind it unread. One more call on the same connection is answered
        after the ends of all before it.
        """
        ask = channel.unary_unary(IDENTIFY.path, None, None)
        request = IDENTIFY.encode_request(node_pb2.IdentifyRequest())
        with contextlib.suppress(_grpc().aio.AioRpcError):
            await ask(request, timeout=LAST_CALL_TIMEOUT_S)

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        cluster_id = self._cluster_id()
        return ((CLUSTER_ID_KEY, cluster_id),) if cluster_id else ()

    def _open_channel(self) -> grpc.aio.Channel:
        if self._closed:
            raise StreamBrokenError(f"the connection to {self._endpoint} was closed here")
        if self._channel is None:
            _check_fork()
            try:
                target = _target(self._endpoint)
            except ValueError as error:  # whoever told of it, nobody listens there
                raise PeerRefusedError(str(error)) from None
            self._channel = _grpc().aio.insecure_channel(
                target, options=self._options.channel_arguments()
            )
            _held.add(self._channel)
        return self._channel


class GrpcStream(Generic[R]):
    """An open stream: reads for its owner, while a task of its own writes the requests."""

    def __init__(
        self,
        call: Any,
        method: Method[Q, R],
        requests: AsyncIterator[Q],
        endpoint: str,
        forget: Callable[[], object],
    ) -> None:
        self._call = call
        self._method = method
        self._endpoint = endpoint
        self._forget = forget
        self._request_error: BaseException | None = None
        self._ended = False
        self._pump = asyncio.create_task(self._send(requests), name=f"requests of {method.path}")

    def __aiter__(self) -> GrpcStream[R]:
        return self

    async def __anext__(self) -> R:
        if self._ended:
            raise StopAsyncIteration
        try:
            data = await self._call.read()
            if data is not _grpc().aio.EOF:
                return _decode_response(self._method, data, self._endpoint)
        except _grpc().aio.AioRpcError as error:
            await self.aclose()
            self._raise_request_error()
            raise _call_error(error, self._endpoint, self._method.path) from None
        except asyncio.CancelledError:
            stopped_by_owner = _is_being_cancelled()
            await self.aclose()
            if stopped_by_owner:
                raise
            self._raise_request_error()
            raise StreamBrokenError(_closed_text(self._endpoint, self._method.path)) from None
        except PeerError:
            await self.aclose()
            raise
        await self.aclose()
        self._raise_request_error()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Cancel the stream if it is still open; return when the requests are closed."""
        self._ended = True
        self._forget()
        self.abandon()
        if asyncio.current_task() is not self._pump:
            await asyncio.wait((self._pump,))

    def abandon(self) -> None:
        """Cancel the call and the sending, without waiting for either."""
        self._call.cancel()
        if asyncio.current_task() is not self._pump:
            self._pump.cancel()

    def _raise_request_error(self) -> None:
        if self._request_error is not None:
            raise self._request_error

    async def _send(self, requests: AsyncIterator[Any]) -> None:
        try:
            async for request in requests:
                await self._call.write(self._method.encode_request(request))
            await self._call.done_writing()
        except (_grpc().aio.AioRpcError, asyncio.InvalidStateError):
            pass  # the stream has ended: the reader learns how
        except Exception as error:
            self._request_error = error
            self._call.cancel()
        finally:
            await self._close_requests(requests)

    async def _close_requests(self, requests: AsyncIterator[Any]) -> None:
        close = getattr(requests, "aclose", None)
        if close is None:
            return
        try:
            await close()
        except Exception as error:
            self._request_error = self._request_error or error
            self._call.cancel()


class GrpcListener:
    """A served endpoint."""

    def __init__(self, endpoint: str, server: grpc.aio.Server) -> None:
        self._endpoint = endpoint
        self._server = server

    @property
    def endpoint(self) -> str:
        """host:port as bound."""
        return self._endpoint

    async def stop(self, grace_ms: int) -> None:
        """Take no new calls, wait up to grace_ms for open ones, then cancel them."""
        try:
            async with asyncio.timeout(grace_ms / 1000 + STOP_SLACK_S):
                await self._server.stop(grace_ms / 1000)
        except TimeoutError:
            log.warning("calls at %s did not end when they were cancelled", self._endpoint)


# -- the server's side of a call -------------------------------------------------------------


def _table(handlers: Mapping[str, RpcHandler]) -> grpc.GenericRpcHandler[Any, Any]:
    class Table(_grpc().GenericRpcHandler):  # type: ignore[misc]  # grpc is imported lazily
        def service(self, details: Any) -> RpcHandler | None:
            return handlers.get(details.method)

    return Table()


def _rpc_handler(method: Method[Any, Any], handler: Handler, cluster_id: str) -> RpcHandler:
    if not method.streams_requests and not method.streams_responses:
        unary: RpcHandler = _grpc().unary_unary_rpc_method_handler(
            _unary(method, handler, cluster_id)
        )
        return unary
    assert method.streams_responses, f"{method.path}: a stream of requests has one of responses"
    stream: RpcHandler = _grpc().stream_stream_rpc_method_handler(
        _streamed(method, handler, cluster_id)
    )
    return stream


class _UnreadableError(Exception):
    """What the caller sent does not decode."""


def _unary(
    method: Method[Any, Any], handler: Handler, cluster_id: str
) -> Callable[[bytes, Any], Awaitable[bytes]]:
    async def handle(data: bytes, context: Any) -> bytes:
        await _refuse_other_cluster(method, context, cluster_id)
        try:
            request = _decode_request(method, data)
            left_s = context.time_remaining()
            timeout_ms = 0 if left_s is None else max(1, int(left_s * 1000))
            response = await handler(request, Peer(context.peer(), timeout_ms=timeout_ms))
            return method.encode_response(response)
        except Exception as error:
            await _abort(context, method, error)

    return handle


def _streamed(
    method: Method[Any, Any], handler: Handler, cluster_id: str
) -> Callable[[Any, Any], Awaitable[None]]:
    async def handle(_requests: Any, context: Any) -> None:
        await _refuse_other_cluster(method, context, cluster_id)
        requests = _Requests(method, context)
        try:
            argument = requests if method.streams_requests else await requests.only()
            async with aclosing(handler(argument, Peer(context.peer()))) as responses:
                async for response in responses:
                    await context.write(method.encode_response(response))
        except Exception as error:
            # A handler may have wrapped the error that its requests raised.
            await _abort(context, method, requests.error or error)

    return handle


async def _refuse_other_cluster(method: Method[Any, Any], context: Any, ours: str) -> None:
    for key, value in context.invocation_metadata() or ():
        if key == CLUSTER_ID_KEY:
            refusal = wrong_cluster(Head(method.path, value), ours)
            if refusal is not None:
                await context.abort(_grpc().StatusCode.FAILED_PRECONDITION, refusal)


class _Requests:
    """The requests of one call, decoded: what a service iterates over."""

    def __init__(self, method: Method[Any, Any], context: Any) -> None:
        self._method = method
        self._context = context
        self.error: _UnreadableError | None = None

    def __aiter__(self) -> _Requests:
        return self

    async def __anext__(self) -> Any:
        data = await self._context.read()
        if data is _grpc().aio.EOF:
            raise StopAsyncIteration
        try:
            return _decode_request(self._method, data)
        except _UnreadableError as error:
            self.error = error
            raise

    async def aclose(self) -> None:
        """Nothing is held: the call belongs to the server."""

    async def only(self) -> Any:
        async for request in self:
            return request
        raise _UnreadableError("the call has no request")


async def _abort(context: Any, method: Method[Any, Any], error: Exception) -> NoReturn:
    grpc_ = _grpc()
    if isinstance(error, grpc_.aio.AbortError):
        raise error
    text = f"{type(error).__name__}: {error}"[:DETAILS_CHARS_MAX]
    if isinstance(error, _UnreadableError | InvalidRequestError):  # the caller's fault, not ours
        log.warning("an unreadable %s came from %s: %s", method.path, context.peer(), text)
        await context.abort(grpc_.StatusCode.INVALID_ARGUMENT, str(error)[:DETAILS_CHARS_MAX])
    if isinstance(error, QuorateError) and error.retriable:  # not now: the caller may ask another
        await context.abort(grpc_.StatusCode.UNAVAILABLE, str(error)[:DETAILS_CHARS_MAX])
    log.error("%s from %s failed", method.path, context.peer(), exc_info=error)
    await context.abort(grpc_.StatusCode.INTERNAL, text)
    raise AssertionError("abort returns never")


def _decode_request(method: Method[Any, Any], data: bytes) -> Any:
    try:
        return method.decode_request(data)
    except Exception as error:  # whatever a decoder makes of hostile bytes
        raise _UnreadableError(f"the request does not parse: {error}") from None


# -- the client's side -----------------------------------------------------------------------


def _decode_response(method: Method[Any, R], data: bytes, endpoint: str) -> R:
    try:
        return method.decode_response(data)
    except Exception as error:
        raise PeerError(
            "INTERNAL", f"{endpoint} answered {method.path} with bytes that do not parse: {error}"
        ) from None


def _call_error(error: grpc.aio.AioRpcError, endpoint: str, path: str) -> QuorateError:
    """Return which of the errors of the seam a status is."""
    code = _grpc().StatusCode
    status, details = error.code(), error.details() or ""
    text = f"{path} at {endpoint}: {details}"
    if status is code.UNAVAILABLE and _NEVER_CONNECTED.search(details):
        return PeerRefusedError(f"nobody listens at {endpoint} ({path})")
    if status is code.FAILED_PRECONDITION:
        return WrongClusterError(details)
    if status in (code.UNAVAILABLE, code.CANCELLED):
        return StreamBrokenError(text)
    if status is code.DEADLINE_EXCEEDED:
        return DeadlineExceededError(text)
    return PeerError(status.name, text)


def _closed_text(endpoint: str, path: str) -> str:
    return f"{path} at {endpoint}: the connection was closed on this side"


def _is_being_cancelled() -> bool:
    """Whether somebody cancelled this task; gRPC raises CancelledError for its own ends too."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


# -- addresses and the library ---------------------------------------------------------------


def _split(endpoint: str) -> tuple[str, int]:
    host, colon, port = endpoint.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"an endpoint is host:port, not {endpoint!r}")
    return host, int(port)


def _target(endpoint: str) -> str:
    """Return the address to dial or bind: "localhost" is 127.0.0.1, on both sides.

    It resolves to ::1 as well, where another process may listen.
    """
    host, port = _split(endpoint)
    return f"127.0.0.1:{port}" if host == "localhost" else endpoint


def _bind_error(endpoint: str, text: str) -> OSError:
    """Return why a port could not be had: gRPC says only that it could not, so we try."""
    host, port = _split(_target(endpoint))
    try:
        socket.create_server((host.strip("[]"), port)).close()
    except OSError as error:
        text = error.strerror or str(error)
        if error.errno == errno.EADDRINUSE:
            return OSError(errno.EADDRINUSE, f"port {port} is in use (to listen on {endpoint})")
        return OSError(error.errno, f"cannot listen on {endpoint}: {text}")
    return OSError(errno.EADDRNOTAVAIL, f"cannot listen on {endpoint}: {text}")


#: What gRPC holds for this process; in a forked child, what it held for the parent.
_held: weakref.WeakSet[Any] = weakref.WeakSet()
_kept_for_parent: list[Any] = []
_was_forked = False


def _forked() -> None:
    """In a forked child: gRPC's threads are not here, so its objects must not even be freed."""
    global _was_forked
    _kept_for_parent.extend(_held)
    _was_forked = _was_forked or _is_grpc_in_use


os.register_at_fork(after_in_child=_forked)
_is_grpc_in_use = False


def _check_fork() -> None:
    """Raise WrongLoopError in a child that was forked from a process that used gRPC.

    The threads that gRPC waits with are not in the child: its calls would hang. Its own support of
    forks does not cover asyncio.
    """
    global _is_grpc_in_use
    _is_grpc_in_use = True
    if _was_forked:
        raise WrongLoopError(
            "this process was forked from one that already used Quorate, and gRPC does not survive "
            'a fork: start the child with "spawn" or "forkserver" '
            '(multiprocessing.get_context("spawn")), or fork before the first client is started'
        )


@functools.cache
def _grpc() -> Any:
    """Import gRPC, once, silenced: our own log says better what it prints."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    import grpc
    import grpc.aio

    return grpc
