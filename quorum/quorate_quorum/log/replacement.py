"""Replaces segments by one compacted segment. A crash leaves the old ones or the new one.

The compactor has written the batches to `B.log.cleaned` and synced that file. B is the base offset
of the first segment. Every step is durable before the next one begins:

    1  `compacted`              the marker: batches may leave gaps
    2  `B.checksum.swap`        the new checksum file
    3  `B.log.swap`             B.log.cleaned renamed: from here on the new segment counts
    4  the old segments go      all files of those after B; of B its indexes
    5  `B.checksum`             B.checksum.swap renamed
    6  `B.log`                  B.log.swap renamed, which replaces the old one

An open that finds `B.log.swap` does steps 4 to 6 again. It removes every other file that ends with
`.cleaned` or `.swap`. Snapshots of producers' states stay: they are right for the old and the new
segments.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from quorate_quorum.disk import replace_whole
from quorate_quorum.log.checksum import SegmentChecksum, checksum_of, difference
from quorate_quorum.log.directory import Directory
from quorate_quorum.log.guard import LogCorruptError
from quorate_quorum.log.parts import Parts
from quorate_quorum.log.reader import Reader
from quorate_quorum.log.segment import (
    CHECKSUM,
    INDEX,
    LOG,
    TIME_INDEX,
    Segment,
    file_name,
    offset_of,
)

CLEANED, SWAP = ".cleaned", ".swap"
_INDEXES = (INDEX, TIME_INDEX)


class Replacer:
    """Replaces segments of one open log. The caller holds Guard.exclusive."""

    def __init__(self, parts: Parts, reader: Reader) -> None:
        self._parts = parts
        self._directory = parts.directory
        self._segments = parts.segments
        self._reader = reader

    async def prepare(self, new: SegmentChecksum) -> None:
        """Do step 2, while appends go on. Raises OSError, and leaves the log as it was."""
        path = self._directory.file(file_name(new.base_offset, CHECKSUM))
        await replace_whole(self._directory.disk, path + SWAP, new.encode())

    async def replace(self, new: SegmentChecksum) -> bool:
        """Replace the closed segments from new.base_offset to new.end_offset by the cleaned file.

        Returns False, and changes nothing, if the log does not have exactly these segments, or the
        file is not whole. Raises OSError.
        """
        async with self._segments.replacing:
            return await self._replace(new)

    async def abandon(self, base_offset: int) -> None:
        """Remove the files of a compacted segment that the log does not take."""
        disk = self._directory.disk
        for ending in (LOG + CLEANED, INDEX + CLEANED, TIME_INDEX + CLEANED, CHECKSUM + SWAP):
            path = self._directory.file(file_name(base_offset, ending))
            if await disk.exists(path):
                await disk.remove(path)

    async def _replace(self, new: SegmentChecksum) -> bool:
        old = self._old(new)
        path = self._directory.file(file_name(new.base_offset, LOG))
        disk = self._directory.disk
        if not old or not await disk.exists(path + CLEANED):
            return False
        if await disk.size(path + CLEANED) != new.size:
            return False
        await disk.rename(path + CLEANED, path + SWAP)
        self._parts.extent.is_changed = True
        self._directory.changed()
        await self._directory.sync()
        await finish(self._directory, new, [segment.base_offset for segment in old])
        segment = await self._segments.replace(old, new.base_offset)
        self._reader.forget_older()
        for one in old:
            await one.file.close()
        assert segment.size == new.size, (segment.size, new.size)
        return True

    def _old(self, new: SegmentChecksum) -> list[Segment]:
        """Return the segments that `new` replaces; empty if none begin and end as `new` does."""
        segments = self._segments
        found = [
            segment
            for segment in segments.all[:-1]
            if new.base_offset <= segment.base_offset < new.end_offset
        ]
        fits = (
            bool(found)
            and found[0].base_offset == new.base_offset
            and segments.end_of(found[-1]) == new.end_offset
        )
        return found if fits else []


async def finish(directory: Directory, new: SegmentChecksum, bases: list[int]) -> None:
    """Do steps 4 to 6. `bases` are the base offsets of old segments that may still exist."""
    disk = directory.disk
    for base in bases:
        endings = _INDEXES if base == new.base_offset else (LOG, *_INDEXES, CHECKSUM)
        for ending in endings:
            path = directory.file(file_name(base, ending))
            if await disk.exists(path):
                await disk.remove(path)
    await _sync(directory)
    for ending in _INDEXES:  # need not be durable: an open does this step again
        path = directory.file(file_name(new.base_offset, ending))
        if await disk.exists(path + CLEANED):
            await disk.rename(path + CLEANED, path)
    for ending in (CHECKSUM, LOG):
        path = directory.file(file_name(new.base_offset, ending))
        if await disk.exists(path + SWAP):
            await disk.rename(path + SWAP, path)
        await _sync(directory)


async def recover(
    directory: Directory, mark_damaged: Callable[[str], Awaitable[None]] | None
) -> None:
    """Complete or undo the replacement that a crash interrupted.

    LogCorruptError if the new segment is bad. A salvage gives `mark_damaged`: it is called with
    what is wrong, durably, and then the new segment is removed.
    """
    disk = directory.disk
    names = await disk.list(directory.path)
    for name in names:
        base = offset_of(name, LOG + SWAP)
        if base is None:
            continue
        path = directory.file(file_name(base, CHECKSUM))
        new = await checksum_of(disk, path + SWAP) or await checksum_of(disk, path)
        fault = await _fault(directory, base, new)
        if new is None or fault is not None:
            fault = fault or f"{directory.file(name)} has no checksum file"
            if mark_damaged is None:
                raise LogCorruptError(
                    f"{fault}. Take the disk out of service and let the replica be fetched again"
                )
            await mark_damaged(fault)
            await disk.remove(directory.file(name))
            return
        found = (offset_of(one, LOG) for one in names)
        bases = sorted(one for one in found if one is not None and base <= one < new.end_offset)
        await finish(directory, new, bases)
    for name in names:
        is_new = name.endswith((CLEANED, CHECKSUM + SWAP))
        if is_new and await directory.has(name):
            await disk.remove(directory.file(name))


async def _fault(directory: Directory, base: int, new: SegmentChecksum | None) -> str | None:
    """Return how a `.log.swap` file differs from its checksum; None if it fits, or has none.

    The file was synced, so any difference is damage.
    """
    if new is None:
        return None
    disk, path = directory.disk, directory.file(file_name(base, LOG) + SWAP)
    file = await disk.open(path)
    try:
        segment = Segment(disk, directory.path, base, file, 0)
        return await difference(segment, new)
    finally:
        await file.close()


async def _sync(directory: Directory) -> None:
    directory.changed()
    await directory.sync()
