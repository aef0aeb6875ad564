"""Seeds of the quorum under every fault (`make sim-quorum` runs 700); its shrinking."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.amounts import few_or_many
from tests.harness.quorum_faults import KINDS
from tests.harness.quorum_seed import plan_of, run_seed, shortest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
from tests.harness.quorum_seed import run_seed
for seed in (3, 4):
    print(run_seed(seed))
"""


@pytest.mark.simulation
@pytest.mark.parametrize("seed", range(few_or_many(8, 20)))
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
