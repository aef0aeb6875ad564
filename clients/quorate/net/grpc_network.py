"""The Network over gRPC.

gRPC transports only bytes here: on both sides the Method encodes and decodes them. So unreadable
bytes lead to an error (INVALID_ARGUMENT, PeerError), never to a crash. Every call object has an
owner that finishes or cancels it, because gRPC never frees a forgotten call.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import re
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from quorate import errors
from quorate.net.grpc_library import (
    GrpcOptions,
    check_bindable,
    check_fork,
    held,
    library,
    split_endpoint,
    target_of,
)
from quorate.net.grpc_service import CLUSTER_ID_KEY, rpc_handler, table
from quorate.net.kafka_probe import SPEAKS_KAFKA, speaks_kafka
from quorate.net.methods import IDENTIFY, identify
from quorate.net.network import (
    Answered,
    Method,
    NoAnswer,
    ProbeResult,
    Purpose,
    Refused,
    Service,
    any_cluster,
)
from quorate.v1 import node_pb2

if TYPE_CHECKING:
    from quorate.net.grpc_library import Channel, RpcError, Server

__all__ = ["GrpcNetwork", "GrpcOptions"]

Q = TypeVar("Q")
R = TypeVar("R")

log = logging.getLogger(__name__)

#: A stop takes at most this much longer than its grace. Cancelled handlers may end slowly.
STOP_SLACK_S = 2.0
#: Longest wait for the last call of a connection. With a dead peer, the close takes this long.
LAST_CALL_TIMEOUT_S = 0.2
#: Pause between two attempts of one probe to connect.
PROBE_AGAIN_S = 0.01

#: gRPC reports UNAVAILABLE both for a call that was never sent and for a call that broke half way.
#: Only the error's text tells the two apart: a channel that never connected has sent nothing.
_NEVER_CONNECTED = re.compile(r"failed to connect to all addresses.*refused", re.I | re.S)

#: gRPC reports a name without an address as UNAVAILABLE, too. It has sent nothing then.
_NOT_RESOLVED = re.compile(r"errors resolving|DNS resolution failed|address lookup failed", re.I)


#: gRPC reports a server that closes the connection before its first frame of HTTP/2 like this.
_SPOKE_NO_GRPC = re.compile(r"failed to connect to all addresses.*Socket closed", re.I | re.S)


class GrpcNetwork:
    """The Network of real processes. An object belongs to one event loop."""

    def __init__(self, options: GrpcOptions | None = None) -> None:
        self._options = options or GrpcOptions()
        self._connections: dict[GrpcConnection, None] = {}

    def connect(
        self,
        endpoint: str,
        *,
        purpose: Purpose = "data",
        cluster_id: Callable[[], str] = any_cluster,
    ) -> GrpcConnection:
        """Return a new connection. No two connections share a TCP connection."""
        connection = GrpcConnection(endpoint, self._options, cluster_id, self._connections)
        self._connections[connection] = None
        return connection

    async def serve(
        self,
        endpoint: str,
        services: Sequence[Service],
        *,
        cluster_id: str = "",
        listener: str = "",
    ) -> GrpcListener:
        """Listen at the endpoint. Raise OSError that names it if one of its addresses is in use."""
        host, _port = split_endpoint(endpoint)
        check_fork()
        check_bindable(endpoint)
        server = library().aio.server(options=self._options.server_arguments())
        held.add(server)
        handlers = {
            method.path: rpc_handler(method, handler, cluster_id, listener)
            for service in services
            for method, handler in service.handlers().items()
        }
        server.add_generic_rpc_handlers((table(handlers),))
        try:
            port = server.add_insecure_port(target_of(endpoint))
        except RuntimeError as error:
            # if another process has taken the address since the first check, this check raises an
            # error with the reason
            check_bindable(endpoint)
            raise OSError(errno.EADDRNOTAVAIL, f"cannot listen on {endpoint}: {error}") from None
        await server.start()
        return GrpcListener(f"{host}:{port}", server)

    async def probe(self, endpoint: str, *, timeout_ms: int) -> ProbeResult:
        """Connect with plain TCP, and then ask for the node's id.

        Plain TCP tells a refused connection from a silent peer.

        A dying process may close its listening port last. A caller that connects to such a port
        only sees the connection end, so the probe dials again until the timeout.
        """
        deadline = asyncio.get_running_loop().time() + timeout_ms / 1000
        try:
            async with asyncio.timeout_at(deadline):
                while True:
                    host, port = split_endpoint(target_of(endpoint))
                    _reader, writer = await asyncio.open_connection(host.strip("[]"), port)
                    writer.close()
                    left_s = deadline - asyncio.get_running_loop().time()
                    try:
                        found = await identify(
                            self, endpoint, timeout_ms=max(1, int(left_s * 1000))
                        )
                    except errors.NetworkError:
                        await asyncio.sleep(PROBE_AGAIN_S)
                    else:
                        return Answered(found.node_id, found.incarnation)
        except ConnectionRefusedError:
            return Refused()
        except (OSError, TimeoutError, ValueError):
            # ValueError: the address is impossible
            return NoAnswer()

    async def close(self) -> None:
        """Close every connection that this network made."""
        await asyncio.gather(*(one.close_at_the_end() for one in list(self._connections)))


class GrpcConnection:
    """One channel to one endpoint. The first call opens the channel."""

    def __init__(
        self,
        endpoint: str,
        options: GrpcOptions,
        cluster_id: Callable[[], str],
        siblings: dict[GrpcConnection, None],
    ) -> None:
        self._cluster_id = cluster_id
        self._endpoint = endpoint
        self._options = options
        self._siblings = siblings
        self._channel: Channel | None = None
        self._streams: dict[GrpcStream[Any], None] = {}
        #: Whether this side has cancelled a call. gRPC may still have to report the call's end.
        self._has_cancelled = False
        self._closed = False

    async def unary(self, method: Method[Q, R], request: Q, *, timeout_ms: int) -> R:
        """Send one request, and return its response."""
        asked_before = _cancel_requests()
        start = self._open_channel().unary_unary(method.path, None, None)
        call = start(
            method.encode_request(request), timeout=timeout_ms / 1000, metadata=self._metadata()
        )
        try:
            answer = await call
            _heed_cancellation(asked_before)
        except library().aio.AioRpcError as error:
            _heed_cancellation(asked_before)
            if _spoke_no_grpc(error) and await speaks_kafka(self._endpoint):
                said = f"{self._endpoint} speaks the Kafka protocol, not gRPC ({method.path})"
                raise errors.PeerError(SPEAKS_KAFKA, said) from None
            raise _call_error(error, self._endpoint, method.path) from None
        except asyncio.CancelledError:
            call.cancel()
            self._has_cancelled = True
            if self._closed and _cancel_requests() == asked_before:
                raise errors.StreamBrokenError(_closed_text(self._endpoint, method.path)) from None
            raise
        return _decode_response(method, answer, self._endpoint)

    def stream(self, method: Method[Q, R], requests: AsyncIterator[Q]) -> GrpcStream[R]:
        """Open a stream. Its owner must close it."""
        start = self._open_channel().stream_stream(method.path, None, None)
        call = start(None, metadata=self._metadata())
        # nearly every stream is cancelled by this side in the end
        self._has_cancelled = True
        stream = GrpcStream(call, method, requests, self._endpoint, self._streams)
        self._streams[stream] = None
        return stream

    async def close(self) -> None:
        """Close the channel. Open calls on it break."""
        if self._closed:
            return
        self._closed = True
        self._siblings.pop(self, None)
        for stream in list(self._streams):
            stream.abandon()
        if self._channel is not None:
            await self._channel.close(None)

    async def close_at_the_end(self) -> None:
        """Close the connection, and leave none of its events for a later event loop."""
        for stream in list(self._streams):
            stream.abandon()
        if self._has_cancelled and self._channel is not None and not self._closed:
            await self._hear_of_the_ends(self._channel)
        await self.close()

    async def _hear_of_the_ends(self, channel: Channel) -> None:
        """Wait until gRPC has reported the ends of cancelled calls to this loop.

        gRPC reports a call's end, some time later, to the loop that began the call. If that loop is
        closed by then, as after asyncio.run(), the next loop of the process gets the event, fails,
        and leaves the events queued behind it unread. So this method makes one more call on the
        connection: gRPC answers this call after it has reported the ends of all earlier calls.
        """
        ask = channel.unary_unary(IDENTIFY.path, None, None)
        request = IDENTIFY.encode_request(node_pb2.IdentifyRequest())
        with contextlib.suppress(library().aio.AioRpcError):
            await ask(request, timeout=LAST_CALL_TIMEOUT_S)

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        cluster_id = self._cluster_id()
        return ((CLUSTER_ID_KEY, cluster_id),) if cluster_id else ()

    def _open_channel(self) -> Channel:
        if self._closed:
            raise errors.StreamBrokenError(f"the connection to {self._endpoint} was closed here")
        if self._channel is None:
            check_fork()
            try:
                target = target_of(self._endpoint)
            except ValueError as error:  # no process can listen at an impossible address
                raise errors.PeerRefusedError(str(error)) from None
            self._channel = library().aio.insecure_channel(
                target, options=self._options.channel_arguments()
            )
            held.add(self._channel)
        return self._channel


class GrpcStream(Generic[R]):
    """An open stream. Its owner reads the responses, and a background task writes the requests."""

    def __init__(
        self,
        call: Any,
        method: Method[Q, R],
        requests: AsyncIterator[Q],
        endpoint: str,
        siblings: dict[GrpcStream[Any], None],
    ) -> None:
        self._call = call
        self._method = method
        self._endpoint = endpoint
        self._siblings = siblings
        self._request_error: BaseException | None = None
        self._ended = False
        self._pump = asyncio.create_task(self._send(requests), name=f"requests of {method.path}")

    def __aiter__(self) -> GrpcStream[R]:
        return self

    async def __anext__(self) -> R:
        if self._ended:
            raise StopAsyncIteration
        asked_before = _cancel_requests()
        try:
            data = await self._call.read()
            _heed_cancellation(asked_before)
            if data is not library().aio.EOF:
                return _decode_response(self._method, data, self._endpoint)
        except library().aio.AioRpcError as error:
            await self.aclose()
            _heed_cancellation(asked_before)
            self._raise_request_error()
            raise _call_error(error, self._endpoint, self._method.path) from None
        except asyncio.CancelledError:
            stopped_by_owner = _cancel_requests() > asked_before
            await self.aclose()
            if stopped_by_owner:
                raise
            self._raise_request_error()
            raise errors.StreamBrokenError(
                _closed_text(self._endpoint, self._method.path)
            ) from None
        except errors.PeerError:
            await self.aclose()
            raise
        await self.aclose()
        self._raise_request_error()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Cancel the stream if it is still open, and wait until the requests are closed."""
        self._ended = True
        self._siblings.pop(self, None)
        self.abandon()
        if asyncio.current_task() is not self._pump:
            await asyncio.wait((self._pump,))

    def abandon(self) -> None:
        """Cancel the call and the task that writes the requests. Do not wait for their ends."""
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
        except (library().aio.AioRpcError, asyncio.InvalidStateError):
            pass  # the stream has ended: the reader gets the reason
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
    """One endpoint that is served."""

    def __init__(self, endpoint: str, server: Server) -> None:
        self._endpoint = endpoint
        self._server = server

    @property
    def endpoint(self) -> str:
        """The bound address, as host:port."""
        return self._endpoint

    async def stop(self, grace_ms: int) -> None:
        """Take no new calls, wait up to grace_ms for open ones, then cancel them."""
        try:
            async with asyncio.timeout(grace_ms / 1000 + STOP_SLACK_S):
                await self._server.stop(grace_ms / 1000)
        except TimeoutError:
            log.warning("calls at %s did not end when they were cancelled", self._endpoint)


