"""Which logical types are the same. One that is read as another one is another value.

The bytes do not tell: 9.50 with a scale of 4 is 0.0950, and milliseconds read as microseconds are
a day of 1970. Avro 1.12, section "Logical Types".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from quorate.serializers.avro.types import Array, Fixed, Map, Primitive, Record, Type, Union, kind

#: The types that a logical type may be written as. All others are ignored, as the specification
#: says, and the value is that of its type.
KINDS: Final = {
    "decimal": ("bytes", "fixed"),
    "big-decimal": ("bytes",),
    "uuid": ("string", "fixed"),
    "date": ("int",),
    "time-millis": ("int",),
    "time-micros": ("long",),
    "timestamp-millis": ("long",),
    "timestamp-micros": ("long",),
    "timestamp-nanos": ("long",),
    "local-timestamp-millis": ("long",),
    "local-timestamp-micros": ("long",),
    "local-timestamp-nanos": ("long",),
    "duration": ("fixed",),
}


def logical_word(type: Type) -> str:
    """Return the logical type with what belongs to it; an empty text if there is none.

    >>> logical_word(Primitive("bytes", {"logicalType": "decimal", "precision": 4, "scale": 2}))
    'decimal(4, 2)'
    """
    if not isinstance(type, Primitive | Fixed) or not type.logical:
        return ""
    word: str = type.logical["logicalType"]
    if kind(type) not in KINDS.get(word, ()):
        return ""
    if word == "decimal":
        return f"decimal({type.logical['precision']}, {type.logical.get('scale', 0)})"
    return word


def clash(writer: Type, reader: Type) -> str:
    """Return why one logical type can't be read as another one; an empty text: it can.

    If one of the two has none, the bare value is read.
    """
    written, read = logical_word(writer), logical_word(reader)
    if not written or not read or written == read:
        return ""
    if written.startswith("decimal") and read.startswith("decimal"):
        rule = "decimals must have the same precision and scale"
    else:
        rule = "logical types must be equal, or one of the two must have none"
    return f"the writer's {written} can't be read as {read}: {rule}"


def clashes(writer: Type, reader: Type) -> list[str]:
    """Return the clashes of two types with one canonical form, which have the same leaves."""
    pairs = zip(_leaves(writer, "", set()), _leaves(reader, "", set()), strict=True)
    found = [(place, clash(one, other)) for (place, one), (_, other) in pairs]
    return [f"{place}: {said}" if place else said for place, said in found if said]


def _leaves(type: Type, place: str, seen: set[int]) -> Iterator[tuple[str, Type]]:
    match type:
        case Array():
            yield from _leaves(type.items, f"{place}[]", seen)
        case Map():
            yield from _leaves(type.values, f"{place}{{}}", seen)
        case Union():
            for branch in type.branches:
                yield from _leaves(branch, place, seen)
        case Record():
            if id(type) not in seen:
                seen.add(id(type))
                for field in type.fields:
                    yield from _leaves(field.type, f"{type.name}.{field.name}", seen)
        case _:
            yield place, type
