"""The seam to the wire: what every client and server knows of the network.

Three implementations: gRPC (quorate.net.grpc_network), in-process
(quorate_testing) and simulated (quorate_testing.simulated). All of them carry encoded bytes.
Calls raise PeerRefusedError, StreamBrokenError, DeadlineExceededError or PeerError, and
WrongClusterError where another cluster listens than the call is meant for; nothing else.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

from google.protobuf.message import Message

from quorate.errors import InvalidRequestError
from quorate.net import frame
from quorate.net.principal import ANONYMOUS, Principal

Q = TypeVar("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
MQ = TypeVar("MQ", bound=Message)
MR = TypeVar("MR", bound=Message)

#: Data and control never share a TCP connection: bulk bytes would delay a heartbeat.
Purpose = Literal["control", "data"]

#: The protobuf message of a request, without the payload of a frame. It is parsed in one turn of
#: the server's loop, and so many bytes of empty entries take 25 ms; 64 MiB of them took seconds.
REQUEST_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class Method(Generic[Q, R]):
    """One call of a service: its path, and how each side's values become bytes."""

    path: str  # "/quorate.v1.Records/Produce"
    encode_request: Callable[[Q], bytes]
    decode_request: Callable[[bytes], Q]
    encode_response: Callable[[R], bytes]
    decode_response: Callable[[bytes], R]
    streams_requests: bool = False
    streams_responses: bool = False


@dataclass(frozen=True, slots=True)
class Head:
    """What goes before the messages of a call."""

    path: str
    #: The cluster that the call is meant for; a listener of another one refuses it before any
    #: service sees it (WrongClusterError). Empty: any.
    cluster_id: str = ""
    #: How long the caller waits for the answer of a unary call; 0: a stream.
    timeout_ms: int = 0


@dataclass(frozen=True, slots=True)
class Peer:
    """Who calls, as far as the wire knows."""

    address: str
    principal: Principal = ANONYMOUS
    #: How long the caller of a unary call still waits; 0: it did not say.
    timeout_ms: int = 0
    #: The name of the listener that the call came in by; empty: the listener has none.
    listener: str = ""


def any_cluster() -> str:
    """Name no cluster: for callers that learn the cluster id from the answer."""
    return ""


def wrong_cluster(head: Head, ours: str) -> str | None:
    """Return why a listener of cluster `ours` refuses a call, None if it does not."""
    if not head.cluster_id or not ours or head.cluster_id == ours:
        return None
    return (
        f"{head.path} was meant for cluster {head.cluster_id}, and cluster {ours} listens at this "
        "address; nothing was done"
    )


class Stream(Protocol[R_co]):
    """The responses of an open stream: an async iterator that its owner must close.

    All of the four errors come from __anext__, as does what `requests` raised. After an error,
    the end, or a cancelled __anext__ the stream is over and `requests` is closed.
    """

    def __aiter__(self) -> AsyncIterator[R_co]: ...
    async def __anext__(self) -> R_co: ...
    async def aclose(self) -> None:
        """Cancel the stream if it is still open; safe to call twice."""


