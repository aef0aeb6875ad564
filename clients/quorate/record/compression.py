"""The codecs of record batches, by Kafka's numbers. Decompression is bounded.

Compressed bytes come from a peer or a disk, so their headers cannot be trusted. For zstd, LZ4 and
snappy, the headers of all blocks are read before a byte is decompressed: the blocks that are really
there bound the output and the decoder's window. gzip has no such headers. Its output is counted,
and stops at the bound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from quorate.errors import UnsupportedError
from quorate.record.codecs import gzip, lz4, snappy, zstd
from quorate.record.codecs.blocks import Buffer, OversizeError

__all__ = [
    "CODECS",
    "GZIP",
    "LEVELS",
    "LZ4",
    "NAMES",
    "NONE",
    "SNAPPY",
    "ZSTD",
    "Levels",
    "OversizeError",
    "codec_named",
    "compress",
    "decompress",
    "size_bound",
]

NONE: Final = 0
GZIP: Final = 1
SNAPPY: Final = 2
LZ4: Final = 3
ZSTD: Final = 4

#: Names of the codecs. The index is the codec's number in the attributes of a batch.
NAMES: Final = ("none", "gzip", "snappy", "lz4", "zstd")

#: Name -> number. codec_named also refuses unknown names.
CODECS: Final[Mapping[str, int]] = MappingProxyType(
    {name: number for number, name in enumerate(NAMES)}
)


@dataclass(frozen=True, slots=True)
class Levels:
    """The levels of a codec, with Kafka's numbers: from `least` to `most`, and `default`."""

    least: int
    most: int
    default: int

    def allow(self, level: int) -> bool:
        """Return whether the codec has this level."""
        return self.least <= level <= self.most or level == self.default

    @property
    def allowed(self) -> str:
        """The levels in words, for errors."""
        span = f"{self.least} to {self.most}"
        return span if self.least <= self.default <= self.most else f"{self.default}, or {span}"


#: snappy has no levels. gzip's -1 stands for zlib's own default, 6.
LEVELS: Final[Mapping[int, Levels]] = MappingProxyType(
    {GZIP: Levels(1, 9, -1), LZ4: Levels(1, 17, lz4.FAST_LEVEL), ZSTD: Levels(-131072, 22, 3)}
)

_COMPRESS: Final[Mapping[int, Callable[[Buffer, int], bytes]]] = {
    GZIP: gzip.compress,
    SNAPPY: lambda data, _: snappy.compress(data),
    LZ4: lz4.compress,
    ZSTD: zstd.compress,
}
_SIZE_BOUND: Final[Mapping[int, Callable[[Buffer], int]]] = {
    NONE: len,
    GZIP: gzip.size_bound,
    SNAPPY: snappy.size_bound,
    LZ4: lz4.size_bound,
    ZSTD: zstd.size_bound,
}
_DECOMPRESS_INTO: Final[Mapping[int, Callable[[Buffer, bytearray], int]]] = {
    SNAPPY: snappy.decompress_into,
    LZ4: lz4.decompress_into,
    ZSTD: zstd.decompress_into,
}


def codec_named(name: str) -> int:
    """Return the number of a codec. For an unknown name UnsupportedError lists the codecs."""
    codec = CODECS.get(name)
    if codec is None:
        raise UnsupportedError(f"compression {name!r} is not supported; there is {_there()}")
    return codec


def compress(codec: int, data: Buffer, level: int | None = None) -> bytes:
    """Return the compressed bytes. A level of None is the codec's default.

    Raises UnsupportedError for an unknown codec.
    """
    if codec == NONE:
        return bytes(data)
    if codec not in _COMPRESS:
        raise _unsupported(codec)
    if level is None:
        level = LEVELS[codec].default if codec in LEVELS else 0
    return _COMPRESS[codec](data, level)


def size_bound(codec: int, data: Buffer) -> int:
    """Return an upper bound for the decompressed size of `data`. Only headers are read.

    The bound is exact for snappy, without a codec, and for frames whose header has the size (zstd
    frames of `compress` have it). For gzip the bound is 1032 times the size, because no header says
    more. The cost grows with the number of blocks, at most `BLOCKS_MAX`. Raises CorruptRecordError
    for impossible headers. Raises UnsupportedError for an unknown codec.
    """
    if codec not in _SIZE_BOUND:
        raise _unsupported(codec)
    return _SIZE_BOUND[codec](data)


def decompress(codec: int, data: Buffer, size_max: int) -> bytes:
    """Return the decompressed bytes, `size_max` of them at most.

    The memory used is twice the output plus the decoder's window. The window is as large as the
    output for zstd, 8 MiB for LZ4 and 1 MiB for the others. The output is never larger than
    `size_bound` or `size_max`.
    Raises OversizeError, a CorruptRecordError, if the output (gzip) or `size_bound` (the others) is
    above `size_max`.
    Raises CorruptRecordError if the bytes do not decompress.
    Raises UnsupportedError for an unknown codec.
    """
    if codec == GZIP:
        return gzip.decompress(data, size_max)
    bound = size_bound(codec, data)
    if bound > size_max:
        raise OversizeError(f"a batch may decompress to {bound} bytes; {size_max} are allowed")
    if codec == NONE:
        return bytes(data)
    output = bytearray(bound)
    size = _DECOMPRESS_INTO[codec](data, output)
    return bytes(memoryview(output)[:size])


def _there() -> str:
    return ", ".join(NAMES)


def _unsupported(codec: int) -> UnsupportedError:
    name = NAMES[codec] if 0 <= codec < len(NAMES) else f"number {codec}"
    return UnsupportedError(f"compression {name} is not supported; there is {_there()}")
