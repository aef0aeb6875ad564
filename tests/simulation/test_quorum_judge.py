"""The two judges of a quorum's clients: what each accepts and finds, by hand and in a world."""

from __future__ import annotations

import pytest

from quorate_quorum.raft.driver.node import RaftNode
from tests.harness import quorum_seed
from tests.harness.invariants import Violation
from tests.harness.quorum_clients import Operation
from tests.harness.quorum_faults import Fault
from tests.harness.quorum_judge import judge, judge_by_answers, judge_by_log
from tests.harness.quorum_seed import run_seed


def write(value: str, before: str | None, at: float, end: float, status: str = "ok") -> Operation:
    is_done = status == "ok"
    found = before if is_done else None
    return Operation("write", "a", at, value, None, status, end, found, has_written=is_done)  # type: ignore[arg-type]


def swap(expected: str, value: str, found: str | None, at: float, end: float) -> Operation:
    done = found == expected
    return Operation("cas", "a", at, value, expected, "ok", end, found, has_written=done)


def read(found: str | None, at: float, end: float) -> Operation:
    return Operation("read", "a", at, None, None, "ok", end, found)


@pytest.mark.parametrize(
    "history",
    [
        pytest.param([write("1", None, 0, 1), read("1", 2, 3)], id="read after write"),
        pytest.param([write("1", None, 0, 5), read(None, 1, 2)], id="read beside a write"),
        pytest.param(
            [write("1", None, 0, 1), write("2", None, 0, 1, "unknown"), read("1", 2, 3)],
            id="not carried out yet",
        ),
        pytest.param(
            [write("1", None, 0, 1), write("2", None, 0, 1, "unknown"), read("2", 5, 6)],
            id="carried out in the end",
        ),
        pytest.param(
            [write("1", None, 0, 1), swap("0", "9", "1", 2, 3), swap("1", "2", "1", 4, 5)],
            id="one compare-and-set finds another value, one what it expects",
        ),
        pytest.param(
            [write("1", None, 0, 1), write("9", None, 2, 3, "fail"), read("1", 4, 5)], id="failed"
        ),
    ],
)
def test_linearizable_histories_pass(history: list[Operation]) -> None:
    judge(history, {"a": ["1", "2"]})


@pytest.mark.parametrize(
    ("history", "written", "why"),
    [
        pytest.param(
            [write("1", None, 0, 1), read(None, 2, 3)], ["1"], "began after", id="stale read"
        ),
        pytest.param(
            [read("2", 0, 1), read("1", 2, 3)], ["1", "2"], "began after", id="reads go back"
        ),
        pytest.param([write("1", None, 0, 1)], [], "lost", id="lost write"),
        pytest.param(
            [write("1", None, 0, 1, "fail")], ["1"], "told to have failed", id="failed write"
        ),
        pytest.param([write("1", None, 0, 1)], ["1", "1"], "twice", id="written twice"),
        pytest.param([read("9", 0, 1)], ["1"], "never committed", id="dirty read"),
        pytest.param(
            [write("2", None, 0, 1), write("1", None, 2, 3)],
            ["1", "2"],
            "began after",
            id="order of writes",
        ),
        pytest.param(
            [swap("0", "2", "0", 0, 1)],
            ["1", "2"],
            "stands after",
            id="compare-and-set on another value",
        ),
    ],
)
def test_the_log_contradicts_each_anomaly(
    history: list[Operation], written: list[str], why: str
) -> None:
    with pytest.raises(Violation, match=why):
        judge_by_log(history, {"a": written})


@pytest.mark.parametrize(
    "history",
    [
        pytest.param([write("1", None, 0, 1), read(None, 2, 3)], id="stale read"),
        pytest.param(
            [
                write("1", None, 0, 1),
                write("2", "1", 2, 9, "unknown"),
                read("2", 3, 4),
                read("1", 5, 6),
            ],
            id="reads go back",
        ),
        pytest.param([read("9", 0, 1)], id="dirty read"),
        pytest.param([write("1", None, 0, 1, "fail"), read("1", 2, 3)], id="failed write"),
        pytest.param(
            [write("1", None, 0, 1), write("2", "1", 2, 3), read("1", 4, 5)], id="lost write"
        ),
        pytest.param(
            [write("1", None, 0, 1), swap("0", "2", "0", 2, 3)], id="swap of what was not"
        ),
        pytest.param([write("1", None, 0, 1), swap("1", "2", None, 2, 3)], id="swap that missed"),
    ],
)
def test_the_answers_alone_contradict_each_anomaly(history: list[Operation]) -> None:
    with pytest.raises(Violation, match="not linearizable"):
        judge_by_answers(history)


def test_a_history_that_takes_too_many_steps_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that was given up is no verdict."""
    monkeypatch.setattr("tests.harness.quorum_judge.STEPS_MAX", 1)
    with pytest.raises(Violation, match="not known"):
        judge_by_answers([write("1", None, 0, 1), read("1", 2, 3)])


@pytest.mark.simulation
@pytest.mark.parametrize("by", ["log", "answers"])
def test_reads_without_their_round_are_found_in_a_world(
    by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the round, a replaced leader that does not know it answers from its old image."""

    async def at_once(node: RaftNode) -> int:
        return node.high_watermark

    def one_judge(history: list[Operation], values: dict[str, list[str]]) -> None:
        if by == "log":
            judge_by_log(history, values)
        else:
            judge_by_answers(history)

    plan = [Fault(6.0 * n, "slow leader isolated", 0, 1, 4.0, 0.0, n) for n in range(1, 8)]
    monkeypatch.setattr(quorum_seed, "judge", one_judge)
    run_seed(0, plan)
    monkeypatch.setattr(RaftNode, "read_round", at_once)
    with pytest.raises(Violation, match="began after" if by == "log" else "not linearizable"):
        _run_seeds(range(20, 60), plan)  # the first that shows it ends the search


def _run_seeds(seeds: range, plan: list[Fault]) -> None:
    for seed in seeds:
        run_seed(seed, plan)
