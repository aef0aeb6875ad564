"""The extent of a log: the records that it holds now, and their epochs."""

from __future__ import annotations

from dataclasses import dataclass, field

from quorate_quorum.disk import read_whole, replace_whole
from quorate_quorum.log.directory import Directory
from quorate_quorum.log.disk_errors import done_without
from quorate_quorum.log.epochs import FILE_NAME, EpochCache, decode


@dataclass(slots=True)
class Extent:
    """The records from `start` to below `end`, and their epochs.

    `end` grows after an append has reached the page cache. It falls only in a cut, which first adds
    1 to `truncations`. An operation that waited compares `truncations` with the value at its begin,
    and drops its result if they differ.
    """

    #: The first offset that readers see. It may lie inside the first segment, or inside a batch.
    start: int = 0
    #: One past the last record.
    end: int = 0
    truncations: int = 0
    #: The log's former start, if segments there were lost; None if no segment was lost.
    lost_start: int | None = None
    epochs: EpochCache = field(default_factory=EpochCache)
    #: Whether compaction may have removed whole batches: see COMPACTED_FILE.
    has_gaps: bool = False
    #: Whether the log was changed since the last clean stop.
    is_changed: bool = False
    #: The bytes that were appended since the open.
    appended_bytes: int = 0

    def epoch_before(self, offset: int) -> int:
        """Return the epoch of the record just below `offset`; -1 if it is not known."""
        return self.epochs.epoch_at(offset - 1)

    def fit_epochs_to_start(self, first_base: int) -> None:
        """Let the epochs begin at the start. `first_base` is where the first segment begins."""
        self.epochs.truncate_from_start(self.start)
        if self.has_gaps and self.start > first_base:
            self.epochs.begin_at(self.start)

    def end_behind(self, offset: int, synced: int) -> int:
        """Return where the log ends if its last good batch ends at `offset`.

        A compacted log that was cut back to its start may have no batch that ends there: the start
        may lie in a gap. Then only deleted records are in the files, and the log is empty. `synced`
        is the end of what had survived a sync.
        """
        is_empty = self.has_gaps and synced <= self.start
        return max(offset, self.start) if is_empty else offset

    def begin_cut(self, end: int) -> None:
        """Move the end to `end`. Records from `end` on are no longer read or noted as synced."""
        self.truncations += 1
        self.end = end
        self.is_changed = True


class EpochFile:
    """The file `leader-epoch-checkpoint` of one log.

    The file is never synced. After a power loss an open notices if it is old or torn, and builds it
    again.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    async def read(self) -> EpochCache | None:
        """Return the epochs in the file; None if it does not exist or is not whole."""
        if not await self._directory.has(FILE_NAME):
            return None
        return decode(await read_whole(self._directory.disk, self._directory.file(FILE_NAME)))

    async def known(self, start: int, synced: int, epoch: int | None) -> EpochCache | None:
        """Return the epochs in the file; None if they do not fit the synced log.

        `epoch` is that of the last record below `synced`; None: the start scans all batches, and
        needs no file.
        """
        if epoch is None:
            return EpochCache()
        known = await self.read()
        if known is None or known.epoch_at(synced - 1) != epoch:
            return None
        known.truncate_from_start(start)
        if known.entries[0][1] > start:
            return None  # the file lacks the oldest batches: a power loss undid their removal
        return known

    async def differs_from(self, epochs: EpochCache) -> bool:
        """Return whether the file does not exist, or does not have exactly these epochs."""
        if not await self._directory.has(FILE_NAME):
            return True
        content = await read_whole(self._directory.disk, self._directory.file(FILE_NAME))
        return content != epochs.encode()

    async def before(self, start: int) -> EpochCache:
        """Return a table of one epoch, that of the record before `start`; empty if unknown.

        For a log from which all records were deleted: no batch is left that tells this epoch. In
        the table the epoch begins at `start`.
        """
        known = await self.read()
        entries = [] if known is None else [one for one in known.entries if one[1] <= start]
        return EpochCache((epoch, start) for epoch, _ in entries[-1:])

    async def write(self, epochs: EpochCache) -> None:
        path = self._directory.file(FILE_NAME)
        await replace_whole(self._directory.disk, path, epochs.encode(), sync=False)
        self._directory.changed()

    async def write_if_possible(self, epochs: EpochCache) -> None:
        """Write the file after a cut or at open, if it differs. Ignore a failure of a good disk.

        An open notices an old file, and an append of a new epoch writes the file first. A broker
        opens thousands of logs, and many file systems write a new file to the medium when it
        replaces another one: that held the event loop for 28 ms a log on a busy disk.
        """
        with done_without("epochs", self._directory.path):
            if await self.differs_from(epochs):
                await self.write(epochs)
