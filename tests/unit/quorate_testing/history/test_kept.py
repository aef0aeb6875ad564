"""What a log may lack: retention, compaction, and topics that are made again."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from quorate_testing.history import Kept, Operation, Send, check, partition_name
from tests.harness.history_lines import history

#: "a" and "b" were deleted before anyone came to read.
DELETED = """
1: send x a@0 b@1 c@2
2: poll x c@2
"""
#: A reader was at "a" when the log was cut below "c".
OVERTAKEN = """
1: send x a@0 b@1 c@2 d@3
3: poll x b@1 c@2
2: poll x a@0
2: poll x d@3
"""


def kinds(operations: list[Operation], kept: Kept) -> set[str]:
    return {finding.kind for finding in check(operations, kept={"x": kept}).failures}


def test_what_is_below_the_start_of_the_log_may_be_missing() -> None:
    assert kinds(history(DELETED), Kept()) == {"lost-write", "unseen"}
    assert kinds(history(DELETED), Kept(log_start=1)) == {"lost-write", "unseen"}
    assert kinds(history(DELETED), Kept(log_start=2)) == set()


def test_a_reader_may_skip_to_the_start_of_the_log_and_no_further() -> None:
    assert kinds(history(OVERTAKEN), Kept(log_start=1)) == {"poll-skip"}
    assert kinds(history(OVERTAKEN), Kept(log_start=2)) == {"poll-skip"}
    assert kinds(history(OVERTAKEN), Kept(log_start=3)) == set()


def test_within_an_operation_too() -> None:
    text = """
    1: send x a@0 b@1 c@2
    3: poll x b@1
    2: poll x a@0 c@2
    """
    assert kinds(history(text), Kept(log_start=1)) == {"int-poll-skip"}
    assert kinds(history(text), Kept(log_start=2)) == set()


def test_of_a_send_without_an_offset_deletion_proves_nothing() -> None:
    text = """
    1: send x a
    1: send x b@1
    2: poll x b@1
    """
    assert kinds(history(text), Kept()) == {"unseen"}
    assert kinds(history(text), Kept(log_start=1)) == set()


def with_record_keys(text: str) -> list[Operation]:
    """The record key of a value is its first letter."""
    return [
        replace(
            one,
            steps=tuple(
                replace(step, record_key=str(step.value)[0]) if isinstance(step, Send) else step
                for step in one.steps
            ),
        )
        for one in history(text)
    ]


def test_compaction_keeps_the_last_record_of_each_key() -> None:
    text = """
    1: send x a1@0 b1@1 a2@2
    2: poll x b1@1 a2@2
    """
    assert kinds(with_record_keys(text), Kept()) == {"lost-write", "unseen"}
    assert kinds(with_record_keys(text), Kept(compacted=True)) == set()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "1: send x a1@0 b1@1 a2@2\n2: poll x a1@0 a2@2",
            {"lost-write", "unseen", "int-poll-skip"},
        ),
        ("1: send x a1@0 b1@1 a2@2\n2: poll x b1@1", {"unseen"}),
        (
            "1: send x a1@0\n1? send x a2@2\n1: send x b1@3\n2: poll x b1@3",
            {"lost-write", "unseen"},
        ),
    ],
    ids=["of another key", "the last one", "the later one may not have been written"],
)
def test_compaction_excuses_no_more(text: str, found: set[str]) -> None:
    assert kinds(with_record_keys(text), Kept(compacted=True)) == found


def test_without_record_keys_compaction_excuses_nothing() -> None:
    text = """
    1: send x a1@0 a2@1
    2: poll x a2@1
    """
    assert kinds(history(text), Kept(compacted=True)) == {"lost-write", "unseen"}


def test_a_reader_skips_what_compaction_removed() -> None:
    text = """
    1: send x a1@0 b1@1 a2@2 c1@3
    3: poll x a1@0 b1@1 a2@2 c1@3
    2: poll x a1@0
    2: poll x {}@2 c1@3
    """
    assert kinds(with_record_keys(text.format("a2")), Kept(compacted=True)) == {"poll-skip"}
    early = text.format("a2").replace("b1@1 a2@2 c1@3\n", "a0@1 a2@2 c1@3\n")
    assert kinds(with_record_keys(early), Kept(compacted=True)) == set()


def test_values_that_are_named_may_be_missing() -> None:
    assert kinds(history(DELETED), Kept(may_lack=frozenset({"a"}))) == {"lost-write", "unseen"}
    assert kinds(history(DELETED), Kept(may_lack=frozenset({"a", "b"}))) == set()


def test_other_keys_lack_nothing() -> None:
    verdict = check(history(DELETED), kept={"y": Kept(log_start=9)})
    assert {finding.kind for finding in verdict.failures} == {"lost-write", "unseen"}


def test_a_topic_that_is_made_again_has_other_keys() -> None:
    first, again = partition_name("t", 0), partition_name("t", 0, incarnation=1)
    text = f"""
    1: send {first} a@0 b@1
    2: poll {first} a@0
    1: send {again} c@0
    2: poll {again} c@0
    """
    deleted = {first: Kept(log_start=2)}
    assert check(history(text), kept=deleted).is_good
    wrong = check(history(text.replace(again, first)), kept=deleted)
    assert "inconsistent-offsets" in {finding.kind for finding in wrong.failures}
