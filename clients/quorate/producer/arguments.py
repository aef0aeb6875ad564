"""Checks the arguments of the producer and of `send`, so that no wrong value reaches a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from quorate.model import Header
from quorate.plain_values import UTF8_TEXT, has_utf8
from quorate.record.column_builder import RecordColumns
from quorate.record.compression import LEVELS, NAMES
from quorate.serializers import Encode
from quorate.settings import RECORD_TIMESTAMP_MS, listed


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


def encoded(topic: str, name: str, given: Any, encode: Encode | None) -> bytes | None:
    """Return a key or a value as bytes; None stays None. `name` is "key" or "value"."""
    if given is None:
        return None
    return as_bytes(name, given if encode is None else encode(topic, given), encode)


def as_timestamp(call: str, given: int | None, wall_clock_ms: Callable[[], int]) -> int:
    """Return the timestamp of a record; None stands for the time of day."""
    if given is None:
        return wall_clock_ms()
    return RECORD_TIMESTAMP_MS.check(call, "timestamp_ms", given)


def as_columns(
    topic: str,
    values: Sequence[Any],
    keys: Sequence[Any] | None,
    timestamp_ms: int,
    headers: Iterable[Header] | None,
    *,
    encode_key: Encode | None,
    encode_value: Encode | None,
) -> RecordColumns:
    """Return the records of send_many. Keys None: no record has a key."""
    values = listed("send_many", "values", "a list, with a value for each record", values)
    records = RecordColumns()
    if keys is not None:
        keys = listed("send_many", "keys", "a list, with a key for each value", keys)
        if len(keys) != len(values):
            raise ValueError(
                f"send_many: keys must be as many as values, not {len(keys)} for {len(values)} "
                "values"
            )
        records.keys = _encoded(topic, "key", keys, encode_key)
    records.values = _encoded(topic, "value", values, encode_value)
    if headers is not None and (shared := as_headers(headers)):
        records.headers = dict.fromkeys(range(len(values)), shared)
    records.begin_run(0, timestamp_ms)
    return records


def _encoded(topic: str, name: str, given: list[Any], encode: Encode | None) -> list[bytes | None]:
    if encode is None and {bytes}.issuperset(map(type, given)):
        return given
    return [encoded(topic, name, one, encode) for one in given]


def as_headers(headers: Iterable[Header]) -> tuple[Header, ...]:
    """Return a copy of the headers that the program cannot change.

    TypeError names a header that is not a pair. ValueError names one whose name can't be sent.
    """
    try:
        pairs = tuple(headers)
    except TypeError:
        pairs = None
    if pairs is None or (not pairs and isinstance(headers, str | bytes | Mapping)):
        raise TypeError(f"headers must be pairs of a string and bytes or None, not {headers!r}")
    return tuple(map(_as_header, pairs))


def _as_header(pair: Any) -> Header:
    match pair:
        case (str() as name, bytes() | bytearray() | memoryview() | None as value):
            if has_utf8(name):
                return name, value if value is None else bytes(value)
            raise ValueError(f"the name of a header in headers must be {UTF8_TEXT}, not {name!r}")
    raise TypeError(
        f"headers must be pairs of a string and bytes or None, not {pair!r}; "
        'for example [("source", b"shop")]'
    )
