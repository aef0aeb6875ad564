"""The worst lag behind real time, which is reported and no error."""

from __future__ import annotations

import pytest

from quorate_testing.history import check
from tests.harness.history_lines import history

BEGIN = """
[0-1] 0: assign x
[2-3] 0: poll x
[4-5] 0: send x a@0
"""
MORE = """
[6-7] 0: poll x
[8-9] 1: send x c@2 d@3
[10-11] 0: poll
"""


@pytest.mark.parametrize(
    ("text", "lag"),
    [
        (BEGIN, None),
        # It was acknowledged at 5, and the poll that began at 6 did not see it.
        (BEGIN + "[6-7] 0: poll x", (1, "x", 6)),
        (BEGIN + MORE, (5, "x", 10)),
        # b was the last one until c was written, at 9.
        (BEGIN + MORE + "[30-31] 0: poll x a@0 b@1\n[40-41] 0: poll", (31, "x", 40)),
        # y is empty.
        (BEGIN + "[6-7] 0: poll x a@0\n[14-15] 0: assign x y\n[16-17] 0: poll", None),
        # Another assignment forgets what was read.
        (
            BEGIN
            + "[6-7] 0: poll x a@0\n[18-19] 0: assign y\n[20-21] 0: assign x\n[22-23] 0: poll",
            (17, "x", 22),
        ),
        # A member of a group may have got no partition.
        (BEGIN + "[6-7] 0: subscribe x\n[20-21] 0: poll", None),
        # Nothing is read after a crash, before keys are assigned again.
        (BEGIN + "[6-7] 0: crash\n[20-21] 0: poll", None),
        # What was read stays read.
        (BEGIN + "[6-7] 0: send x b@1\n[8-9] 0: poll x a@0 b@1\n[20-21] 0: poll x a@0", None),
        # A poll that failed tells nothing.
        (BEGIN + "[20-21] 0! poll x", None),
    ],
)
def test_the_worst_lag(text: str, lag: tuple[int, str, int] | None) -> None:
    worst = check(history(text)).worst_lag
    assert (worst and (worst.lag, worst.key, worst.start)) == lag
