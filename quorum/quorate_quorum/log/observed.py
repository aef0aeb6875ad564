"""The Observer of one log, its state and its snapshots: see observer.py."""

from __future__ import annotations

from contextlib import suppress

from quorate.errors import CorruptRecordError
from quorate.record.batch import BatchHeader
from quorate_quorum.log.disk_errors import done_without
from quorate_quorum.log.observer import Observer
from quorate_quorum.log.parts import Parts


class ObservedState:
    """Shows each batch of the log to its Observer, and takes snapshots of the Observer's state."""

    def __init__(self, observer: Observer, parts: Parts) -> None:
        self._observer = observer
        self._parts = parts
        self._extent = parts.extent
        #: The number of batches after the newest snapshot, and their bytes.
        self._unsaved_batches = self._unsaved_bytes = 0

    def observe(self, header: BatchHeader) -> None:
        """Show an appended batch to the Observer."""
        self._observer.observe(header)
        self._unsaved_batches += 1
        self._unsaved_bytes += header.size

    async def reload(self) -> None:
        """Restore the newest snapshot at or below the log's end, then show the headers above it."""
        offset = await self._restore()
        self._unsaved_batches = self._unsaved_bytes = 0
        segments = self._parts.segments
        for segment, next_base in segments.with_next_base():
            if next_base > offset:
                position = await segments.position_of(segment, offset)
                await segment.replay(position, lambda _, header: self.observe(header))
        await self.save_if_due()

    async def save_if_due(self) -> None:
        """Take a snapshot if a reload would have to show too many batches or bytes."""
        config = self._parts.config
        if (
            self._unsaved_batches >= config.snapshot_batches
            or self._unsaved_bytes >= config.snapshot_bytes
        ):
            await self.save()

    async def save_if_longer(self, bytes_max: int) -> None:
        """Take a snapshot if a reload would have to show more bytes of batches than this."""
        if self._unsaved_bytes > bytes_max:
            await self.save()

    async def save(self) -> None:
        """Take a snapshot at the log's end. A failure is ignored, unless the disk is broken."""
        with done_without("producers", self._parts.directory.path):
            end = self._extent.end
            self._unsaved_batches = self._unsaved_bytes = 0
            state = self._observer.snapshot()
            await self._parts.snapshots.write(end, self._extent.epoch_before(end), state)
            # The names need no sync: after a power loss, a reload shows more batches.
            await self._parts.snapshots.thin(self._extent.start, end, self._parts.segments.bases)

    async def _restore(self) -> int:
        """Restore the newest good snapshot. Return the offset from which to show batches."""
        extent = self._extent
        for offset in reversed(await self._parts.snapshots.offsets()):
            if not extent.start <= offset <= extent.end:
                continue
            found = await self._parts.snapshots.read(offset)
            if found is None:
                continue
            epoch, state = found
            if offset > extent.start and epoch != extent.epoch_before(offset):
                continue  # the snapshot covers records that were cut
            self._observer.reset()
            # If the Observer refuses the state (another release may have written it), try an older
            # snapshot.
            with suppress(CorruptRecordError):
                self._observer.restore(state)
                return offset
        self._observer.reset()
        segments = self._parts.segments
        return segments.bases[0] if segments.all else extent.start
