"""Which records a log holds at this moment: where it begins and ends, and of which epochs."""

from __future__ import annotations

from dataclasses import dataclass, field

from quorate_quorum.disk import read_whole, replace_whole
from quorate_quorum.log.directory import Directory
from quorate_quorum.log.disk_errors import done_without
from quorate_quorum.log.epochs import FILE_NAME, EpochCache, decode


@dataclass(slots=True)
class Extent:
    """The records [start, end) and their epochs.

    `end` grows once an append has reached the page cache. It falls only in a cut, and a cut first
    counts itself in `truncations`: an operation that waited compares the number with the one that
    it began with, and drops what it found if the two differ.
    """

    #: First offset held.
    start: int = 0
    #: One past the last record.
    end: int = 0
    truncations: int = 0
    #: Where the log had begun, if segments at its start are gone.
    lost_start: int | None = None
    epochs: EpochCache = field(default_factory=EpochCache)
    #: Something was written since the last clean stop.
    is_changed: bool = False

    def epoch_before(self, offset: int) -> int:
        """The epoch of the record that ends at `offset`; -1 if none is known."""
        return self.epochs.epoch_at(offset - 1)

    def begin_cut(self, end: int) -> None:
        """From here on nothing at or above `end` is read, or noted as synced."""
        self.truncations += 1
        self.end = end
        self.is_changed = True


class EpochFile:
    """The file `leader-epoch-checkpoint` of one log. It is never synced: after a power loss an old
    or torn one is noticed, and built again.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    async def read(self) -> EpochCache | None:
        """Return what it says; None if it is not there or not whole."""
        if not await self._directory.has(FILE_NAME):
            return None
        return decode(await read_whole(self._directory.disk, self._directory.file(FILE_NAME)))

    async def write(self, epochs: EpochCache) -> None:
        path = self._directory.file(FILE_NAME)
        await replace_whole(self._directory.disk, path, epochs.encode(), sync=False)
        self._directory.changed()

    async def write_if_possible(self, epochs: EpochCache) -> None:
        """After a cut, or at open: an old file is noticed when it is read, and an append of a new
        epoch writes it first.
        """
        with done_without("epochs", self._directory.path):
            await self.write(epochs)
