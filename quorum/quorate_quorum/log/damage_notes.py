"""The notes that a log keeps of its damage, until the owner removes them."""

from __future__ import annotations

from quorate_quorum.log.directory import CORRUPT_FILE, DAMAGED_FILE
from quorate_quorum.log.disk_errors import leaving_all_as_it_was
from quorate_quorum.log.parts import Parts


class DamageNotes:
    """The notes of one log. Each method returns after its change is durable."""

    def __init__(self, parts: Parts, *, is_noted: bool) -> None:
        #: Whether a note says that records are missing: see Recovered.damaged.
        self.is_noted = is_noted
        self._directory = parts.directory
        self._guard = parts.guard
        self._extent = parts.extent
        self._checkpoints = parts.checkpoints

    async def accept_start(self) -> None:
        """Accept the log's present start, because no replica has the records that are missing."""
        if self._extent.lost_start is not None:
            async with self._guard.exclusive("accepting the start"):
                await self._checkpoints.move_start(self._extent.start)
                self._extent.lost_start = None

    async def forget_damage(self) -> None:
        """Forget the damage, because no other node depends on the lost records any more."""
        if await self._directory.has(DAMAGED_FILE):
            async with self._guard.exclusive("forgetting damage"):
                await self._directory.unmark_durably(DAMAGED_FILE)
        self.is_noted = False

    async def note_corrupt(self) -> None:
        """Note that bytes of this log are bad, so that it opens only for salvage.

        The method also works after the log has failed. If it raises StorageError, nothing has
        changed.
        """
        with leaving_all_as_it_was(f"{self._directory.path}: can't note that it is corrupt"):
            await self._directory.mark_durably(CORRUPT_FILE)

    async def forget_corrupt(self) -> None:
        """For the only copy: remove the note, because a salvage would cut good batches, too."""
        with leaving_all_as_it_was(f"{self._directory.path}: can't forget that it is corrupt"):
            await self._directory.unmark_durably(CORRUPT_FILE)
