"""The codecs of record batches, by Kafka's numbers; decompression is bounded before it begins.

It stands below batch.py. The compressed bytes come from a peer or a disk, so their headers cannot
be trusted. Before a byte is decompressed, this module walks the frames block by block. So the
blocks that are really there bound both the output and the decoder's window.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import cramjam

from quorate.errors import CorruptRecordError, UnsupportedError

Buffer = bytes | bytearray | memoryview

NONE: Final = 0
GZIP: Final = 1
SNAPPY: Final = 2
LZ4: Final = 3
ZSTD: Final = 4

#: Names of the codecs; the index is the number in the attributes of a batch.
NAMES: Final = ("none", "gzip", "snappy", "lz4", "zstd")

#: The installed codecs: name -> number. See codec_named.
CODECS: Final[Mapping[str, int]] = MappingProxyType({"none": NONE, "zstd": ZSTD})

ZSTD_LEVEL: Final = 3  # zstd's own default, and Kafka's
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_BLOCK_BYTES_MAX = 128 * 1024  # RFC 8878, 3.1.1.2.4
#: Largest window of a decoder; RFC 8878, 3.1.1.1.2 asks every decoder to allow 8 MiB.
_ZSTD_WINDOW_BYTES_MAX = 64 << 20
#: A walk over one block costs about half a microsecond. 64 MiB need 512 blocks.
_ZSTD_BLOCKS_MAX = 8192
_RLE = 1  # block types: 0 raw, 1 one byte repeated, 2 compressed


def codec_named(name: str) -> int:
    """Return the number of a codec; UnsupportedError names the codecs that are installed."""
    codec = CODECS.get(name)
    if codec is None:
        raise UnsupportedError(f"compression {name!r} is not supported; there is {_there()}")
    return codec


def compress(codec: int, data: Buffer) -> bytes:
    """Return the compressed bytes; UnsupportedError for a codec that is not installed."""
    if codec == NONE:
        return bytes(data)
    if codec == ZSTD:
        return bytes(cramjam.zstd.compress(data, level=ZSTD_LEVEL))
    raise _unsupported(codec)


def size_bound(codec: int, data: Buffer) -> int:
    """Return an upper bound for the decompressed size of `data`, from its headers.

    Exact without a codec, and for frames whose header has the size, as those of `compress`. The
    cost grows with the number of blocks, at most `_ZSTD_BLOCKS_MAX`.
    Raises CorruptRecordError for impossible headers.
    Raises UnsupportedError for a codec that is not installed.
    """
    if codec == NONE:
        return len(data)
    if codec != ZSTD:
        raise _unsupported(codec)
    return zstd_size_bound(data)


def decompress(codec: int, data: Buffer, size_max: int) -> bytes:
    """Return the decompressed bytes.

    Memory: twice the output, which is at most `size_bound` of the data, and the decoder's window of
    at most 64 MiB.
    Raises CorruptRecordError if `size_bound` is above `size_max`, or the bytes do not decompress.
    Raises UnsupportedError for a codec that is not installed.
    """
    bound = size_bound(codec, data)
    if bound > size_max:
        raise CorruptRecordError(f"a batch may decompress to {bound} bytes; {size_max} are allowed")
    if codec == NONE:
        return bytes(data)
    output = bytearray(bound)
    try:
        size = cramjam.zstd.decompress_into(data, output)
    except cramjam.DecompressionError as error:
        raise CorruptRecordError(f"zstd data does not decompress: {error}") from None
    return bytes(memoryview(output)[:size])


def zstd_size_bound(data: Buffer) -> int:
    """Return an upper bound for the content of the frames in `data`, without decompressing.

    Reads frame and block headers only (RFC 8878, 3.1.1). The bound of a frame is the smaller of two
    sizes: that in its header, and that which its blocks can hold. The decoder refuses a frame whose
    header has a wrong size. Raises CorruptRecordError if a frame is cut or needs a window of more
    than 64 MiB, or if there are more than `_ZSTD_BLOCKS_MAX` blocks and frames.
    """
    position = bound = 0
    blocks_left = _ZSTD_BLOCKS_MAX
    try:
        while position < len(data):
            position, frame_bound, blocks_left = _zstd_frame(data, position, blocks_left - 1)
            bound += frame_bound
    except IndexError:
        position = len(data) + 1
    if position > len(data):
        raise CorruptRecordError(f"zstd data of {len(data)} bytes is cut")
    return bound


def _zstd_frame(data: Buffer, position: int, blocks_left: int) -> tuple[int, int, int]:
    """Return the position after a frame, its largest possible content, and the blocks left."""
    magic = bytes(data[position : position + 4])
    if magic[1:] == b"\x2a\x4d\x18" and magic[0] & 0xF0 == 0x50:  # a skippable frame
        if blocks_left < 0:
            raise _too_many_blocks()
        size = bytes(data[position + 4 : position + 8])
        return position + 8 + int.from_bytes(size, "little"), 0, blocks_left
    if magic != _ZSTD_MAGIC:
        raise CorruptRecordError(f"zstd data has no frame at byte {position}")
    descriptor = data[position + 4]
    position += 5
    size_bytes = (0, 2, 4, 8)[descriptor >> 6]
    window: int | None = None
    if descriptor & 0x20:  # single segment: the window is the content
        size_bytes = size_bytes or 1
    else:
        exponent, mantissa = divmod(data[position], 8)
        window = (1 << (10 + exponent)) // 8 * (8 + mantissa)
        position += 1
    position += (0, 1, 2, 4)[descriptor & 3]  # the id of a dictionary, which the decoder refuses
    content: int | None = None
    if size_bytes:
        content = int.from_bytes(data[position : position + size_bytes], "little")
        content += 256 if size_bytes == 2 else 0
    window = window if window is not None else content
    if window is None or window > _ZSTD_WINDOW_BYTES_MAX:
        raise CorruptRecordError(
            f"zstd data wants a window of {window} bytes; "
            f"at most {_ZSTD_WINDOW_BYTES_MAX} are allowed"
        )
    position, bound, blocks_left = _zstd_blocks(data, position + size_bytes, blocks_left)
    if content is not None:
        bound = min(bound, content)
    return position + (4 if descriptor & 4 else 0), bound, blocks_left


def _zstd_blocks(data: Buffer, position: int, blocks_left: int) -> tuple[int, int, int]:
    """Return the position after a frame's last block, the blocks' capacity, and the blocks left."""
    bound = 0
    while True:
        blocks_left -= 1
        if blocks_left < 0:
            raise _too_many_blocks()
        header = data[position] | data[position + 1] << 8 | data[position + 2] << 16
        kind, size = header >> 1 & 3, header >> 3
        bound += min(size, _ZSTD_BLOCK_BYTES_MAX) if kind <= _RLE else _ZSTD_BLOCK_BYTES_MAX
        position += 3 + (1 if kind == _RLE else size)
        if header & 1:
            return position, bound, blocks_left


def _too_many_blocks() -> CorruptRecordError:
    return CorruptRecordError(
        f"zstd data has more than {_ZSTD_BLOCKS_MAX} blocks and frames; "
        "compress a batch in one piece"
    )


def _there() -> str:
    return ", ".join(sorted(CODECS))


def _unsupported(codec: int) -> UnsupportedError:
    name = NAMES[codec] if 0 <= codec < len(NAMES) else f"number {codec}"
    return UnsupportedError(f"compression {name} is not supported; there is {_there()}")
