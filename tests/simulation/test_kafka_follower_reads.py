"""Kafka clients read from followers in their rack, whatever brokers suffer (KIP-392).

`make sim SEEDS=1000 ARGS="--scenario kafka-reads"` runs more seeds; `SEED=` one, told aloud.
"""

from __future__ import annotations

from collections import Counter

import pytest

from tests.harness.amounts import few_or_many
from tests.harness.kafka_reads_world import run_reads

SEEDS = few_or_many(30, 90)
PER_TEST = 5


@pytest.mark.simulation
@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", range(0, SEEDS, PER_TEST))
def test_each_record_is_read_once_in_order_and_none_above_the_mark_of_a_follower(
    first: int,
) -> None:
    """A follower that has left the ISR, or does not hear its leader, sends its clients back."""
    counts: Counter[str] = Counter()
    for seed in range(first, first + PER_TEST):
        counts += run_reads(seed)
    assert counts["read from followers"] > 100
    assert counts["left the ISR"] > 0
    assert counts["back to the leader: it refused"] > 0
