"""Consumers of a group under faults of chance: nothing is passed over, and nothing is shared."""

from __future__ import annotations

import pytest

from tests.harness.amounts import few_or_many
from tests.harness.consumer_group_world import run_consumers


@pytest.mark.simulation
@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", range(few_or_many(2, 4)))
def test_a_group_of_consumers_passes_nothing_over_under_faults(seed: int) -> None:
    outcome = run_consumers(seed)
    print(f"seed {seed}: {outcome}")
    assert outcome.records > 100
