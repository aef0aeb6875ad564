"""The compacted form of a log: batches may be gone from its middle.

The compactor itself is in the broker. It reads the segments, writes new ones beside them, and asks
here for the exchange.
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
    """What one open log knows of its compaction."""

    def __init__(self, parts: Parts, reader: Reader) -> None:
        self._checkpoints = parts.checkpoints
        self._segments = parts.segments
        self._replacer = Replacer(parts, reader)
        #: The directory with the log's files, and the distance of its index entries: the compactor
        #: writes new segments there.
        self.directory = parts.directory.path
        self.index_interval_bytes = parts.config.index_interval_bytes
        self._directory = parts.directory
        self._extent = parts.extent
        self._guard = parts.guard

    @property
    def has_gaps(self) -> bool:
        """Whether a batch may begin above the end of the one before it."""
        return self._extent.has_gaps

    async def allow_gaps(self) -> None:
        """Note durably that this log is, or copies, a compacted one: its batches may leave gaps."""
        if self._extent.has_gaps:
            return
        async with self._guard.exclusive("allowing gaps"):
            with leaving_all_as_it_was(f"{self.directory}: can't note that it has gaps"):
                await self._directory.make()
                await self._directory.mark_durably(COMPACTED_FILE)
            self._extent.has_gaps = True

    @property
    def bases(self) -> Sequence[int]:
        """The base offsets of the segments; that of the active one is the last."""
        return self._segments.bases

    @property
    def cleaned_end(self) -> int:
        """All below was compacted by a whole pass; 0 if that is not known."""
        return self._checkpoints.cleaned_end

    async def note_cleaned(self, offset: int) -> None:
        """Note durably that all below `offset` was compacted."""
        async with self._guard.exclusive("noting a compaction"):
            with leaving_all_as_it_was(f"{self.directory}: can't note a compaction"):
                await self._checkpoints.save_cleaned(offset)

    async def replace_segments(self, new: SegmentChecksum, truncations: int) -> bool:
        """Put a compacted segment in the place of those that it was made of: see replacement.py.

        `truncations` is the log's number when they were read. Returns False, and changes nothing,
        if the log was cut since or does not have them any more. TryAgainError leaves the log as it
        was; any other failure ends the use of the log.
        """
        await self.allow_gaps()
        with leaving_all_as_it_was(f"{self.directory}: can't write a checksum"):
            await self._replacer.prepare(new)
        async with self._guard.exclusive("replacing segments"):
            if truncations != self._extent.truncations:
                return False
            return await self._replacer.replace(new)
