"""A simulated TCP connection: its calls, and a wire in each direction that keeps the order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from quorate.errors import PeerRefusedError, StreamBrokenError
from quorate.net.network import Head
from quorate_testing.call import End, Post, nowhere
from quorate_testing.simulated.links import Links
from quorate_testing.simulated.listener import SimulatedListener
from quorate_testing.simulated.loop import Process

#: If nothing answers, an attempt to connect fails after this time. GrpcNetwork sets the same time.
CONNECT_TIMEOUT_S = 0.5


class TcpConnection:
    """One simulated TCP connection, with its calls.

    No message of a call leaves before the connection is established. So a call that was refused, or
    could not connect, was certainly not carried out.
    """

    def __init__(
        self,
        links: Links,
        listeners: Mapping[str, SimulatedListener],
        client: Process,
        endpoint: str,
        living: dict[TcpConnection, None],
    ) -> None:
        self.client = client
        self._links = links
        self._listeners = listeners
        self._endpoint = endpoint
        self._living = living
        #: The listener that accepted the connection.
        self._listener: SimulatedListener | None = None
        self._is_established = False
        self._unsent: list[tuple[int, Callable[..., None], tuple[Any, ...]]] = []
        self._is_client_gone = False
        self._is_server_gone = False
        self._calls: list[tuple[End, End]] = []
        found = listeners.get(endpoint)
        #: The name of the process at the other side. It may not listen, or not exist yet.
        self.server_name = found.process.name if found else endpoint.rpartition(":")[0]
        self._there = Wire(links, client.name, self.server_name)
        self._back = Wire(links, self.server_name, client.name)
        self._there(0, self._knock)
        self._giving_up = links.call_at(links.time() + CONNECT_TIMEOUT_S, self._give_up)

    @property
    def is_usable(self) -> bool:
        """Whether the client has not seen the connection break."""
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
        """Return the wire of a call to the server, and the server's end of the call."""
        quality = self._links.quality(self.client.name, self.server_name)
        to_server, server = self._to_server, End(self._to_client)
        if not (quality.duplication or quality.reordering):
            return to_server, server
        listener = self._listeners.get(self._endpoint)
        if listener is None or not listener.is_unary(head.path):
            return to_server, server
        if held_s := self._links.late_s(quality, quality.reordering):
            to_server = partial(self._later, held_s)
        if again_s := self._links.late_s(quality, quality.duplication):
            server = Twice(self._to_client, partial(self._again, again_s, head))
        return to_server, server

    def _later(
        self, held_s: float, size: int, deliver: Callable[..., None], *arguments: Any
    ) -> None:
        when = self._links.time() + held_s
        self._links.call_at(when, self._to_server, size, deliver, *arguments)

    def _again(self, again_s: float, head: Head, requests: list[bytes]) -> None:
        self._links.call_at(self._links.time() + again_s, self._take_again, head, requests)

    def _take_again(self, head: Head, requests: list[bytes]) -> None:
        """Let the process that listens now carry out the call again. Its answer is dropped."""
        listener = self._listeners.get(self._endpoint)
        if listener is None or self._links.is_cut(self.client.name, self.server_name):
            return
        end, dropping = End(nowhere), End(nowhere)
        end.peer = dropping
        listener.take(head, end, self.client.name)
        for data in requests:
            end.arrived(data)
        end.was_finished(None)

    def close(self) -> None:
        """Close the connection from the client's side. The server sees it later."""
        self._there(0, self._break_server)
        self._is_client_gone = True
        self._forget_if_gone()

    # -- faults --

    def resume(self) -> None:
        """Continue with the messages that a cut held back."""
        self._there.resume()
        self._back.resume()

    def reset(self) -> None:
        """Break the connection at both sides, now."""
        self._break_client(StreamBrokenError(f"connection to {self._endpoint} reset"))
        self._break_server()

    def vanish(self, *, noticed_by_client: bool) -> None:
        """Break the connection at one side.

        No message passes any more; the other side sees silence.
        """
        self._there.close()
        self._back.close()
        if noticed_by_client:
            self._break_client(StreamBrokenError(f"connection to {self._endpoint} reset"))
        else:
            self._break_server()

    def died(self, process: Process) -> None:
        """Close the connection if the process that has died is at one of its sides."""
        if process is self.client:
            self.close()
        elif self._listener is not None and process is self._listener.process:
            self._close_at_server()

    def stopped(self, listener: SimulatedListener) -> None:
        """Close the connection if it belongs to the listener that has stopped."""
        if listener is self._listener:
            self._close_at_server()

    def _close_at_server(self) -> None:
        self._is_server_gone = True
        self._back(0, self._break_client, StreamBrokenError(f"{self._endpoint} is gone"))
        self._forget_if_gone()

    # -- sending --

    def _to_server(self, size: int, deliver: Callable[..., None], *arguments: Any) -> None:
        if not self._is_established:
            self._unsent.append((size, deliver, arguments))
        elif self.client.is_alive:
            self._links.leaves("send", size, self.client.name, self.server_name)
            if self.client.is_alive:
                self._there(size, self._at_server, deliver, arguments)

    def _to_client(self, size: int, deliver: Callable[..., None], *arguments: Any) -> None:
        if not self._is_server_gone:
            self._links.leaves("reply", size, self.server_name, self.client.name)
        if not self._is_server_gone:
            self._back(size, deliver, *arguments)

    # -- arrivals --

    def _knock(self) -> None:
        """Connect. If no process listens at the endpoint, the kernel there refuses."""
        self._listener = self._listeners.get(self._endpoint)
        if self._listener is None:
            self._is_server_gone = True
            refusal = PeerRefusedError(f"no server listens at {self._endpoint}")
            self._back(0, self._break_client, refusal)
        else:
            self._back(0, self._establish)

    def _establish(self) -> None:
        self._is_established = True
        self._giving_up.cancel()
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
        if self._listeners.get(self._endpoint) is listener:
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
            self._giving_up.cancel()
            self._there.close()
            self._back.close()
            self._living.pop(self, None)


