"""Consumer groups under faults of chance: `make sim-groups SEED=n` replays one."""

from __future__ import annotations

import pytest

from tests.harness.amounts import few_or_many
from tests.harness.group_history import GroupHistory
from tests.harness.group_world import run_group
from tests.harness.invariants import Violation

KEY = (b"t" * 16, 0)


@pytest.mark.simulation
@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", range(few_or_many(3, 6)))
def test_a_group_keeps_its_rules_under_faults(seed: int) -> None:
    outcome = run_group(seed)
    assert outcome.floors["commits"] > 50
    assert outcome.floors["reads"] > 5


def test_the_judge_sees_a_commit_of_a_member_whose_partition_went_to_another() -> None:
    history = GroupHistory()
    history.claimed(KEY, "a", 1)
    history.claimed(KEY, "b", 2)
    history.sent(KEY, 5)
    history.acknowledged(KEY, 5, "a", sent_at=2.5, now=2.6)  # a claim alone proves nothing
    history.acknowledged(KEY, 5, "b", sent_at=3, now=3.1)
    history.acknowledged(KEY, 5, "a", sent_at=3.05, now=3.2)  # the two crossed
    with pytest.raises(Violation, match="a committed 5"):
        history.acknowledged(KEY, 5, "a", sent_at=3.3, now=3.4)
    history.claimed(KEY, "a", 4)
    history.acknowledged(KEY, 5, "a", sent_at=4.1, now=4.2)


def test_the_judge_sees_an_offset_that_was_lost_or_made_up() -> None:
    history = GroupHistory()
    history.claimed(KEY, "a", 1)
    history.sent(KEY, 5)
    history.acknowledged(KEY, 5, "a", sent_at=1.5, now=1.6)
    history.read(KEY, 5, acked_before=5)
    with pytest.raises(Violation, match="4 was read, and 5"):
        history.read(KEY, 4, acked_before=5)
    with pytest.raises(Violation, match="nobody sent it"):
        history.read(KEY, 6, acked_before=5)
