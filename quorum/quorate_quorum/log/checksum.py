"""The checksum file of a compacted segment: it covers what Kafka's CRC leaves out.

The CRC of a batch does not cover base_offset, batch_length and leader_epoch. In other segments each
batch must begin where the one before it ends, so a changed offset shows. In a compacted segment a
changed offset may look like a gap. The file `00000000000000000042.checksum` is beside the segment.
The checksum file is made durable before the segment, and is removed before the segment is cut.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from crc32c import crc32c

from quorate.errors import CorruptRecordError
from quorate.record.batch import BatchHeader
from quorate_quorum.disk import Disk, read_whole
from quorate_quorum.log.segment import CHECKSUM, Segment

#: The three fields of one batch that its CRC leaves out, in their order.
_STAMPED = struct.Struct(">qii")
LAYOUT = struct.Struct(
    ">"
    "4s"  # magic
    "I"  # version
    "q"  # base_offset of the segment
    "q"  # end_offset: one past the last offset of the last batch
    "q"  # size of the segment in bytes
    "I"  # batches
    "I"  # crc: CRC-32C over base_offset, batch_length and leader_epoch of each batch
)
_CRC = struct.Struct(">I")
VERSION = 1
_MAGIC = b"QSEG"


@dataclass(frozen=True, slots=True)
class SegmentChecksum:
    """The extent and the checksum of a compacted segment."""

    base_offset: int
    end_offset: int
    size: int
    batches: int
    crc: int

    def encode(self) -> bytes:
        body = LAYOUT.pack(
            _MAGIC,
            VERSION,
            self.base_offset,
            self.end_offset,
            self.size,
            self.batches,
            self.crc,
        )
        return body + _CRC.pack(crc32c(body))

    @classmethod
    def decode(cls, content: bytes) -> SegmentChecksum | None:
        """Return the checksum in a file; None if the file is damaged or of another version."""
        if len(content) != LAYOUT.size + _CRC.size:
            return None
        body = content[: LAYOUT.size]
        magic, version, *values = LAYOUT.unpack(body)
        is_ours = (magic, version) == (_MAGIC, VERSION)
        return (
            cls(*values)
            if is_ours and _CRC.unpack_from(content, LAYOUT.size)[0] == crc32c(body)
            else None
        )


class Checksummer:
    """Computes the checksum of a segment, batch by batch."""

    def __init__(self, base_offset: int) -> None:
        self._base_offset = base_offset
        self._end_offset = base_offset
        self._size = self._batches = self._crc = 0

    def add(self, header: BatchHeader) -> None:
        stamped = _STAMPED.pack(header.base_offset, header.batch_length, header.leader_epoch)
        self._crc = crc32c(stamped, self._crc)
        self._end_offset = header.end_offset
        self._size += header.size
        self._batches += 1

    def result(self) -> SegmentChecksum:
        return SegmentChecksum(
            self._base_offset, self._end_offset, self._size, self._batches, self._crc
        )


async def checksum_of(disk: Disk, path: str) -> SegmentChecksum | None:
    """Return the checksum in the file at `path`; None if the file is missing or damaged."""
    if not await disk.exists(path):
        return None
    return SegmentChecksum.decode(await read_whole(disk, path))


async def misfit(disk: Disk, segment: Segment, next_base: int) -> str | None:
    """Return how a segment differs from its checksum file in base, end or size; None if it fits.

    The segment is not read. A segment without a checksum file fits.
    """
    path = segment.path(CHECKSUM)
    if not await disk.exists(path):
        return None
    known = await checksum_of(disk, path)
    if known is None:
        return f"{path} is damaged"
    found = (segment.base_offset, next_base, segment.size)
    expected = (known.base_offset, known.end_offset, known.size)
    if found == expected:
        return None
    return f"{segment.file.path} has (base, end, size) {found}, and had {expected}"


async def difference(segment: Segment, known: SegmentChecksum) -> str | None:
    """Read a whole segment. Return how it differs from its checksum; None if it does not."""
    found = Checksummer(segment.base_offset)
    position = 0
    while position < segment.size:
        chunk = await segment.scan(position, checked=True)
        for _, header in chunk.found:
            found.add(header)
        if chunk.bad is not None:
            return f"{segment.file.path}: {chunk.bad}"
        position = chunk.position
    if found.result() == known:
        return None
    return f"{segment.file.path} has {found.result()}, and had {known}"


async def check_whole(disk: Disk, segment: Segment) -> None:
    """Compare a segment with its checksum file, if it has one. Raises CorruptRecordError."""
    known = await checksum_of(disk, segment.path(CHECKSUM))
    wrong = None if known is None else await difference(segment, known)
    if wrong is not None:
        raise CorruptRecordError(wrong)
