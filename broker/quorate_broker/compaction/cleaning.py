"""One pass over one log: put the dirty part into the offset map, then write the records that stay.

A pass only reads the log's segments, and writes files with the ending `.cleaned` beside them. The
same code runs in the worker process on the real disk, and in the simulated world.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress

from quorate.errors import CorruptRecordError, UnsupportedError
from quorate.record.batch import HEADER_BYTES, BatchHeader, check, parse_header
from quorate.record.filtered import last_offsets
from quorate_broker.compaction.batch_filter import BatchFilter, Buffer, Rules, may_be_filtered
from quorate_broker.compaction.job import Cleaned, Done, Job, Report
from quorate_broker.compaction.offset_map import OffsetMap
from quorate_broker.compaction.plan import groups
from quorate_broker.compaction.survivors import Survivors
from quorate_quorum.disk import Disk, File
from quorate_quorum.log.checksum import Checksummer, checksum_of
from quorate_quorum.log.epochs import EpochCache
from quorate_quorum.log.index import SegmentIndex
from quorate_quorum.log.replacement import CLEANED
from quorate_quorum.log.segment import CHECKSUM, INDEX, LOG, TIME_INDEX, file_name
from quorate_quorum.log.segments import SegmentInfo

#: Bytes of one read (a larger batch is read whole), and of one write.
READ_BYTES = 256 * 1024
#: Bytes of batches that are processed in one turn of the loop. This takes some milliseconds.
TURN_BYTES = 32 * 1024
#: A new segment is synced each time that it has grown by so much. A sync of the whole segment at
#: the end would delay the syncs of the broker that wait for the same disk.
SYNC_EVERY_BYTES = 8 * 1024 * 1024


class Throttle:
    """Limits a pass to `bytes_per_second` on average; -1: no limit."""

    def __init__(self, bytes_per_second: int) -> None:
        self._bytes_per_second = bytes_per_second
        self._free_at = asyncio.get_running_loop().time()
        self.moved = 0

    async def take(self, size: int) -> None:
        """Wait until `size` more bytes may be moved."""
        self.moved += size
        if self._bytes_per_second <= 0:
            return
        now = asyncio.get_running_loop().time()
        self._free_at = max(self._free_at, now) + size / self._bytes_per_second
        await asyncio.sleep(self._free_at - now)


class Cleaning:
    """One pass. `carry_out` yields a report for each new segment, and then Done."""

    def __init__(self, disk: Disk, job: Job) -> None:
        self._disk = disk
        self._job = job
        self._epochs = EpochCache(job.epochs)
        self._throttle = Throttle(job.bytes_per_second)
        self._map = OffsetMap(job.map_bytes, bytes.fromhex(job.salt))
        self._segments = [SegmentInfo(*row, -1, 0) for row in job.segments]
        self._survivors = Survivors(job.first_dirty, self._segments[-1].end_offset)

    async def carry_out(self) -> AsyncGenerator[Report, None]:
        """Run the pass. Raise OSError, or CorruptRecordError for a damaged batch."""
        job = self._job
        map_end = await self._fill_map()
        rules = Rules(
            first_dirty=job.first_dirty,
            map_end=map_end,
            now_ms=job.now_ms,
            delete_retention_ms=job.delete_retention_ms,
            may_drop_tombstones=job.may_drop_tombstones,
            producers=dict(job.producers),
        )
        self._survivors.mark_all(self._map.last_offsets())
        batch_filter = BatchFilter(self._map, self._survivors, rules)
        covered = [segment for segment in self._segments if segment.base_offset < map_end]
        for group in groups(covered, bytes_max=job.segment_bytes):
            new = _NewSegment(self._disk, job, group[0].base_offset, self._throttle)
            try:
                changed = await self._clean(group, batch_filter, new)
            except BaseException:
                with suppress(OSError):  # this error would hide the one that ends the pass
                    await new.abandon()
                raise
            if changed or len(group) > 1:
                await new.complete()
                old_bytes = sum(segment.size for segment in group)
                yield Cleaned(new.checksum.result(), old_bytes)
            else:
                await new.abandon()
        counts = batch_filter.counts
        yield Done(
            map_end,
            counts.records,
            counts.dropped,
            counts.without_key,
            counts.not_decoded,
            self._throttle.moved,
        )

    async def _fill_map(self) -> int:
        """Put the keys of the dirty part into the map, until the map is full.

        Returns the offset up to which the keys are in the map.

        The rest is left for another pass. A batch with more records than the whole map can have is
        left out of the map, so older records of its keys stay.
        """
        offsets = self._map
        for segment in self._segments:
            if segment.end_offset <= self._job.first_dirty:
                continue
            async for header, batch in self._batches(segment):
                if header.end_offset <= self._job.first_dirty or not may_be_filtered(header):
                    continue
                if not offsets.has_room(header.count):
                    if offsets.keys:
                        return header.base_offset
                    self._survivors.mark(header.base_offset, header.end_offset)
                    continue
                if not _put(offsets, header, batch):
                    self._survivors.mark(header.base_offset, header.end_offset)
        return self._segments[-1].end_offset

    async def _clean(
        self, group: list[SegmentInfo], batch_filter: BatchFilter, new: _NewSegment
    ) -> bool:
        """Write the records that stay of some segments. Return whether anything was removed."""
        is_changed = False
        end = group[-1].end_offset
        for segment in group:
            async for header, batch in self._batches(segment):
                left = batch_filter.filtered(header, batch, segment_end=end)
                is_changed = is_changed or left is not batch
                if left is not None:
                    await new.add(header if left is batch else parse_header(left), left)
        await new.flush()
        return is_changed

    async def _batches(self, segment: SegmentInfo) -> AsyncIterator[tuple[BatchHeader, Buffer]]:
        """Yield the batches of a segment.

        Check each CRC, because the CRC of the new batch would hide a wrong one. No CRC covers an
        offset or an epoch, so check that batches follow one another, and compare the epochs, and
        the whole segment with its checksum file. With a wrong offset, an old record could count as
        the last of its key; and the new checksum file would vouch for what is wrong.
        """
        path = f"{self._job.directory}/{file_name(segment.base_offset, LOG)}"
        known = await checksum_of(self._disk, path.removesuffix(LOG) + CHECKSUM)
        found = Checksummer(segment.base_offset)
        file = await self._disk.open(path)
        try:
            position = turn = 0
            expected = segment.base_offset
            while position < segment.size:
                data = await self._read(file, position, segment.size)
                at = 0
                while at + HEADER_BYTES <= len(data):
                    header = parse_header(data, at)
                    if at + header.size > len(data):
                        break
                    if not expected <= header.base_offset < header.end_offset <= segment.end_offset:
                        raise CorruptRecordError(
                            f"{path}: a batch has offset {header.base_offset} where {expected} "
                            f"to {segment.end_offset} may be"
                        )
                    expected = header.end_offset
                    self._check_epoch(path, header)
                    found.add(header)
                    batch = memoryview(data)[at : at + header.size]
                    yield check(batch, header), batch
                    at += header.size
                    turn += header.size
                    if turn >= TURN_BYTES:
                        turn = 0
                        await asyncio.sleep(0)
                if not at:
                    raise CorruptRecordError(f"{path}: byte {position} begins no whole batch")
                position += at
            if known is not None and found.result() != known:
                raise CorruptRecordError(f"{path} differs from its checksum file")
        finally:
            await file.close()

    def _check_epoch(self, path: str, header: BatchHeader) -> None:
        """Compare a batch's epoch with the log's. Batches below the log's start are not known."""
        epoch = self._epochs.epoch_at(header.last_offset)
        if epoch >= 0 and header.leader_epoch != epoch:
            raise CorruptRecordError(
                f"{path}: the batch at {header.base_offset} says leader_epoch "
                f"{header.leader_epoch}, not {epoch}"
            )

    async def _read(self, file: File, position: int, size: int) -> bytes:
        data = await file.read_at(position, min(READ_BYTES, size - position))
        if len(data) >= HEADER_BYTES:
            wanted = parse_header(data).size
            if len(data) < wanted <= size - position:
                data = await file.read_at(position, wanted)
        await self._throttle.take(len(data))
        return data


