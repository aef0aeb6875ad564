"""Snapshots of the metadata: a snapshot is one file that replaces the log below an offset.

The file `<offset>-<epoch>.snapshot` is in the metadata log's directory. It holds only record
batches v2 of MetadataEvents, so that any tool that reads segments can read it:

    batch 0      one SnapshotStart: the snapshot's offset, epoch, cluster and generation
    batches 1..  the events of the image
    last batch   one SnapshotEnd: the number of bytes before it, and their CRC-32C

In a snapshot, offsets count from 0, leader_epoch is the snapshot's, and timestamps are 0. So the
same image at the same offset gives the same bytes on every voter, and a download that began at one
leader can continue at the next. A file gets its final name only after all its bytes are durable, so
that a start after a crash never reads half a snapshot. While a snapshot is written or fetched, it
is a `.part` file, which no start reads.

This module knows disks, bytes and MetadataEvents. It does not know what an image is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing, suppress
from typing import NamedTuple

from crc32c import crc32c

from quorate.errors import CorruptRecordError, UnsupportedError
from quorate.record import batch as record_batch
from quorate.record import compression
from quorate.record.batch import BatchHeader
from quorate_quorum.disk import Buffer, Disk, File
from quorate_quorum.log.events import SNAPSHOT_ENDS, decode_events, encode_events
from quorate_quorum.v1.events_pb2 import MetadataEvent, SnapshotEnd, SnapshotStart

VERSION = 1
SUFFIX = ".snapshot"
PART_SUFFIX = ".part"
#: The suffixes of the part files of a written and of a fetched snapshot. They differ, because a
#: voter may do both at once.
WRITTEN_SUFFIX, FETCHED_SUFFIX = PART_SUFFIX, ".fetched" + PART_SUFFIX
#: A batch is closed at the event that makes it this large. One turn of the event loop decodes and
#: applies a batch: a few milliseconds of work.
BATCH_BYTES = 16 * 1024
#: The largest batch of a snapshot. One event is at most as large as an Outcome, so no batch is
#: larger. A larger size in a header means damage.
BATCH_BYTES_MAX = 8 * 1024 * 1024
#: The largest snapshot. A larger size from a peer is refused.
SNAPSHOT_BYTES_MAX = 4 * 1024**3
_READ_BYTES = 256 * 1024


class SnapshotId(NamedTuple):
    """The id of a snapshot of all records below `offset`. `epoch` is the epoch of the last one."""

    offset: int
    epoch: int


def file_name(snapshot: SnapshotId) -> str:
    """Return the name of a snapshot's file.

    >>> file_name(SnapshotId(42, 3))
    '00000000000000000042-0000000003.snapshot'
    """
    return f"{snapshot.offset:020d}-{snapshot.epoch:010d}{SUFFIX}"


def id_of(name: str) -> SnapshotId | None:
    """Return the id of the snapshot with that file name; None if the name is not a snapshot's.

    >>> id_of("00000000000000000042-0000000003.snapshot")
    SnapshotId(offset=42, epoch=3)
    >>> id_of("00000000000000000042.snapshot")  # a partition's: the state of its producers
    """
    stem = name.removesuffix(SUFFIX)
    offset, dash, epoch = stem.partition("-")
    if stem == name or not dash or not (offset + epoch).isascii():
        return None
    if (len(offset), len(epoch)) != (20, 10) or not (offset + epoch).isdigit():
        return None
    return SnapshotId(int(offset), int(epoch))


def id_of_part(name: str) -> SnapshotId | None:
    """Return the id of the snapshot with that part file; None if the name is not a part file's.

    >>> id_of_part("00000000000000000042-0000000003.snapshot.fetched.part")
    SnapshotId(offset=42, epoch=3)
    """
    if not name.endswith(PART_SUFFIX):
        return None
    return id_of(name.removesuffix(FETCHED_SUFFIX).removesuffix(WRITTEN_SUFFIX))


def path_of(directory: str, snapshot: SnapshotId) -> str:
    """Return the path of a snapshot's file."""
    return f"{directory}/{file_name(snapshot)}"


async def list_snapshots(disk: Disk, directory: str) -> list[SnapshotId]:
    """Return the whole snapshots of a metadata log, oldest first. OSError if the disk fails."""
    if not await disk.exists(directory):
        return []
    found = (id_of(name) for name in await disk.list(directory))
    return sorted(one for one in found if one is not None)


async def newest(disk: Disk, directory: str) -> SnapshotId | None:
    """Return the newest snapshot; None if there is none."""
    found = await list_snapshots(disk, directory)
    return found[-1] if found else None


