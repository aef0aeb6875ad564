"""Voters that change: one at a time, effective when appended (KIP-853)."""

from __future__ import annotations

import pytest

from quorate.errors import InvalidRequestError, OverloadedError
from tests.harness.raft_machines import Machine, batch, serving_leader, voters


def propose(made: Machine, *ids: int) -> None:
    end = made.raft.ledger.log_end_offset
    made.raft.propose(batch(end, made.epoch, members=voters(*ids)), made.now_ms)
    made.drain()


def test_a_voter_that_has_not_caught_up_is_not_added() -> None:
    made = serving_leader()
    with pytest.raises(OverloadedError):
        propose(made, 1, 2, 3, 4)
    made.fetch(4, made.raft.ledger.log_end_offset, made.epoch)
    made.now_ms += 1_001
    with pytest.raises(OverloadedError):
        propose(made, 1, 2, 3, 4)
    made.fetch(4, made.raft.ledger.log_end_offset, made.epoch, number=2)
    propose(made, 1, 2, 3, 4)
    assert made.raft.ledger.voters == voters(1, 2, 3, 4)


@pytest.mark.parametrize("ids", [(1,), (), (1, 2, 3), (1, 2, 9), (1, 2, 2)])
def test_voters_change_one_at_a_time(ids: tuple[int, ...]) -> None:
    """R32: two changes at once may make two majorities without a common voter."""
    with pytest.raises(InvalidRequestError):
        propose(serving_leader(), *ids)


def test_no_change_before_the_one_before_is_committed() -> None:
    """R32 (Ongaro 2015)."""
    made = serving_leader()
    propose(made, 1, 2)
    with pytest.raises(OverloadedError):
        propose(made, 1)
    made.fetch(2, made.raft.ledger.log_end_offset, made.epoch)
    propose(made, 1)
    assert made.raft.high_watermark == made.raft.ledger.log_end_offset  # it alone is the majority


def test_a_leader_that_removed_itself_does_not_count_itself_and_resigns_at_the_commit() -> None:
    """R37, KAFKA-16531."""
    made = serving_leader()
    propose(made, 2, 3)
    end, epoch = made.raft.ledger.log_end_offset, made.epoch
    made.fetch(2, end, epoch)
    assert (made.role, made.raft.high_watermark) == ("leader", end - 1)
    made.fetch(3, end, epoch)
    assert (made.role, made.raft.high_watermark) == ("resigned", end)
