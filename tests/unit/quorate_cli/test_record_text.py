"""How `topic consume` prints a record."""

from __future__ import annotations

from typing import Any

import pytest

from quorate import Record
from quorate_cli import record_text

BREAKS = ["\n", "\r", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]


def record(value: bytes | None, key: bytes | None = None, **fields: Any) -> Record[Any, Any]:
    return Record(
        **{
            "topic": "t",
            "partition": 3,
            "offset": 7,
            "timestamp_ms": 1_700_000_000_123,
            "timestamp_type": "create_time",
            "key": key,
            "value": value,
            "headers": (("h", b"1"), ("none", None)),
            "leader_epoch": 0,
            **fields,
        }
    )


@pytest.mark.parametrize("line_break", BREAKS)
def test_a_record_is_one_line_whatever_is_in_it(line_break: str) -> None:
    data = f"a{line_break}b".encode()
    for printed in (
        record_text.plain(record(data, data)),
        record_text.template("{key} {value} {headers}")(record(data, data, headers=(("h", data),))),
    ):
        assert len(printed.splitlines()) == 1


def test_null_is_told_from_every_word_for_it() -> None:
    printed = {record_text.plain(record(value)) for value in (None, b"None", b"null", b"")}
    assert len(printed) == 4
    assert record_text.plain(record(None)) == "3\t7\t\\N"
    assert record_text.as_json(record(None))["value"] is None


def test_a_key_never_takes_the_place_of_the_value() -> None:
    assert record_text.plain(record(b"v\tw", b"k\tl")).split("\t", 3) == ["3", "7", r"k\tl", "v\tw"]


def test_a_terminal_obeys_no_record() -> None:
    assert record_text.plain(record(b"\x1b[2J")) == "3\t7\t\\x1b[2J"


def test_a_format_has_every_field_and_escapes() -> None:
    printed = record_text.template(
        r"{topic}/{partition}@{offset:>3}\t{timestamp_ms} {time} {key}={value} {headers} {{}}\\n"
    )(record(None, b"k"))
    assert printed == (
        "t/3@  7\t1700000000123 2023-11-14T22:13:20.123+00:00 k=\\N h=1,none=\\N {}\\n"
    )


@pytest.mark.parametrize(
    "pattern", ["{foo}", "{}", "{value", "{value.__class__}", "{0}", "}", "{key:d}", "{key:{x}}"]
)
def test_a_format_with_anything_else_names_what_it_may_have(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"\{topic\}, \{partition\}"):
        record_text.template(pattern)


@pytest.mark.parametrize(
    "moment",
    [
        "",
        "x",
        "-1",
        "2026-13-01",
        "1e9",
        "12:00",
        "1969-12-31T23:59:59.999",
        "0001-01-01T00:00:00+14:00",
    ],
)
def test_a_time_that_is_none_says_what_one_is(moment: str) -> None:
    with pytest.raises(ValueError, match=r"--to-time takes .* \(UTC, unless it names a zone\)"):
        record_text.milliseconds_of(moment, "--to-time")
