"""Reads one file of a node. The node may run.

Nothing is written, and no lock is taken.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from quorate.errors import CorruptRecordError
from quorate.record import batch as record_batch
from quorate.record.batch import BatchHeader
from quorate_broker.replica.producers import Producers as ProducerState
from quorate_quorum.disk import Disk, read_whole
from quorate_quorum.log import epochs as epoch_file
from quorate_quorum.log import observer
from quorate_quorum.log.segment import LOG, SNAPSHOT, Segment, offset_of
from quorate_quorum.log.slots import SLOT_BYTES, SlotFile
from quorate_quorum.log.torn import has_later_batch

#: Largest file that is read whole. An index of a 2 GiB segment is smaller, and so is a snapshot of
#: a million producers.
WHOLE_BYTES_MAX = 256 * 1024 * 1024


class DamagedError(Exception):
    """A file's content is wrong for its kind. The text says what is wrong."""


async def small_file(disk: Disk, path: str) -> bytes:
    """Return a whole file. Raise DamagedError if it is too large for a file of its kind."""
    size = await disk.size(path)
    if size > WHOLE_BYTES_MAX:
        raise DamagedError(f"it has {size} bytes; at most {WHOLE_BYTES_MAX} are possible")
    return await read_whole(disk, path)


async def open_segment(disk: Disk, path: str) -> Segment:
    """Open a segment's file. The caller must close `.file`."""
    directory, _, name = path.rpartition("/")
    base = offset_of(name, LOG)
    assert base is not None, name
    return Segment(disk, directory or ".", base, await disk.open(path), 0)


async def batches(segment: Segment) -> AsyncGenerator[tuple[int, BatchHeader, str | None], None]:
    """Yield (position, header, fault or None) of each batch that can be found.

    A batch with a wrong checksum is skipped: its header tells where the next batch begins. Raises
    CorruptRecordError if there is no header: then no further batch can be found.
    """
    position = 0
    while position < segment.size:
        chunk = await segment.scan(position, checked=True)
        for where, header in chunk.found:
            yield where, header, None
        position = chunk.position
        if chunk.bad is None:
            continue
        header = record_batch.parse_header(
            await segment.file.read_at(position, record_batch.HEADER_BYTES), begins_at=position
        )
        if position + header.size > segment.size:
            raise CorruptRecordError(
                f"a batch at byte {position} says {header.size} bytes, and "
                f"{segment.size - position} are left"
            )
        yield position, header, chunk.bad
        position += header.size


async def is_torn(segment: Segment, position: int, next_offset: int) -> bool:
    """Return whether the bad batch at `position` may be a write under way: no whole one follows.

    The node runs. If it has cut its log meanwhile, and written other batches, then the batch at
    `position` is good at a second look, or none begins there.
    """
    if not await has_later_batch(segment.file, position + 1, segment.size, next_offset):
        return True
    end = 0
    try:
        async with aclosing(batches(segment)) as found:
            async for where, header, wrong in found:
                if where >= position:
                    return where > position or wrong is None
                end = where + header.size
    except CorruptRecordError:
        return end != position
    return True


async def epochs_of(disk: Disk, path: str) -> epoch_file.EpochCache:
    """Return a leader-epoch checkpoint. Raise DamagedError if it is not whole."""
    found = epoch_file.decode(await small_file(disk, path))
    if found is None:
        raise DamagedError("it is not a whole leader-epoch checkpoint (version 1)")
    return found


async def slots_of(disk: Disk, path: str) -> tuple[int, int] | None:
    """Return the (offset, epoch) in a slot file; None before the first write to it.

    Raises DamagedError if neither slot is whole. One slot that a crash has torn is no damage,
    because the other slot counts.
    """
    size = await disk.size(path)
    if size != 2 * SLOT_BYTES and size > SLOT_BYTES * 4:
        raise DamagedError(f"it has {size} bytes, not {2 * SLOT_BYTES}")
    file = SlotFile(disk, path)
    await file.load()
    if file.value is None and any(await small_file(disk, path)):
        raise DamagedError("neither of its two slots is whole")
    return file.value


async def producer_snapshot(disk: Disk, path: str) -> tuple[int, int, bytes]:
    """Return (offset, epoch, state) of a snapshot of a partition's producers.

    Raises DamagedError or CorruptRecordError if the snapshot is not whole, or if its offset is not
    the one in its file name.
    """
    found = observer.unpack(await small_file(disk, path))
    if found is None:
        raise DamagedError("it is not a whole snapshot of producers (version 1)")
    if found[0] != offset_of(path.rpartition("/")[2], SNAPSHOT):
        raise DamagedError(f"it says offset {found[0]}, and is named by another")
    ProducerState().restore(found[2])
    return found
