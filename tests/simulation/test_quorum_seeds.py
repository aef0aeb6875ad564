"""Seeds of the quorum under every fault; the world itself; its judge and its shrinking."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.invariants import Violation
from tests.harness.quorum_clients import Operation, judge
from tests.harness.quorum_faults import KINDS
from tests.harness.quorum_seed import plan_of, run_seed, shortest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
from tests.harness.quorum_seed import run_seed
for seed in (3, 4):
    print(run_seed(seed))
"""


@pytest.mark.simulation
@pytest.mark.parametrize("seed", range(20))
def test_a_quorum_keeps_every_rule_under_the_faults_of_a_seed(seed: int) -> None:
    outcome = run_seed(seed)
    assert outcome.counters["commits"] > 10
    assert outcome.counters["reads"] > 10


@pytest.mark.simulation
@pytest.mark.timeout(120)
def test_a_seed_of_the_quorum_is_the_same_under_two_hash_seeds() -> None:
    first, second = (_told(hash_seed) for hash_seed in ("1", "2"))
    assert "trace=" in first
    assert first == second


def _told(hash_seed: str) -> str:
    paths = [str(ROOT), *(str(ROOT / root) for root in ("clients", "quorum", "broker"))]
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(paths)}
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return found.stdout


def test_there_are_twenty_kinds_of_faults_and_every_one_is_drawn() -> None:
    assert len(KINDS) >= 20
    assert {fault.kind for seed in range(30) for fault in plan_of(seed)} == set(KINDS)


def test_a_plan_is_shrunk_to_the_faults_that_it_takes() -> None:
    plan = plan_of(1)
    wanted = [plan[2], plan[11]]
    assert shortest(plan, lambda part: all(one in part for one in wanted)) == wanted
    assert shortest(plan, lambda part: plan[5] in part) == [plan[5]]


def _write(value: str, at: float, end: float, status: str = "ok") -> Operation:
    return Operation("write", "a", at, value, None, status, end, None, status == "ok")  # type: ignore[arg-type]


def _read(found: str | None, at: float, end: float) -> Operation:
    return Operation("read", "a", at, None, None, "ok", end, found)


@pytest.mark.parametrize(
    "history",
    [
        pytest.param([_write("1", 0, 1), _read("1", 2, 3)], id="read after write"),
        pytest.param([_write("1", 0, 5), _read(None, 1, 2)], id="read beside a write"),
        pytest.param([_write("2", 0, 1, "unknown"), _read("1", 2, 3)], id="not committed yet"),
    ],
)
def test_the_judge_lets_linearizable_histories_pass(history: list[Operation]) -> None:
    judge(history, {"a": ["1", "2"]})


@pytest.mark.parametrize(
    ("history", "written", "why"),
    [
        pytest.param([_write("1", 0, 1), _read(None, 2, 3)], ["1"], "began after", id="stale read"),
        pytest.param(
            [_read("2", 0, 1), _read("1", 2, 3)], ["1", "2"], "began after", id="reads go back"
        ),
        pytest.param([_write("1", 0, 1)], [], "lost", id="lost write"),
        pytest.param([_write("1", 0, 1, "fail")], ["1"], "told to have failed", id="failed write"),
        pytest.param([_write("1", 0, 1)], ["1", "1"], "twice", id="written twice"),
        pytest.param([_read("9", 0, 1)], ["1"], "never committed", id="dirty read"),
        pytest.param(
            [_write("2", 0, 1), _write("1", 2, 3)], ["1", "2"], "began after", id="order of writes"
        ),
        pytest.param(
            [Operation("cas", "a", 0, "2", "0", "ok", 1, "0", has_written=True)],
            ["1", "2"],
            "stands after",
            id="compare-and-set on another value",
        ),
    ],
)
def test_the_judge_finds_each_anomaly(
    history: list[Operation], written: list[str], why: str
) -> None:
    with pytest.raises(Violation, match=why):
        judge(history, {"a": written})
