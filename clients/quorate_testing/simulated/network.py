"""The Network of the simulated world: delays, loss, cuts, breaks, and processes that die.

Each connection is a simulated TCP connection: a wire in each direction that keeps the order. If a
cut holds back a message, it arrives after ``heal``, because TCP repeats it; meanwhile both sides
see silence, and no error. When a process is killed, its kernel closes its connections. The other
side sees this after a delay, unless there is a cut. A paused process accepts connections but
answers nothing.

Two faults are above TCP, and affect only unary calls. A later call may overtake an earlier call, as
if they used two connections. A call may be carried out twice, as if a proxy had repeated a request
that had arrived.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from itertools import count

from quorate.net.network import Head, ProbeResult, Purpose, Service, any_cluster
from quorate_testing.call import MESSAGE_BYTES_MAX, End
from quorate_testing.call_connection import CallConnection, probe
from quorate_testing.simulated.links import Links, links_between
from quorate_testing.simulated.listener import SimulatedListener
from quorate_testing.simulated.loop import Process, SimulatedLoop
from quorate_testing.simulated.tcp import TcpConnection
from quorate_testing.switchboard import free_endpoint


class SimulatedNetwork(Links):
    """The network between all hosts. `host` returns the Network of one process."""

    def __init__(
        self,
        loop: SimulatedLoop,
        chance: random.Random,
        *,
        message_bytes_max: int = MESSAGE_BYTES_MAX,
    ) -> None:
        super().__init__(loop, chance)
        self.message_bytes_max = message_bytes_max
        self._connections: dict[TcpConnection, None] = {}
        self._listeners: dict[str, SimulatedListener] = {}
        self._ports = count(40_000)

    def host(self, name: str) -> SimulatedHost:
        """Return the Network of the living process with this name. It ends with the process."""
        return SimulatedHost(self, self._loop.process(name))

    # -- faults; hosts are the names of processes --

    def heal(
        self, sources: Collection[str] | None = None, targets: Collection[str] | None = None
    ) -> None:
        """End all cuts, or those between `sources` and `targets`."""
        super().heal(sources, targets)
        for connection in self._living():
            connection.resume()

    def break_streams(self, sources: Collection[str], targets: Collection[str]) -> int:
        """Reset every connection between these hosts. Both sides see it now. Return the number."""
        found = self._between(sources, targets)
        for connection in found:
            connection.reset()
        return len(found)

    def half_open(self, noticing: Collection[str], unaware: Collection[str]) -> int:
        """Break every connection between these hosts, but only at the side of `noticing`.

        The other side sees silence. Returns the number of connections.
        """
        found = self._between(noticing, unaware)
        for connection in found:
            connection.vanish(noticed_by_client=connection.client.name in noticing)
        return len(found)

    @property
    def connections(self) -> int:
        """The number of simulated TCP connections that exist at one or both sides."""
        return len(self._connections)

    # -- for hosts and connections --

    def listen(
        self,
        process: Process,
        endpoint: str,
        services: Sequence[Service],
        cluster_id: str = "",
        name: str = "",
    ) -> SimulatedListener:
        endpoint = free_endpoint(endpoint, self._listeners, self._ports)
        listener = SimulatedListener(
            self._loop,
            process,
            self._close_connections,
            endpoint,
            services,
            self._listeners,
            cluster_id=cluster_id,
            listener=name,
            message_bytes_max=self.message_bytes_max,
        )
        process.at_death(listener.unregister)
        return listener

    def open_tcp(self, client: Process, endpoint: str) -> TcpConnection:
        connection = TcpConnection(self, self._listeners, client, endpoint, self._connections)
        self._connections[connection] = None
        return connection

    def lost(self, process: Process) -> None:
        """Close all connections of a process that has died, so that their other sides see it."""
        for connection in self._living():
            connection.died(process)

    def _close_connections(self, listener: SimulatedListener) -> None:
        for connection in self._living():
            connection.stopped(listener)

    def _living(self) -> list[TcpConnection]:
        return list(self._connections)

    def _between(self, these: Collection[str], those: Collection[str]) -> list[TcpConnection]:
        pairs = links_between(these, those)
        return [
            connection
            for connection in self._living()
            if (connection.client.name, connection.server_name) in pairs
        ]


class SimulatedHost:
    """The Network of one process."""

    def __init__(self, network: SimulatedNetwork, process: Process) -> None:
        self._network = network
        self._process = process
        self._connections: dict[CallConnection, None] = {}
        process.at_death(lambda: network.lost(process))

    def connect(
        self,
        endpoint: str,
        *,
        purpose: Purpose = "data",
        cluster_id: Callable[[], str] = any_cluster,
    ) -> CallConnection:
        """Return a lazy connection.

        Its first call opens a simulated TCP connection. The first call after a break opens a new
        one.
        """
        opener = _Opener(self._network, self._process, endpoint)

        def forget(connection: CallConnection) -> None:
            self._connections.pop(connection, None)
            opener.close()

        connection = CallConnection(
            endpoint,
            opener.open_call,
            forget,
            cluster_id=cluster_id,
            message_bytes_max=self._network.message_bytes_max,
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
    ) -> SimulatedListener:
        """Listen in this process. Raise OSError that names the endpoint if it is in use."""
        return self._network.listen(self._process, endpoint, services, cluster_id, listener)

    async def probe(self, endpoint: str, *, timeout_ms: int) -> ProbeResult:
        """Ask which node serves an endpoint, over a separate connection."""
        return await probe(self, endpoint, timeout_ms)

    async def close(self) -> None:
        """Close every connection of this process."""
        for connection in list(self._connections):
            await connection.close()


class _Opener:
    """Opens the calls of one Connection. If the last TCP connection broke, it opens a new one."""

    def __init__(self, network: SimulatedNetwork, client: Process, endpoint: str) -> None:
        self._network = network
        self._client = client
        self._endpoint = endpoint
        self._tcp: TcpConnection | None = None

    def open_call(self, head: Head) -> End:
        if self._tcp is None or not self._tcp.is_usable:
            self._tcp = self._network.open_tcp(self._client, self._endpoint)
        return self._tcp.open_call(head)

    def close(self) -> None:
        if self._tcp is not None:
            self._tcp.close()
