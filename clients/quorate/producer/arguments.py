"""Checks the arguments of the producer and of `send`, so that no wrong value reaches a batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from quorate.model import Header
from quorate.record.compression import LEVELS, NAMES
from quorate.serializers import Encode
from quorate.settings import listed


def as_bytes(name: str, value: Any, encode: Encode | None) -> bytes:
    """Return a key or a value as bytes. TypeError names the argument or serializer at fault."""
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


def level_of(codec: int, level: int | None) -> int | None:
    """Return `level`. Raise ValueError if the codec does not have this level."""
    if level is None:
        return None
    levels = LEVELS.get(codec)
    if levels is None or not levels.allow(level):
        allowed = f"None: {NAMES[codec]} has no levels" if levels is None else levels.allowed
        raise ValueError(f"compression_level must be {allowed}, not {level}")
    return level


def as_pairs(values: Sequence[Any], keys: Sequence[Any] | None) -> list[tuple[Any, Any]]:
    """Return each value of send_many with its key; None: no record has a key."""
    values = listed("send_many", "values", "a list, with a value for each record", values)
    if keys is None:
        return [(value, None) for value in values]
    keys = listed("send_many", "keys", "a list, with a key for each value", keys)
    if len(keys) != len(values):
        raise ValueError(
            f"send_many: keys must be as many as values, not {len(keys)} for {len(values)} values"
        )
    return list(zip(values, keys, strict=True))


def as_headers(headers: Iterable[Header]) -> tuple[Header, ...]:
    """Return the headers as pairs. TypeError names a header that is not a pair."""
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
