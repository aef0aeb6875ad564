"""Flipped bits in any file of a replica: a few here; `make bit-flips` does 10,000."""

from __future__ import annotations

import pytest

from tests.harness.amounts import few_or_many
from tests.harness.bit_flips import run_world


@pytest.mark.simulation
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(few_or_many(2, 3)))
def test_a_flipped_bit_is_healed_and_no_reader_gets_it(seed: int) -> None:
    """Seeds that are 2 modulo 3 are compacted topics."""
    outcome = run_world(seed, rounds=2, partitions=12)
    assert outcome.counters["flips"] >= 16
