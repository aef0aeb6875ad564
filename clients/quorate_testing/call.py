"""A call between two ends, without gRPC: what the in-process and the simulated network share.

A call has two ``End``s. What one end says reaches the other through a wire, which keeps the order
and decides when: at once, after a simulated delay, or never. Only encoded bytes travel. A writer
waits while ``WINDOW_BYTES`` are on their way and unread, as with HTTP/2.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Generic, Protocol, TypeVar

import structlog

from quorate.errors import (
    DeadlineExceededError,
    InvalidRequestError,
    NetworkError,
    PeerError,
    PeerRefusedError,
    QuorateError,
    StreamBrokenError,
    WrongClusterError,
)
from quorate.net.methods import IDENTIFY
from quorate.net.network import (
    Answered,
    Connection,
    Handler,
    Head,
    Method,
    NoAnswer,
    Peer,
    ProbeResult,
    Refused,
    Service,
    any_cluster,
    wrong_cluster,
)
from quorate.v1 import node_pb2

Q = TypeVar("Q")
R = TypeVar("R")

log = structlog.get_logger(__name__)

WINDOW_BYTES = 1024 * 1024
MESSAGE_BYTES_MAX = 64 * 1024 * 1024
DETAILS_CHARS_MAX = 1000


class Post(Protocol):
    """A wire in one direction: carries a call to the other side, after all earlier ones."""

    def __call__(self, size: int, deliver: Callable[..., None], *arguments: Any) -> None: ...


class End:
    """One side of a call: what came in and is unread, and how much may still go out.

    One task reads and one task writes. ``finished`` is how the other side ended; what came before
    that is read first. ``failure`` is how the call broke here.
    """

    def __init__(self, post: Post) -> None:
        self.post = post
        self.peer: End
        #: Called once if the call ends before this side finished it.
        self.when_broken: Callable[[], object] | None = None
        self._inbox: deque[bytes] = deque()
        self._in_flight_bytes = 0
        self._is_finished_here = False
        self._is_finished_there = False
        self._failure: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more can come or go."""
        return self._failure is not None or (self._is_finished_here and self._is_finished_there)

    # -- what this side does --

    async def write(self, data: bytes) -> None:
        """Send a message; wait while too much is on its way."""
        while self._in_flight_bytes >= WINDOW_BYTES and not self._is_closed_for_writing():
            self._writer = asyncio.get_running_loop().create_future()
            await self._writer
        if self._is_closed_for_writing():
            raise self._failure or StreamBrokenError("the call is over")
        self._in_flight_bytes += len(data)
        self.post(len(data), self.peer.arrived, data)

    async def read(self) -> bytes | None:
        """Return the next message; None when the other side has ended well."""
        while not self._inbox:
            if self._failure is not None:
                raise self._failure
            if self._is_finished_there:
                return None
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        data = self._inbox.popleft()
        if self._failure is None:
            self.post(0, self.peer.credited, len(data))
        return data

    def finish(self, failure: Exception | None = None) -> None:
        """Say that no more will be sent: for a client the half-close, for a server its status."""
        if self._is_finished_here or self._failure is not None:
            return
        self._is_finished_here = True
        self.post(0, self.peer.was_finished, failure)

    def fail(self, failure: Exception) -> None:
        """Break the call from this side; the other side learns that it was cancelled."""
        if self.is_over:
            return
        self.broke(failure)
        self.post(0, self.peer.broke, StreamBrokenError("the peer cancelled the call"))

    # -- what the wire brings --

    def arrived(self, data: bytes) -> None:
        if self._failure is None:
            self._inbox.append(data)
            _wake(self._reader)

    def credited(self, size: int) -> None:
        self._in_flight_bytes -= size
        _wake(self._writer)

    def was_finished(self, failure: Exception | None) -> None:
        """The other side will send no more."""
        self._is_finished_there = True
        if failure is not None:
            self._failure = self._failure or failure
        self._wake_all()

    def broke(self, failure: Exception) -> None:
        """The call is lost."""
        if self.is_over:
            return
        self._failure = failure
        self._wake_all()
        if self.when_broken is not None:
            self.when_broken()

    def _is_closed_for_writing(self) -> bool:
        return self._failure is not None or self._is_finished_here

    def _wake_all(self) -> None:
        _wake(self._reader)
        _wake(self._writer)


def refused_call(error: PeerRefusedError) -> End:
    """Return the end of a call that nobody takes."""
    end = End(nowhere)
    end.peer = End(nowhere)
    end.broke(error)
    return end


def nowhere(size: int, deliver: Callable[..., None], *arguments: Any) -> None:
    """The wire to nobody."""


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


# -- the caller's side -----------------------------------------------------------------------


