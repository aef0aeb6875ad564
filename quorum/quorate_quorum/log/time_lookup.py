"""Finds the first record at or after a time: by the time indexes, then batch by batch.

An index file has no checksum. So a lookup compares the entries that it uses with the batches. The
batches from that entry to the one that it finds are verified, unless they were verified before: a
changed offset or timestamp in a header would let readers pass over records.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import zip_longest

import structlog

from quorate.errors import CorruptRecordError
from quorate.record.batch import (
    HEADER_BYTES,
    BatchHeader,
    check,
    decompressed_size_bound,
    find_by_time,
    parse_header,
    records,
)
from quorate_quorum.disk import Disk
from quorate_quorum.log.disk_errors import done_without
from quorate_quorum.log.segment import Segment
from quorate_quorum.log.segments import Segments
from quorate_quorum.log.verifier import Verifier

log = structlog.get_logger(__name__)

#: The largest batch that is searched in the event loop. A larger one is searched in a thread.
SEARCHED_IN_A_TURN_BYTES = 32 * 1024


async def first_at(
    segments: Segments, verifier: Verifier, timestamp_ms: int | None, start: int, end: int
) -> tuple[int, int] | None:
    """Return (offset, timestamp) of the first record in [start, end) at or after the timestamp.

    The timestamp None means the greatest one in the log. If the record that has it is at or above
    `end`, none is found, as in Kafka; if that record is below `start`, it does not count. Returns
    None if there is no such record. Raises OSError, CorruptRecordError.
    """
    while True:
        replacements = segments.replacements
        try:
            if timestamp_ms is None:
                wanted_ms = await _latest(segments)
                if await _is_below(segments, wanted_ms, start):
                    wanted_ms = await _latest_from(segments, start, end)
            else:
                wanted_ms = timestamp_ms
            found = await _first_at(segments, verifier, wanted_ms, start, end)
        except (OSError, CorruptRecordError):
            if not await segments.were_replaced_since(replacements):
                raise
            continue
        if replacements == segments.replacements:
            return found


async def _latest(segments: Segments) -> int:
    """Return the greatest timestamp of all batches; -1 if there is none."""
    found = -1
    for segment in list(segments.all):
        try:
            found = max(found, await segment.max_timestamp())
            segments.used_index_of(segment)
        except (OSError, CorruptRecordError):
            if segment in segments.all:
                raise  # otherwise the segment was removed meanwhile
    return found


async def _is_below(segments: Segments, timestamp_ms: int, start: int) -> bool:
    """Return whether the first batch with the greatest timestamp holds records below `start`.

    A start within a segment leaves deleted records in the segment, and in its greatest timestamp.
    """
    for segment in list(segments.all):
        if segment.base_offset >= start:
            return False
        with suppress(OSError):  # the segment was removed meanwhile
            if await segment.max_timestamp() < timestamp_ms:
                continue
            newest = (await segment.loaded_index()).newest
            segments.used_index_of(segment)
            return newest[0] == timestamp_ms and await _begins_below(segment, newest[1], start)
    return False


async def _begins_below(segment: Segment, relative: int, start: int) -> bool:
    """Return whether the batch with this relative last offset begins below `start`."""
    last = segment.base_offset + relative
    if last < start:
        return True
    position = await segment.position_of(last)
    header = parse_header(await segment.file.read_at(position, HEADER_BYTES))
    return header.base_offset < start


async def _latest_from(segments: Segments, start: int, end: int) -> int:
    """Return the greatest timestamp of the records from `start` on; -1 if there is none.

    Of the segment that holds `start`, it reads the batches from there to `end`: one segment, once.
    """
    found = -1
    for segment, following in zip_longest(segments.all[:], segments.all[1:]):
        if segment.base_offset >= start:
            found = max(found, await segment.max_timestamp())
        elif following is None or following.base_offset > start:
            found = max(found, await _latest_in(segments.disk, segment, start, end))
        segments.used_index_of(segment)
    return found


async def _latest_in(disk: Disk, segment: Segment, start: int, end: int) -> int:
    """Return the greatest timestamp of a segment's records in [start, end); -1 if it has none."""
    latest = -1
    position = await segment.position_of(start)
    while position < segment.size:
        chunk = await segment.scan(position, checked=False)
        for where, header in chunk.found:
            if header.base_offset >= end:
                return latest
            if header.max_timestamp <= latest:
                continue
            if header.base_offset >= start:
                latest = header.max_timestamp
            else:
                batch = await segment.file.read_at(where, header.size)
                check(batch, header)
                latest = max(latest, await disk.in_thread(_latest_of, batch, header, start))
        if chunk.bad is not None:
            raise CorruptRecordError(chunk.bad)
        position = chunk.position
    return latest


