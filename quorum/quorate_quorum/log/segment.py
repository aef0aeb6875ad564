"""One segment of a log: a file of batches named by its base offset, with its two indexes.

The indexes are in memory while they are used. They are written when the segment is closed or the
log is stopped cleanly. If a crash leaves a segment without indexes, its next read scans it.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from dataclasses import dataclass

from quorate.aio.clock import loop_ms
from quorate.errors import CorruptRecordError
from quorate.record.batch import HEADER_BYTES, BatchHeader, check, parse_header
from quorate_quorum.disk import Buffer, Disk, File, read_whole, replace_whole
from quorate_quorum.log.index import OFFSET_ENTRY, TIME_ENTRY, SegmentIndex
from quorate_quorum.log.verified import Verified

LOG, INDEX, TIME_INDEX, SNAPSHOT = ".log", ".index", ".timeindex", ".snapshot"
#: The ending of a compacted segment's checksum file (checksum.py).
CHECKSUM = ".checksum"
#: The bytes that a scan reads at a time; one whole batch if that is larger. Other tasks run between
#: two chunks. A chunk has at most CHUNK_BATCHES_MAX batches, which take some milliseconds.
CHUNK_BYTES = 64 * 1024
CHUNK_BATCHES_MAX = 256
#: The bytes that a search for a batch reads from an index entry on. Usually they hold the batch.
LOOKUP_BYTES = 8 * 1024
#: The largest batch. A larger length in a header means damage.
BATCH_BYTES_MAX = 256 * 1024 * 1024
#: The largest relative offset and position: an index has four bytes for each, signed in Kafka.
RELATIVE_MAX = (1 << 31) - 1

#: The fields of a batch that `walk` reads: base_offset, batch_length, and at byte 23
#: last_offset_delta.
_START = struct.Struct(">qi")
_DELTA = struct.Struct(">i")
_DELTA_AT = 23
_BEFORE_LENGTH = 12


def file_name(offset: int, ending: str) -> str:
    """Return Kafka's name for a file that begins at `offset`.

    >>> file_name(42, LOG)
    '00000000000000000042.log'
    """
    return f"{offset:020d}{ending}"


def offset_of(name: str, ending: str) -> int | None:
    """Return the offset in a name that file_name made; None for any other name."""
    stem = name.removesuffix(ending)
    if stem == name or len(stem) != 20 or not stem.isascii() or not stem.isdigit():
        return None
    return int(stem)


#: Checks a batch whose CRC is right. It is called in the order of the log, and raises
#: CorruptRecordError if the batch is invalid.
Inspect = Callable[[BatchHeader, Buffer], None]


@dataclass(slots=True)
class Chunk:
    """Some batches of a scan, each with its position. `position` is where the next batch begins.

    `bad` says why the scan can't go on; None if it can.
    """

    found: list[tuple[int, BatchHeader]]
    position: int
    bad: str | None = None


class Segment:
    """A segment of a log. Its `index` is None until the first read that needs it."""

    def __init__(
        self, disk: Disk, directory: str, base_offset: int, file: File, index_interval_bytes: int
    ) -> None:
        self._disk = disk
        self._directory = directory
        self._index_interval_bytes = index_interval_bytes
        self.base_offset = base_offset
        self.file = file
        self.index: SegmentIndex | None = None
        #: The bytes of whole, noted batches. The file may have more while an append is under way.
        self.size = file.size
        #: Which of these bytes need no check before a reader gets them.
        self.verified = Verified(file.size)
        self._max_timestamp: int | None = None
        self._completion = _Completion(self)
        #: The time of the first record's append, by the event loop's clock; None: not known yet.
        self._began_ms: int | None = None

    def path(self, ending: str) -> str:
        return f"{self._directory}/{file_name(self.base_offset, ending)}"

    def new_index(self) -> SegmentIndex:
        """Return an empty index of this segment's kind."""
        return SegmentIndex(self._index_interval_bytes)

    async def scan(
        self,
        position: int,
        *,
        checked: bool,
        inspect: Inspect | None = None,
        bytes_max: int = CHUNK_BYTES,
    ) -> Chunk:
        """Return the batches of the next chunk, from `position` on.

        With `checked`, only batches that have a right CRC, and that `inspect` accepts, are
        returned. After a chunk of many batches, other tasks run first.
        """
        data = await self.file.read_at(position, min(bytes_max, self.size - position))
        chunk = self._look_at(data, position, checked=checked, inspect=inspect)
        if chunk is None:
            header = parse_header(data)
            data = await self.file.read_at(position, header.size)
            chunk = self._look_at(data, position, checked=checked, inspect=inspect)
            assert chunk is not None, "a whole batch was read"
        if len(chunk.found) > CHUNK_BATCHES_MAX // 4 or len(data) >= CHUNK_BYTES:
            await asyncio.sleep(0)
        return chunk

    def _look_at(
        self, data: bytes, position: int, *, checked: bool, inspect: Inspect | None
    ) -> Chunk | None:
        """Return the batches in `data`, which was read at `position`.

        None if `data` holds only a part of the first batch.
        """
        chunk = Chunk([], position)
        at = 0
        while at < len(data) and len(chunk.found) < CHUNK_BATCHES_MAX:
            try:
                header = parse_header(data, at, begins_at=position)
            except CorruptRecordError as error:
                if len(data) - at < HEADER_BYTES and position + len(data) < self.size and at:
                    break  # the chunk ends here, not the file
                chunk.bad = str(error)
                break
            size = header.size
            if size > BATCH_BYTES_MAX or chunk.position + size > self.size:
                chunk.bad = f"a batch at byte {chunk.position} says {size} bytes"
                break
            if at + size > len(data):
                return chunk if at else None
            if checked:
                try:
                    batch = memoryview(data)[at : at + size]
                    check(batch, header)
                    if inspect is not None:
                        inspect(header, batch)
                except CorruptRecordError as error:
                    chunk.bad = str(error)
                    break
            chunk.found.append((chunk.position, header))
            at += size
            chunk.position += size
        return chunk

    async def loaded_index(self) -> SegmentIndex:
        """Return the index. If it is not in memory, load it and complete it from the batches."""
        if self.index is not None:
            return self.index
        index = await self._completion.complete(await self.index_on_disk())
        if self.index is None:  # if not, another reader has loaded it meanwhile
            self.index = index
        return self.index

    def grown(self, size: int) -> None:
        """Note that `size` bytes of batches were appended."""
        if not self.size:
            self._began_ms = loop_ms()
        self.size += size

    async def age_ms(self) -> int:
        """Return the milliseconds since the first record was appended; 0 for an empty segment.

        If an earlier run appended the record, the time counts from that run's last change of the
        file.
        """
        if not self.size:
            return 0
        if self._began_ms is None:
            self._began_ms = loop_ms() - await self.unchanged_ms()
        return loop_ms() - self._began_ms

    async def unchanged_ms(self) -> int:
        """Return the milliseconds since the file last changed."""
        return await self._disk.unchanged_ms(self.path(LOG))

    async def max_timestamp(self) -> int:
        """Return the greatest timestamp in the segment; -1 if the segment has none."""
        if self.index is not None:
            self._max_timestamp = self.index.max_timestamp
        elif self._max_timestamp is None:
            self._max_timestamp = await self._max_timestamp_on_disk()
        return self._max_timestamp

    async def _max_timestamp_on_disk(self) -> int:
        """Return the greatest timestamp. Usually the ends of the two index files are enough."""
        index = await self.index_on_disk(whole=False)
        if index.last_entry[0] < 0:
            return (await self.loaded_index()).max_timestamp
        return (await self._completion.complete(index)).max_timestamp

    async def build_index_again(self) -> None:
        """Build the index from the batches, because an entry does not fit its batch.

        CorruptRecordError if a batch is bad. Then the present index stays: perhaps only the batch
        is wrong, and appends and reads of the other batches need an index.
        """
        index, cuts = self.index, self._completion.cuts
        built = await self._completion.complete(self.new_index())
        if self.index is index and cuts == self._completion.cuts:
            self.index = built
            await self.remove_index_files()

    def unload_index(self) -> None:
        """Drop the index from memory. It is loaded again when it is needed."""
        if self.index is not None:
            self._max_timestamp = self.index.max_timestamp
            self.index = None

    async def cut(self, position: int, end_offset: int) -> None:
        """Cut the file at `position`, where `end_offset` begins. The caller syncs the file."""
        await self.forget_checksum()
        index = await self.loaded_index()
        await self.remove_index_files()
        await self.file.truncate(position)
        self.size = position
        self.verified.cut(position)
        index.truncate(end_offset - self.base_offset)
        self.index = index
        self._completion.cut()
        if not await self._confirms(index):
            index = self.index = self.new_index()
        await self._completion.complete(index)

    async def replay(self, position: int, note: Callable[[int, BatchHeader], None]) -> None:
        """Call `note` with the position and header of each batch, from `position` on."""
        while position < self.size:
            chunk = await self.scan(position, checked=False)
            for where, header in chunk.found:
                note(where, header)
            position = chunk.position
            if chunk.bad is not None:
                raise CorruptRecordError(f"{self.file.path}: {chunk.bad}")

    async def index_on_disk(self, *, whole: bool = True) -> SegmentIndex:
        """Return the index on disk, or its last entries; empty if the batches deny them."""
        index = self.new_index()
        offsets = await last_bytes(
            self._disk, self.path(INDEX), None if whole else OFFSET_ENTRY.size
        )
        times = await last_bytes(
            self._disk, self.path(TIME_INDEX), None if whole else TIME_ENTRY.size
        )
        for _ in index.load(offsets, times, self.size):
            await asyncio.sleep(0)
        # between two last entries that are far apart, only the whole index finds a batch quickly
        is_near = whole or index.newest[1] >= index.last_entry[0]
        if not (is_near and await self._confirms(index)):
            return self.new_index()
        index.truncate(index.last_entry[0] + 1)
        return index

    async def _confirms(self, index: SegmentIndex) -> bool:
        """Return whether the batches have what the last entries of both indexes say."""
        if index.last_entry[0] < 0 or not await self.names_a_batch(*index.last_entry):
            return False
        timestamp, named = index.newest
        _, position = index.floor(named)
        while position < self.size:
            chunk = await self.scan(position, checked=False, bytes_max=LOOKUP_BYTES)
            at_end = [one for _, one in chunk.found if one.last_offset >= self.base_offset + named]
            if at_end or chunk.bad is not None:
                return bool(at_end) and at_end[0].max_timestamp == timestamp
            position = chunk.position
        return False

    async def last_entry_on_disk(self) -> tuple[int, int]:
        """Return the last entry of the offset index on disk, unchecked; (-1, 0) if none exists."""
        entry = await last_bytes(self._disk, self.path(INDEX), OFFSET_ENTRY.size)
        if len(entry) < OFFSET_ENTRY.size:
            return -1, 0
        last_offset, position = OFFSET_ENTRY.unpack(entry)
        return last_offset, position

    async def names_a_batch(self, last_offset: int, position: int) -> bool:
        """Return whether a batch that ends at this relative last offset is at `position`."""
        try:
            header = parse_header(await self.file.read_at(position, HEADER_BYTES))
        except CorruptRecordError:
            return False
        return header.last_offset == self.base_offset + last_offset

    def add_to(self, index: SegmentIndex, position: int, header: BatchHeader) -> None:
        last_offset = header.last_offset - self.base_offset
        if 0 <= last_offset <= RELATIVE_MAX:
            index.add(last_offset, position, header.size, header.max_timestamp)

    async def write_index(self, *, sync: bool = True) -> None:
        """Write the indexes, the time index first: no offset index exists without a time index."""
        index = await self.loaded_index()
        await replace_whole(self._disk, self.path(TIME_INDEX), index.encode_times(), sync=sync)
        await replace_whole(self._disk, self.path(INDEX), index.encode_offsets(), sync=sync)

    async def position_of(self, offset: int) -> int:
        """Return the position of the batch that holds `offset`, or of the first one after it.

        The segment's size if there is none. CorruptRecordError for bytes that are not batches.
        """
        index = await self.loaded_index()
        last_offset, position = index.floor(offset - self.base_offset)
        if last_offset >= 0 and not await self.names_a_batch(last_offset, position):
            await self.build_index_again()
            return await self.position_of(offset)
        expected = self.base_offset
        while position < self.size:
            chunk = await self.scan(position, checked=False, bytes_max=LOOKUP_BYTES)
            for where, header in chunk.found:
                if header.base_offset < expected:
                    raise CorruptRecordError(
                        f"{self.file.path}: a batch of {header.base_offset} lies behind {expected}"
                    )
                if header.end_offset > offset:
                    return where
                expected = header.end_offset
            if chunk.bad is not None:
                raise CorruptRecordError(f"{self.file.path}: {chunk.bad}")
            position = chunk.position
        return position

    async def forget_checksum(self) -> None:
        """Remove the checksum file durably, before the segment changes."""
        path = self.path(CHECKSUM)
        if await self._disk.exists(path):
            await self._disk.remove(path)
            await self._disk.sync_directory(self._directory)

    async def remove_index_files(self) -> bool:
        """Remove the index files: they do not fit the batches, or soon will not.

        Returns whether there were any. An active segment has none.
        """
        found = [one for one in (INDEX, TIME_INDEX) if await self._disk.exists(self.path(one))]
        for ending in found:
            await self._disk.remove(self.path(ending))
        return bool(found)

    async def remove(self) -> None:
        """Remove the segment's files, the batches first: an open removes lone indexes."""
        await self.file.close()
        for ending in (LOG, INDEX, TIME_INDEX, SNAPSHOT, CHECKSUM):
            if await self._disk.exists(self.path(ending)):
                await self._disk.remove(self.path(ending))


