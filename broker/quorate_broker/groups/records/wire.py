"""Kafka's encoding of fields: fixed ones in big-endian order, "compact" ones with a varint length.

A record of a *flexible* version has compact strings and arrays, and after its fields a section of
tagged fields; an unknown tag is passed over. The Kafka protocol guide describes both.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from quorate.errors import CorruptRecordError, UnsupportedError
from quorate.record.record import varint

T = TypeVar("T")

#: The longest string of the older encoding, whose length has 16 bits.
STRING_BYTES_MAX: Final = 0x7FFF
UUID_BYTES: Final = 16
INT16: Final = struct.Struct(">h")
INT32: Final = struct.Struct(">i")
INT64: Final = struct.Struct(">q")
#: The section of tagged fields that has none.
NO_TAGS: Final = b"\0"


def string(text: str) -> bytes:
    """Return a string of the older encoding: its length in 16 bits, then UTF-8."""
    data = text.encode()
    assert len(data) <= STRING_BYTES_MAX, "ids and names are bounded at the door"
    return INT16.pack(len(data)) + data


def nullable_string(text: str | None) -> bytes:
    """Return a string of the older encoding; the length -1: null."""
    return INT16.pack(-1) if text is None else string(text)


def sized_bytes(data: bytes) -> bytes:
    """Return bytes of the older encoding: their length in 32 bits, then themselves."""
    return INT32.pack(len(data)) + data


def compact_string(text: str | None) -> bytes:
    """Return a compact string: one more than its length, then UTF-8; 0: null."""
    if text is None:
        return b"\0"
    data = text.encode()
    return varint(len(data) + 1) + data


def compact_bytes(data: bytes) -> bytes:
    """Return compact bytes: one more than their length, then themselves."""
    return varint(len(data) + 1) + data


def compact_array(items: Iterable[bytes]) -> bytes:
    """Return a compact array of items that are encoded already."""
    encoded = list(items)
    return varint(len(encoded) + 1) + b"".join(encoded)


def int32s(values: Iterable[int]) -> bytes:
    """Return a compact array of 32-bit integers."""
    listed = list(values)
    return varint(len(listed) + 1) + struct.pack(f">{len(listed)}i", *listed)


def tagged(fields: dict[int, bytes]) -> bytes:
    """Return the section of tagged fields, in the order of their tags.

    >>> tagged({0: b"ab"}).hex()
    '0100026162'
    """
    out = varint(len(fields))
    for tag in sorted(fields):
        out += varint(tag) + varint(len(fields[tag])) + fields[tag]
    return out


class Reader:
    """Reads fields from bytes. Raises CorruptRecordError if the bytes end too early."""

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._at = 0
        self._what = what

    def corrupt(self, found: str) -> CorruptRecordError:
        """Return the error that names the record and the position."""
        return CorruptRecordError(f"{self._what} of {len(self._data)} bytes: {found} at {self._at}")

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        end = self._at + size
        if size < 0 or end > len(self._data):
            raise self.corrupt(f"a field of {size} bytes does not fit")
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def int8(self) -> int:
        return int.from_bytes(self.take(1), "big", signed=True)

    def int16(self) -> int:
        return int.from_bytes(self.take(2), "big", signed=True)

    def int32(self) -> int:
        return int.from_bytes(self.take(4), "big", signed=True)

    def int64(self) -> int:
        return int.from_bytes(self.take(8), "big", signed=True)

    def uuid(self) -> bytes:
        return self.take(UUID_BYTES)

    def varint(self) -> int:
        """Return an unsigned varint of 32 bits at most."""
        value = 0
        for shift in range(0, 35, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise self.corrupt("a varint of more than five bytes")

    def _text(self, size: int) -> str:
        try:
            return self.take(size).decode()
        except UnicodeDecodeError:
            raise self.corrupt("a string that is not UTF-8") from None

    def string(self) -> str:
        """Return a string of the older encoding."""
        return self._text(self.int16())

    def old_nullable_string(self) -> str | None:
        """Return a string of the older encoding, or None."""
        size = self.int16()
        return None if size == -1 else self._text(size)

    def sized_bytes(self) -> bytes:
        """Return bytes of the older encoding."""
        return self.take(self.int32())

    def old_array(self, item: Callable[[], T]) -> list[T]:
        """Return an array of the older encoding. Its size is checked against what remains."""
        size = self.int32()
        if not 0 <= size <= len(self._data) - self._at:
            raise self.corrupt(f"an array of {size} items does not fit")
        return [item() for _ in range(size)]

    def compact_bytes(self) -> bytes:
        """Return compact bytes."""
        return self.take(self.varint() - 1)

    def nullable_string(self) -> str | None:
        """Return a compact string, or None."""
        size = self.varint()
        return None if size == 0 else self._text(size - 1)

    def compact_string(self) -> str:
        """Return a compact string that must not be null."""
        text = self.nullable_string()
        if text is None:
            raise self.corrupt("null in place of a string")
        return text

    def array(self, item: Callable[[], T]) -> list[T]:
        """Return a compact array. Its size is checked against the bytes that remain."""
        size = self.varint() - 1
        if not 0 <= size <= len(self._data) - self._at:
            raise self.corrupt(f"an array of {size} items does not fit")
        return [item() for _ in range(size)]

    def int32s(self) -> list[int]:
        """Return a compact array of 32-bit integers."""
        size = self.varint() - 1
        return list(struct.unpack(f">{size}i", self.take(4 * size))) if size >= 0 else []

    def tagged(self) -> dict[int, Reader]:
        """Return the tagged fields, each with a reader of its own."""
        fields = {}
        for _ in range(self.varint()):
            tag, size = self.varint(), self.varint()
            fields[tag] = Reader(self.take(size), f"{self._what}, tag {tag}")
        return fields


def checked_version(reader: Reader, newest: int) -> int:
    """Return the version that a value begins with.

    Raises CorruptRecordError, or UnsupportedError for a version of a newer program.
    """
    version = reader.int16()
    if not 0 <= version <= newest:
        raise UnsupportedError(
            f"{reader.corrupt('its version')} is {version}; this program reads versions up to "
            f"{newest}. A newer program wrote it: use that one."
        )
    return version
