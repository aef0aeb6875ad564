"""LZ4: one frame of independent blocks, as Kafka's clients write it in batches of version 2.

    0  4  magic
    4  1  FLG: version (bits 6-7), independent blocks (5), block checksums (4), content size (3),
          content checksum (2), dictionary (0)
    5  1  BD: largest block (bits 4-6): 4 is 64 KiB, 5 256 KiB, 6 1 MiB, 7 4 MiB
    6  8  content size, if FLG says so
       1  checksum of the descriptor, which the decoder verifies
          blocks: 4 bytes of size (bit 31: stored as it is), bytes, checksum if FLG says so
       4  0: the end; then the checksum of the content, if FLG says so

Numbers are little-endian. Kafka's own readers refuse linked blocks and dictionaries, and read only
one frame. This module does the same: Kafka's readers can read whatever it accepts.
"""

from __future__ import annotations

import struct
from typing import Final

import cramjam

from quorate.errors import CorruptRecordError
from quorate.record.codecs.blocks import (
    BLOCKS_MAX,
    Buffer,
    does_not_decompress,
    is_cut,
    too_many_blocks,
)

_MAGIC: Final = b"\x04\x22\x4d\x18"
_LEGACY_MAGIC: Final = b"\x02\x21\x4c\x18"
_UINT32: Final = struct.Struct("<I")
_UINT64: Final = struct.Struct("<Q")
_VERSION_MASK, _VERSION = 0xC0, 0x40
_INDEPENDENT, _BLOCK_CHECKSUM, _CONTENT_SIZE, _CONTENT_CHECKSUM, _DICTIONARY = 32, 16, 8, 4, 1
_BLOCK_BYTES_MAX: Final = {4: 64 << 10, 5: 256 << 10, 6: 1 << 20, 7: 4 << 20}
_STORED: Final = 1 << 31
#: One byte of a length stands for at most this many bytes.
_RATIO_MAX: Final = 255

#: At Kafka's default level LZ4's fast compressor is used; at every other level, the strong one.
FAST_LEVEL: Final = 9
#: LZ4's own levels of the strong compressor; 0 means the fast one.
_STRONG_LEVEL_MIN, _STRONG_LEVEL_MAX = 3, 12
#: Input of one call of the compressor, which holds the interpreter's lock meanwhile.
_INPUT_BYTES: Final = 64 << 10


def compress(data: Buffer, level: int) -> bytes:
    """Return one frame of independent blocks of 64 KiB, with checksums.

    `level` is one of Kafka's levels.
    """
    own = 0 if level == FAST_LEVEL else min(max(level, _STRONG_LEVEL_MIN), _STRONG_LEVEL_MAX)
    compressor = cramjam.lz4.Compressor(level=own, content_checksum=False, block_linked=False)
    view = memoryview(data)
    for start in range(0, len(view), _INPUT_BYTES):
        compressor.compress(bytes(view[start : start + _INPUT_BYTES]))
    return bytes(compressor.finish())


def decompress_into(data: Buffer, output: bytearray) -> int:
    """Decompress into a buffer of `size_bound` bytes. Return the size of the content."""
    try:
        return cramjam.lz4.decompress_into(data, output)
    except cramjam.DecompressionError as error:
        raise does_not_decompress("LZ4", error) from None


def size_bound(data: Buffer) -> int:
    """Return an upper bound for the content of the frame, without decompressing.

    Only the headers of the frame and of its blocks are read. The bound is the smaller of two sizes:
    the size in the frame's header, and the size that its blocks can have. The decoder refuses a
    frame whose header has a wrong size. Raises CorruptRecordError unless the data is one whole
    frame of independent blocks, at most `BLOCKS_MAX` of them.
    """
    try:
        return _frame_bound(data)
    except (IndexError, struct.error):
        raise is_cut("LZ4", data) from None


def _frame_bound(data: Buffer) -> int:
    flags, block_bytes_max, position = _descriptor(data)
    content: int | None = None
    if flags & _CONTENT_SIZE:
        (content,) = _UINT64.unpack_from(data, position)
        position += _UINT64.size
    bound, position = _blocks(data, position + 1, block_bytes_max, flags)
    if flags & _CONTENT_CHECKSUM:
        position += _UINT32.size
    if position > len(data):
        raise is_cut("LZ4", data)
    if position < len(data):
        raise CorruptRecordError(f"{len(data) - position} bytes follow the frame of LZ4 data")
    return bound if content is None else min(bound, content)


def _descriptor(data: Buffer) -> tuple[int, int, int]:
    """Return the flags, the largest size of a block, and the position after both."""
    magic = bytes(data[:4])
    if magic == _LEGACY_MAGIC:
        raise CorruptRecordError("LZ4 data has a legacy frame, which does not tell where it ends")
    if magic != _MAGIC[: len(magic)]:
        raise CorruptRecordError("LZ4 data does not begin with a frame")
    flags, block = data[4], data[5]
    if flags & _VERSION_MASK != _VERSION:
        raise CorruptRecordError(f"LZ4 data has a frame of version {flags >> 6}, not 1")
    if not flags & _INDEPENDENT:
        raise CorruptRecordError(
            "LZ4 data has linked blocks; Kafka's readers need independent ones"
        )
    if flags & _DICTIONARY:
        raise CorruptRecordError("LZ4 data wants a dictionary, and there is none")
    block_bytes_max = _BLOCK_BYTES_MAX.get(block >> 4 & 7)
    if block_bytes_max is None:
        raise CorruptRecordError(f"LZ4 data has blocks of size {block >> 4 & 7}; 4 to 7 may be")
    return flags, block_bytes_max, 6


def _blocks(data: Buffer, position: int, block_bytes_max: int, flags: int) -> tuple[int, int]:
    """Return the size that the blocks can have, and the position after the last block."""
    bound = 0
    checksum = _UINT32.size if flags & _BLOCK_CHECKSUM else 0
    for _ in range(BLOCKS_MAX):
        (word,) = _UINT32.unpack_from(data, position)
        position += _UINT32.size
        if not word:
            return bound, position
        size = word & ~_STORED
        if size > block_bytes_max:
            raise CorruptRecordError(
                f"LZ4 data has a block of {size} bytes; {block_bytes_max} are its frame's largest"
            )
        bound += size if word & _STORED else min(size * _RATIO_MAX, block_bytes_max)
        position += size + checksum
    raise too_many_blocks("LZ4")
