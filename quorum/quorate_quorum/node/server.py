"""The life of a node: it starts once, it stops once, and it reports how it ended.

    start()    runs _open(); if that fails, everything is closed again before start() raises
    stop()     runs _close(), with its courtesies to other nodes;  stopped() then returns
    fail()     runs _close() without these courtesies;             stopped() then raises

A courtesy is work that saves other nodes a wait, for example handing leadership over. Voters and
brokers are nodes. Each opens and closes its own parts in _open(), _close() and _release(). Only
this module decides when these methods run, and what happens to their errors.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar, Final, Generic, TypeVar

import structlog

from quorate.net.network import Listener, Service
from quorate_quorum.node.config import CannotListen, NodeConfig
from quorate_quorum.node.environment import Environment
from quorate_quorum.node.listeners import GRPC, ListenerAddress

log = structlog.get_logger(__name__)

C = TypeVar("C", bound=NodeConfig)

#: The time in which open streams may end by themselves, unless the node failed.
STREAMS_GRACE_MS: Final = 300
#: Two reasons of NodeFailed: a stop during start(), and a stop that took longer than `stop_max_s`.
STOPPED_EARLY: Final = "stopped before it had started"
STOPPED_LATE: Final = "it could not stop cleanly in time"


class NodeFailed(Exception):
    """A node did not stop cleanly. `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NodeServer(ABC, Generic[C]):
    """One run of a node.

    _close() runs once, after _open() has ended or was cancelled at any point. It closes everything
    that was opened so far. _release() runs last, even if _close() failed or took longer than
    `stop_max_s`. It releases the locks, and does not wait.
    """

    #: The word for the node in log lines and errors: "voter" or "broker".
    role: ClassVar[str]

    def __init__(
        self,
        config: C,
        environment: Environment,
        *,
        stop_max_s: float,
        slow_stop_max_s: float = 0.0,
    ) -> None:
        self.config = config
        self.environment = environment
        #: The id of this run of the node. Another run on the same disk has another incarnation.
        self.incarnation = environment.new_id()
        self._stop_max_s = stop_max_s
        #: The bound of a stop that reports progress; not below `stop_max_s`.
        self._slow_stop_max_s = max(stop_max_s, slow_stop_max_s)
        self._stop_limit = asyncio.timeout(None)
        self._stop_began_s = 0.0
        #: The reason why the node did not stop cleanly. It is set once.
        self._failure: str | None = None
        self._failed = asyncio.Event()
        self._ending = asyncio.Event()
        self._done = asyncio.Event()
        self._opening: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None
        #: The open listeners, by name.
        self._listeners: dict[str, Listener] = {}

    @property
    def endpoint(self) -> str:
        """The host:port at which the listener for other nodes is bound; empty if it is not open."""
        return self.endpoint_of(self.config.internal.name)

    def endpoint_of(self, listener: str) -> str:
        """Return the host:port at which a listener is bound; empty if it is not open."""
        found = self._listeners.get(listener)
        return "" if found is None else found.endpoint

    async def start(self) -> None:
        """Open the node. If this raises, nothing is left open.

        Raises ConfigError, StorageError and OSError of the opening, and
        NodeFailed: the node was stopped, or failed, meanwhile.
        """
        assert self._opening is None, f"a {self.role} starts once"
        self._opening = asyncio.create_task(self._open(), name="start")
        try:
            await self._unless_ending(self._opening)
        except BaseException:
            await asyncio.shield(self._stop_once())
            raise

    async def stop(self) -> None:
        """Stop cleanly. A second call waits for the same stop."""
        await asyncio.shield(self._stop_once())

    def fail(self, reason: str) -> None:
        """Stop at once, not cleanly. stopped() then raises NodeFailed."""
        if self._failure is None and not self._done.is_set():
            self._failure = reason
            log.error(f"{self.role}_failed", node=self.config.node_id, reason=reason)
            self._failed.set()
            self._stop_once()

    async def stopped(self) -> None:
        """Wait until the node has stopped. Raises NodeFailed if it failed."""
        await self._done.wait()
        if self._failure is not None:
            raise NodeFailed(self._failure)

    # -- for a subclass to implement

    @abstractmethod
    async def _open(self) -> None:
        """Lock and open everything. start() returns after this has returned."""

    @abstractmethod
    async def _close(self) -> None:
        """Close everything that is open. Do the courtesies first, unless the node failed."""

    @abstractmethod
    def _release(self) -> None:
        """Release the locks that were taken."""

    async def _open_listener(self, address: ListenerAddress) -> Listener:
        """Open a listener whose protocol is not gRPC. A node that has none refuses its setting."""
        raise AssertionError(f"{self.role}: no listener for {address}")

    # -- for _open() and _close()

    async def _listen(self, services: Sequence[Service], cluster_id: str = "") -> None:
        """Open every listener of the configuration. Those for gRPC have these services."""
        try:
            for address in self.config.listener_addresses:
                self._listeners[address.name] = (
                    await self.environment.network.serve(
                        address.endpoint, services, cluster_id=cluster_id, listener=address.name
                    )
                    if address.protocol == GRPC
                    else await self._open_listener(address)
                )
        except OSError as error:
            node = f"{self.role} {self.config.node_id}"
            raise CannotListen(f"{node} can't listen: {error}") from error

    async def _stop_listening(self) -> None:
        """Accept no new calls. Open calls have STREAMS_GRACE_MS to end; 0 after a failure."""
        listeners, self._listeners = list(self._listeners.values()), {}
        grace_ms = STREAMS_GRACE_MS if self._failure is None else 0
        await asyncio.gather(*(one.stop(grace_ms) for one in listeners))

    async def _unless_ending(self, work: Awaitable[Any]) -> None:
        """Wait for the work. Raises NodeFailed if the node begins to stop before the work ends."""
        if not await _done_before(self._ending, work):
            raise NodeFailed(self._failure or STOPPED_EARLY)

    async def _unless_failed(self, courtesy: Callable[[], Awaitable[Any]]) -> None:
        """Do a courtesy of a clean stop, unless the node failed. A later failure cancels it."""
        if self._failure is None:
            await _done_before(self._failed, courtesy())

    def _stop_progressed(self, further_s: float) -> None:
        """Let a stop that makes progress go on for `further_s` from now, if that is later.

        The bound `slow_stop_max_s` stays.
        """
        limit = self._stop_limit.when()
        if limit is None or self._stop_limit.expired():
            return
        further = asyncio.get_running_loop().time() + further_s
        last = self._stop_began_s + self._slow_stop_max_s
        self._stop_limit.reschedule(max(limit, min(further, last)))

    # -- the end

    def _stop_once(self) -> asyncio.Task[None]:
        if self._stopping is None:
            self._ending.set()
            self._stopping = asyncio.create_task(self._stop(), name="stop")
        return self._stopping

    async def _stop(self) -> None:
        self._stop_began_s = now = asyncio.get_running_loop().time()
        self._stop_limit = asyncio.timeout_at(now + self._stop_max_s)
        try:
            async with self._stop_limit:
                if self._opening is not None and not self._opening.done():
                    self._opening.cancel()
                    await asyncio.wait([self._opening])
                await self._close()
        except TimeoutError:
            waited_s = round(asyncio.get_running_loop().time() - self._stop_began_s, 1)
            log.exception("stop_failed", node=self.config.node_id, waited_s=waited_s)
            self._failure = self._failure or STOPPED_LATE
        except Exception as error:
            log.exception("stop_failed", node=self.config.node_id)
            self._failure = self._failure or f"it could not stop cleanly: {error!r}"
        finally:
            self._release()
            self._done.set()


async def _done_before(event: asyncio.Event, work: Awaitable[Any]) -> bool:
    """Wait for the work, and raise its error. Return False if the event is set first.

    In that case the work is cancelled, and it has ended when this function returns.
    """
    task, comes = asyncio.ensure_future(work), asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait((task, comes), return_when=asyncio.FIRST_COMPLETED)
        if event.is_set():
            return False
        task.result()
        return True
    finally:
        task.cancel()
        comes.cancel()
        await asyncio.wait((task, comes))
        if not task.cancelled():
            task.exception()  # read the error: otherwise asyncio logs that it was never retrieved
