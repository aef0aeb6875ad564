"""When a voter takes snapshots by itself: each for itself, from the image that it has committed.

So many bytes of the log after the last one, or so long after it if anything was committed since.
Bytes are counted from the last snapshot's end, batch by batch, and the image is that of the batch
which fills the measure: voters that began alike take the same snapshots, and a download from one
goes on at another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from quorate.errors import OverloadedError, StoppingError
from quorate_quorum.metadata.image import EMPTY, MetadataImage

log = structlog.get_logger(__name__)

#: Until the next try after one found no room on the disk.
RETRY_MS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotConfig:
    """When the next one is due."""

    bytes_between: int = 20 * 2**20
    interval_ms: int = 3_600_000


class Snapshotting:
    """`applied` and `loaded` follow the image; `take` writes one, or finds one as new there."""

    def __init__(
        self,
        take: Callable[[MetadataImage], Awaitable[object]],
        config: SnapshotConfig,
        fail: Callable[[str], None],
    ) -> None:
        self._take = take
        self._config = config
        self._fail = fail
        self._image = EMPTY
        #: Bytes of the log since the last snapshot was due.
        self._bytes = 0
        self._due: MetadataImage | None = None
        self._taken_offset = 0
        self._is_due = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Start the task; its failure is the node's."""
        self._task = asyncio.create_task(self._run(), name="snapshotting")
        self._task.add_done_callback(self._ended)

    async def stop(self) -> None:
        """End it. Safe to call twice, and before `begin`."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def applied(self, image: MetadataImage, size: int) -> None:
        """A batch of so many bytes was applied; it led to this image."""
        self._image = image
        self._bytes += size
        if self._bytes >= self._config.bytes_between:
            self._bytes = 0
            self._due = image
            self._is_due.set()

    def loaded(self, image: MetadataImage) -> None:
        """A snapshot led to this image: what follows is counted from here."""
        self._image = image
        self._bytes = 0
        self._due = None
        self._taken_offset = image.offset

    async def _run(self) -> None:
        while True:
            try:
                await asyncio.wait_for(self._is_due.wait(), self._config.interval_ms / 1000)
            except TimeoutError:
                self._due = self._image
            self._is_due.clear()
            image, self._due = self._due, None
            if image is not None and image.offset > self._taken_offset:
                await self._take_one(image)

    async def _take_one(self, image: MetadataImage) -> None:
        try:
            await self._take(image)
        except OverloadedError as error:
            log.warning("snapshot_not_taken", offset=image.offset, error=str(error), repeats=True)
            await asyncio.sleep(RETRY_MS / 1000)
            self._due = self._due or self._image
            self._is_due.set()
        except StoppingError:
            pass  # nothing follows any more
        else:
            self._taken_offset = max(self._taken_offset, image.offset)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(f"taking snapshots failed: {error!r}")
