"""Puts a batch under another codec. The bytes of its records do not change."""

from __future__ import annotations

import struct
from typing import Final

from crc32c import crc32c

from quorate.record import compression
from quorate.record.batch import CODEC_MASK, HEADER_BYTES, Buffer

_LENGTH: Final = struct.Struct(">i")  # of all bytes after byte 12
_LENGTH_AT: Final = 8
_CRC: Final = struct.Struct(">I")  # of all bytes after this field
_CRC_AT: Final = 17
_ATTRIBUTES: Final = struct.Struct(">h")
_ATTRIBUTES_AT: Final = 21


def codec_of(batch: Buffer) -> int:
    """Return the codec that the batch's attributes name.

    Nothing is checked: the bytes may be no batch.
    """
    last = _ATTRIBUTES_AT + 1
    return batch[last] & CODEC_MASK if len(batch) > last else compression.NONE


def recompressed(batch: Buffer, records: Buffer, codec: int, level: int | None) -> bytes:
    """Return the batch with `codec`. `records` are the batch's decompressed records.

    The header's sequence, timestamps, flags, count and offsets do not change. The batch gets this
    codec even if this makes it larger, as in Kafka: then all batches of a topic have the topic's
    codec.
    """
    body = compression.compress(codec, records, level)
    made = bytearray().join((memoryview(batch)[:HEADER_BYTES], body))
    (attributes,) = _ATTRIBUTES.unpack_from(made, _ATTRIBUTES_AT)
    _ATTRIBUTES.pack_into(made, _ATTRIBUTES_AT, attributes & ~CODEC_MASK | codec)
    _LENGTH.pack_into(made, _LENGTH_AT, len(made) - _LENGTH_AT - _LENGTH.size)
    _CRC.pack_into(made, _CRC_AT, crc32c(memoryview(made)[_ATTRIBUTES_AT:]))
    return bytes(made)
