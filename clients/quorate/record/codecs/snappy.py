r"""snappy: xerial's stream of chunks, which Kafka's clients write, and one raw block.

     0  8  \x82 "SNAPPY" \0
     8  4  version: 1; some clients write it in the wrong byte order, so the reader ignores it
    12  4  lowest version that can read it: 1
    16     chunks: 4 bytes of length, big-endian, then one raw block each

A raw block begins with the size of its content, as a varint. The decoder refuses a block whose
content has another size.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
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

_MAGIC: Final = b"\x82SNAPPY\0"
_HEADER: Final = _MAGIC + struct.pack(">ii", 1, 1)
_LENGTH: Final = struct.Struct(">i")
#: Content of one chunk, as xerial and Kafka's clients write it.
_CHUNK_BYTES: Final = 32 * 1024
#: Three bytes make at most 64: an element that is a copy, with an offset of two bytes.
_COPY_BYTES, _COPIED_BYTES_MAX = 3, 64


def compress(data: Buffer) -> bytes:
    """Return a xerial stream."""
    view = memoryview(data)
    pieces = [_HEADER]
    for start in range(0, len(view), _CHUNK_BYTES):
        block = bytes(cramjam.snappy.compress_raw(view[start : start + _CHUNK_BYTES]))
        pieces += (_LENGTH.pack(len(block)), block)
    return b"".join(pieces)


def size_bound(data: Buffer) -> int:
    """Return the size of the content, which is the sum of the sizes in the blocks' headers.

    Raises CorruptRecordError for a size that a block of its length cannot have.
    """
    return sum(size for _, size in _blocks(memoryview(data)))


def decompress_into(data: Buffer, output: bytearray) -> int:
    """Decompress into a buffer of `size_bound` bytes. Return the size of the content."""
    view = memoryview(output)
    done = 0
    for block, size in _blocks(memoryview(data)):
        try:
            done += cramjam.snappy.decompress_raw_into(block, view[done : done + size])
        except cramjam.DecompressionError as error:
            raise does_not_decompress("snappy", error) from None
    return done


def _blocks(data: memoryview) -> Iterator[tuple[memoryview, int]]:
    """Yield each raw block, and the size that it claims."""
    if bytes(data[: len(_MAGIC)]) != _MAGIC:
        yield data, _claimed_size(data)
        return
    position = len(_HEADER)
    if position > len(data):
        raise is_cut("snappy", data)
    blocks = 0
    while position < len(data):
        blocks += 1
        if blocks > BLOCKS_MAX:
            raise too_many_blocks("snappy")
        start = position + _LENGTH.size
        if start > len(data):
            raise is_cut("snappy", data)
        (length,) = _LENGTH.unpack_from(data, position)
        position = start + length
        if length < 0 or position > len(data):
            raise CorruptRecordError(
                f"a chunk of snappy data says {length} bytes, and {len(data) - start} follow"
            )
        block = data[start:position]
        yield block, _claimed_size(block)


def _claimed_size(block: memoryview) -> int:
    size = shift = 0
    for index in range(min(5, len(block))):
        byte = block[index]
        size |= (byte & 0x7F) << shift
        if byte < 0x80:
            if size * _COPY_BYTES > (len(block) - index - 1) * _COPIED_BYTES_MAX:
                raise CorruptRecordError(
                    f"a snappy block of {len(block)} bytes claims {size}, which it can not hold"
                )
            return size
        shift += 7
    raise CorruptRecordError(f"a snappy block of {len(block)} bytes has no size")
