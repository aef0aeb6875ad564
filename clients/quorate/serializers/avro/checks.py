"""Refuses values that fastavro would write, and that no other program could read.

fastavro cuts 1.7 to 1, writes an int of more than 32 bits, and takes anything for null. It checks
all other types, and the branches of unions, by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from quorate.serializers.avro.types import Array, Map, Primitive, Record, Type
from quorate.settings import refused

Check = Callable[[Any], None]

BITS: Final = {"int": 31, "long": 63}


def check_of(type: Type) -> Check | None:
    """Return a function that raises TypeError or ValueError; None if there is nothing to check."""
    return _check(type, "value", {})


def _check(type: Type, place: str, records: dict[int, _OfRecord]) -> Check | None:
    match type:
        case Primitive(kind="int" | "long"):
            return _whole(type, place)
        case Primitive(kind="boolean"):
            return _of_class(bool, "True or False", place)
        case Primitive(kind="null"):
            return _of_class(None.__class__, "None", place)
        case Array():
            inner = _check(type.items, f"{place}[]", records)
            return None if inner is None else _each(inner)
        case Map():
            inner = _check(type.values, f"{place}{{}}", records)
            return None if inner is None else _each_value(inner)
        case Record():
            if id(type) not in records:
                found = records[id(type)] = _OfRecord()
                for field in type.fields:
                    one = _check(field.type, f"{type.name}.{field.name}", records)
                    if one is not None:
                        found.checks.append((field.name, one))
            return records[id(type)]
        case _:
            return None


class _OfRecord:
    def __init__(self) -> None:
        self.checks: list[tuple[str, Check]] = []

    def __call__(self, value: Any) -> None:
        if isinstance(value, Mapping):
            for name, check in self.checks:
                if name in value:  # fastavro knows whether a default stands in
                    check(value[name])


def _whole(type: Primitive, place: str) -> Check:
    most = (1 << BITS[type.kind]) - 1
    has_logical = bool(type.logical)

    def check(value: Any) -> None:
        if value.__class__ is int:
            if not -most - 1 <= value <= most:
                allowed = f"an {type.kind}" if type.kind == "int" else f"a {type.kind}"
                said = f"{allowed} ({-most - 1} to {most})"
                raise ValueError(refused("Avro.serialize", place, said, value))
        elif isinstance(value, bool | float) or not (has_logical or hasattr(value, "__index__")):
            raise TypeError(refused("Avro.serialize", place, "a whole number", value))

    return check


def _of_class(expected: type[Any], said: str, place: str) -> Check:
    def check(value: Any) -> None:
        if value.__class__ is not expected:
            raise TypeError(refused("Avro.serialize", place, said, value))

    return check


def _each(check: Check) -> Check:
    def check_all(values: Any) -> None:
        for value in values:
            check(value)

    return check_all


def _each_value(check: Check) -> Check:
    def check_all(values: Any) -> None:
        for value in values.values():
            check(value)

    return check_all
