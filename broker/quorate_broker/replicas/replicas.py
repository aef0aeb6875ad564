"""The replicas of this broker, by partition, and the log directories with their files.

The Reconciler opens, changes and removes replicas as the image says. A component that must know
their roles (the fetchers, the ISR keeper) is a RoleListener.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import structlog

from quorate.aio.turns import Turns
from quorate.errors import NotLeaderError, StorageError, UnknownTopicError
from quorate.v1.common_pb2 import LeaderHint
from quorate_broker.files.inventory import Inventory
from quorate_broker.files.replica_files import LogDirectory, ReplicaFiles
from quorate_broker.registration import Registration
from quorate_broker.replica.checks import ProducerBatches
from quorate_broker.replica.hints import hinted
from quorate_broker.replica.partition import Partition
from quorate_broker.replica.produce_queue import APPEND_UNITS_A_TURN
from quorate_broker.replica.producer_memory import ProducerMemory
from quorate_broker.replica.replica import Failure, Key, Replica, has_other_leaders
from quorate_broker.replicas.losses import Losses
from quorate_quorum.client.client import QuorumClient
from quorate_quorum.configs import TopicConfig
from quorate_quorum.log.disk_errors import blames_disk
from quorate_quorum.metadata.image import EMPTY, MetadataImage
from quorate_quorum.metadata.partitions import NO_LEADER
from quorate_quorum.metadata.topics import TopicImage
from quorate_quorum.node.config import BrokerConfig
from quorate_quorum.node.environment import Environment

log_line = structlog.get_logger(__name__)

#: The most replicas of a log directory that make their first append at the same time: see
#: ReplicaLog.room_to_write.
FIRST_APPENDS_MAX = 32
#: The most logs of a log directory that are synced by flush.ms at the same time: see ReplicaLog. A
#: disk needs several syncs in its queue to be fast, and acknowledgements must not wait behind very
#: many.
FLUSHES_MAX = 4


class RoleListener(Protocol):
    """A component that is told of changes of roles.

    The methods are called in the loop, and must not wait.
    """

    def role_changed(self, partition: Partition) -> None:
        """Take note that a partition leads, follows another leader or epoch, or has no role."""

    def removed(self, partition: Partition) -> None:
        """Take note that this broker does not have a partition any more."""

    def isr_wanted(self, partition: Partition) -> None:
        """Take note that the ISR of a partition should be checked soon."""

    def isr_unsettled(self, partition: Partition) -> None:
        """Take note that the ISR of a partition should be checked at each interval again."""


class Replicas:
    """The replicas that this broker has. It is the PartitionHost of its partitions.

    Lifecycle sets `directories` and `quorum_generation` before the logs are opened. When the image
    has reached the registration, and the run file says that this run began, Lifecycle sets a
    registration with an epoch. Before that no replica leads, fetches or appends.
    """

    def __init__(
        self,
        config: BrokerConfig,
        environment: Environment,
        client: QuorumClient,
        registration: Registration,
    ) -> None:
        self.config = config
        self.environment = environment
        self.client = client
        #: The image that the Reconciler carries out.
        self.image: MetadataImage = EMPTY
        #: The registration of this run. It has an epoch as soon as the image has reached the
        #: registration and the run file says that this run began.
        self.registration = registration
        #: The generation of `image`. It is in each partition.metadata that this broker writes.
        self.quorum_generation = client.quorum_generation
        #: Called before an image of another generation is carried out, to store the generation
        #: durably.
        self.on_generation: Callable[[int], Awaitable[None]] = _ignore_generation
        #: Directory id -> working log directory.
        self.directories: dict[bytes, LogDirectory] = {}
        #: Directory id -> reason, for directories that failed since the start. Heartbeats report
        #: them.
        self.failed_directories: dict[bytes, str] = {}
        #: Path -> reason, for the directories that could not be read at the start.
        self.unreadable_directories: Mapping[str, str] = {}
        #: Called when a directory fails. Lifecycle sets it.
        self.on_directory_failed: Callable[[bytes, str], None] = _ignore_directory
        #: Called when a replica goes offline although its disk is good. The Reconciler sets it.
        self.on_offline: Callable[[Partition, Failure, str], None] = _ignore_offline
        #: Called when the retention of a log should be checked. RetentionKeeper sets it.
        self.on_retention_wanted: Callable[[Partition], None] = _ignore_retention
        #: Called when an image is carried out: see `is_changing`. Fetchers sets it.
        self.on_changed: Callable[[], None] = _ignore_change
        self.files = ReplicaFiles(self)
        #: Directory id -> inventory of the replicas that were ever written in the directory.
        self.inventories: dict[bytes, Inventory] = {}
        #: Directory id -> replicas in the directory that have written nothing yet.
        self.unwritten: defaultdict[bytes, set[Key]] = defaultdict(set)
        self.losses = Losses()
        #: Replica -> why its log did not open, for replicas that the image places on this broker.
        self.unopened: dict[Key, str] = {}
        #: Replica -> the path of a copy of it in a directory where it is not placed.
        self.copies: dict[Key, str] = {}
        #: The memory of producers, for all partitions. ProducerExpiry advances its clock.
        self.producer_memory = ProducerMemory(config)
        #: Limits the appends in one turn of the loop, for all partitions: see ReplicaHost.
        self.append_turns = Turns(APPEND_UNITS_A_TURN)
        self.first_appends = _semaphores(FIRST_APPENDS_MAX)
        self.flushes = _semaphores(FLUSHES_MAX)
        self.producer_batches = ProducerBatches(environment.disk, self.append_turns)
        self.unsaved: dict[Key, None] = {}
        #: Whether an image is being carried out: more roles may change in a moment.
        self.is_changing = False
        self.appended: dict[Key, None] = {}
        self._partitions: dict[Key, Partition] = {}
        self._listeners: list[RoleListener] = []
        self._configs: dict[bytes, TopicConfig] = {}

    # lookups

    def get(self, topic_id: bytes, partition: int) -> Partition:
        """Return a partition of this broker. It may be offline.

        Raises UnknownTopicError, NotLeaderError (hint_of returns the leader), StorageError.
        """
        found = self._partitions.get((topic_id, partition))
        if found is not None:
            return found
        state = self.image.partition(topic_id, partition)
        if state is None:
            raise UnknownTopicError(f"no topic {topic_id.hex()} with partition {partition} here")
        hint = LeaderHint(leader=state.leader, leader_epoch=state.leader_epoch)
        reason = self.unopened.get((topic_id, partition))
        is_asked = state.leader in (self.broker_id, NO_LEADER)
        if reason is not None and is_asked and not has_other_leaders(state, self.broker_id):
            raise hinted(StorageError(f"the replica is offline here: {reason}"), hint)
        raise hinted(
            NotLeaderError(
                f"broker {self.broker_id} holds no replica of {topic_id.hex()}-{partition}; "
                f"broker {state.leader} leads"
            ),
            hint,
        )

    def find(self, topic_id: bytes, partition: int) -> Partition | None:
        """Return a partition of this broker; None if it is not here or not open."""
        return self._partitions.get((topic_id, partition))

    @property
    def held(self) -> int:
        """The number of partitions that are open here."""
        return len(self._partitions)

    def all(self) -> Iterable[Partition]:
        """Return all partitions that are open here, in the order of their opening."""
        return tuple(self._partitions.values())

    def is_held(self, partition: Partition) -> bool:
        """Return whether Replicas still has this object, and no object that was opened later."""
        return self._partitions.get(partition.key) is partition

    def replica_end(self, topic_id: bytes, partition: int) -> tuple[int, int]:
        """Return (last_epoch, log_end_offset), for a lossy election, which compares log ends.

        Raises the errors of get(), and StorageError if the replica is offline, or if it is empty
        and there is a copy of it: an operator may have moved its directory. To elect the empty log
        would give up the records of the copy.
        """
        found = self.get(topic_id, partition)
        if found.offline is not None:
            raise found.offline_error()
        copy = self.copies.get(found.key)
        if copy is not None and found.log.log_end_offset == 0:
            raise StorageError(f"{found.name} is empty, and {copy} may have its records")
        return found.log.last_epoch, found.log.log_end_offset

    def subscribe(self, listener: RoleListener) -> None:
        """Tell `listener` the present roles, and every change from now on."""
        self._listeners.append(listener)
        for partition in self.all():
            listener.role_changed(partition)

    # values of the image

    @property
    def broker_id(self) -> int:
        return self.config.node_id

    @property
    def lag_ms(self) -> int:
        return self.config.replica_lag_time_max_ms

    @property
    def fenced(self) -> bool:
        """Whether this broker must not lead, as far as its own image says."""
        broker = self.image.brokers.get(self.broker_id)
        return broker is None or broker.fenced or broker.epoch != self.registration.broker_epoch

    def eligible_epoch(self, replica: Replica, broker_id: int) -> int:
        """Return the broker_epoch of a broker; -1 if the broker must not be in the ISR."""
        state = self.image.partition(*replica.key)
        if state is None or not self.image.is_eligible(state, broker_id):
            return -1
        return self.image.brokers[broker_id].epoch

    def endpoint_of(self, broker_id: int) -> str:
        broker = self.image.brokers.get(broker_id)
        return "" if broker is None else broker.endpoint

    def config_of(self, topic: TopicImage) -> TopicConfig:
        # topics without values of their own share one configuration
        topic_id = topic.id if topic.configs else b""
        config = self._configs.get(topic_id)
        if config is None:
            config = self._configs[topic_id] = self.image.topic_config(topic)
        return config

    def forget_config(self, topic_id: bytes) -> None:
        """Drop a topic's cached configuration. b"": drop all, because the cluster's has changed."""
        if topic_id:
            self._configs.pop(topic_id, None)
        else:
            self._configs.clear()

    def is_out_of_sync(self, key: Key) -> bool:
        """Return whether the image places a replica here that may lack committed records."""
        state = self.image.partition(*key)
        if state is None or state.directory_of(self.broker_id) is None:
            return False
        return self.broker_id not in state.isr or key in self.losses or key in self.unopened

    # changes

    def add(self, partition: Partition) -> None:
        """Add an open replica. It replaces an earlier object of the same partition."""
        self._partitions[partition.key] = partition

    def forget(self, partition: Partition) -> None:
        """Remove a replica."""
        del self._partitions[partition.key]
        self.unwritten[partition.directory_id].discard(partition.key)

    async def close(self, partition: Partition) -> None:
        """Close a replica and remove it. Its directory stays."""
        self.forget(partition)
        await partition.close(clean=False)
        self.removed(partition)

    def removed(self, partition: Partition) -> None:
        """Tell the RoleListeners that this broker does not have a replica any more."""
        for listener in self._listeners:
            listener.removed(partition)

    def role_changed(self, partition: Partition) -> None:
        """Tell the RoleListeners that a replica has another role."""
        for listener in self._listeners:
            listener.role_changed(partition)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Carry out an image inside of this context: see `is_changing`."""
        self.is_changing = True
        try:
            yield
        finally:
            self.is_changing = False
            self.on_changed()

    # PartitionHost

    async def prepare(self, replica: Replica, *, is_noted: bool) -> None:
        """Make the replica's directory, with the file that names its owner."""
        path = f"{self.directories[replica.directory_id].path}/{replica.name}"
        await self.files.make(path, replica.topic_id)
        if not is_noted:
            await self.inventories[replica.directory_id].make_room()

    async def written(self, replica: Replica) -> None:
        """Note in the inventory that the replica was written."""
        await self.inventories[replica.directory_id].note(replica.key)
        self.unwritten[replica.directory_id].discard(replica.key)

    def isr_wanted(self, partition: Partition) -> None:
        for listener in self._listeners:
            listener.isr_wanted(partition)

    def isr_unsettled(self, partition: Partition) -> None:
        for listener in self._listeners:
            listener.isr_unsettled(partition)

    def retention_wanted(self, partition: Partition) -> None:
        self.on_retention_wanted(partition)

    def failed(self, partition: Partition, failure: Failure, reason: str) -> None:
        """Tell the RoleListeners that a replica is offline.

        After a disk error, the log directory of the replica fails.
        """
        self.role_changed(partition)
        if failure == "storage":
            self.directory_failed(partition.directory_id, reason)
        else:
            self.on_offline(partition, failure, reason)

    def directory_failed(self, directory_id: bytes, reason: str) -> None:
        """Take all replicas on a log directory offline, because its disk failed."""
        if directory_id in self.failed_directories or directory_id not in self.directories:
            return
        self.failed_directories[directory_id] = reason
        path = self.directories[directory_id].path
        log_line.error("log directory failed", path=path, reason=reason)
        for partition in self.all():
            if partition.directory_id == directory_id:
                partition.take_offline("storage", f"{path} failed: {reason}")
        self.on_directory_failed(directory_id, reason)

    def done_without(self, partition: Partition, event: str, error: OSError | StorageError) -> None:
        """Log a failed write that is not necessary for the replica.

        After a disk error, the log directory of the replica fails.
        """
        if blames_disk(error):
            self.directory_failed(partition.directory_id, str(error))
        else:
            log_line.warning(event, partition=partition.name, reason=str(error))


async def _ignore_generation(generation: int) -> None:
    """Do nothing, until Lifecycle sets `on_generation`."""


def _semaphores(value: int) -> Mapping[bytes, asyncio.Semaphore]:
    """Return one for each log directory, so that a slow disk does not delay the others."""
    return defaultdict(lambda: asyncio.Semaphore(value))


def _ignore_directory(directory_id: bytes, reason: str) -> None:
    """Do nothing, until Lifecycle sets the callback. failed_directories has the reason."""


def _ignore_change() -> None:
    """Do nothing, until Fetchers sets `on_changed`."""


def _ignore_retention(partition: Partition) -> None:
    """Do nothing, because there is no RetentionKeeper."""


def _ignore_offline(partition: Partition, failure: Failure, reason: str) -> None:
    """Do nothing, until the Reconciler sets the callback. No replica is open before."""
