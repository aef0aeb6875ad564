"""Reads the metadata image of a disk: from a snapshot's file, or from a metadata log to its end.

No quorum is needed. Nothing is written, and no lock is taken, so the disk may be that of a running
voter. What the voter writes meanwhile is not read, or is read as an incomplete end of the log.
"""

from __future__ import annotations

import os
from contextlib import aclosing
from dataclasses import dataclass

from quorate.errors import CorruptRecordError
from quorate.record.batch import BatchHeader
from quorate_cli.inspect.content import DamagedError, batches, open_segment, slots_of
from quorate_cli.inspect.node_files import NotOursError, is_directory, is_locked
from quorate_quorum.disk import Disk
from quorate_quorum.log.directory import SYNCED_FILE
from quorate_quorum.log.identity import FILE_NAME as IDENTITY_FILE
from quorate_quorum.log.identity import METADATA_DIRECTORY, read_identity
from quorate_quorum.log.segment import LOG, file_name, offset_of
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.loader import Loader
from quorate_quorum.snapshots import file as snapshot
from quorate_quorum.snapshots.file import SnapshotId
from quorate_quorum.v1.events_pb2 import SnapshotStart


@dataclass(frozen=True, slots=True)
class Found:
    """An image, and facts that tell how far it can be trusted."""

    image: MetadataImage
    path: str
    #: The snapshot that was loaded first; None: the log begins at offset 0.
    snapshot: SnapshotId | None
    #: The identity of the cluster: "" and 0 if neither the snapshot nor the directory has it.
    cluster_id: str
    quorum_generation: int
    #: Bytes at the log's end that are no whole batch: a write is under way, or a crash cut it.
    torn_bytes: int = 0
    #: Whether the log does not continue the snapshot. Then the next start deletes the log.
    is_log_foreign: bool = False
    #: Whether a running node has the lock of the directory.
    is_locked: bool = False

    @property
    def committed(self) -> int:
        """The offset below which all records are surely committed: the snapshot's, or 0.

        One disk cannot show which later records a majority of the voters has.
        """
        return 0 if self.snapshot is None else self.snapshot.offset

    def notes(self) -> list[str]:
        """Return sentences that tell how far the image can be trusted."""
        begin = "the log" if self.snapshot is None else f"snapshot {self.snapshot.offset} and log"
        said = [f"{self.path}: {begin} up to offset {self.image.offset}, epoch {self.image.epoch}"]
        tail = self.image.offset - self.committed
        if tail:
            said.append(
                f"the last {tail} records, from offset {self.committed}, may not be committed:"
                " that takes a majority of voters, and this is one disk"
            )
        if self.torn_bytes:
            said.append(
                f"{self.torn_bytes} bytes at the log's end are no whole batch (a write under way,"
                " or cut short by a crash) and are left out"
            )
        if self.is_log_foreign:
            said.append(
                "the log has another past than the snapshot and is left out, as a start would do"
            )
        if self.is_locked:
            said.append("a running node holds this directory: it may have moved on since")
        return said


async def read_image(disk: Disk, path: str) -> Found:
    """Return the image of a snapshot's file, of a metadata log's directory, or of a log directory.

    Raises NotOursError if the path is none of these. Raises DamagedError, CorruptRecordError or
    UnsupportedError if the log cannot be read up to its durable end. Raises OSError.
    """
    if not is_directory(path):
        return await _of_snapshot(disk, path)
    below = f"{path}/{METADATA_DIRECTORY}"
    directory = below if os.path.isdir(below) else path
    held = is_locked(directory)
    try:
        return await _of_log(disk, directory, is_locked=held)
    except (DamagedError, FileNotFoundError) as error:
        if not held:
            raise
        raise DamagedError(
            f"{error}; a running node holds this directory and may just have changed it: try again"
        ) from None


async def _of_snapshot(disk: Disk, path: str) -> Found:
    name = path.rpartition("/")[2]
    found = snapshot.id_of(name)
    if found is None:
        what = "half a snapshot" if name.endswith(snapshot.PART_SUFFIX) else "no snapshot"
        raise NotOursError(
            f"{path} is {what} of the metadata (OFFSET-EPOCH{snapshot.SUFFIX}), nor a directory"
        )
    reading = _Reading(disk)
    start = await reading.load_snapshot(path, found)
    return Found(reading.image, path, found, start.cluster_id, start.quorum_generation)


