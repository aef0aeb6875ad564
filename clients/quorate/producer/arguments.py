"""What a record may be made of, checked where it is given: nothing wrong reaches a batch."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

from quorate.model import Header
from quorate.serializers import Encode


def whole_number(name: str, value: Any, allowed: str) -> int:
    """Return an int, also of a number type of others (numpy); TypeError for all else, and bools."""
    if not isinstance(value, bool):
        try:
            return operator.index(value)
        except TypeError:
            pass
    raise TypeError(f"{name} must be {allowed}, not {value!r}")


def as_timestamp(value: Any) -> int:
    """Return a record's time; TypeError unless it is a whole number."""
    return whole_number("timestamp_ms", value, "a whole number of milliseconds since 1970")


def as_partition(value: Any) -> int:
    """Return a partition; TypeError unless it is a whole number."""
    return whole_number("partition", value, "a whole number or None")


def as_bytes(name: str, value: Any, encode: Encode | None) -> bytes:
    """Return a key's or value's bytes; TypeError that says who made what it is."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if encode is not None:
        raise TypeError(
            f"{name}_serializer must return bytes, and returned {type(value).__name__} for a "
            f"{name}; a null {name} is never given to it"
        )
    raise TypeError(
        f"{name} must be bytes or None, not {type(value).__name__}; "
        f"pass {name}_serializer to the producer for other types"
    )


def as_headers(headers: Iterable[Header]) -> tuple[Header, ...]:
    """Return headers as pairs; TypeError names the one that is none."""
    try:
        pairs = tuple(headers)
    except TypeError:
        raise TypeError(
            f"headers must be pairs of a string and bytes or None, not {headers!r}"
        ) from None
    for pair in pairs:
        match pair:
            case (str(), bytes() | None):
                continue
        raise TypeError(
            f"headers must be pairs of a string and bytes or None, not {pair!r}; "
            'for example [("source", b"shop")]'
        )
    return pairs
