"""Cuts a replica's log at its first bad batch, in two steps: tell what would be lost, then cut.

A broker does the same by itself as soon as other replicas have what is lost. This is for an
operator who decides it without them, for example for the only copy of a partition.

The cut bytes are kept beside the replica, under names that no node reads. The cut leaves the marker
`damaged`: the broker tells the controller of the loss before anything trusts the replica again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quorate.errors import CorruptRecordError
from quorate.record.batch import HEADER_BYTES, parse_header
from quorate_broker.files.replica_files import DAMAGED
from quorate_quorum.disk import Disk, File
from quorate_quorum.log.config import LogConfig
from quorate_quorum.log.directory import COMPACTED_FILE
from quorate_quorum.log.log import Log
from quorate_quorum.log.parts import Parts
from quorate_quorum.log.replacement import SWAP
from quorate_quorum.log.scan import GoodEnd, Scan
from quorate_quorum.log.segment import LOG, RELATIVE_MAX, Segment, offset_of

_COPY_BYTES = 1 << 20


class NotRepairableError(ValueError):
    """The log can't be repaired by a cut. The text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What a cut would take from one log."""

    directory: str
    #: The file with the first bad batch, the batch's position, and what is wrong.
    file: str
    position: int
    what: str
    #: The records from `first` to below `end` would be lost. `end` is the highest offset that any
    #: file of the log names: there may have been more.
    first: int
    end: int
    #: All below had survived a sync. What lies above may be the torn end of the last write.
    synced_end: int
    #: (file name, position) of the bytes that are cut off: each file from that position on.
    cut: Sequence[tuple[str, int]]
    cut_bytes: int


async def find_loss(disk: Disk, directory: str) -> Loss | None:
    """Return what a cut of a log at its first bad batch would take; None if no batch is bad.

    Nothing is written. Raises NotRepairableError.
    """
    names = await disk.list(directory)
    bases = sorted(base for name in names if (base := offset_of(name, LOG)) is not None)
    if any(name.endswith(LOG + SWAP) for name in names):
        raise NotRepairableError(
            f"{directory}: a compaction was under way when the node stopped; its next start"
            " finishes or undoes that"
        )
    if not bases:
        return None
    parts = Parts(disk, directory, LogConfig(verify_all=True))
    try:
        parts.extent.has_gaps = COMPACTED_FILE in names
        for base in bases:
            await parts.segments.open(base)
        await parts.checkpoints.load()
        parts.extent.start = max(bases[0], parts.checkpoints.known_start)
        synced, _ = parts.checkpoints.synced_slot.value or (0, -1)
        scan = Scan(parts.segments, parts.extent, None, bases[0], disk, synced, is_salvage=True)
        return await _loss(parts, await scan.run(0, 0))
    finally:
        await parts.close()


async def _loss(parts: Parts, good: GoodEnd) -> Loss | None:
    segments, checkpoints = parts.segments, parts.checkpoints
    slots = (checkpoints.synced_slot.value, checkpoints.high_watermark_slot.value)
    ends = [value[0] for value in slots if value is not None]
    synced_end = 0 if slots[0] is None else slots[0][0]
    assert good.offset is not None
    first = parts.extent.end_behind(good.offset, max(ends, default=0))
    if good.bad is None:
        if max(ends, default=0) <= first:
            return None
        last = segments.all[-1]
        what = f"its last batch ends at offset {first}, and {max(ends)} was written"
        path, end = parts.directory.path, max(ends)
        return Loss(path, last.file.path, last.size, what, first, end, synced_end, (), 0)
    cut = [(segments.all[good.at], good.position)]
    cut += [(segment, 0) for segment in segments.all[good.at + 1 :]]
    for segment, position in cut:
        ends.append(await _last_end(segment, position))
    return Loss(
        parts.directory.path,
        cut[0][0].file.path,
        good.position,
        good.bad,
        first,
        max(*ends, first),
        synced_end,
        [(segment.file.path.rpartition("/")[2], position) for segment, position in cut],
        sum(segment.size - position for segment, position in cut),
    )


async def _last_end(segment: Segment, position: int) -> int:
    """Return the highest end of a batch from `position` on, as far as headers lead; else 0."""
    end = segment.base_offset
    while position + HEADER_BYTES <= segment.size:
        try:
            header = parse_header(await segment.file.read_at(position, HEADER_BYTES))
        except CorruptRecordError:
            break
        is_near = 0 <= header.end_offset - segment.base_offset <= RELATIVE_MAX + 1
        if header.size < HEADER_BYTES or not is_near:
            break
        end = max(end, header.end_offset)
        position += header.size
    return end


def kept_beside(directory: str, now: str) -> str:
    """Return the directory in which the cut bytes of a log are kept. `now` is a time, as a word.

    >>> kept_beside("/data/t-0", "20260101T120000Z")
    '/data/t-0.20260101T120000Z.damaged'
    """
    return f"{directory}.{now}{DAMAGED}"


async def repair(disk: Disk, loss: Loss, kept: str) -> int:
    """Keep the bytes that are cut off in the new directory `kept`, then cut the log.

    Return the offset at which the log ends. Raises OSError or StorageError.
    """
    if loss.cut:
        await disk.make_directory(kept)
        for name, position in loss.cut:
            source = await disk.open(f"{loss.directory}/{name}")
            try:
                await _copy(disk, source, position, f"{kept}/{name}.from-byte-{position}")
            finally:
                await source.close()
        await disk.sync_directory(kept)
    log = await Log.open(disk, loss.directory, LogConfig(verify_all=True, salvage=True))
    end = log.log_end_offset
    await log.close(clean=True)
    return end


async def _copy(disk: Disk, source: File, position: int, path: str) -> None:
    target = await disk.open(path, create=True)
    try:
        while position < source.size:
            data = await source.read_at(position, min(_COPY_BYTES, source.size - position))
            await target.append((data,))
            position += len(data)
        await target.sync()
    finally:
        await target.close()
