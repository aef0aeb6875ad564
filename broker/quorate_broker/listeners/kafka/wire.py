"""What the generated messages share: the parts of Kafka's encoding that are not straight lines.

The *compact* encoding, which the flexible versions of a message use, has a varint in place of each
length: one more than the length, 0 for null. After the fields of a struct it has a section of
tagged fields. The older encoding has lengths of 16 or 32 bits, -1 for null.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct, pack, unpack_from
from struct import error as StructError
from typing import Final

from quorate.record.record import varint as encode_varint

#: A whole frame. It is not a memoryview: strings are cut from bytes in a third of the time.
Buffer = bytes | bytearray
#: A part of an encoded message. The records of a partition are a piece of their own.
Piece = bytes | memoryview

NO_UUID: Final = bytes(16)
VARINT_BYTES_MAX: Final = 5
#: The most items of all arrays of a message. An item of three bytes becomes a value of 150. Without
#: a bound, a frame as large as a Produce request may be would take gigabytes.
ITEMS_MAX: Final = 250_000
#: The encodings of the numbers of one byte, which are also varints up to 127.
BYTE: Final = tuple(bytes((value,)) for value in range(256))
#: Structs of so many 32-bit integers, for arrays as short as those of replicas are.
_SHORT: Final = 16
_INT32S: Final = tuple(Struct(f">{count}i") for count in range(_SHORT + 1))
_COMPACT_INT32S: Final = tuple(Struct(f">B{count}i") for count in range(_SHORT + 1))
_OLD_INT32S: Final = tuple(Struct(f">i{count}i") for count in range(_SHORT + 1))


class MalformedRequest(Exception):
    """The bytes are not the message that they should be. The connection must be closed."""


class LeftOver(MalformedRequest):
    """Bytes follow the end of the message, which is at `position`."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.position = position


#: What a read of bytes that are cut, or are no text, raises. The decoders make MalformedRequest of
#: it. A read beyond the end that raises nothing makes the position wrong, which they check too.
UNREADABLE: Final = (StructError, IndexError, UnicodeDecodeError)


def null(field: str) -> MalformedRequest:
    """Return the error of a field that must not be null."""
    return MalformedRequest(f"{field} is null, which this version does not allow")


def bad_count(field: str, count: int, left: int) -> MalformedRequest:
    """Return the error of an array that does not fit."""
    return MalformedRequest(
        f"{field} has {count} items in {left} bytes; a request has at most {ITEMS_MAX} items"
    )


def bad_tag(field: str) -> MalformedRequest:
    """Return the error of a tagged field that is longer or shorter than its size."""
    return MalformedRequest(f"the tagged field {field} has another size than it says")


def unreadable(message: str, error: Exception) -> MalformedRequest:
    """Return the error of bytes that are cut, or are no text."""
    return MalformedRequest(f"{message} is cut, or has a string that is no UTF-8: {error}")


def left_over(position: int, end: int) -> MalformedRequest:
    """Return the error of a message that ends before or after its bytes."""
    told = f"the message ends at {position}, its bytes at {end}"
    return LeftOver(told, position) if position < end else MalformedRequest(told)


# reading


def long_varint(buffer: Buffer, position: int) -> tuple[int, int]:
    r"""Return the varint at this position, and the position after it.

    >>> long_varint(b"\xac\x02", 0)
    (300, 2)
    """
    value = 0
    for shift in range(0, 7 * VARINT_BYTES_MAX, 7):
        byte = buffer[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise MalformedRequest(f"a varint of more than {VARINT_BYTES_MAX} bytes before {position}")


def skip_tags(buffer: Buffer, position: int) -> int:
    """Return the position after a section of tagged fields. None of them is known."""
    count, position = long_varint(buffer, position)
    for _ in range(count):
        _, position = long_varint(buffer, position)
        size, position = long_varint(buffer, position)
        position += size
    return position


def read_int32s(buffer: Buffer, position: int, count: int) -> list[int]:
    """Return so many integers. The caller has checked the count against the bytes left."""
    if count <= _SHORT:
        return list(_INT32S[count].unpack_from(buffer, position))
    return list(unpack_from(f">{count}i", buffer, position))


# writing


def varint(value: int) -> bytes:
    """Return an unsigned varint."""
    return BYTE[value] if value < 0x80 else encode_varint(value)


def nullable_string(text: str | None) -> bytes:
    """Return a string of the older encoding, or null."""
    if text is None:
        return b"\xff\xff"
    data = text.encode()
    return pack(">h", len(data)) + data


def compact_nullable_string(text: str | None) -> bytes:
    """Return a compact string, or null."""
    if text is None:
        return b"\0"
    data = text.encode()
    return varint(len(data) + 1) + data


def int32s(values: Sequence[int]) -> bytes:
    """Return an array of integers in the older encoding."""
    count = len(values)
    if count <= _SHORT:
        return _OLD_INT32S[count].pack(count, *values)
    return pack(f">i{count}i", count, *values)


def compact_int32s(values: Sequence[int]) -> bytes:
    """Return a compact array of integers."""
    count = len(values)
    if count <= _SHORT:
        return _COMPACT_INT32S[count].pack(count + 1, *values)
    return varint(count + 1) + pack(f">{count}i", *values)
