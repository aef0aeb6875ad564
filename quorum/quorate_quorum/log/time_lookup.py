"""Finds the first record at or after a time: by the time indexes, then batch by batch."""

from __future__ import annotations

from contextlib import suppress

from quorate.errors import CorruptRecordError
from quorate.record.batch import BatchHeader, check, decompressed_size_bound, find_by_time
from quorate_quorum.disk import Disk
from quorate_quorum.log.segment import Segment
from quorate_quorum.log.segments import Segments

#: The largest batch that is searched in the event loop. A larger one is searched in a thread.
SEARCHED_IN_A_TURN_BYTES = 32 * 1024


async def first_at(
    disk: Disk, segments: Segments, timestamp_ms: int, start: int, end: int
) -> tuple[int, int] | None:
    """Return (offset, timestamp) of the first record in [start, end) at or after the timestamp.

    None if there is no such record. Raises OSError, CorruptRecordError.
    """
    while True:
        replacements = segments.replacements
        try:
            found = await _first_at(disk, segments, timestamp_ms, start, end)
        except (OSError, CorruptRecordError):
            if not await segments.were_replaced_since(replacements):
                raise
            continue
        if replacements == segments.replacements:
            return found


async def _first_at(
    disk: Disk, segments: Segments, timestamp_ms: int, start: int, end: int
) -> tuple[int, int] | None:
    for segment in list(segments.all):
        if segment.base_offset >= end:
            return None
        try:
            newest = await segment.max_timestamp()
            segments.used_index_of(segment)
            if newest < timestamp_ms:
                continue
            found = await _search(disk, segment, timestamp_ms, start, end)
            segments.used_index_of(segment)
        except (OSError, CorruptRecordError):
            if segment in segments.all:
                raise
            continue  # the segment was removed meanwhile
        if found is not None:
            return found
    return None


async def _search(
    disk: Disk, segment: Segment, timestamp_ms: int, start: int, end: int
) -> tuple[int, int] | None:
    index = await segment.loaded_index()
    first = max(segment.base_offset + index.floor_of_time(timestamp_ms), start)
    position = await segment.position_of(first)
    while position < segment.size:
        chunk = await segment.scan(position, checked=False)
        for where, header in chunk.found:
            if header.base_offset >= end:
                return None
            if header.max_timestamp >= timestamp_ms:
                batch = await segment.file.read_at(where, header.size)
                check(batch, header)
                found = await _first_in(disk, batch, header, timestamp_ms, start)
                if found is not None and found[0] < end:
                    return found
        if chunk.bad is not None:
            raise CorruptRecordError(chunk.bad)
        position = chunk.position
    return None


async def _first_in(
    disk: Disk, batch: bytes, header: BatchHeader, timestamp_ms: int, start: int
) -> tuple[int, int] | None:
    """Return the first record of a batch at or after the time and the offset; None if it has none.

    Most batches are appended without being decoded, so one may turn out not to decode. For such a
    batch the answer comes from its header.
    """
    with suppress(CorruptRecordError):
        if decompressed_size_bound(batch, header) <= SEARCHED_IN_A_TURN_BYTES:
            return find_by_time(batch, header, timestamp_ms, start)
        return await disk.in_thread(find_by_time, batch, header, timestamp_ms, start)
    return max(header.base_offset, start), header.max_timestamp
