"""Serializers of numbers and booleans: the bytes are those of Kafka's serializers for Java."""

from __future__ import annotations

import struct
from typing import ClassVar

from quorate.object_rules import data_of
from quorate.settings import Whole, refused


def _unpacked(name: str, layout: struct.Struct, data: bytes) -> int | float:
    if data.__class__ is not bytes:
        data = data_of(name, data)
    if len(data) != layout.size:
        raise ValueError(
            refused(f"{name}.deserialize", "data", f"{layout.size} bytes", bytes(data))
            + f", which are {len(data)}"
        )
    found: int | float = layout.unpack(data)[0]
    return found


class _Integer:
    _layout: ClassVar[struct.Struct]
    _rule: ClassVar[Whole]

    def serialize(self, topic: str, value: int) -> bytes:
        """Return the number's bytes. Raise TypeError or ValueError if it is none of this size."""
        name = type(self).__name__
        return self._layout.pack(self._rule.check(f"{name}.serialize", "value", value))

    def deserialize(self, topic: str, data: bytes) -> int:
        """Return the number. Raise ValueError if the bytes are fewer or more."""
        return int(_unpacked(type(self).__name__, self._layout, data))


class Short(_Integer):
    r"""Serializer for integers of 2 bytes, big-endian.

    >>> Short().serialize("topic", -2)
    b'\xff\xfe'
    """

    _layout = struct.Struct(">h")
    _rule = Whole(-(1 << 15), (1 << 15) - 1)


class Integer(_Integer):
    r"""Serializer for integers of 4 bytes, big-endian.

    >>> Integer().serialize("topic", 258)
    b'\x00\x00\x01\x02'
    """

    _layout = struct.Struct(">i")
    _rule = Whole(-(1 << 31), (1 << 31) - 1)


class Long(_Integer):
    r"""Serializer for integers of 8 bytes, big-endian.

    >>> Long().serialize("topic", 258)
    b'\x00\x00\x00\x00\x00\x00\x01\x02'
    """

    _layout = struct.Struct(">q")
    _rule = Whole(-(1 << 63), (1 << 63) - 1)


class _Real:
    _layout: ClassVar[struct.Struct]

    def serialize(self, topic: str, value: float) -> bytes:
        """Return the number's bytes. Raise TypeError or ValueError if it is none of this size."""
        name = type(self).__name__
        allowed = f"a number that fits into {self._layout.size} bytes"
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(refused(f"{name}.serialize", "value", allowed, value))
        try:
            return self._layout.pack(value)
        except (OverflowError, struct.error):
            raise ValueError(refused(f"{name}.serialize", "value", allowed, value)) from None

    def deserialize(self, topic: str, data: bytes) -> float:
        """Return the number. Raise ValueError if the bytes are fewer or more."""
        return float(_unpacked(type(self).__name__, self._layout, data))


class Float(_Real):
    r"""Serializer for numbers of 4 bytes (IEEE 754, big-endian); the rest of the digits is lost.

    >>> Float().serialize("topic", 1.5)
    b'?\xc0\x00\x00'
    """

    _layout = struct.Struct(">f")


class Double(_Real):
    r"""Serializer for numbers of 8 bytes (IEEE 754, big-endian), the precision of Python's float.

    >>> Double().serialize("topic", 1.5)
    b'?\xf8\x00\x00\x00\x00\x00\x00'
    """

    _layout = struct.Struct(">d")


class Boolean:
    """Serializer for True and False, as one byte: 1 and 0."""

    def serialize(self, topic: str, value: bool) -> bytes:
        """Return the byte. Raise TypeError for other values."""
        if not isinstance(value, bool):
            raise TypeError(refused("Boolean.serialize", "value", "True or False", value))
        return b"\x01" if value else b"\x00"

    def deserialize(self, topic: str, data: bytes) -> bool:
        """Return the value. Raise ValueError for other bytes."""
        data = data_of("Boolean", data)
        if data == b"\x01":
            return True
        if data == b"\x00":
            return False
        raise ValueError(refused("Boolean.deserialize", "data", r"b'\x00' or b'\x01'", data))
