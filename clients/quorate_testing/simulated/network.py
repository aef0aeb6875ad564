"""The Network of the simulated world: delays, loss, cuts, breaks, and processes that die.

Each connection is a simulated TCP connection: a wire in each direction that keeps the order. What
a cut holds back arrives after ``heal``, as TCP repeats what was not acknowledged; meanwhile both
sides hear silence, not an error. A killed process is noticed at the other side as its kernel says
so: within a delay, unless a cut lies between. A paused one takes connections and answers nothing.

Two faults lie above TCP, and concern unary calls only: one may be overtaken by later ones, as on
connections of their own, and one may be carried out twice, as when something on the way tries
again what has long arrived.
"""

from __future__ import annotations

import errno
import random
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Sequence
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, Literal

from quorate.errors import PeerRefusedError, StreamBrokenError
from quorate.net.network import Head, ProbeResult, Purpose, Service, any_cluster
from quorate_testing.call import (
    MESSAGE_BYTES_MAX,
    CallConnection,
    End,
    Post,
    Switchboard,
    nowhere,
    probe,
)
from quorate_testing.simulated.loop import Process, SimulatedLoop

#: An attempt to connect that nobody answers fails after this, as gRPC's does by our options.
CONNECT_TIMEOUT_S = 0.5
#: A lost packet comes this much later, twice as much when lost again.
RETRANSMIT_S = 0.2