def _decode_response(method: Method[Any, R], data: bytes, endpoint: str) -> R:
    try:
        return method.decode_response(data)
    except Exception as error:
        raise errors.PeerError(
            "INTERNAL", f"{endpoint} answered {method.path} with bytes that do not parse: {error}"
        ) from None


def _spoke_no_grpc(error: RpcError) -> bool:
    is_unavailable = error.code() is library().StatusCode.UNAVAILABLE
    return is_unavailable and _SPOKE_NO_GRPC.search(error.details() or "") is not None


def _call_error(error: RpcError, endpoint: str, path: str) -> errors.QuorateError:
    """Return the error of Quorate that stands for gRPC's status."""
    code = library().StatusCode
    status, details = error.code(), error.details() or ""
    text = f"{path} at {endpoint}: {details}"
    if status is code.UNAVAILABLE and _NEVER_CONNECTED.search(details):
        return errors.PeerRefusedError(f"no server listens at {endpoint} ({path})")
    if status is code.UNAVAILABLE and _NOT_RESOLVED.search(details):
        return errors.UnresolvedHostError(f"the host of {endpoint} has no address here ({details})")
    if _spoke_no_grpc(error):
        return errors.StreamBrokenError(
            f"what listens at {endpoint} closed the connection before it spoke gRPC, as a listener "
            f"for Kafka clients does ({path})"
        )
    if status is code.FAILED_PRECONDITION:
        return errors.WrongClusterError(details)
    if status in (code.UNAVAILABLE, code.CANCELLED):
        return errors.StreamBrokenError(text)
    if status is code.DEADLINE_EXCEEDED:
        return errors.DeadlineExceededError(text)
    return errors.PeerError(status.name, text)


def _closed_text(endpoint: str, path: str) -> str:
    return f"{path} at {endpoint}: the connection was closed on this side"


def _cancel_requests() -> int:
    """Return how many cancellations this task was asked for.

    A CancelledError alone proves no cancellation: gRPC also raises it for calls that have ended.
    """
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def _heed_cancellation(asked_before: int) -> None:
    """Raise CancelledError if this task was cancelled during a wait for gRPC.

    A call waits for an inner task of gRPC. The inner task takes a cancellation of our task for a
    cancellation of the call. If the connection is refused or an answer comes at the same moment,
    gRPC reports only the refusal or the answer. Without this check our task would continue, and the
    code that cancelled it would wait for ever.
    """
    if _cancel_requests() > asked_before:
        raise asyncio.CancelledError
