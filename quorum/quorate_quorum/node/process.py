"""One node as one process, from the command line to the exit status.

    0   stopped cleanly, by SIGTERM or SIGINT
    78  wrong configuration: nothing was changed, and another start would fail in the same way
    70  a broken invariant or a failed disk: another node takes over

Only `python -m quorate_quorum` and `python -m quorate_broker` use this module. An embedded node has
no process of its own, so this module decides nothing about a node.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import platform
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NoReturn, Protocol, TypeVar

import structlog

from quorate import __version__
from quorate.aio.loops import is_noise_of_grpc, loop_factory
from quorate.errors import StorageError
from quorate_quorum.node.config import BrokerConfig, ConfigError, NodeConfig
from quorate_quorum.node.config_sources import load, settings
from quorate_quorum.node.contradictions import without_effect
from quorate_quorum.node.listeners import is_name, is_wildcard
from quorate_quorum.node.logs import set_up_logs
from quorate_quorum.node.resources import (
    collect_garbage_in_parts,
    keep_freed_memory,
    raise_open_files,
)
from quorate_quorum.node.server import NodeFailed
from quorate_quorum.node.stall_watch import StallWatch
from quorate_quorum.node.streams import open_standard_streams

EXIT_CLEAN: Final = 0
EXIT_FAILED: Final = 70  # EX_SOFTWARE of sysexits.h
EXIT_CONFIG: Final = 78  # EX_CONFIG
EXIT_WAIT_S: Final = 5.0  # the longest wait for the tasks of a failed node to end
#: The time within which two signals count as one: a terminal and a parent process may both send
#: one.
SIGNALS_APART_S: Final = 0.5
LOGS_WAIT_S: Final = 1.0  # the longest wait for the last lines of the log

log = structlog.get_logger(__name__)


class Server(Protocol):
    """A node that has started."""

    async def stop(self) -> None:
        """Stop cleanly. A second call does nothing more."""

    def fail(self, reason: str) -> None:
        """Stop at once, not cleanly."""

    async def stopped(self) -> None:
        """Wait until the node has stopped. Raises NodeFailed if it failed."""


C = TypeVar("C", bound=NodeConfig)


def main(
    kind: type[C],
    start: Callable[[C], Awaitable[Server]],
    arguments: Sequence[str] | None = None,
) -> int:
    """Run one node in the foreground. Return the exit status.

    If `arguments` is None, those of the command line count. `start` must import grpc itself,
    because main() first sets the environment that grpc reads at its import.
    """
    open_standard_streams()
    if sys.flags.optimize:
        return _refuse("python -O removes the checks that stop a node before it does harm")
    try:
        config = configure(kind, arguments, os.environ)
        check_resolves(config)
    except ConfigError as error:
        return _refuse(str(error))
    # Grpc prints no lines of its own, because the node logs.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    writer = set_up_logs(config.log_level)
    log.info(
        "starting", version=__version__, python=platform.python_version(), settings=settings(config)
    )
    for sentence in without_effect(config):
        log.warning("setting_without_effect", reason=sentence)
    raise_open_files()
    keep_freed_memory()
    collect_garbage_in_parts()
    if config.is_insecure:
        log.warning("listeners are open to others and not encrypted", listeners=config.listeners)
    status = run(lambda: start(config))
    writer.drain(LOGS_WAIT_S)
    return status


def leave(status: int) -> NoReturn:
    """End the process at once with this status, whatever its remaining threads do.

    A thread that waits for a failed disk may never end. A thread of gRPC that still runs can crash
    the process while the interpreter shuts down, though the node has stopped cleanly.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def configure(kind: type[C], arguments: Sequence[str] | None, env: Mapping[str, str]) -> C:
    """Return the configuration from --config, the environment and --set.

    Raises ConfigError if the configuration or the command line is wrong.
    """
    program = "quorate-broker" if issubclass(kind, BrokerConfig) else "quorate-quorum"
    parser = _Parser(
        prog=program,
        description="Run one node in the foreground; it logs to standard error, "
        "with its settings in the first line. SIGTERM and Ctrl-C stop it cleanly.",
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"{program} {__version__}",
        help="print the version and exit",
    )
    parser.add_argument("--config", metavar="FILE", help="its configuration, in TOML")
    parser.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        dest="sets",
        help="a setting that beats the file and the environment; may be repeated",
    )
    parsed = parser.parse_args(arguments)
    return load(kind, parsed.config, env, parsed.sets)