class _NewSegment:
    """A segment that is being written, with its indexes and its checksum."""

    def __init__(self, disk: Disk, job: Job, base_offset: int, throttle: Throttle) -> None:
        self._disk = disk
        self._directory = job.directory
        self._base_offset = base_offset
        self._throttle = throttle
        self._index = SegmentIndex(job.index_interval_bytes)
        self.checksum = Checksummer(base_offset)
        self._file: File | None = None
        self._position = self._synced = 0
        self._pieces: list[Buffer] = []
        self._waiting = 0

    async def add(self, header: BatchHeader, batch: Buffer) -> None:
        relative = header.last_offset - self._base_offset
        self._index.add(relative, self._position, header.size, header.max_timestamp)
        self.checksum.add(header)
        self._position += header.size
        self._pieces.append(batch)
        self._waiting += header.size
        if self._waiting >= READ_BYTES:
            await self.flush()

    async def flush(self) -> None:
        file = await self._opened()
        if self._pieces:
            await file.append(self._pieces)
            await self._throttle.take(self._waiting)
            self._pieces, self._waiting = [], 0
        if self._position - self._synced >= SYNC_EVERY_BYTES:
            await file.sync()
            self._synced = self._position

    async def complete(self) -> None:
        """Make the batches durable, and write the indexes, which need not be durable."""
        file = await self._opened()
        await file.sync()
        await file.close()
        for ending, data in (
            (TIME_INDEX, self._index.encode_times()),
            (INDEX, self._index.encode_offsets()),
        ):
            index = await self._fresh(ending)
            await index.append((data,))
            await index.close()

    async def abandon(self) -> None:
        """Remove the file, because it is not wanted."""
        if self._file is not None:
            await self._file.close()
            await self._disk.remove(self._path(LOG))

    async def _opened(self) -> File:
        if self._file is None:
            self._file = await self._fresh(LOG)
        return self._file

    async def _fresh(self, ending: str) -> File:
        """Return a new file. Remove a file that an interrupted pass left."""
        path = self._path(ending)
        if await self._disk.exists(path):
            await self._disk.remove(path)
        return await self._disk.open(path, create=True)

    def _path(self, ending: str) -> str:
        return f"{self._directory}/{file_name(self._base_offset, ending)}{CLEANED}"


def _put(offsets: OffsetMap, header: BatchHeader, batch: Buffer) -> bool:
    """Put the keys of a batch into the map. Return whether the map then has all its records.

    Records without a key, and batches that do not decode, stay out: they stay in the log, and so
    do all earlier records of the keys of such a batch.
    """
    try:
        found, has_all_keys = last_offsets(batch, header)
    except (CorruptRecordError, UnsupportedError):
        return False
    offsets.put(found)
    return has_all_keys
