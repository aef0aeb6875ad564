"""What a line of `quorate topic produce` means, and what is said of a line that means nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate import Record
from quorate_cli import record_text
from quorate_cli.record_input import NewRecord, headers_of, of_json, of_text
from tests.unit.quorate_cli.commands import Quorate

NAME = st.text(max_size=5).filter(lambda text: not any("\ud800" <= c <= "\udfff" for c in text))
DATA = st.none() | st.binary(max_size=20) | st.text(max_size=9).map(lambda text: text.encode())


@given(
    st.builds(
        Record,
        *(st.just("t"), st.integers(0, 9), st.integers(0, 99), st.integers(0, 2**60)),
        *(st.just("create_time"), DATA, DATA),
        st.lists(st.tuples(NAME, DATA), max_size=3).map(tuple),
        st.just(0),
    )
)
def test_what_consume_prints_is_the_same_record_again(record: Record[Any, Any]) -> None:
    line = json.dumps(record_text.as_json(record), ensure_ascii=False).encode()
    assert of_json(())(line) == NewRecord(
        record.value, record.key, record.partition, record.timestamp_ms, record.headers
    )


def test_a_topic_is_copied_through_a_pipe(quorate: Quorate) -> None:
    source, target = quorate.topic(3), quorate.topic(3)
    quorate.write(
        source,
        [
            {
                "value": b"\xff\\xff",
                "key": "ключ".encode(),
                "headers": [("h", b"\x80"), ("h", None)],
            },
            {"value": None, "key": b"", "partition": 2, "timestamp_ms": 17},
            {"value": b'{"two":\n"lines"}', "headers": [("трасса", b"a=b")]},
        ],
    )
    printed = quorate("topic", "consume", source, "--from-beginning", "--until-end", "-o", "json")
    said = quorate("topic", "produce", target, "--json", stdin=printed.out.encode())
    assert (said.status, said.out) == (0, "3 records acknowledged, 0 failed\n")

    def without_topic(topic: str) -> list[tuple[Any, ...]]:
        return [one[1:8] for one in quorate.read(topic)]

    assert without_topic(target) == without_topic(source)


def test_every_field_may_be_left_out_and_blank_lines_mean_nothing(quorate: Quorate) -> None:
    topic = quorate.topic()
    lines = b'{"value": "a", "headers": {"x": "1"}}\n\n {} \n'
    said = quorate("topic", "produce", topic, "--json", "--header", "all=yes", stdin=lines)
    assert said.out == "2 records acknowledged, 0 failed\n"
    found = quorate.read(topic)
    assert [(one.key, one.value) for one in found] == [(None, b"a"), (None, None)]
    assert [list(one.headers) for one in found] == [
        [("x", b"1"), ("all", b"yes")],
        [("all", b"yes")],
    ]


def test_headers_are_on_every_line(quorate: Quorate) -> None:
    topic = quorate.topic()
    headers = ("--header", "a=1", "--header", "a=2", "--header", "empty=")
    said = quorate(
        "topic", "produce", topic, "--key-separator", ":", *headers, stdin=b"k:v\nalone\n"
    )
    assert said.status == 0
    for record in quorate.read(topic):
        assert list(record.headers) == [("a", b"1"), ("a", b"2"), ("empty", b"")]


@pytest.mark.parametrize("wrong", ["a", "=b", ""])
def test_a_header_without_a_name_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="--header takes NAME=VALUE, not "):
        headers_of(["a=b", wrong])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "it is no JSON: "),
        ("[" * 100_000, "it is no JSON: "),
        ("[1]", r"it is no JSON object: \[1\]"),
        ('{"val": "x"}', "there is no field 'val'; the fields are headers, .*value_base64"),
        ('{"value": {"a": 1}}', 'value must be a string or null, not {"a": 1}'),
        ('{"key": 7}', "key must be a string or null, not 7"),
        (r'{"key": "\ud800"}', "key has half a surrogate pair"),
        (r'{"headers": {"\ud800": ""}}', "a header's name has half a surrogate pair"),
        ('{"partition": "1"}', 'partition must be a whole number, not "1"'),
        ('{"partition": true}', "partition must be a whole number, not true"),
        ('{"timestamp_ms": 1.5}', "timestamp_ms must be a whole number, not 1.5"),
        ('{"headers": [["a"]]}', "headers must be an object, or pairs"),
        ('{"headers": 3}', "headers must be an object, or pairs"),
        ('{"headers": {"a": 3}}', "header 'a' must be a string or null, not 3"),
        ('{"value_base64": "?"}', "value_base64 must be a string in base64"),
        ('{"headers_base64": [["a", "?"]]}', "headers_base64 must be a string in base64"),
    ],
)
def test_a_line_that_is_no_record_is_told_why(line: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        of_json(())(line.encode())


def test_a_line_that_is_no_record_ends_the_command(quorate: Quorate) -> None:
    topic = quorate.topic()
    lines = b'{"value": "sent"}\n{"value": 1}\n{"value": "not sent"}\n'
    said = quorate("topic", "produce", topic, "--json", stdin=lines)
    assert (said.status, said.out) == (2, "1 record acknowledged, 1 failed\n")
    assert said.err == (
        "quorate: line 2: value must be a string or null, not 1; nothing behind it was sent\n"
    )
    assert [record.value for record in quorate.read(topic)] == [b"sent"]


def test_a_line_without_the_separator_has_no_key() -> None:
    read = of_text("::", ())
    assert read(b"k::v::w") == NewRecord(b"v::w", b"k")
    assert read(b"k:v") == NewRecord(b"k:v")


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        (("--json", "--key-separator", ":"), "leave out --key-separator"),
        (("--header", "x"), "--header takes NAME=VALUE, not 'x'"),
        (("--acks", "2"), "--acks must be all, 1 or 0, not '2'"),
        (("--compression", "zip"), "--compression must be none, gzip, snappy, lz4 or zstd"),
    ],
)
def test_a_wrong_option_is_refused(quorate: Quorate, wrong: tuple[str, ...], what: str) -> None:
    said = quorate("topic", "produce", "any", *wrong)
    assert (said.status, said.out) == (2, "")
    assert what in said.err
