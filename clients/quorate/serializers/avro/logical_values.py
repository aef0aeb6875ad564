"""Python values of logical types that are not written, though fastavro would write them.

fastavro takes a datetime for a date, and loses the time of day, and takes a datetime without a time
zone for one of the machine's zone, so the instant would depend on where the program runs.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

from quorate.serializers.avro.logical import logical_word
from quorate.serializers.avro.types import Fixed, Primitive, Type, Union

#: Before a logical type in the schema for fastavro, which then calls our writer of it.
PREFIX: Final = "quorate-"


def wanted(type: Type, value: Any) -> str:
    """Return in words what a value must be; an empty text if it may be written, or is no such type.

    >>> wanted(Primitive("int", {"logicalType": "date"}), datetime.datetime(2024, 5, 6))
    'a date without a time of day (value.date())'
    """
    match type, value:
        case Union(), _:
            return _of_union(type, value)
        case Primitive() | Fixed(), _ if logical_word(type):
            kind = "fixed" if isinstance(type, Fixed) else type.kind
            return _of_logical(kind, type.logical, value)
        case Fixed(), _ if not isinstance(value, bytes | bytearray):
            return f"{type.size} bytes"
        case _:
            return ""


def _of_union(type: Union, value: Any) -> str:
    branches = [one for one in type.branches if one != Primitive("null")]
    if len(branches) == 1:
        return wanted(branches[0], value)
    if not isinstance(value, datetime.datetime | Decimal | uuid.UUID):
        return ""
    said = [wanted(branch, value) for branch in branches if logical_word(branch)]
    if not said or "" in said:
        return ""
    return ", or ".join(said)


def _of_logical(kind: str, logical: Mapping[str, Any], value: Any) -> str:
    match logical["logicalType"].removeprefix(PREFIX), value:
        case "date", datetime.datetime():
            return "a date without a time of day (value.date())"
        case "timestamp-millis" | "timestamp-micros", datetime.datetime(tzinfo=None):
            return "a datetime with a time zone, as datetime.now(timezone.utc)"
        case "decimal", _:
            return _of_decimal(logical["precision"], logical.get("scale", 0), value)
        case "uuid", uuid.UUID() if kind == "fixed":
            return "16 bytes (value.bytes): fastavro writes a UUID as a string alone"
        case _:
            return ""


def _of_decimal(precision: int, scale: int, value: Any) -> str:
    said = f"a finite Decimal of at most {precision} digits, {scale} of them after the point"
    match value:
        case Decimal():
            _, digits, exponent = value.as_tuple()
            if not isinstance(exponent, int) or exponent + scale < 0:
                return said
            return said if value and len(digits) + exponent + scale > precision else ""
        case bytes() | bytearray():
            return ""
        case _:
            return said


Write = Callable[[Any, dict[str, Any]], Any]


def writer(write: Write) -> Write:
    """Return a writer for fastavro that refuses what `wanted` refuses.

    A datetime stays as it is for a date: so it is none, and another branch of a union may take it.
    """

    def checked(value: Any, form: dict[str, Any]) -> Any:
        if isinstance(value, datetime.datetime) and form["logicalType"] == f"{PREFIX}date":
            return value
        if isinstance(value, datetime.datetime | Decimal):
            said = _of_logical(form["type"], form, value)
            if said:
                word = form["logicalType"].removeprefix(PREFIX)
                raise ValueError(f"a {word} must be {said}, not {value!r}")
        return write(value, form)

    return checked
