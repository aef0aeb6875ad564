"""Decides when a voter takes a snapshot of its committed image. Each voter takes its own.

The next snapshot is due after a configured number of bytes was appended to the log. A snapshot is
also due after a configured time, if an event was committed during that time. The bytes are counted
batch by batch, and the snapshot is taken of the image after the batch that reaches the limit. So
voters that began with the same snapshot take the same snapshots, and a download that began from one
voter can continue from another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from quorate.aio.bell import Bell
from quorate.aio.tasks import Tasks
from quorate.errors import OverloadedError, StoppingError
from quorate_quorum.metadata.image import EMPTY, MetadataImage
from quorate_quorum.node.config import QuorumConfig

log = structlog.get_logger(__name__)

#: The pause after the disk had no room for a snapshot.
RETRY_MS = 10_000


class SnapshotSchedule:
    """Takes snapshots in time. The controller calls `applied` and `loaded` as its image changes.

    `take` writes a snapshot of an image, unless one exists that is at least as new.
    """

    def __init__(
        self,
        take: Callable[[MetadataImage], Awaitable[object]],
        config: QuorumConfig,
        fail: Callable[[str], None],
    ) -> None:
        self._take = take
        self._bytes_max = config.metadata_log_max_record_bytes_between_snapshots
        self._interval_ms = config.metadata_log_max_snapshot_interval_ms
        self._image = EMPTY
        #: The bytes that were appended to the log since this number last reached the limit.
        self._bytes = 0
        self._due: MetadataImage | None = None
        self._taken_offset = 0
        self._is_due = Bell()
        self._tasks = Tasks(lambda _, error: fail(f"taking snapshots failed: {error!r}"))

    def begin(self) -> None:
        """Start the task. Its failure stops the node."""
        self._tasks.spawn(self._run(), "snapshotting")

    async def stop(self) -> None:
        """End the task. A second call, or one before `begin`, does nothing."""
        await self._tasks.end_all()

    def applied(self, image: MetadataImage, size: int) -> None:
        """Take in the image after a batch of `size` bytes."""
        self._image = image
        self._bytes += size
        if self._bytes >= self._bytes_max:
            self._bytes = 0
            self._due = image
            self._is_due.ring()

    def loaded(self, image: MetadataImage) -> None:
        """Take in the image of a loaded snapshot, and count the bytes from here."""
        self._image = image
        self._bytes = 0
        self._due = None
        self._taken_offset = image.offset

    async def _run(self) -> None:
        while True:
            await self._is_due.wait(self._interval_ms)
            self._is_due.reset()
            image, self._due = self._due or self._image, None
            if image.offset > self._taken_offset:
                await self._take_one(image)

    async def _take_one(self, image: MetadataImage) -> None:
        try:
            await self._take(image)
        except OverloadedError as error:
            log.warning("snapshot_not_taken", offset=image.offset, error=str(error), repeats=True)
            await asyncio.sleep(RETRY_MS / 1000)
            self._due = self._due or self._image
            self._is_due.ring()
        except StoppingError:
            pass  # the voter is stopping
        else:
            self._taken_offset = max(self._taken_offset, image.offset)
