"""What a simulation does not have, and the errors that say so: threads, sockets, real sleeps.

A call that waits in real time would hold up virtual time for all nodes, and no seed determines
its result. So such a call fails at once, and its error names what to use instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

L = TypeVar("L", bound=type[asyncio.AbstractEventLoop])


class SimulationError(Exception):
    """The simulation failed.

    A task failed that no other task awaits, or the program hung, never ended, or used what is not
    simulated.
    """


_THREADS: Final = (
    "a simulation has no threads: await the work in the loop, or do it before or after the run"
)
_SOCKETS: Final = (
    "a simulation has no sockets: the classes of `quorate` reach the simulated cluster; replace"
    " other connections by an object of the test"
)
_PROCESSES: Final = (
    "a simulation has no child processes: start a program as a coroutine, with cluster.spawn()"
)
_SIGNALS: Final = "a simulation gets no signals: cancel the task, or use cluster.faults.kill()"

#: Methods of an event loop -> what is said of them.
_LOOP_CALLS: Final = {
    "run_in_executor": _THREADS,
    **dict.fromkeys(
        (
            "getaddrinfo", "getnameinfo", "create_connection", "create_server",
            "create_datagram_endpoint", "create_unix_connection", "create_unix_server",
            "sock_connect", "sock_accept", "sock_recv", "sock_recv_into", "sock_sendall",
            "add_reader", "add_writer", "connect_accepted_socket", "connect_read_pipe",
            "connect_write_pipe",
        ),
        _SOCKETS,
    ),
    **dict.fromkeys(("subprocess_exec", "subprocess_shell"), _PROCESSES),
    "add_signal_handler": _SIGNALS,
}  # fmt: skip
#: (where, name, what is said of it) of each function that waits in real time.
_REAL_CALLS: Final[tuple[tuple[Any, str, str], ...]] = (
    (
        time,
        "sleep",
        "a simulation has no real time, and time.sleep() would stop every node: await"
        " asyncio.sleep(), or cluster.clock.advance()",
    ),
    (threading.Thread, "start", _THREADS),
    (socket.socket, "connect", _SOCKETS),
    (socket.socket, "connect_ex", _SOCKETS),
    (socket.socket, "bind", _SOCKETS),
    (socket, "getaddrinfo", _SOCKETS),
    (subprocess.Popen, "__init__", _PROCESSES),
    (os, "fork", _PROCESSES),
)


def without_the_real_world(kind: L) -> L:
    """Make the methods of an event loop fail that need threads, sockets, children or signals."""
    for name, said in _LOOP_CALLS.items():
        setattr(kind, name, _refusing(name, said))
    return kind


def _refusing(name: str, said: str) -> Callable[..., Any]:
    def refuse(_loop: object, *arguments: object, **_named: object) -> Any:
        given = ", ".join(repr(one) for one in arguments if one is not None)
        raise SimulationError(f"{name}({given}): {said}")

    refuse.__name__ = name
    return refuse


@contextlib.contextmanager
def only_simulated(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Make real sleeps, threads, sockets and child processes fail in what this loop runs.

    Other threads are not affected.
    """
    with contextlib.ExitStack() as stack:
        for place, name, said in _REAL_CALLS:
            stack.callback(_replace(loop, place, name, said))
        yield


def _replace(
    loop: asyncio.AbstractEventLoop, place: Any, name: str, said: str
) -> Callable[[], None]:
    """Put a check before one function. Return what takes it out again."""
    is_inherited = name not in vars(place)
    real = getattr(place, name)
    label = f"{place.__name__}.{name}"

    @functools.wraps(real)
    def check(*arguments: Any, **named: Any) -> Any:
        if asyncio._get_running_loop() is loop:
            raise SimulationError(f"{label}: {said}")
        return real(*arguments, **named)

    setattr(place, name, check)
    return (
        functools.partial(delattr, place, name)
        if is_inherited
        else (functools.partial(setattr, place, name, real))
    )
