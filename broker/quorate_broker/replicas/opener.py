"""Opens the logs of this broker's replicas, and decides what follows from an error."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import structlog

from quorate.errors import CorruptRecordError, StorageError
from quorate.record.batch import BatchHeader
from quorate_broker.files.inventory import Inventory
from quorate_broker.files.replica_files import LogDirectory
from quorate_broker.replica.partition import Partition
from quorate_broker.replica.producers import Producers
from quorate_broker.replica.replica import Key
from quorate_broker.replicas.replicas import Replicas
from quorate_quorum.disk import Buffer
from quorate_quorum.log.disk_errors import (
    ReopenError,
    TryAgainError,
    blames_disk,
    is_passing,
    storage_error,
)
from quorate_quorum.log.log import Log, LogConfig, LogCorruptError
from quorate_quorum.log.run_file import THIS_RUN, Run
from quorate_quorum.metadata.topics import TopicImage

log_line = structlog.get_logger(__name__)

#: Pause before a file is read again after a passing error.
RETRY_S = 1.0
#: From this number of replicas on, one look at a log directory costs less than one look for each.
LOOKED_UP_MIN = 16
#: The most replicas whose place is noted in one turn of the loop.
LOOKED_UP_A_TURN = 500


class Opener:
    """Opens logs, and checks that each has the records that were written to it.

    An error affects as little as possible. Bad bytes make the one replica lossy. A bad disk makes
    its directory fail. After any other error the Opener calls `want_again`, so that the replica is
    opened again later.
    """

    def __init__(self, replicas: Replicas, want_again: Callable[[Key], None]) -> None:
        self._replicas = replicas
        self._want_again = want_again
        #: Replica that was closed in this run, to be opened again -> end of its log at the close.
        #: The log must not end lower when it is opened.
        self._ends: dict[Key, int] = {}
        #: Whether the logs of the first image are open. A log that is opened later was written in
        #: this run.
        self.has_loaded = False
        #: Replicas that are not open, and that have no directory.
        self._free: set[Key] = set()

    @asynccontextmanager
    async def looked_up(self, keys: Iterable[Key]) -> AsyncIterator[None]:
        """Find which of these replicas have no directory, by one look at each log directory.

        Inside of this context their logs are opened without the disk. A new topic of a thousand
        partitions costs a thousand looks otherwise. The caller opens no replica beside it.
        """
        paths: defaultdict[bytes, list[tuple[Key, str]]] = defaultdict(list)
        for count, key in enumerate(keys, 1):
            if count % LOOKED_UP_A_TURN == 0:
                await asyncio.sleep(0)
            self._note_place(key, paths)
        for directory_id, placed in paths.items():
            if len(placed) >= LOOKED_UP_MIN:
                await self._look_up(directory_id, placed)
        try:
            yield
        finally:
            self._free.clear()

    def _note_place(self, key: Key, paths: Mapping[bytes, list[tuple[Key, str]]]) -> None:
        replicas = self._replicas
        topic = replicas.image.topics.get(key[0])
        if topic is None or key in replicas.unopened or replicas.find(*key) is not None:
            return
        directory_id = topic.partitions[key[1]].directory_of(replicas.broker_id)
        if directory_id in replicas.directories:
            paths[directory_id].append((key, f"{topic.name}-{key[1]}"))

    async def _look_up(self, directory_id: bytes, placed: list[tuple[Key, str]]) -> None:
        try:
            disk = self._replicas.environment.disk
            names = set(await disk.list(self._replicas.directories[directory_id].path))
        except OSError:
            return  # the open of each replica meets the same error, and decides what follows
        self._free.update(key for key, name in placed if name not in names)

    async def open(self, topic: TopicImage, index: int, directory_id: bytes) -> Partition | None:
        """Open a replica and add it to Replicas. If that fails, return None.

        `Replicas.unopened` then has the reason.
        """
        partition = await self.make(topic, index, directory_id)
        if partition is not None:
            self._replicas.add(partition)
            damaged = partition.log.recovered.damaged
            if damaged:
                self._replicas.losses.found(partition.key, partition.name, damaged)
            await self.compare_with_inventory(partition)
        return partition

    async def make(
        self, topic: TopicImage, index: int, directory_id: bytes, *, salvage: bool = False
    ) -> Partition | None:
        """Open a replica's log, and return a partition with it. If that fails, return None.

        `Replicas.unopened` then has the reason. `salvage`: cut a corrupt log at its first bad
        batch, and keep the batches before it.
        """
        key = (topic.id, index)
        replicas = self._replicas
        directory = replicas.directories.get(directory_id)
        if directory is None or directory_id in replicas.failed_directories:
            replicas.unopened[key] = f"log directory {directory_id.hex()} is not there"
            return None
        path = f"{directory.path}/{topic.name}-{index}"
        try:
            if key in replicas.unopened:
                await replicas.files.check_directory(directory)
            is_there = key not in self._free and await replicas.files.make_room(
                directory_id,
                path,
                topic.id,
                is_noted=replicas.inventories[directory_id].is_sure_of(key),
                salvage=salvage,
            )
            self._free.discard(key)
            # A log that is opened again was written in this run, not in the run before, and its end
            # may not be synced.
            run = THIS_RUN if self.has_loaded else directory.run
            log, producers = await self._open_log(
                path, topic, index, run, is_there=is_there, salvage=salvage
            )
            if log.log_end_offset < self._ends.get(key, 0) and not salvage:
                # write a note to the disk, because the next start does not know the former end
                await log.damage.note_corrupt()
                await log.close(clean=False)
                raise LogCorruptError(
                    f"{path} ends at {log.log_end_offset}, and ended at {self._ends[key]} before"
                    " it was opened again"
                )
        except (StorageError, OSError) as error:
            self._did_not_open(topic, index, directory_id, error)
            return None
        self.forget(key)
        return Partition(
            topic.id, topic.name, index, log, producers, replicas, directory_id=directory_id
        )

    async def _open_log(
        self,
        path: str,
        topic: TopicImage,
        index: int,
        run: Run,
        *,
        is_there: bool,
        salvage: bool,
    ) -> tuple[Log, Producers]:
        epoch_max = topic.partitions[index].leader_epoch

        def has_been(header: BatchHeader, _: Buffer) -> None:
            """Raise CorruptRecordError if a batch has an epoch above that of the image.

            Nothing else would find a wrong epoch, because the CRC does not cover it.
            """
            if header.leader_epoch > epoch_max:
                raise CorruptRecordError(f"the batch is of leader_epoch {header.leader_epoch}")

        producers = Producers(self._replicas.producer_memory)
        kept = LogConfig.of(self._replicas.config_of(topic))
        config = replace(kept, verify_all=salvage, salvage=salvage)
        inspect = has_been if salvage else None
        log = await Log.open(
            self._replicas.environment.disk,
            path,
            config,
            observer=producers,
            run=run,
            inspect=inspect,
            is_new=not is_there,
        )
        if log.last_epoch > epoch_max:
            # write a note to the disk: a later image may have that epoch, and hide the fault
            await log.damage.note_corrupt()
            await log.close(clean=False)
            raise LogCorruptError(
                f"{path}: it ends in leader_epoch {log.last_epoch}, which never was"
            )
        return log, producers

    def _did_not_open(
        self, topic: TopicImage, index: int, directory_id: bytes, error: Exception
    ) -> None:
        key = (topic.id, index)
        name = f"{topic.name}-{index}"
        if isinstance(error, OSError):
            error = storage_error(name, error)
        log_line.error("replica did not open", partition=name, reason=str(error))
        self._replicas.unopened[key] = str(error)
        if isinstance(error, ReopenError | TryAgainError):
            self._want_again(key)
            return
        if not isinstance(error, LogCorruptError):
            self._replicas.directory_failed(directory_id, str(error))
            return
        self._replicas.losses.corrupt.setdefault(key, None)
        self._replicas.losses.found(key, name, str(error))

    async def close_to_open_again(self, partition: Partition) -> None:
        """Close a replica that will be opened again.

        Remember the log's end: the log must not end lower when it is opened.
        """
        self._replicas.unopened[partition.key] = "it is being opened again"
        self._ends[partition.key] = partition.log.log_end_offset
        await partition.close(clean=False)

    def forget(self, key: Key) -> None:
        """Forget the reason and the former end of a replica that is open now, or gone."""
        self._replicas.unopened.pop(key, None)
        self._ends.pop(key, None)

    # which replicas were written

    async def open_inventory(
        self, directory_id: bytes, directory: LogDirectory, keys: Sequence[Key]
    ) -> None:
        """Read the inventory of a directory, for the replicas that the image places there."""
        replicas = self._replicas
        placed = [
            key
            for key in keys
            if (state := replicas.image.partition(*key)) is not None
            and state.directory_of(replicas.broker_id) == directory_id
        ]
        while directory_id not in replicas.inventories:
            try:
                replicas.inventories[directory_id] = await Inventory.open(
                    replicas.environment.disk,
                    directory.path,
                    placed,
                    has_run=directory.run.has_begun,
                )
            except OSError as error:
                reason = f"the inventory of {directory.path} can't be read: {error}"
                if not is_passing(error):
                    replicas.directory_failed(directory_id, reason)
                    return
                log_line.error("waiting for what passes", reason=reason)
                await asyncio.sleep(RETRY_S)

    async def compare_with_inventory(self, partition: Partition) -> None:
        """Compare a log with the inventory. A replica that was written and has no log is lossy.

        A replica that has a log and is not in the inventory is noted there now.
        """
        inventory = self._replicas.inventories[partition.directory_id]
        is_noted = partition.replica_log.is_noted = inventory.has(partition.key)
        if is_noted and not partition.log.has_segments:
            reason = "it was written, and its log is gone"
            self._replicas.losses.found(partition.key, partition.name, reason)
        elif partition.log.has_segments and not is_noted:
            try:
                await inventory.make_room()
                await self._replicas.written(partition)
                partition.replica_log.is_noted = True
            except StorageError as error:
                # do nothing if the disk is good, because the next append notes the replica
                if blames_disk(error):
                    self._replicas.directory_failed(partition.directory_id, str(error))
        elif not is_noted:
            self._replicas.unwritten[partition.directory_id].add(partition.key)
