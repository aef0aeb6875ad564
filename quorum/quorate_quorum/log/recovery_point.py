"""The recovery point of a log: after a crash, an open reads only the batches above it.

It is the offset in the slot `synced`. A roll and a clean stop move it, and the owner moves it now
and then. All records below it are synced before it moves, so a bad batch below it is damage, and an
open need not check them. To find the place of the recovery point without a scan, an open needs the
indexes, and for the Observer's state a snapshot. So both are saved with it. They are not synced:
after a power loss, an open builds again what is missing.

A broker stops thousands of logs in some seconds. So a stop has two steps: `save` writes the files
of each log, and then each log is synced, once. On many file systems, making a file waits for the
sync that another thread has begun.
"""

from __future__ import annotations

from quorate_quorum.disk import Disk
from quorate_quorum.log.disk_errors import done_without
from quorate_quorum.log.index import SegmentIndex
from quorate_quorum.log.observed import ObservedState
from quorate_quorum.log.parts import Parts
from quorate_quorum.log.segment import INDEX, LOOKUP_BYTES, TIME_INDEX, Segment
from quorate_quorum.log.syncer import Syncer

#: If an open would show more bytes of batches to the Observer, its state is saved.
RELOAD_BYTES_MAX = 1 << 20
#: A stop saves no index of a segment that is not longer, and no snapshot before fewer bytes of
#: batches: one read of an open finds them.
STOP_BYTES_MAX = LOOKUP_BYTES


class RecoveryPoint:
    """Moves the recovery point of one log to its end."""

    def __init__(self, parts: Parts, syncer: Syncer, observed: ObservedState | None) -> None:
        self._parts = parts
        self._syncer = syncer
        self._observed = observed
        self._index_files = IndexFiles(parts)
        #: The bytes that had been appended when the recovery point was moved last.
        self._covered_bytes = 0

    @property
    def bytes_above(self) -> int:
        """The bytes that were appended since the recovery point was moved last."""
        return self._parts.extent.appended_bytes - self._covered_bytes

    async def save(self) -> None:
        """Write what the next open needs, before the log is stopped. Nothing is synced.

        Only what is new since the last call, or since the recovery point moved, is written.
        """
        if not self._is_changed:
            return
        parts, checkpoints = self._parts, self._parts.checkpoints
        async with parts.guard.exclusive("saving before the stop"):
            if parts.segments.active.size > STOP_BYTES_MAX:
                with done_without("index", parts.directory.path):
                    await self._index_files.extend(parts.segments.active)
            if self._observed is not None:
                await self._observed.save_if_longer(STOP_BYTES_MAX)
            known = (checkpoints.high_watermark, checkpoints.hw_epoch)
            if (checkpoints.high_watermark_slot.value or (0, -1)) != known:
                await checkpoints.save_high_watermark(*known)
            if checkpoints.synced_end < parts.extent.end:
                with done_without("synced", parts.directory.path):
                    await checkpoints.reserve_synced()

    async def sync(self) -> None:
        """Sync all records, and write `synced`, the recovery point itself, but do not sync it.

        If a power loss brings back an older `synced`, the next open reads more.
        """
        await self._syncer.sync_to(self._parts.extent.end, notes_durably=False)

    async def conclude(self) -> None:
        """Save and sync all that is new, for a clean stop. StorageError if the sync fails."""
        await self.save()
        if self._is_changed:
            await self.sync()

    @property
    def _is_changed(self) -> bool:
        """Whether the log changed since it was opened. A failed log can't be saved any more."""
        parts = self._parts
        is_usable = bool(parts.segments.all) and parts.guard.failure is None
        return is_usable and parts.extent.is_changed

    async def move(self) -> None:
        """Sync all records, and save what an open needs to skip them.

        TryAgainError leaves the log as it was; any other StorageError ends the use of the log.
        """
        parts = self._parts
        appended_bytes = parts.extent.appended_bytes
        await self.sync()
        async with parts.guard.exclusive("recovery point"):
            if parts.segments.all:
                with done_without("index", parts.directory.path):
                    await self._index_files.extend(parts.segments.active)
            if self._observed is not None:
                await self._observed.save_if_longer(RELOAD_BYTES_MAX)
        self._covered_bytes = appended_bytes


class IndexFiles:
    """The index files of the active segment, which grow with the index in memory.

    A file that was written in part ends with an entry that is not whole, or that is not above the
    one before it: an open uses the entries before.
    """

    def __init__(self, parts: Parts) -> None:
        self._disk: Disk = parts.directory.disk
        self._extent = parts.extent
        #: What the files have: the index of this object, with as many entries of each kind, if
        #: there was no other cut since.
        self._index: SegmentIndex | None = None
        self._truncations = -1
        self._counts = (0, 0)

    async def extend(self, segment: Segment) -> None:
        """Write the entries that the files lack."""
        index = await segment.loaded_index()
        is_known = index is self._index and self._truncations == self._extent.truncations
        self._index = None  # if the writes fail, the next call writes whole files
        if not is_known:
            await segment.write_index(sync=False)
        else:
            offsets, times = self._counts
            # The times first: an offset index is of no use without the times of its entries.
            await self._append(segment.path(TIME_INDEX), index.encode_times(times))
            await self._append(segment.path(INDEX), index.encode_offsets(offsets))
        self._index, self._truncations = index, self._extent.truncations
        self._counts = index.counts

    async def _append(self, path: str, entries: bytes) -> None:
        if not entries:
            return
        file = await self._disk.open(path)
        try:
            await file.append((entries,))
        finally:
            await file.close()
