"""The directories of replicas: how they are made, taken over, moved out of the way and removed.

A file in each directory names its owner: the topic, the cluster, and the generation of the metadata
that placed the replica there. If a directory has the path that another replica needs, it is moved,
and removed after a delay. A directory of an older generation is kept: after a disaster recovery it
may be the only copy of its records.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from quorate.aio.tasks import Tasks
from quorate.errors import StorageError
from quorate_broker.registration import Registration
from quorate_quorum.disk import read_whole, replace_whole
from quorate_quorum.log.disk_errors import done_without, is_of_disk, storage_error
from quorate_quorum.log.identity import FILE_NAME as IDENTITY_FILE
from quorate_quorum.log.log import LogCorruptError
from quorate_quorum.log.run_file import UNKNOWN, Run
from quorate_quorum.log.segment import LOG
from quorate_quorum.node.config import BrokerConfig
from quorate_quorum.node.environment import Environment

log = structlog.get_logger(__name__)

METADATA_FILE = "partition.metadata"
#: Suffixes of directories that will be removed: those of dropped replicas, and strays.
DELETED = "-delete"
STRAY = ".stray"
#: The longest name, in bytes, that file systems accept.
NAME_BYTES_MAX = 255
#: Suffix of a directory of an older generation that was in the way. It is never removed.
KEPT = ".kept"
#: Suffix of a directory whose owner cannot be read. It is never removed.
DAMAGED = ".damaged"


@dataclass(frozen=True, slots=True)
class LogDirectory:
    """A log directory of this broker, and what its run file says of the last run."""

    path: str
    run: Run = UNKNOWN


@dataclass(frozen=True, slots=True)
class PartitionMetadata:
    """The owner of a partition's directory, as its partition.metadata says."""

    topic_id: bytes
    cluster_id: str
    quorum_generation: int

    def encode(self) -> bytes:
        """Return the file's content."""
        return (
            f"version=1\ntopic.id={self.topic_id.hex()}\ncluster.id={self.cluster_id}\n"
            f"quorum.generation={self.quorum_generation}\n"
        ).encode()

    @classmethod
    def decode(cls, content: bytes) -> PartitionMetadata | None:
        """Return the content of a file; None if it is not whole or has another version."""
        try:
            lines = content.decode().splitlines()
            fields = dict(line.split("=", 1) for line in lines)
            if fields["version"] != "1":
                return None
            return cls(
                bytes.fromhex(fields["topic.id"]),
                fields["cluster.id"],
                int(fields["quorum.generation"]),
            )
        except (ValueError, KeyError):
            return None


#: The name of the tasks that remove a directory.
REMOVAL = "remove a directory"


class FilesHost(Protocol):
    """The part of Replicas that ReplicaFiles uses."""

    config: BrokerConfig
    environment: Environment
    directories: dict[bytes, LogDirectory]
    failed_directories: dict[bytes, str]
    registration: Registration
    quorum_generation: int

    def directory_failed(self, directory_id: bytes, reason: str) -> None: ...


