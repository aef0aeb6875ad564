"""Was a bad end of a log the write that a kill interrupted, or is it damage?

Within one boot a write leaves a first part of its bytes, for the kernel lengthens a file only by
what it has copied. So a torn batch has fewer bytes than it says, and nothing follows it. A batch
that has all its bytes, or that other batches of this log follow, was written whole and has changed
since: then the replica has lost what its completed writes had put there. The CRC does not cover
the length, so where the length is what has changed, the CRC still tells where the batch ended.
"""

from __future__ import annotations

import re
from itertools import islice

from crc32c import crc32c

from quorate.errors import CorruptRecordError
from quorate.record.batch import HEADER_BYTES, check, parse_header
from quorate_quorum.disk import File
from quorate_quorum.log.segment import BATCH_BYTES_MAX

#: base_offset and batch_length, which stand before all that the length counts.
_BEFORE = 12
#: The CRC stands before what it covers.
_CRC_COVERS_FROM = 21
#: Batches whose CRC is computed in the search; a tail that looks like more of them is damage.
_CHECKED_MAX = 64
_READ_BYTES = 1 << 20


async def is_torn(file: File, position: int, size: int, next_offset: int) -> bool:
    """Tell whether the bytes from `position` to `size`, where the batch at `next_offset` should
    be, are the first part of a write.
    """
    start = await file.read_at(position, _BEFORE)
    if len(start) < _BEFORE:
        return True
    base_offset = int.from_bytes(start[:8], "big", signed=True)
    length = int.from_bytes(start[8:], "big", signed=True)
    if base_offset != next_offset or not 0 <= length <= BATCH_BYTES_MAX:
        return False
    if position + _BEFORE + length <= size or await _is_whole(file, position, size):
        return False
    return not await _has_a_later_batch(file, position + _BEFORE, size, next_offset)


async def _is_whole(file: File, position: int, size: int) -> bool:
    """Tell whether a batch that says to be longer ends before `size`, by its CRC: at any of the
    last bytes, where a torn write may follow it, or where the next batch may begin.
    """
    head = await file.read_at(position, HEADER_BYTES)
    if len(head) < HEADER_BYTES:
        return False
    wanted = int.from_bytes(head[_CRC_COVERS_FROM - 4 : _CRC_COVERS_FROM], "big")
    crc = 0
    at = position + _CRC_COVERS_FROM
    while at < size:
        data = await file.read_at(at, min(_READ_BYTES, size - at))
        looked_at = 0
        for end in _ends(data, head[:4], size - at):
            crc = crc32c(data[looked_at:end], crc)
            looked_at = end
            if crc == wanted:
                return True
        at += len(data)
    return False


def _ends(data: bytes, offset_prefix: bytes, left: int) -> list[int]:
    """Where in `data` a batch may end; `left`: the bytes from its start to the end of the file."""
    starts = re.finditer(b"(?=" + re.escape(offset_prefix) + b")", data[:left])
    found = {start.start() for start in islice(starts, _CHECKED_MAX)}
    last = range(max(left - HEADER_BYTES, 0), left + 1)
    return sorted({*found, *(end for end in last if end <= len(data)), len(data)} - {0})


async def _has_a_later_batch(file: File, position: int, size: int, after: int) -> bool:
    """Look for a whole batch with an offset above `after`: a length may be what has changed."""
    looks_like_one = re.compile(
        b"(?=" + re.escape(after.to_bytes(8, "big")[:4]) + b".{12}\x02)", re.DOTALL
    )
    checked = 0
    while position + HEADER_BYTES <= size:
        data = await file.read_at(position, min(_READ_BYTES, size - position))
        for found in looks_like_one.finditer(data):
            at = position + found.start()
            head = await file.read_at(at, HEADER_BYTES)
            try:
                header = parse_header(head)
            except CorruptRecordError:
                continue
            if not after < header.base_offset <= after + (1 << 31) or at + header.size > size:
                continue
            checked += 1
            if checked > _CHECKED_MAX:
                return True
            try:
                check(await file.read_at(at, header.size))
            except CorruptRecordError:
                continue
            return True
        position += max(len(data) - HEADER_BYTES, 1)
    return False
