"""Sets aside strays, and removes them later.

A stray is the directory of a replica that the cluster no longer places here. Its topic was deleted,
or its replica was moved, while this broker was away. The rules protect directories that are still
needed:

* Only an image that has reached this broker's registration decides. An older image may lack
  replicas that were placed here.
* Only directories that this cluster and quorum_generation wrote are considered.
* A stray is renamed, and removed only after a delay.
* A copy of a replica that is placed in another log directory of this broker is removed only while
  the placed replica is in sync. Until then the copy may have records that no other replica has: an
  operator may have moved the directory, or the placed one may have been lost.
* A directory whose name is not that of a replica, such as a backup of an operator, is left alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

import structlog

from quorate_broker.files.directories import HeldDirectory, LogDirectories
from quorate_broker.files.replica_files import (
    DELETED,
    METADATA_FILE,
    STRAY,
    PartitionMetadata,
    name_on_the_way_out,
)
from quorate_broker.replica.replica import Key
from quorate_quorum.disk import Disk, read_whole
from quorate_quorum.log.disk_errors import is_of_disk
from quorate_quorum.metadata.image import MetadataImage

log = structlog.get_logger(__name__)

METADATA_BYTES_MAX = 4096
#: Directories that are looked at in one turn of the loop. Each costs the read of a small file.
LOOKS_A_TURN = 50


class _Stray(NamedTuple):
    """A directory that was set aside, and the replica of which it is a copy."""

    directory: HeldDirectory
    name: str
    key: Key


class Strays:
    """The strays that one start of the broker finds."""

    def __init__(
        self, disk: Disk, directories: LogDirectories, cluster_id: str, quorum_generation: int
    ) -> None:
        self._disk = disk
        self._directories = directories
        self._cluster_id = cluster_id
        #: The generation of the image that decides what is a stray.
        self.quorum_generation = quorum_generation
        self._set_aside: list[_Stray] = []

    async def set_aside(self, image: MetadataImage, broker_id: int) -> None:
        """Rename directories that the image does not place here.

        Call this before logs are opened.
        """
        for directory in self._directories.working:
            try:
                await self._look_through(directory, image, broker_id)
            except OSError as error:
                await self._directories.lose(directory.id, f"{directory.path}: {error}")

    async def remove_after(self, delay_ms: int, is_needed: Callable[[Key], bool]) -> None:
        """Wait for the delay, and then remove the strays of this start and of earlier ones.

        `is_needed` returns whether a copy of a replica may have records that no other one has. Such
        a stray is looked at again after a further delay.
        """
        told: set[str] = set()
        while self._set_aside:
            await asyncio.sleep(delay_ms / 1000)
            strays, self._set_aside = self._set_aside, []
            for stray in strays:
                if is_needed(stray.key):
                    self._set_aside.append(stray)
                    self._tell_kept(stray, told)
                else:
                    await self._remove(stray)

    def copies(self, image: MetadataImage, broker_id: int) -> dict[Key, str]:
        """Return the strays whose replica is placed on this broker, with their paths."""
        return {
            stray.key: f"{stray.directory.path}/{stray.name}"
            for stray in self._set_aside
            if (state := image.partition(*stray.key)) is not None
            and state.directory_of(broker_id) is not None
        }

    def _tell_kept(self, stray: _Stray, told: set[str]) -> None:
        path = f"{stray.directory.path}/{stray.name}"
        if path not in told:
            told.add(path)
            log.warning("stray_kept", path=path, reason="the placed replica is not in sync")

    async def _remove(self, stray: _Stray) -> None:
        directory, name, _ = stray
        if directory.has_failed:
            return
        try:
            await self._disk.remove_directory(f"{directory.path}/{name}")
        except OSError as error:
            await self._failed(directory, name, error)
        else:
            log.info("stray_removed", directory=directory.path, name=name)

    async def _look_through(
        self, directory: HeldDirectory, image: MetadataImage, broker_id: int
    ) -> None:
        has_renamed = False
        for number, name in enumerate(await self._disk.list(directory.path)):
            if number % LOOKS_A_TURN == 0:
                await asyncio.sleep(0)
            if name.endswith(DELETED):
                # skip it: ReplicaFiles.sweep removes it
                continue
            try:
                has_renamed |= await self._look_at(directory, name, image, broker_id)
            except OSError as error:
                await self._failed(directory, name, error)
        if has_renamed:
            await self._disk.sync_directory(directory.path)

    async def _look_at(
        self, directory: HeldDirectory, name: str, image: MetadataImage, broker_id: int
    ) -> bool:
        """Set a directory aside if its replica is not placed here.

        Return whether it was renamed.
        """
        metadata = await self._metadata(directory, name)
        if metadata is None or not self._is_ours(directory, name, metadata):
            return False
        topic, number = _replica_of(name, metadata.topic_id)
        if number is None:
            log.info("not_a_replica", directory=directory.path, name=name)
            return False
        key = (metadata.topic_id, number)
        if name.endswith(STRAY):
            self._set_aside.append(_Stray(directory, name, key))
            return False
        placed = _placed_in(image, topic, key, broker_id)
        if placed == directory.id:
            return False
        target = name_on_the_way_out(name, metadata.topic_id, STRAY)
        if placed is not None and await self._disk.exists(f"{directory.path}/{target}"):
            # leave both: either may be the only whole copy
            log.error("second_stray", directory=directory.path, name=name, beside=target)
            return False
        await self._rename(directory, name, target)
        if placed is not None:
            self._tell_copy(directory, name, target, placed)
        self._set_aside.append(_Stray(directory, target, key))
        return True

    def _tell_copy(self, directory: HeldDirectory, name: str, target: str, placed: bytes) -> None:
        """Log that the metadata places a replica in another directory than the one found."""
        others = [one.path for one in self._directories.working if one.id == placed]
        log.error(
            "replica_in_a_wrong_directory",
            found=f"{directory.path}/{name}",
            placed=f"{others[0]}/{name}" if others else f"log directory {placed.hex()}",
            moved_to=f"{directory.path}/{target}",
            what="the one found is removed as soon as the placed one is in sync; if a directory "
            "was moved by hand, stop the broker and move it to the place where it was",
        )

    async def _failed(self, directory: HeldDirectory, name: str, error: OSError) -> None:
        """React to an error about one stray. After an error of the disk, give up the log directory.

        After another error, log it. The stray then stays, which only costs room on the disk.
        """
        if is_of_disk(error):
            await self._directories.lose(directory.id, f"{directory.path}/{name}: {error}")
        else:
            log.error("stray_stays", directory=directory.path, name=name, reason=str(error))

    async def _metadata(self, directory: HeldDirectory, name: str) -> PartitionMetadata | None:
        """Return a directory's owner; None if it cannot be read.

        Without an owner the directory stays.
        """
        path = f"{directory.path}/{name}/{METADATA_FILE}"
        if not await self._disk.exists(path):
            return None
        if await self._disk.size(path) > METADATA_BYTES_MAX:
            return None
        return PartitionMetadata.decode(await read_whole(self._disk, path))

    def _is_ours(self, directory: HeldDirectory, name: str, metadata: PartitionMetadata) -> bool:
        wrote = (metadata.cluster_id, metadata.quorum_generation)
        if wrote == (self._cluster_id, self.quorum_generation):
            return True
        log.info(
            "kept_of_another_history",
            directory=directory.path,
            name=name,
            cluster_id=metadata.cluster_id,
            quorum_generation=metadata.quorum_generation,
        )
        return False

    async def _rename(self, directory: HeldDirectory, name: str, target: str) -> None:
        if await self._disk.exists(f"{directory.path}/{target}"):
            await self._disk.remove_directory(f"{directory.path}/{target}")
        await self._disk.rename(f"{directory.path}/{name}", f"{directory.path}/{target}")
        log.warning("stray_set_aside", directory=directory.path, name=name, target=target)


def _replica_of(name: str, topic_id: bytes) -> tuple[str, int | None]:
    """Return the topic and the partition that a directory's name says; (name, None) if it does not.

    >>> _replica_of("t-0", bytes(16)), _replica_of(f"t-0.{bytes(16).hex()}.stray", bytes(16))
    (('t', 0), ('t', 0))
    >>> _replica_of("t-0.backup", bytes(16))
    ('t-0.backup', None)
    """
    topic, _, number = name.removesuffix(f".{topic_id.hex()}{STRAY}").rpartition("-")
    return (topic, int(number)) if topic and number.isdecimal() else (name, None)


def _placed_in(image: MetadataImage, name: str, key: Key, broker_id: int) -> bytes | None:
    """Return the log directory in which the image places a replica; None if not on this broker."""
    topic, partition = image.topics.get(key[0]), image.partition(*key)
    if topic is None or topic.name != name or partition is None:
        return None
    return partition.directory_of(broker_id)
