"""The compacted form of a log: batches may be gone from its middle."""

from __future__ import annotations

from quorate_quorum.log.directory import COMPACTED_FILE
from quorate_quorum.log.parts import Parts


class Compaction:
    """What one open log knows of its compaction."""

    def __init__(self, parts: Parts) -> None:
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
            await self._directory.make()
            await self._directory.mark_durably(COMPACTED_FILE)
            self._extent.has_gaps = True
