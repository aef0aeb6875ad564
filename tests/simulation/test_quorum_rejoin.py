"""A voter that comes back, or was removed, causes no change of leader; without the rule it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from quorate_quorum.raft.machine import role
from quorate_quorum.raft.machine.follower import Follower
from quorate_quorum.raft.machine.role import Role
from quorate_quorum.raft.machine.transitions import ToCandidate, Transition
from tests.harness.amounts import few_or_many
from tests.harness.invariants import Violation
from tests.harness.quorum_faults import Fault
from tests.harness.quorum_rejoin import ACTS, WAYS
from tests.harness.quorum_seed import plan_of, run_seed

pytestmark = pytest.mark.simulation


@pytest.mark.parametrize("seed", range(few_or_many(3, 8)))
def test_who_comes_back_changes_no_leader(seed: int) -> None:
    """Rules no-disruption and partial-networks.

    A voter goes away in one of WAYS: a pause, a cut in either direction, a crash. Meanwhile an
    operator may act (ACTS): remove the voter, or give it a new disk.
    """
    outcome = run_seed(seed, scenario="rejoin")
    assert outcome.counters["returns"] >= 2
    assert outcome.counters["commits"] > 20


def test_every_way_to_be_away_is_drawn_with_all_that_may_happen_meanwhile() -> None:
    kinds = [fault.kind for seed in range(150) for fault in plan_of(seed, "rejoin")]
    assert {kind.partition(", ")[0] for kind in kinds} == set(WAYS)
    assert {kind.partition(", ")[2] for kind in kinds} == {"", *ACTS}


def _stands_at_once(reason: str) -> Transition:
    return ToCandidate(reason)


def _heeds_anybody(_role: Role, _replica: object) -> bool:
    return True


def _forgets_that_it_heard(_role: Role) -> bool:
    return False


@pytest.mark.parametrize(
    ("where", "rule", "without", "kind"),
    [
        pytest.param(role, "ToProspective", _stands_at_once, "cut off", id="no pre-votes"),
        pytest.param(
            Follower,
            "hears_a_leader",
            _forgets_that_it_heard,
            "cut from the leader",
            id="all grant pre-votes",
        ),
        pytest.param(
            Role, "_heeds", _heeds_anybody, "kill, removed with a later epoch", id="all are heeded"
        ),
    ],
)
def test_without_the_rule_it_does(
    where: object,
    rule: str,
    without: Callable[..., Any],
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = [Fault(3.0 + 9 * n, kind, n % 3, (n + 1) % 3, 3.0, 0.4, n) for n in range(4)]
    run_seed(2, plan, scenario="rejoin")
    monkeypatch.setattr(where, rule, without)
    with pytest.raises(Violation, match="came back"):
        run_seed(2, plan, scenario="rejoin")
