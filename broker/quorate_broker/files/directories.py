"""The log directories of a broker: their owner, how their last run ended, and which ones failed.

A directory is locked for the whole run. The lock proves that an older process with the same
directory has ended. So the controller registers this process at once in place of the older one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from functools import partial

import structlog

from quorate.errors import StorageError
from quorate_broker.files.replica_files import LogDirectory
from quorate_quorum.disk import Disk, Lock
from quorate_quorum.log.disk_errors import is_of_disk, is_passing, storage_error
from quorate_quorum.log.identity import (
    FILE_NAME,
    Identity,
    NotFormattedError,
    is_of_voter,
    read_identity,
    write_identity,
)
from quorate_quorum.log.run_file import (
    Run,
    begin_run,
    read_run,
    set_sync_failed,
    write_marker,
)
from quorate_quorum.node.config import BrokerConfig, ConfigError
from quorate_quorum.v1.events_pb2 import Directory

log = structlog.get_logger(__name__)

#: Pause before a necessary write is tried again, after the disk had no room for it.
ROOM_RETRY_S = 1.0


@dataclass(slots=True)
class HeldDirectory:
    """One locked log directory. `run` says how the previous run ended."""

    path: str
    identity: Identity
    run: Run
    lock: Lock
    #: Whether the run file says that this run began. Before, the file says how the previous run
    #: ended.
    has_begun: bool = False
    has_failed: bool = False
    is_unlocked: bool = False
    #: The bytes that were free at the last measurement; None if they are not known.
    free_bytes: int | None = None

    @property
    def id(self) -> bytes:
        return self.identity.directory_id

    def registered(self) -> Directory:
        """Return the directory's entry in the registration."""
        return Directory(
            directory_id=self.id,
            tail_intact=self.has_begun or self.run.tail_intact,
            sync_failed=not self.has_begun and self.run.sync_failed,
        )


