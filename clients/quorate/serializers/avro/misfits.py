"""Says at which place a value does not fit its type. Called after the encoding has failed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from quorate.serializers.avro.logical_values import wanted
from quorate.serializers.avro.types import MISSING, Array, Map, Record, Type, Union
from quorate.settings import refused


def misfit(type: Type, value: Any, place: str = "value") -> str | None:
    """Return what does not fit: a field that is missing or too many, or a wrong container.

    None if it is none of these, or if the value is too deep to say. `place` names the value.
    """
    try:
        return _misfit(type, value, place)
    except RecursionError:
        return None


def _misfit(type: Type, value: Any, place: str) -> str | None:
    match type:
        case Record():
            return _of_record(type, value, place)
        case Array():
            if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
                return refused("Avro.serialize", place, "a list", value)
            found = (_misfit(type.items, one, f"{place}[{i}]") for i, one in enumerate(value))
        case Map():
            if not isinstance(value, Mapping):
                return refused("Avro.serialize", place, "a mapping by strings", value)
            found = (_misfit(type.values, one, f"{place}[{key!r}]") for key, one in value.items())
        case Union():
            said = wanted(type, value)
            if said:
                return refused("Avro.serialize", place, said, value)
            records = [one for one in type.branches if isinstance(one, Record)]
            if len(records) != 1 or not isinstance(value, Mapping):
                return None
            return _misfit(records[0], value, place)
        case _:
            said = wanted(type, value)
            return refused("Avro.serialize", place, said, value) if said else None
    return next(filter(None, found), None)


def _of_record(type: Record, value: Any, place: str) -> str | None:
    fields = {field.name: field for field in type.fields}
    if not isinstance(value, Mapping):
        said = f"a mapping with the fields of {type.name} ({', '.join(fields)})"
        return refused("Avro.serialize", place, said, value)
    missing = [name for name, one in fields.items() if name not in value]
    missing = [name for name in missing if fields[name].default is MISSING]
    extra = [str(name) for name in value if name not in fields]
    if missing or extra:
        lacks = f"lacks {', '.join(missing)}" if missing else ""
        has = f"has {', '.join(extra)}, which it must not" if extra else ""
        said = " and ".join(filter(None, (lacks, has)))
        return f"Avro.serialize: {place} {said}: the fields of {type.name} are {', '.join(fields)}"
    found = (
        _misfit(field.type, value[name], f"{type.name}.{name}")
        for name, field in fields.items()
        if name in value
    )
    return next(filter(None, found), None)
