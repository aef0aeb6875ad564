"""All partitions that this broker holds a replica of: opened, given their roles, closed, removed.

The image says what is held and where; Publisher calls `apply` with each, one at a time and in
order. Whoever must know about roles (the fetchers, the ISR keeper) is a RoleListener.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

import structlog

from quorate.errors import NotLeaderError, StorageError, UnknownTopicError
from quorate.v1.common_pb2 import LeaderHint
from quorate_broker.partition.partition import Failure, Partition, PartitionLimits
from quorate_broker.partition.producers import Producers
from quorate_broker.partition.waiters import hinted
from quorate_broker.reopening import Reopening
from quorate_broker.replica_files import LogDirectory, ReplicaFiles
from quorate_quorum.log.disk_errors import ReopenError, TryAgainError, storage_error
from quorate_quorum.log.log import Log, LogConfig, LogCorruptError
from quorate_quorum.log.run_file import UNKNOWN, Run
from quorate_quorum.metadata.configs import TopicConfig
from quorate_quorum.metadata.image import EMPTY

if TYPE_CHECKING:
    from quorate_quorum.client.client import QuorumClient
    from quorate_quorum.metadata.delta import MetadataDelta
    from quorate_quorum.metadata.image import MetadataImage, PartitionImage, TopicImage
    from quorate_quorum.node.config import BrokerConfig
    from quorate_quorum.node.environment import Environment

log_line = structlog.get_logger(__name__)

Key = tuple[bytes, int]
Item = TypeVar("Item")

#: Logs that are opened, or change roles, at the same time.
PARALLEL = 16


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
        #: Of them, those whose bytes are not what was written: fetched again once nobody counts
        #: on them (law 7).
        self._corrupt: dict[Key, None] = {}
        #: Where those ended that are opened again in this run: what is below was there.
        self._ends: dict[Key, int] = {}
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
        self._limits = PartitionLimits(waiters_max=config.partition_waiting_max)

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
        hint = LeaderHint(
            leader=state.leader,
            leader_epoch=state.leader_epoch,
            endpoint=self.endpoint_of(state.leader),
        )
        reason = self._unopened.get((topic_id, partition))
        if reason is not None:
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
            for directory_id, directory in self.directories.items():
                await self._files.sweep(directory_id, directory)
            keys = [
                (topic.id, index)
                for topic in image.sorted_topics()
                for index in range(len(topic.partitions))
            ]
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
                if partition.wants_to_expand:
                    self.isr_wanted(partition)

    async def close(self, *, clean: bool) -> None:
        """Close all logs; with `clean`, durably. Safe to call twice."""
        if self._checkpoints is not None:
            async with self._checkpointing:  # a write that is cancelled half way fails its log
                self._checkpoints.cancel()
            await asyncio.wait([self._checkpoints])
        await self._reopening.stop()
        await _each(self.all(), lambda partition: partition.close(clean=clean))
        self._note_unclean()
        await self._files.stop()

    # PartitionHost

    @property
    def broker_id(self) -> int:
        return self.config.node_id

    @property
    def lag_ms(self) -> int:
        return self.config.replica_lag_time_max_ms

    def wall_clock_ms(self) -> int:
        return self.environment.wall_clock_ms()

    def endpoint_of(self, broker_id: int) -> str:
        broker = self.image.brokers.get(broker_id)
        return "" if broker is None else broker.endpoint

    async def prepare(self, partition: Partition) -> None:
        """Make the replica's directory with the file that says whose it is."""
        path = f"{self.directories[partition.directory_id].path}/{partition.name}"
        await self._files.make(path, partition.topic_id)

    def isr_wanted(self, partition: Partition) -> None:
        for listener in self._listeners:
            listener.isr_wanted(partition)

    def failed(self, partition: Partition, failure: Failure, reason: str) -> None:
        """A replica went offline; a bad disk takes its whole directory with it.

        A corrupt replica is fetched again once it is out of the ISR. One that leads takes its
        directory with it too: nothing else makes the controller elect another. One whose
        invariant broke, or whose log must be opened again, asks for another leader, and is opened
        again when there is one.
        """
        for listener in self._listeners:
            listener.role_changed(partition)
        if failure == "storage" or (failure == "corrupt" and self._is_leader(partition.key)):
            self.directory_failed(partition.directory_id, reason)
        elif failure == "replica":
            self._reopening.want(partition.key)

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
        if key in self._corrupt or (partition is not None and partition.failure == "corrupt"):
            if not await self._clear_corrupt(key, topic, directory_id):
                return
            partition = None
        if partition is not None and partition.failure in ("broken", "replica"):
            if state.leader == self.broker_id and not self._may_lead_on(partition, state):
                return  # the ISR keeper asks the controller for another leader
            self._unopened[key] = "it is being opened again"
            self._ends[key] = partition.log.log_end_offset
            await self._close(partition)
            partition = None
        if partition is None:
            partition = await self._open(topic, key[1], directory_id)
        if partition is not None:
            await self._follow(partition, topic, state)

    async def _follow(self, partition: Partition, topic: TopicImage, state: PartitionImage) -> None:
        try:
            changed = await partition.follow_image(
                state,
                self._config_of(topic),
                self.image.min_isr(topic, state),
                may_lead=not self.fenced,
            )
        except StorageError:
            return  # a broken invariant: it is offline now, and was reported (law 11)
        if changed:
            for listener in self._listeners:
                listener.role_changed(partition)

    async def _open(self, topic: TopicImage, index: int, directory_id: bytes) -> Partition | None:
        """Open a replica's log; None, and a reason kept, if it can't be."""
        key = (topic.id, index)
        directory = self.directories.get(directory_id)
        if directory is None or directory_id in self.failed_directories:
            self._unopened[key] = f"log directory {directory_id.hex()} is not there"
            return None
        path = f"{directory.path}/{topic.name}-{index}"
        try:
            if key in self._unopened:
                await self._files.check_directory(directory)
            await self._files.make_room(directory_id, path, topic.id)
            # What is opened again was written in this very run: its end is yet to be synced.
            run = UNKNOWN if self._has_loaded else directory.run
            log, producers = await self._open_log(path, topic, run)
            if log.log_end_offset < self._ends.get(key, 0):
                await log.close(clean=False)
                raise LogCorruptError(
                    f"{path} ends at {log.log_end_offset}, and ended at {self._ends[key]} before"
                    " it was opened again"
                )
        except (StorageError, OSError) as error:
            return await self._did_not_open(topic, index, directory_id, error)
        self._unopened.pop(key, None)
        self._ends.pop(key, None)
        partition = Partition(
            topic.id,
            topic.name,
            index,
            log,
            producers,
            self,
            directory_id=directory_id,
            limits=self._limits,
        )
        self._partitions[key] = partition
        return partition

    async def _open_log(self, path: str, topic: TopicImage, run: Run) -> tuple[Log, Producers]:
        config = self._config_of(topic)
        producers = Producers(self.config.partition_producers_max)
        log_config = LogConfig(segment_bytes=config.segment_bytes, track_synced=config.flush_on_ack)
        disk = self.environment.disk
        return await Log.open(disk, path, log_config, observer=producers, run=run), producers

    async def _did_not_open(
        self, topic: TopicImage, index: int, directory_id: bytes, error: Exception
    ) -> Partition | None:
        """Bad bytes cost this replica, a bad disk the directory (laws 6 and 7); what is neither
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
            return None
        if not isinstance(error, LogCorruptError):
            self.directory_failed(directory_id, str(error))
            return None
        self._corrupt[key] = None
        if await self._clear_corrupt(key, topic, directory_id):
            return await self._open(topic, index, directory_id)
        return None

    async def _clear_corrupt(self, key: Key, topic: TopicImage, directory_id: bytes) -> bool:
        """Remove a corrupt replica once nobody counts on it; tell whether that is done."""
        name = f"{topic.name}-{key[1]}"
        if self._is_leader(key):
            self.directory_failed(directory_id, f"{name} is corrupt, and was elected")
            return False
        if self._may_lead(key):
            return False
        log_line.warning("fetching a corrupt replica again", partition=name)
        await self._drop(key)
        if not await self._files.remove(directory_id, name, topic.id):
            self._corrupt[key] = None
            self._unopened[key] = "it is corrupt, and can't be removed"
            if directory_id not in self.failed_directories:
                self._reopening.want(key)
            return False
        self._corrupt.pop(key, None)
        return True

    async def _drop(self, key: Key) -> None:
        """Let go of a replica and remove its directory, renamed at once so the name is free."""
        self._unopened.pop(key, None)
        self._corrupt.pop(key, None)
        self._ends.pop(key, None)
        partition = self._partitions.get(key)
        if partition is None:
            return
        await self._close(partition)
        log_line.info("replica removed", partition=partition.name)
        await self._files.remove(partition.directory_id, partition.name, partition.topic_id)

    async def _let_go(self) -> None:
        """Close the replicas that the image does not place where they are; their files stay."""
        held = {key: one.directory_id for key, one in self._partitions.items()}
        for key in dict.fromkeys((*held, *self._unopened, *self._corrupt)):
            state = self.image.partition(*key)
            placed = None if state is None else state.directory_of(self.broker_id)
            if placed is not None and placed == held.get(key, placed):
                continue
            self._unopened.pop(key, None)
            self._corrupt.pop(key, None)
            self._ends.pop(key, None)
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
        async with self._carrying_out:
            await self._reconcile(keys)

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

    def _is_leader(self, key: Key) -> bool:
        state = self.image.partition(*key)
        return state is not None and state.leader == self.broker_id and not self.fenced

    def _may_lead(self, key: Key) -> bool:
        """Whether the controller may count on this replica having all that is committed."""
        state = self.image.partition(*key)
        return state is not None and self.broker_id in (*state.isr, *state.elr, *state.last_isr)

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
                    await partition.checkpoint()

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
