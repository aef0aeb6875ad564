"""The snapshots on one voter's disk: finds the newest, takes new ones, reads them in chunks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

from quorate.errors import (
    CorruptRecordError,
    InvalidRequestError,
    SnapshotNotFoundError,
    StorageError,
)
from quorate_quorum.disk import Disk
from quorate_quorum.node.config import ConfigError
from quorate_quorum.snapshots import file as files
from quorate_quorum.snapshots.download import Download
from quorate_quorum.snapshots.file import SnapshotId
from quorate_quorum.v1.events_pb2 import MetadataEvent, SnapshotStart

#: The largest chunk. A peer that asks for more gets no more.
CHUNK_BYTES_MAX = 1 << 20


class Snapshots:
    """The snapshots of one voter. Call `open` first.

    `newest` is whole: this process has verified or written it. None: there is no snapshot.
    """

    def __init__(self, disk: Disk, directory: str) -> None:
        self._disk = disk
        self._directory = directory
        #: Held while snapshots are made or removed, so that a removal can't remove a new snapshot.
        self._changing = asyncio.Lock()
        self.newest: SnapshotId | None = None

    async def open(self, *, cluster_id: str, quorum_generation: int) -> SnapshotStart | None:
        """Remove part files, verify the newest snapshot, and return its start; None if none exists.

        StorageError if the snapshot is damaged or of another history.
        ConfigError if a recovery was interrupted.
        UnsupportedError if a newer version wrote the snapshot.
        OSError if the disk fails.
        """
        await files.remove_parts(self._disk, self._directory)
        newest = await files.newest(self._disk, self._directory)
        if newest is None:
            return None
        path = files.path_of(self._directory, newest)
        try:
            start = await files.verify(self._disk, path)
        except CorruptRecordError as error:
            raise StorageError(
                f"{error}; it was whole when it was written: compare the disk with the other"
                " voters', or give this voter a new one"
            ) from None
        if (start.cluster_id, start.quorum_generation) == (cluster_id, quorum_generation + 1):
            raise ConfigError(
                f"snapshot {path} begins quorum_generation {quorum_generation + 1}, and this"
                f" directory is still of {quorum_generation}: `quorate quorum recover` was cut"
                " short. Run it again"
            )
        if (start.cluster_id, start.quorum_generation) != (cluster_id, quorum_generation):
            raise StorageError(
                f"snapshot {path} is of cluster {start.cluster_id}, generation"
                f" {start.quorum_generation}; this node is of {cluster_id}, generation"
                f" {quorum_generation}"
            )
        self.newest = newest
        return start

    async def take(self, start: SnapshotStart, events: Iterable[MetadataEvent]) -> None:
        """Write a snapshot durably, unless one exists that is at least as new."""
        snapshot = SnapshotId(start.offset, start.epoch)
        async with self._changing:
            if self.newest is not None and self.newest >= snapshot:
                return
            await files.write_snapshot(self._disk, self._directory, start, events)
            self._is_newest(snapshot)

    def download(self, snapshot: SnapshotId) -> Download:
        """Return the download of a snapshot from another node."""
        return Download(self._disk, self._directory, snapshot)

    async def keep(self, snapshot: SnapshotId) -> None:
        """Note that the log now continues this durable snapshot. Remove the older snapshots."""
        async with self._changing:
            self._is_newest(snapshot)
            await files.remove_older(self._disk, self._directory, snapshot)

    def _is_newest(self, snapshot: SnapshotId) -> None:
        if self.newest is None or self.newest < snapshot:
            self.newest = snapshot

    async def read(self, snapshot: SnapshotId, position: int, bytes_max: int) -> tuple[int, bytes]:
        """Return the size of a snapshot in bytes, and at least one byte from `position` on.

        The bytes are at most `bytes_max` and CHUNK_BYTES_MAX. Raises SnapshotNotFoundError, or
        InvalidRequestError for a position outside the snapshot or a `bytes_max` below 1.
        """
        if bytes_max < 1:
            raise InvalidRequestError(f"max_bytes must be 1 or more, not {bytes_max}")
        try:
            file = await self._disk.open(files.path_of(self._directory, snapshot))
        except FileNotFoundError:
            raise self._not_found(snapshot) from None
        try:
            if not 0 <= position < file.size:
                raise InvalidRequestError(
                    f"position {position} is not in the snapshot's {file.size} bytes"
                )
            data = await file.read_at(position, min(bytes_max, CHUNK_BYTES_MAX))
            return file.size, data
        finally:
            await file.close()

    async def parts(self, snapshot: SnapshotId) -> AsyncGenerator[bytes, None]:
        """Yield the batches of a snapshot's events. Close the generator with aclosing.

        SnapshotNotFoundError if there is no such snapshot, or it was removed. StorageError if the
        disk fails.
        """
        path = files.path_of(self._directory, snapshot)
        try:
            async with aclosing(files.parts(self._disk, path)) as parts:
                async for part in parts:
                    yield part
        except FileNotFoundError:
            raise self._not_found(snapshot) from None
        except OSError as error:
            raise StorageError(f"can't read snapshot {path}: {error}") from error

    def _not_found(self, snapshot: SnapshotId) -> SnapshotNotFoundError:
        return SnapshotNotFoundError(
            f"there is no snapshot of offset {snapshot.offset} and epoch {snapshot.epoch};"
            f" the newest is {self.newest}"
        )