def _latest_of(batch: bytes, header: BatchHeader, start: int) -> int:
    """Return the greatest timestamp of a batch's records from `start` on; -1 if it has none."""
    return max(
        (one.timestamp_ms for one in records(batch, header) if one.offset >= start), default=-1
    )


async def _first_at(
    segments: Segments, verifier: Verifier, timestamp_ms: int, start: int, end: int
) -> tuple[int, int] | None:
    for segment in list(segments.all):
        if segment.base_offset >= end:
            return None
        try:
            newest = await segment.max_timestamp()
            segments.used_index_of(segment)
            if newest < timestamp_ms:
                continue
            first = await _first_to_search(segments, segment, timestamp_ms, start)
            found = await _search(segments.disk, verifier, segment, timestamp_ms, first, start, end)
            segments.used_index_of(segment)
        except (OSError, CorruptRecordError):
            if segment in segments.all:
                raise
            continue  # the segment was removed meanwhile
        if found is not None:
            return found
    return None


async def _first_to_search(
    segments: Segments, segment: Segment, timestamp_ms: int, start: int
) -> int:
    """Return an offset below which no record of [start, ...) is at or after the timestamp.

    The entry of the time index that says so is compared with its batch, because a flipped bit in it
    would hide records. If the two differ, the indexes of this segment are built again: that reads
    one segment, once.
    """
    timestamp, relative = (await segment.loaded_index()).floor_of_time(timestamp_ms)
    first = segment.base_offset + relative
    if relative < 0 or first <= start:
        return start
    if not await _has(segment, first, timestamp):
        await _build_indexes_again(segments, segment)
        _, relative = (await segment.loaded_index()).floor_of_time(timestamp_ms)
    return max(segment.base_offset + relative, start)


async def _has(segment: Segment, last_offset: int, timestamp: int) -> bool:
    """Return whether a batch ends with that offset, and has that greatest timestamp."""
    position = await segment.position_of(last_offset)
    if position >= segment.size:
        return False
    header = parse_header(await segment.file.read_at(position, HEADER_BYTES))
    return (header.last_offset, header.max_timestamp) == (last_offset, timestamp)


async def _build_indexes_again(segments: Segments, segment: Segment) -> None:
    log.warning("an index is built again", segment=segment.file.path)
    await segment.build_index_again()
    async with segments.replacing:  # otherwise the files could get beside a compacted segment
        if segment in segments.all[:-1]:
            with done_without("index", segment.file.path):
                await segment.write_index()


async def _search(
    disk: Disk,
    verifier: Verifier,
    segment: Segment,
    timestamp_ms: int,
    first: int,
    start: int,
    end: int,
) -> tuple[int, int] | None:
    position = await segment.position_of(first)
    while position < segment.size:
        chunk = await segment.scan(position, checked=False)
        good = position
        if chunk.found:
            good = await verifier.good_end(segment, first, position, chunk.position)
            first = chunk.found[-1][1].end_offset
        for where, header in chunk.found:
            if where >= good:
                raise CorruptRecordError(f"{segment.file.path}: the batch at byte {where} is bad")
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
