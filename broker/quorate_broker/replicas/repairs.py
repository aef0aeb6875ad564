"""Repairs of replicas that lost records: report them, then cut them to the good part.

1. The loss is found, when the log is opened or while it is in use. The broker notes it on the disk.
2. Heartbeats report the loss (Losses) until the image has the replica in neither ISR nor ELR.
3. A corrupt log is salvaged: it is cut at its first bad batch.
4. The replica follows like any other, and fetches the records that it lacks. If its topic is
   compacted, it first removes all records: see ReplicaLog.started_again.
5. The note on the disk is removed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

import structlog

from quorate.aio.tasks import Tasks
from quorate.errors import StorageError
from quorate_broker.replica.partition import Partition
from quorate_broker.replica.replica import Key
from quorate_broker.replicas.losses import counts_on
from quorate_broker.replicas.opener import Opener
from quorate_broker.replicas.replicas import Replicas
from quorate_quorum.log.disk_errors import blames_disk
from quorate_quorum.metadata.partitions import PartitionImage
from quorate_quorum.metadata.topics import TopicImage

log_line = structlog.get_logger(__name__)


@dataclass(eq=False)
class Repairs:
    """Repairs lossy replicas: see the module. `reconcile` gives a salvaged replica its role.

    The Reconciler holds `changing` while it carries out an image. A salvage reads a whole log. So
    salvages run in the background, one at a time, and do not delay images.
    """

    _replicas: Replicas
    _opener: Opener
    _changing: asyncio.Lock
    _reconcile: Callable[[Key], Awaitable[None]]
    _want_again: Callable[[Key], None]
    _fail: Callable[[str], None]
    _salvaging: asyncio.Lock = field(default_factory=asyncio.Lock)
    #: Replicas whose salvage runs or waits for its turn.
    _salvages: dict[Key, None] = field(default_factory=dict)
    #: Corrupt replicas whose note is being written to the disk.
    _notes: dict[Key, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._losses = self._replicas.losses
        self._salvage_tasks = Tasks(self._salvage_failed)
        self._note_tasks = Tasks(
            lambda _, error: self._fail(f"a corrupt replica can't be noted: {error!r}")
        )

    async def stop(self) -> None:
        """Cancel the salvages, and wait for the notes. It is safe to call this twice."""
        await self._salvage_tasks.end_all()
        await self._note_tasks.ended()

    # with each image

    async def look_at(
        self, key: Key, partition: Partition | None, topic: TopicImage, state: PartitionImage
    ) -> None:
        """Report a lossy replica while it is in ISR or ELR. After that, let it follow again."""
        name = f"{topic.name}-{key[1]}"
        is_trusted = counts_on(state, self._replicas.broker_id)
        if partition is not None and partition.owed is not None:
            await self._look_at_what_is_owed(partition, state)
        if key in self._losses and is_trusted:
            # send a heartbeat: the partition has a new state, which the report must have
            self._losses.on_found()
        elif key in self._losses:
            self._losses.settled(key)
            if partition is not None and partition.offline is None:
                await self._settle(partition, topic)
        if key in self._losses.corrupt and key not in self._notes:
            if is_trusted:
                self._losses.found(key, name, "it is corrupt")
            elif key not in self._salvages:
                self._salvages[key] = None
                self._salvage_tasks.spawn(self._salvage(key), "salvage a replica")

    async def _settle(self, partition: Partition, topic: TopicImage) -> None:
        """Forget a loss that the controller knows; of a compacted log, after it has begun again."""
        log = partition.log
        is_compacted = log.compaction.has_gaps or self._replicas.config_of(topic).compacts
        if log.damage.is_noted and is_compacted and log.log_end_offset > log.log_start_offset:
            partition.replica_log.started_again = partial(self._started_again, partition)
        elif partition.owed is None:
            await self._forget_loss(partition)

    async def _started_again(self, partition: Partition) -> None:
        if partition.owed is None:
            await self._forget_loss(partition)

    async def leads(self, partition: Partition) -> None:
        """Let a replica keep its log, because it was elected after its loss was reported.

        Otherwise the next start would report the loss again.
        """
        if partition.log.lost_start is not None:
            await self._accept_start(partition)
        if partition.replica_log.started_again is not None:
            partition.replica_log.started_again = None
            await self._forget_loss(partition)

    async def _forget_loss(self, partition: Partition) -> None:
        """Remove the note of a loss that the controller knows, so that it is not reported again."""
        if partition.replica_log.started_again is not None:
            return  # the note must last until the log has begun again
        try:
            if not partition.log.has_segments:
                await self._replicas.inventories[partition.directory_id].forget(partition.key)
                partition.replica_log.is_noted = False
            await partition.log.damage.forget_damage()
        except (StorageError, OSError) as error:
            self._replicas.done_without(partition, "loss_not_forgotten", error)

    async def _look_at_what_is_owed(self, partition: Partition, state: PartitionImage) -> None:
        """Check a repaired follower. The ISR may have it because of records that it has lost."""
        assert partition.owed is not None
        epoch, end = partition.owed
        is_trusted = counts_on(state, self._replicas.broker_id)
        has_all = partition.log_end_offset >= end and partition.replica_log.started_again is None
        if has_all or (state.leader_epoch != epoch and not is_trusted):
            partition.owed = None
            await self._forget_loss(partition)
        elif is_trusted:
            reason = f"it was repaired, and has not caught up with its former end {end} yet"
            self._losses.found(partition.key, partition.name, reason)

    async def _accept_start(self, partition: Partition) -> None:
        try:
            await partition.log.damage.accept_start()
        except StorageError as error:
            self._replicas.done_without(partition, "start_not_accepted", error)

    # a log that is found corrupt while it is in use

    def found_corrupt(self, partition: Partition, reason: str) -> None:
        """Note on the disk that a replica is corrupt. After that, report the replica.

        If the report came first, a crash before the note would let the next start trust the log:
        see DamageNotes.note_corrupt.
        """
        self._losses.corrupt[partition.key] = partition.owed
        self._notes[partition.key] = None
        self._note_tasks.spawn(self._note_corrupt(partition, reason), "note a corruption")

    async def _note_corrupt(self, partition: Partition, reason: str) -> None:
        try:
            if partition.damage.noting is not None:
                await asyncio.wait([partition.damage.noting])
            try:
                await partition.log.damage.note_corrupt()
            except StorageError as error:
                # report it anyway, because the replica must leave ISR and ELR
                log_line.error("corruption_not_noted", partition=partition.name, reason=str(error))
                if blames_disk(error):
                    self._replicas.directory_failed(partition.directory_id, str(error))
            if self._replicas.is_held(partition):
                self._losses.found(partition.key, partition.name, reason)
        finally:
            del self._notes[partition.key]
            self._want_again(partition.key)

    # salvage

    async def _salvage(self, key: Key) -> None:
        """Cut a corrupt replica that is in neither ISR nor ELR, and let it follow."""
        try:
            async with self._salvaging:
                async with self._changing:
                    found = self._to_salvage(key)
                    if found is None:
                        return
                    before = self._replicas.find(*key)
                    if before is not None:
                        self._replicas.unopened[key] = "what is good of it is looked for"
                        await self._replicas.close(before)
                topic, directory_id = found
                partition = await self._opener.make(topic, key[1], directory_id, salvage=True)
                if partition is None:
                    return
                async with self._changing:
                    now = self._to_salvage(key)
                    if now is None or now[1] != directory_id or self._replicas.find(*key):
                        await partition.close(clean=False)
                        # do not cut: the replica was moved, opened, or added to ISR or ELR again
                        return
                    await self._salvaged(partition, topic)
        finally:
            del self._salvages[key]

    async def _salvaged(self, partition: Partition, topic: TopicImage) -> None:
        partition.owed = self._losses.corrupt.pop(partition.key)
        self._replicas.add(partition)
        log_line.warning("replica_salvaged", partition=partition.name, end=partition.log_end_offset)
        await self._opener.compare_with_inventory(partition)
        self._losses.settled(partition.key)
        await self._settle(partition, topic)
        await self._reconcile(partition.key)

    def _to_salvage(self, key: Key) -> tuple[TopicImage, bytes] | None:
        """Return the topic and directory of a corrupt replica; None if it must not be cut now."""
        image, broker_id = self._replicas.image, self._replicas.broker_id
        topic, state = image.topics.get(key[0]), image.partition(*key)
        if topic is None or state is None or key not in self._losses.corrupt:
            return None
        directory_id = state.directory_of(broker_id)
        if directory_id is None or counts_on(state, broker_id):
            return None
        return topic, directory_id

    def _salvage_failed(self, _: str, error: BaseException) -> None:
        log_line.error("salvage failed", exc_info=error)
        self._fail(f"a replica can't be salvaged: {error!r}")