class LogDirectories:
    """All log directories of a broker that could be read at its start."""

    def __init__(
        self, disk: Disk, found: list[HeldDirectory], unreadable: dict[str, str] | None = None
    ) -> None:
        assert found, "a broker has at least one log directory"
        self._disk = disk
        self._found = found
        #: Path -> reason, for the directories that could not be read at the start.
        self.unreadable = unreadable or {}
        #: Only one task writes a generation at a time: a registration and an image may both bring a
        #: newer one.
        self._learning = asyncio.Lock()
        #: Called with the directory's id and the reason when a directory is given up.
        self.on_lost: Callable[[bytes, str], None] = _ignore

    @classmethod
    async def open(cls, config: BrokerConfig, disk: Disk) -> LogDirectories:
        """Lock and read the directories. Leave out a directory that cannot be read.

        Raises ConfigError if a directory is not formatted, is of another cluster or node, or is in
        use. Raises StorageError if no directory can be read, or if the error of one is passing (too
        many open files).
        """
        found: list[HeldDirectory] = []
        unreadable: dict[str, str] = {}
        try:
            for path in config.log_dirs:
                try:
                    found.append(await _open_one(path, found, config.node_id, disk))
                except NotFormattedError as error:
                    if len(config.log_dirs) == 1:
                        raise
                    raise NotFormattedError(
                        f"{error}. To start without it, take it out of log.dirs: what it held is"
                        " fetched again from the other replicas"
                    ) from None
                except OSError as error:
                    # do not leave the directory out: a passing error says nothing about its disk
                    if is_passing(error):
                        raise storage_error(path, error) from error
                    log.error("log_directory_unreadable", directory=path, reason=str(error))
                    unreadable[path] = str(error)
            if not found:
                reasons = "; ".join(f"{path}: {reason}" for path, reason in unreadable.items())
                raise StorageError(f"no log directory can be read: {reasons}")
        except BaseException:
            for directory in found:
                directory.lock.release()
            raise
        return cls(disk, found, unreadable)

    @property
    def cluster_id(self) -> str:
        return self._found[0].identity.cluster_id

    @property
    def quorum_generation(self) -> int:
        """The newest generation that any directory has followed; 0: none yet."""
        return max(directory.identity.quorum_generation for directory in self._found)

    @property
    def for_replicas(self) -> dict[bytes, LogDirectory]:
        """The working directories, by id, with the fields that the replicas need."""
        return {
            directory.id: LogDirectory(directory.path, directory.run) for directory in self.working
        }

    @property
    def working(self) -> list[HeldDirectory]:
        return [directory for directory in self._found if not directory.has_failed]

    @property
    def failed_ids(self) -> list[bytes]:
        return [directory.id for directory in self._found if directory.has_failed]

    def registered(self) -> list[Directory]:
        """Return the working directories as entries of a registration."""
        return [directory.registered() for directory in self.working]

    async def learn_generation(self, generation: int) -> None:
        """Store the quorum_generation in every working directory.

        Raises ConfigError if the generation is older than the stored one: the answering voters are
        those from before a disaster recovery that this broker has followed.
        """
        async with self._learning:
            for directory in self.working:
                await self._learn(directory, generation)

    async def _learn(self, directory: HeldDirectory, generation: int) -> None:
        known = directory.identity.quorum_generation
        if generation < known:
            raise ConfigError(
                f"{directory.path} has followed quorum_generation {known}, and the voters "
                f"asked are of {generation}: they were replaced; ask the others"
            )
        if generation > known:
            identity = replace(directory.identity, quorum_generation=generation)
            await self._on(directory, lambda: write_identity(self._disk, directory.path, identity))
            directory.identity = identity

    async def begin_run(self) -> None:
        """Write on each disk that this run began.

        Call it after the registration and before any append. Until this call the disk says how the
        previous run ended, so a start after a crash in between reads the same.
        """
        for directory in self.working:
            await self._on(directory, partial(begin_run, self._disk, directory.path))
            directory.has_begun = not directory.has_failed

    async def lose(self, directory_id: bytes, reason: str) -> bool:
        """Give up a failed directory. Return False if it was given up before.

        The failure is written to the directory before the broker acts on it. After a crash in
        between, the next start must not trust the directory.
        """
        for directory in self.working:
            if directory.id == directory_id:
                log.error("log_directory_failed", directory=directory.path, reason=reason)
                await _remember_failure(self._disk, directory)
                directory.has_failed = True
                self.on_lost(directory_id, reason)
                return True
        return False

    async def measure(self) -> None:
        """Measure the free bytes of each working directory. Give up a directory that is gone.

        If a disk was unmounted, its replicas are not lost. But the broker must not go on in the
        empty directory that is left under the same path.
        """
        for directory in self.working:
            try:
                is_there = await self._disk.exists(f"{directory.path}/{FILE_NAME}")
                directory.free_bytes = await self._disk.free_bytes(directory.path)
                reason = "" if is_there else f"it has no {FILE_NAME} any more: was it unmounted?"
            except OSError as error:
                directory.free_bytes = None
                reason = str(error) if is_of_disk(error) else ""
            if reason:
                await self.lose(directory.id, f"{directory.path}: {reason}")

    async def mark_clean(self, *, but: Collection[bytes] = ()) -> None:
        """Mark the directories whose logs are all synced and closed: their run stopped cleanly.

        `but`: the directories in which a log was not closed durably. If the disk has no room for
        the mark, the next start trusts the directory's logs only if the machine has not restarted.
        """
        for directory in self.working:
            if not directory.has_begun or directory.id in but:
                continue
            try:
                await write_marker(self._disk, directory.path)
            except OSError as error:
                if is_of_disk(error):
                    await self.lose(directory.id, str(error))
                else:
                    log.warning("no_mark", directory=directory.path, reason=str(error))

    def unlock(self) -> None:
        """Release the locks. It is safe to call this twice."""
        for directory in self._found:
            if not directory.is_unlocked:
                directory.is_unlocked = True
                directory.lock.release()

    async def _on(self, directory: HeldDirectory, work: Callable[[], Awaitable[None]]) -> None:
        """Do necessary work on a directory. Without room on the disk, wait and try again.

        If the disk fails, give up the directory.
        """
        while True:
            try:
                return await work()
            except OSError as error:
                if not is_passing(error):
                    await self.lose(directory.id, str(error))
                    return
                log.error("waiting for room", directory=directory.path, reason=str(error))
            await asyncio.sleep(ROOM_RETRY_S)


async def _open_one(
    path: str, others: list[HeldDirectory], node_id: int, disk: Disk
) -> HeldDirectory:
    cluster_id = others[0].identity.cluster_id if others else None
    identity = await read_identity(disk, path, cluster_id=cluster_id, node_id=node_id)
    if await is_of_voter(disk, path):
        raise ConfigError(
            f"{path} is the disk of voter {identity.node_id}: start it with quorate-quorum, or give"
            " this broker another node.id and log.dirs of its own"
        )
    for other in others:
        if other.id == identity.directory_id:
            raise ConfigError(
                f"{path} and {other.path} have the same directory.id {other.id.hex()}: they are one"
                " directory, or one is a copy of the other. Name only one of them in log.dirs"
            )
    try:
        lock = await disk.lock(path)
    except BlockingIOError:
        raise ConfigError(f"{path} is in use by another process") from None
    except PermissionError:
        raise ConfigError(f"{path} cannot be used: this process may not write there") from None
    try:
        # sync the identity, because `quorate storage format` may have died before its sync
        await disk.sync_directory(path)
        return HeldDirectory(path, identity, await read_run(disk, path), lock)
    except StorageError as error:
        # read_run does not know the version of the run file
        lock.release()
        raise ConfigError(str(error)) from None
    except BaseException:
        lock.release()
        raise


def _ignore(directory_id: bytes, reason: str) -> None:
    """Do nothing, until `on_lost` is set. failed_ids has the directory."""


async def _remember_failure(disk: Disk, directory: HeldDirectory) -> None:
    try:
        # an unmounted disk is left alone, and nothing is written to what is under its path now
        if await disk.exists(f"{directory.path}/{FILE_NAME}"):
            await set_sync_failed(disk, directory.path)
    except OSError as error:
        log.error("sync_failed_not_written", directory=directory.path, reason=str(error))
