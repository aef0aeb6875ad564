"""zstd: frames of blocks (RFC 8878). The headers bound the content and the decoder's window."""

from __future__ import annotations

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

_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_BLOCK_BYTES_MAX: Final = 128 * 1024  # RFC 8878, 3.1.1.2.4
#: Largest window of a decoder. Level 22 has this window, and Kafka's producer asks for it even for
#: a small batch. The decoder touches no more of the window than the content fills.
_WINDOW_BYTES_MAX: Final = 128 << 20
#: The block types are: 0 raw, 1 one byte repeated, 2 compressed.
_RLE: Final = 1


def compress(data: Buffer, level: int) -> bytes:
    """Return one frame whose header has the size of the content."""
    return bytes(cramjam.zstd.compress(data, level=level))


def decompress_into(data: Buffer, output: bytearray) -> int:
    """Decompress into a buffer of `size_bound` bytes. Return the size of the content."""
    try:
        return cramjam.zstd.decompress_into(data, output)
    except cramjam.DecompressionError as error:
        raise does_not_decompress("zstd", error) from None


def size_bound(data: Buffer) -> int:
    """Return an upper bound for the content of the frames in `data`, without decompressing.

    Only the headers of frames and blocks are read (RFC 8878, 3.1.1). The bound of a frame is the
    smaller of two sizes: the size in its header, and the size that its blocks can have. The decoder
    refuses a frame whose header has a wrong size. Raises CorruptRecordError if a frame is
    incomplete or needs a window of more than 128 MiB, or if there are more than `BLOCKS_MAX` blocks
    and frames.
    """
    position = bound = 0
    blocks_left = BLOCKS_MAX
    try:
        while position < len(data):
            position, frame_bound, blocks_left = _frame(data, position, blocks_left - 1)
            bound += frame_bound
    except IndexError:
        position = len(data) + 1
    if position > len(data):
        raise is_cut("zstd", data)
    return bound


def _frame(data: Buffer, position: int, blocks_left: int) -> tuple[int, int, int]:
    """Return the position after a frame, its largest possible content, and the blocks left."""
    magic = bytes(data[position : position + 4])
    if magic[1:] == b"\x2a\x4d\x18" and magic[0] & 0xF0 == 0x50:  # a skippable frame
        if blocks_left < 0:
            raise too_many_blocks("zstd")
        size = bytes(data[position + 4 : position + 8])
        return position + 8 + int.from_bytes(size, "little"), 0, blocks_left
    if magic != _MAGIC:
        raise CorruptRecordError(f"zstd data has no frame at byte {position}")
    descriptor = data[position + 4]
    position += 5
    size_bytes = (0, 2, 4, 8)[descriptor >> 6]
    window: int | None = None
    # a single segment: the window is the content
    if descriptor & 0x20:
        size_bytes = size_bytes or 1
    else:
        exponent, mantissa = divmod(data[position], 8)
        window = (1 << (10 + exponent)) // 8 * (8 + mantissa)
        position += 1
    # the id of a dictionary; the decoder refuses dictionaries
    position += (0, 1, 2, 4)[descriptor & 3]
    content: int | None = None
    if size_bytes:
        content = int.from_bytes(data[position : position + size_bytes], "little")
        content += 256 if size_bytes == 2 else 0
    window = window if window is not None else content
    if window is None or window > _WINDOW_BYTES_MAX:
        raise CorruptRecordError(
            f"zstd data wants a window of {window} bytes; at most {_WINDOW_BYTES_MAX} are allowed"
        )
    position, bound, blocks_left = _blocks(data, position + size_bytes, blocks_left)
    if content is not None:
        bound = min(bound, content)
    return position + (4 if descriptor & 4 else 0), bound, blocks_left


def _blocks(data: Buffer, position: int, blocks_left: int) -> tuple[int, int, int]:
    """Return the position after the last block, the blocks' capacity, and the blocks left."""
    bound = 0
    while True:
        blocks_left -= 1
        if blocks_left < 0:
            raise too_many_blocks("zstd")
        header = data[position] | data[position + 1] << 8 | data[position + 2] << 16
        kind, size = header >> 1 & 3, header >> 3
        bound += min(size, _BLOCK_BYTES_MAX) if kind <= _RLE else _BLOCK_BYTES_MAX
        position += 3 + (1 if kind == _RLE else size)
        if header & 1:
            return position, bound, blocks_left
