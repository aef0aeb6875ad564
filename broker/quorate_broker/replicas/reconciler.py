"""Makes this broker's replicas match the image: opens them, gives roles, closes, removes.

The image says which partitions this broker has, and in which directory. The Publisher calls `apply`
with each image, one at a time and in order.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

import structlog

from quorate.aio.turns import Turns
from quorate.errors import StorageError
from quorate_broker.replica.leader_replica import LeaderReplica
from quorate_broker.replica.partition import Partition
from quorate_broker.replica.replica import Failure, Key
from quorate_broker.replicas.checkpoints import Checkpoints
from quorate_broker.replicas.opener import Opener
from quorate_broker.replicas.recovery_points import RecoveryPoints
from quorate_broker.replicas.reopening import Reopening
from quorate_broker.replicas.repairs import Repairs
from quorate_broker.replicas.replicas import Replicas
from quorate_quorum.metadata.delta import MetadataDelta
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.partitions import NO_LEADER, PartitionImage
from quorate_quorum.metadata.topics import TopicImage

log_line = structlog.get_logger(__name__)

Item = TypeVar("Item")

#: The most logs that are opened, and most replicas that change roles, at the same time.
PARALLEL = 16
#: Of these, the most that begin in one turn of the loop. The work on one takes about 1 ms.
BEGINNINGS_A_TURN = 8
#: The most partitions that are only looked at in one turn of the loop.
LOOKS_A_TURN = 500


class Reconciler:
    """Makes the replicas match the image: see the module. `fail` stops the broker."""

    def __init__(self, replicas: Replicas, fail: Callable[[str], None]) -> None:
        self.replicas = replicas
        #: Directories in which a log could not be closed durably: they must not be marked as clean.
        self.unclean_directories: set[bytes] = set()
        #: Held for one image or one reopening at a time, because two of them must not open the same
        #: log.
        self._changing = asyncio.Lock()
        self._reopening = Reopening(self._reopen, fail)
        self._opener = Opener(replicas, self._reopening.want)
        self._repairs = Repairs(
            replicas, self._opener, self._changing, self._reconcile, self._reopening.want, fail
        )
        self.checkpoints = Checkpoints(replicas, self._reopening.want, fail)
        self.recovery_points = RecoveryPoints(replicas, fail)
        self._broker_id = replicas.broker_id
        replicas.on_offline = self._went_offline

    # images

    async def load(self, image: MetadataImage) -> None:
        """Open the logs of all replicas that the image places here, and give them roles."""
        replicas = self.replicas
        async with self._changing:
            replicas.image = image
            await replicas.on_generation(replicas.quorum_generation)
            keys = [
                (topic.id, index)
                for topic in image.sorted_topics()
                for index in range(len(topic.partitions))
            ]
            for directory_id, directory in replicas.directories.items():
                await replicas.files.sweep(directory_id, directory)
                await self._opener.open_inventory(directory_id, directory, keys)
            async with self._opener.looked_up(keys):
                await _each(keys, self._reconcile)
            self._opener.has_loaded = True
        self.checkpoints.start()
        self.recovery_points.start()

    async def apply(self, delta: MetadataDelta, image: MetadataImage) -> None:
        """Carry out one image: first the removals, then the changes.

        The order matters for a topic that was deleted and created again under the same name: the
        new topic needs the name of the old topic's directory.

        The first image of a newer generation removes nothing. A replica that this image does not
        have may be the only copy of records from before the disaster recovery.
        """
        async with self._changing:
            with self.replicas.changing():
                await self._apply(delta, image)

    async def _apply(self, delta: MetadataDelta, image: MetadataImage) -> None:
        replicas = self.replicas
        if delta.generation:
            await replicas.on_generation(delta.generation)
            replicas.quorum_generation = delta.generation
            # cancel the removals: the new generation may still need these directories
            replicas.files.keep_all()
        replicas.image = image
        if delta.generation:
            await self._let_go()
        for topic in delta.topics.removed:
            replicas.forget_config(topic.id)
        removed = delta.topics.removed
        keys = [(topic.id, index) for topic in removed for index in range(len(topic.partitions))]
        await _each(keys, self._drop)
        changed = list(self._changed(delta))
        async with self._opener.looked_up(changed):
            await _each(changed, self._reconcile)
        # a broker that was fenced may be eligible for an ISR now
        if delta.brokers.changed:
            for number, partition in enumerate(replicas.all(), 1):
                if number % LOOKS_A_TURN == 0:
                    await asyncio.sleep(0)
                role = partition.role
                if isinstance(role, LeaderReplica) and role.machine.wants_to_expand:
                    replicas.isr_wanted(partition)

    def _changed(self, delta: MetadataDelta) -> Iterable[Key]:
        """Return the partitions that a delta may concern, each once."""
        replicas = self.replicas
        keys = dict.fromkeys(delta.topics.changed_partitions)
        for topic_id in delta.topics.changed_configs:
            replicas.forget_config(topic_id)
            topic = replicas.image.topics.get(topic_id)
            for index in range(0 if topic is None else len(topic.partitions)):
                if replicas.find(topic_id, index) is not None:
                    keys[topic_id, index] = None
        is_changed = self._broker_id in delta.brokers.changed
        if is_changed or b"" in delta.topics.changed_configs:
            keys.update((partition.key, None) for partition in replicas.all())
        if is_changed:
            keys.update(dict.fromkeys(replicas.unopened))
        return keys

    async def close(self, *, clean: bool, progressed: Callable[[], None] = lambda: None) -> None:
        """Close all logs; with `clean`, durably. It is safe to call this twice.

        `progressed` is called for each log, because thousands of them may take long. All logs write
        their files before the first log is synced: see recovery_point.py.
        """
        await self.checkpoints.stop()
        await self.recovery_points.stop()
        await self._reopening.stop()
        await self._repairs.stop()

        async def prepare(partition: Partition) -> None:
            await partition.replica_log.prepare_stop()
            progressed()

        async def close(partition: Partition) -> None:
            await partition.close(clean=clean)
            progressed()

        if clean:
            await _each(self.replicas.all(), prepare)
        await _each(self.replicas.all(), close)
        self._note_unclean()
        await self.replicas.files.stop()
        for inventory in self.replicas.inventories.values():
            await inventory.close()

    def _note_unclean(self) -> None:
        """Find the directories with a log that was not closed durably.

        They must not be marked as clean.
        """
        for partition in self.replicas.all():
            if partition.offline is not None:
                self.unclean_directories.add(partition.directory_id)
        for key in self.replicas.unopened:
            state = self.replicas.image.partition(*key)
            directory_id = None if state is None else state.directory_of(self._broker_id)
            if directory_id is not None:
                self.unclean_directories.add(directory_id)

    # one partition

    async def _reconcile(self, key: Key) -> None:
        replicas = self.replicas
        topic, state = replicas.image.topics.get(key[0]), replicas.image.partition(*key)
        if topic is None or state is None:
            return
        directory_id = state.directory_of(self._broker_id)
        partition = replicas.find(*key)
        if directory_id is None or (partition and partition.directory_id != directory_id):
            await self._drop(key)
            partition = None
        if directory_id is None:
            return
        is_led_elsewhere = state.leader not in (self._broker_id, NO_LEADER)
        if partition is not None and partition.damage.reason and is_led_elsewhere:
            # Repair the log only while another broker leads. If no broker leads, the log may be the
            # only copy.
            partition.take_offline("corrupt", partition.damage.reason)
        if partition is not None and partition.failure in ("broken", "replica"):
            if not await self._open_again(partition, topic, state):
                return
            partition = replicas.find(*key)
        elif partition is None and key not in replicas.losses.corrupt:
            partition = await self._opener.open(topic, key[1], directory_id)
        await self._repairs.look_at(key, partition, topic, state)
        if partition is not None:
            await self._follow(partition, topic, state)
            if partition.is_leader:
                await self._repairs.leads(partition)

    async def _follow(self, partition: Partition, topic: TopicImage, state: PartitionImage) -> None:
        is_trusted = partition.key not in self.replicas.losses
        try:
            changed = await partition.follow_image(
                state,
                self.replicas.config_of(topic),
                self.replicas.image.min_isr(topic, state),
                may_lead=is_trusted and not self.replicas.fenced,
                may_follow=is_trusted,
            )
        except StorageError:
            # an invariant is broken: the replica is already offline, and its failure was logged
            return
        if changed:
            self.replicas.role_changed(partition)

    async def _open_again(
        self, failed: Partition, topic: TopicImage, state: PartitionImage
    ) -> bool:
        """Open a failed replica again, whose disk is good. Return False if it stays offline.

        If the image makes this replica the leader, it stays offline, and the ISR keeper asks for
        another leader. But if the ISR has no other member, and the failure is "replica", the
        replica is opened again and continues to lead.
        """
        await self._follow(failed, topic, state)
        may_lead_on = failed.failure == "replica" and set(state.isr) <= {self._broker_id}
        if failed.must_resign and not may_lead_on:
            self.replicas.role_changed(failed)
            return False
        await self._opener.close_to_open_again(failed)
        opened = await self._opener.open(topic, failed.partition, failed.directory_id)
        if opened is None and failed.key not in self.replicas.losses.corrupt:
            return False
        self.replicas.removed(failed)
        if opened is None:
            self.replicas.forget(failed)
        return True

    def _went_offline(self, partition: Partition, failure: Failure, reason: str) -> None:
        """React to a replica that went offline although its disk is good.

        The reaction depends on the failure:

        * corrupt: report the loss to the controller. When the image has the replica in neither ISR
          nor ELR, the replica is repaired and follows again.
        * replica: open the log again soon.
        * broken: open the log again with the next image that gives the partition another leader.
        """
        if failure == "replica":
            self._reopening.want(partition.key)
        elif failure == "corrupt" and self.replicas.is_held(partition):
            self._repairs.found_corrupt(partition, reason)

    async def _reopen(self, keys: Sequence[Key]) -> None:
        # take the lock for each key anew, so that an image does not wait for all keys
        for key in keys:
            async with self._changing:
                await self._reconcile(key)

    # removal

    async def _drop(self, key: Key) -> None:
        """Close a replica and remove its directory.

        The directory is first renamed, to free its name.
        """
        self._forget(key)
        partition = self.replicas.find(*key)
        if partition is None:
            return
        await self.replicas.close(partition)
        log_line.info("replica removed", partition=partition.name, bytes=partition.log.size)
        directory_id = partition.directory_id
        await self.replicas.files.remove(directory_id, partition.name, partition.topic_id)
        # After the files are gone: a replica that comes back here is new, and lacks nothing. If the
        # disk fails, others tell it, and the replica counts as one that lost its log.
        inventory = self.replicas.inventories.get(directory_id)
        if inventory is not None:
            with contextlib.suppress(StorageError):
                await inventory.forget(key)

    async def _let_go(self) -> None:
        """Close the replicas that the image does not place here any more. Their files stay."""
        replicas = self.replicas
        held = {partition.key: partition for partition in replicas.all()}
        for key in dict.fromkeys((*held, *replicas.unopened)):
            state = replicas.image.partition(*key)
            placed = None if state is None else state.directory_of(self._broker_id)
            partition = held.get(key)
            if placed is not None and (partition is None or partition.directory_id == placed):
                continue
            self._forget(key)
            if partition is not None:
                log_line.warning(
                    "kept_of_another_history",
                    directory=replicas.directories[partition.directory_id].path,
                    name=partition.name,
                    quorum_generation=replicas.quorum_generation,
                )
                await replicas.close(partition)

    def _forget(self, key: Key) -> None:
        self._opener.forget(key)
        self.replicas.losses.dropped(key)


async def _each(items: Iterable[Item], work: Callable[[Item], Awaitable[None]]) -> None:
    """Do the work on each item, on PARALLEL items at the same time. The first error ends all work.

    There may be thousands of items, and the work on one may have no await. So few of them begin in
    one turn of the loop.
    """
    held = list(items)
    queue = iter(held)
    turns = Turns(BEGINNINGS_A_TURN)

    async def worker() -> None:
        for item in queue:
            await turns.take()
            await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(PARALLEL, len(held))):
            group.create_task(worker())
