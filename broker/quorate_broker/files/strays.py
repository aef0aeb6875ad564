"""Sets aside strays, and removes them later.

A stray is the directory of a replica that the cluster no longer places here. Its topic was deleted,
or its replica was moved, while this broker was away. The rules protect directories that are still
needed:

* Only an image that has reached this broker's registration decides. An older image may lack
  replicas that were placed here.
* Only directories that this cluster and quorum_generation wrote are considered.
* A stray is renamed, and removed only after a delay.
"""

from __future__ import annotations

import asyncio

import structlog

from quorate_broker.files.directories import HeldDirectory, LogDirectories
from quorate_broker.files.replica_files import (
    DELETED,
    METADATA_FILE,
    STRAY,
    PartitionMetadata,
    name_on_the_way_out,
)
from quorate_quorum.disk import Disk, read_whole
from quorate_quorum.log.disk_errors import is_of_disk
from quorate_quorum.metadata.image import MetadataImage

log = structlog.get_logger(__name__)

METADATA_BYTES_MAX = 4096


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
        self._set_aside: list[tuple[HeldDirectory, str]] = []

    async def set_aside(self, image: MetadataImage, broker_id: int) -> None:
        """Rename directories that the image does not place here.

        Call this before logs are opened.
        """
        for directory in self._directories.working:
            try:
                await self._look_through(directory, image, broker_id)
            except OSError as error:
                await self._directories.lose(directory.id, f"{directory.path}: {error}")

    async def remove_after(self, delay_ms: int) -> None:
        """Wait for the delay, and then remove the strays of this start and of earlier ones."""
        if not self._set_aside:
            return
        await asyncio.sleep(delay_ms / 1000)
        for directory, name in self._set_aside:
            if directory.has_failed:
                continue
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
        for name in await self._disk.list(directory.path):
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
        if name.endswith(STRAY):
            self._set_aside.append((directory, name))
            return False
        if _is_placed(image, metadata, name, broker_id, directory.id):
            return False
        target = name_on_the_way_out(name, metadata.topic_id, STRAY)
        await self._rename(directory, name, target)
        self._set_aside.append((directory, target))
        return True

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


def _is_placed(
    image: MetadataImage,
    metadata: PartitionMetadata,
    name: str,
    broker_id: int,
    directory_id: bytes,
) -> bool:
    """Return whether the image places a directory's replica on this broker and log directory."""
    topic = image.topics.get(metadata.topic_id)
    if topic is None:
        return False
    prefix, _, number = name.rpartition("-")
    if prefix != topic.name or not number.isdecimal():
        return False
    partition = image.partition(topic.id, int(number))
    return partition is not None and partition.directory_of(broker_id) == directory_id
