"""The defaults of fields: JSON in the schema, values in a record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from quorate.serializers.avro.types import (
    MISSING,
    Array,
    Enum,
    Fixed,
    Map,
    Primitive,
    Record,
    Type,
    Union,
)

#: Returns the value of a logical type; see `default_of`.
Logical = Callable[[Type, Any], Any]


def is_default_of(type: Type, default: Any) -> bool:
    r"""Return whether JSON is a value of the type. Of a union it is a value of any branch.

    >>> is_default_of(Primitive("bytes"), "\u00ff"), is_default_of(Primitive("int"), 1 << 31)
    (True, False)
    """
    match type:
        case Primitive():
            return _is_primitive(type.kind, default)
        case Array():
            return isinstance(default, list) and all(is_default_of(type.items, x) for x in default)
        case Map():
            return isinstance(default, Mapping) and all(
                is_default_of(type.values, x) for x in default.values()
            )
        case Union():
            return any(is_default_of(branch, default) for branch in type.branches)
        case Enum():
            return default in type.symbols
        case Fixed():
            return _is_primitive("bytes", default) and len(default) == type.size
        case Record():
            return isinstance(default, Mapping) and all(
                is_default_of(field.type, default.get(field.name, field.default))
                for field in type.fields
            )


def _is_primitive(kind: str, default: Any) -> bool:
    is_number = isinstance(default, int | float) and not isinstance(default, bool)
    match kind:
        case "null":
            return default is None
        case "boolean":
            return isinstance(default, bool)
        case "int" | "long":
            bits = 31 if kind == "int" else 63
            is_whole = is_number and (isinstance(default, int) or default.is_integer())
            return is_whole and -(1 << bits) <= default < 1 << bits
        case "float" | "double":
            # what is no number has no JSON; Java writes it as a string
            return is_number or default in ("NaN", "Infinity", "-Infinity")
        case "bytes":
            return isinstance(default, str) and all(ord(character) < 256 for character in default)
        case _:
            return isinstance(default, str)


def default_of(type: Type, default: Any, logical: Logical) -> Any:
    """Return the value of a default, new each time. `logical` makes the values of logical types."""
    match type:
        case Primitive(kind=kind):
            value = default
            if kind in {"float", "double"}:
                value = float(default)
            elif kind in {"int", "long"}:
                value = int(default)
            elif kind == "bytes":
                value = default.encode("latin-1")
            return logical(type, value)
        case Fixed():
            return logical(type, default.encode("latin-1"))
        case Array():
            return [default_of(type.items, one, logical) for one in default]
        case Map():
            return {key: default_of(type.values, one, logical) for key, one in default.items()}
        case Union():
            branch = next(one for one in type.branches if is_default_of(one, default))
            return default_of(branch, default, logical)
        case Record():
            values = {field.name: default.get(field.name, field.default) for field in type.fields}
            assert MISSING not in values.values()
            return {
                field.name: default_of(field.type, values[field.name], logical)
                for field in type.fields
            }
        case _:
            return default
