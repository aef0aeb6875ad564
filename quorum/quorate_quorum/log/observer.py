"""State that follows the log, such as what producers have written, and its snapshots.

The state is built from the batches. A cut or an open restores the newest snapshot at or below the
log's end and shows the batches above it to the Observer. Snapshots are taken so often that few
batches are above the newest one. Old snapshots are removed, but enough stay that a deep cut still
finds one nearby. A snapshot's file is named by the offset at which the snapshot ends. The CRC shows
whether the snapshot is whole. The epoch of the record before that offset shows whether the snapshot
fits the present log. A reload ignores a snapshot that is not whole or does not fit: an older one
and more batches give the same state.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Container, Sequence
from typing import Protocol

from crc32c import crc32c

from quorate.record.batch import BatchHeader
from quorate_quorum.disk import Disk, read_whole, replace_whole
from quorate_quorum.log.segment import SNAPSHOT, file_name, offset_of

HEADER = struct.Struct(
    ">"
    "4s"  # magic
    "I"  # version
    "q"  # offset: the state includes all records below it
    "q"  # epoch of the record before it
    "I"  # crc: CRC-32C of the state, which follows
)
VERSION = 1
_MAGIC = b"QSNP"


class Observer(Protocol):
    """State that follows the log: it is shown the header of each batch."""

    def observe(self, header: BatchHeader) -> None:
        """Take in the header of the next batch, which was appended or which a reload shows."""

    def reset(self) -> None:
        """Forget everything, because a reload follows."""

    def snapshot(self) -> bytes:
        """Return the state as bytes."""

    def restore(self, data: bytes) -> None:
        """Take over a snapshot's state.

        If `data` is not a snapshot, raise CorruptRecordError and keep the empty state.
        """


def unpack(content: bytes) -> tuple[int, int, bytes] | None:
    """Return (offset, epoch before it, state) of a file; None if damaged or of another version."""
    if len(content) < HEADER.size:
        return None
    magic, version, offset, epoch, crc = HEADER.unpack_from(content)
    state = content[HEADER.size :]
    is_ours = (magic, version, crc) == (_MAGIC, VERSION, crc32c(state))
    return (offset, epoch, state) if is_ours else None


def superfluous(offsets: Sequence[int], end: int) -> list[int]:
    """Return the snapshots that can be removed. Those that stay are wider apart the older they are.

    The distance between two snapshots that stay is at most their distance to `end`. So of n
    snapshots about log2(n) stay, and after a cut of the last d offsets a reload shows about d
    offsets more.

    >>> superfluous([10, 20, 30, 40, 50, 60, 70, 80], end=80)
    [20, 30, 50]
    """
    found: list[int] = []
    kept: list[int] = []
    for offset in reversed(offsets):
        while len(kept) > 1 and kept[-2] - offset <= end - kept[-2]:
            found.append(kept.pop())
        kept.append(offset)
    return sorted(found)


class ObserverSnapshots:
    """The snapshots in one log's directory. No method syncs what it changes."""

    def __init__(self, disk: Disk, directory: str) -> None:
        self._disk = disk
        self._directory = directory

    async def offsets(self) -> list[int]:
        """Return the offsets of the snapshots, in order."""
        if not await self._disk.exists(self._directory):
            return []
        names = await self._disk.list(self._directory)
        return sorted(o for o in (offset_of(name, SNAPSHOT) for name in names) if o is not None)

    async def write(self, offset: int, epoch: int, state: bytes) -> None:
        """Write a snapshot. Raises OSError."""
        header = HEADER.pack(_MAGIC, VERSION, offset, epoch, crc32c(state))
        await replace_whole(self._disk, self._path(offset), header + state, sync=False)

    async def read(self, offset: int) -> tuple[int, bytes] | None:
        """Return (epoch before `offset`, state) of a snapshot; None if it is damaged."""
        found = unpack(await read_whole(self._disk, self._path(offset)))
        return None if found is None or found[0] != offset else found[1:]

    async def remove_damaged(self, epoch_before: Callable[[int], int]) -> tuple[int, list[int]]:
        """Remove damaged snapshots. Return the bytes that were read, and the removed offsets.

        `epoch_before` returns the epoch of the record before an offset; -1 if it is not known.
        """
        size, removed = 0, []
        for offset in await self.offsets():
            content = await read_whole(self._disk, self._path(offset))
            size += len(content)
            found = unpack(content)
            epoch = epoch_before(offset)
            if found is None or found[0] != offset or (epoch >= 0 and found[1] != epoch):
                await self._disk.remove(self._path(offset))
                removed.append(offset)
        return size, removed

    async def remove_above(self, end: int) -> bool:
        """Remove the snapshots above `end`. Return whether there were any."""
        above = [offset for offset in await self.offsets() if offset > end]
        for offset in above:
            await self._disk.remove(self._path(offset))
        return bool(above)

    async def thin(self, start: int, end: int, kept: Container[int]) -> None:
        """Remove the snapshots that a log from `start` to `end` does not need.

        Snapshots at the offsets in `kept`, the base offsets of segments, stay.
        """
        offsets = [offset for offset in await self.offsets() if offset not in kept]
        below = [offset for offset in offsets if offset < start]
        for offset in below + superfluous(offsets[len(below) :], end):
            await self._disk.remove(self._path(offset))

    def _path(self, offset: int) -> str:
        return f"{self._directory}/{file_name(offset, SNAPSHOT)}"
