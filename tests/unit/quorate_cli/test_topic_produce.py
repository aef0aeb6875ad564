"""`quorate topic produce` reads the lines of a pipe as soon as they are there."""

from __future__ import annotations

import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.errors import DeliveryTimeoutError
from quorate_cli.session import not_acknowledged
from quorate_cli.topic_produce import Lines


def test_a_line_is_read_before_the_next_one_is_written() -> None:
    """`tail -f log | quorate topic produce`: nothing was sent before a thousand lines were."""
    reader, writer = os.pipe()
    with open(reader, "rb") as source, open(writer, "wb", buffering=0) as sink:
        lines = Lines(source)
        for text in (b"one\n", b"two\r\nthree\n"):
            sink.write(text)
            assert lines.next() == text.replace(b"\r", b"").split(b"\n")[:-1]
        sink.write(b"the last has no end")
        sink.close()
        assert lines.next() == [b"the last has no end"]
        assert lines.next() == []


@given(st.lists(st.binary(max_size=20).filter(lambda line: not {10, 13} & set(line)), max_size=9))
def test_lines_are_those_of_the_file(written: list[bytes]) -> None:
    lines = Lines(io.BufferedReader(io.BytesIO(b"".join(line + b"\n" for line in written))))
    found: list[bytes] = []
    while chunk := lines.next():
        found += chunk
    assert found == written


@pytest.mark.parametrize(
    ("may_be_written", "said"),
    [
        (False, "no answer. Nothing was written; send it again."),
        (
            True,
            "no answer [OUTCOME_UNKNOWN]. Look whether it is there before you send it again.",
        ),
    ],
)
def test_a_record_that_was_not_acknowledged_has_advice_for_a_shell(
    may_be_written: bool, said: str
) -> None:
    """What is known is not called unknown, and no attribute of a Python class is named."""
    error = DeliveryTimeoutError("no answer")
    error.may_be_written = may_be_written
    assert not_acknowledged(error) == said
