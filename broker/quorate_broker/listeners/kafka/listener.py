"""The Kafka listeners of one broker: they accept connections, within bounds, and end them."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial

from quorate.net.network import Listener
from quorate_broker.listeners.kafka.auto_creation import AutoCreation
from quorate_broker.listeners.kafka.budget import ReadBudget
from quorate_broker.listeners.kafka.call import Client
from quorate_broker.listeners.kafka.cluster import ClusterRequests
from quorate_broker.listeners.kafka.configs import ConfigRequests
from quorate_broker.listeners.kafka.connection import Limits
from quorate_broker.listeners.kafka.consumer_groups import ConsumerGroupRequests
from quorate_broker.listeners.kafka.dispatch import Dispatcher
from quorate_broker.listeners.kafka.elections import ElectionRequests
from quorate_broker.listeners.kafka.fetch import FetchRequests
from quorate_broker.listeners.kafka.framing import SHARED_BYTES
from quorate_broker.listeners.kafka.group_offsets import GroupOffsetRequests
from quorate_broker.listeners.kafka.groups import GroupRequests
from quorate_broker.listeners.kafka.metadata import MetadataRequests
from quorate_broker.listeners.kafka.offsets import OffsetRequests
from quorate_broker.listeners.kafka.produce import ProduceRequests
from quorate_broker.listeners.kafka.producers import ProducerRequests
from quorate_broker.listeners.kafka.reassignments import ReassignmentRequests
from quorate_broker.listeners.kafka.recently_fenced import RecentlyFenced
from quorate_broker.listeners.kafka.topic_partitions import TopicPartitionRequests
from quorate_broker.listeners.kafka.topics import TopicRequests
from quorate_broker.listeners.kafka.transport import Transport
from quorate_broker.operations.operations import Operations
from quorate_broker.replicas.replicas import Replicas
from quorate_quorum.node.config import BrokerConfig
from quorate_quorum.node.listeners import ListenerAddress
from quorate_quorum.node.sockets import OpenPort, Sockets

STOPPING = "the broker stops"


class KafkaListeners:
    """All Kafka listeners of a broker, and their open connections.

    They share the buffer of small reads, the budget of memory, and the bounds on connections.
    """

    def __init__(
        self, operations: Operations, replicas: Replicas, config: BrokerConfig, cluster_id: str
    ) -> None:
        #: Must be told of every new image.
        self.recently_fenced = RecentlyFenced(lambda: asyncio.get_running_loop().time())
        self.dispatcher = Dispatcher(
            (
                MetadataRequests(
                    operations.metadata,
                    AutoCreation(operations.admin),
                    self.recently_fenced,
                    operations.rights,
                    cluster_id,
                    config.node_id,
                ),
                ProduceRequests(operations, replicas),
                FetchRequests(operations, replicas),
                OffsetRequests(operations.offsets, replicas),
                ProducerRequests(operations.active_producers, replicas),
                GroupRequests(
                    operations.groups, operations.classic_groups, replicas, operations.rights
                ),
                ConsumerGroupRequests(
                    operations.group_members,
                    operations.groups,
                    replicas,
                    operations.rights,
                    operations.classic_groups.new_member_id,
                ),
                GroupOffsetRequests(operations.groups, replicas),
                TopicRequests(operations, replicas),
                TopicPartitionRequests(operations.metadata, operations.rights),
                ConfigRequests(operations, config),
                ClusterRequests(
                    operations, cluster_id, config.node_id, replicas.environment.wall_clock_ms
                ),
                ElectionRequests(operations.admin, replicas, config.request_partitions_max),
                ReassignmentRequests(operations, replicas, config.request_partitions_max),
            )
        )
        self._connections_max = config.max_connections_total
        self._connections_per_ip_max = config.max_connections_per_ip
        self.limits = Limits(
            request_bytes_max=config.socket_request_max_bytes,
            idle_ms=config.connections_max_idle_ms,
        )
        self.shared = bytearray(SHARED_BYTES)
        self.budget = ReadBudget(operations.produce.budget)
        self._open: dict[Transport, None] = {}
        self._by_address: Counter[str] = Counter()
        self._is_stopping = False
        #: Set when no connection is open.
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    @property
    def connections(self) -> tuple[Transport, ...]:
        """The open connections, the oldest first."""
        return tuple(self._open)

    async def open(self, sockets: Sockets, address: ListenerAddress) -> Listener:
        """Accept connections at an address. Raises OSError that names it."""
        host = _NamedHost(self, address.name)
        return _OpenListener(self, await sockets.listen(address.endpoint, host.accept))

    def stop(self) -> None:
        """Begin no more requests. Connections are closed when their owed answers have left."""
        self._is_stopping = True
        for transport in list(self._open):
            transport.end(STOPPING)

    async def emptied(self, grace_ms: int) -> None:
        """Wait until every connection is closed. After `grace_ms`, close those that are left."""
        self.stop()
        if not self._is_empty.is_set() and grace_ms:
            await asyncio.wait(
                (asyncio.ensure_future(self._is_empty.wait()),), timeout=grace_ms / 1000
            )
        for transport in list(self._open):
            transport.abort()

    # for the connections

    def arrived(self, transport: Transport, address: str, listener: str) -> Client | str:
        """Return the client of a new connection, or why the connection is refused."""
        if self._is_stopping:
            return STOPPING
        if len(self._open) >= self._connections_max:
            return f"{len(self._open)} connections are open; max.connections.total allows no more"
        if self._by_address[address] >= self._connections_per_ip_max:
            return (
                f"{self._by_address[address]} connections from {address} are open; "
                "max.connections.per.ip allows no more"
            )
        self._open[transport] = None
        self._by_address[address] += 1
        self._is_empty.clear()
        return Client(address, listener)

    def left(self, transport: Transport, address: str) -> None:
        """Take note that a connection is closed."""
        del self._open[transport]
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]
        if not self._open:
            self._is_empty.set()


class _NamedHost:
    """The Host of the connections of one listener: it knows the listener's name."""

    def __init__(self, listeners: KafkaListeners, name: str) -> None:
        self.limits = listeners.limits
        self.shared = listeners.shared
        self.budget = listeners.budget
        self.dispatcher = listeners.dispatcher
        self.arrived = partial(listeners.arrived, listener=name)
        self.left = listeners.left

    def accept(self) -> Transport:
        return Transport(self)


class _OpenListener:
    """One address at which clients connect."""

    def __init__(self, listeners: KafkaListeners, port: OpenPort) -> None:
        self._listeners = listeners
        self._port = port
        self.endpoint = port.endpoint

    async def stop(self, grace_ms: int) -> None:
        """Accept no more connections, and end those that are open."""
        await self._port.close()
        await self._listeners.emptied(grace_ms)
