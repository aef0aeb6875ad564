"""All partitions that this broker holds a replica of: opened, given their roles, closed, removed.

The image says what is held and where; Publisher calls `apply` with each, one at a time and in
order. Whoever must know about roles (the fetchers, the ISR keeper) is a RoleListener.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

import structlog

from quorate.errors import CorruptRecordError, NotLeaderError, StorageError, UnknownTopicError
from quorate.v1.common_pb2 import LeaderHint
from quorate_broker.files.inventory import Inventory
from quorate_broker.files.replica_files import LogDirectory, ReplicaFiles
from quorate_broker.losses import Losses, counts_on
from quorate_broker.reopening import Reopening
from quorate_broker.replica.leader_replica import LeaderReplica
from quorate_broker.replica.partition import Partition
from quorate_broker.replica.producer_memory import ProducerLimits, ProducerMemory
from quorate_broker.replica.producers import Producers
from quorate_broker.replica.replica import Failure, Replica, has_other_leaders
from quorate_broker.replica.waiters import hinted
from quorate_quorum.configs import TopicConfig
from quorate_quorum.log.disk_errors import (
    ReopenError,
    TryAgainError,
    blames_disk,
    is_passing,
    storage_error,
)
from quorate_quorum.log.log import Log, LogConfig, LogCorruptError
from quorate_quorum.log.run_file import THIS_RUN, Run
from quorate_quorum.metadata.image import EMPTY, NO_LEADER

if TYPE_CHECKING:
    from quorate.record.batch import BatchHeader
    from quorate_quorum.client.client import QuorumClient
    from quorate_quorum.log.disk import Buffer
    from quorate_quorum.metadata.delta import MetadataDelta
    from quorate_quorum.metadata.image import MetadataImage, PartitionImage, TopicImage
    from quorate_quorum.node.config import BrokerConfig
    from quorate_quorum.node.environment import Environment

log_line = structlog.get_logger(__name__)

Key = tuple[bytes, int]
Item = TypeVar("Item")

#: Logs that are opened, or change roles, at the same time.
PARALLEL = 16
#: How long to wait before a file that could not be read for now is tried again.
RETRY_S = 1.0


class RoleListener(Protocol):
    """Who follows which partitions lead, follow and go. Called in the loop; must not wait."""

    def role_changed(self, partition: Partition) -> None:
        """It leads, follows (another leader or leader_epoch) or does neither now."""

    def removed(self, partition: Partition) -> None:
        """It is no longer held here."""

    def isr_wanted(self, partition: Partition) -> None:
        """Its ISR should be looked at soon."""


class Replicas:
    """See the module. Lifecycle sets `directories` and `cluster_id` before load().

    `broker_epoch` and `incarnation` are set by lifecycle once the registration is applied and
    the run file says so: before that nothing leads, fetches or appends.
    """

    def __init__(
        self,
        config: BrokerConfig,
        environment: Environment,
        client: QuorumClient,
        fail: Callable[[str], None],
    ) -> None:
        self.config = config
        self.environment = environment
        self.client = client
        self.image: MetadataImage = EMPTY
        #: By directory id.
        self.directories: dict[bytes, LogDirectory] = {}
        self.cluster_id = ""
        self.broker_epoch = -1
        self.incarnation = b""
        #: Directories that failed since the start, and why (reported by heartbeat).
        self.failed_directories: dict[bytes, str] = {}
        #: Called when one fails; lifecycle's.
        self.on_directory_failed: Callable[[bytes, str], None] = _ignore_directory
        #: Of `image`; what is written names it. Lifecycle's before load().
        self.quorum_generation = client.quorum_generation
        #: Called before an image of another generation is carried out: it must survive a crash.
        self.on_generation: Callable[[int], Awaitable[None]] = _ignore_generation
        self._fail = fail
        self._partitions: dict[Key, Partition] = {}
        #: Held, but their logs did not open.
        self._unopened: dict[Key, str] = {}
        #: Where those ended that are opened again in this run: what is below was there.
        self._ends: dict[Key, int] = {}
        #: Held, and with less than they had: without a role while the controller counts on them.
        self.losses = Losses()
        self._inventories: dict[bytes, Inventory] = {}
        #: To be cut at the first bad batch before they are used again, once nobody counts on them;
        #: and what the replica then owes (see Partition.owed).
        self._corrupt: dict[Key, tuple[int, int] | None] = {}
        self._salvages: dict[Key, asyncio.Task[None]] = {}
        self._salvaging = asyncio.Lock()
        #: Corrupt replicas that are being noted on the disk.
        self._notes: dict[Key, asyncio.Task[None]] = {}
        self._listeners: list[RoleListener] = []
        self._configs: dict[bytes, TopicConfig] = {}
        self._files = ReplicaFiles(self)
        #: One image, or one reopening, at a time: two must not open the same log.
        self._carrying_out = asyncio.Lock()
        self._reopening = Reopening(self._reopen, fail)
        #: Directories in which a log could not be closed durably: their stop was not clean.
        self.unclean_directories: set[bytes] = set()
        self._checkpoints: asyncio.Task[None] | None = None
        self._checkpointing = asyncio.Lock()
        self._has_loaded = False
        #: Shared by all partitions; its clock is told by ProducerExpiry.
        self.producer_memory = ProducerMemory(
            ProducerLimits(
                expiration_ms=config.producer_id_expiration_ms,
                partition_producers_max=config.partition_producers_max,
                partition_bytes_max=config.partition_producer_state_max_bytes,
                broker_bytes_max=config.producer_state_max_bytes,
            )
        )

    # what is held

    @property
    def fenced(self) -> bool:
        """Whether this broker, as it sees itself, must not lead."""
        broker = self.image.brokers.get(self.broker_id)
        return broker is None or broker.fenced or broker.epoch != self.broker_epoch

    def get(self, topic_id: bytes, partition: int) -> Partition:
        """Return a partition held here, offline ones too.

        Raises UnknownTopicError, NotLeaderError (hint_of says who leads), StorageError.
        """
        found = self._partitions.get((topic_id, partition))
        if found is not None:
            return found
        state = self.image.partition(topic_id, partition)
        if state is None:
            raise UnknownTopicError(f"no topic {topic_id.hex()} with partition {partition} here")
        hint = LeaderHint(leader=state.leader, leader_epoch=state.leader_epoch)
        reason = self._unopened.get((topic_id, partition))
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
        """Return a partition if it is held and open here."""
        return self._partitions.get((topic_id, partition))

    @property
    def held(self) -> int:
        """How many partitions are held and open here."""
        return len(self._partitions)

    def all(self) -> Iterable[Partition]:
        """Return all partitions held and open, in the order of their opening."""
        return tuple(self._partitions.values())

    def replica_end(self, topic_id: bytes, partition: int) -> tuple[int, int]:
        """Return (last_epoch, log_end_offset) for an election that looks at ends.

        Raises what get() raises, and StorageError if the replica is offline.
        """
        found = self.get(topic_id, partition)
        if found.offline is not None:
            raise found.offline_error()
        return found.log.last_epoch, found.log.log_end_offset

    def subscribe(self, listener: RoleListener) -> None:
        """Tell `listener` of every role from now on, and of those that there are."""
        self._listeners.append(listener)
        for partition in self.all():
            listener.role_changed(partition)

    def eligible_epoch(self, partition: Partition, broker_id: int) -> int:
        """Return the broker_epoch of a broker that may be in the ISR, -1 if it may not."""
        state = self.image.partition(*partition.key)
        if state is None or not self.image.is_eligible(state, broker_id):
            return -1
        return self.image.brokers[broker_id].epoch

    # following the image

    async def load(self, image: MetadataImage) -> None:
        """Open the logs of all replicas that the image places here, and give them their roles."""
        async with self._carrying_out:
            self.image = image
            await self.on_generation(self.quorum_generation)
            keys = [
                (topic.id, index)
                for topic in image.sorted_topics()
                for index in range(len(topic.partitions))
            ]
            for directory_id, directory in self.directories.items():
                await self._files.sweep(directory_id, directory)
                await self._open_inventory(directory_id, directory, keys)
            await self._reconcile(keys)
            self._has_loaded = True
        self._checkpoints = asyncio.create_task(self._checkpoint(), name="high watermarks")
        self._checkpoints.add_done_callback(self._checkpoints_ended)

    async def apply(self, delta: MetadataDelta, image: MetadataImage) -> None:
        """Carry out one image: what is removed first (K25), then what changed.

        The first image of a newer generation removes nothing: what it does not know may be all
        that is left of what the lost voters had decided.
        """
        async with self._carrying_out:
            await self._apply(delta, image)

    async def _apply(self, delta: MetadataDelta, image: MetadataImage) -> None:
        if delta.generation:
            await self.on_generation(delta.generation)
            self.quorum_generation = delta.generation
            self._files.keep_all()  # what was to go may be what this history counts on
        self.image = image
        if delta.generation:
            await self._let_go()
        for topic in delta.removed_topics:
            self._configs.pop(topic.id, None)
            for index in range(len(topic.partitions)):
                await self._drop((topic.id, index))
        keys = dict.fromkeys(delta.changed_partitions)
        for topic_id in delta.changed_configs:
            self._forget_config(topic_id)
            keys.update((key, None) for key in self._partitions if topic_id in (b"", key[0]))
        if self.broker_id in delta.changed_brokers:
            keys.update(dict.fromkeys(self._partitions))
            keys.update(dict.fromkeys(self._unopened))
        await self._reconcile(list(keys))
        if delta.changed_brokers:  # one that was fenced may be fit for an ISR now
            for partition in self.all():
                role = partition.role
                if isinstance(role, LeaderReplica) and role.machine.wants_to_expand:
                    self.isr_wanted(partition)

    async def close(self, *, clean: bool) -> None:
        """Close all logs; with `clean`, durably. Safe to call twice."""
        if self._checkpoints is not None:
            async with self._checkpointing:  # a write that is cancelled half way fails its log
                self._checkpoints.cancel()
            await asyncio.wait([self._checkpoints])
        await self._reopening.stop()
        salvages = list(self._salvages.values())
        for salvage in salvages:
            salvage.cancel()
        if under_way := [*salvages, *self._notes.values()]:
            await asyncio.wait(under_way)
        await _each(self.all(), lambda partition: partition.close(clean=clean))
        self._note_unclean()
        await self._files.stop()
        for inventory in self._inventories.values():
            await inventory.close()

    # PartitionHost

    @property
    def broker_id(self) -> int:
        return self.config.node_id

    @property
    def lag_ms(self) -> int:
        return self.config.replica_lag_time_max_ms

    def endpoint_of(self, broker_id: int) -> str:
        broker = self.image.brokers.get(broker_id)
        return "" if broker is None else broker.endpoint

    async def prepare(self, replica: Replica, *, is_noted: bool) -> None:
        """Make the replica's directory with the file that says whose it is."""
        path = f"{self.directories[replica.directory_id].path}/{replica.name}"
        await self._files.make(path, replica.topic_id)
        if not is_noted:
            await self._inventories[replica.directory_id].make_room()

    async def written(self, replica: Replica) -> None:
        """Remember, outside its directory, that the replica was written."""
        await self._inventories[replica.directory_id].note(replica.key)

    def isr_wanted(self, partition: Partition) -> None:
        for listener in self._listeners:
            listener.isr_wanted(partition)

    def failed(self, partition: Partition, failure: Failure, reason: str) -> None:
        """A replica went offline; a bad disk takes its whole directory with it.

        A corrupt replica is told to the controller, and follows again once nobody counts on it.
        One whose invariant broke, or whose log must be opened again, asks for another leader, and
        is opened again when there is one.
        """
        for listener in self._listeners:
            listener.role_changed(partition)
        if failure == "storage":
            self.directory_failed(partition.directory_id, reason)
        elif failure == "replica":
            self._reopening.want(partition.key)
        elif failure == "corrupt" and self._partitions.get(partition.key) is partition:
            self._corrupt[partition.key] = partition.owed
            self._note_corrupt_soon(partition, reason)

    def directory_failed(self, directory_id: bytes, reason: str) -> None:
        """A log directory's disk failed: all replicas on it are offline from now on."""
        if directory_id in self.failed_directories or directory_id not in self.directories:
            return
        self.failed_directories[directory_id] = reason
        path = self.directories[directory_id].path
        log_line.error("log directory failed", path=path, reason=reason)
        for partition in self.all():
            if partition.directory_id == directory_id:
                partition.take_offline("storage", f"{path} failed: {reason}")
        self.on_directory_failed(directory_id, reason)

    # inside: one partition after another

    async def _reconcile(self, keys: Sequence[Key]) -> None:
        await _each(keys, self._reconcile_one)

    async def _reconcile_one(self, key: Key) -> None:
        topic = self.image.topics.get(key[0])
        state = self.image.partition(*key)
        if topic is None or state is None:
            return
        directory_id = state.directory_of(self.broker_id)
        partition = self._partitions.get(key)
        if directory_id is None or (partition and partition.directory_id != directory_id):
            await self._drop(key)
            partition = None
        if directory_id is None:
            return
        is_led_elsewhere = state.leader not in (self.broker_id, NO_LEADER)
        if partition is not None and partition.damage.reason and is_led_elsewhere:
            # It is repaired as a follower. Not without a leader: it may be the only copy.
            partition.take_offline("corrupt", partition.damage.reason)
        if partition is not None and partition.failure in ("broken", "replica"):
            if not await self._open_again(partition, topic, state):
                return
            partition = self._partitions.get(key)
        elif partition is None and key not in self._corrupt:
            partition = await self._open(topic, key[1], directory_id)
        await self._look_at_losses(key, partition, topic, state)
        if partition is not None:
            await self._follow(partition, topic, state)
            if partition.is_leader and partition.log.lost_start is not None:
                await self._accept_start(partition)

    async def _accept_start(self, partition: Partition) -> None:
        """It was elected with what it has: the loss was told, and is not to be told again."""
        try:
            await partition.log.accept_start()
        except StorageError as error:
            if blames_disk(error):
                self.directory_failed(partition.directory_id, str(error))
            else:
                log_line.warning("start_not_accepted", partition=partition.name, reason=str(error))

    async def _follow(self, partition: Partition, topic: TopicImage, state: PartitionImage) -> None:
        is_trusted = partition.key not in self.losses
        try:
            changed = await partition.follow_image(
                state,
                self._config_of(topic),
                self.image.min_isr(topic, state),
                may_lead=is_trusted and not self.fenced,
                may_follow=is_trusted,
            )
        except StorageError:
            return  # a broken invariant: it is offline now, and was reported (law 11)
        if changed:
            for listener in self._listeners:
                listener.role_changed(partition)

    async def _open_again(
        self, failed: Partition, topic: TopicImage, state: PartitionImage
    ) -> bool:
        """Open a replica again whose disk is good; False while it stays as it is.

        One that is to lead meanwhile asks for another leader, by the ISR keeper.
        """
        await self._follow(failed, topic, state)
        if failed.must_resign and not self._may_lead_on(failed, state):
            for listener in self._listeners:
                listener.role_changed(failed)
            return False
        key = failed.key
        self._unopened[key] = "it is being opened again"
        self._ends[key] = failed.log.log_end_offset
        await failed.close(clean=False)
        opened = await self._open(topic, key[1], failed.directory_id)
        if opened is None and key not in self._corrupt:
            return False
        for listener in self._listeners:
            listener.removed(failed)
        if opened is None:
            del self._partitions[key]
        return True

    async def _open(self, topic: TopicImage, index: int, directory_id: bytes) -> Partition | None:
        """Open a replica; None, and a reason kept, if it can't be."""
        partition = await self._made(topic, index, directory_id, salvage=False)
        if partition is not None:
            self._partitions[partition.key] = partition
            if partition.log.recovered.damaged:
                reason = partition.log.recovered.damaged
                self.losses.found(partition.key, partition.name, reason)
            await self._compare_with_inventory(partition)
        return partition

    async def _made(
        self, topic: TopicImage, index: int, directory_id: bytes, *, salvage: bool
    ) -> Partition | None:
        """Open a replica's log, and join it with a partition; None, and a reason kept, if it can't
        be. `salvage`: of a corrupt log the good batches are kept, up to the first bad one.
        """
        key = (topic.id, index)
        directory = self.directories.get(directory_id)
        if directory is None or directory_id in self.failed_directories:
            self._unopened[key] = f"log directory {directory_id.hex()} is not there"
            return None
        path = f"{directory.path}/{topic.name}-{index}"
        try:
            if key in self._unopened:
                await self._files.check_directory(directory)
            is_noted = self._inventories[directory_id].is_sure_of(key)
            await self._files.make_room(
                directory_id, path, topic.id, is_noted=is_noted, salvage=salvage
            )
            # What is opened again was written in this very run: its end is yet to be synced.
            run = THIS_RUN if self._has_loaded else directory.run
            log, producers = await self._open_log(path, topic, index, run, salvage=salvage)
            if log.log_end_offset < self._ends.get(key, 0) and not salvage:
                await log.note_corrupt()  # the next start does not know where it had ended
                await log.close(clean=False)
                raise LogCorruptError(
                    f"{path} ends at {log.log_end_offset}, and ended at {self._ends[key]} before"
                    " it was opened again"
                )
        except (StorageError, OSError) as error:
            self._did_not_open(topic, index, directory_id, error)
            return None
        self._unopened.pop(key, None)
        self._ends.pop(key, None)
        return Partition(
            topic.id,
            topic.name,
            index,
            log,
            producers,
            self,
            directory_id=directory_id,
        )

    async def _open_log(
        self, path: str, topic: TopicImage, index: int, run: Run, *, salvage: bool
    ) -> tuple[Log, Producers]:
        config = self._config_of(topic)
        epoch_max = topic.partitions[index].leader_epoch

        def has_been(header: BatchHeader, _: Buffer) -> None:
            """The CRC does not cover a batch's epoch; it is of a leader that the image knows."""
            if header.leader_epoch > epoch_max:
                raise CorruptRecordError(f"the batch is of leader_epoch {header.leader_epoch}")

        producers = Producers(self.producer_memory)
        log_config = LogConfig(
            segment_bytes=config.segment_bytes,
            track_synced=config.flush_on_ack,
            verify_all=salvage,
            salvage=salvage,
        )
        inspect = has_been if salvage else None
        disk = self.environment.disk
        log = await Log.open(disk, path, log_config, observer=producers, run=run, inspect=inspect)
        if log.last_epoch > epoch_max:
            await log.note_corrupt()  # one day the image may know a leader of that epoch
            await log.close(clean=False)
            raise LogCorruptError(
                f"{path}: it ends in leader_epoch {log.last_epoch}, which never was"
            )
        return log, producers

    def _did_not_open(
        self, topic: TopicImage, index: int, directory_id: bytes, error: Exception
    ) -> None:
        """Bad bytes cost this replica, a bad disk the directory; what is neither
        costs some time.
        """
        key = (topic.id, index)
        name = f"{topic.name}-{index}"
        if isinstance(error, OSError):
            error = storage_error(name, error)
        log_line.error("replica did not open", partition=name, reason=str(error))
        self._unopened[key] = str(error)
        if isinstance(error, ReopenError | TryAgainError):
            self._reopening.want(key)
            return
        if not isinstance(error, LogCorruptError):
            self.directory_failed(directory_id, str(error))
            return
        self._corrupt.setdefault(key, None)
        self.losses.found(key, name, str(error))

    # inside: replicas that have less than they had

    async def _open_inventory(
        self, directory_id: bytes, directory: LogDirectory, keys: Sequence[Key]
    ) -> None:
        placed = [
            key
            for key in keys
            if (state := self.image.partition(*key)) is not None
            and state.directory_of(self.broker_id) == directory_id
        ]
        while directory_id not in self._inventories:
            try:
                self._inventories[directory_id] = await Inventory.open(
                    self.environment.disk, directory.path, placed, has_run=directory.run.has_begun
                )
            except OSError as error:
                reason = f"the inventory of {directory.path} can't be read: {error}"
                if not is_passing(error):
                    self.directory_failed(directory_id, reason)
                    return
                log_line.error("waiting for what passes", reason=reason)
                await asyncio.sleep(RETRY_S)

    async def _compare_with_inventory(self, partition: Partition) -> None:
        """What was written and has no log is lost; what has a log was written."""
        inventory = self._inventories[partition.directory_id]
        is_noted = partition.replica_log.is_noted = inventory.has(partition.key)
        if is_noted and not partition.log.has_segments:
            self.losses.found(partition.key, partition.name, "it was written, and its log is gone")
        elif partition.log.has_segments and not is_noted:
            try:
                await inventory.make_room()
                await self.written(partition)
                partition.replica_log.is_noted = True
            except StorageError as error:  # else the next append notes it
                if blames_disk(error):
                    self.directory_failed(partition.directory_id, str(error))

    async def _look_at_losses(
        self, key: Key, partition: Partition | None, topic: TopicImage, state: PartitionImage
    ) -> None:
        """Tell of a lossy replica while the controller counts on it; then let it follow again."""
        name = f"{topic.name}-{key[1]}"
        is_trusted = counts_on(state, self.broker_id)
        if partition is not None and partition.owed is not None:
            await self._look_at_what_is_owed(partition, state)
        if key in self.losses and is_trusted:
            self.losses.on_found()  # the state is another one now: tell of this one
        elif key in self.losses:
            self.losses.settled(key)
            if partition is not None and partition.offline is None and partition.owed is None:
                await self._forget_loss(partition)
        if key in self._corrupt and key not in self._notes:
            if is_trusted:
                self.losses.found(key, name, "it is corrupt")
            else:
                self._salvage_soon(key)

    async def _forget_loss(self, partition: Partition) -> None:
        """The controller knows: what was lost is not to be told again at the next start."""
        try:
            if not partition.log.has_segments:
                await self._inventories[partition.directory_id].forget(partition.key)
                partition.replica_log.is_noted = False
            await partition.log.forget_damage()
        except (StorageError, OSError) as error:
            if blames_disk(error):
                self.directory_failed(partition.directory_id, str(error))
            else:
                log_line.warning("loss_not_forgotten", partition=partition.name, reason=str(error))

    async def _look_at_what_is_owed(self, partition: Partition, state: PartitionImage) -> None:
        """A repaired follower may have been taken into the ISR for what it had before."""
        assert partition.owed is not None
        epoch, end = partition.owed
        is_trusted = counts_on(state, self.broker_id)
        if partition.log_end_offset >= end or (state.leader_epoch != epoch and not is_trusted):
            partition.owed = None
            await self._forget_loss(partition)
        elif is_trusted:
            reason = f"it was repaired, and has not caught up with its former end {end} yet"
            self.losses.found(partition.key, partition.name, reason)

    def _note_corrupt_soon(self, partition: Partition, reason: str) -> None:
        """Remember on the disk that a replica is corrupt, then tell of it: see Log.note_corrupt."""
        key = partition.key
        note = asyncio.create_task(self._note_corrupt(partition, reason), name="note a corruption")
        self._notes[key] = note
        note.add_done_callback(lambda done: self._noted(key, done))

    async def _note_corrupt(self, partition: Partition, reason: str) -> None:
        if partition.damage.noting is not None:
            await asyncio.wait([partition.damage.noting])
        try:
            await partition.log.note_corrupt()
        except StorageError as error:  # told all the same: nobody may count on it
            log_line.error("corruption_not_noted", partition=partition.name, reason=str(error))
            if blames_disk(error):
                self.directory_failed(partition.directory_id, str(error))
        if self._partitions.get(partition.key) is partition:
            self.losses.found(partition.key, partition.name, reason)

    def _noted(self, key: Key, task: asyncio.Task[None]) -> None:
        self._notes.pop(key, None)
        if not task.cancelled() and task.exception() is not None:
            self._fail(f"a corrupt replica can't be noted: {task.exception()!r}")
        self._reopening.want(key)

    def _salvage_soon(self, key: Key) -> None:
        """Do it in the background, once at a time: the log is read as a whole."""
        if key not in self._salvages:
            salvage = asyncio.create_task(self._salvage(key), name="salvage a replica")
            self._salvages[key] = salvage
            salvage.add_done_callback(lambda done: self._salvage_ended(key, done))

    async def _salvage(self, key: Key) -> None:
        """Keep what is good of a corrupt replica on which nobody counts, and let it follow.

        Images are carried out meanwhile.
        """
        async with self._salvaging:
            async with self._carrying_out:
                found = self._to_salvage(key)
                if found is None:
                    return
                topic, directory_id = found
                before = self._partitions.get(key)
                if before is not None:
                    self._unopened[key] = "what is good of it is looked for"
                    await self._close(before)
            partition = await self._made(topic, key[1], directory_id, salvage=True)
            if partition is None:
                return
            async with self._carrying_out:
                now = self._to_salvage(key)
                if now is None or now[1] != directory_id or key in self._partitions:
                    await partition.close(clean=False)
                    return  # it went elsewhere, or is counted on again: the image says what follows
                partition.owed = self._corrupt.pop(key)
                self._partitions[key] = partition
                log_line.warning(
                    "replica_salvaged", partition=partition.name, end=partition.log_end_offset
                )
                await self._compare_with_inventory(partition)
                self.losses.settled(key)
                if partition.owed is None:
                    await self._forget_loss(partition)
                await self._reconcile_one(key)

    def _to_salvage(self, key: Key) -> tuple[TopicImage, bytes] | None:
        """Return the topic and the directory of a corrupt replica that may be cut now."""
        topic, state = self.image.topics.get(key[0]), self.image.partition(*key)
        if topic is None or state is None or key not in self._corrupt:
            return None
        directory_id = state.directory_of(self.broker_id)
        if directory_id is None or counts_on(state, self.broker_id):
            return None
        return topic, directory_id

    def _salvage_ended(self, key: Key, task: asyncio.Task[None]) -> None:
        del self._salvages[key]
        if not task.cancelled() and task.exception() is not None:
            log_line.error("salvage failed", exc_info=task.exception())
            self._fail(f"a replica can't be salvaged: {task.exception()!r}")

    async def _drop(self, key: Key) -> None:
        """Let go of a replica and remove its directory, renamed at once so the name is free."""
        self._unopened.pop(key, None)
        self._corrupt.pop(key, None)
        self._ends.pop(key, None)
        self.losses.settled(key)
        partition = self._partitions.get(key)
        if partition is None:
            return
        await self._close(partition)
        log_line.info("replica removed", partition=partition.name)
        await self._files.remove(partition.directory_id, partition.name, partition.topic_id)

    async def _let_go(self) -> None:
        """Close the replicas that the image does not place where they are; their files stay."""
        held = {key: one.directory_id for key, one in self._partitions.items()}
        for key in dict.fromkeys((*held, *self._unopened)):
            state = self.image.partition(*key)
            placed = None if state is None else state.directory_of(self.broker_id)
            if placed is not None and placed == held.get(key, placed):
                continue
            self._unopened.pop(key, None)
            self._corrupt.pop(key, None)
            self._ends.pop(key, None)
            self.losses.settled(key)
            if key in held:
                partition = self._partitions[key]
                log_line.warning(
                    "kept_of_another_history",
                    directory=self.directories[partition.directory_id].path,
                    name=partition.name,
                    quorum_generation=self.quorum_generation,
                )
                await self._close(partition)

    async def _close(self, partition: Partition) -> None:
        """Let go of a replica; its directory stays."""
        del self._partitions[partition.key]
        await partition.close(clean=False)
        for listener in self._listeners:
            listener.removed(partition)

    async def _reopen(self, keys: Sequence[Key]) -> None:
        for key in keys:  # one by one: an image must not wait for all of them
            async with self._carrying_out:
                await self._reconcile([key])

    # inside: small

    def _may_lead_on(self, partition: Partition, state: PartitionImage) -> bool:
        """Whether a leader may be opened again in its reign: nobody else can be elected."""
        return partition.failure == "replica" and set(state.isr) <= {self.broker_id}

    def _note_unclean(self) -> None:
        """The stop of a directory with a log that was not closed durably was not clean."""
        for partition in self.all():
            if partition.offline is not None:
                self.unclean_directories.add(partition.directory_id)
        for key in self._unopened:
            state = self.image.partition(*key)
            directory_id = None if state is None else state.directory_of(self.broker_id)
            if directory_id is not None:
                self.unclean_directories.add(directory_id)

    def _config_of(self, topic: TopicImage) -> TopicConfig:
        config = self._configs.get(topic.id)
        if config is None:
            config = self._configs[topic.id] = self.image.topic_config(topic)
        return config

    def _forget_config(self, topic_id: bytes) -> None:
        if topic_id:
            self._configs.pop(topic_id, None)
        else:
            self._configs.clear()

    async def _checkpoint(self) -> None:
        """Write the high watermarks down now and then; at a start they are a lower bound."""
        interval = self.config.replica_high_watermark_checkpoint_interval_ms / 1000
        while True:
            await asyncio.sleep(interval)
            async with self._checkpointing:
                for partition in self.all():
                    await partition.replica_log.checkpoint()
                    owed = partition.owed
                    if owed is not None and partition.log_end_offset >= owed[1]:
                        self._reopening.want(partition.key)

    def _checkpoints_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._fail(f"high watermarks can't be written down: {task.exception()!r}")


async def _each(items: Iterable[Item], work: Callable[[Item], Awaitable[None]]) -> None:
    """Do the work on each item, at most PARALLEL at a time; the first error ends it.

    Work that waits for nothing gives the loop a turn after so many items: there may be thousands.
    """
    held = list(items)
    queue = iter(held)

    async def worker() -> None:
        for number, item in enumerate(queue):
            if number:
                await asyncio.sleep(0)
            await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(PARALLEL, len(held))):
            group.create_task(worker())


async def _ignore_generation(generation: int) -> None:
    """Nobody remembers it."""


def _ignore_directory(directory_id: bytes, reason: str) -> None:
    """Nobody listens yet; failed_directories keeps it."""
