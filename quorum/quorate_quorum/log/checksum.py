"""The checksum file of a compacted segment: it covers what Kafka's CRC leaves out.

The CRC of a batch does not cover base_offset, batch_length and leader_epoch. In other segments each
batch must begin where the one before it ends, so a changed offset shows. In a compacted segment a
changed offset may look like a gap. The file `00000000000000000042.checksum` is beside the segment.
The checksum file is made durable before the segment, and is removed before the segment is cut.
A CRC for each block of about 64 KiB lets a read verify its part of the segment alone.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
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
    "I"  # blocks, which follow
)
#: The position at which a block of whole batches ends, and the CRC over its batches, as above.
BLOCK = struct.Struct(">II")
_CRC = struct.Struct(">I")
VERSION = 2
_MAGIC = b"QSEG"
#: A block ends with the batch that makes it this large or larger.
BLOCK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class SegmentChecksum:
    """The extent and the checksum of a compacted segment."""

    base_offset: int
    end_offset: int
    size: int
    batches: int
    crc: int
    #: The end position and the CRC of each block, in order.
    blocks: tuple[tuple[int, int], ...]

    def encode(self) -> bytes:
        body = LAYOUT.pack(
            _MAGIC,
            VERSION,
            self.base_offset,
            self.end_offset,
            self.size,
            self.batches,
            self.crc,
            len(self.blocks),
        ) + b"".join(BLOCK.pack(*block) for block in self.blocks)
        return body + _CRC.pack(crc32c(body))

    def block_of(self, position: int) -> tuple[int, int, int]:
        """Return (start, stop, crc) of the block that holds a position of the segment."""
        at = bisect_right(self.blocks, position, key=lambda block: block[0])
        stop, crc = self.blocks[at]
        return self.blocks[at - 1][0] if at else 0, stop, crc

    @classmethod
    def decode(cls, content: bytes) -> SegmentChecksum | None:
        """Return the checksum in a file; None if the file is damaged or of another version."""
        body, crc = content[: -_CRC.size], content[-_CRC.size :]
        if len(body) < LAYOUT.size or _CRC.pack(crc32c(body)) != crc:
            return None
        magic, version, *values, count = LAYOUT.unpack_from(body)
        if (magic, version, len(body)) != (_MAGIC, VERSION, LAYOUT.size + count * BLOCK.size):
            return None
        blocks = tuple((stop, crc) for stop, crc in BLOCK.iter_unpack(body[LAYOUT.size :]))
        base_offset, end_offset, size, batches, crc_of_all = values
        return cls(base_offset, end_offset, size, batches, crc_of_all, blocks)


def stamped(header: BatchHeader, crc: int) -> int:
    """Return a CRC that also covers what the CRC of this batch leaves out."""
    return crc32c(_STAMPED.pack(header.base_offset, header.batch_length, header.leader_epoch), crc)


class Checksummer:
    """Computes the checksum of a segment, batch by batch."""

    def __init__(self, base_offset: int) -> None:
        self._base_offset = base_offset
        self._end_offset = base_offset
        self._size = self._batches = self._crc = 0
        self._blocks: list[tuple[int, int]] = []
        #: The CRC of the block that is not complete, and where that block began.
        self._block_crc = self._block_start = 0

    def add(self, header: BatchHeader) -> None:
        self._crc = stamped(header, self._crc)
        self._block_crc = stamped(header, self._block_crc)
        self._end_offset = header.end_offset
        self._size += header.size
        self._batches += 1
        if self._size - self._block_start >= BLOCK_BYTES:
            self._blocks.append((self._size, self._block_crc))
            self._block_crc, self._block_start = 0, self._size

    def result(self) -> SegmentChecksum:
        last = [(self._size, self._block_crc)] if self._size > self._block_start else []
        return SegmentChecksum(
            self._base_offset,
            self._end_offset,
            self._size,
            self._batches,
            self._crc,
            (*self._blocks, *last),
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
