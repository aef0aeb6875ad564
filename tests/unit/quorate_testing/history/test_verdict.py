"""What a verdict says."""

from __future__ import annotations

import json

import pytest

from quorate_testing.history import Operation, Poll, Send, check
from tests.harness.history_lines import history


def test_an_error_names_process_key_value_offset_and_operation() -> None:
    text = """
    1: send x a@7
    2: send x b@8
    3: poll x b@8
    """
    lost, unseen = check(history(text)).failures
    assert str(lost.examples[0]) == (
        "lost-write: x: 'a' was written at offset 7 and never read, and offset 8 was read\n"
        "  [10, 15] process 1: send x 'a' at offset 7: done\n"
        "  [30, 35] process 3: poll x {8: 'b'}: done"
    )
    assert str(unseen.examples[0]) == (
        "unseen: x: the send of 'a' at offset 7 is done, and no operation read it\n"
        "  [10, 15] process 1: send x 'a' at offset 7: done"
    )


def test_a_circle_says_why_each_operation_comes_before_the_next() -> None:
    text = """
    [0-1] 1: poll x a@0
    [2-3] 2: send y b@0
    [0-9] 3: txn poll y b@0 / send x a@0
    """
    (found,) = check(history(text)).failures
    assert str(found.examples[0]) == (
        "G1c-realtime: 3 operations in a circle: T1 ended at 1, before T2 started at 2; "
        "T2 wrote y 'b' (offset 0), which T3 read; T3 wrote x 'a' (offset 0), which T1 read\n"
        "  T1: [0, 1] process 1: poll x {0: 'a'}: done\n"
        "  T2: [2, 3] process 2: send y 'b' at offset 0: done\n"
        "  T3: [0, 9] process 3: txn poll y {0: 'b'}; send x 'a' at offset 0: done"
    )


def test_of_a_long_circle_only_the_beginning_is_shown() -> None:
    ring = "\n".join(
        f"[0-9] 1: txn send x {i}@{i} / poll x {(i - 1) % 99}@{(i - 1) % 99}" for i in range(99)
    )
    (found,) = (one for one in check(history(ring)).failures if one.kind == "G1c")
    (error,) = found.examples
    assert error.sentence.startswith("99 operations in a circle: T1 wrote x ")
    assert error.sentence.endswith("which T13 read; and so on, from T13 back to T1")
    assert len(error.places) == 12


def test_of_a_long_operation_only_the_place_is_shown() -> None:
    records = [(offset, offset) for offset in range(1000)]
    sends = tuple(Send("x", value, value) for value in range(1000))
    write = Operation(process="p", kind="send", start=0, end=1, outcome="done", steps=sends)
    steps = (Poll({"x": [*records[:500], *records[501:]], "y": []}),)
    read = Operation(process="c", kind="poll", start=2, end=3, outcome="done", steps=steps)
    skip = next(one for one in check([write, read]).failures if one.kind == "int-poll-skip")
    text = str(skip.examples[0])
    assert "offset 501 was read after 499: 500 at offset 500 was left out" in text
    assert "{495 more, 495: 495, " in text
    assert len(text) < 700


def test_the_smallest_examples_are_kept() -> None:
    sends = "\n".join(f"1: send x {number}@{number}" for number in range(2000))
    found = {one.kind: one for one in check(history(f"{sends}\n2: poll x 1999@1999")).failures}
    assert found["lost-write"].count == 1999
    assert len(found["lost-write"].examples) == 8
    assert "'1998' was written at offset 1998" in found["lost-write"].examples[0].sentence


def test_the_report() -> None:
    text = """
    1: send x a@0
    1? send x b@1
    2: poll x a@0
    3: poll x a@0 b@1
    """
    verdict = check(history(text))
    assert verdict.is_good
    assert verdict.polled == {"2": 1, "3": 2}
    assert str(verdict) == "good: 2 poll done, 1 send done, 1 send unknown"


def test_a_verdict_is_no_condition() -> None:
    with pytest.raises(TypeError, match="is_good"):
        bool(check([]))


def test_a_verdict_as_json() -> None:
    verdict = check(history("1: send x a@0\n2: send x b@0\n3: poll x a@0")).to_json()
    assert json.loads(json.dumps(verdict)) == verdict
    assert not verdict["is_good"]
    assert list(verdict["failures"]) == ["inconsistent-offsets", "lost-write", "unseen"]
    assert verdict["failures"]["unseen"]["count"] == 1


def test_kinds_may_be_allowed() -> None:
    text = "1? send x a\n2: poll x a@0 a@1"
    assert not check(history(text)).is_good
    verdict = check(history(text), allowed=["duplicate"])
    assert verdict.is_good
    assert [one.kind for one in verdict.by_design] == ["duplicate"]


def test_a_kind_that_does_not_exist_cannot_be_allowed() -> None:
    with pytest.raises(ValueError, match="no kind is named"):
        check([], allowed=["duplicates"])


def test_a_large_circle_is_told_though_none_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quorate_testing.history.cycles.STEPS_MAX", 1)
    text = """
    [0-2] 1: txn send x a@0 / poll y b@0
    [1-3] 2: txn send y b@0 / poll x a@0
    """
    (found,) = check(history(text)).failures
    assert found.kind == "G1c"
    assert "2 operations came before each other" in str(found)
