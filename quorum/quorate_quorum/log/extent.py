"""The extent of a log: the records that it holds now, and their epochs."""

from __future__ import annotations

from dataclasses import dataclass, field

from quorate_quorum.disk import read_whole, replace_whole
from quorate_quorum.log.directory import Directory
from quorate_quorum.log.disk_errors import done_without
from quorate_quorum.log.epochs import FILE_NAME, EpochCache, decode


@dataclass(slots=True)
class Extent:
    """The records [start, end) and their epochs.

    `end` grows after an append has reached the page cache. It falls only in a cut, and a cut first
    adds 1 to `truncations`. An operation that waited compares `truncations` with the value at its
    begin, and drops its result if they differ.
    """

    #: First offset that readers see. It may lie inside the first segment, or inside a batch.
    start: int = 0
    #: One past the last record.
    end: int = 0
    truncations: int = 0
    #: The offset at which the log began before it lost segments at its start; None: it lost none.
    lost_start: int | None = None
    epochs: EpochCache = field(default_factory=EpochCache)
    #: Whether compaction may have removed whole batches: see COMPACTED_FILE.
    has_gaps: bool = False
    #: Whether the log was changed since the last clean stop.
    is_changed: bool = False

    def epoch_before(self, offset: int) -> int:
        """The epoch of the record that ends at `offset`; -1 if none is known."""
        return self.epochs.epoch_at(offset - 1)

    def begin_cut(self, end: int) -> None:
        """Move the end to `end`: from now on nothing at or above it is read or noted as synced."""
        self.truncations += 1
        self.end = end
        self.is_changed = True


class EpochFile:
    """The file `leader-epoch-checkpoint` of one log.

    It is never synced: an open notices an old or torn one after a power loss, and builds it again.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    async def read(self) -> EpochCache | None:
        """Return the epochs in the file; None if it does not exist or is not whole."""
        if not await self._directory.has(FILE_NAME):
            return None
        return decode(await read_whole(self._directory.disk, self._directory.file(FILE_NAME)))

    async def write(self, epochs: EpochCache) -> None:
        path = self._directory.file(FILE_NAME)
        await replace_whole(self._directory.disk, path, epochs.encode(), sync=False)
        self._directory.changed()

    async def write_if_possible(self, epochs: EpochCache) -> None:
        """Write the file after a cut or at open, unless that fails on a good disk.

        An open notices an old file, and an append of a new epoch writes the file first.
        """
        with done_without("epochs", self._directory.path):
            await self.write(epochs)
