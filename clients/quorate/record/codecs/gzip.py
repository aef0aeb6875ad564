"""gzip: members of deflated bytes (RFC 1952). No header has the size, so the output is counted.

A trailer has the size of its member, but the number of members is not known before they are
inflated. So a reader inflates in small pieces and stops at its bound.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

from quorate.errors import CorruptRecordError
from quorate.record.codecs.blocks import Buffer, OversizeError, does_not_decompress, is_cut

#: The most bytes for which one deflated byte can stand (zlib, "Maximum Compression Factor").
_RATIO_MAX: Final = 1032
#: Most members of one batch. Producers write one. Each member costs a decoder, and a copy of the
#: bytes after it.
_MEMBERS_MAX: Final = 1024
#: The wbits of zlib for a window of 32 KiB and the gzip format.
_GZIP: Final = 31
#: Input and output of one call of the decoder. The decoder copies the input that it has not used,
#: so the cost is linear only with small pieces.
_INPUT_BYTES: Final = 64 * 1024
_OUTPUT_BYTES: Final = 1 << 20


def compress(data: Buffer, level: int) -> bytes:
    """Return the data as one member."""
    return zlib.compress(data, level, wbits=_GZIP)


def size_bound(data: Buffer) -> int:
    """Return the largest size that these bytes can decompress to.

    They usually decompress to far less.
    """
    return len(data) * _RATIO_MAX


def decompress(data: Buffer, size_max: int) -> bytes:
    """Return the content of all members.

    Raises OversizeError as soon as more than `size_max` bytes have come out.
    """
    pieces: list[bytes] = []
    size = 0
    try:
        for piece in _pieces(memoryview(data)):
            size += len(piece)
            if size > size_max:
                raise OversizeError(
                    f"a batch decompresses to more than the {size_max} bytes that are allowed"
                )
            pieces.append(piece)
    except zlib.error as error:
        raise does_not_decompress("gzip", error) from None
    return b"".join(pieces)


def _pieces(data: memoryview) -> Iterator[bytes]:
    """Yield the content of all members, in pieces of at most `_OUTPUT_BYTES`."""
    position = members = 0
    while position < len(data) or not members:
        members += 1
        if members > _MEMBERS_MAX:
            raise CorruptRecordError(f"gzip data has more than {_MEMBERS_MAX} members")
        decoder = zlib.decompressobj(wbits=_GZIP)
        while not decoder.eof:
            given: Buffer = decoder.unconsumed_tail
            if not given:
                given = data[position : position + _INPUT_BYTES]
                position += len(given)
            if not given:
                raise is_cut("gzip", data)
            yield decoder.decompress(given, _OUTPUT_BYTES)
        position -= len(decoder.unused_data)
