"""The server's side of calls without gRPC: it accepts calls and answers them."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Container, Coroutine, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Self

import structlog

from quorate import errors
from quorate.net.network import Handler, Head, Method, Peer, Service, wrong_cluster
from quorate_testing.call import MESSAGE_BYTES_MAX, End, too_large

log = structlog.get_logger(__name__)

DETAILS_CHARS_MAX = 1000


def free_endpoint(endpoint: str, taken: Container[str], ports: Iterator[int]) -> str:
    """Return an endpoint to listen on. The next of `ports` replaces port 0.

    Raises OSError if the endpoint is taken.
    """
    host, _colon, port = endpoint.rpartition(":")
    if port == "0":
        endpoint = f"{host}:{next(ports)}"
    if endpoint in taken:
        raise OSError(errno.EADDRINUSE, f"port {port} is in use (to listen on {endpoint})")
    return endpoint


class Switchboard:
    """A listener: the services at one endpoint. It owns the tasks that answer the calls.

    `listeners` has this listener, by its endpoint, until the listener stops.
    """

    def __init__(
        self,
        endpoint: str,
        services: Sequence[Service],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        listeners: dict[str, Self],
        *,
        cluster_id: str = "",
        listener: str = "",
        message_bytes_max: int = MESSAGE_BYTES_MAX,
    ) -> None:
        self.endpoint = endpoint
        self._listeners = listeners
        self._cluster_id = cluster_id
        self._listener = listener
        self._spawn = spawn
        self._message_bytes_max = message_bytes_max
        self._table: Mapping[str, tuple[Method[Any, Any], Handler]] = {
            method.path: (method, handler)
            for service in services
            for method, handler in service.handlers().items()
        }
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._is_stopping = False
        listeners[endpoint] = self

    def take(self, head: Head, end: End, address: str) -> None:
        """Begin to answer a call. `address` is the caller's."""
        if self._is_stopping:
            return end.finish(errors.StreamBrokenError("the peer is stopping"))
        refusal = wrong_cluster(head, self._cluster_id)
        if refusal is not None:
            return end.finish(errors.WrongClusterError(refusal))
        if head.path not in self._table:
            return end.finish(errors.PeerError("UNIMPLEMENTED", f"no method {head.path}"))
        method, handler = self._table[head.path]
        peer = Peer(address, timeout_ms=head.timeout_ms, listener=self._listener)
        task = self._spawn(self._answer(method, handler, end, peer))
        self._tasks[task] = None
        end.when_broken = task.cancel
        task.add_done_callback(lambda done: self._tasks.pop(done, None))
        return None

    def is_unary(self, path: str) -> bool:
        """Return whether the method is known, and has one request and one response."""
        known = self._table.get(path)
        return known is not None and not (known[0].streams_requests or known[0].streams_responses)

    @property
    def is_listening(self) -> bool:
        """Whether a call to the endpoint reaches this listener."""
        return self._listeners.get(self.endpoint) is self

    def unregister(self) -> None:
        """Stop listening."""
        if self.is_listening:
            del self._listeners[self.endpoint]

    async def stop(self, grace_ms: int) -> None:
        """Take no new calls, wait up to grace_ms for open ones, then cancel them."""
        self.unregister()
        self._is_stopping = True
        mine = asyncio.current_task()
        tasks = [task for task in self._tasks if task is not mine]
        if tasks and grace_ms > 0:
            await asyncio.wait(tasks, timeout=grace_ms / 1000)
        for task in tasks:
            task.cancel()
        if tasks:
            _done, stuck = await asyncio.wait(tasks, timeout=2.0)
            if stuck:
                log.warning("calls did not end when cancelled", calls=len(stuck))

    def cancel_all(self) -> None:
        """Cancel all calls now, without waiting for them."""
        self._is_stopping = True
        for task in list(self._tasks):
            task.cancel()

    async def _answer(
        self, method: Method[Any, Any], handler: Handler, end: End, peer: Peer
    ) -> None:
        requests = _Requests(method, end)
        try:
            await self._run(method, handler, requests, end, peer)
            end.finish()
        except asyncio.CancelledError:
            end.finish(errors.StreamBrokenError(f"the peer ended {method.path}"))
            raise
        except errors.PeerError as error:
            end.finish(error)
        except errors.InvalidRequestError as error:
            # the caller gets the text, because the caller is at fault, not the service
            text = f"{type(error).__name__}: {error}"[:DETAILS_CHARS_MAX]
            end.finish(requests.error or errors.PeerError("INVALID_ARGUMENT", text))
        except Exception as error:
            if requests.error is not None:
                return end.finish(requests.error)
            if isinstance(error, errors.QuorateError) and error.retriable and not end.is_over:
                return end.finish(errors.StreamBrokenError(str(error)[:DETAILS_CHARS_MAX]))
            if end.is_over:
                return None  # the caller is gone
            log.error("a call failed", method=method.path, peer=peer.address, exc_info=error)
            if isinstance(error, AssertionError):
                # A broken invariant must end the whole simulation, and not only this call.
                asyncio.get_running_loop().call_exception_handler(
                    {"message": f"{method.path} broke an invariant", "exception": error}
                )
            text = f"{type(error).__name__}: {error}"[:DETAILS_CHARS_MAX]
            end.finish(errors.PeerError("INTERNAL", text))
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
            raise too_large(method, len(data), self._message_bytes_max)
        await end.write(data)


class _Requests:
    """The decoded requests of one call, for a service to iterate over."""

    def __init__(self, method: Method[Any, Any], end: End) -> None:
        self._method = method
        self._end = end
        self.error: errors.PeerError | None = None

    def __aiter__(self) -> _Requests:
        return self

    async def __anext__(self) -> Any:
        data = await self._end.read()
        if data is None:
            raise StopAsyncIteration
        try:
            return self._method.decode_request(data)
        except Exception as error:  # a decoder may raise anything for bad bytes
            self.error = errors.PeerError(
                "INVALID_ARGUMENT", f"the request does not parse: {error}"
            )
            raise self.error from None

    async def aclose(self) -> None:
        """Do nothing, because the switchboard owns the call."""

    async def only(self) -> Any:
        async for request in self:
            return request
        self.error = errors.PeerError("INVALID_ARGUMENT", "the call has no request")
        raise self.error
