"""The parts of one log. An open fills them from the disk; then the log works with them."""

from __future__ import annotations

from quorate_quorum.disk import Disk
from quorate_quorum.log.checkpoints import Checkpoints
from quorate_quorum.log.config import LogConfig
from quorate_quorum.log.directory import CUTTING_FILE, Directory
from quorate_quorum.log.extent import EpochFile, Extent
from quorate_quorum.log.guard import Guard
from quorate_quorum.log.observer import ObserverSnapshots
from quorate_quorum.log.segments import Segments


class Parts:
    """The parts that two or more roles of the log use. A part that only one role uses is in it."""

    def __init__(self, disk: Disk, path: str, config: LogConfig) -> None:
        #: The present configuration. Log.configure replaces it.
        self.config = config
        self.directory = Directory(disk, path)
        self.extent = Extent()
        self.guard = Guard(path)
        self.segments = Segments(self.directory, self.extent, config.index_interval_bytes)
        self.checkpoints = Checkpoints(
            self.directory, self.extent, track_synced=config.track_synced
        )
        self.epoch_file = EpochFile(self.directory)
        self.snapshots = ObserverSnapshots(disk, path)

    async def mark_cut(self) -> None:
        """Mark on the disk that a cut is under way (CUTTING_FILE)."""
        await self.directory.make()
        await self.directory.mark(CUTTING_FILE)

    async def finish_cut(self) -> None:
        """Make the cut durable, then remove the CUTTING_FILE marker."""
        await self.sync_cut()
        await self.directory.unmark(CUTTING_FILE)

    async def sync_cut(self) -> None:
        """Make the cut that is under way durable."""
        self.directory.changed()
        await self.directory.sync()
        await self.segments.active.file.sync()

    async def remove_snapshots_above(self, end: int) -> None:
        """Remove the snapshots of records that are not there any more, durably.

        A name that came back after a power loss would look right when the log is as long again.
        """
        if await self.snapshots.remove_above(end):
            self.directory.changed()
            await self.directory.sync()

    async def close(self) -> None:
        await self.checkpoints.close()
        await self.segments.close()
