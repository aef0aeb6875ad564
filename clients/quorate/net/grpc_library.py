"""The gRPC library. Only this module imports gRPC, at the first connect or serve.

Also here: the check for forked processes, the options of gRPC, and its addresses.
"""

from __future__ import annotations

import errno
import functools
import os
import socket
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from quorate.errors import WrongLoopError

if TYPE_CHECKING:
    import grpc
    import grpc.aio

    Channel = grpc.aio.Channel
    Server = grpc.aio.Server
    RpcError = grpc.aio.AioRpcError
    RpcHandler = grpc.RpcMethodHandler[Any, Any]
    GenericRpcHandler = grpc.GenericRpcHandler[Any, Any]


#: The largest answer: a batch of 64 MiB, the bound of max.message.bytes, with its header. All nodes
#: and clients send and accept this size. With a lower bound, a replica or a consumer could not get
#: past a batch that another node has accepted.
ANSWER_BYTES_MAX: Final = 66 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcOptions:
    """The bounds of a GrpcNetwork. Times are in milliseconds. The defaults suit local networks."""

    #: The largest request.
    message_bytes_max: int = 64 * 1024 * 1024
    reconnect_backoff_initial_ms: int = 50
    #: gRPC also uses this value as the time limit of one attempt to connect.
    reconnect_backoff_min_ms: int = 500
    reconnect_backoff_max_ms: int = 200
    #: Open calls on one connection; further calls wait.
    calls_per_connection_max: int = 1000
    keepalive_time_ms: int = 10_000
    keepalive_timeout_ms: int = 5_000

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, not {getattr(self, name)}")

    def _common(self) -> list[tuple[str, int]]:
        return [
            ("grpc.keepalive_time_ms", self.keepalive_time_ms),
            ("grpc.keepalive_timeout_ms", self.keepalive_timeout_ms),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
        ]

    def channel_arguments(self) -> list[tuple[str, int]]:
        """Return the arguments of every channel."""
        return [
            *self._common(),
            ("grpc.max_send_message_length", self.message_bytes_max),
            ("grpc.max_receive_message_length", max(self.message_bytes_max, ANSWER_BYTES_MAX)),
            ("grpc.initial_reconnect_backoff_ms", self.reconnect_backoff_initial_ms),
            ("grpc.min_reconnect_backoff_ms", self.reconnect_backoff_min_ms),
            ("grpc.max_reconnect_backoff_ms", self.reconnect_backoff_max_ms),
            ("grpc.dns_min_time_between_resolutions_ms", 1000),
            # No two channels share a TCP connection. This holds for control and data, and for the
            # nodes of an embedded cluster.
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", 0),
            ("grpc.enable_retries", 0),
        ]

    def server_arguments(self) -> list[tuple[str, int]]:
        """Return the arguments of every server."""
        return [
            *self._common(),
            ("grpc.max_send_message_length", max(self.message_bytes_max, ANSWER_BYTES_MAX)),
            ("grpc.max_receive_message_length", self.message_bytes_max),
            # With so_reuseport, a second server could bind the same port without an error.
            ("grpc.so_reuseport", 0),
            ("grpc.max_concurrent_streams", self.calls_per_connection_max),
            ("grpc.http2.min_ping_interval_without_data_ms", 1000),
            ("grpc.http2.max_ping_strikes", 0),
        ]


def split_endpoint(endpoint: str) -> tuple[str, int]:
    """Return host and port. Raise ValueError if the text is not host:port."""
    host, colon, port = endpoint.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"an endpoint is host:port, not {endpoint!r}")
    return host, int(port)


def target_of(endpoint: str) -> str:
    """Return the address to dial or bind: 127.0.0.1 for "localhost", on both sides.

    "localhost" also resolves to ::1, where another process may listen.
    """
    host, port = split_endpoint(endpoint)
    is_local = host.lower().removesuffix(".") == "localhost"
    return f"127.0.0.1:{port}" if is_local else endpoint


def check_bindable(endpoint: str) -> None:
    """Raise OSError, with the reason, if an address to which the endpoint resolves is not free.

    gRPC binds the addresses that it can. It does not tell which addresses it could not bind, or
    why. If another process has taken the port for IPv6 alone, gRPC opens [::] for IPv4 alone.
    """
    host, port = split_endpoint(target_of(endpoint))
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {endpoint}: {error.strerror}") from None
    for family, *_, address in found:
        # Bind as gRPC does: the IPv6 wildcard takes the port for IPv4 too.
        both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
        try:
            socket.create_server(address, family=family, dualstack_ipv6=both).close()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                told = f"port {port} is in use at {address[0]} (to listen on {endpoint})"
            else:
                reason = error.strerror or str(error)
                told = f"cannot listen on {endpoint}, at {address[0]}: {reason}"
            # a machine without IPv6 has no address of this family: gRPC does not bind it either
            if error.errno != errno.EAFNOSUPPORT:
                raise OSError(error.errno, told) from None


#: The gRPC objects of this process. A forked child inherits those of its parent.
held: weakref.WeakSet[Any] = weakref.WeakSet()
_kept_for_parent: list[Any] = []
_was_forked = False


def _forked() -> None:
    """Keep gRPC's objects alive in a forked child. gRPC cannot free them without its threads."""
    global _was_forked
    _kept_for_parent.extend(held)
    _was_forked = _was_forked or _is_grpc_in_use


os.register_at_fork(after_in_child=_forked)
_is_grpc_in_use = False


def check_fork() -> None:
    """Raise WrongLoopError in a child that was forked from a process that used gRPC.

    The child has none of the threads with which gRPC waits, so its calls would hang. gRPC's own
    support of forks does not cover asyncio.
    """
    global _is_grpc_in_use
    _is_grpc_in_use = True
    if _was_forked:
        raise WrongLoopError(
            "this process was forked from one that already used Quorate, and gRPC does not survive "
            'a fork: start the child with "spawn" or "forkserver" '
            '(multiprocessing.get_context("spawn")), or fork before the first client is started'
        )


@functools.cache
def library() -> Any:
    """Import gRPC once, and turn off its messages. Quorate logs the same errors better.

    Its support for forks is turned off, too: with threads that run, its handlers abort the child in
    one fork of ten. A child that uses no client needs none, and others are refused.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    import grpc
    import grpc.aio

    return grpc
