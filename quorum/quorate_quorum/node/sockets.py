"""The seam to plain TCP: the listeners whose protocol is not gRPC.

A real process has the sockets of its event loop; the simulated world has its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Final, Protocol

#: Makes the protocol of one accepted connection.
Accept = Callable[[], asyncio.BufferedProtocol]
BACKLOG: Final = 1024
LOCALHOST: Final = "localhost"
LOOPBACK: Final = "127.0.0.1"
LOOPBACK_6: Final = "::1"


class OpenPort(Protocol):
    """One address at which connections are accepted."""

    @property
    def endpoint(self) -> str:
        """The bound address, as host:port. Port 0 is replaced by the port that was chosen."""

    async def close(self) -> None:
        """Accept no more connections. Those that are open stay open."""


class Sockets(Protocol):
    """Accepts connections."""

    async def listen(self, endpoint: str, accept: Accept) -> OpenPort:
        """Listen. Raises OSError that names the endpoint if it is in use."""


class RealSockets:
    """Accepts connections by the event loop that runs."""

    async def listen(self, endpoint: str, accept: Accept) -> RealPort:
        """Listen at an endpoint. "localhost" is 127.0.0.1, and also ::1 where there is IPv6."""
        host, _, text = endpoint.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        loop = asyncio.get_running_loop()
        name = LOOPBACK if host == LOCALHOST else host
        try:
            server = await loop.create_server(accept, name, int(text), backlog=BACKLOG)
        except OSError as error:
            raise OSError(
                error.errno, f"{error.strerror or error} (to listen on {endpoint})"
            ) from None
        port = _port_of(server)
        servers = [server]
        if host == LOCALHOST and socket.has_ipv6:
            # without IPv6, or if another program has the port: clients try 127.0.0.1 too
            with contextlib.suppress(OSError):
                servers.append(await loop.create_server(accept, LOOPBACK_6, port, backlog=BACKLOG))
        return RealPort(f"{endpoint.rpartition(':')[0]}:{port}", servers)


class RealPort:
    """An address at which the event loop accepts connections."""

    def __init__(self, endpoint: str, servers: list[asyncio.Server]) -> None:
        self.endpoint = endpoint
        self._servers = servers

    async def close(self) -> None:
        """Accept no more connections."""
        for server in self._servers:
            server.close()


def _port_of(server: asyncio.Server) -> int:
    return int(server.sockets[0].getsockname()[1])
