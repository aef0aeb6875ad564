"""The checkpoints of a log on disk: how far it is synced, how far committed, where it begins.

Each is a slot file. The rules that keep them true:

* `synced` moves only after a sync of the log has succeeded, and is itself synced before that sync
  returns. So at open a bad batch below it is corruption, and a bad one above it is a tail to cut.
  (If a power loss brought back an older value, an open would cut a damaged record as a tail,
  although a majority counts on it: docs/guarantees.md.)
* Before the log is cut below `synced` or `high-watermark`, these are lowered and synced.
* `cleaned` is how far compaction has come, with the epoch of the record before it. A lower value is
  safe: compaction does the rest again. A value that covers records of another history is not: a
  tombstone would go although an older record of its key is left. So a cut lowers it first.
* `log-start` is synced before records at the start are given up: a log whose first segment begins
  above it has lost some. It may lie inside the first segment.
"""

from __future__ import annotations

import asyncio

from quorate_quorum.log.directory import (
    CLEANED_FILE,
    HIGH_WATERMARK_FILE,
    LOG_START_FILE,
    SYNCED_FILE,
    Directory,
)
from quorate_quorum.log.disk_errors import done_without
from quorate_quorum.log.extent import Extent
from quorate_quorum.log.slots import SlotFile


class Checkpoints:
    """The slot files of one log, and the current values, which may be newer than the files."""

    def __init__(self, directory: Directory, extent: Extent) -> None:
        self._directory = directory
        self._extent = extent
        self.synced_slot = SlotFile(directory.disk, directory.file(SYNCED_FILE))
        self.high_watermark_slot = SlotFile(directory.disk, directory.file(HIGH_WATERMARK_FILE))
        self._start_slot = SlotFile(directory.disk, directory.file(LOG_START_FILE))
        self.cleaned_slot = SlotFile(directory.disk, directory.file(CLEANED_FILE))
        self._lowered = (self.synced_slot, self.high_watermark_slot, self.cleaned_slot)
        self._slots = (*self._lowered, self._start_slot)
        #: Held while `synced` is written. It can't be the writers' lock: a roll holds that while it
        #: waits for a sync. A cut first counts itself and then waits for this lock, so that no sync
        #: notes records that the cut removes.
        self._writing_synced = asyncio.Lock()
        #: One past the last record that a successful sync covered. The slot holds it durably; in a
        #: log that was opened without track_synced, only after the first sync.
        self.synced_end = 0
        #: The slot's value at first, which is a lower bound; later the value that the owner sets.
        self.high_watermark = 0
        #: The leader_epoch in which high_watermark was learnt; -1 if there is none.
        self.hw_epoch = -1

    async def load(self) -> None:
        for slot in self._slots:
            await slot.load()

    async def close(self) -> None:
        for slot in self._slots:
            await slot.close()

    # `synced`: (end, epoch of the record before it)

    async def reserve_synced(self) -> None:
        """Make the slot file now, so that no acknowledgement fails later for lack of room."""
        self._made(await self.synced_slot.reserve())

    async def note_synced(self, end: int, truncations: int, *, is_promise: bool) -> None:
        """Note a sync that began when `truncations` cuts had been counted.

        OSError if that fails. Unless `is_promise`, only an error of the disk itself is raised: the
        older value stays, and it is a valid lower bound.
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
        """Write `synced` for a log that starts again at `end`, if possible.

        The caller lowered it before, so an older value is safe too.
        """
        async with self._writing_synced:
            with done_without("synced", self._directory.path):
                await self._replace_synced(end)

    async def _replace_synced(self, end: int) -> None:
        """Write both slots durably: after a cut neither may cover records that are gone."""
        made = await self.synced_slot.write(end, self._extent.epoch_before(end), sync=True)
        await self._made_durably(made)

    # `high-watermark`: (offset, epoch)

    async def save_high_watermark(self, offset: int, epoch: int, *, sync: bool = False) -> None:
        """Write a high watermark, if possible: an older one is still a lower bound."""
        with done_without("high watermark", self._directory.path):
            self._made(await self.high_watermark_slot.write(offset, epoch, sync=sync))

    # `log-start`

    @property
    def known_start(self) -> int:
        """Where the log begins. An undamaged log has a segment that begins there or below."""
        return 0 if self._start_slot.value is None else self._start_slot.value[0]

    @property
    def moving_to(self) -> int:
        """While the log begins again elsewhere: the higher one of the old and the new start.

        Its first segment may then begin as high. -1: no such move was under way.
        """
        return -1 if self._start_slot.value is None else self._start_slot.value[1]

    async def reserve_start(self) -> None:
        """Make the slot file now, so that records can be deleted when the disk is full."""
        self._made(await self._start_slot.reserve())

    async def move_start(self, offset: int) -> None:
        """Write `log-start` durably, before anything below it is removed."""
        await self._made_durably(await self._start_slot.write(offset, -1, sync=True))

    async def begin_move(self, old: int, new: int) -> None:
        """Note durably that the only, empty segment is renamed from one start to another.

        A crash leaves one of the two names, and both must be right.
        """
        low, high = sorted((old, new))
        await self._made_durably(await self._start_slot.write(low, high, sync=True))

    async def settle_start(self, offset: int) -> None:
        """At open: make the start durable where a crash interrupted its change."""
        if self._start_slot.is_half_written or self.moving_to >= 0:
            await self.move_start(offset)

    # `cleaned`: (offset, epoch of the record before it)

    @property
    def cleaned_end(self) -> int:
        """All below was compacted; 0 if that is not known."""
        offset, epoch = self.cleaned_slot.value or (0, -1)
        is_ours = offset <= self._extent.end and epoch == self._extent.epoch_before(offset)
        return offset if is_ours else 0

    async def save_cleaned(self, offset: int) -> None:
        made = await self.cleaned_slot.advance(offset, self._extent.epoch_before(offset))
        await self._made_durably(made)

    async def lower_cleaned(self, end: int) -> None:
        known = self.cleaned_slot.value
        if known is not None and known[0] > end:
            await self.cleaned_slot.write(end, known[1], sync=True)

    # Cuts

    async def lower(self, end: int) -> None:
        """Lower the slots to `end`, before a cut: no slot may cover what the cut removes.

        The caller sets `high_watermark`: it must not go back in a log that begins again further on.
        """
        self.synced_end = min(self.synced_end, end)
        async with self._writing_synced:
            synced = self.synced_slot.value
            if synced is not None and synced[0] > end:
                await self._replace_synced(end)
        await self.lower_cleaned(end)
        known = self.high_watermark_slot.value
        if known is not None and known[0] > end:
            await self.high_watermark_slot.write(end, known[1], sync=True)

    def know_nothing_above(self, offset: int) -> bool:
        """Whether no slot says that there was a record at or above `offset`."""
        slots = (self.synced_slot.value, self.high_watermark_slot.value)
        return all(slot is None or slot[0] <= offset for slot in slots)

    def must_be_lowered(self, end: int) -> bool:
        """Whether a slot is above `end`, or a lowering of it was interrupted half way."""
        return any(
            slot.is_half_lowered or (slot.value is not None and slot.value[0] > end)
            for slot in self._lowered
        )

    async def write_again(self) -> None:
        """Write the slots again and sync them: the values that were read may not be synced yet."""
        for slot in self._lowered:
            if slot.value is not None:
                await slot.write(*slot.value, sync=True)

    def _made(self, made: bool) -> None:
        if made:
            self._directory.changed()

    async def _made_durably(self, made: bool) -> None:
        if made:
            self._directory.changed()
            await self._directory.sync()
