"""The network seam: the interface between clients, servers and the wire.

Three implementations: gRPC (quorate.net.grpc_network), in-process (quorate_testing) and simulated
(quorate_testing.simulated). All of them carry encoded bytes. A call raises PeerRefusedError,
StreamBrokenError, DeadlineExceededError or PeerError; WrongClusterError if the listener belongs to
another cluster than the call is meant for; and no other error.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
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

#: What a connection is for. Data and control never share a TCP connection: large data would delay
#: a heartbeat.
Purpose = Literal["control", "data"]

#: Largest protobuf message of a request, without the payload of a frame. The server parses it in
#: one turn of its loop. In the worst case, empty entries, 1 MiB takes 25 ms; 64 MiB took seconds.
REQUEST_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class Method(Generic[Q, R]):
    """One call of a service: its path, and how requests and responses become bytes."""

    path: str  # "/quorate.v1.Records/Produce"
    encode_request: Callable[[Q], bytes]
    decode_request: Callable[[bytes], Q]
    encode_response: Callable[[R], bytes]
    decode_response: Callable[[bytes], R]
    streams_requests: bool = False
    streams_responses: bool = False


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a call, which goes before its messages."""

    path: str
    #: The cluster that the call is meant for. A listener of another cluster refuses it before any
    #: service sees it (WrongClusterError). Empty: any cluster.
    cluster_id: str = ""
    #: Time that the caller waits for the answer of a unary call; 0: the call is a stream.
    timeout_ms: int = 0


@dataclass(frozen=True, slots=True)
class Peer:
    """The caller, as far as the listener knows it."""

    address: str
    principal: Principal = ANONYMOUS
    #: Time that the caller of a unary call still waits; 0: not known.
    timeout_ms: int = 0
    #: The name of the listener that took the call; empty: the listener has no name.
    listener: str = ""


def any_cluster() -> str:
    """Return no cluster id: for callers that learn the id from the answer."""
    return ""


def wrong_cluster(head: Head, ours: str) -> str | None:
    """Return why a listener of cluster `ours` refuses a call; None if it accepts the call."""
    if not head.cluster_id or not ours or head.cluster_id == ours:
        return None
    return (
        f"{head.path} was meant for cluster {head.cluster_id}, and cluster {ours} listens at this "
        "address; nothing was done"
    )


class Stream(Protocol[R_co]):
    """The responses of an open stream: an async iterator that its owner must close.

    __anext__ raises the errors of the network, and the errors that `requests` raised. After an
    error, the end, or a cancelled __anext__ the stream is over and `requests` is closed.
    """

    def __aiter__(self) -> AsyncIterator[R_co]: ...
    async def __anext__(self) -> R_co: ...
    async def aclose(self) -> None:
        """Cancel the stream if it is still open; safe to call twice."""


class Connection(Protocol):
    """A lazy connection to one endpoint. It reconnects by itself; calls are not retried."""

    async def unary(self, method: Method[Q, R], request: Q, *, timeout_ms: int) -> R:
        """Send one request, and return its response."""

    def stream(self, method: Method[Q, R], requests: AsyncIterator[Q]) -> Stream[R]:
        """Open a stream that sends the items of `requests`, one at a time as the wire takes them.

        The end of `requests` half-closes the stream. `requests` is closed when the stream ends.
        """

    async def close(self) -> None:
        """Close the connection; open calls on it break."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Result of a probe: no process listens at that address."""


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Result of a probe: no answer within the timeout. This proves nothing about the process."""


@dataclass(frozen=True, slots=True)
class Answered:
    """Result of a probe: this node answered."""

    node_id: int
    incarnation: bytes


ProbeResult = Refused | NoAnswer | Answered

#: A handler takes (request | async iterator of requests, Peer) and is a coroutine or, for
#: methods that stream responses, an async generator. Services put their errors into the response's
#: error field. An error that escapes from a handler becomes, at the caller:
#:   InvalidRequestError     PeerError("INVALID_ARGUMENT")
#:   a retriable error       StreamBrokenError
#:   any other               PeerError("INTERNAL")
Handler = Callable[[Any, Peer], Any]


class Service(Protocol):
    """A plain class of async methods, with the table of the calls that they handle."""

    def handlers(self) -> Mapping[Method[Any, Any], Handler]: ...


class Listener(Protocol):
    """A served endpoint."""

    @property
    def endpoint(self) -> str:
        """The bound address, as host:port. The chosen port replaces a port of 0."""

    async def stop(self, grace_ms: int) -> None:
        """Take no new calls, wait up to grace_ms for open ones, then cancel them."""


class Network(Protocol):
    """The interface to other nodes."""

    def connect(
        self,
        endpoint: str,
        *,
        purpose: Purpose = "data",
        cluster_id: Callable[[], str] = any_cluster,
    ) -> Connection:
        """Return a lazy connection. Its calls are meant for the cluster of `cluster_id`."""

    async def serve(
        self,
        endpoint: str,
        services: Sequence[Service],
        *,
        cluster_id: str = "",
        listener: str = "",
    ) -> Listener:
        """Listen as a node of that cluster; OSError that names the endpoint if the port is in use.

        `listener` is the listener's name. Services find it in Peer.listener.
        """

    async def probe(self, endpoint: str, *, timeout_ms: int) -> ProbeResult:
        """Ask which node listens there (Node/Identify). May connect first, to prove Refused."""

    async def close(self) -> None:
        """Close every connection that this network made."""


#: The network that clients use; None: gRPC, imported at first use.
current_network: ContextVar[Network | None] = ContextVar("quorate_network", default=None)
#: Chance and wall clock of clients; None: the system's. The simulated world sets all three
#: variables.
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
    """Return the Method whose requests and responses are plain protobuf messages."""
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
    """Return a parser that checks the size first: see REQUEST_BYTES_MAX."""

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
