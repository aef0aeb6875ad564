"""The checkpoints of a log on disk: how far it is synced, how far committed, where it begins.

Each checkpoint is a slot file. These rules keep them true:

* `synced` moves only after a sync of the log has succeeded, and is itself synced before that sync
  returns. So at open, a bad batch below `synced` means corruption, and a bad batch above it is a
  tail to cut. If a power loss could bring back an older value, an open would cut a damaged record
  that a majority counts on (docs/guarantees.md).
* Before the log is cut below `synced` or `high-watermark`, both values are lowered and synced.
* `cleaned` is how far compaction has come, with the epoch of the record before it. A lower value is
  safe: compaction does that part again. A value that covers records of another history is not
  safe: a tombstone could be removed while an older record of its key is left. So a cut lowers
  `cleaned` first.
* `log-start` is synced before records at the start are removed. A log whose first segment begins
  above `log-start` has lost records. `log-start` may lie inside the first segment.
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

    def __init__(self, directory: Directory, extent: Extent, *, track_synced: bool) -> None:
        self._directory = directory
        self._extent = extent
        self.synced_slot = SlotFile(
            directory.disk, directory.file(SYNCED_FILE), stays_open=track_synced
        )
        self.high_watermark_slot = SlotFile(directory.disk, directory.file(HIGH_WATERMARK_FILE))
        self._start_slot = SlotFile(directory.disk, directory.file(LOG_START_FILE))
        self.cleaned_slot = SlotFile(directory.disk, directory.file(CLEANED_FILE))
        self._lowered = (self.synced_slot, self.high_watermark_slot, self.cleaned_slot)
        self._slots = (*self._lowered, self._start_slot)
        #: Held while `synced` is written. It can't be Guard.exclusive, because a roll holds that
        #: while it waits for a sync. A cut first adds 1 to `truncations` and then waits for this
        #: lock, so that no sync notes records that the cut removes.
        self._writing_synced = asyncio.Lock()
        #: Whether the name of the slot file `synced` may be lost in a power loss.
        self._is_synced_slot_new = False
        #: One past the last record that a successful sync covered. The slot file holds this value
        #: durably. Exception: a log that was opened without track_synced, before its first sync.
        self.synced_end = 0
        #: At first the slot's value, which is a lower bound; later the value that the owner sets.
        self.high_watermark = 0
        #: The leader_epoch in which the owner learnt high_watermark; -1 if there is none.
        self.hw_epoch = -1

    async def load(self) -> None:
        for slot in self._slots:
            await slot.load()

    async def close(self) -> None:
        for slot in self._slots:
            await slot.close()

    # `synced`: (end, epoch of the record before it)

    async def reserve_synced(self) -> None:
        """Make the file of `synced` now, so that a full disk can't fail a later acknowledgement."""
        self._made(await self.synced_slot.reserve())

    async def note_synced(
        self, end: int, truncations: int, *, is_promise: bool, durably: bool = True
    ) -> None:
        """Note a sync that began when `truncations` cuts had been counted.

        With `is_promise`, every OSError of the write is raised. Without it, only an error for which
        the node must stop using the disk is raised. After any other error (such as a full disk) the
        older value stays, and is still a valid lower bound. Without `durably`, a power loss may
        bring back an older value.
        """
        async with self._writing_synced:
            if truncations != self._extent.truncations or end <= self.synced_end:
                return
            if is_promise:
                await self.advance_synced(end)
            else:
                with done_without("synced", self._directory.path):
                    await self.advance_synced(end, durably=durably)
            if truncations == self._extent.truncations:  # if not, a cut waits, and lowers the slot
                self.synced_end = end

    async def advance_synced(self, end: int, *, durably: bool = True) -> None:
        made = await self.synced_slot.advance(end, self._extent.epoch_before(end), sync=durably)
        self._is_synced_slot_new |= made
        if durably:
            await self._made_durably(self._is_synced_slot_new)
            self._is_synced_slot_new = False

    async def replace_synced(self, end: int) -> None:
        """Write `synced` for a log that begins again at `end`, if the disk takes it.

        The caller has lowered `synced` before, so its older value is safe, too.
        """
        async with self._writing_synced:
            with done_without("synced", self._directory.path):
                await self._replace_synced(end)

    async def _replace_synced(self, end: int) -> None:
        """Write both slots durably: after a cut, neither may cover records that are gone."""
        made = await self.synced_slot.write(end, self._extent.epoch_before(end), sync=True)
        await self._made_durably(made)

    # `high-watermark`: (offset, epoch)

    async def save_high_watermark(self, offset: int, epoch: int, *, sync: bool = False) -> None:
        """Write a high watermark. After a failure the older value stays, a valid lower bound."""
        with done_without("high watermark", self._directory.path):
            self._made(await self.high_watermark_slot.write(offset, epoch, sync=sync))

    # `log-start`

    @property
    def known_start(self) -> int:
        """The log's start. An undamaged log has a segment that begins at it or below it."""
        return 0 if self._start_slot.value is None else self._start_slot.value[0]

    @property
    def moving_to(self) -> int:
        """While the log moves to another start: the higher of the old and the new start; else -1.

        During such a move, the first segment may begin at any offset up to this one.
        """
        return -1 if self._start_slot.value is None else self._start_slot.value[1]

    async def reserve_start(self) -> None:
        """Make the file of `log-start` now, so that records can be deleted even on a full disk."""
        self._made(await self._start_slot.reserve())

    async def move_start(self, offset: int) -> None:
        """Write `log-start` durably. The caller removes what is below it only afterwards."""
        await self._write_start(offset, -1)

    async def begin_move(self, old: int, new: int) -> None:
        """Note durably that the only segment, which is empty, is renamed to another start.

        A crash leaves the old or the new name, and the next open must accept either.
        """
        low, high = sorted((old, new))
        await self._write_start(low, high)

    async def _write_start(self, offset: int, moving_to: int) -> None:
        """Write `log-start` durably: first the file's name, then the value.

        In the other order, a kill between the two would leave a start that the next run goes by,
        and that a power loss takes back: deleted records would be there again.
        """
        self._made(await self._start_slot.reserve())
        if self._directory.has_unsynced_names:
            await self._directory.sync()
        await self._start_slot.write(offset, moving_to, sync=True)

    async def settle_start(self, offset: int) -> None:
        """At open: if a crash interrupted a change of the start, make the start durable."""
        if self._start_slot.is_half_written or self.moving_to >= 0:
            await self.move_start(offset)

    # `cleaned`: (offset, epoch of the record before it)

    @property
    def cleaned_end(self) -> int:
        """The offset below which all records were compacted; 0 if it is not known."""
        if self.cleaned_slot.value is None:
            return 0
        offset, epoch = self.cleaned_slot.value
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
        """Lower the slots to `end` before a cut: no slot may cover what the cut removes.

        The caller sets the field `high_watermark`, which must not fall if the log begins again at a
        higher offset.
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
        """Return whether no slot says that there was a record at or above `offset`."""
        slots = (self.synced_slot.value, self.high_watermark_slot.value)
        return all(slot is None or slot[0] <= offset for slot in slots)

    def must_be_lowered(self, end: int) -> bool:
        """Return whether a slot is above `end`, or a crash interrupted the lowering of one."""
        return any(
            slot.is_half_lowered or (slot.value is not None and slot.value[0] > end)
            for slot in self._lowered
        )

    async def write_again(self) -> None:
        """Write the slots again and sync them: the values that were read may be unsynced."""
        for slot in self._lowered:
            if slot.value is not None:
                await slot.write(*slot.value, sync=True)

    async def mend(self) -> list[str]:
        """Write each damaged slot file again, from memory. Return the paths. Raises OSError."""
        async with self._writing_synced:
            damaged = [slot for slot in self._slots if await slot.is_damaged()]
            for slot in damaged:
                if slot.value is not None:
                    await slot.write(*slot.value, sync=True)
        return [slot.path for slot in damaged]

    def _made(self, made: bool) -> None:
        if made:
            self._directory.changed()

    async def _made_durably(self, made: bool) -> None:
        if made:
            self._directory.changed()
            await self._directory.sync()
