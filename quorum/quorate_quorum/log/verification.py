"""Verifies an open log on request: one batch that a reader found bad, or the log piece by piece."""

from __future__ import annotations

from quorate.errors import CorruptRecordError
from quorate_quorum.log.parts import Parts
from quorate_quorum.log.reader import Reader
from quorate_quorum.log.scrub import Scrub


class Verification:
    """Verifies an open log while it is read and written."""

    def __init__(self, parts: Parts, reader: Reader) -> None:
        self._parts = parts
        self._guard = parts.guard
        self._extent = parts.extent
        self._reader = reader

    def scrub(self) -> Scrub:
        """Return a new pass over the whole log."""
        return Scrub(self._parts, self._reader.verifier)

    async def check_batch(self, offset: int) -> None:
        """Verify the batch that holds `offset` again. LogCorruptError if it is bad.

        Nothing happens for an offset that the log does not hold. Raises StorageError.
        """
        self._guard.check()
        truncations, end = self._extent.truncations, self._extent.end
        if not self._extent.start <= offset < end:
            return
        try:
            await self._reader.read_anew(offset, end)
        except (OSError, CorruptRecordError) as error:
            if truncations == self._extent.truncations and offset >= self._extent.start:
                raise self._guard.error("can't verify", error, nothing_done=True) from error
