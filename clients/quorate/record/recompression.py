"""A batch under another codec: its records stay as they are, byte for byte."""

from __future__ import annotations

import struct
from typing import Final

from crc32c import crc32c

from quorate.record import compression
from quorate.record.batch import CODEC_MASK, HEADER_BYTES, Buffer

_LENGTH: Final = struct.Struct(">i")  # of all after byte 12
_LENGTH_AT: Final = 8
_CRC: Final = struct.Struct(">I")  # of all that follows it
_CRC_AT: Final = 17
_ATTRIBUTES: Final = struct.Struct(">h")
_ATTRIBUTES_AT: Final = 21


def codec_of(batch: Buffer) -> int:
    """Return the codec that the bytes name, which may be no batch: nothing is checked."""
    last = _ATTRIBUTES_AT + 1
    return batch[last] & CODEC_MASK if len(batch) > last else compression.NONE


def recompressed(batch: Buffer, records: Buffer, codec: int, level: int | None) -> bytes:
    """Return the batch with its decompressed records under `codec`.

    Sequence, timestamps, flags, count and offsets of the header stay. The batch has this codec even
    if that makes it larger, as with Kafka: what a topic says of its batches is then true of all.
    """
    body = compression.compress(codec, records, level)
    made = bytearray().join((memoryview(batch)[:HEADER_BYTES], body))
    (attributes,) = _ATTRIBUTES.unpack_from(made, _ATTRIBUTES_AT)
    _ATTRIBUTES.pack_into(made, _ATTRIBUTES_AT, attributes & ~CODEC_MASK | codec)
    _LENGTH.pack_into(made, _LENGTH_AT, len(made) - _LENGTH_AT - _LENGTH.size)
    _CRC.pack_into(made, _CRC_AT, crc32c(memoryview(made)[_ATTRIBUTES_AT:]))
    return bytes(made)
