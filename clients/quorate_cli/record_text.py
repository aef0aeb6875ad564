"""Formats records for output. Each record is on one line, and null differs from every text."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from string import Formatter
from typing import Any, Final

from quorate import Record

AnyRecord = Record[Any, Any]

#: The text for null. JSON has its own null.
NULL: Final = r"\N"
#: Line ends, and control characters that a terminal would obey. A tab is none of them.
_BREAKS: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_SHORT: Final = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}


def text(data: bytes | None) -> str | None:
    """Return bytes as text for JSON; None for null. Bytes that are not UTF-8 are escaped."""
    return None if data is None else data.decode("utf-8", "backslashreplace")


def one_line(data: bytes | None, *, tabs: bool = True) -> str:
    r"""Return bytes as text without a line break.

    >>> one_line(b"two\nlines"), one_line(None), one_line(b"None"), one_line(b"\xff")
    ('two\\nlines', '\\N', 'None', '\\xff')
    """
    if data is None:
        return NULL
    found = _BREAKS.sub(_escaped, data.decode("utf-8", "backslashreplace"))
    return found if tabs else found.replace("\t", r"\t")


def _escaped(match: re.Match[str]) -> str:
    character = match.group()
    return _SHORT.get(character) or (
        f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"
    )


def plain(record: AnyRecord) -> str:
    """Return a record as `topic consume` prints it: partition, offset, key (if any), value."""
    key = f"{one_line(record.key, tabs=False)}\t" if record.key is not None else ""
    return f"{record.partition}\t{record.offset}\t{key}{one_line(record.value)}"


def as_json(record: AnyRecord) -> dict[str, Any]:
    """Return a record as `topic consume -o json` prints it.

    `topic produce --json` reads it. A key, value or header that is not UTF-8 has its bytes in
    base64, too: the text with escapes could be that of other bytes.
    """
    document: dict[str, Any] = {
        "partition": record.partition,
        "offset": record.offset,
        "timestamp_ms": record.timestamp_ms,
        "key": text(record.key),
        "value": text(record.value),
        "headers": [[name, text(value)] for name, value in record.headers],
    }
    if not _is_text(record.key):
        document["key_base64"] = _base64(record.key)
    if not _is_text(record.value):
        document["value_base64"] = _base64(record.value)
    if not all(_is_text(value) for _, value in record.headers):
        document["headers_base64"] = [[name, _base64(value)] for name, value in record.headers]
    return document


def _is_text(data: bytes | None) -> bool:
    try:
        return data is None or data.decode() is not None
    except UnicodeDecodeError:
        return False


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


_FIELDS: Mapping[str, Callable[[AnyRecord], object]] = {
    "topic": lambda record: record.topic,
    "partition": lambda record: record.partition,
    "offset": lambda record: record.offset,
    "timestamp_ms": lambda record: record.timestamp_ms,
    "time": lambda record: _time(record.timestamp_ms),
    "key": lambda record: one_line(record.key),
    "value": lambda record: one_line(record.value),
    "headers": lambda record: ",".join(
        f"{one_line(name.encode())}={one_line(value)}" for name, value in record.headers
    ),
}


def template(pattern: str) -> Callable[[AnyRecord], str]:
    r"""Return a function that formats a record by --format.

    Raises ValueError that names the allowed fields.
    """
    pattern = re.sub(r"\\([ntr\\])", lambda match: _ESCAPES[match[1]], pattern)
    allowed = ", ".join("{" + name + "}" for name in _FIELDS)
    wrong = f"--format takes text and the fields {allowed}, not {pattern!r}"
    try:
        names = {name for _, name, _, _ in Formatter().parse(pattern) if name is not None}
    except ValueError as error:
        raise ValueError(f"{wrong}: {error}") from None
    if not names <= _FIELDS.keys():
        raise ValueError(wrong)
    used = {name: get for name, get in _FIELDS.items() if name in names}

    def printed(record: AnyRecord) -> str:
        return pattern.format_map({name: get(record) for name, get in used.items()})

    try:
        printed(Record("", 0, 0, 0, "create_time", None, None, (), 0))
    except (ValueError, KeyError) as error:
        # the field exists, but the format after its colon is wrong
        raise ValueError(f"{wrong}: {error}") from None
    return printed


def _time(timestamp_ms: int) -> str:
    """Return a timestamp as ISO 8601 in UTC; as a number if the calendar does not reach it.

    >>> _time(1_700_000_000_123), _time(10**18)
    ('2023-11-14T22:13:20.123+00:00', '1000000000000000000')
    """
    try:
        found = datetime.fromtimestamp(timestamp_ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return str(timestamp_ms)
    return found.isoformat(timespec="milliseconds")


def milliseconds_of(moment: str, option: str) -> int:
    """Return the time that an option was given, in ms since 1970. Raise ValueError if it is none.

    >>> milliseconds_of("1700000000123", "--to-time")
    1700000000123
    >>> milliseconds_of("2023-11-14T22:13:20Z", "--to-time")
    1700000000000
    """
    if re.fullmatch(r"[0-9]{1,18}", moment):
        return int(moment)
    try:
        found = datetime.fromisoformat(moment)
        since_ms = round((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)
        if since_ms < 0:  # some negative numbers have a meaning of their own in a lookup
            raise ValueError(moment)
    except (ValueError, OverflowError):
        raise ValueError(
            f"{option} takes 2026-01-31T12:00:00 (UTC, unless it names a zone) or milliseconds "
            f"since 1970, not {moment!r}"
        ) from None
    return since_ms
