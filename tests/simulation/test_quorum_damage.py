"""Disks that lose synced bytes: a flipped bit, a disk that holds only what format wrote."""

from __future__ import annotations

import random
from typing import Any

import pytest

from quorate_quorum.log.directory import SYNCED_FILE
from quorate_quorum.raft.machine.role import Role
from quorate_testing.simulated.disk import SimulatedDisk
from tests.harness import quorum_operators
from tests.harness.invariants import Violation
from tests.harness.quorum_damage import DIRECTORY, Damage, flip_newest_told
from tests.harness.quorum_faults import Fault
from tests.harness.quorum_seed import run_seed

pytestmark = pytest.mark.simulation

#: A level at which a fault hits the machine of its plan, not the present leader.
PLANNED = 0.5


def test_no_voter_runs_with_a_flipped_bit_in_what_was_synced() -> None:
    """The voter refuses to start; the others go on, and a new disk takes its place."""
    plan = [
        Fault(4.0 + 6 * n, "bit flip below the sync", n % 3, 0, 0.5, PLANNED, n) for n in range(7)
    ]
    for seed in range(2):
        outcome = run_seed(seed, plan)
        assert outcome.injected["bit flip below the sync"] >= 5
        assert outcome.counters["commits"] > 20


def test_a_voter_that_does_run_with_damage_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def unnoticed(disk: SimulatedDisk, _end: int, _: random.Random) -> Damage:
        """A damage that the voter survives: it ignores a damaged slot and reads the other one."""
        path = f"{DIRECTORY}/{SYNCED_FILE}"
        disk.flip_bit(path, 100)
        return Damage(disk, path, 100, disk.content(path)[100])

    monkeypatch.setattr(quorum_operators, "flip_below_the_sync", unnoticed)
    plan = [Fault(4.0, "bit flip below the sync", 0, 1, 0.5, PLANNED, 1)]
    with pytest.raises(ExceptionGroup) as raised:
        run_seed(0, plan)
    (violation,) = raised.value.exceptions
    assert "runs with a damaged" in str(violation)


#: Voter 2 misses what voters 0 and 1 commit; then 0 has its disk emptied, and 1 is down.
AMNESIA = [
    Fault(5.0, "two-way cut", 2, 0, 4.0, PLANNED, 1),
    Fault(5.0, "two-way cut", 2, 1, 4.0, PLANNED, 2),
    Fault(8.7, "disk emptied, same directory", 0, 1, 0.1, PLANNED, 3),
    Fault(9.0, "kill", 1, 0, 6.0, PLANNED, 4),
]


#: Voter 2 misses what voters 0 and 1 commit; all go dark, 0 has a damaged record, 1 stays down.
DARK = [
    *AMNESIA[:2],
    Fault(8.7, "power loss of all and a bit flip", 0, 1, 0.1, PLANNED, 3),
    Fault(8.71, "kill", 1, 0, 6.0, PLANNED, 4),
]


def test_one_damaged_record_and_a_power_loss_of_all_lose_nothing_committed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A voter that took a damaged record for an unsynced tail would vote without it."""
    monkeypatch.setattr(quorum_operators, "flip_below_the_sync", flip_newest_told)
    outcomes = [run_seed(seed, DARK) for seed in range(0, 12, 2)]
    assert sum(one.injected["power loss of all and a bit flip"] for one in outcomes) >= 4


def test_an_emptied_disk_elects_nobody_and_catches_up() -> None:
    """The disk forgot what it acknowledged, and its vote (as once in RethinkDB)."""
    outcomes = [run_seed(seed, AMNESIA) for seed in range(0, 10, 2)]
    assert sum(one.injected["disk emptied, same directory"] for one in outcomes) >= 2


def test_without_the_rule_it_elects_a_log_that_lacks_what_was_committed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(_role: Any, _request: Any) -> bool:
        return False

    monkeypatch.setattr(Role, "_may_have_forgotten", never)
    with pytest.raises(Violation, match="without the committed record"):
        _run_seeds(range(0, 10, 2))


def _run_seeds(seeds: range) -> None:
    for seed in seeds:
        run_seed(seed, AMNESIA)
