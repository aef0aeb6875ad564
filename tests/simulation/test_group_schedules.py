"""Random schedules for the machine of consumer groups, and rules whose absence they must notice."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quorate_broker.groups.machine import reconciler
from quorate_broker.groups.machine.consumer_rules import ConsumerRules
from quorate_broker.groups.machine.reconciliation import reconciled
from quorate_broker.groups.machine.session import Session
from quorate_broker.groups.machine.state import GroupState
from tests.harness.amounts import few_or_many
from tests.harness.group_schedules import run_schedule
from tests.harness.invariants import Violation

ROOT = Path(__file__).resolve().parents[2]
PARTS = few_or_many(3, 8)
SEEDS_EACH = 20
#: At least one of these seeds must notice that a rule is taken out.
SABOTAGED_SEEDS = range(300)
#: Each of these happens at least so often in the seeds of one part.
FLOORS = {
    "add": 25,
    "add-polling": 8,
    "add-eager": 5,
    "add-cooperative": 5,
    "leave": 3,
    "crash": 10,
    "pause": 10,
    "cut": 20,
    "give-up": 30,
    "late": 1,
    "subscribe": 12,
    "create": 25,
    "grow": 7,
    "delete": 2,
    "failover,": 12,
    "parked": 15,
    "committed": 300,
    "refused-partition": 10,
    "UnknownMemberIdError": 5,
    "RebalanceInProgressError": 10,
}
PROGRAM = """
from tests.harness.group_schedules import run_schedule
for seed in range(10):
    print(run_schedule(seed))
"""


@pytest.mark.parametrize("part", range(PARTS))
def test_the_machine_keeps_every_rule_under_the_schedules_of_its_seeds(part: int) -> None:
    counts: Counter[str] = Counter()
    for seed in range(part * SEEDS_EACH, (part + 1) * SEEDS_EACH):
        counts += run_schedule(seed).counts
    assert {kind: counts[kind] for kind, floor in FLOORS.items() if counts[kind] < floor} == {}


def test_a_schedule_is_the_same_under_two_hash_seeds() -> None:
    first, second = (_told(hash_seed) for hash_seed in ("1", "2"))
    assert "failover" in first
    assert first == second


def _told(hash_seed: str) -> str:
    paths = [str(ROOT), *(str(ROOT / root) for root in ("clients", "quorum", "broker"))]
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-c", PROGRAM]
    found = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return found.stdout


def _everything_is_free(patch: pytest.MonkeyPatch) -> None:
    def grasping(current: Any, epoch: int, target: Any, is_free: Any, **flags: bool) -> Any:
        return reconciled(current, epoch, target, lambda _: True, **flags)

    patch.setattr(reconciler, "reconciled", grasping)


def _no_echo_is_needed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Session, "has_echoed", True)


def _any_commit_counts(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ConsumerRules, "refusal", lambda *_: None)


def _targets_are_not_replayed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(GroupState, "prune", lambda state: state.targets.clear())


@pytest.mark.parametrize(
    ("take_out", "broken"),
    [
        pytest.param(_everything_is_free, "have", id="release-before-give"),
        pytest.param(_no_echo_is_needed, "which it does not have", id="one-state-at-a-time"),
        pytest.param(_any_commit_counts, "back from", id="commits-are-fenced"),
        pytest.param(_targets_are_not_replayed, "differs", id="replay-is-whole"),
    ],
)
def test_the_schedules_see_that_a_rule_is_taken_out(
    take_out: Callable[[pytest.MonkeyPatch], None], broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
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
