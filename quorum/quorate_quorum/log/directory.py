"""The directory of one log: the names of its files, its markers, and which names are durable.

00000000000000000042.log         a segment: batches from offset 42 on
00000000000000000042.index       offset to position, of a closed segment
00000000000000000042.timeindex   timestamp to offset, of a closed segment
00000000000000000042.snapshot    the observer's state, of all below offset 42
leader-epoch-checkpoint          which leader_epoch begins at which offset
synced, high-watermark, log-start    slot files: see checkpoints
cutting, damaged, corrupt            markers, which are empty
"""

from __future__ import annotations

import asyncio

from quorate_quorum.disk import Disk

SYNCED_FILE = "synced"
HIGH_WATERMARK_FILE = "high-watermark"
LOG_START_FILE = "log-start"
#: There while a cut is under way. An open that finds it syncs what it sees before it goes on: the
#: process may have died between the cut and its sync, and the power may still fail.
CUTTING_FILE = "cutting"
#: Made before a damaged end is cut: an open that finds it knows that this log had more.
DAMAGED_FILE = "damaged"
#: Made when bytes of a log in use are found to be bad: an open that checks only the end would not
#: find them again. Such a log opens for salvage alone, which removes the file.
CORRUPT_FILE = "corrupt"


class Directory:
    """See the module. A name that is made, renamed or removed survives a power loss only once the
    directory is synced: so each of these is followed by `changed()`, and `sync()` comes later.
    """

    def __init__(self, disk: Disk, path: str) -> None:
        self.disk = disk
        self.path = path
        #: Entries of this directory, and its own entry, that no sync of a directory has covered.
        self.has_unsynced_names = False
        self._is_unsynced_itself = False
        self._syncing = asyncio.Lock()

    def file(self, name: str) -> str:
        """Return the path of a file in it."""
        return f"{self.path}/{name}"

    async def has(self, name: str) -> bool:
        return await self.disk.exists(self.file(name))

    async def make(self) -> None:
        """Make the directory unless it is there."""
        if not await self.disk.exists(self.path):
            await self.disk.make_directory(self.path)
            self._is_unsynced_itself = True

    def changed(self) -> None:
        """Note that a name was made, renamed or removed."""
        self.has_unsynced_names = True

    def distrust(self) -> None:
        """Note that the last process may have ended before it synced any name here."""
        self.has_unsynced_names = self._is_unsynced_itself = True

    async def sync(self) -> None:
        """Return when every name of now is durable; a sync under way may be for another caller."""
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
        """Make a marker, not yet durably."""
        file = await self.disk.open(self.file(marker), create=True)
        await file.close()

    async def unmark(self, marker: str) -> None:
        """Remove a marker that is there, not yet durably."""
        await self.disk.remove(self.file(marker))

    async def mark_durably(self, marker: str) -> None:
        await self.mark(marker)
        await self.disk.sync_directory(self.path)

    async def unmark_durably(self, marker: str) -> None:
        """Remove a marker if it is there."""
        if await self.has(marker):
            await self.unmark(marker)
            await self.disk.sync_directory(self.path)
