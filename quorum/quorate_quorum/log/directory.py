"""The directory of one log: the names of its files, its markers, and whether names are durable.

00000000000000000042.log         a segment: batches from offset 42 on
00000000000000000042.index       offset to position, of a closed segment
00000000000000000042.timeindex   timestamp to offset, of a closed segment
00000000000000000042.checksum    of a compacted segment: see checksum.py
00000000000000000042.snapshot    the Observer's state after all records below offset 42
leader-epoch-checkpoint          which leader_epoch begins at which offset
synced, high-watermark, log-start, cleaned    slot files: see checkpoints.py
cutting, damaged, corrupt, compacted          markers: empty files
"""

from __future__ import annotations

import asyncio

from quorate_quorum.disk import Disk

SYNCED_FILE = "synced"
HIGH_WATERMARK_FILE = "high-watermark"
LOG_START_FILE = "log-start"
CLEANED_FILE = "cleaned"
#: Marks a cut that is under way. An open that finds this marker first syncs the files: the last
#: process may have died between the cut and its sync, and a power loss could undo the cut.
CUTTING_FILE = "cutting"
#: Made before a damaged end is cut. By this marker a later open learns that the log had more
#: records.
DAMAGED_FILE = "damaged"
#: Made when bytes of a log in use are found to be bad: an open that checks only the end would not
#: find them again. Such a log opens only for salvage, which removes the marker.
CORRUPT_FILE = "corrupt"
#: Marks a log from which compaction may have removed whole batches. Only in such a log may a batch
#: begin above the end of the one before it. The marker is made before the first such gap, and
#: stays.
COMPACTED_FILE = "compacted"


class Directory:
    """The directory of one log.

    A name that is made, renamed or removed survives a power loss only after the directory is
    synced. So the caller calls `changed()` after each of these, and `sync()` later.
    """

    def __init__(self, disk: Disk, path: str) -> None:
        self.disk = disk
        self.path = path
        #: Whether names in this directory have changed since it was last synced.
        self.has_unsynced_names = False
        #: Whether the directory's own name may still be unsynced in its parent.
        self._is_unsynced_itself = False
        self._syncing = asyncio.Lock()

    def file(self, name: str) -> str:
        """Return the path of a file in this directory."""
        return f"{self.path}/{name}"

    async def has(self, name: str) -> bool:
        return await self.disk.exists(self.file(name))

    async def make(self) -> None:
        """Make the directory if it does not exist."""
        if not await self.disk.exists(self.path):
            await self.disk.make_directory(self.path)
            self._is_unsynced_itself = True

    def changed(self) -> None:
        """Note that a name was made, renamed or removed."""
        self.has_unsynced_names = True

    def distrust(self) -> None:
        """Count all names as unsynced: the last process may have ended before it synced them."""
        self.has_unsynced_names = self._is_unsynced_itself = True

    async def sync(self) -> None:
        """Wait until every name that exists now is durable. Concurrent calls take turns."""
        async with self._syncing:
            if self._is_unsynced_itself:
                await self.disk.sync_directory(self.path.rpartition("/")[0] or "/")
                self._is_unsynced_itself = False
            if self.has_unsynced_names:
                self.has_unsynced_names = False
                try:
                    await self.disk.sync_directory(self.path)
                except BaseException:
                    self.has_unsynced_names = True
                    raise

    async def mark(self, marker: str) -> None:
        """Make a marker. It is not durable yet."""
        file = await self.disk.open(self.file(marker), create=True)
        await file.close()

    async def unmark(self, marker: str) -> None:
        """Remove a marker that exists. The removal is not durable yet."""
        await self.disk.remove(self.file(marker))

    async def mark_durably(self, marker: str) -> None:
        await self.mark(marker)
        await self.disk.sync_directory(self.path)

    async def unmark_durably(self, marker: str) -> None:
        """Remove a marker durably, if it exists."""
        if await self.has(marker):
            await self.unmark(marker)
            await self.disk.sync_directory(self.path)
