"""The download of a snapshot in chunks. The whole file is checked, then gets its name."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from quorate.errors import CorruptRecordError
from quorate_quorum.disk import Buffer, Disk, File
from quorate_quorum.snapshots.file import (
    FETCHED_SUFFIX,
    SNAPSHOT_BYTES_MAX,
    SnapshotId,
    corrupt,
    discard,
    new_part,
    parts,
    path_of,
    publish,
    verify,
)
from quorate_quorum.v1.events_pb2 import SnapshotStart


class Download:
    """A snapshot that comes from a leader in chunks, in order. Another leader may send the rest.

    A chunk that does not fit raises CorruptRecordError and changes nothing. The snapshot can't be
    used before `finish` has checked it as a whole.
    """

    def __init__(self, disk: Disk, directory: str, snapshot: SnapshotId) -> None:
        self._disk = disk
        self._target = path_of(directory, snapshot)
        self._part: File | None = None
        self.snapshot = snapshot
        #: The number of bytes received so far. The next chunk must begin at this position.
        self.position = 0
        #: The size of the whole snapshot; None before the first chunk.
        self.size: int | None = None

    @property
    def is_complete(self) -> bool:
        """Whether all bytes were received. The bytes are not checked yet, and may be bad."""
        return self.size == self.position

    async def add(self, position: int, data: Buffer, *, size: int) -> None:
        """Write a chunk. `size` is the size of the whole snapshot. OSError if the disk fails."""
        wrong = self._misfit(position, len(data), size)
        if wrong is not None:
            raise CorruptRecordError(f"a chunk of snapshot {self._target}: {wrong}")
        if self._part is None:
            self._part = await new_part(self._disk, self._target + FETCHED_SUFFIX)
        await self._part.append((data,))
        self.size = size
        self.position += len(data)

    def parts(self) -> AsyncGenerator[bytes, None]:
        """Yield the batches of events of a complete download. Close the generator with aclosing.

        This checks only the CRC of each batch. `finish` checks the whole.
        """
        assert self._part is not None, "no chunk came"
        return parts(self._disk, self._part.path)

    def _misfit(self, position: int, length: int, size: int) -> str | None:
        if not 0 < size <= SNAPSHOT_BYTES_MAX:
            return f"it says {size} bytes for the whole; 1 to {SNAPSHOT_BYTES_MAX} are possible"
        if self.size not in (None, size):
            return f"it says {size} bytes for the whole, and {self.size} were said before"
        if position != self.position:
            return f"it begins at byte {position}, and {self.position} is the next"
        if not 0 < length <= size - position:
            return f"it has {length} bytes at byte {position} of {size}"
        return None

    async def finish(
        self, *, cluster_id: str, quorum_generation: int, bootstrap_hash: bytes = b""
    ) -> SnapshotStart:
        """Check the whole snapshot, make it durable under its final name, and return its start.

        CorruptRecordError or UnsupportedError as in `verify`. CorruptRecordError also if the
        snapshot is of another cluster, generation or bootstrap batch (empty hash: not compared).
        After an error all bytes of the download are removed, and the next download begins at
        position 0.
        """
        assert self._part is not None, "no chunk came"
        assert self.is_complete, (self.position, self.size)
        try:
            start = await verify(self._disk, self._part.path, decode=True)
            if (start.cluster_id, start.quorum_generation) != (cluster_id, quorum_generation):
                raise corrupt(
                    self._target,
                    f"it is of cluster {start.cluster_id}, generation {start.quorum_generation};"
                    f" this node is of {cluster_id}, generation {quorum_generation}",
                )
            if bootstrap_hash and start.bootstrap_hash not in (b"", bootstrap_hash):
                raise corrupt(self._target, "its history began with another bootstrap batch")
            await publish(self._disk, self._part, self._target)
        except BaseException:
            await self.discard()
            raise
        self._part = None
        return start

    async def discard(self) -> None:
        """Remove the received bytes. A second call does nothing more."""
        part, self._part = self._part, None
        self.position, self.size = 0, None
        if part is not None:
            await discard(self._disk, part)
