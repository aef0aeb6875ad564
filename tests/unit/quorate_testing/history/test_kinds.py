"""A table of histories, good and bad, for each kind of error."""

from __future__ import annotations

import pytest

from quorate_testing.history import check
from quorate_testing.history.errors import KINDS
from tests.harness.history_lines import history

#: Name -> (the kinds that are failures, those that are none by design, the history).
#: The names of rows begin with the kind that they are about.
TABLE: dict[str, tuple[set[str], set[str], str]] = {
    "inconsistent-offsets: two sends are told the same offset": (
        {"inconsistent-offsets", "lost-write", "unseen"},
        set(),
        """
        1: send x a@7
        2: send x b@7
        3: poll x a@7
        """,
    ),
    "inconsistent-offsets: two polls read different values": (
        {"inconsistent-offsets"},
        set(),
        """
        1? send x a
        2? send x b
        3: poll x a@0
        4: poll x b@0
        """,
    ),
    "inconsistent-offsets: a poll that failed counts, too": (
        {"inconsistent-offsets"},
        set(),
        """
        1: send x a@0
        2? send x b
        3: poll x a@0
        4! poll x b@0
        """,
    ),
    "inconsistent-offsets: a send of unknown outcome may not have been written": (
        set(),
        set(),
        """
        1? send x a@0, y a
        2: send x b@0
        3: poll x b@0
        """,
    ),
    "inconsistent-offsets: a transaction of unknown outcome of which one record was read": (
        {"inconsistent-offsets", "lost-write"},
        set(),
        """
        1? txn send x a@0 / send y c
        2: send x b@0
        3: poll x b@0, y c@5
        """,
    ),
    "inconsistent-offsets: sends of one operation are each for itself": (
        set(),
        set(),
        """
        1? send x a@0, y c
        2: send x b@0
        3: poll x b@0, y c@5
        """,
    ),
    "duplicate: written at one offset and read at another": (
        {"duplicate"},
        {"G0", "G0-realtime"},
        """
        1: send x a@1
        2? send x b
        3: poll x b@2 a@3
        """,
    ),
    "duplicate: read twice at two offsets": (
        {"duplicate"},
        set(),
        """
        1? send x a
        2: poll x a@0 a@1
        """,
    ),
    "duplicate: a poll that failed shows the log, a send that failed does not": (
        {"duplicate"},
        set(),
        """
        1: send x 0@1
        1! send x 1@2
        2! poll x 0@11 1@12
        3: poll x 0@1
        """,
    ),
    "duplicate: one offset that is read twice is none": (
        set(),
        set(),
        """
        1: send x a@1
        2: poll x a@1
        3: poll x a@1
        """,
    ),
    "lost-write: a later value was read": (
        {"lost-write", "unseen"},
        set(),
        """
        1: send x a@0
        1: send x b@1
        2? send x c
        3: poll x c@2
        """,
    ),
    "lost-write: another value took its offset": (
        {"lost-write", "unseen", "inconsistent-offsets"},
        set(),
        """
        1: send x a@0
        2: send x b@0 c@2
        3: poll x b@0 c@2
        """,
    ),
    "lost-write: of a transaction of unknown outcome of which one record was read": (
        {"lost-write"},
        set(),
        """
        1? txn send x a / send y b@0
        2? send y c
        3: poll x a@0
        4: poll y c@1
        """,
    ),
    "lost-write: a transaction of unknown outcome may not have been written": (
        set(),
        set(),
        """
        1? txn send x a / send y b@0
        2? send y c
        4: poll y c@1
        """,
    ),
    "lost-write: what only a poll that failed read was not read": (
        {"lost-write", "unseen"},
        set(),
        """
        1: send x a@0
        1: send x b@1
        2! poll x a@0
        2: poll x b@1
        """,
    ),
    "lost-write: a value that is behind the last one read is not lost": (
        {"unseen"},
        set(),
        """
        1: send x a@0
        1: send x b@1
        2: poll x a@0
        """,
    ),
    "lost-write: another process may read it": (
        set(),
        set(),
        """
        1: send x a@0
        1: send x b@1
        2: poll x b@1
        3: poll x a@0
        """,
    ),
    "lost-write: a value with two offsets counts as read from the first on": (
        {"duplicate", "unseen"},
        {"G0", "G0-realtime"},
        """
        1: send x b@3
        2? send x a
        3: poll x a@5
        4: poll x a@1
        """,
    ),
    "lost-write: a value with two offsets may be read behind the bound": (
        {"duplicate", "unseen"},
        {"G0", "G0-realtime"},
        """
        1: send x a@1
        2: send x c@3
        3! poll x a@5
        4: poll x c@3
        """,
    ),
    "unseen: of two keys": (
        {"unseen"},
        set(),
        """
        1: send x a, y a
        2: poll y a@0
        """,
    ),
    "unseen: offset unknown": (
        {"unseen"},
        set(),
        """
        1: send x a
        1: send x b@8
        2: poll x b@8
        """,
    ),
    "unseen: not if the outcome is unknown, or it failed": (
        set(),
        set(),
        """
        1? send x a
        2! send x b
        1: send x c@2
        3: poll x c@2
        """,
    ),
    "G1a: a send": (
        {"G1a"},
        set(),
        """
        1! send x 2, y 3
        2: poll x 2@0
        """,
    ),
    "G1a: a transaction": (
        {"G1a"},
        set(),
        """
        1! txn send x 2@5 / send y 3@5
        2: poll y 3@5
        """,
    ),
    "G1a: a retry may use the value of a send that failed": (
        set(),
        set(),
        """
        1! send x a
        1: send x a@0
        2: poll x a@0
        """,
    ),
    "G1a: an operation that failed may have read it": (
        set(),
        set(),
        """
        1! send x a@0
        1: send x b@1
        2! poll x a@0
        2: poll x b@1
        """,
    ),
    "precommitted-read: of its last record": (
        {"precommitted-read"},
        set(),
        """
        1: txn send x a@0 / poll x a@0
        """,
    ),
    "precommitted-read: of an earlier key": (
        {"precommitted-read"},
        {"int-send-skip", "G0", "G0-realtime"},
        """
        2: send x b@1
        1: txn send x a@0 / send y a@0 / send x c@2 / poll x a@0
        3: poll x a@0 b@1 c@2, y a@0
        """,
    ),
    "precommitted-read: of the same value of another key is none": (
        set(),
        set(),
        """
        2: send y a@0
        1: txn send x a@0 / poll y a@0
        3: poll x a@0
        """,
    ),
    "poll-skip: between two polls": (
        {"poll-skip"},
        set(),
        """
        1: send x a@1 b@2 c@3 d@4 f@6 g@7
        2: poll x a@1 b@2
        3: poll x c@3
        2: poll x d@4
        2: poll x g@7
        4: poll x f@6
        """,
    ),
    "poll-skip: over an assignment that keeps the key": (
        {"poll-skip"},
        set(),
        """
        1: send x a@1 b@2 c@3
        2: assign x
        2: poll x a@1
        2: assign x y
        2: poll x c@3
        3: poll x b@2
        """,
    ),
    "poll-skip: a hole in the log is none": (
        set(),
        set(),
        """
        1: send x a@1 b@3
        2: poll x a@1
        2: poll x b@3
        """,
    ),
    "poll-skip: not over an assignment that drops the key, a seek, or a crash": (
        set(),
        set(),
        """
        1: send x a@1 b@2 c@3 d@4 e@5 f@6 g@7
        2: poll x a@1
        2? assign y
        2: poll x c@3
        2: assign x from the beginning
        2: poll x e@5
        2: crash
        2: poll x g@7
        3: poll x a@1 b@2 c@3 d@4 e@5 f@6 g@7
        """,
    ),
    "poll-skip: over an assignment that failed": (
        {"poll-skip"},
        set(),
        """
        1: send x a@1 b@2 c@3
        2: poll x a@1
        2! assign y
        2: poll x c@3
        3: poll x b@2
        """,
    ),
    "poll-skip: by design in a group": (
        set(),
        {"poll-skip"},
        """
        1: send x a@1 b@2 c@3
        2: subscribe x
        2: poll x a@1
        3: poll x b@2
        2: poll x c@3
        """,
    ),
    "poll-skip: no more in a group after an assignment": (
        {"poll-skip"},
        set(),
        """
        1: send x a@1 b@2 c@3
        2: subscribe x
        2: poll x a@1
        3: poll x b@2
        2: assign x
        2: poll x c@3
        """,
    ),
    "poll-skip: operations that are not done are read again": (
        set(),
        set(),
        """
        1: send x 0@0 1@1 2@2
        2: txn poll x 0@0
        2! txn poll x 1@1 2@2
        2? txn poll x 1@1 2@2
        2: txn poll x 1@1 2@2
        """,
    ),
    "poll-skip: an operation that failed did not move the position": (
        {"poll-skip"},
        set(),
        """
        1: send x 0@0 1@1 2@2 3@3
        2: txn poll x 0@0
        2! txn poll x 1@1 2@2
        2? txn poll x 3@3
        3: poll x 0@0 1@1 2@2 3@3
        """,
    ),
    "poll-skip: an operation begins with its first poll": (
        set(),
        set(),
        """
        1: send x a@0 b@1 c@2
        2: poll x a@0
        2: poll x b@1 / x c@2
        """,
    ),
    "nonmonotonic-poll: back": (
        {"nonmonotonic-poll"},
        set(),
        """
        1: send x a b c d
        2: poll x a@1 b@2 c@3
        2: poll x b@2 c@3 d@4
        """,
    ),
    "nonmonotonic-poll: the same again, over an assignment that keeps the key": (
        {"nonmonotonic-poll"},
        set(),
        """
        1: send x a b
        2: assign x
        2: poll x a@1 b@2
        2: assign x y
        2: poll x b@2
        """,
    ),
    "nonmonotonic-poll: not over an assignment that drops the key, or a seek": (
        set(),
        set(),
        """
        1: send x a b
        2: assign x
        2: poll x a@1 b@2
        2: assign y
        2: assign x
        2: poll x a@1 b@2
        2: assign x from the beginning
        2: poll x a@1 b@2
        """,
    ),
    "nonmonotonic-poll: by design in a group": (
        set(),
        {"nonmonotonic-poll"},
        """
        1: send x a b
        2: subscribe x
        2: poll x a@1 b@2
        2: poll x a@1
        """,
    ),
    "int-poll-skip: within a poll": (
        {"int-poll-skip"},
        set(),
        """
        1? send x a b d
        2: poll x a@1 d@4
        3: poll x b@2
        """,
    ),
    "int-poll-skip: between polls": (
        {"int-poll-skip"},
        set(),
        """
        1? send x a b d
        2: poll x a@1 / x d@4
        3: poll x b@2
        """,
    ),
    "int-poll-skip: a hole in the log is none": (
        set(),
        set(),
        """
        1? send x a d
        2: poll x a@1 d@4
        """,
    ),
    "int-poll-skip: not with a rebalance": (
        set(),
        set(),
        """
        1? send x a b d
        2: poll x a@1 / x d@4 rebalanced x
        3: poll x b@2
        """,
    ),
    "int-poll-skip: the rebalance was of another key": (
        {"int-poll-skip"},
        set(),
        """
        1? send x a b d
        2: poll x a@1 / x d@4 rebalanced y
        3: poll x b@2
        """,
    ),
    "int-nonmonotonic-poll: back": (
        {"int-nonmonotonic-poll"},
        set(),
        """
        1? send x a b c
        2: poll x c@3 a@1
        3: poll x b@2
        """,
    ),
    "int-nonmonotonic-poll: the same again": (
        {"int-nonmonotonic-poll"},
        set(),
        """
        1? send x b c
        2: poll x b@2 c@3 / x c@3
        """,
    ),
    "int-nonmonotonic-poll: not with a rebalance": (
        set(),
        set(),
        """
        1? send x b c
        2: poll x b@2 c@3 / x b@2 rebalanced x
        """,
    ),
    "nonmonotonic-send: two sends": (
        {"nonmonotonic-send"},
        {"G0-process", "G0-realtime"},
        """
        1: send x c@3 d@4
        1: send x a@1 b@2
        2: poll x a@1 b@2 c@3 d@4
        """,
    ),
    "nonmonotonic-send: the outcome of the first is unknown, and it was read": (
        {"nonmonotonic-send"},
        set(),
        """
        1? send x a
        1: send x b@1
        2: poll x b@1 a@2
        """,
    ),
    "nonmonotonic-send: between two whose offsets are known": (
        {"nonmonotonic-send"},
        {"G0-process", "G0-realtime"},
        """
        1: send x a@5
        1? send x b
        1: send x c@4
        2: poll x c@4 a@5
        """,
    ),
    "nonmonotonic-send: not of two processes, or after a crash": (
        set(),
        {"G0-realtime"},
        """
        1? send x a
        1: crash
        1: send x b@1
        2: send x c@0
        3: poll x c@0 b@1 a@2
        """,
    ),
    "int-nonmonotonic-send: the offsets say it": (
        {"int-nonmonotonic-send"},
        set(),
        """
        1: send x c@3 a@1
        2: poll x a@1 c@3
        """,
    ),
    "int-nonmonotonic-send: a poll says it": (
        {"int-nonmonotonic-send"},
        set(),
        """
        1? send y d b
        2: poll y b@2 d@4
        """,
    ),
    "int-nonmonotonic-send: of two keys is none": (
        set(),
        set(),
        """
        1: send x c@3, y a@1
        2: poll x c@3, y a@1
        """,
    ),
    "int-send-skip: the offsets say it": (
        set(),
        {"int-send-skip", "G0", "G0-realtime"},
        """
        1: send x a@1 c@3
        2? send x b
        3: poll x a@1 b@2 c@3
        """,
    ),
    "int-send-skip: a poll says it": (
        set(),
        {"int-send-skip", "G0"},
        """
        [0-9] 1: send x a@1 c
        [0-9] 2: send x b
        4: poll x a@1
        3: poll x b@2 c@3
        """,
    ),
    "int-send-skip: a hole in the log is none": (
        set(),
        set(),
        """
        1: send x a@1 c@3
        3: poll x a@1 c@3
        """,
    ),
    "G0: two writers of two keys": (
        set(),
        {"G0"},
        """
        [0-3] 1: send x a1@0, y a2@1
        [1-4] 2: send x b1@1, y b2@0
        3: poll x a1@0 b1@1, y b2@0 a2@1
        """,
    ),
    "G0: three writers, of which one has an unknown outcome": (
        set(),
        {"G0"},
        """
        [0-9] 1: send x a1@0, z a2@1
        [0-9] 2: send x b1@1, y b2@0
        [0-] 3? send y c1, z c2@0
        4: poll x a1@0 b1@1, y b2@0 c1@1, z c2@0 a2@1
        """,
    ),
    "G0: not if one failed": (
        set(),
        set(),
        """
        [0-3] 1! send x a1@0, y a2@1
        [1-4] 2: send x b1@1, y b2@0
        3: poll x b1@1, y b2@0
        """,
    ),
    "G0: not if one failed, though it was read": (
        {"G1a"},
        set(),
        """
        [0-3] 1! send x a1@0, y a2@1
        [1-4] 2: send x b1@1, y b2@0
        3: poll x a1@0 b1@1, y b2@0 a2@1
        """,
    ),
    "G0-process: the later send stands before": (
        {"nonmonotonic-send"},
        {"G0-process", "G0-realtime"},
        """
        1: send x a@1
        1: send x b@0
        2: poll x b@0 a@1
        """,
    ),
    "G0-process: of two keys": (
        set(),
        {"G0-process", "G0-realtime"},
        """
        [0-1] 1: send x a@1
        [2-3] 1: send y b@0
        [0-9] 2: send y c@1, x d@0
        4: poll x d@0 a@1, y b@0 c@1
        """,
    ),
    "G0-realtime: another process's later send stands before": (
        set(),
        {"G0-realtime"},
        """
        [0-1] 1: send x a@1
        [2-3] 2: send x b@0
        3: poll x b@0 a@1
        """,
    ),
    "G0-realtime: with a third writer": (
        set(),
        {"G0-realtime"},
        """
        [0-1] 1: send x a@1
        [2-3] 2: send y b@0
        [0-9] 3: send y c@1, x d@0
        4: poll x d@0 a@1, y b@0 c@1
        """,
    ),
    "G0-realtime: not if they overlap": (
        set(),
        set(),
        """
        [0-2] 1: send x a@1
        [2-3] 2: send x b@0
        3: poll x b@0 a@1
        """,
    ),
    "G1c: each read what the other wrote": (
        {"G1c"},
        set(),
        """
        [0-2] 1: txn send x a@0 / poll y b@0
        [1-3] 2: txn send y b@0 / poll x a@0
        """,
    ),
    "G1c: three": (
        {"G1c"},
        set(),
        """
        [0-9] 1: txn send x a@0 / poll z c@0
        [0-9] 2: txn send y b@0 / poll x a@0
        [0-9] 3: txn send z c@0 / poll y b@0
        """,
    ),
    "G1c: by design with the order of writes": (
        set(),
        {"G1c"},
        """
        [0-2] 1: txn send x a@0 / send y c@2
        [1-3] 2: txn poll x a@0 / send y b@1
        3: poll y b@1 c@2
        """,
    ),
    "G1c: not if one failed": (
        {"G1a"},
        set(),
        """
        [0-2] 1! txn send x a@0 / poll y b@0
        [1-3] 2: txn send y b@0 / poll x a@0
        3: poll y b@0
        """,
    ),
    "G1c: not by what an operation of unknown outcome read": (
        set(),
        set(),
        """
        [0-2] 1? txn send x a@0 / poll y b@0
        [1-3] 2: txn send y b@0 / poll x a@0
        3: poll y b@0
        """,
    ),
    "G1c: one ends when the other starts": (
        {"G1c"},
        set(),
        """
        [0-5] 1: txn send x a@0 / poll y b@0
        [5-9] 2: txn send y b@0 / poll x a@0
        """,
    ),
    "G1c-process: it read before it sent": (
        {"G1c-process", "G1c-realtime"},
        set(),
        """
        1: poll x a@0
        1: send x a@0
        """,
    ),
    "G1c-process: with another process": (
        {"G1c-process", "G1c-realtime"},
        set(),
        """
        [0-1] 1: txn poll x a@0
        [2-9] 1: txn send y b@0
        [0-9] 2: txn poll y b@0 / send x a@0
        """,
    ),
    "G1c-process: a poll that is under way while its process sends": (
        set(),
        set(),
        """
        [0-9] 1: poll x a@0
        [2-3] 1: send x a@0
        """,
    ),
    "G1c-realtime: read before another sent": (
        {"G1c-realtime"},
        set(),
        """
        [0-1] 1: poll x a@0
        [2-3] 2: send x a@0
        """,
    ),
    "G1c-realtime: with a third": (
        {"G1c-realtime"},
        set(),
        """
        [0-1] 1: poll x a@0
        [2-3] 2: send y b@0
        [0-9] 3: txn poll y b@0 / send x a@0
        """,
    ),
    "G1c-realtime: an unknown outcome has no end": (
        set(),
        set(),
        """
        [0-1] 1? txn send y b / poll x a@0
        [2-9] 2: txn send x a@0
        [2-9] 3: poll y b@0
        [2-9] 3: poll x a@0
        """,
    ),
    "unwritten: nothing was sent": (
        {"unwritten"},
        set(),
        """
        1: poll x a@0
        """,
    ),
    "unwritten: sent to another key": (
        {"unwritten", "unseen"},
        set(),
        """
        1: send x a@0
        1: poll y a@0
        """,
    ),
    "reused-value: both are done": (
        {"reused-value", "duplicate"},
        {"G0-realtime"},
        """
        1: send x a@0
        2: send x a@1
        3: poll x a@0 a@1
        """,
    ),
    "reused-value: a retry of what may have been written": (
        {"reused-value"},
        set(),
        """
        1? send x a
        2: send x a@0
        3: poll x a@0
        """,
    ),
    "reused-value: in one operation": (
        {"reused-value", "int-nonmonotonic-send"},
        set(),
        """
        1: send x a a@1
        3: poll x a@1
        """,
    ),
    "reused-value: not if the later send failed": (
        set(),
        set(),
        """
        1: send x a@0
        2! send x a
        3: poll x a@0
        """,
    ),
    "empty: no operations": ({"empty"}, set(), "1: assign x"),
    "empty: nothing was read": (
        {"empty", "unseen"},
        set(),
        """
        1: send x a@0
        2: poll x
        """,
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_the_kinds_of_a_history(name: str) -> None:
    failures, by_design, text = TABLE[name]
    verdict = check(history(text))
    told = str(verdict)
    assert {finding.kind for finding in verdict.failures} == failures, told
    assert {finding.kind for finding in verdict.by_design} == by_design, told
    assert verdict.is_good == (not failures)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_two_histories_that_show_it(kind: str) -> None:
    rows = [name for name, row in TABLE.items() if name.startswith(f"{kind}: ")]
    assert sum(kind in {*TABLE[name][0], *TABLE[name][1]} for name in rows) >= 2
