"""A broker: its rooms joined, from its locked directories to its clean end.

    start   lock directories -> open the listeners -> watch the quorum -> register
            (then, in the background: image has passed the registration -> logs opened -> unfenced)
    stop    leave -> take nothing new -> end streams -> close logs, synced -> mark -> unlock

It listens before it registers, for the controller dials it at once. What fails inside calls
fail(): the node stops without the courtesies, and says why.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import structlog

from quorate.errors import (
    AuthorizationError,
    DuplicateBrokerError,
    InvalidRequestError,
    UnsupportedError,
    WrongClusterError,
)
from quorate_broker.files.directories import LogDirectories
from quorate_broker.lifecycle import Lifecycle
from quorate_broker.listeners.grpc.admin import AdminService
from quorate_broker.listeners.grpc.records import RecordsService
from quorate_broker.operations.admin import Admin
from quorate_broker.operations.metadata import Metadata
from quorate_broker.operations.producer_ids import ProducerIds
from quorate_broker.producer_expiry import ProducerExpiry
from quorate_broker.publisher import Publisher
from quorate_broker.replicas import Replicas
from quorate_broker.replication.fetcher import Fetchers
from quorate_broker.replication.isr import IsrKeeper
from quorate_broker.replication.service import ReplicaService
from quorate_quorum.client.client import QuorumClient, QuorumClientConfig
from quorate_quorum.node.config import ConfigError
from quorate_quorum.node.identify import NodeService
from quorate_quorum.node.process import NodeFailed

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from quorate.net.network import Listener
    from quorate_quorum.node.config import BrokerConfig
    from quorate_quorum.node.environment import Environment
    from quorate_quorum.node.listeners import ListenerAddress

log = structlog.get_logger(__name__)

#: Open streams have so long to end by themselves once the broker takes nothing new.
STREAMS_GRACE_MS = 300
#: Everything but the leave and the logs ends within this, so that all is over in 5 s.
ROOMS_STOP_MAX_S = 1.5


class BrokerServer:
    """See the module. start() once; then stop() or fail(), and stopped() tells the end."""

    def __init__(self, config: BrokerConfig, environment: Environment) -> None:
        self.config = config
        self.environment = environment
        #: This run of the broker.
        self.incarnation = environment.new_id()
        self._failure: str | None = None
        self._failed = asyncio.Event()
        self._done = asyncio.Event()
        self._stopping: asyncio.Task[None] | None = None
        self._rooms: _Rooms | None = None
        self._directories: LogDirectories | None = None
        #: What is open, by the name of the listener.
        self._listeners: dict[str, Listener] = {}

    @property
    def endpoint(self) -> str:
        """host:port as bound, where other nodes reach it; empty unless it listens."""
        return self.endpoint_of(self.config.internal.name)

    def endpoint_of(self, listener: str) -> str:
        """Return the host:port at which a listener is bound; empty unless it listens."""
        found = self._listeners.get(listener)
        return "" if found is None else found.endpoint

    @property
    def replicas(self) -> Replicas:
        """The replicas held here; only once it has started."""
        assert self._rooms is not None, "the broker has not started"
        return self._rooms.replicas

    @property
    def is_fenced(self) -> bool:
        """Whether the controller trusts this broker with nothing yet, or not any more."""
        return self._rooms is None or self._rooms.lifecycle.is_fenced

    async def start(self) -> None:
        """Listen, register, and return; opening logs and being unfenced come later.

        Waits for a controller for as long as it takes. Raises ConfigError, or NodeFailed if it
        was stopped meanwhile; then nothing is left open.
        """
        try:
            await self._or_failure(self._start())
        except BaseException:
            self._failed.set()
            await asyncio.shield(self._stop_once())
            raise

    async def unfenced(self) -> None:
        """Return when it is unfenced and may lead; NodeFailed if it stops before."""
        assert self._rooms is not None, "the broker has not started"
        await self._or_failure(self._rooms.lifecycle.unfenced.wait())

    async def stop(self) -> None:
        """Stop cleanly, in less than 5 s; safe to call twice."""
        await asyncio.shield(self._stop_once())

    def fail(self, reason: str) -> None:
        """Stop now, not cleanly; stopped() then raises NodeFailed."""
        if self._failure is None and not self._done.is_set():
            self._failure = reason
            log.error("broker_failed", node_id=self.config.node_id, reason=reason)
            self._failed.set()
            self._stop_once()

    async def stopped(self) -> None:
        """Return when it has stopped; raise NodeFailed if it failed."""
        await self._done.wait()
        if self._failure is not None:
            raise NodeFailed(self._failure)

    # Start

    async def _start(self) -> None:
        config, environment = self.config, self.environment
        self._directories = directories = await LogDirectories.open(config, environment.disk)
        self._rooms = rooms = _Rooms(self, directories)
        try:
            for address in config.listener_addresses:
                self._listeners[address.name] = await environment.network.serve(
                    address.endpoint,
                    rooms.services,
                    cluster_id=directories.cluster_id,
                    listener=address.name,
                )
        except OSError as error:
            raise ConfigError(f"broker {config.node_id} can't listen: {error}") from error
        rooms.replicas.subscribe(rooms.fetchers)
        rooms.replicas.subscribe(rooms.isr)
        rooms.isr.start()
        rooms.producer_expiry.start()
        rooms.client.subscribe(rooms.publisher)
        await rooms.client.start()
        try:
            await rooms.lifecycle.register(self._advertised(), rooms.publisher)
        except (
            AuthorizationError,
            DuplicateBrokerError,
            InvalidRequestError,
            UnsupportedError,
            WrongClusterError,
        ) as error:
            raise ConfigError(f"broker {config.node_id} was refused: {error}") from error

    def _advertised(self) -> tuple[ListenerAddress, ...]:
        """What others dial; a port that was left open is the one bound."""
        told = self.config.advertised_addresses
        return tuple(one.bound_at(self.endpoint_of(one.name)) for one in told)

    async def _or_failure(self, work: Coroutine[Any, Any, Any]) -> None:
        """Wait for the work, or raise NodeFailed when the node stops, or did."""
        task = asyncio.create_task(work)
        failed = asyncio.create_task(self._failed.wait())
        try:
            await asyncio.wait((task, failed), return_when=asyncio.FIRST_COMPLETED)
            if task.done() and not self._failed.is_set():
                task.result()
                return
        finally:
            for one in (task, failed):
                one.cancel()
            await asyncio.wait((task, failed))
        raise NodeFailed(self._failure or "stopped before it had started")

    # Stop

    def _stop_once(self) -> asyncio.Task[None]:
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(), name="stop")
        return self._stopping

    async def _stop(self) -> None:
        try:
            await self._close_all()
        except Exception as error:
            log.exception("stop_failed", node_id=self.config.node_id)
            self._failure = self._failure or f"it could not stop cleanly: {error!r}"
        finally:
            if self._directories is not None:
                self._directories.unlock()
            self._done.set()

    async def _close_all(self) -> None:
        rooms = self._rooms
        if rooms is None:
            return
        await self._leave(rooms)
        self._failed.set()  # whoever waits for this broker to be unfenced waits in vain
        nobody_writes = False
        try:
            async with asyncio.timeout(ROOMS_STOP_MAX_S):
                await self._stop_rooms(rooms)
            nobody_writes = True
        finally:
            await rooms.close_logs(clean=nobody_writes and self._failure is None)
            await rooms.client.stop()

    async def _stop_rooms(self, rooms: _Rooms) -> None:
        """Take nothing new, let open streams end, and end whatever writes."""
        rooms.records.stop()
        rooms.replica.stop()
        open_ones, self._listeners = list(self._listeners.values()), {}
        grace_ms = 0 if self._failure else STREAMS_GRACE_MS
        await asyncio.gather(*(one.stop(grace_ms) for one in open_ones))
        await rooms.fetchers.stop()
        await rooms.isr.stop()
        await rooms.producer_expiry.stop()
        await rooms.lifecycle.stop()
        await rooms.publisher.stop()

    async def _leave(self, rooms: _Rooms) -> None:
        """Ask for leave, unless the node failed; a failure meanwhile ends the wait."""
        if self._failed.is_set():
            return
        leaving = asyncio.create_task(rooms.lifecycle.leave())
        failed = asyncio.create_task(self._failed.wait())
        await asyncio.wait((leaving, failed), return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        failed.cancel()
        await asyncio.wait((leaving, failed))


class _Rooms:
    """Everything that a broker is made of, joined; made once its directories are known."""

    def __init__(self, server: BrokerServer, directories: LogDirectories) -> None:
        config, environment = server.config, server.environment
        self._directories = directories
        self.client = QuorumClient(
            environment,
            config.quorum_bootstrap_servers,
            cluster_id=directories.cluster_id,
            node_id=config.node_id,
            fail=server.fail,
            config=_client_config(config),
            quorum_generation=directories.quorum_generation,
        )
        self.replicas = Replicas(config, environment, self.client, server.fail)
        self.fetchers = Fetchers(self.replicas, server.fail)
        self.isr = IsrKeeper(self.replicas, self.client, server.fail)
        self.producer_expiry = ProducerExpiry(self.replicas, server.fail)
        self.lifecycle = Lifecycle(
            config,
            disk=environment.disk,
            features=environment.features,
            incarnation=server.incarnation,
            directories=directories,
            client=self.client,
            replicas=self.replicas,
            fail=server.fail,
        )
        self.publisher = Publisher(self.replicas, applied=self.lifecycle.applied, fail=server.fail)
        authorizer = environment.authorizer
        self.records = RecordsService(
            self.replicas,
            ProducerIds(self._allocate_producer_ids, authorizer),
            config,
            authorizer,
        )
        self.replica = ReplicaService(self.replicas, authorizer)
        self.services = (
            NodeService(
                "broker",
                directories.cluster_id,
                config.node_id,
                server.incarnation,
                config.local_cluster,
            ),
            self.records,
            AdminService(
                directories.cluster_id,
                Metadata(self.client, self.lifecycle.caught_up, authorizer),
                Admin(self.client, self.publisher, config.forward_in_flight_max),
                environment.wall_clock_ms,
            ),
            self.replica,
        )

    async def close_logs(self, *, clean: bool) -> None:
        """Close every log, synced where `clean`; mark the directories of which all were."""
        await self.replicas.close(clean=clean)
        for directory_id, reason in self.replicas.failed_directories.items():
            await self._directories.lose(directory_id, reason)
        if clean and self.publisher.has_loaded:
            await self._directories.mark_clean(but=self.replicas.unclean_directories)

    async def _allocate_producer_ids(self) -> range:
        return await self.client.allocate_producer_ids(
            self.replicas.broker_id, self.lifecycle.broker_epoch
        )


def _client_config(config: BrokerConfig) -> QuorumClientConfig:
    return QuorumClientConfig(
        watch_silence_max_ms=config.watch_silence_max_ms,
        heartbeat_interval_ms=config.broker_heartbeat_interval_ms,
        request_timeout_ms=config.request_timeout_ms,
        alter_timeout_ms=config.alter_partitions_timeout_ms,
        allocate_timeout_ms=config.producer_ids_timeout_ms,
        backoff_min_ms=config.reconnect_backoff_ms,
        backoff_max_ms=config.reconnect_backoff_max_ms,
        alter_in_flight_max=config.alter_partitions_in_flight_max,
    )
