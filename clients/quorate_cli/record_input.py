"""What a line of `quorate topic produce` means: the arguments of Producer.send."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

Header = tuple[str, bytes | None]

#: The fields of a line of --json. `topic consume -o json` prints them, and `offset`, which means
#: nothing for a new record.
FIELDS: Final = ("key", "value", "headers", "partition", "timestamp_ms", "offset")
#: With the end of its name a field has its bytes in base64. It counts more than the text beside it.
BASE64: Final = "_base64"
ALLOWED: Final = {*FIELDS, *(f"{name}{BASE64}" for name in ("key", "value", "headers"))}


class NewRecord(NamedTuple):
    """A record to send: the arguments of Producer.send behind the topic."""

    value: bytes | None
    key: bytes | None = None
    partition: int | None = None
    timestamp_ms: int | None = None
    headers: Sequence[Header] = ()


#: Takes a line without its end; returns None if it has nothing to send.
Reader = Callable[[bytes], NewRecord | None]


def headers_of(given: Sequence[str] | None) -> tuple[Header, ...]:
    """Return the headers of --header NAME=VALUE. Raise ValueError for one without a name.

    >>> headers_of(["trace=a=b", "empty="])
    (('trace', b'a=b'), ('empty', b''))
    """
    found = []
    for one in given or ():
        name, equals, value = one.partition("=")
        if not equals or not name:
            raise ValueError(f"--header takes NAME=VALUE, not {one!r}")
        _of_text("a header's name", name)
        found.append((name, value.encode("utf-8", "surrogateescape")))
    return tuple(found)


def of_text(separator: str | None, headers: Sequence[Header]) -> Reader:
    """Return a reader of lines that are values, or a key, a separator and a value."""
    between = None if separator is None else separator.encode()

    def read(line: bytes) -> NewRecord:
        if between is None:
            return NewRecord(line, headers=headers)
        key, found, value = line.partition(between)
        return NewRecord(value, key, headers=headers) if found else NewRecord(line, headers=headers)

    return read


def of_json(headers: Sequence[Header]) -> Reader:
    """Return a reader of lines that are JSON objects. It raises ValueError with the reason."""

    def read(line: bytes) -> NewRecord | None:
        if not line.strip():
            return None
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"it is no JSON: {error}") from None
        if not isinstance(found, dict):
            raise ValueError(f"it is no JSON object: {_short(found)}")
        unknown = sorted(found.keys() - ALLOWED)
        if unknown:
            raise ValueError(f"there is no field {unknown[0]!r}; the fields are {_names()}")
        return NewRecord(
            value=_bytes(found, "value"),
            key=_bytes(found, "key"),
            partition=_number(found, "partition"),
            timestamp_ms=_number(found, "timestamp_ms"),
            headers=(*_headers(found), *headers),
        )

    return read


def _bytes(record: Mapping[str, Any], name: str) -> bytes | None:
    exact = record.get(f"{name}{BASE64}")
    return _of_text(name, record.get(name)) if exact is None else _of_base64(name, exact)


def _of_text(name: str, text: object) -> bytes | None:
    if text is None:
        return None
    if not isinstance(text, str):
        raise ValueError(f"{name} must be a string or null, not {_short(text)}")
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} has half a surrogate pair, which is no character") from None


def _of_base64(name: str, text: object) -> bytes:
    try:
        if isinstance(text, str):
            return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise ValueError(f"{name}{BASE64} must be a string in base64, not {_short(text)}")


def _number(record: Mapping[str, Any], name: str) -> int | None:
    number = record.get(name)
    if number is None or (isinstance(number, int) and not isinstance(number, bool)):
        return number
    raise ValueError(f"{name} must be a whole number, not {_short(number)}")


def _headers(record: Mapping[str, Any]) -> list[Header]:
    """Return the headers: of pairs, because a name may come twice, or of an object."""
    exact = record.get(f"headers{BASE64}")
    given = record.get("headers") if exact is None else exact
    pairs = list(given.items()) if isinstance(given, dict) else given or []
    if not isinstance(pairs, list) or not all(_is_pair(pair) for pair in pairs):
        raise ValueError(
            f'headers must be an object, or pairs as [["source","shop"]], not {_short(given)}'
        )
    for name, _ in pairs:
        _of_text("a header's name", name)
    if exact is None:
        return [(name, _of_text(f"header {name!r}", value)) for name, value in pairs]
    return [
        (name, None if value is None else _of_base64("headers", value)) for name, value in pairs
    ]


def _is_pair(pair: object) -> bool:
    return isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str)


def _short(given: object) -> str:
    text = json.dumps(given, ensure_ascii=True)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _names() -> str:
    return ", ".join(sorted(ALLOWED))
