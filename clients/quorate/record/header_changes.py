"""What a leader changes in the header of a batch under its CRC: the times."""

from __future__ import annotations

import struct
from typing import Final

from crc32c import crc32c

from quorate.record.batch import HEADER_BYTES, LOG_APPEND_TIME, Buffer

_CRC: Final = struct.Struct(">I")  # of all bytes after this field
_CRC_AT: Final = 17
_ATTRIBUTES: Final = struct.Struct(">h")
_ATTRIBUTES_AT: Final = 21
_MAX_TIMESTAMP: Final = struct.Struct(">q")
_MAX_TIMESTAMP_AT: Final = 35


def with_log_append_time(batch: Buffer, now_ms: int) -> bytes:
    """Return the batch with LogAppendTime `now_ms` and the CRC that fits it."""
    changed = bytearray(batch)
    (attributes,) = _ATTRIBUTES.unpack_from(changed, _ATTRIBUTES_AT)
    _ATTRIBUTES.pack_into(changed, _ATTRIBUTES_AT, attributes | LOG_APPEND_TIME)
    return _with_max_timestamp(changed, now_ms)


def with_max_timestamp(batch: Buffer, max_timestamp: int) -> bytes:
    """Return the batch with another max_timestamp and the CRC that fits it."""
    return _with_max_timestamp(bytearray(batch), max_timestamp)


def agrees_with_its_crc(batch: Buffer) -> bool:
    """Return whether the bytes are those of their CRC, whatever else they say."""
    if len(batch) < HEADER_BYTES:
        return False
    (crc,) = _CRC.unpack_from(batch, _CRC_AT)
    return bool(crc == crc32c(memoryview(batch)[_ATTRIBUTES_AT:]))


def _with_max_timestamp(changed: bytearray, max_timestamp: int) -> bytes:
    _MAX_TIMESTAMP.pack_into(changed, _MAX_TIMESTAMP_AT, max_timestamp)
    _CRC.pack_into(changed, _CRC_AT, crc32c(memoryview(changed)[_ATTRIBUTES_AT:]))
    return bytes(changed)