class _Completion:
    """Completes the indexes of one segment from its batches.

    It remembers a bad batch. The one of an only copy stays, and must not cost every read a scan.
    """

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        #: The number of cuts. An index that was built beside a cut is of no use.
        self.cuts = 0
        #: The position of the last batch before the bad one, and what is wrong; None: no batch is
        #: known to be bad.
        self._fault: tuple[int, str] | None = None

    def cut(self) -> None:
        """Note that the segment was cut. Perhaps the bad batch is gone."""
        self.cuts += 1
        self._fault = None

    async def complete(self, index: SegmentIndex) -> SegmentIndex:
        """Note the batches that are not in the index yet, and return it.

        CorruptRecordError if a batch is bad, or begins below the end of the one before it. A
        verifier takes an entry of the index for a second witness of an offset, so no entry may
        repeat a wrong one.
        """
        segment, cuts = self._segment, self.cuts
        reached, end = index.last_entry[1], segment.base_offset
        if self._fault is not None and reached <= self._fault[0]:
            raise CorruptRecordError(self._fault[1])

        def note(position: int, header: BatchHeader) -> None:
            nonlocal reached, end
            if header.base_offset < end:
                raise CorruptRecordError(
                    f"{segment.file.path}: a batch of {header.base_offset} lies behind {end}"
                )
            reached, end = position, header.end_offset
            segment.add_to(index, position, header)

        try:
            await segment.replay(reached, note)
        except CorruptRecordError as error:
            if cuts == self.cuts:
                self._fault = reached, str(error)
            raise
        return index