async def _of_log(disk: Disk, directory: str, *, is_locked: bool) -> Found:
    whole = await snapshot.newest(disk, directory)
    names = await disk.list(directory)
    bases = sorted(base for name in names if (base := offset_of(name, LOG)) is not None)
    if not bases and whole is None:
        raise NotOursError(f"{directory} holds neither a metadata log nor a snapshot of one")
    durable = await _synced(disk, directory)
    cluster_id, generation = await _identity(disk, directory)
    reading = _Reading(disk)
    if whole is not None:
        start = await reading.load_snapshot(snapshot.path_of(directory, whole), whole)
        cluster_id, generation = start.cluster_id, start.quorum_generation
    torn = 0
    for base in bases:
        if not reading.is_log_foreign:
            path = f"{directory}/{file_name(base, LOG)}"
            torn = await reading.load_segment(path, is_last=base == bases[-1])
    if reading.image.offset < durable and not reading.is_log_foreign:
        raise DamagedError(
            f"{directory}: batches can be read up to offset {reading.image.offset}, and all up to"
            f" {durable} was durable: `quorate storage verify` says what is damaged"
        )
    return Found(
        reading.image,
        directory,
        whole,
        cluster_id,
        generation,
        torn,
        reading.is_log_foreign,
        is_locked,
    )


async def _identity(disk: Disk, directory: str) -> tuple[str, int]:
    parent = os.path.dirname(os.path.abspath(directory))
    if not await disk.exists(f"{parent}/{IDENTITY_FILE}"):
        # no identity: the directory was copied out of its log directory
        return "", 0
    found = await read_identity(disk, parent)
    return found.cluster_id, found.quorum_generation


async def _synced(disk: Disk, directory: str) -> int:
    path = f"{directory}/{SYNCED_FILE}"
    value = await slots_of(disk, path) if await disk.exists(path) else None
    return 0 if value is None else value[0]


class _Reading:
    """Builds the image: loads a snapshot, if there is one, and then the log to its end."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._loader = Loader()
        self._snapshot: SnapshotId | None = None
        self.is_log_foreign = False

    @property
    def image(self) -> MetadataImage:
        """The image of everything that was read so far."""
        return self._loader.shown

    async def load_snapshot(self, path: str, named: SnapshotId) -> SnapshotStart:
        """Load a snapshot, after checking all its bytes."""
        start = await snapshot.verify(self._disk, path, decode=True)
        self._snapshot = named
        try:
            # the loader needs at least one part, and the snapshot of an empty image has none
            self._loader.load_snapshot_part(b"")
            async with aclosing(snapshot.parts(self._disk, path)) as parts:
                async for part in parts:
                    self._loader.load_snapshot_part(part)
            self._loader.finish_snapshot(named.offset, named.epoch)
        except AssertionError as error:
            raise DamagedError(f"{path}: its events contradict each other: {error}") from None
        return start

    async def load_segment(self, path: str, *, is_last: bool) -> int:
        """Apply a segment's batches. Return the number of bytes after its last whole batch.

        Only the last batch of the last segment may be torn. A bad batch before it is damage.
        """
        segment = await open_segment(self._disk, path)
        position = 0
        try:
            async with aclosing(batches(segment)) as found:
                async for position, header, wrong in found:
                    end = position + header.size
                    if wrong is not None and not (is_last and end == segment.size):
                        raise DamagedError(f"{path}, byte {position}: {wrong}")
                    if wrong is not None:
                        return header.size
                    self._apply(
                        header, await segment.file.read_at(position, header.size), path, position
                    )
                    if self.is_log_foreign:
                        return 0
                    position = end
        except CorruptRecordError as error:
            if not is_last:
                raise DamagedError(f"{path}, byte {position}: {error}") from None
            return segment.size - position
        finally:
            await segment.file.close()
        return 0

    def _apply(self, header: BatchHeader, batch: bytes, path: str, position: int) -> None:
        whole = self._snapshot
        if whole is not None and header.end_offset == whole.offset:
            self.is_log_foreign = header.leader_epoch != whole.epoch
        try:
            self._loader.load(batch)
        except (CorruptRecordError, AssertionError) as error:
            raise DamagedError(f"{path}, byte {position}: {error}") from None
