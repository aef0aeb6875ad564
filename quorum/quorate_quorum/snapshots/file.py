"""Snapshots of the metadata: one file that stands for the log below an offset.

The file `<offset>-<epoch>.snapshot` lies in the metadata log's directory and holds record batches
v2 of MetadataEvents and nothing else, so that any tool that reads segments reads it:

    batch 0      one SnapshotStart: which offset and epoch, of which cluster and generation
    batches 1..  the events of the image
    last batch   one SnapshotEnd: how many bytes lie before it, and the CRC-32C of all of them

Offsets count from 0, leader_epoch is the snapshot's, timestamps are 0: the same image at the same
offset gives the same bytes on every voter, so a download that began at one leader goes on at the
next. A file has its final name only when all its bytes are durable: a crash must not leave a half
snapshot that a start believes. While it is written or fetched it is a `.part`, and no start reads
one.

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
#: What follows a file's name while it is written, and while it is fetched: a voter may do both.
WRITTEN_SUFFIX, FETCHED_SUFFIX = PART_SUFFIX, ".fetched" + PART_SUFFIX
#: A batch is closed at the event that makes it this large: what is decoded and applied in one
#: turn of the loop, a few milliseconds of work.
BATCH_BYTES = 16 * 1024
#: No batch of a snapshot is larger, whatever its header says: one event is at most an Outcome.
BATCH_BYTES_MAX = 8 * 1024 * 1024
#: No snapshot is larger; a peer that says so is not believed.
SNAPSHOT_BYTES_MAX = 4 * 1024**3
_READ_BYTES = 256 * 1024


class SnapshotId(NamedTuple):
    """Names a snapshot: it holds all below `offset`, whose last record is of `epoch`."""

    offset: int
    epoch: int


def file_name(snapshot: SnapshotId) -> str:
    """Return the name of a snapshot's file.

    >>> file_name(SnapshotId(42, 3))
    '00000000000000000042-0000000003.snapshot'
    """
    return f"{snapshot.offset:020d}-{snapshot.epoch:010d}{SUFFIX}"


def id_of(name: str) -> SnapshotId | None:
    """Return the snapshot that a file's name names, None if it names none.

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
    """Return the snapshot that a half written or fetched file was to become; None if it is none.

    >>> id_of_part("00000000000000000042-0000000003.snapshot.fetched.part")
    SnapshotId(offset=42, epoch=3)
    """
    if not name.endswith(PART_SUFFIX):
        return None
    return id_of(name.removesuffix(FETCHED_SUFFIX).removesuffix(WRITTEN_SUFFIX))


def path_of(directory: str, snapshot: SnapshotId) -> str:
    """Return where a snapshot lies."""
    return f"{directory}/{file_name(snapshot)}"


async def list_snapshots(disk: Disk, directory: str) -> list[SnapshotId]:
    """Return the whole snapshots of a metadata log, oldest first. OSError if the disk fails."""
    if not await disk.exists(directory):
        return []
    found = (id_of(name) for name in await disk.list(directory))
    return sorted(one for one in found if one is not None)


async def newest(disk: Disk, directory: str) -> SnapshotId | None:
    """Return the newest snapshot, None if there is none."""
    found = await list_snapshots(disk, directory)
    return found[-1] if found else None


async def remove_parts(disk: Disk, directory: str) -> None:
    """Sweep away what crashes left half written."""
    if await disk.exists(directory):
        for name in await disk.list(directory):
            if SUFFIX + "." in name and name.endswith(PART_SUFFIX):
                await disk.remove(f"{directory}/{name}")


async def remove_older(disk: Disk, directory: str, snapshot: SnapshotId) -> None:
    """Remove every snapshot below one, oldest first; the newest is never removed."""
    found = await list_snapshots(disk, directory)
    for one in found[:-1]:
        if one < snapshot:
            await disk.remove(path_of(directory, one))


async def write_snapshot(
    disk: Disk, directory: str, start: SnapshotStart, events: Iterable[MetadataEvent]
) -> int:
    """Write a snapshot and return its size in bytes; it is durable, name and all.

    `events` is drawn a batch at a time, with a turn of the loop between. OSError leaves no file
    but perhaps a `.part`.
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
    """Cut the events into batches; the same events are always cut at the same places."""
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
    """Open an empty file; what an earlier try left of it goes."""
    if await disk.exists(path):
        await disk.remove(path)
    return await disk.open(path, create=True)


async def publish(disk: Disk, part: File, target: str) -> None:
    """Give whole bytes their final name: sync, rename, sync of the directory.

    In another order a power loss could leave the name without the bytes.
    """
    await part.sync()
    await part.close()
    await disk.rename(part.path, target)
    await disk.sync_directory(target.rpartition("/")[0])


async def discard(disk: Disk, part: File) -> None:
    """Leave no bytes on a disk that may be full; what can't be removed, the next start removes."""
    with suppress(OSError):
        await part.close()
        await disk.remove(part.path)


async def read_start(disk: Disk, path: str) -> SnapshotStart:
    """Return what a snapshot says of itself.

    CorruptRecordError if its first batch is not a whole SnapshotStart, or another than its name
    says; UnsupportedError if a newer version wrote it; OSError if the disk fails.
    """
    async with aclosing(_walk(disk, path)) as batches:
        async for _, header, batch in batches:
            return _start_of(path, header, batch)
    raise corrupt(path, "it is empty")


async def verify(disk: Disk, path: str, *, decode: bool = False) -> SnapshotStart:
    """Read a whole snapshot and return what it says of itself.

    CorruptRecordError unless every byte is as it was written, UnsupportedError if a newer version
    wrote it, OSError if the disk fails. With `decode`, all its events must also be of a kind that
    this version knows: for bytes that came from elsewhere.
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
                await asyncio.sleep(0)  # a quarter of a mebibyte of events at once takes too long
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

    Only their own CRCs are checked: `verify` comes before. Close it with aclosing.
    """
    last: bytes | None = None
    async with aclosing(_walk(disk, path)) as batches:
        async for position, _, batch in batches:
            if last is not None:
                yield last
            last = bytes(batch) if position > 0 else None
            await asyncio.sleep(0)


async def _walk(disk: Disk, path: str) -> AsyncGenerator[tuple[int, BatchHeader, memoryview], None]:
    """Yield each batch with its position, its CRC checked; a turn of the loop after each read."""
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
    """Return one batch or more from `position`; CorruptRecordError if the next is not whole."""
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
    """Return the end if this batch is it; only a batch of one event can be."""
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
    """Return the error of a snapshot that is not as it was written."""
    return CorruptRecordError(f"snapshot {path}: {found}")
