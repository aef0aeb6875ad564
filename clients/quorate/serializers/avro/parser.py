"""Reads a schema from its JSON, by the rules of Avro 1.12."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NoReturn

from quorate.errors import InvalidSchemaError
from quorate.serializers.avro.defaults import is_default_of
from quorate.serializers.avro.types import (
    MISSING,
    PRIMITIVES,
    Array,
    Enum,
    Field,
    Fixed,
    Map,
    Named,
    Primitive,
    Record,
    Type,
    Union,
    described,
    kind,
)

NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
FULL_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*\Z")
ALLOWED: Final = "a name of a type, an object with a type, or a list of types (a union)"
#: How deep types may lie in one another, a name for the type that it stands for. A value of such a
#: type is nested as deeply, and what works on it counts no levels.
NESTED_MAX: Final = 100
#: The words of the types that are made of others, or have a name.
COMPLEX: Final = ("record", "enum", "array", "map", "fixed")
#: What belongs to a logical type, beside its name.
LOGICAL: Final = ("logicalType", "precision", "scale")


def parse(schema: Any) -> Type:
    """Return the type that decoded JSON describes. Raise InvalidSchemaError with the place."""
    try:
        found = _Parser().parse(schema, "", "the schema")
        depth = _depth(found, {})
    except RecursionError:
        depth = NESTED_MAX + 1
    if depth > NESTED_MAX:
        raise InvalidSchemaError(f"the schema is nested too deeply: at most {NESTED_MAX} levels")
    return found


def _depth(type: Type, known: dict[int, int]) -> int:
    """Return how many types lie in one another; one that contains itself is counted once."""
    inner: list[Type] = []
    match type:
        case Array():
            inner = [type.items]
        case Map():
            inner = [type.values]
        case Union():
            inner = list(type.branches)
        case Record():
            if id(type) in known:
                return known[id(type)]
            known[id(type)] = 0
            inner = [field.type for field in type.fields]
    depth = 1 + max((_depth(one, known) for one in inner), default=0)
    known[id(type)] = depth
    return depth


def unlike(name: str, known: Iterable[str]) -> str:
    """Return words for a name that is no type, with the nearest one.

    >>> unlike("strng", PRIMITIVES)[-24:]
    '; did you mean "string"?'
    """
    near = difflib.get_close_matches(name, list(known), 1)
    hint = f'; did you mean "{near[0]}"?' if near else ""
    return f"no primitive type ({', '.join(PRIMITIVES)}){hint}"


def _refuse(place: str, message: str) -> NoReturn:
    raise InvalidSchemaError(f"{place}: {message}")


class _Parser:
    def __init__(self) -> None:
        self._named: dict[str, Named] = {}

    def parse(self, schema: Any, namespace: str, place: str) -> Type:
        if isinstance(schema, str):
            return self._reference(schema, namespace, place)
        if isinstance(schema, list):
            return self._union(schema, namespace, place)
        if not isinstance(schema, Mapping):
            _refuse(place, f"must be {ALLOWED}, not {schema!r}")
        word = schema.get("type")
        match word:
            case "record" | "error":
                return self._record(schema, namespace, place)
            case "enum":
                return self._enum(schema, namespace, place)
            case "fixed":
                return self._fixed(schema, namespace, place)
            case "array":
                return Array(self._inner(schema, "items", namespace, place))
            case "map":
                return Map(self._inner(schema, "values", namespace, place))
            case str() if word in PRIMITIVES:
                return Primitive(word, _logical(schema, None))
            case _:
                # {"type": {"type": "array", ...}} is written by some tools
                return self._inner(schema, "type", namespace, place)

    def _inner(self, schema: Mapping[str, Any], key: str, namespace: str, place: str) -> Type:
        if key not in schema:
            _refuse(place, f'"{key}" is missing; it must be {ALLOWED}')
        inside = place if key == "type" else f"{place}.{key}"
        return self.parse(schema[key], namespace, inside)

    def _reference(self, name: str, namespace: str, place: str) -> Type:
        if name in PRIMITIVES:
            return Primitive(name)
        full = f"{namespace}.{name}" if namespace and "." not in name else name
        # a name without a dot may also be one without a namespace
        found = self._named.get(full) or self._named.get(name)
        if found is None:
            known = ", ".join(sorted(self._named)) or "none"
            _refuse(
                place,
                f"the type {name!r} is not defined before; defined are: {known}; it is "
                f"{unlike(name, (*PRIMITIVES, *COMPLEX, *self._named))}",
            )
        assert isinstance(found, Record | Enum | Fixed)
        return found

    def _union(self, schemas: list[Any], namespace: str, place: str) -> Type:
        branches: list[Type] = []
        seen: set[str] = set()
        for index, schema in enumerate(schemas):
            branch = self.parse(schema, namespace, f"{place}[{index}]")
            if isinstance(branch, Union):
                _refuse(f"{place}[{index}]", "a union must not be directly in a union")
            word = branch.name if isinstance(branch, Named) else kind(branch)
            if word in seen:
                _refuse(
                    place, f"a union has each type once, and {described(branch)} is there again"
                )
            seen.add(word)
            branches.append(branch)
        return Union(tuple(branches))

    def _names(
        self, schema: Mapping[str, Any], namespace: str, place: str
    ) -> tuple[str, tuple[str, ...]]:
        """Return the full name, and those of the aliases."""
        name, own = schema.get("name"), schema.get("namespace", namespace)
        if not isinstance(name, str) or not FULL_NAME.match(name):
            _refuse(
                place, f'"name" must be letters, digits and _ (with dots between), not {name!r}'
            )
        if not isinstance(own, str) or (own and not FULL_NAME.match(own)):
            _refuse(place, f'"namespace" must be names with dots between, not {own!r}')
        full = f"{own}.{name}" if own and "." not in name else name
        if full in PRIMITIVES:
            _refuse(place, f'"name" must not be that of a primitive type, as {name!r}')
        if full in self._named:
            _refuse(place, f"the type {full} is defined twice")
        own = full.rpartition(".")[0]
        aliases = []
        for alias in _strings(schema, "aliases", place):
            if not FULL_NAME.match(alias):
                _refuse(place, f"an alias must be a name, not {alias!r}")
            aliases.append(f"{own}.{alias}" if own and "." not in alias else alias)
        return full, tuple(aliases)

    def _record(self, schema: Mapping[str, Any], namespace: str, place: str) -> Record:
        name, aliases = self._names(schema, namespace, place)
        record = self._named[name] = Record(name, aliases)
        fields = schema.get("fields")
        if not isinstance(fields, list):
            _refuse(f"record {name}", f'"fields" must be a list of fields, not {fields!r}')
        found: dict[str, Field] = {}
        for index, one in enumerate(fields):
            field = self._field(one, name, f"field {index} of record {name}")
            if field.name in found:
                _refuse(f"record {name}", f"the field {field.name!r} is there twice")
            found[field.name] = field
        record.fields = tuple(found.values())
        # only now: a default may be of a record that is still open
        for field in record.fields:
            if field.default is not MISSING and not is_default_of(field.type, field.default):
                _refuse(
                    f"field {field.name} of record {name}",
                    f'"default" must be of the type {described(field.type)}, not {field.default!r}',
                )
        return record

    def _field(self, schema: Any, record: str, place: str) -> Field:
        if not isinstance(schema, Mapping):
            _refuse(place, f"must be an object with a name and a type, not {schema!r}")
        name = schema.get("name")
        if not isinstance(name, str) or not NAME.match(name):
            _refuse(place, f'"name" must be letters, digits and _, not {name!r}')
        place = f"field {name} of record {record}"
        if "type" not in schema:
            _refuse(place, f'"type" is missing; it must be {ALLOWED}')
        return Field(
            name,
            self.parse(schema["type"], record.rpartition(".")[0], place),
            tuple(_strings(schema, "aliases", place)),
            schema.get("default", MISSING),
        )

    def _enum(self, schema: Mapping[str, Any], namespace: str, place: str) -> Enum:
        name, aliases = self._names(schema, namespace, place)
        place = f"enum {name}"
        symbols = _strings(schema, "symbols", place)
        if "symbols" not in schema:
            _refuse(place, '"symbols" is missing; it must be a list of names')
        for symbol in symbols:
            if not NAME.match(symbol):
                _refuse(place, f"a symbol must be letters, digits and _, not {symbol!r}")
        if len(set(symbols)) < len(symbols):
            _refuse(place, "a symbol is there twice")
        default = schema.get("default")
        if default is not None and default not in symbols:
            _refuse(place, f'"default" must be one of its symbols, not {default!r}')
        enum = self._named[name] = Enum(name, aliases, tuple(symbols), default)
        return enum

    def _fixed(self, schema: Mapping[str, Any], namespace: str, place: str) -> Fixed:
        name, aliases = self._names(schema, namespace, place)
        size = schema.get("size")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            _refuse(f"fixed {name}", f'"size" must be a number of bytes, not {size!r}')
        fixed = self._named[name] = Fixed(name, aliases, size, _logical(schema, size))
        return fixed


def _logical(schema: Mapping[str, Any], size: int | None) -> dict[str, Any]:
    """Return the logical type; nothing if it is invalid, as then it must be ignored."""
    found = {key: schema[key] for key in LOGICAL if key in schema}
    if not isinstance(found.get("logicalType"), str):
        return {}
    if found["logicalType"] == "decimal":
        precision, scale = found.get("precision"), found.get("scale", 0)
        digits_max = 1 << 31 if size is None else int(math.log10(2) * (8 * size - 1))
        if not isinstance(precision, int) or not isinstance(scale, int):
            return {}
        if not 0 <= scale <= precision <= digits_max or precision == 0:
            return {}
    return found


def _strings(schema: Mapping[str, Any], key: str, place: str) -> list[str]:
    found = schema.get(key, [])
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        _refuse(place, f'"{key}" must be a list of names, not {found!r}')
    return list(found)