class Twice(End):
    """The server's end of a unary call that is carried out twice. It keeps the request."""

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


class Wire:
    """One direction of a TCP connection.

    It keeps the order, adds a delay, and stops during a cut.
    """

    def __init__(self, links: Links, source: str, target: str) -> None:
        self._links = links
        self._source = source
        self._target = target
        self._waiting: deque[tuple[float, Callable[..., None], tuple[Any, ...]]] = deque()
        self._is_waking = False
        self._is_closed = False
        self._sent_s = self._arrival_s = 0.0

    def __call__(self, size: int, deliver: Callable[..., None], *arguments: Any) -> None:
        if self._is_closed:
            return
        now_s = self._links.time()
        # What is no message, as the end of a call, leaves in one packet with the message before it.
        if size or now_s != self._sent_s or not self._waiting:
            self._sent_s = now_s
            quality = self._links.quality(self._source, self._target)
            sending_s = size / quality.bytes_per_s if quality.bytes_per_s else 0.0
            delay_s = self._links.delay_s(quality)
            self._arrival_s = max(now_s + delay_s, self._arrival_s) + sending_s
        self._waiting.append((self._arrival_s, deliver, arguments))
        if not self._is_waking:
            self._wake_at_next()

    def resume(self) -> None:
        """Continue after a cut. Messages that were held back arrive after one more delay."""
        if self._waiting and not self._is_waking:
            quality = self._links.quality(self._source, self._target)
            self._is_waking = True
            now_s = self._links.time()
            self._links.call_at(now_s + self._links.delay_s(quality), self._arrive)

    def close(self) -> None:
        """From now on, drop all messages."""
        self._is_closed = True
        self._waiting.clear()

    def _wake_at_next(self) -> None:
        if self._waiting and not self._is_waking and not self._is_held():
            self._is_waking = True
            self._links.call_at(self._waiting[0][0], self._arrive)

    def _arrive(self) -> None:
        self._is_waking = False
        while self._waiting and self._waiting[0][0] <= self._links.time():
            if self._is_held():
                return
            _when, deliver, arguments = self._waiting.popleft()
            deliver(*arguments)
        self._wake_at_next()

    def _is_held(self) -> bool:
        return self._links.is_cut(self._source, self._target)