class ReplicaFiles:
    """The directories of one broker's replicas. Removals run in the background."""

    def __init__(self, host: FilesHost) -> None:
        self._host = host
        self._disk = host.environment.disk
        self.removals = Tasks(_removal_failed)

    def keep_all(self) -> None:
        """Cancel all removals."""
        self.removals.cancel(*self.removals)

    async def stop(self) -> None:
        """End the removals. The next start finishes them."""
        await self.removals.end_all()

    async def make(self, path: str, topic_id: bytes) -> None:
        """Make a replica's directory, with the file that names its owner, unless it exists.

        Raises TryAgainError, ReopenError, or StorageError if the disk fails.
        """
        if await self._disk.exists(f"{path}/{METADATA_FILE}"):
            # the directory is this replica's, because make_room has moved that of another topic
            return
        try:
            await self._disk.make_directory(path)
            await self._write_metadata(path, topic_id)
        except OSError as error:
            raise storage_error(f"{path}: can't be made", error, nothing_done=True) from error

    async def _write_metadata(self, path: str, topic_id: bytes) -> None:
        metadata = PartitionMetadata(
            topic_id, self._host.registration.cluster_id, self._host.quorum_generation
        )
        await replace_whole(self._disk, f"{path}/{METADATA_FILE}", metadata.encode())

    async def check_directory(self, directory: LogDirectory) -> None:
        """Raise StorageError unless the log directory is still there.

        If the disk was unmounted, the replicas are missing but not lost. The broker must not make
        new, empty ones.
        """
        try:
            if await self._disk.exists(f"{directory.path}/{IDENTITY_FILE}"):
                return
        except OSError as error:
            raise storage_error(directory.path, error) from error
        raise StorageError(f"{directory.path} has no {IDENTITY_FILE} any more")

    async def remove(self, directory_id: bytes, name: str, topic_id: bytes) -> bool:
        """Rename a replica's directory, to free its name, and remove it in the background.

        Returns whether the name is free. If it is not, make_room moves the directory when a replica
        needs the name; otherwise the next start sets it aside.
        """
        directory = self._host.directories.get(directory_id)
        if directory is None or directory_id in self._host.failed_directories:
            return False
        source = f"{directory.path}/{name}"
        target = f"{directory.path}/{name_on_the_way_out(name, topic_id, DELETED)}"
        try:
            if not await self._disk.exists(source):
                return True
            # first write this generation into the directory: after a crash in between, sweep
            # removes only directories of this generation
            await self._take_over(source)
            if await self._disk.exists(target):
                await self._disk.remove_directory(target)
            await self._disk.rename(source, target)
            await self._disk.sync_directory(directory.path)
        except OSError as error:
            self._not_removed(directory_id, source, error)
            return False
        self.removals.spawn(self._remove(directory_id, target), REMOVAL)
        return True

    async def make_room(
        self,
        directory_id: bytes,
        path: str,
        topic_id: bytes,
        *,
        is_noted: bool = False,
        salvage: bool = False,
    ) -> bool:
        """Free a replica's path. A deleted topic of the same name may have its directory there.

        Returns whether the replica has a directory. The records of the deleted topic must not
        become records of the new one. The cases:

        * The directory is this replica's. If an older generation wrote it, this generation takes it
          over.
        * It is another topic's: it is moved. If it is of this generation, it is removed later.
        * It names no owner, and `is_noted` says that this replica was written: then it is this
          replica's, because any other directory was moved before the first append.
        * It names no owner, and has no log: it stays, because a crash interrupted its making.
        * It names no owner, has a log, and this replica was not written: LogCorruptError. With
          `salvage` the directory is moved, and kept.
        """
        if not await self._disk.exists(path):
            return False
        metadata = await self._metadata(path)
        if metadata is None and is_noted:
            log.warning("whose a directory is was not in it", path=path)
            await self._write_metadata(path, topic_id)
            return True
        if metadata is None and not any(name.endswith(LOG) for name in await self._disk.list(path)):
            # leave the directory: a crash interrupted its making
            return True
        if metadata is None and salvage:
            await self._set_aside(path, _beside(path, topic_id, DAMAGED))
            return False
        # this is damage: a crash cannot leave such a file, because it is written in one step
        if metadata is None:
            raise LogCorruptError(f"{path}/{METADATA_FILE} is damaged, or gone")
        if metadata.topic_id == topic_id:
            await self._take_over(path)
            return True
        if metadata.quorum_generation != self._host.quorum_generation:
            await self._keep(path, metadata)
            return False
        target = _beside(path, metadata.topic_id, STRAY)
        await self._set_aside(path, target)
        delay = self._host.config.stray_delete_delay_ms / 1000
        self.removals.spawn(self._remove(directory_id, target, delay), REMOVAL)
        return False

    async def _set_aside(self, path: str, target: str) -> None:
        if await self._disk.exists(target):
            await self._disk.remove_directory(target)
        await self._disk.rename(path, target)
        await self._disk.sync_directory(path.rpartition("/")[0])
        log.warning("a directory that is not ours is in the way", path=path, moved_to=target)

    async def sweep(self, directory_id: bytes, directory: LogDirectory) -> None:
        """Finish interrupted removals, but not those of directories of another generation."""
        path = directory.path
        try:
            names = await self._disk.list(path)
            for name in names:
                path = f"{directory.path}/{name}"
                if name.endswith(DELETED):
                    await self._sweep_one(directory_id, path)
        except OSError as error:
            self._host.directory_failed(directory_id, f"{path}: can't be swept: {error}")

    async def _sweep_one(self, directory_id: bytes, path: str) -> None:
        try:
            metadata = await self._metadata(path)
            if metadata and metadata.quorum_generation != self._host.quorum_generation:
                log.warning("kept_of_another_history", path=path)
                return
            await self._disk.remove_directory(path)
        except OSError as error:
            self._not_removed(directory_id, path, error)

    async def _keep(self, path: str, metadata: PartitionMetadata) -> None:
        """Move a directory of an older generation. It may be the only copy of its records."""
        target = _beside(path, metadata.topic_id, f".{metadata.quorum_generation}{KEPT}")
        await self._disk.rename(path, target)
        await self._disk.sync_directory(path.rpartition("/")[0])
        log.warning("kept_of_another_history", path=path, moved_to=target)

    async def _metadata(self, path: str) -> PartitionMetadata | None:
        """Return a directory's owner; None if its file is missing or cannot be read."""
        file = f"{path}/{METADATA_FILE}"
        if not await self._disk.exists(file):
            return None
        return PartitionMetadata.decode(await read_whole(self._disk, file))

    async def _take_over(self, path: str) -> None:
        """Write this generation into a directory of an older one.

        If the disk has no room for this write, the directory still names the older generation, and
        may be kept for longer than needed.
        """
        metadata = await self._metadata(path)
        if metadata and metadata.quorum_generation < self._host.quorum_generation:
            ours = replace(metadata, quorum_generation=self._host.quorum_generation)
            with done_without(METADATA_FILE, path):
                await replace_whole(self._disk, f"{path}/{METADATA_FILE}", ours.encode())

    async def _remove(self, directory_id: bytes, path: str, delay_s: float = 0) -> None:
        await asyncio.sleep(delay_s)
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            await self._disk.remove_directory(path)
            log.info("replica files removed", path=path, ms=round((loop.time() - started) * 1000))
        except FileNotFoundError:
            # nothing is left to do: another removal of the same name was faster
            pass
        except OSError as error:
            self._not_removed(directory_id, path, error)

    def _not_removed(self, directory_id: bytes, path: str, error: OSError) -> None:
        """Log a directory that cannot be removed. The next start tries again.

        After an error of the disk itself, give up the log directory.
        """
        if is_of_disk(error):
            self._host.directory_failed(directory_id, f"{path}: can't be removed: {error}")
        else:
            log.error("not removed", path=path, reason=str(error))


def _removal_failed(_: str, error: BaseException) -> None:
    log.error("a removal failed", exc_info=error)


def name_on_the_way_out(name: str, topic_id: bytes, ending: str) -> str:
    """Return the name of a replica's directory that waits for its removal.

    It has at most NAME_BYTES_MAX bytes. A long topic name is cut, because the topic id is enough to
    tell topics apart.

    >>> name_on_the_way_out("invoice-0", bytes(16), DELETED)
    'invoice-0.00000000000000000000000000000000-delete'
    >>> len(name_on_the_way_out("x" * 249 + "-9999", bytes(16), DELETED))
    255
    """
    rest = f".{topic_id.hex()}{ending}"
    topic, dash, number = name.rpartition("-")
    room = NAME_BYTES_MAX - len(dash) - len(number) - len(rest)
    return f"{topic[:room]}{dash}{number}{rest}"


def _beside(path: str, topic_id: bytes, ending: str) -> str:
    directory, _, name = path.rpartition("/")
    return f"{directory}/{name_on_the_way_out(name, topic_id, ending)}"