class CallConnection:
    """A Connection whose calls are opened by a function that its network gives."""

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
        self._open: dict[int, End] = {}
        self._opened = 0
        self._is_closed = False

    async def unary(self, method: Method[Q, R], request: Q, *, timeout_ms: int) -> R:
        """Send one request, return its response."""
        number, end = self._start(method, timeout_ms)
        late = DeadlineExceededError(f"{method.path} at {self.endpoint}: none in {timeout_ms} ms")
        timer = asyncio.get_running_loop().call_later(timeout_ms / 1000, end.fail, late)
        try:
            await end.write(self.encode(method, request))
            end.finish()
            data = await end.read()
        finally:
            timer.cancel()
            self.end_call(number)
        if data is None:
            raise PeerError("INTERNAL", f"{method.path} at {self.endpoint}: no response")
        return self.decode(method, data)

    def stream(self, method: Method[Q, R], requests: AsyncIterator[Q]) -> CallStream[R]:
        """Open a stream; its owner must close it."""
        number, end = self._start(method)
        return CallStream(self, number, end, method, requests)

    async def close(self) -> None:
        """Break what is open on it."""
        self._is_closed = True
        self._forget(self)
        for end in list(self._open.values()):
            end.fail(StreamBrokenError(f"the connection to {self.endpoint} was closed here"))

    def end_call(self, number: int) -> None:
        """Let go of a call, and cancel it if it is not over."""
        end = self._open.pop(number, None)
        if end is not None:
            end.fail(StreamBrokenError("the call was ended by its owner"))

    def encode(self, method: Method[Q, Any], request: Q) -> bytes:
        data = method.encode_request(request)
        if len(data) > self._message_bytes_max:
            raise _too_large(method, len(data), self._message_bytes_max)
        return data

    def decode(self, method: Method[Any, R], data: bytes) -> R:
        try:
            return method.decode_response(data)
        except Exception as error:  # whatever a decoder makes of hostile bytes
            raise PeerError(
                "INTERNAL", f"{self.endpoint} answered {method.path} unreadably: {error}"
            ) from None

    def _start(self, method: Method[Any, Any], timeout_ms: int = 0) -> tuple[int, End]:
        if self._is_closed:
            raise StreamBrokenError(f"the connection to {self.endpoint} was closed here")
        end = self._open_call(Head(method.path, self._cluster_id(), timeout_ms))
        self._opened += 1
        self._open[self._opened] = end
        return self._opened, end


