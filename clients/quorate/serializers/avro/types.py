"""Avro's types, with all names resolved. A named type may contain itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

PRIMITIVES: Final = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")


class Missing:
    """The default of a field that has none; None is the default null."""


MISSING: Final = Missing()


@dataclass(frozen=True, slots=True)
class Primitive:
    """One of PRIMITIVES. `logical`: its logicalType with the attributes of it; empty: none."""

    kind: str
    logical: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Array:
    """A list of items of one type."""

    items: Type


@dataclass(frozen=True, slots=True)
class Map:
    """Values of one type, by strings."""

    values: Type


@dataclass(frozen=True, slots=True)
class Union:
    """A value of one of several types."""

    branches: tuple[Type, ...]


@dataclass(eq=False, slots=True)
class Named:
    """A type with a full name, as shop.Order, and the full names that it had before."""

    name: str
    aliases: tuple[str, ...]

    @property
    def unqualified(self) -> str:
        return self.name.rpartition(".")[2]

    def is_called_as(self, writer: Named) -> bool:
        """Return whether data of `writer` are data of this type, by the names."""
        return self.unqualified == writer.unqualified or writer.name in self.aliases


@dataclass(eq=False, slots=True)
class Fixed(Named):
    """So many bytes."""

    size: int
    logical: Mapping[str, Any] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class Enum(Named):
    """One of several symbols."""

    symbols: tuple[str, ...]
    #: What a reader takes for a symbol that it does not know.
    default: str | None = None


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a record."""

    name: str
    type: Type
    aliases: tuple[str, ...] = ()
    #: As JSON; MISSING if there is none.
    default: Any = MISSING


@dataclass(eq=False, slots=True)
class Record(Named):
    """Values of several types, by the names of fields."""

    #: Filled after the record is made: a field may be of the record's own type.
    fields: tuple[Field, ...] = ()


Type = Primitive | Array | Map | Union | Fixed | Enum | Record


def kind(type: Type) -> str:
    """Return the type's word, as "int", "record" or "union"."""
    return type.kind if isinstance(type, Primitive) else type.__class__.__name__.lower()


def described(type: Type) -> str:
    """Return the type in words, for errors.

    >>> described(Array(Primitive("int"))), described(Fixed("shop.Key", (), 16))
    ('array', 'fixed shop.Key')
    """
    return f"{kind(type)} {type.name}" if isinstance(type, Named) else kind(type)