async def remove_parts(disk: Disk, directory: str) -> None:
    """Remove the part files that a crash left behind."""
    if await disk.exists(directory):
        for name in await disk.list(directory):
            if SUFFIX + "." in name and name.endswith(PART_SUFFIX):
                await disk.remove(f"{directory}/{name}")


async def remove_older(disk: Disk, directory: str, snapshot: SnapshotId) -> None:
    """Remove every snapshot that is older than `snapshot`, oldest first; never the newest one."""
    found = await list_snapshots(disk, directory)
    for one in found[:-1]:
        if one < snapshot:
            await disk.remove(path_of(directory, one))


async def write_snapshot(
    disk: Disk, directory: str, start: SnapshotStart, events: Iterable[MetadataEvent]
) -> int:
    """Write a snapshot durably, under its final name. Return its size in bytes.

    `events` is read batch by batch, and other tasks run in between. OSError leaves at most a
    `.part` file.
    """
    assert start.version == VERSION, start.version
    snapshot = SnapshotId(start.offset, start.epoch)
    assert snapshot.offset > 0, snapshot
    assert snapshot.epoch >= 0, snapshot
    target = path_of(directory, snapshot)
    part = await new_part(disk, target + WRITTEN_SUFFIX)
    try:
        offset = size = crc = 0
        for batch in _batches(start, events):
            data = encode_events(batch, base_offset=offset, epoch=snapshot.epoch, timestamp_ms=0)
            assert len(data) <= BATCH_BYTES_MAX, len(data)
            await part.append((data,))
            offset += len(batch)
            size += len(data)
            crc = crc32c(data, crc)
            await asyncio.sleep(0)
        end = MetadataEvent(snapshot_end=SnapshotEnd(size=size, crc32c=crc))
        data = encode_events((end,), base_offset=offset, epoch=snapshot.epoch, timestamp_ms=0)
        await part.append((data,))
        await publish(disk, part, target)
    except BaseException:
        await discard(disk, part)
        raise
    return size + len(data)


def _batches(
    start: SnapshotStart, events: Iterable[MetadataEvent]
) -> Iterator[list[MetadataEvent]]:
    """Divide the events into batches. The same events always give the same batches."""
    yield [MetadataEvent(snapshot_start=start)]
    batch: list[MetadataEvent] = []
    size = 0
    for event in events:
        assert event.WhichOneof("event") not in (None, *SNAPSHOT_ENDS), event
        batch.append(event)
        size += event.ByteSize()
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


async def new_part(disk: Disk, path: str) -> File:
    """Open an empty file. If an earlier try left a file with this name, remove that file first."""
    if await disk.exists(path):
        await disk.remove(path)
    return await disk.open(path, create=True)


async def publish(disk: Disk, part: File, target: str) -> None:
    """Give a whole file its final name: sync, rename, sync of the directory.

    In another order, a power loss could leave the final name without the bytes.
    """
    await part.sync()
    await part.close()
    await disk.rename(part.path, target)
    await disk.sync_directory(target.rpartition("/")[0])


async def discard(disk: Disk, part: File) -> None:
    """Remove a part file, to free its room. If that fails, the next start removes the file."""
    with suppress(OSError):
        await part.close()
        await disk.remove(part.path)


async def read_start(disk: Disk, path: str) -> SnapshotStart:
    """Return a snapshot's SnapshotStart.

    CorruptRecordError if the first batch is not a whole SnapshotStart that fits the file's name.
    UnsupportedError if a newer version wrote it.
    OSError if the disk fails.
    """
    async with aclosing(_walk(disk, path)) as batches:
        async for _, header, batch in batches:
            return _start_of(path, header, batch)
    raise corrupt(path, "it is empty")


async def verify(disk: Disk, path: str, *, decode: bool = False) -> SnapshotStart:
    """Check a whole snapshot, and return its SnapshotStart.

    CorruptRecordError unless every byte is as it was written.
    UnsupportedError if a newer version wrote it.
    OSError if the disk fails.

    With `decode`, used for bytes from another node, this program must also know all its events.
    """
    start: SnapshotStart | None = None
    end: SnapshotEnd | None = None
    offset = crc = 0
    async with aclosing(_walk(disk, path)) as batches:
        async for position, header, batch in batches:
            if end is not None:
                raise corrupt(path, f"bytes follow its end at byte {position}")
            if start is None:
                start = _start_of(path, header, batch)
            if (header.base_offset, header.leader_epoch) != (offset, start.epoch):
                raise corrupt(
                    path,
                    f"the batch at byte {position} has offset {header.base_offset} and epoch"
                    f" {header.leader_epoch}, not {offset} and {start.epoch}",
                )
            offset = header.end_offset
            end = _end_of(path, header, batch, decode=decode and position > 0)
            if decode:
                # Other tasks run here: all batches of one read would take too long for one turn.
                await asyncio.sleep(0)
            if end is None:
                crc = crc32c(batch, crc)
            elif (end.size, end.crc32c) != (position, crc):
                raise corrupt(
                    path,
                    f"its end says {end.size} bytes with CRC {end.crc32c:#010x}; there are"
                    f" {position} with {crc:#010x}",
                )
    if start is None or end is None:
        raise corrupt(path, "it is empty" if start is None else "it has no end")
    return start


