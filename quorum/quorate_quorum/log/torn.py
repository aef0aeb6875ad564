"""Tells whether a bad end of a log is a write that a kill interrupted, or damage.

Within one boot, an interrupted write leaves the first part of its bytes: the kernel lengthens a
file only by what it has copied. So a torn batch has fewer bytes than its length says, and nothing
follows it. If a bad batch has all its bytes, or other batches of this log follow it, then it was
written whole and was damaged later: the replica has lost records of completed writes. The CRC does
not cover the length. So even if the length has changed, the CRC still shows where the batch ended.
"""

from __future__ import annotations

import re
from itertools import islice

from crc32c import crc32c

from quorate.errors import CorruptRecordError
from quorate.record.batch import HEADER_BYTES, check, parse_header
from quorate_quorum.disk import File
from quorate_quorum.log.segment import BATCH_BYTES_MAX

#: The size of base_offset and batch_length. The length counts the bytes after them.
_BEFORE = 12
#: The position in a batch from which the CRC covers the bytes. The CRC itself is just before it.
_CRC_COVERS_FROM = 21
#: The most batches that the search checks by their CRC. If more bytes of a tail look like batches,
#: the tail counts as damage.
_CHECKED_MAX = 64
_READ_BYTES = 1 << 20


async def is_torn(
    file: File, position: int, size: int, next_offset: int, *, gaps: bool = False
) -> bool:
    """Return whether the bytes from `position` to `size` are the first part of a write.

    `next_offset` is the log's end. The write must begin at that offset, or, with `gaps`, at or
    above it.
    """
    start = await file.read_at(position, _BEFORE)
    if len(start) < _BEFORE:
        return True
    base_offset = int.from_bytes(start[:8], "big", signed=True)
    length = int.from_bytes(start[8:], "big", signed=True)
    fits = base_offset == next_offset or (gaps and base_offset > next_offset)
    if not fits or not 0 <= length <= BATCH_BYTES_MAX:
        return False
    if position + _BEFORE + length <= size or await _is_whole(file, position, size):
        return False
    return not await has_later_batch(file, position + _BEFORE, size, next_offset)


async def _is_whole(file: File, position: int, size: int) -> bool:
    """Return whether the CRC shows that a batch ends before `size`, though its length says more.

    The CRC is tried at each of the last bytes, because a torn write may follow the batch, and at
    each place where the next batch may begin.
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
    """Return where in `data` a batch may end. `left`: bytes from its start to the file's end."""
    starts = re.finditer(b"(?=" + re.escape(offset_prefix) + b")", data[:left])
    found = {start.start() for start in islice(starts, _CHECKED_MAX)}
    last = range(max(left - HEADER_BYTES, 0), left + 1)
    return sorted({*found, *(end for end in last if end <= len(data)), len(data)} - {0})


async def has_later_batch(file: File, position: int, size: int, after: int) -> bool:
    """Return whether a whole batch with an offset above `after` follows.

    Every position is tried, because the length of the bad batch may have changed.
    """
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
