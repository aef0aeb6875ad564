"""Turns a value of the writer's schema into one of the reader's schema.

fastavro decodes a value with the schema of its writer. A function that is made once for each pair
of schemas, by the rules of resolution.py, then gives it the reader's form. The logical types are
those of the reader.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from quorate.serializers.avro.defaults import Logical, default_of
from quorate.serializers.avro.resolution import Problem, Resolution, fields_of
from quorate.serializers.avro.types import (
    MISSING,
    Array,
    Enum,
    Fixed,
    Map,
    Named,
    Primitive,
    Record,
    Type,
    Union,
    kind,
)

Convert = Callable[[Any], Any]

#: The Python type of a value in a union, which tells its branch.
CLASSES: Final[dict[str, type]] = {
    "null": type(None),
    "boolean": bool,
    "int": int,
    "long": int,
    "float": float,
    "double": float,
    "bytes": bytes,
    "string": str,
    "array": list,
    "map": dict,
}


def tagged(union: Union) -> set[str]:
    """Return the types of a union whose values can't be told by their Python type.

    They have their type beside them, as (type, value). So do the values of all named types.

    >>> sorted(tagged(Union((Primitive("int"), Primitive("string"), Primitive("long")))))
    ['int', 'long']
    """
    kinds = {kind(branch) for branch in union.branches}
    pairs = ({"int", "long"}, {"float", "double"})
    return set().union(*(pair for pair in pairs if pair <= kinds))


def conversion(writer: Type, reader: Type, logical: Logical) -> Convert:
    """Return the function. It raises ValueError for a value that the reader's schema can't take."""
    return _Compiler(logical).convert(writer, reader) or _same


def _same(value: Any) -> Any:
    return value


class _Compiler:
    def __init__(self, logical: Logical) -> None:
        self._logical = logical
        self._resolution = Resolution()
        #: A record that contains itself calls its own function.
        self._records: dict[tuple[int, int], _OfRecord] = {}

    def convert(self, writer: Type, reader: Type, place: str = "") -> Convert | None:
        """Return the function; None if the value stays as it is."""
        match writer, reader:
            case Union(), _:
                return self._of_union(writer, reader, place)
            case _, Union():
                branch = self._resolution.branch(writer, reader)
                if branch is not None:
                    return self.convert(writer, branch, place)
            case Array(), Array():
                return self._of_array(writer, reader, place)
            case Map(), Map():
                return self._of_map(writer, reader, place)
            case Record(), Record() if reader.is_called_as(writer):
                return self._of_record(writer, reader)
            case Enum(), Enum() if reader.is_called_as(writer):
                return self._of_enum(writer, reader)
            case _:
                if not self._resolution.problems(writer, reader):
                    return self._of_primitive(writer, reader)
        return _refusal(self._resolution.problems(writer, reader, place))

    def _of_union(self, writer: Union, reader: Type, place: str) -> Convert:
        by_name: dict[str, Convert] = {}
        by_type: dict[type, Convert] = {}
        for branch in writer.branches:
            convert = self.convert(branch, reader, place) or _same
            if isinstance(branch, Named):
                by_name[branch.name] = convert
            elif kind(branch) in tagged(writer):
                by_name[kind(branch)] = convert
            else:
                by_type[CLASSES[kind(branch)]] = convert

        def convert_union(value: Any) -> Any:
            if value.__class__ is tuple:
                name, inner = value
                return by_name[name](inner)
            return by_type[value.__class__](value)

        return convert_union

    def _of_array(self, writer: Array, reader: Array, place: str) -> Convert | None:
        convert = self.convert(writer.items, reader.items, f"{place}[]")
        if convert is None:
            return None
        return lambda values: [convert(value) for value in values]

    def _of_map(self, writer: Map, reader: Map, place: str) -> Convert | None:
        convert = self.convert(writer.values, reader.values, f"{place}{{}}")
        if convert is None:
            return None
        return lambda values: {key: convert(value) for key, value in values.items()}

    def _of_record(self, writer: Record, reader: Record) -> Convert:
        pair = (id(writer), id(reader))
        if pair in self._records:
            return self._records[pair]
        found = self._records[pair] = _OfRecord()
        for field, source in zip(reader.fields, fields_of(writer, reader), strict=True):
            if source is not None:
                convert = self.convert(source.type, field.type, f"{reader.name}.{field.name}")
                found.fields.append((field.name, source.name, convert))
            elif field.default is not MISSING:
                found.defaults.append((field.name, field.type, field.default))
            else:
                said = "the writer has no such field, and no default is set"
                found.refuse = _refusal([Problem(f"{reader.name}.{field.name}", said)])
        found.logical = self._logical
        found.is_in_order = [name for name, *_ in found.fields] == [
            one.name for one in reader.fields
        ]
        found.order = [field.name for field in reader.fields]
        return found

    def _of_enum(self, writer: Enum, reader: Enum) -> Convert | None:
        if set(writer.symbols) <= set(reader.symbols):
            return None
        symbols, default = frozenset(reader.symbols), reader.default

        def convert_symbol(symbol: Any) -> Any:
            if symbol in symbols:
                return symbol
            if default is None:
                raise ValueError(
                    f"the reader's {reader.name} has no symbol {symbol}, nor a default"
                )
            return default

        return convert_symbol

    def _of_primitive(self, writer: Type, reader: Type) -> Convert | None:
        promote: Convert | None = None
        if isinstance(writer, Primitive) and isinstance(reader, Primitive):
            match writer.kind, reader.kind:
                case "int" | "long", "float" | "double":
                    promote = float
                case "string", "bytes":
                    promote = str.encode
                case "bytes", "string":
                    promote = bytes.decode
        if not (isinstance(reader, Primitive | Fixed) and reader.logical):
            return promote
        logical = self._logical
        if promote is None:
            return lambda value: logical(reader, value)
        return lambda value: logical(reader, promote(value))


class _OfRecord:
    """The function for one pair of records."""

    def __init__(self) -> None:
        #: Name for the reader, name of the writer, function.
        self.fields: list[tuple[str, str, Convert | None]] = []
        self.defaults: list[tuple[str, Type, Any]] = []
        self.refuse: Convert | None = None
        self.logical: Logical
        self.is_in_order = True
        self.order: list[str] = []

    def __call__(self, record: Any) -> Any:
        if self.refuse is not None:
            return self.refuse(record)
        found = {
            name: record[source] if convert is None else convert(record[source])
            for name, source, convert in self.fields
        }
        for name, type_, default in self.defaults:
            found[name] = default_of(type_, default, self.logical)
        if self.is_in_order:
            return found
        return {name: found[name] for name in self.order}


def _refusal(problems: list[Problem]) -> Convert:
    message = "; ".join(map(str, problems))

    def refuse(value: Any) -> Any:
        raise ValueError(message)

    return refuse
