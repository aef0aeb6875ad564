"""The inventory: which replicas were ever written in a log directory.

A replica whose directory is gone looks like one that was never written, and its empty log could be
elected. So the broker notes the first append of a replica here, durably and outside of the
replica's own directory, before it acknowledges the append. Each log directory has one inventory
file. It consists of slots (BODY, CRC, end mark) that are written once:

* Slots are made before the append, as zeros. So the note can be written even on a full disk.
* The last slot is always free. So the end of the file shows whether the file was cut or emptied.
* A slot without its end mark is a write that a crash interrupted. It is ignored.
* Any other bad slot is damage. A file that was cut or is gone is damage, too. After damage, every
  replica that is placed here and has no log counts as lost.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable

import structlog
from crc32c import crc32c

from quorate_broker.replica.replica import Key
from quorate_quorum.disk import Disk, File, read_whole, replace_whole
from quorate_quorum.log.disk_errors import done_without, storage_error

log = structlog.get_logger(__name__)

FILE_NAME = "replicas"
BODY = struct.Struct(
    ">"
    "3s"  # magic: the file type and its version
    "c"  # kind. W: the replica was written. F: it counts as not written again
    "16s"  # topic id
    "i"  # partition
)
CRC = struct.Struct(">I")
MAGIC = b"QR1"
WRITTEN, FORGOTTEN = b"W", b"F"
END_MARK = b"\xa5\xa5\xa5\xa5"
SLOT_BYTES = BODY.size + CRC.size + len(END_MARK)
#: When the file grows, it grows by this many slots or more.
SLOTS_ADDED = 128
#: The file is written anew when more slots than this are out of date.
STALE_MAX = 10_000


class Inventory:
    """The inventory of one log directory. Make it with `Inventory.open`.

    Invariant: each key in `_written` is in a slot that was synced.
    """

    def __init__(self, disk: Disk, directory: str) -> None:
        self._disk = disk
        self._path = f"{directory}/{FILE_NAME}"
        self._file: File | None = None
        self._written: dict[Key, None] = {}
        #: The number of used slots, and the number of all slots of the file.
        self._used = self._made = 0
        #: The entries of the next write. Callers that wait at the same time share one sync.
        self._pending: list[tuple[bytes, Key]] = []
        #: The number of slots that make_room has reserved for appends under way.
        self._promised = 0
        self._writing = asyncio.Lock()
        #: Why the file does not prove which replicas were written; empty if it does.
        self.damaged = ""

    @classmethod
    async def open(
        cls, disk: Disk, directory: str, placed: Iterable[Key], *, has_run: bool
    ) -> Inventory:
        """Read the file, and write it anew.

        The new file has only replicas that the image places there now (`placed`). `has_run`: a
        broker ran on this directory before, so the file must exist. If the file is damaged, all
        placed replicas count as written. If there is no room for a new file, the old one stays.
        Raises OSError.
        """
        opened = cls(disk, directory)
        await opened._read(has_run=has_run)
        kept = placed
        if opened.damaged:
            log.error("inventory_damaged", path=opened._path, reason=opened.damaged)
        else:
            kept = [key for key in placed if key in opened._written]
        opened._written = dict.fromkeys(kept)
        with done_without("a new inventory", directory):
            await opened._write_whole()
        return opened

    def has(self, key: Key) -> bool:
        """Return whether a replica was written here.

        If the file was damaged, this is True for every replica that was placed here at the start.
        """
        return key in self._written

    def is_sure_of(self, key: Key) -> bool:
        """Return whether it is certain that a replica was written here.

        A damaged file proves nothing.
        """
        return key in self._written and not self.damaged

    async def make_room(self) -> None:
        """Reserve a slot for the note of a first append. Raises TryAgainError or StorageError."""
        self._promised += 1
        if self._made - self._used > self._promised:
            return
        try:
            async with self._writing:
                await self._make_slots(self._promised)
        except OSError as error:
            self._promised -= 1
            raise storage_error(self._path, error, nothing_done=True) from error

    async def note(self, key: Key) -> None:
        """Note durably that a replica was written here. Raises StorageError."""
        self._promised = max(self._promised - 1, 0)
        if key not in self._written:
            await self._say(WRITTEN, key)

    async def forget(self, key: Key) -> None:
        """Note durably that a replica counts as not written, because its loss was reported."""
        if key in self._written:
            await self._say(FORGOTTEN, key)

    async def close(self) -> None:
        if self._file is not None:
            await self._file.close()
            self._file = None

    # internals

    async def _say(self, kind: bytes, key: Key) -> None:
        entry = (kind, key)
        self._pending.append(entry)
        try:
            async with self._writing:
                # if the entry is not there, an earlier caller has written it together with its own
                if entry in self._pending:
                    await self._write_pending()
        except OSError as error:
            raise storage_error(self._path, error) from error

    async def _write_pending(self) -> None:
        pending, self._pending = self._pending, []
        try:
            # make slots for the FORGOTTEN entries, which have no reserved slots
            await self._make_slots(len(pending))
            file = await self._opened()
            data = b"".join(_encode(kind, key) for kind, key in pending)
            await file.overwrite(self._used * SLOT_BYTES, data)
            self._used += len(pending)
            await file.sync()
        except BaseException:
            # keep the entries: the callers that still wait write them again
            self._pending = pending + self._pending
            raise
        for kind, key in pending:
            _take(self._written, kind, key)
        if self._used > STALE_MAX + 2 * len(self._written):
            with done_without("a shorter inventory", self._path):
                await self._write_whole()

    async def _make_slots(self, needed: int) -> None:
        """Make slots if fewer than `needed` are free. The last slot does not count.

        The new slots are synced before any of them is used.
        """
        missing = self._used + needed + 1 - self._made
        if missing > 0:
            file = await self._opened()
            count = max(missing, SLOTS_ADDED)
            await file.append((bytes(count * SLOT_BYTES),))
            await file.sync()
            self._made += count

    async def _opened(self) -> File:
        if self._file is None:
            self._file = await self._disk.open(self._path, create=True)
        return self._file

    async def _read(self, *, has_run: bool) -> None:
        if not await self._disk.exists(self._path):
            if has_run:
                self.damaged = "it is gone"
            return
        content = await read_whole(self._disk, self._path)
        self._written, self.damaged = decode(content)
        self._used = self._made = -(-len(content) // SLOT_BYTES)

    async def _write_whole(self) -> None:
        data = b"".join(_encode(WRITTEN, key) for key in self._written)
        slots = len(self._written) + SLOTS_ADDED + 1
        await replace_whole(self._disk, self._path, data.ljust(slots * SLOT_BYTES, b"\0"))
        self._used, self._made = len(self._written), slots
        # close the old file, which the new one has replaced
        await self.close()


def decode(content: bytes) -> tuple[dict[Key, None], str]:
    """Return the written replicas in a file, and why the file is damaged; "" if it is not."""
    written: dict[Key, None] = {}
    whole = len(content) // SLOT_BYTES * SLOT_BYTES
    last, amid = content[:whole][-SLOT_BYTES:], content[whole:]
    # A crash while slots are made leaves zeros after the last whole slot: these are no damage.
    # Other bytes there mean that the file was cut.
    is_cut = not last or any(last) or any(amid)
    damaged = f"it was cut, at byte {len(content)} or before" if is_cut else ""
    content = content[:whole]
    for start in range(0, len(content), SLOT_BYTES):
        slot = content[start : start + SLOT_BYTES]
        if slot[-1] == 0:
            continue
        found = _decode(slot)
        if found is None:
            damaged = f"the slot at byte {start} is bad"
        else:
            _take(written, *found)
    return written, damaged


def _take(written: dict[Key, None], kind: bytes, key: Key) -> None:
    if kind == WRITTEN:
        written[key] = None
    else:
        written.pop(key, None)


def _encode(kind: bytes, key: Key) -> bytes:
    body = BODY.pack(MAGIC, kind, *key)
    return body + CRC.pack(crc32c(body)) + END_MARK


def _decode(slot: bytes) -> tuple[bytes, Key] | None:
    body = slot[: BODY.size]
    if CRC.unpack_from(slot, BODY.size)[0] != crc32c(body) or not slot.endswith(END_MARK):
        return None
    magic, kind, topic_id, partition = BODY.unpack(body)
    return (kind, (topic_id, partition)) if magic == MAGIC else None