async def parts(disk: Disk, path: str) -> AsyncGenerator[bytes, None]:
    """Yield the batches of a snapshot's events, one at a time, without its start and end.

    This checks only the CRC of each batch: call `verify` before. Close the generator with aclosing.
    """
    last: bytes | None = None
    async with aclosing(_walk(disk, path)) as batches:
        async for position, _, batch in batches:
            if last is not None:
                yield last
            last = bytes(batch) if position > 0 else None
            await asyncio.sleep(0)


async def _walk(disk: Disk, path: str) -> AsyncGenerator[tuple[int, BatchHeader, memoryview], None]:
    """Yield each batch with its position, after a check of its CRC. Other tasks run in between."""
    file = await disk.open(path)
    try:
        position = 0
        while position < file.size:
            for header, batch in record_batch.split(await _whole_batches(file, position)):
                if header.codec != compression.NONE:
                    raise CorruptRecordError(f"the batch at byte {position} is compressed")
                record_batch.check(batch)
                yield position, header, batch
                position += header.size
            await asyncio.sleep(0)
    except CorruptRecordError as error:
        raise corrupt(path, str(error)) from None
    finally:
        await file.close()


async def _whole_batches(file: File, position: int) -> Buffer:
    """Return one batch or more from `position` on. CorruptRecordError if the next is not whole."""
    data = await file.read_at(position, _READ_BYTES)
    whole = record_batch.complete_prefix(data)
    if whole:
        return memoryview(data)[:whole]
    size = record_batch.parse_header(data).size
    if size > min(BATCH_BYTES_MAX, file.size - position):
        raise CorruptRecordError(
            f"the batch at byte {position} says {size} bytes; {file.size - position} are left,"
            f" and {BATCH_BYTES_MAX} allowed"
        )
    return await file.read_at(position, size)


def _start_of(path: str, header: BatchHeader, batch: Buffer) -> SnapshotStart:
    events = _events(path, batch, snapshot_ends=True)
    if len(events) != 1 or events[0].WhichOneof("event") != "snapshot_start":
        raise corrupt(path, "it does not begin with a SnapshotStart")
    start = events[0].snapshot_start
    if start.version != VERSION:
        raise UnsupportedError(
            f"{path} is of version {start.version}; this program knows {VERSION}:"
            " start the newer program that wrote it"
        )
    name = path.rpartition("/")[2]
    named = id_of(name) or id_of_part(name)
    if SnapshotId(start.offset, start.epoch) != named or header.leader_epoch != start.epoch:
        raise corrupt(
            path,
            f"it says offset {start.offset} and epoch {start.epoch}, its first batch says epoch"
            f" {header.leader_epoch}, and its name another",
        )
    return start


def _end_of(path: str, header: BatchHeader, batch: Buffer, *, decode: bool) -> SnapshotEnd | None:
    """Return the SnapshotEnd; None if this batch does not hold it."""
    if header.count > 1:
        if decode:
            _events(path, batch, snapshot_ends=False)
        return None
    events = _events(path, batch, snapshot_ends=True)
    kind = events[0].WhichOneof("event") if events else None
    if kind == "snapshot_start" and header.base_offset > 0:
        raise corrupt(path, f"a second SnapshotStart at offset {header.base_offset}")
    return events[0].snapshot_end if kind == "snapshot_end" else None


def _events(path: str, batch: Buffer, *, snapshot_ends: bool) -> list[MetadataEvent]:
    try:
        return decode_events(batch, snapshot_ends=snapshot_ends)
    except CorruptRecordError as error:
        raise corrupt(path, str(error)) from None


def corrupt(path: str, found: str) -> CorruptRecordError:
    """Return the error for a snapshot that is not as it was written."""
    return CorruptRecordError(f"snapshot {path}: {found}")
