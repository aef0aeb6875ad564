"""The life of a client, for the producer, the consumer and the admin."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import Any, ClassVar, Self

from quorate.aio.owner import Owner
from quorate.argument_names import name_arguments
from quorate.cluster.cluster import Cluster
from quorate.errors import ClosedError


class Client(ABC):
    """A client that is started once and stopped once, in one event loop. `async with` does both.

    Several tasks may start and stop a client at the same time. The first start connects. Every stop
    waits until the first stop is done.
    """

    #: The kind of this client in errors, for example "producer".
    _what: ClassVar[str]
    #: The statement that starts and stops this client. A blocking client sets its own.
    _statement = "async with"

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        name_arguments(cls)

    def __init__(self, bootstrap_servers: str | Sequence[str], client_id: str) -> None:
        self._bootstrap = bootstrap_servers
        self._client_id = client_id
        self._owner = Owner(self._what)
        self._cluster: Cluster | None = None
        self._starting = asyncio.Lock()
        #: None before the stop begins; the event is set when the stop is done.
        self._stopped: asyncio.Event | None = None

    @abstractmethod
    async def start(self) -> None:
        """Connect to the cluster."""

    @abstractmethod
    async def stop(self) -> None:
        """Close the client."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    # -- what the subclass does ------------------------------------------------------------------

    @abstractmethod
    async def _begin(self, cluster: Cluster, owner: Owner) -> None:
        """Connect, set `_cluster`, and start the work.

        A stop may come during an await of this method. Call `_check_not_stopped` after each await.
        """

    @abstractmethod
    async def _end(self) -> None:
        """End the work. The cluster's connections are still open at this time."""

    # -- starting and stopping -------------------------------------------------------------------

    async def _start_once(self) -> None:
        owner = self._owner
        owner.bind()
        async with self._starting:
            self._check_not_stopped(owner)
            if self._cluster is not None:
                return
            cluster = Cluster(self._bootstrap, client_id=self._client_id, owner=owner)
            try:
                await self._begin(cluster, owner)
            except BaseException:
                await cluster.stop()
                raise

    def _check_not_stopped(self, owner: Owner) -> None:
        if self._stopped is not None:
            raise self._stopped_error()
        if self._owner is not owner:
            raise ClosedError(f"this {self._what} was stopped while it started")

    def _stopped_error(self) -> ClosedError:
        return ClosedError(f"this {self._what} was stopped; make a new one")

    async def _stop_once(self) -> None:
        self._owner.check()
        if self._stopped is not None:
            await self._stopped.wait()
            return
        self._stopped = asyncio.Event()
        try:
            if self._cluster is not None:
                await self._end_all(self._cluster)
        finally:
            self._stopped.set()

    async def _end_all(self, cluster: Cluster) -> None:
        try:
            await self._end()
        finally:
            try:
                await cluster.stop()
            finally:
                # also if this stop is cancelled: other tasks wait for the end of their calls
                await self._owner.end_all()

    def _running(self) -> Cluster:
        """Return the cluster. Raise ClosedError if the client is not running."""
        if self._cluster is None:
            raise self._not_running_error()
        return self._cluster

    @property
    def _is_closed(self) -> bool:
        """Whether the stop is done."""
        return self._stopped is not None and self._stopped.is_set()

    def _check_not_closed(self) -> None:
        """Raise WrongLoopError, as Owner.check does, and ClosedError if the client was stopped.

        A callback that runs during the stop may still call the client.
        """
        self._owner.check()
        if self._is_closed:
            raise self._stopped_error()

    def _not_running_error(self) -> ClosedError:
        if self._stopped is not None:
            return self._stopped_error()
        statement = self._statement
        return ClosedError(f"this {self._what} is not running; call start() or use `{statement}`")
