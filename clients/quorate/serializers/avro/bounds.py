"""Refuses bytes and values with which fastavro would not come to an end.

fastavro is written in C and counts no levels: a value of a type that contains itself, nested
deeply enough, makes it overflow the stack, and the process dies. And an array of items without
bytes, as null, may have more items in ten bytes than any memory holds. Schemas with such types are
few. Only their values are walked through before fastavro sees them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from quorate.serializers.avro.types import (
    Array,
    Enum,
    Fixed,
    Map,
    Primitive,
    Record,
    Type,
    Union,
)

#: How deep the records of a value may lie in one another.
NESTED_MAX: Final = 200
#: The bytes of primitive types that have always as many.
SIZES: Final = {"null": 0, "boolean": 1, "float": 4, "double": 8}
#: The longest number has ten bytes.
VARINT_BYTES_MAX: Final = 10


def is_unbounded(type: Type) -> bool:
    """Return whether the bytes of a value do not bound what decoding it costs.

    >>> is_unbounded(Array(Primitive("int"))), is_unbounded(Array(Primitive("null")))
    (False, True)
    """
    return any(
        one in above or (isinstance(one, Array) and _has_no_bytes(one.items))
        for one, above in _walk(type, ())
    )


def is_recursive(type: Type) -> bool:
    """Return whether a record contains itself."""
    return any(one in above for one, above in _walk(type, ()))


def _walk(type: Type, above: tuple[Record, ...]) -> Iterator[tuple[Type, tuple[Record, ...]]]:
    """Yield each type with the records around it. A record that is its own is not entered again."""
    seen: set[int] = set()
    left = [(type, above)]
    while left:
        one, around = left.pop()
        yield one, around
        if isinstance(one, Record):
            if id(one) in seen:
                continue
            seen.add(id(one))
            around = (*around, one)
        left += [(inner, around) for inner in _parts(one)]


def _parts(type: Type) -> list[Type]:
    match type:
        case Array():
            return [type.items]
        case Map():
            return [type.values]
        case Union():
            return list(type.branches)
        case Record():
            return [field.type for field in type.fields]
        case _:
            return []


def _has_no_bytes(type: Type) -> bool:
    match type:
        case Primitive():
            return type.kind == "null"
        case Fixed():
            return type.size == 0
        case Record():
            return not is_recursive(type) and all(_has_no_bytes(one.type) for one in type.fields)
        case _:
            return False


def check_bytes(type: Type, data: bytes, offset: int) -> None:
    """Raise ValueError if the bytes are no value, or one that is nested too deeply or too long."""
    _Walk(data).over(type, offset, 0)


def check_nesting(value: Any) -> None:
    """Raise ValueError if a value to write is nested too deeply."""
    level, depth = [value], 0
    while level:
        if depth > NESTED_MAX * 2:  # a list may be around each record
            raise ValueError(f"the value is nested in more than {NESTED_MAX} levels")
        inner: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                inner += one.values()
            elif isinstance(one, list | tuple):
                inner += one
        level, depth = inner, depth + 1


class _Walk:
    def __init__(self, data: bytes) -> None:
        self._data = data
        #: Items without bytes that there may still be: as many as there are bytes.
        self._items_left = len(data)

    def over(self, type: Type, at: int, depth: int) -> int:
        """Return where the value ends that begins at an offset."""
        match type:
            case Record():
                if depth > NESTED_MAX:
                    raise ValueError(f"the value is nested in more than {NESTED_MAX} records")
                for field in type.fields:
                    at = self.over(field.type, at, depth + 1)
                return at
            case Union():
                index, at = self._number(at)
                if not 0 <= index < len(type.branches):
                    raise ValueError(f"the value has branch {index} of {len(type.branches)}")
                return self.over(type.branches[index], at, depth)
            case Array() | Map():
                return self._over_blocks(type, at, depth)
            case Fixed():
                return self._skipped(at, type.size)
            case Enum() | Primitive(kind="int" | "long"):
                return self._number(at)[1]
            case Primitive(kind="bytes" | "string"):
                return self._over_text(at)
            case _:
                return self._skipped(at, SIZES[type.kind])

    def _over_blocks(self, type: Array | Map, at: int, depth: int) -> int:
        while True:
            count, at = self._number(at)
            if count == 0:
                return at
            if count < 0:  # the size of the block follows
                count, at = -count, self._number(at)[1]
            for _ in range(count):
                begin = at
                if isinstance(type, Map):
                    at = self.over(type.values, self._over_text(at), depth)
                else:
                    at = self.over(type.items, at, depth)
                self._items_left -= at == begin
                if self._items_left < 0:
                    raise ValueError("the value has more items without bytes than bytes")

    def _over_text(self, at: int) -> int:
        size, at = self._number(at)
        return self._skipped(at, size)

    def _skipped(self, at: int, size: int) -> int:
        if not 0 <= size <= len(self._data) - at:
            raise ValueError(f"the value has {size} bytes where {len(self._data) - at} are left")
        return at + size

    def _number(self, at: int) -> tuple[int, int]:
        number = 0
        for index, byte in enumerate(self._data[at : at + VARINT_BYTES_MAX]):
            number |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                return number >> 1 ^ -(number & 1), at + index + 1
        raise ValueError("the value is cut off")
