"""One record in a batch: its bytes, and the hot loop of the producer (the consumer's: decoder.py).

    length           varint   bytes after this field
    attributes       int8     unused, 0
    timestamp delta  varlong  to the batch's base_timestamp
    offset delta     varint   to the batch's base_offset
    key length       varint   -1: null;  then the key
    value length     varint   -1: null;  then the value
    headers          varint   count;  then each: key length, key (UTF-8), value length, value

Varints are zigzag. Almost all of them fit into one or two bytes. These are written from a table and
read without a call, because a call for each field would double the cost.
"""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from typing import Final, NamedTuple

from quorate.errors import CorruptRecordError
from quorate.model import TIMESTAMP_MIN as TIMESTAMP_MIN
from quorate.model import Header

INT64_MAX: Final = (1 << 63) - 1

#: Length, attributes, two deltas, two lengths and a header count: one byte each.
RECORD_BYTES_MIN: Final = 7
#: Largest size of a record without its key, value and headers.
RECORD_OVERHEAD_MAX: Final = 32


class RawRecord(NamedTuple):
    """A record as it is in the bytes. None is null; b"" is empty."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]


def record_bytes_max(key: bytes | None, value: bytes | None, headers: Sequence[Header]) -> int:
    """Return an upper bound for the bytes of a record at any place in a batch."""
    size = (len(key) if key else 0) + (len(value) if value else 0) + RECORD_OVERHEAD_MAX
    return size + headers_bytes_max(headers) if headers else size


def headers_bytes_max(headers: Sequence[Header]) -> int:
    """Return an upper bound for the headers' bytes.

    >>> headers_bytes_max([("trace", b"12"), ("é", None)])
    29
    """
    return sum(len(name.encode()) + len(value or b"") + 10 for name, value in headers)


def varint(value: int) -> bytes:
    """Return the varint of a number that is 0 or more. protobuf has the same varints.

    >>> varint(300).hex()
    'ac02'
    """
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_varint(value: int) -> bytes:
    """Return the zigzag varint of a 64-bit number.

    >>> encode_varint(-1).hex(), encode_varint(64).hex()
    ('01', '8001')
    """
    return varint(value << 1 if value >= 0 else (-value << 1) - 1)


#: The zigzag varints of 0 to 8191, of one or two bytes each.
VARINTS: Final = (
    *(bytes((raw,)) for raw in range(0, 128, 2)),
    *(bytes((low, high)) for high in range(1, 128) for low in range(128, 256, 2)),
)
_TABLE_END: Final = len(VARINTS)
_NULL: Final = encode_varint(-1)
_ZERO: Final = b"\0"
#: The bits of a byte that is no whole varint, or an odd one: a length below 0, such as null's.
_LONG_OR_ODD: Final = 0x81


def encode_record(
    pieces: MutableSequence[bytes],
    timestamp_delta: int,
    offset_delta: int,
    key: bytes | None,
    value: bytes | None,
    headers: Sequence[Header],
) -> int:
    """Append the pieces of one record. Return its size in bytes."""
    timestamp = (
        VARINTS[timestamp_delta]
        if 0 <= timestamp_delta < _TABLE_END
        else encode_varint(timestamp_delta)
    )
    offset = VARINTS[offset_delta] if offset_delta < _TABLE_END else encode_varint(offset_delta)
    if key is None:
        key = b""
        key_length = _NULL
    else:
        size = len(key)
        key_length = VARINTS[size] if size < _TABLE_END else encode_varint(size)
    if value is None:
        value = b""
        value_length = _NULL
    else:
        size = len(value)
        value_length = VARINTS[size] if size < _TABLE_END else encode_varint(size)
    tail = _encode_headers(headers) if headers else _ZERO
    size = (
        1
        + len(timestamp)
        + len(offset)
        + len(key_length)
        + len(key)
        + len(value_length)
        + len(value)
        + len(tail)
    )
    length = VARINTS[size] if size < _TABLE_END else encode_varint(size)
    pieces += (length, _ZERO, timestamp, offset, key_length, key, value_length, value, tail)
    return size + len(length)


def _encode_headers(headers: Sequence[Header]) -> bytes:
    pieces = [encode_varint(len(headers))]
    for name, value in headers:
        key = name.encode()
        pieces += (encode_varint(len(key)), key)
        pieces += (_NULL,) if value is None else (encode_varint(len(value)), value)
    return b"".join(pieces)


def with_timestamp_delta(record: bytes, delta: int) -> bytes:
    """Return the bytes of a whole record, with another timestamp delta."""
    _, position = read_varint(record, 0)
    _, rest = read_varint(record, position + 1, bits=64)
    body = record[position : position + 1] + encode_varint(delta) + record[rest:]
    return encode_varint(len(body)) + body


def decode_headers(data: bytes, position: int, end: int) -> tuple[tuple[Header, ...], int]:
    """Return a record's headers and the position after them. Raise IndexError beyond the data."""
    raw = data[position]
    position += 1
    if raw >= 0x80:
        raw, position = read_varint(data, position - 1)
    # raw is the zigzag form of the count: twice the count. Each header has at least two bytes, so
    # raw is also the least number of bytes that must follow.
    if raw & 1 or raw > end - position:
        raise corrupt_record(position, "its number of headers")
    headers: list[Header] = []
    for _ in range(raw >> 1):
        # Short parts that are not null are read without a call, which takes half of the time.
        raw = data[position]
        stop = position + 1 + (raw >> 1)
        if raw & _LONG_OR_ODD or stop > end:
            name, position = _read_bytes(data, position, end)
        else:
            name, position = data[position + 1 : stop], stop
        raw = data[position]
        stop = position + 1 + (raw >> 1)
        value: bytes | None
        if raw & _LONG_OR_ODD or stop > end:
            value, position = _read_bytes(data, position, end)
        else:
            value, position = data[position + 1 : stop], stop
        if name is None:
            raise corrupt_record(position, "a header's null key")
        try:
            headers.append((name.decode(), value))
        except UnicodeDecodeError:
            raise corrupt_record(position, "a header's key, which is not UTF-8") from None
    return tuple(headers), position


def _read_bytes(data: bytes, position: int, end: int) -> tuple[bytes | None, int]:
    raw, position = read_varint(data, position)
    if raw == 1:
        return None, position
    stop = position + (raw >> 1)
    if raw & 1 or stop > end:
        raise corrupt_record(position, "the length of a header's part")
    return data[position:stop], stop


def read_varint(data: bytes, position: int, *, bits: int = 32) -> tuple[int, int]:
    """Return a varint, still in zigzag form, and the position after it.

    Raises IndexError beyond the data.
    """
    raw = shift = 0
    start = position
    while True:
        byte = data[position]
        position += 1
        raw |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift >= bits:
            raise corrupt_record(start, f"a number of more than {bits} bits")
    if raw >> bits:
        raise corrupt_record(start, f"a number of more than {bits} bits")
    return raw, position


def corrupt_record(position: int, what: str) -> CorruptRecordError:
    """Return the error for the record at this byte of a batch. `what` is its impossible part."""
    return CorruptRecordError(f"the record at byte {position} of a batch is impossible: {what}")
