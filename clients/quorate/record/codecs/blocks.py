"""Parts that the codecs share: the bound on the number of blocks, and the errors for bad bytes."""

from __future__ import annotations

from typing import Final

from quorate.errors import CorruptRecordError

Buffer = bytes | bytearray | memoryview

#: The most blocks, frames and chunks in one batch. Reading the header of one costs about half a
#: microsecond. 64 MiB need 512 blocks of zstd, 1024 of LZ4, and 2048 chunks of snappy.
BLOCKS_MAX: Final = 8192


class OversizeError(CorruptRecordError):
    """The content is larger than the reader allows, or may be larger."""


def too_many_blocks(codec: str) -> CorruptRecordError:
    """Return the error for data with more than `BLOCKS_MAX` blocks."""
    return CorruptRecordError(
        f"{codec} data has more than {BLOCKS_MAX} blocks and frames; compress a batch in one piece"
    )


def is_cut(codec: str, data: Buffer) -> CorruptRecordError:
    """Return the error for data that ends before its last block ends."""
    return CorruptRecordError(f"{codec} data of {len(data)} bytes is cut")


def does_not_decompress(codec: str, error: Exception) -> CorruptRecordError:
    """Return the error for data that the decoder refuses."""
    return CorruptRecordError(f"{codec} data does not decompress: {error}")
