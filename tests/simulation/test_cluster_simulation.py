"""Whole clusters under faults, in virtual time: a few seeds; `make sim` runs 300 and more.

`make sim SEED=...` replays one, told aloud.
"""

from __future__ import annotations

import pytest

from tests.harness.amounts import few_or_many
from tests.harness.world import run_seed

SEEDS = few_or_many(12, 60)
PER_TEST = 2


@pytest.mark.simulation
@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", range(0, SEEDS, PER_TEST))
def test_nothing_acknowledged_is_lost_under_faults(first: int) -> None:
    """Three voters, three or five brokers, one to three producers, one to five consumers."""
    for seed in range(first, first + PER_TEST):
        outcome = run_seed(seed)
        assert outcome.acked > 0
