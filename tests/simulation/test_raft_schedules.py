"""Random schedules for the bare Raft machine, and rules whose absence they must notice."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from quorate_quorum.raft.machine.ledger import Ledger
from quorate_quorum.raft.machine.state import State
from tests.harness.amounts import few_or_many
from tests.harness.invariants import Violation
from tests.harness.raft_schedules import run_schedule

ROOT = Path(__file__).resolve().parents[2]
GROUPS = few_or_many(3, 8)
SEEDS_EACH = 20
#: At least one of these seeds must notice that a rule is taken out.
SABOTAGED_SEEDS = range(300)
PROGRAM = """
from tests.harness.raft_schedules import run_schedule
for seed in range(10):
    print(run_schedule(seed))
"""


@pytest.mark.parametrize("group", range(GROUPS))
def test_the_machine_keeps_every_rule_under_the_schedules_of_its_seeds(group: int) -> None:
    seeds = range(group * SEEDS_EACH, (group + 1) * SEEDS_EACH)
    outcomes = [run_schedule(seed) for seed in seeds]
    assert sum(outcome.reigns for outcome in outcomes) > 2 * SEEDS_EACH
    assert sum(outcome.committed for outcome in outcomes) > 10 * SEEDS_EACH


def test_a_schedule_is_the_same_under_two_hash_seeds() -> None:
    first, second = (_told(hash_seed) for hash_seed in ("1", "2"))
    assert "changes the voters" in first
    assert first == second


def _told(hash_seed: str) -> str:
    paths = [str(ROOT), *(str(ROOT / root) for root in ("clients", "quorum", "broker"))]
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-c", PROGRAM]
    found = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return found.stdout


def _no_change_waits(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ledger, "are_voters_committed", True)


def _only_voters_stand(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(State, "may_stand", State.is_voter)


def _any_log_is_complete(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ledger, "is_up_to_date", lambda *_: True)


@pytest.mark.parametrize(
    ("take_out", "broken"),
    [
        pytest.param(_no_change_waits, "lacks record", id="one-change-at-a-time"),
        pytest.param(_only_voters_stand, "no machine leads", id="who-is-removed-may-stand"),
        pytest.param(_any_log_is_complete, "lacks record", id="votes-only-for-complete-logs"),
    ],
)
def test_the_schedules_see_that_a_rule_is_taken_out(
    take_out: Callable[[pytest.MonkeyPatch], None], broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Raft, 5.4.1; dissertation, 4.2.2: without the rule some seed violates safety."""
    take_out(monkeypatch)
    found = next((why for why in map(_violation, SABOTAGED_SEEDS) if broken in why), None)
    assert found is not None, f"none of {SABOTAGED_SEEDS} saw it"


def _violation(seed: int) -> str:
    """Return the first line of what a schedule found; empty if all was well."""
    try:
        run_schedule(seed)
    except Violation as error:
        return str(error).partition("\n")[0]
    return ""
