"""Syncs a log. Callers share a sync, which covers all records appended before the sync began.

After the first failed sync the log can't be used any more. Pages may be readable although no medium
has them, so even a later sync that succeeds would prove nothing.
"""

from __future__ import annotations

import asyncio

from quorate.errors import StorageError
from quorate_quorum.log.disk_errors import TryAgainError, storage_error
from quorate_quorum.log.parts import Parts
from quorate_quorum.log.segment import Segment


class Syncer:
    """Syncs one log: first the segments, then the names, then the slot `synced`."""

    def __init__(self, parts: Parts) -> None:
        self._guard = parts.guard
        self._directory = parts.directory
        self._segments = parts.segments
        self._extent = parts.extent
        self._checkpoints = parts.checkpoints
        self._track_synced = parts.config.track_synced
        self._syncing = asyncio.Lock()
        self._background: asyncio.Task[None] | None = None

    async def sync_to(self, end: int, *, notes_durably: bool = True) -> None:
        """Sync all records below `end`. Several callers share one sync.

        Without `notes_durably`, the slot `synced` is not synced, unless acknowledgements wait for
        syncs. Such a sync makes the next open faster, and promises nothing.
        """
        self._guard.check()
        async with self._syncing:
            while self._is_due(end):
                self._guard.check()
                truncations = self._extent.truncations
                target = min(max(end, self._covered_with(end)), self._extent.end)
                for segment, next_base in self._segments.with_next_base():
                    if segment.base_offset < target and next_base > self._checkpoints.synced_end:
                        await self._sync_segment(segment)
                try:
                    await self._directory.sync()
                except OSError as error:
                    raise self._error("sync of the directory failed", error) from error
                try:
                    await self._checkpoints.note_synced(
                        target, truncations, is_promise=self._track_synced, durably=notes_durably
                    )
                except OSError as error:
                    raise self._error("sync failed", error) from error

    def sync_in_background(self, end: int) -> None:
        """Sync a segment that was closed at `end`.

        One such sync runs at a time: the caller calls wait_for_background first.
        """
        self._background = asyncio.create_task(self._sync_closed(end))

    async def wait_for_background(self) -> None:
        if self._background is not None:
            await self._background
            self._guard.check()

    async def stop(self) -> None:
        if self._background is not None:
            await asyncio.gather(self._background, return_exceptions=True)

    async def _sync_closed(self, end: int) -> None:
        try:
            await self.sync_to(end)
        except TryAgainError:
            return  # the next sync covers this segment, too
        except StorageError:
            # The failure is not lost: the owner's next call raises it.
            assert self._guard.failure is not None or self._guard.is_closed

    def _is_due(self, end: int) -> bool:
        is_synced = self._checkpoints.synced_end >= min(end, self._extent.end)
        return not is_synced or self._directory.has_unsynced_names

    def _covered_with(self, end: int) -> int:
        """Return how far a sync up to `end` reaches: the active segment is synced as a whole."""
        active_base = self._segments.bases[-1] if self._segments.bases else 0
        return end if end <= active_base else self._extent.end

    async def _sync_segment(self, segment: Segment) -> None:
        try:
            await segment.file.sync()
        except OSError as error:
            if segment in self._segments.all:  # a segment that was removed needs no sync
                raise self._error("sync failed", error) from error

    def _error(self, what: str, error: OSError) -> StorageError:
        """Return the exception to raise. A sync that did not begin may be tried again."""
        text = f"{self._directory.path}: {what}"
        passing = storage_error(text, error, nothing_done=True)
        return passing if isinstance(passing, TryAgainError) else self._guard.fail(what, error)