def check_resolves(config: NodeConfig) -> None:
    """Raise ConfigError if an advertised host is a name that this machine can't resolve.

    A node with such a name would join the cluster, and no client could reach it. The same happens
    with a name that resolves to the wildcard address, as 0x0 resolves to 0.0.0.0.
    """
    name = "advertised.listeners" if config.advertised_listeners else "listeners"
    for address in config.advertised_addresses:
        if not is_name(address.host):
            continue
        try:
            found = socket.getaddrinfo(address.host, None)
        except (OSError, UnicodeError) as error:  # UnicodeError: a label is empty or too long
            reason = getattr(error, "strerror", error)
            raise ConfigError(
                f"{name}: {address} has a host that cannot be resolved here ({reason}), so clients"
                " that are told it could not connect: give a name that resolves, or an IP address"
            ) from None
        wildcard = next((str(to[0]) for *_, to in found if is_wildcard(str(to[0]))), None)
        if wildcard is not None:
            raise ConfigError(
                f"{name}: {address} has a host that resolves to {wildcard}, which is no address"
                " that others can dial: set advertised.listeners to one that is"
            )


def run(start: Callable[[], Awaitable[Server]]) -> int:
    """Start a node, wait until it has stopped or failed, and return the exit status.

    A signal stops the node.
    """
    try:
        with _exit_for_sure() as failing, asyncio.Runner(loop_factory=loop_factory()) as runner:
            try:
                runner.run(_Life(start).live())
            except BaseException:
                failing.start()
                raise
    except ConfigError as error:
        log.error("wrong configuration", reason=str(error))
        return EXIT_CONFIG
    except NodeFailed as error:
        log.error("the node failed", reason=error.reason)
        return EXIT_FAILED
    except (StorageError, OSError) as error:  # no traceback: the cause is outside of the program
        log.error("the node failed", reason=str(error))
        return EXIT_FAILED
    except Exception:
        log.exception("the node failed")
        return EXIT_FAILED
    log.info("stopped cleanly")
    return EXIT_CLEAN


class _Life:
    """One run of a node. A signal, a failure or the node itself ends it."""

    def __init__(self, start: Callable[[], Awaitable[Server]]) -> None:
        self._start = start
        self._server: Server | None = None
        self._failure: str | None = None
        self._signalled_at: float | None = None
        self._ending = asyncio.Event()  # set by a signal, or by an error in the event loop

    async def live(self) -> None:
        """Run the node to its end. Raises the failure, unless the node stopped cleanly."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._met)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)
        ending = asyncio.ensure_future(self._ending.wait())
        try:
            await self._live(ending)
        finally:
            await _cancel(ending)
        if self._failure is not None:
            raise NodeFailed(self._failure)

    async def _live(self, ending: asyncio.Future[Any]) -> None:
        starting = asyncio.ensure_future(self._start())
        await asyncio.wait((starting, ending), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            return await _cancel(starting)
        self._server = server = starting.result()
        if self._failure is not None:
            server.fail(self._failure)
        stopped = asyncio.ensure_future(server.stopped())
        # Not before the start: its imports block the event loop, but at that time no caller waits.
        stalls = asyncio.ensure_future(StallWatch().run())
        try:
            await asyncio.wait((stopped, ending), return_when=asyncio.FIRST_COMPLETED)
            if not stopped.done() and self._failure is None:
                await server.stop()
            await stopped
        finally:
            await _cancel(stopped)
            await _cancel(stalls)

    def _signalled(self, number: signal.Signals) -> None:
        now = asyncio.get_running_loop().time()
        is_first = self._signalled_at is None
        if self._signalled_at is None:
            self._signalled_at = now
        elif now - self._signalled_at < SIGNALS_APART_S:
            return
        log.info("told to stop", signal=signal.Signals(number).name)
        self._ending.set()
        if not is_first and self._server is not None:
            self._server.fail("told to stop again before a clean stop was done")

    def _met(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Fail the node, because no code handled this error: the node's state may be wrong."""
        error = context.get("exception")
        message = context.get("message", "an error in the event loop")
        if error is None:
            log.error("the event loop complains", message=message)
            return
        if is_noise_of_grpc(error):
            log.warning("grpc complains", message=message, error=repr(error))
            return
        log.error("an error was not handled", message=message, exc_info=error)
        reason = f"{message}: {type(error).__name__}: {error}"
        self._failure = self._failure or reason
        self._ending.set()
        if self._server is not None:
            self._server.fail(reason)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}\n{self.format_usage().strip()}")


def _refuse(reason: str) -> int:
    """Print the reason to standard error, because the log is not set up yet."""
    print(f"wrong configuration: {reason}", file=sys.stderr)
    return EXIT_CONFIG


@contextlib.contextmanager
def _exit_for_sure() -> Iterator[threading.Timer]:
    """Yield a timer. Once started, it ends the process, unless this context ends first.

    Otherwise the tasks of a failed node could wait for ever for a disk that does not answer.
    """
    timer = threading.Timer(EXIT_WAIT_S, os._exit, (EXIT_FAILED,))
    timer.daemon = True
    try:
        yield timer
    finally:
        timer.cancel()


async def _cancel(future: asyncio.Future[Any]) -> None:
    """Cancel a future and wait for its end. Raises its error, unless that is the cancellation."""
    future.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await future
