"""The network seam: the interface between clients, servers and the wire.

There are three implementations: gRPC (quorate.net.grpc_network), in-process (quorate_testing) and
simulated (quorate_testing.simulated). All of them transport encoded bytes.

A call raises PeerRefusedError, StreamBrokenError, DeadlineExceededError or PeerError. It raises
WrongClusterError if the listener belongs to another cluster than the call is meant for. It raises
no other error.
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

#: What a connection is for. Data and control never share a TCP connection, because large data would
#: delay a heartbeat.
Purpose = Literal["control", "data"]

#: Largest protobuf message of a request, without the payload of a frame. The server parses the
#: message in one turn of its loop. Messages of empty entries are the slowest to parse: 1 MiB takes
#: 25 ms, 64 MiB took seconds.
REQUEST_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class Method(Generic[Q, R]):
    """One call of a service: its path, and how its requests and responses become bytes."""

    path: str  # "/quorate.v1.Records/Produce"
    encode_request: Callable[[Q], bytes]
    decode_request: Callable[[bytes], Q]
    encode_response: Callable[[R], bytes]
    decode_response: Callable[[bytes], R]
    streams_requests: bool = False
    streams_responses: bool = False


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a call. It is sent before the call's messages."""

    path: str
    #: The cluster that the call is meant for; empty: any cluster. A listener of another cluster
    #: refuses the call before a service sees it (WrongClusterError).
    cluster_id: str = ""
    #: How long the caller waits for the answer of a unary call; 0: the call is a stream.
    timeout_ms: int = 0


@dataclass(frozen=True, slots=True)
class Peer:
    """The caller, as far as the listener knows it."""

    address: str
    principal: Principal = ANONYMOUS
    #: How long the caller of a unary call still waits; 0: not known.
    timeout_ms: int = 0
    #: The name of the listener that took the call; empty: the listener has no name.
    listener: str = ""


def any_cluster() -> str:
    """Return an empty cluster id, for callers that learn the id from the answer."""
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
    """The responses of an open stream, as an async iterator. Its owner must close it.

    __anext__ raises the errors of the network, and those that `requests` raised. The stream is over
    after an error, at its end, and after a cancelled __anext__. Then `requests` is closed.
    """

    def __aiter__(self) -> AsyncIterator[R_co]: ...
    async def __anext__(self) -> R_co: ...
    async def aclose(self) -> None:
        """Cancel the stream if it is still open. It is safe to call this twice."""


class Connection(Protocol):
    """A lazy connection to one endpoint. It reconnects by itself, but does not retry calls."""

    async def unary(self, method: Method[Q, R], request: Q, *, timeout_ms: int) -> R:
        """Send one request, and return its response."""

    def stream(self, method: Method[Q, R], requests: AsyncIterator[Q]) -> Stream[R]:
        """Open a stream that sends the items of `requests`, one by one as the wire takes them.

        At the end of `requests` this side of the stream is closed. `requests` is closed when the
        stream ends.
        """

    async def close(self) -> None:
        """Close the connection. Open calls on it break."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Result of a probe: no process listens at the address."""


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Result of a probe: no answer came before the timeout. The process may live or be dead."""


@dataclass(frozen=True, slots=True)
class Answered:
    """Result of a probe: this node answered."""

    node_id: int
    incarnation: bytes


ProbeResult = Refused | NoAnswer | Answered

#: A handler is called with a request, or an async iterator of requests, and the Peer. It is a
#: coroutine; for methods that stream responses, an async generator. Services put their errors into
#: the response's error field. If an error escapes from a handler, the caller gets:
#:   InvalidRequestError     PeerError("INVALID_ARGUMENT")
#:   a retriable error       StreamBrokenError
#:   any other               PeerError("INTERNAL")
Handler = Callable[[Any, Peer], Any]


class Service(Protocol):
    """A class of async methods, with a table of the calls that they handle."""

    def handlers(self) -> Mapping[Method[Any, Any], Handler]: ...


class Listener(Protocol):
    """One endpoint that is served."""

    @property
    def endpoint(self) -> str:
        """The bound address, as host:port.

        If port 0 was asked for, this has the port that was chosen.
        """

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
        """Return a lazy connection.

        The connection's calls are meant for the cluster that `cluster_id` returns.
        """

    async def serve(
        self,
        endpoint: str,
        services: Sequence[Service],
        *,
        cluster_id: str = "",
        listener: str = "",
    ) -> Listener:
        """Listen as a node of cluster `cluster_id`.

        Raises OSError that names the endpoint if the port is in use.

        `listener` is the listener's name. Services find it in Peer.listener.
        """

    async def probe(self, endpoint: str, *, timeout_ms: int) -> ProbeResult:
        """Ask which node listens at the endpoint (Node/Identify).

        A network may first open a plain connection, to tell Refused from NoAnswer.
        """

    async def close(self) -> None:
        """Close every connection that this network made."""


#: The network that clients use; None: gRPC, imported at first use.
current_network: ContextVar[Network | None] = ContextVar("quorate_network", default=None)
#: Random numbers and wall clock of clients; None: those of the system. The simulated world sets
#: these two variables and current_network.
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