#: Called as a message leaves a host: a client's "send" or a server's "reply", from where, to
#: where. It may kill the sender; then the message does not leave.
Hook = Callable[[Literal["send", "reply"], str, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkQuality:
    """How one direction between two hosts behaves."""

    delay_min_ms: float = 0.1
    delay_max_ms: float = 1.0
    #: The chance that a message has to be sent again, each time.
    loss: float = 0.0
    #: Bytes per second; None: as many as come.
    bytes_per_s: float | None = None
    #: The chance that a unary call is carried out a second time, up to `late_max_ms` later.
    duplication: float = 0.0
    #: The chance that a unary call is held back by up to `late_max_ms`, and nothing else with it.
    reordering: float = 0.0
    late_max_ms: float = 500.0

    def __post_init__(self) -> None:
        if not 0 <= self.delay_min_ms <= self.delay_max_ms:
            raise ValueError(f"0 <= delay_min_ms <= delay_max_ms, not {self}")
        if not 0 <= self.loss <= 0.9:
            raise ValueError(f"loss must be 0 to 0.9, not {self.loss}")
        if not (0 <= self.duplication <= 1 and 0 <= self.reordering <= 1 and self.late_max_ms > 0):
            raise ValueError(f"duplication, reordering 0 to 1, late_max_ms above 0, not {self}")


class SimulatedNetwork:
    """The cables and switches; `host` gives a process its Network."""

    def __init__(
        self,
        loop: SimulatedLoop,
        chance: random.Random,
        *,
        message_bytes_max: int = MESSAGE_BYTES_MAX,
    ) -> None:
        self.message_bytes_max = message_bytes_max
        self.hook: Hook | None = None
        self._loop = loop
        self._chance = chance
        self._default = LinkQuality()
        self._qualities: dict[tuple[str, str], LinkQuality] = {}
        self._cut: dict[tuple[str, str], None] = {}
        self._connections: dict[int, _Tcp] = {}
        self._listeners: dict[str, SimulatedListener] = {}
        self._numbers = count(1)
        self._ports = count(40_000)
        #: Deliveries are the world's doing: no process's callbacks.
        self._context = Context()

    def host(self, name: str) -> SimulatedHost:
        """Return the Network of the living process of that name; it dies with the process."""
        return SimulatedHost(self, self._loop.process(name))

    # -- faults; hosts are the names of processes --

    def set_delay(
        self,
        delay_min_ms: float,
        delay_max_ms: float,
        sources: Collection[str] | None = None,
        targets: Collection[str] | None = None,
    ) -> None:
        """Set the delay of one message, everywhere, or from some hosts to others and back."""
        self._change(sources, targets, delay_min_ms=delay_min_ms, delay_max_ms=delay_max_ms)

    def set_loss(
        self,
        loss: float,
        sources: Collection[str] | None = None,
        targets: Collection[str] | None = None,
    ) -> None:
        """Set the chance that a message must be sent again (0 to 0.9)."""
        self._change(sources, targets, loss=loss)

    def set_bandwidth(
        self,
        bytes_per_s: float | None,
        sources: Collection[str] | None = None,
        targets: Collection[str] | None = None,
    ) -> None:
        """Make links slow; None: as fast as the delay allows."""
        self._change(sources, targets, bytes_per_s=bytes_per_s)

    def set_duplication(
        self,
        chance: float,
        sources: Collection[str] | None = None,
        targets: Collection[str] | None = None,
        *,
        late_max_ms: float = 500.0,
    ) -> None:
        """Set the chance that a unary call is carried out twice, the second time so much later."""
        self._change(sources, targets, duplication=chance, late_max_ms=late_max_ms)

    def set_reordering(
        self,
        chance: float,
        sources: Collection[str] | None = None,
        targets: Collection[str] | None = None,
        *,
        late_max_ms: float = 500.0,
    ) -> None:
        """Set the chance that a unary call is overtaken by what is sent so much later."""
        self._change(sources, targets, reordering=chance, late_max_ms=late_max_ms)

    def cut(
        self, sources: Collection[str], targets: Collection[str], *, one_way: bool = False
    ) -> None:
        """Hold back all that goes from `sources` to `targets`, and back unless `one_way`."""
        for pair in _pairs(sources, targets, both=not one_way):
            self._cut[pair] = None

    def heal(
        self, sources: Collection[str] | None = None, targets: Collection[str] | None = None
    ) -> None:
        """Let everything through again, or what goes between these."""
        if sources is None or targets is None:
            self._cut.clear()
        else:
            for pair in _pairs(sources, targets):
                self._cut.pop(pair, None)
        for connection in self._living():
            connection.resume()

    def break_streams(self, sources: Collection[str], targets: Collection[str]) -> int:
        """Reset every connection between these: both sides see it now. Return how many."""
        found = self._between(sources, targets)
        for connection in found:
            connection.reset()
        return len(found)

    def half_open(self, noticing: Collection[str], unaware: Collection[str]) -> int:
        """Break every connection between these at one side only; the other hears nothing more."""
        found = self._between(noticing, unaware)
        for connection in found:
            connection.vanish(noticed_by_client=connection.client.name in noticing)
        return len(found)

    @property
    def connections(self) -> int:
        """How many simulated TCP connections exist at one side at least."""
        return len(self._connections)

    def is_cut(self, source: str, target: str) -> bool:
        """Whether messages from one host to another are held back."""
        return (source, target) in self._cut

    def quality(self, source: str, target: str) -> LinkQuality:
        """Return how the link in that direction behaves."""
        return self._qualities.get((source, target), self._default)

    # -- for hosts and connections --

    def listen(
        self,
        process: Process,
        endpoint: str,
        services: Sequence[Service],
        cluster_id: str = "",
        name: str = "",
    ) -> SimulatedListener:
        host, _colon, port = endpoint.rpartition(":")
        if port == "0":
            endpoint = f"{host}:{next(self._ports)}"
        if endpoint in self._listeners:
            raise OSError(errno.EADDRINUSE, f"port {port} is in use (to listen on {endpoint})")
        listener = SimulatedListener(
            self._loop,
            process,
            endpoint,
            services,
            self._listeners,
            self._close_connections,
            self.message_bytes_max,
            cluster_id,
            name,
        )
        self._listeners[endpoint] = listener
        process.at_death(listener.unregister)
        return listener

    def listener(self, endpoint: str) -> SimulatedListener | None:
        return self._listeners.get(endpoint)

    def open_tcp(self, client: Process, endpoint: str) -> _Tcp:
        number = next(self._numbers)
        connection = _Tcp(self, client, endpoint, lambda: self._connections.pop(number, None))
        self._connections[number] = connection
        return connection

    def leaves(self, kind: Literal["send", "reply"], size: int, source: str, target: str) -> None:
        """Tell the hook of a message; openings, credits and ends of calls are none."""
        if self.hook is not None and size:
            self.hook(kind, source, target)

    def lost(self, process: Process) -> None:
        """Tell the other sides of all its connections that a process died."""
        for connection in self._living():
            connection.died(process)

    def call_at(self, when: float, callback: Callable[..., object], *arguments: Any) -> None:
        self._loop.call_at_world(when, callback, *arguments, context=self._context)

    def time(self) -> float:
        return self._loop.world_time()

    def delay_s(self, quality: LinkQuality) -> float:
        """Draw what one message takes, its repetitions included."""
        delay = self._chance.uniform(quality.delay_min_ms, quality.delay_max_ms) / 1000
        again = RETRANSMIT_S
        while quality.loss and self._chance.random() < quality.loss:
            delay += again
            again = min(2 * again, 10.0)
        return delay

    def late_s(self, quality: LinkQuality, chance: float) -> float:
        """Draw how much later a unary call comes, or comes again; 0: it does not."""
        if not chance or self._chance.random() >= chance:
            return 0.0
        return self._chance.uniform(0, quality.late_max_ms) / 1000

    def _close_connections(self, listener: SimulatedListener) -> None:
        for connection in self._living():
            connection.stopped(listener)

    def _living(self) -> list[_Tcp]:
        return list(self._connections.values())

    def _between(self, these: Collection[str], those: Collection[str]) -> list[_Tcp]:
        pairs = _pairs(these, those)
        return [
            connection
            for connection in self._living()
            if (connection.client.name, connection.server_name) in pairs
        ]

    def _change(
        self,
        sources: Collection[str] | None,
        targets: Collection[str] | None,
        **changes: float | None,
    ) -> None:
        if sources is None or targets is None:
            self._default = _with(self._default, changes)
            self._qualities = {p: _with(q, changes) for p, q in self._qualities.items()}
            return
        for pair in _pairs(sources, targets):
            self._qualities[pair] = _with(self.quality(*pair), changes)


def _with(quality: LinkQuality, changes: dict[str, Any]) -> LinkQuality:
    values: dict[str, Any] = {
        "delay_min_ms": quality.delay_min_ms,
        "delay_max_ms": quality.delay_max_ms,
        "loss": quality.loss,
        "bytes_per_s": quality.bytes_per_s,
        "duplication": quality.duplication,
        "reordering": quality.reordering,
        "late_max_ms": quality.late_max_ms,
    }
    return LinkQuality(**(values | changes))


def _pairs(
    sources: Collection[str], targets: Collection[str], *, both: bool = True
) -> dict[tuple[str, str], None]:
    there = [(s, t) for s in sorted(sources) for t in sorted(targets) if s != t]
    back = [(t, s) for s, t in there] if both else []
    return dict.fromkeys(there + back)


class SimulatedHost:
    """The Network as one process sees it."""

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
        """Return a lazy connection: a simulated TCP connection at the first call, and after each
        break at the next.
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
        """Listen in this process; raise OSError naming the endpoint if the port is in use."""
        return self._network.listen(self._process, endpoint, services, cluster_id, listener)

    async def probe(self, endpoint: str, *, timeout_ms: int) -> ProbeResult:
        """Ask who is there, over a connection of its own."""
        return await probe(self.connect(endpoint, purpose="control"), timeout_ms)

    async def close(self) -> None:
        """Close every connection that was made here."""
        for connection in list(self._connections):
            await connection.close()


class SimulatedListener:
    """A served endpoint of one process."""

    def __init__(
        self,
        loop: SimulatedLoop,
        process: Process,
        endpoint: str,
        services: Sequence[Service],
        listeners: dict[str, SimulatedListener],
        stopped: Callable[[SimulatedListener], None],
        message_bytes_max: int,
        cluster_id: str,
        name: str,
    ) -> None:
        self._stopped = stopped
        self.process = process
        self._endpoint = endpoint
        self._listeners = listeners

        def spawn(coroutine: Coroutine[Any, Any, None]) -> Any:
            return loop.create_task(coroutine, context=process.context())

        self._switchboard = Switchboard(
            services,
            spawn,
            cluster_id=cluster_id,
            listener=name,
            message_bytes_max=message_bytes_max,
        )

    @property
    def endpoint(self) -> str:
        """host:port as bound."""
        return self._endpoint

    def take(self, head: Head, end: End, address: str) -> None:
        """Begin to answer a call in the listening process."""
        self._switchboard.take(head, end, address)

    def is_unary(self, path: str) -> bool:
        """Whether a call of that method is one request and one response."""
        return self._switchboard.is_unary(path)

    async def stop(self, grace_ms: int) -> None:
        """Take no new calls, wait up to grace_ms for open ones, then cancel them."""
        self.unregister()
        await self._switchboard.stop(grace_ms)
        self._stopped(self)

    def unregister(self) -> None:
        """Listen no longer."""
        if self._listeners.get(self._endpoint) is self:
            del self._listeners[self._endpoint]


class _Opener:
    """Opens the calls of one Connection, over a new TCP connection where the last one broke."""

    def __init__(self, network: SimulatedNetwork, client: Process, endpoint: str) -> None:
        self._network = network
        self._client = client
        self._endpoint = endpoint
        self._tcp: _Tcp | None = None

    def open_call(self, head: Head) -> End:
        if self._tcp is None or not self._tcp.is_usable:
            self._tcp = self._network.open_tcp(self._client, self._endpoint)
        return self._tcp.open_call(head)

    def close(self) -> None:
        if self._tcp is not None:
            self._tcp.close()


class _Tcp:
    """One simulated TCP connection with the calls on it.

    Nothing of a call leaves before the connection is established, so a call that was refused, or
    could not connect, was surely not carried out.
    """

    def __init__(
        self,
        network: SimulatedNetwork,
        client: Process,
        endpoint: str,
        forget: Callable[[], object],
    ) -> None:
        self.client = client
        self._network = network
        self._endpoint = endpoint
        self._forget = forget
        #: Whoever listened as the client's knock arrived.
        self._listener: SimulatedListener | None = None
        self._is_established = False
        self._unsent: list[tuple[int, Callable[..., None], tuple[Any, ...]]] = []
        self._is_client_gone = False
        self._is_server_gone = False
        self._calls: list[tuple[End, End]] = []
        found = network.listener(endpoint)
        #: Who is dialled: known by name even while nobody listens there.
        self.server_name = found.process.name if found else endpoint.rpartition(":")[0]
        self._there = _Wire(network, client.name, self.server_name)
        self._back = _Wire(network, self.server_name, client.name)
        self._there(0, self._knock)
        network.call_at(network.time() + CONNECT_TIMEOUT_S, self._give_up)

    @property
    def is_usable(self) -> bool:
        """Whether the client knows of nothing that broke it."""
        return not self._is_client_gone

    def open_call(self, head: Head) -> End:
        """Return the client's end of a new call."""
        to_server, server = self._ways(head)
        client = End(to_server)
        client.peer, server.peer = server, client
        self._calls = [call for call in self._calls if not (call[0].is_over and call[1].is_over)]
        self._calls.append((client, server))
        to_server(0, self._take, head, server)
        return client

    def _ways(self, head: Head) -> tuple[Post, End]:
        """Return how a call goes to the server, and the end that it comes out at."""
        quality = self._network.quality(self.client.name, self.server_name)
        to_server, server = self._to_server, End(self._to_client)
        if not (quality.duplication or quality.reordering):
            return to_server, server
        listener = self._network.listener(self._endpoint)
        if listener is None or not listener.is_unary(head.path):
            return to_server, server
        if held_s := self._network.late_s(quality, quality.reordering):
            to_server = partial(self._later, held_s)
        if again_s := self._network.late_s(quality, quality.duplication):
            server = _Twice(self._to_client, partial(self._again, again_s, head))
        return to_server, server

    def _later(
        self, held_s: float, size: int, deliver: Callable[..., None], *arguments: Any
    ) -> None:
        when = self._network.time() + held_s
        self._network.call_at(when, self._to_server, size, deliver, *arguments)

    def _again(self, again_s: float, head: Head, requests: list[bytes]) -> None:
        self._network.call_at(self._network.time() + again_s, self._take_again, head, requests)

    def _take_again(self, head: Head, requests: list[bytes]) -> None:
        """Whoever listens now carries the call out once more; nobody reads the answer."""
        listener = self._network.listener(self._endpoint)
        if listener is None or self._network.is_cut(self.client.name, self.server_name):
            return
        end, nobody = End(nowhere), End(nowhere)
        end.peer = nobody
        listener.take(head, end, self.client.name)
        for data in requests:
            end.arrived(data)
        end.was_finished(None)

    def close(self) -> None:
        """The client lets go; the server hears of it."""
        self._there(0, self._break_server)
        self._is_client_gone = True
        self._forget_if_gone()

    # -- faults --

    def resume(self) -> None:
        """Go on where a cut held things back."""
        self._there.resume()
        self._back.resume()

    def reset(self) -> None:
        """Break it at both sides, now."""
        self._break_client(StreamBrokenError(f"connection to {self._endpoint} reset"))
        self._break_server()

    def vanish(self, *, noticed_by_client: bool) -> None:
        """Break it at one side; nothing passes any more, and the other side is not told."""
        self._there.close()
        self._back.close()
        if noticed_by_client:
            self._break_client(StreamBrokenError(f"connection to {self._endpoint} reset"))
        else:
            self._break_server()

    def died(self, process: Process) -> None:
        """A process died: its kernel tells the other side."""
        if process is self.client:
            self.close()
        elif self._listener is not None and process is self._listener.process:
            self._close_at_server()

    def stopped(self, listener: SimulatedListener) -> None:
        """A listener has stopped: it closes what was connected to it."""
        if listener is self._listener:
            self._close_at_server()

    def _close_at_server(self) -> None:
        self._is_server_gone = True
        self._back(0, self._break_client, StreamBrokenError(f"{self._endpoint} is gone"))
        self._forget_if_gone()

    # -- what is sent --

    def _to_server(self, size: int, deliver: Callable[..., None], *arguments: Any) -> None:
        if not self._is_established:
            self._unsent.append((size, deliver, arguments))
        elif self.client.is_alive:
            self._network.leaves("send", size, self.client.name, self.server_name)
            if self.client.is_alive:
                self._there(size, self._at_server, deliver, arguments)

    def _to_client(self, size: int, deliver: Callable[..., None], *arguments: Any) -> None:
        if not self._is_server_gone:
            self._network.leaves("reply", size, self.server_name, self.client.name)
        if not self._is_server_gone:
            self._back(size, deliver, *arguments)

    # -- what arrives --

    def _knock(self) -> None:
        """The client would connect: somebody listens, or the kernel refuses."""
        self._listener = self._network.listener(self._endpoint)
        if self._listener is None:
            self._is_server_gone = True
            refusal = PeerRefusedError(f"nobody listens at {self._endpoint}")
            self._back(0, self._break_client, refusal)
        else:
            self._back(0, self._establish)

    def _establish(self) -> None:
        self._is_established = True
        unsent, self._unsent = self._unsent, []
        for size, deliver, arguments in unsent:
            self._to_server(size, deliver, *arguments)

    def _give_up(self) -> None:
        if not self._is_established:
            self._is_server_gone = True
            self._break_client(StreamBrokenError(f"cannot connect to {self._endpoint}: no answer"))

    def _at_server(self, deliver: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if not self._is_server_gone:
            deliver(*arguments)

    def _take(self, head: Head, end: End) -> None:
        listener = self._listener
        assert listener is not None
        if self._network.listener(self._endpoint) is listener:
            listener.take(head, end, self.client.name)
        else:
            end.finish(StreamBrokenError(f"{self._endpoint} has stopped"))

    def _break_client(self, error: Exception) -> None:
        self._is_client_gone = True
        for client, _server in self._calls:
            client.broke(error)
        self._forget_if_gone()

    def _break_server(self) -> None:
        if not self._is_server_gone:
            self._is_server_gone = True
            for _client, server in self._calls:
                server.broke(StreamBrokenError(f"connection from {self.client.name} lost"))
        self._forget_if_gone()

    def _forget_if_gone(self) -> None:
        if self._is_client_gone and self._is_server_gone:
            self._there.close()
            self._back.close()
            self._forget()


class _Twice(End):
    """The server's end of a unary call; it remembers what came, to be carried out again."""

    def __init__(self, post: Post, again: Callable[[list[bytes]], None]) -> None:
        super().__init__(post)
        self._again = again
        self._requests: list[bytes] = []

    def arrived(self, data: bytes) -> None:
        self._requests.append(data)
        super().arrived(data)

    def was_finished(self, failure: Exception | None) -> None:
        super().was_finished(failure)
        if failure is None:
            self._again(self._requests)


class _Wire:
    """One direction of a TCP connection: in order, delayed, held back while cut."""

    def __init__(self, network: SimulatedNetwork, source: str, target: str) -> None:
        self._network = network
        self._source = source
        self._target = target
        self._waiting: deque[tuple[float, Callable[..., None], tuple[Any, ...]]] = deque()
        self._is_waking = False
        self._is_closed = False
        self._arrival_s = 0.0

    def __call__(self, size: int, deliver: Callable[..., None], *arguments: Any) -> None:
        if self._is_closed:
            return
        quality = self._network.quality(self._source, self._target)
        now_s = self._network.time()
        sending_s = size / quality.bytes_per_s if quality.bytes_per_s else 0.0
        arrival_s = max(now_s + self._network.delay_s(quality), self._arrival_s) + sending_s
        self._arrival_s = arrival_s
        self._waiting.append((arrival_s, deliver, arguments))
        self._wake_at_next()

    def resume(self) -> None:
        """A cut may have healed: what was held back comes after one more delay."""
        if self._waiting and not self._is_waking:
            quality = self._network.quality(self._source, self._target)
            self._is_waking = True
            now_s = self._network.time()
            self._network.call_at(now_s + self._network.delay_s(quality), self._arrive)

    def close(self) -> None:
        """Nothing arrives any more."""
        self._is_closed = True
        self._waiting.clear()

    def _wake_at_next(self) -> None:
        if self._waiting and not self._is_waking and not self._is_held():
            self._is_waking = True
            self._network.call_at(self._waiting[0][0], self._arrive)

    def _arrive(self) -> None:
        self._is_waking = False
        while self._waiting and self._waiting[0][0] <= self._network.time():
            if self._is_held():
                return
            _when, deliver, arguments = self._waiting.popleft()
            deliver(*arguments)
        self._wake_at_next()

    def _is_held(self) -> bool:
        return self._network.is_cut(self._source, self._target)