class CallStream(Generic[R]):
    """An open stream: reads for its owner, while a task of its own writes the requests."""

    def __init__(
        self,
        connection: CallConnection,
        number: int,
        end: End,
        method: Method[Q, R],
        requests: AsyncIterator[Q],
    ) -> None:
        self._connection = connection
        self._number = number
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
        except BaseException:  # cancelled too: as with gRPC, that is the end of the stream
            await self.aclose()
            if self._request_error is not None:
                raise self._request_error from None
            raise
        await self.aclose()
        if self._request_error is not None:
            raise self._request_error
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Cancel the stream if it is still open; return when the requests are closed."""
        self._is_ended = True
        self._connection.end_call(self._number)
        if asyncio.current_task() is not self._pump:
            self._pump.cancel()
            await asyncio.wait((self._pump,))

    async def _send(self, requests: AsyncIterator[Any]) -> None:
        try:
            async for request in requests:
                data = self._connection.encode(self._method, request)
                try:
                    await self._end.write(data)
                except NetworkError:
                    break  # the stream has ended: the reader learns how
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


async def probe(connection: Connection, timeout_ms: int) -> ProbeResult:
    """Ask over a fresh connection who is there, and close it."""
    try:
        answer = await connection.unary(IDENTIFY, node_pb2.IdentifyRequest(), timeout_ms=timeout_ms)
    except PeerRefusedError:
        return Refused()
    except NetworkError:
        return NoAnswer()
    finally:
        await connection.close()
    return Answered(answer.node_id, answer.incarnation)


# -- the service's side ----------------------------------------------------------------------


class Switchboard:
    """What listens at one endpoint: takes calls, and owns the tasks that answer them."""

    def __init__(
        self,
        services: Sequence[Service],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        *,
        cluster_id: str = "",
        listener: str = "",
        message_bytes_max: int = MESSAGE_BYTES_MAX,
    ) -> None:
        self._cluster_id = cluster_id
        self._listener = listener
        self._spawn = spawn
        self._message_bytes_max = message_bytes_max
        self._table: Mapping[str, tuple[Method[Any, Any], Handler]] = {
            method.path: (method, handler)
            for service in services
            for method, handler in service.handlers().items()
        }
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._taken = 0
        self._is_stopping = False

    def take(self, head: Head, end: End, address: str) -> None:
        """Begin to answer a call from that address."""
        if self._is_stopping:
            return end.finish(StreamBrokenError("the peer is stopping"))
        refusal = wrong_cluster(head, self._cluster_id)
        if refusal is not None:
            return end.finish(WrongClusterError(refusal))
        if head.path not in self._table:
            return end.finish(PeerError("UNIMPLEMENTED", f"no method {head.path}"))
        method, handler = self._table[head.path]
        peer = Peer(address, timeout_ms=head.timeout_ms, listener=self._listener)
        task = self._spawn(self._answer(method, handler, end, peer))
        self._taken += 1
        number = self._taken
        self._tasks[number] = task
        end.when_broken = task.cancel
        task.add_done_callback(lambda _task: self._tasks.pop(number, None))
        return None

    def is_unary(self, path: str) -> bool:
        """Whether that method is known, and is one request and one response."""
        known = self._table.get(path)
        return known is not None and not (known[0].streams_requests or known[0].streams_responses)

    async def stop(self, grace_ms: int) -> None:
        """Take no new calls, wait up to grace_ms for open ones, then cancel them."""
        self._is_stopping = True
        mine = asyncio.current_task()
        tasks = [task for task in self._tasks.values() if task is not mine]
        if tasks and grace_ms > 0:
            await asyncio.wait(tasks, timeout=grace_ms / 1000)
        for task in tasks:
            task.cancel()
        if tasks:
            _done, stuck = await asyncio.wait(tasks, timeout=2.0)
            if stuck:
                log.warning("calls did not end when cancelled", calls=len(stuck))

    def cancel_all(self) -> None:
        """Stop without grace or waiting."""
        self._is_stopping = True
        for task in list(self._tasks.values()):
            task.cancel()

    async def _answer(
        self, method: Method[Any, Any], handler: Handler, end: End, peer: Peer
    ) -> None:
        requests = _Requests(method, end)
        try:
            await self._run(method, handler, requests, end, peer)
            end.finish()
        except asyncio.CancelledError:
            end.finish(StreamBrokenError(f"the peer ended {method.path}"))
            raise
        except PeerError as error:
            end.finish(error)
        except InvalidRequestError as error:  # the caller's fault, not ours
            text = f"{type(error).__name__}: {error}"[:DETAILS_CHARS_MAX]
            end.finish(requests.error or PeerError("INVALID_ARGUMENT", text))
        except Exception as error:
            if requests.error is not None:
                return end.finish(requests.error)
            if isinstance(error, QuorateError) and error.retriable and not end.is_over:
                return end.finish(StreamBrokenError(str(error)[:DETAILS_CHARS_MAX]))
            if end.is_over:
                return None  # the caller is gone: nobody is left to be told
            log.error("a call failed", method=method.path, peer=peer.address, exc_info=error)
            if isinstance(error, AssertionError):
                # A broken invariant is nobody's answer: a simulation ends with it.
                asyncio.get_running_loop().call_exception_handler(
                    {"message": f"{method.path} broke an invariant", "exception": error}
                )
            text = f"{type(error).__name__}: {error}"[:DETAILS_CHARS_MAX]
            end.finish(PeerError("INTERNAL", text))
        return None

    async def _run(
        self,
        method: Method[Any, Any],
        handler: Handler,
        requests: _Requests,
        end: End,
        peer: Peer,
    ) -> None:
        argument = requests if method.streams_requests else await requests.only()
        if not method.streams_responses:
            await self._respond(method, end, await handler(argument, peer))
            return
        async with aclosing(handler(argument, peer)) as responses:
            async for response in responses:
                await self._respond(method, end, response)

    async def _respond(self, method: Method[Any, Any], end: End, response: Any) -> None:
        data = method.encode_response(response)
        if len(data) > self._message_bytes_max:
            raise _too_large(method, len(data), self._message_bytes_max)
        await end.write(data)


class _Requests:
    """The requests of one call, decoded: what a service iterates over."""

    def __init__(self, method: Method[Any, Any], end: End) -> None:
        self._method = method
        self._end = end
        self.error: PeerError | None = None

    def __aiter__(self) -> _Requests:
        return self

    async def __anext__(self) -> Any:
        data = await self._end.read()
        if data is None:
            raise StopAsyncIteration
        try:
            return self._method.decode_request(data)
        except Exception as error:  # whatever a decoder makes of hostile bytes
            self.error = PeerError("INVALID_ARGUMENT", f"the request does not parse: {error}")
            raise self.error from None

    async def aclose(self) -> None:
        """Nothing is held: the call belongs to its switchboard."""

    async def only(self) -> Any:
        async for request in self:
            return request
        self.error = PeerError("INVALID_ARGUMENT", "the call has no request")
        raise self.error


def _too_large(method: Method[Any, Any], size: int, size_max: int) -> PeerError:
    return PeerError(
        "RESOURCE_EXHAUSTED", f"{method.path}: a message of {size} bytes; {size_max} are allowed"
    )
