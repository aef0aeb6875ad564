"""Rules of broker and client are broken by a patch: the simulation must notice each."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from quorate_broker.replica.leader import Leader
from quorate_broker.replica.producers import Producer
from quorate_broker.replicas.losses import Losses
from quorate_testing.simulated.chaos import Fault
from quorate_testing.simulated.loop import SimulationError
from tests.harness.cluster_shape import Shape
from tests.harness.invariants import Violation
from tests.harness.world import run_seed

#: A Violation, perhaps in a task that no caller awaits.
BROKEN = (Violation, SimulationError, ExceptionGroup)
pytestmark = [pytest.mark.simulation, pytest.mark.timeout(120)]


def run(kinds: Iterable[str], seeds: Iterable[int]) -> None:
    """Run seeds with these faults in turn; each lasts until after the next has begun."""
    named = list(kinds)
    for seed in seeds:
        run_seed(
            seed,
            [
                Fault(2.0 + 0.7 * n, named[n % len(named)], 0.9, 0.13 * n % 1, 100 * seed + n)
                for n in range(24)
            ],
            shape=Shape(),
        )


def test_a_replica_that_lost_records_and_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Losses, "found", lambda *_: None)
    with pytest.raises(BROKEN):
        run(("lost directory", "kill all"), range(12))


def test_a_leader_that_does_not_wait_for_its_followers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Leader, "_end_of", lambda leader, _: leader.log_end_offset)
    with pytest.raises(BROKEN):
        run(("delay", "kill several"), range(6))


def test_a_leader_that_writes_a_retry_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Producer, "check", lambda *_: None)
    with pytest.raises(BROKEN):
        run(("break streams", "half-open", "kill"), range(6))