class Connection(Protocol):
    """A lazy connection to one endpoint; it reconnects by itself, calls do not retry."""

    async def unary(self, method: Method[Q, R], request: Q, *, timeout_ms: int) -> R:
        """Send one request, return its response."""

    def stream(self, method: Method[Q, R], requests: AsyncIterator[Q]) -> Stream[R]:
        """Open a stream that sends what `requests` yields, one at a time as the wire takes them.

        The end of `requests` half-closes. `requests` is closed when the stream ends.
        """

    async def close(self) -> None:
        """Break what is open on it."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Probe: no process listens at that address."""


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Probe: no answer within the timeout; nothing is proved."""


@dataclass(frozen=True, slots=True)
class Answered:
    """Probe: this node answered."""

    node_id: int
    incarnation: bytes


ProbeResult = Refused | NoAnswer | Answered

#: A handler takes (request | async iterator of requests, Peer) and is a coroutine or, for
#: methods that stream responses, an async generator. It may raise any QuorateError that the
#: service maps to the response's error field itself; what escapes becomes PeerError("INTERNAL"),
#: an InvalidRequestError PeerError("INVALID_ARGUMENT"), a retriable error StreamBrokenError.
Handler = Callable[[Any, Peer], Any]


class Service(Protocol):
    """A plain class of async methods, and the table that says which method is which."""

    def handlers(self) -> Mapping[Method[Any, Any], Handler]: ...


class Listener(Protocol):
    """A served endpoint."""

    @property
    def endpoint(self) -> str:
        """host:port as bound (a port of 0 was replaced by the one given)."""

    async def stop(self, grace_ms: int) -> None:
        """Take no new calls, wait up to grace_ms for open ones, then cancel them."""


class Network(Protocol):
    """The door to other nodes."""

    def connect(
        self,
        endpoint: str,
        *,
        purpose: Purpose = "data",
        cluster_id: Callable[[], str] = any_cluster,
    ) -> Connection:
        """Return a lazy connection, whose calls are meant for that cluster."""

    async def serve(
        self,
        endpoint: str,
        services: Sequence[Service],
        *,
        cluster_id: str = "",
        listener: str = "",
    ) -> Listener:
        """Listen as that cluster; raise OSError naming the endpoint if the port is in use.

        `listener`: the name of the listener, which the services find in Peer.listener.
        """

    async def probe(self, endpoint: str, *, timeout_ms: int) -> ProbeResult:
        """Ask which node listens there (Node/Identify), after a bare connect if that tells more."""

    async def close(self) -> None:
        """Close every connection that this network made."""


#: The network that clients use; None: gRPC, imported at first use.
current_network: ContextVar[Network | None] = ContextVar("quorate_network", default=None)
#: Chance and wall clock of clients; None: the system's. The simulated world sets all three.
current_chance: ContextVar[random.Random | None] = ContextVar("quorate_chance", default=None)
current_wall_clock_ms: ContextVar[Callable[[], int] | None] = ContextVar(
    "quorate_wall_clock_ms", default=None
)


def message_method(
    path: str,
    request: type[MQ],
    response: type[MR],
    *,
    request_bytes_max: int = REQUEST_BYTES_MAX,
    streams_requests: bool = False,
    streams_responses: bool = False,
) -> Method[MQ, MR]:
    """Return the Method whose two sides are plain protobuf messages."""
    return Method(
        path,
        request.SerializeToString,
        _bounded(path, request.FromString, request_bytes_max),
        response.SerializeToString,
        response.FromString,
        streams_requests,
        streams_responses,
    )


def _bounded(path: str, parse: Callable[[bytes], MQ], bytes_max: int) -> Callable[[bytes], MQ]:
    """Return a parser that looks at the size first: see REQUEST_BYTES_MAX."""

    def decode(data: bytes) -> MQ:
        if len(data) > bytes_max:
            raise InvalidRequestError(
                f"a request of {len(data)} bytes; {path} takes {bytes_max}: ask for less at once"
            )
        return parse(data)

    return decode


def framed_requests(path: str, header: type[MQ], response: type[MR]) -> Method[frame.Frame[MQ], MR]:
    """Return the Method of a bidirectional stream whose requests are frames."""
    return Method(
        path,
        frame.encode,
        frame.decoder(header, header_bytes_max=REQUEST_BYTES_MAX),
        response.SerializeToString,
        response.FromString,
        streams_requests=True,
        streams_responses=True,
    )


def framed_responses(
    path: str, request: type[MQ], header: type[MR], *, streams_requests: bool = True
) -> Method[MQ, frame.Frame[MR]]:
    """Return the Method of a stream whose responses are frames."""
    return Method(
        path,
        request.SerializeToString,
        _bounded(path, request.FromString, REQUEST_BYTES_MAX),
        frame.encode,
        frame.decoder(header),
        streams_requests=streams_requests,
        streams_responses=True,
    )


UnaryHandler = Callable[[Q, Peer], Awaitable[R]]
