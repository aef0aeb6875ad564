"""The compacted form of a log, in which whole batches may be missing from the middle.

The compactor itself is in the broker. It reads the segments, writes new ones beside them, and has
them exchanged here.
"""

from __future__ import annotations

from collections.abc import Sequence

from quorate_quorum.log.checksum import SegmentChecksum
from quorate_quorum.log.directory import COMPACTED_FILE
from quorate_quorum.log.disk_errors import leaving_all_as_it_was
from quorate_quorum.log.parts import Parts
from quorate_quorum.log.reader import Reader
from quorate_quorum.log.replacement import Replacer


class Compaction:
    """What an open log offers to the compactor."""

    def __init__(self, parts: Parts, reader: Reader) -> None:
        self._checkpoints = parts.checkpoints
        self._segments = parts.segments
        self._replacer = Replacer(parts, reader)
        #: The directory in which the compactor writes new segments, and the distance between the
        #: entries of their indexes.
        self.directory = parts.directory.path
        self.index_interval_bytes = parts.config.index_interval_bytes
        self._directory = parts.directory
        self._extent = parts.extent
        self._guard = parts.guard

    @property
    def has_gaps(self) -> bool:
        """Whether a batch may begin above the end of the batch before it."""
        return self._extent.has_gaps

    async def allow_gaps(self) -> None:
        """Note durably that batches may leave gaps: this log is, or copies, a compacted one."""
        if self._extent.has_gaps:
            return
        async with self._guard.exclusive("allowing gaps"):
            with leaving_all_as_it_was(f"{self.directory}: can't note that it has gaps"):
                await self._directory.make()
                await self._directory.mark_durably(COMPACTED_FILE)
            self._extent.has_gaps = True

    @property
    def bases(self) -> Sequence[int]:
        """The base offsets of the segments. The last one is the active segment's."""
        return self._segments.bases

    @property
    def cleaned_end(self) -> int:
        """All records below it were compacted by a whole pass; 0 if that is not known."""
        return self._checkpoints.cleaned_end

    async def note_cleaned(self, offset: int) -> None:
        """Note durably that all records below `offset` were compacted."""
        async with self._guard.exclusive("noting a compaction"):
            with leaving_all_as_it_was(f"{self.directory}: can't note a compaction"):
                await self._checkpoints.save_cleaned(offset)

    async def replace_segments(self, new: SegmentChecksum, truncations: int) -> bool:
        """Put a compacted segment in the place of those that it was made of (replacement.py).

        `truncations` is the log's number of cuts when they were read. Returns False, and changes
        nothing, if the log was cut since, or no longer has these segments. TryAgainError leaves the
        log as it was; any other failure ends the use of the log.
        """
        await self.allow_gaps()
        with leaving_all_as_it_was(f"{self.directory}: can't write a checksum"):
            await self._replacer.prepare(new)
        async with self._guard.exclusive("replacing segments"):
            is_same = truncations == self._extent.truncations
            if is_same and await self._replacer.replace(new):
                return True
        with leaving_all_as_it_was(f"{self.directory}: can't remove what a compaction wrote"):
            await self._replacer.abandon(new.base_offset)
        return False
