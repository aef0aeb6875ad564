"""A small file that holds two numbers. It is overwritten in place, and never half written.

The file has two slots in two sectors, which are written in turn. Each slot has a sequence number
and a CRC. The newest good slot counts. So a write needs no rename: if it is torn, the other slot
still counts. checkpoints.py says which slot files a log has.
"""

from __future__ import annotations

import struct

from crc32c import crc32c

from quorate_quorum.disk import Disk, File, read_whole
from quorate_quorum.log.disk_errors import ReopenError

#: Each slot has one sector: a device writes a sector whole or not at all.
SLOT_BYTES = 512
VERSION = 1
SLOT = struct.Struct(
    ">"
    "4s"  # magic
    "I"  # version
    "Q"  # sequence: the greater is newer
    "q"  # offset
    "q"  # epoch
)
CRC = struct.Struct(">I")
_MAGIC = b"QSLT"


class SlotFile:
    """The slot file at one path. The first write makes the file.

    The file is closed after each write, because a broker has several slot files for every replica.
    It need not be synced before: a durable write writes all that it promises, and syncs it, before
    the file is closed. With `stays_open` the file stays open, for values that are written often.
    """

    def __init__(self, disk: Disk, path: str, *, stays_open: bool = False) -> None:
        self._disk = disk
        self._path = path
        self._stays_open = stays_open
        self._file: File | None = None
        self._sequence = 0
        #: (offset, epoch) as last read or written; None if no slot is whole.
        self.value: tuple[int, int] | None = None
        #: Whether the older slot has a higher offset, because a crash interrupted a lowering. The
        #: value must be written again.
        self.is_half_lowered = False
        #: Whether only one slot has the value. If so, the value may not be synced.
        self.is_half_written = False

    async def load(self) -> None:
        """Read the slots. ReopenError if a slot has an unknown version."""
        if not await self._disk.exists(self._path):
            return
        content = await read_whole(self._disk, self._path)
        slots: list[tuple[int, tuple[int, int]]] = []
        for position in (0, SLOT_BYTES):
            found = self._decode(content[position : position + SLOT.size + CRC.size])
            if found is not None:
                slots.append(found)
        if slots:
            self._sequence, self.value = max(slots)
            self.is_half_lowered = min(slots)[1][0] > self.value[0]
            self.is_half_written = len(slots) < 2 or min(slots)[1] != self.value

    async def is_damaged(self) -> bool:
        """Return whether the file is not as it was written. Nothing may write meanwhile."""
        if self.value is None or not await self._disk.exists(self._path):
            return False
        content = await read_whole(self._disk, self._path)
        size = SLOT.size + CRC.size
        slots = [content[position : position + size] for position in (0, SLOT_BYTES)]
        try:
            found = [self._decode(slot) for slot in slots]
        except ReopenError:
            return True
        is_bad = any(one is None and any(slot) for one, slot in zip(found, slots, strict=True))
        return is_bad or (self._sequence, self.value) not in found

    async def write(self, offset: int, epoch: int, *, sync: bool = False) -> bool:
        """Write the next slot; with `sync`, both, durably. Return whether the file was made."""
        file, made = await self._opened()
        if sync and self.is_half_written:
            # Perhaps the last run ended before it synced the slot that was read. Sync it first.
            # Otherwise a kill now could leave the value in both slots and neither of them synced,
            # and the next open would take it for durable.
            await file.sync()
            self.is_half_written = False
        await self._write_next(file, offset, epoch)
        if sync:
            # With both slots written, a failure of a later write can't bring back an older value.
            await file.sync()
            await self._write_next(file, offset, epoch)
            await file.sync()
        await self._rest()
        return made

    async def advance(self, offset: int, epoch: int, *, sync: bool = True) -> bool:
        """Write the next slot; with `sync`, durably. Return whether the file was made.

        One sync is enough for a value that never falls: after a torn write the other slot has a
        lower bound.
        """
        file, made = await self._opened()
        await self._write_next(file, offset, epoch)
        if sync:
            await file.sync()
        await self._rest()
        return made

    async def reserve(self) -> bool:
        """Make the file at its full size. Return whether it was made."""
        made = (await self._opened())[1]
        await self._rest()
        return made

    async def _rest(self) -> None:
        if not self._stays_open:
            await self.close()

    async def _opened(self) -> tuple[File, bool]:
        """Return the file, and whether it was made."""
        made = False
        if self._file is None:
            file = await self._disk.open(self._path, create=True)
            made = file.size < 2 * SLOT_BYTES
            if made:
                try:
                    await file.append((bytes(2 * SLOT_BYTES - file.size),))
                except BaseException:
                    await file.close()
                    raise
            self._file = file
        return self._file, made

    async def _write_next(self, file: File, offset: int, epoch: int) -> None:
        sequence = self._sequence + 1
        body = SLOT.pack(_MAGIC, VERSION, sequence, offset, epoch)
        data = body + CRC.pack(crc32c(body))
        await file.overwrite(sequence % 2 * SLOT_BYTES, data)
        self._sequence = sequence
        self.value = (offset, epoch)

    @property
    def path(self) -> str:
        return self._path

    async def close(self) -> None:
        if self._file is not None:
            await self._file.close()
            self._file = None

    def _decode(self, data: bytes) -> tuple[int, tuple[int, int]] | None:
        if len(data) < SLOT.size + CRC.size:
            return None
        body = data[: SLOT.size]
        magic, version, sequence, offset, epoch = SLOT.unpack(body)
        if magic != _MAGIC or CRC.unpack(data[SLOT.size :])[0] != crc32c(body):
            return None
        if version != VERSION:
            raise ReopenError(
                f"{self._path} has version {version}; this program knows {VERSION}: "
                "start the newer program that wrote it"
            )
        return sequence, (offset, epoch)
