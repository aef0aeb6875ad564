"""What a log has said durably of itself: how far it is synced, committed, and where it begins.

Three slot files. The rules that keep them true:

* `synced` moves only after a sync of the log has succeeded, and is itself synced before that sync
  returns. So at open a bad batch below it is corruption, and a bad one above it is a tail to cut.
  (An older value, after a power loss, would make a tail out of a damaged record that a majority
  counts on: docs/guarantees.md.)
* Before a cut below them, `synced` and `high-watermark` are lowered and synced.
* `log-start` is synced before segments at the start go: a log that begins above it has lost some.
"""

from __future__ import annotations

import asyncio

from quorate_quorum.log.directory import (
    HIGH_WATERMARK_FILE,
    LOG_START_FILE,
    SYNCED_FILE,
    Directory,
)
from quorate_quorum.log.disk_errors import done_without
from quorate_quorum.log.extent import Extent
from quorate_quorum.log.slots import SlotFile


class Checkpoints:
    """The slot files of one log, and the values of this moment, which may be newer."""

    def __init__(self, directory: Directory, extent: Extent) -> None:
        self._directory = directory
        self._extent = extent
        self.synced_slot = SlotFile(directory.disk, directory.file(SYNCED_FILE))
        self.high_watermark_slot = SlotFile(directory.disk, directory.file(HIGH_WATERMARK_FILE))
        self._start_slot = SlotFile(directory.disk, directory.file(LOG_START_FILE))
        self._slots = (self.synced_slot, self.high_watermark_slot, self._start_slot)
        #: Held while `synced` is written. A roll waits for a sync, so this can't be the writers'
        #: lock; a cut counts itself first, then waits for this: so no sync notes more than is left.
        self._writing_synced = asyncio.Lock()
        #: One past the last record that survived a sync that succeeded, as the slot says durably
        #: (of a log that was opened without track_synced: from the first sync on).
        self.synced_end = 0
        #: A lower bound from the slot; then whatever the owner sets.
        self.high_watermark = 0
        #: The leader_epoch under which high_watermark was learnt; -1 if none.
        self.hw_epoch = -1

    async def load(self) -> None:
        for slot in self._slots:
            await slot.load()

    async def close(self) -> None:
        for slot in self._slots:
            await slot.close()

    # `synced`: (end, epoch of the record before it)

    async def reserve_synced(self) -> None:
        """Take the room of the slot now: no acknowledgement is to fail for lack of it."""
        self._made(await self.synced_slot.reserve())

    async def note_synced(self, end: int, truncations: int, *, is_promise: bool) -> None:
        """Note a sync that began when `truncations` cuts had been counted.

        OSError if that fails. Where it is no promise the log does without, on a good disk: an older
        value is a lower bound.
        """
        async with self._writing_synced:
            if truncations != self._extent.truncations or end <= self.synced_end:
                return
            if is_promise:
                await self.advance_synced(end)
            else:
                with done_without("synced", self._directory.path):
                    await self.advance_synced(end)
            if truncations == self._extent.truncations:  # else the cut lowers the slot next
                self.synced_end = end

    async def save_synced(self) -> None:
        """Write `synced_end` once more, if possible."""
        async with self._writing_synced:
            with done_without("synced", self._directory.path):  # an older one is a lower bound
                await self.advance_synced(self.synced_end)

    async def advance_synced(self, end: int) -> None:
        made = await self.synced_slot.advance(end, self._extent.epoch_before(end))
        await self._made_durably(made)

    async def replace_synced(self, end: int) -> None:
        """Write `synced` for a log that starts again at `end`, if possible; it was lowered."""
        async with self._writing_synced:
            with done_without("synced", self._directory.path):
                await self._replace_synced(end)

    async def _replace_synced(self, end: int) -> None:
        """Write both slots durably: after a cut neither may promise what is gone."""
        made = await self.synced_slot.write(end, self._extent.epoch_before(end), sync=True)
        await self._made_durably(made)

    # `high-watermark`: (offset, epoch)

    async def save_high_watermark(self, offset: int, epoch: int, *, sync: bool = False) -> None:
        """Write a high watermark down, if possible: an older one is a lower bound."""
        with done_without("high watermark", self._directory.path):
            self._made(await self.high_watermark_slot.write(offset, epoch, sync=sync))

    # `log-start`

    @property
    def known_start(self) -> int:
        """Where the log begins at the latest."""
        return 0 if self._start_slot.value is None else self._start_slot.value[0]

    async def move_start(self, offset: int) -> None:
        """Durably: before segments at the start go, or after the log began again below them."""
        await self._made_durably(await self._start_slot.write(offset, -1, sync=True))

    # Cuts

    async def lower(self, end: int) -> None:
        """Before a cut: afterwards no slot may promise what is gone."""
        self.synced_end = min(self.synced_end, end)
        self.high_watermark = min(self.high_watermark, end)
        async with self._writing_synced:
            synced = self.synced_slot.value
            if synced is not None and synced[0] > end:
                await self._replace_synced(end)
        known = self.high_watermark_slot.value
        if known is not None and known[0] > end:
            await self.high_watermark_slot.write(end, known[1], sync=True)

    def must_be_lowered(self, end: int) -> bool:
        """Whether a slot promises more than a log up to `end` has, or did in its older half."""
        return any(
            slot.is_half_lowered or (slot.value is not None and slot.value[0] > end)
            for slot in (self.synced_slot, self.high_watermark_slot)
        )

    async def write_again(self) -> None:
        """What the slots say may not be synced yet: write them again, and sync them."""
        for slot in (self.synced_slot, self.high_watermark_slot):
            if slot.value is not None:
                await slot.write(*slot.value, sync=True)

    def _made(self, made: bool) -> None:
        if made:
            self._directory.changed()

    async def _made_durably(self, made: bool) -> None:
        if made:
            self._directory.changed()
            await self._directory.sync()
