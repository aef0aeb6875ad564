"""Opens the logs of this broker's replicas, and decides what an error at that costs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from quorate.errors import CorruptRecordError, StorageError
from quorate_broker.files.inventory import Inventory
from quorate_broker.replica.partition import Partition
from quorate_broker.replica.producers import Producers
from quorate_quorum.log.disk_errors import (
    ReopenError,
    TryAgainError,
    blames_disk,
    is_passing,
    storage_error,
)
from quorate_quorum.log.log import Log, LogConfig, LogCorruptError
from quorate_quorum.log.run_file import THIS_RUN, Run

if TYPE_CHECKING:
    from quorate.record.batch import BatchHeader
    from quorate_broker.files.replica_files import LogDirectory
    from quorate_broker.replica.replica import Key
    from quorate_broker.replicas.replicas import Replicas
    from quorate_quorum.disk import Buffer
    from quorate_quorum.metadata.topics import TopicImage

log_line = structlog.get_logger(__name__)

#: How long to wait before a file that could not be read for now is tried again.
RETRY_S = 1.0


class Opener:
    """Opens logs, and compares what it finds with what is known to have been there.

    An error costs as little as it must: bad bytes this replica, a bad disk its directory; what is
    neither costs some time, and `want_again` is called to open the replica again.
    """

    def __init__(self, replicas: Replicas, want_again: Callable[[Key], None]) -> None:
        self._replicas = replicas
        self._want_again = want_again
        #: The log ends of replicas that are opened again in this run: what is below was there.
        self._ends: dict[Key, int] = {}
        #: The first image's logs are open: what is opened from now on was written in this run.
        self.has_loaded = False

    async def open(self, topic: TopicImage, index: int, directory_id: bytes) -> Partition | None:
        """Open a replica and hold it; None, and a reason kept, if that can't be."""
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
        """Open a replica's log, and join it with a partition; None, and a reason kept, if that
        can't be. `salvage`: of a corrupt log the good batches are kept, up to the first bad one.
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
            is_noted = replicas.inventories[directory_id].is_sure_of(key)
            await replicas.files.make_room(
                directory_id, path, topic.id, is_noted=is_noted, salvage=salvage
            )
            # What is opened again was written in this very run: its end is yet to be synced.
            run = THIS_RUN if self.has_loaded else directory.run
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
        self.forget(key)
        return Partition(
            topic.id, topic.name, index, log, producers, replicas, directory_id=directory_id
        )

    async def _open_log(
        self, path: str, topic: TopicImage, index: int, run: Run, *, salvage: bool
    ) -> tuple[Log, Producers]:
        epoch_max = topic.partitions[index].leader_epoch

        def has_been(header: BatchHeader, _: Buffer) -> None:
            """The CRC does not cover a batch's epoch; it is of a leader that the image knows."""
            if header.leader_epoch > epoch_max:
                raise CorruptRecordError(f"the batch is of leader_epoch {header.leader_epoch}")

        producers = Producers(self._replicas.producer_memory)
        kept = LogConfig.of(self._replicas.config_of(topic))
        config = replace(kept, verify_all=salvage, salvage=salvage)
        inspect = has_been if salvage else None
        disk = self._replicas.environment.disk
        log = await Log.open(disk, path, config, observer=producers, run=run, inspect=inspect)
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
        """Close a replica whose disk is good; it must not end lower when it is open again."""
        self._replicas.unopened[partition.key] = "it is being opened again"
        self._ends[partition.key] = partition.log.log_end_offset
        await partition.close(clean=False)

    def forget(self, key: Key) -> None:
        """The replica is open, or is held no more."""
        self._replicas.unopened.pop(key, None)
        self._ends.pop(key, None)

    # which replicas were written

    async def open_inventory(
        self, directory_id: bytes, directory: LogDirectory, keys: Sequence[Key]
    ) -> None:
        """Read which replicas were written in a directory, of those that the image places there."""
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
        """What was written and has no log is lost; what has a log was written."""
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
            except StorageError as error:  # else the next append notes it
                if blames_disk(error):
                    self._replicas.directory_failed(partition.directory_id, str(error))