async def last_bytes(disk: Disk, path: str, length: int | None) -> bytes:
    """Return the last bytes (None: all) of a file; b"" if the file does not exist."""
    if not await disk.exists(path):
        return b""
    if length is None:
        return await read_whole(disk, path)
    file = await disk.open(path)
    try:
        return await file.read_at(max(file.size - length, 0), length)
    finally:
        await file.close()


def walk(
    data: bytes, *, offset: int, end: int, bytes_max: int, gaps_from: int | None = None
) -> tuple[int, int, int, int]:
    """Find the whole batches in `data` that a read returns.

    Return their start and stop positions in `data`, the offset after them, and the bytes wanted.
    The first batch is the one that holds `offset`; if `offset` lies in a gap, the next one. The
    batches end at or below `end` and have at most `bytes_max` bytes, but the first may be larger.
    If `data` holds only a part of the first batch, start == stop, and bytes wanted is that batch's
    length.

    CorruptRecordError if a length is impossible, or if a batch does not follow the one before it:
    the CRC does not cover offsets, and readers would miss records silently. In a log with gaps,
    `gaps_from` is the segment's base offset. Then each batch must begin at or above it, and at or
    above the end of the batch before.
    """
    at = 0
    start = -1
    next_offset = offset
    expected = -1 if gaps_from is None else gaps_from
    while at + HEADER_BYTES <= len(data):
        base_offset, length = _START.unpack_from(data, at)
        (delta,) = _DELTA.unpack_from(data, at + _DELTA_AT)
        is_possible = HEADER_BYTES - _BEFORE_LENGTH <= length <= BATCH_BYTES_MAX and delta >= 0
        if gaps_from is None:
            follows = base_offset == expected or (at == 0 and base_offset <= offset)
        else:
            follows = base_offset >= expected
        if not (is_possible and follows):
            if start >= 0:
                break  # return the good batches before it; a read that begins at the bad one raises
            raise CorruptRecordError(
                f"a batch of offset {base_offset} and length {length} where offset "
                f"{max(expected, offset)} should be"
            )
        batch_end = expected = base_offset + delta + 1
        stop = at + length + _BEFORE_LENGTH
        if batch_end > offset:
            if batch_end > end:
                break
            if start < 0:
                start = at
                if stop > len(data):
                    return start, start, offset, length + _BEFORE_LENGTH
            elif stop - start > bytes_max or stop > len(data):
                break
            next_offset = batch_end
        elif stop > len(data):
            break
        at = stop
    if start < 0:
        return at, at, offset, 0
    return start, at, next_offset, 0
