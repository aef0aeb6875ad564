"""Whole clusters under faults, in virtual time: some seeds; `make sim` runs 200 and more.

`make sim SEED=...` replays one, told aloud.
"""

from __future__ import annotations

import os

import pytest

from tests.harness.world import run_seed

SEEDS = int(os.environ.get("SIMULATION_SEEDS", "60"))
PER_TEST = 5


@pytest.mark.simulation
@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", range(0, SEEDS, PER_TEST))
def test_nothing_acknowledged_is_lost_under_faults(first: int) -> None:
    """Three voters, three brokers, one idempotent producer, one consumer; all else by the seed."""
    for seed in range(first, first + PER_TEST):
        outcome = run_seed(seed)
        assert outcome.acked > 0
