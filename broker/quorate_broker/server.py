"""A broker process: it joins the parts of a broker, starts them, and stops them in order.

    start   lock directories -> open the listeners -> watch the quorum -> register
            (then, in the background: image has reached the registration -> logs opened -> unfenced)
    stop    leave -> take nothing new -> end streams -> close logs, synced -> mark -> unlock

The broker listens before it registers, because the controller connects to it at once. A part that
cannot continue calls fail(). Then the broker stops without a leave, and reports the reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from quorate.errors import (
    AuthorizationError,
    DuplicateBrokerError,
    InvalidRequestError,
    UnsupportedError,
    WrongClusterError,
)
from quorate.net.network import Listener
from quorate_broker.compaction.compactor import Compactor
from quorate_broker.files.directories import LogDirectories
from quorate_broker.groups.coordinator import Coordinator
from quorate_broker.lifecycle import Lifecycle
from quorate_broker.listeners.grpc.admin import AdminService
from quorate_broker.listeners.grpc.groups import GroupsService
from quorate_broker.listeners.grpc.records import RecordsService
from quorate_broker.operations.active_producers import ActiveProducers
from quorate_broker.operations.admin import Admin
from quorate_broker.operations.classic_groups import ClassicGroups
from quorate_broker.operations.delete_records import DeleteRecords
from quorate_broker.operations.fetch import Fetch
from quorate_broker.operations.full_fetch import FullFetch
from quorate_broker.operations.group_members import GroupMembers
from quorate_broker.operations.groups import Groups
from quorate_broker.operations.log_dirs import LogDirs
from quorate_broker.operations.metadata import Metadata
from quorate_broker.operations.offsets import Offsets
from quorate_broker.operations.operations import Operations
from quorate_broker.operations.produce import Produce
from quorate_broker.operations.producer_ids import ProducerIds
from quorate_broker.operations.rights import Rights
from quorate_broker.publisher import Publisher
from quorate_broker.registration import Registration
from quorate_broker.replicas.producer_expiry import ProducerExpiry
from quorate_broker.replicas.reconciler import Reconciler
from quorate_broker.replicas.replicas import Replicas
from quorate_broker.replicas.scrubber import Scrubber
from quorate_broker.replication.fetcher import Fetchers
from quorate_broker.replication.isr import IsrKeeper
from quorate_broker.replication.service import ReplicaService
from quorate_broker.retention.keeper import RetentionKeeper
from quorate_quorum.client.client import QuorumClient
from quorate_quorum.node.config import BrokerConfig, ConfigError
from quorate_quorum.node.environment import Environment
from quorate_quorum.node.identify import NodeService
from quorate_quorum.node.listeners import ListenerAddress
from quorate_quorum.node.server import NodeServer

if TYPE_CHECKING:
    from quorate_broker.listeners.kafka.listener import KafkaListeners

log = structlog.get_logger(__name__)

#: The time limit for stopping all parts, without the leave and the closing of the logs.
ROOMS_STOP_MAX_S = 1.5
#: The time limit for closing and syncing the logs. Each closed log extends it: thousands of logs
#: may take long, and a disk that hangs must not block the exit.
LOGS_CLOSE_MAX_S = 10.0
#: The limit for the whole stop, however many logs were closed.
STOP_MAX_S = 300.0


class BrokerServer(NodeServer[BrokerConfig]):
    """A broker process. start() waits for a controller, and until the broker is registered.

    After that the broker opens its logs, and then it is unfenced.
    """

    role = "broker"

    def __init__(self, config: BrokerConfig, environment: Environment) -> None:
        leave_max_s = config.controlled_shutdown_timeout_ms / 1000
        super().__init__(
            config,
            environment,
            stop_max_s=leave_max_s + ROOMS_STOP_MAX_S + LOGS_CLOSE_MAX_S,
            slow_stop_max_s=leave_max_s + STOP_MAX_S,
        )
        self._rooms: _Rooms | None = None
        self._directories: LogDirectories | None = None

    @property
    def replicas(self) -> Replicas:
        """The replicas of this broker. The broker must have started."""
        assert self._rooms is not None, "the broker has not started"
        return self._rooms.replicas

    @property
    def replication_bytes(self) -> tuple[int, int]:
        """The bytes that are out to followers, and those from leaders that are not written yet."""
        assert self._rooms is not None, "the broker has not started"
        return self._rooms.replica.bytes_out, self._rooms.fetchers.bytes_held

    @property
    def kafka(self) -> KafkaListeners | None:
        """The listeners for Kafka clients; None: there are none, or they do not accept yet."""
        return None if self._rooms is None else self._rooms.kafka

    @property
    def is_fenced(self) -> bool:
        """Whether this broker is fenced: it was never unfenced, or was fenced again."""
        return self._rooms is None or self._rooms.lifecycle.is_fenced

    async def unfenced(self) -> None:
        """Wait until the broker is unfenced and may lead. If it stops first, raise NodeFailed."""
        assert self._rooms is not None, "the broker has not started"
        await self._unless_ending(self._rooms.lifecycle.unfenced.wait())

    # -- start

    async def _open(self) -> None:
        config = self.config
        self._directories = directories = await LogDirectories.open(config, self.environment.disk)
        self._rooms = rooms = _Rooms(self, directories)
        await self._listen(rooms.services, directories.cluster_id)
        rooms.replicas.subscribe(rooms.fetchers)
        rooms.replicas.subscribe(rooms.isr)
        rooms.replicas.subscribe(rooms.replica)
        rooms.replicas.subscribe(rooms.coordinator)
        rooms.publisher.subscribe(rooms.coordinator)
        rooms.isr.start()
        rooms.producer_expiry.start()
        rooms.retention.start()
        rooms.compactor.start()
        rooms.scrubber.start()
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
        """Return the addresses that other nodes and clients dial. Port 0 becomes the bound port."""
        told = self.config.advertised_addresses
        return tuple(one.bound_at(self.endpoint_of(one.name)) for one in told)

    async def _open_listener(self, address: ListenerAddress) -> Listener:
        # Import it here, because it imports many messages, and a broker may have no such listener.
        from quorate_broker.listeners.kafka.listener import KafkaListeners

        rooms = self._rooms
        assert rooms is not None, "the rooms are made before the listeners are opened"
        if rooms.kafka is None:
            rooms.kafka = KafkaListeners(
                rooms.operations, rooms.replicas, self.config, rooms.cluster_id
            )
            rooms.client.subscribe(rooms.kafka.recently_fenced)
        return await rooms.kafka.open(self.environment.sockets, address)

    # -- stop

    async def _close(self) -> None:
        rooms = self._rooms
        if rooms is None:
            return
        await self._unless_failed(rooms.lifecycle.heartbeats.leave)
        are_writers_gone = False
        try:
            async with asyncio.timeout(ROOMS_STOP_MAX_S):
                await self._stop_rooms(rooms)
            are_writers_gone = True
        finally:
            await rooms.close_logs(
                clean=are_writers_gone and self._failure is None,
                progressed=lambda: self._stop_progressed(LOGS_CLOSE_MAX_S),
            )
            await rooms.client.stop()

    async def _stop_rooms(self, rooms: _Rooms) -> None:
        """Take nothing new, let open streams end, and end all parts that write."""
        rooms.records.stop()
        if rooms.kafka is not None:
            rooms.kafka.stop()
        rooms.groups.stop()
        rooms.replica.stop()
        await self._stop_listening()
        await rooms.fetchers.stop()
        await rooms.isr.stop()
        await rooms.producer_expiry.stop()
        await rooms.retention.stop()
        await rooms.compactor.stop()
        await rooms.scrubber.stop()
        await rooms.coordinator.stop()
        await rooms.lifecycle.stop()
        await rooms.publisher.stop()

    def _release(self) -> None:
        if self._directories is not None:
            self._directories.unlock()


class _Rooms:
    """The parts of a broker. They are joined when its directories are known."""

    def __init__(self, server: BrokerServer, directories: LogDirectories) -> None:
        config, environment = server.config, server.environment
        self._directories = directories
        self.cluster_id = directories.cluster_id
        self.client = QuorumClient(
            config,
            environment,
            cluster_id=directories.cluster_id,
            fail=server.fail,
            quorum_generation=directories.quorum_generation,
        )
        registration = Registration(directories.cluster_id, config.node_id, server.incarnation)
        self.replicas = Replicas(config, environment, self.client, registration)
        self.reconciler = Reconciler(self.replicas, server.fail)
        self.fetchers = Fetchers(self.replicas, server.fail)
        self.isr = IsrKeeper(self.replicas, self.client, server.fail)
        self.producer_expiry = ProducerExpiry(self.replicas, server.fail)
        self.retention = RetentionKeeper(self.replicas, server.fail)
        self.compactor = Compactor(self.replicas, server.fail)
        self.scrubber = Scrubber(self.replicas, server.fail)
        self.coordinator = Coordinator(self.replicas, server.fail, environment.authorizer)
        self.lifecycle = Lifecycle(
            config,
            environment,
            registration,
            directories=directories,
            client=self.client,
            replicas=self.replicas,
            fail=server.fail,
        )
        self.publisher = Publisher(
            self.reconciler, applied=self.lifecycle.applied, fail=server.fail
        )
        authorizer = environment.authorizer
        fetch = Fetch(self.replicas, config, authorizer)
        operations = Operations(
            Produce(self.replicas, config, authorizer),
            fetch,
            FullFetch(fetch, self.replicas, config, authorizer),
            Offsets(self.replicas, config, authorizer),
            DeleteRecords(self.replicas, config, authorizer),
            ProducerIds(self._allocate_producer_ids, authorizer),
            ActiveProducers(self.replicas, config, authorizer),
            Metadata(self.client, self.lifecycle.caught_up, authorizer),
            Admin(self.client, self.publisher),
            LogDirs(self.replicas, authorizer),
            Groups(self.coordinator, self.replicas, self.client, config, authorizer),
            GroupMembers(self.coordinator, authorizer),
            ClassicGroups(self.coordinator, authorizer, environment.new_id),
            Rights(authorizer),
        )
        self.operations = operations
        #: The listeners for Kafka clients; None: no listener of the configuration is one.
        self.kafka: KafkaListeners | None = None
        self.records = RecordsService(operations, self.replicas, config)
        self.groups = GroupsService(operations, self.replicas, config)
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
            self.groups,
            AdminService(operations, directories.cluster_id, environment.wall_clock_ms),
            self.replica,
        )

    async def close_logs(self, *, clean: bool, progressed: Callable[[], None]) -> None:
        """Close every log, and call `progressed` for each.

        With `clean`, sync them, and mark the directories whose logs all closed.
        """
        await self.reconciler.close(clean=clean, progressed=progressed)
        for directory_id, reason in self.replicas.failed_directories.items():
            await self._directories.lose(directory_id, reason)
        if clean and self.publisher.has_loaded:
            await self._directories.mark_clean(but=self.reconciler.unclean_directories)

    async def _allocate_producer_ids(self) -> range:
        return await self.client.allocate_producer_ids(
            self.replicas.broker_id, self.lifecycle.registration.broker_epoch
        )
