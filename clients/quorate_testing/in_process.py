"""The Network inside one process: it finds nodes by their addresses, without sockets.

The embedded cluster listens on this network. Clients in the same process reach its nodes through
it, from any event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from quorate.errors import PeerRefusedError, StreamBrokenError
from quorate.net.network import Head, ProbeResult, Purpose, Service, any_cluster
from quorate_testing.call import MESSAGE_BYTES_MAX, End, refused_call
from quorate_testing.call_connection import CallConnection, probe
from quorate_testing.switchboard import Switchboard, free_endpoint


class InProcessNetwork:
    """A network that all nodes and clients of one process share."""

    def __init__(self, *, message_bytes_max: int = MESSAGE_BYTES_MAX) -> None:
        self._message_bytes_max = message_bytes_max
        self._listeners: dict[str, InProcessListener] = {}
        self._connections: dict[CallConnection, None] = {}
        self._ports = count(40_000)

    @property
    def connections_open(self) -> int:
        """The number of connections that are not closed: a test finds what a client left."""
        return len(self._connections)

    def connect(
        self,
        endpoint: str,
        *,
        purpose: Purpose = "data",
        cluster_id: Callable[[], str] = any_cluster,
    ) -> CallConnection:
        """Return a lazy connection. A node may begin to serve the address later."""
        connection = CallConnection(
            endpoint,
            lambda head: self._open_call(endpoint, head),
            lambda closed: self._connections.pop(closed, None),
            cluster_id=cluster_id,
            message_bytes_max=self._message_bytes_max,
        )
        self._connections[connection] = None
        return connection

    async def serve(
        self,
        endpoint: str,
        services: Sequence[Service],
        *,
        cluster_id: str = "",
        listener: str = "",
    ) -> InProcessListener:
        """Listen on an endpoint. Raise OSError that names the endpoint if the port is in use."""
        endpoint = free_endpoint(endpoint, self._listeners, self._ports)
        return InProcessListener(
            asyncio.get_running_loop(),
            endpoint,
            services,
            self._listeners,
            cluster_id=cluster_id,
            listener=listener,
            message_bytes_max=self._message_bytes_max,
        )

    async def probe(self, endpoint: str, *, timeout_ms: int) -> ProbeResult:
        """Ask which node serves an endpoint."""
        return await probe(self, endpoint, timeout_ms)

    async def close(self) -> None:
        """Close every connection of this network."""
        for connection in list(self._connections):
            await connection.close()

    def _open_call(self, endpoint: str, head: Head) -> End:
        listener = self._listeners.get(endpoint)
        if listener is None or listener.loop.is_closed():
            return refused_call(PeerRefusedError(f"no server listens at {endpoint} ({head.path})"))
        here = asyncio.get_running_loop()
        client = End(_Wire(here, listener.loop))
        server = End(_Wire(listener.loop, here))
        client.peer, server.peer = server, client
        client.post(0, listener.take, head, server)
        return client


class _Wire:
    """A wire that delivers in another loop, or in a later turn of the same loop."""

    def __init__(
        self, source: asyncio.AbstractEventLoop, target: asyncio.AbstractEventLoop
    ) -> None:
        self._schedule: Callable[..., object] = (
            target.call_soon if source is target else target.call_soon_threadsafe
        )
        self._target = target

    def __call__(self, size: int, deliver: Callable[..., None], *arguments: Any) -> None:
        if not self._target.is_closed():
            self._schedule(deliver, *arguments)


class InProcessListener(Switchboard):
    """One endpoint that is served. Its calls run on the loop that called serve()."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        endpoint: str,
        services: Sequence[Service],
        listeners: dict[str, InProcessListener],
        **settings: Any,
    ) -> None:
        super().__init__(endpoint, services, loop.create_task, listeners, **settings)
        self.loop = loop
        self._ends: list[End] = []

    def take(self, head: Head, end: End, address: str = "in-process") -> None:
        """Begin to answer a call, on this listener's loop."""
        if not self.is_listening:
            return end.finish(StreamBrokenError(f"{self.endpoint} has stopped"))
        self._ends = [*(one for one in self._ends if not one.is_over), end]
        return super().take(head, end, address)

    def kill(self) -> None:
        """Stop as a killed process does: open calls break now."""
        self.unregister()
        for end in self._ends:
            end.fail(StreamBrokenError(f"{self.endpoint} was killed"))
        self.cancel_all()
