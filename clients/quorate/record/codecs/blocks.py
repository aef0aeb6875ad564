"""What the codecs share: the bound of a walk over blocks, and the words for hostile bytes."""

from __future__ import annotations

from typing import Final

from quorate.errors import CorruptRecordError

Buffer = bytes | bytearray | memoryview

#: The most blocks, frames and chunks in one batch. A walk over one costs about half a microsecond.
#: 64 MiB need 512 blocks of zstd, 1024 of LZ4, and 2048 chunks of snappy.
BLOCKS_MAX: Final = 8192


class OversizeError(CorruptRecordError):
    """The content may be larger, or is larger, than the reader allows."""


def too_many_blocks(codec: str) -> CorruptRecordError:
    """Return the error for a walk that reached `BLOCKS_MAX`."""
    return CorruptRecordError(
        f"{codec} data has more than {BLOCKS_MAX} blocks and frames; compress a batch in one piece"
    )


def is_cut(codec: str, data: Buffer) -> CorruptRecordError:
    """Return the error for data that ends before its last block does."""
    return CorruptRecordError(f"{codec} data of {len(data)} bytes is cut")


def does_not_decompress(codec: str, error: Exception) -> CorruptRecordError:
    """Return the error for data that the decoder refuses."""
    return CorruptRecordError(f"{codec} data does not decompress: {error}")
