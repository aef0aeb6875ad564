"""Plain TCP of the simulated world, for listeners whose protocol is not gRPC.

A connection has a wire in each direction, with the delays, losses and cuts of the links. When a
process dies, the other side sees the end of the connection after a delay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

from quorate_quorum.node.sockets import Accept
from quorate_testing.simulated.links import Links
from quorate_testing.simulated.loop import Process, SimulatedLoop
from quorate_testing.simulated.tcp import Wire
from quorate_testing.switchboard import free_endpoint

Piece = bytes | bytearray | memoryview


class Ports:
    """All addresses of the simulated world at which plain connections are accepted."""

    def __init__(self, loop: SimulatedLoop, links: Links) -> None:
        self.loop = loop
        self.links = links
        self.open: dict[str, Port] = {}
        self.numbers = count(50_000)

    def of(self, process: Process) -> SimulatedSockets:
        """Return the sockets of a process."""
        return SimulatedSockets(self, process)


class SimulatedSockets:
    """The sockets of one process."""

    def __init__(self, ports: Ports, process: Process) -> None:
        self._ports = ports
        self._process = process

    async def listen(self, endpoint: str, accept: Accept) -> Port:
        """Accept connections at an endpoint until the process dies. Raises OSError."""
        endpoint = free_endpoint(endpoint, self._ports.open, self._ports.numbers)
        port = self._ports.open[endpoint] = Port(self._ports, self._process, endpoint, accept)
        self._process.at_death(port.forget)
        return port

    def connect(self, endpoint: str, protocol: asyncio.BufferedProtocol) -> SimulatedStream:
        """Connect this process. Raises ConnectionRefusedError if no process listens there."""
        port = self._ports.open.get(endpoint)
        if port is None:
            raise ConnectionRefusedError(f"no process listens at {endpoint}")
        links, here, there = self._ports.links, self._process, port.process
        mine = SimulatedStream(self._ports.loop, here, there.name)
        other = SimulatedStream(self._ports.loop, there, here.name)
        mine.join(other, Wire(links, here.name, there.name))
        other.join(mine, Wire(links, there.name, here.name))
        mine.begin(lambda: protocol)
        other.begin(port.accept)
        return mine


class Port:
    """An address at which a process accepts connections."""

    def __init__(self, ports: Ports, process: Process, endpoint: str, accept: Accept) -> None:
        self._ports = ports
        self.process = process
        self.endpoint = endpoint
        self.accept = accept

    async def close(self) -> None:
        """Accept no more connections."""
        self.forget()

    def forget(self) -> None:
        if self._ports.open.get(self.endpoint) is self:
            del self._ports.open[self.endpoint]


class SimulatedStream(asyncio.Transport):
    """One side of a connection: the transport of its process's protocol."""

    def __init__(self, loop: SimulatedLoop, process: Process, peer: str) -> None:
        super().__init__()
        self._loop = loop
        self._process = process
        self._peer = peer
        self._arrived = bytearray()
        self._is_reading = True
        self._is_closing = False
        self._is_lost = False

    def join(self, other: SimulatedStream, wire: Wire) -> None:
        """Connect this side with the other one. `wire` leads there."""
        self._other, self._wire = other, wire

    def begin(self, make: Callable[[], asyncio.BufferedProtocol]) -> None:
        """Make the protocol, in the process of this side."""

        def begin() -> None:
            self._protocol = make()
            self._protocol.connection_made(self)

        self._process.at_death(self.abort)
        self._soon(begin)

    # what the protocol calls

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return (self._peer, 0) if name == "peername" else default

    def write(self, data: Piece) -> None:
        if not self._is_closing:
            self._wire(len(data), self._other.receive, bytes(data))

    def writelines(self, list_of_data: Iterable[Piece]) -> None:
        self.write(b"".join(list_of_data))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Do nothing: the wire takes everything."""

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self._is_reading = False

    def resume_reading(self) -> None:
        self._is_reading = True
        self._soon(self._hand_over)

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        """End the connection. The other side sees it behind the bytes that are under way."""
        if not self._is_closing:
            self._is_closing = True
            self._wire(0, self._other.end)
            self.end()

    def abort(self) -> None:
        self.close()

    # what the wire calls

    def receive(self, data: bytes) -> None:
        """Take bytes that have arrived."""
        self._arrived += data
        self._soon(self._hand_over)

    def end(self) -> None:
        """Take note that the connection has ended."""
        self._is_closing = True
        self._soon(self._lose)

    # inside

    def _hand_over(self) -> None:
        while self._arrived and self._is_reading and not self._is_lost:
            buffer: Any = self._protocol.get_buffer(-1)
            size = min(len(buffer), len(self._arrived))
            buffer[:size] = self._arrived[:size]
            del self._arrived[:size]
            self._protocol.buffer_updated(size)

    def _lose(self) -> None:
        if not self._is_lost:
            self._is_lost = True
            self._protocol.connection_lost(None)

    def _soon(self, callback: Callable[[], None]) -> None:
        """Call in the process of this side, if it lives."""
        if self._process.is_alive:
            self._loop.call_soon(callback, context=self._process.context())
