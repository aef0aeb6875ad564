"""A snapshot that is being fetched: chunks in order, checked whole, then given its name."""

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
    """A snapshot that comes in chunks from a leader, in order; another leader may send the rest.

    A chunk that does not fit raises CorruptRecordError and changes nothing. What is fetched is
    worth nothing until `finish` has checked it whole.
    """

    def __init__(self, disk: Disk, directory: str, snapshot: SnapshotId) -> None:
        self._disk = disk
        self._target = path_of(directory, snapshot)
        self._part: File | None = None
        self.snapshot = snapshot
        #: Bytes that are here: where the next chunk must begin.
        self.position = 0
        #: Bytes of the whole; None until the first chunk has said it.
        self.size: int | None = None

    @property
    def is_complete(self) -> bool:
        """Whether all bytes are here, good or bad."""
        return self.size == self.position

    async def add(self, position: int, data: Buffer, *, size: int) -> None:
        """Write a chunk; `size` is what its sender says of the whole. OSError if the disk fails."""
        wrong = self._misfit(position, len(data), size)
        if wrong is not None:
            raise CorruptRecordError(f"a chunk of snapshot {self._target}: {wrong}")
        if self._part is None:
            self._part = await new_part(self._disk, self._target + FETCHED_SUFFIX)
        await self._part.append((data,))
        self.size = size
        self.position += len(data)

    def parts(self) -> AsyncGenerator[bytes, None]:
        """Yield the batches of events of what has come, once it is complete; close with aclosing.

        As good as their own CRCs: whether the whole is good, `finish` finds out.
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
        """Check the whole, then make it durable under its final name.

        CorruptRecordError or UnsupportedError, as `verify`, or if it is of another cluster,
        generation or bootstrap batch (empty: not known): nothing is left of it, and the next
        download begins at 0.
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
        """Forget what has come so far. Safe to repeat."""
        part, self._part = self._part, None
        self.position, self.size = 0, None
        if part is not None:
            await discard(self._disk, part)
