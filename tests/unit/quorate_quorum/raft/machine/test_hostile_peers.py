"""Requests that no honest peer sends are refused, and reach no assertion."""

from __future__ import annotations

from quorate_quorum.raft.machine.hard_state import EPOCH_MAX
from tests.harness.raft_machines import (
    heard_follower,
    serving_leader,
)


def test_impossible_requests_are_refused_and_reach_no_assertion() -> None:
    made = serving_leader()
    assert not made.ask_vote(2, EPOCH_MAX + 1, last_epoch=9, end=9).granted
    made.fetch(2, -5, 1)
    made.fetch(2, 10**12, 10**6)
    made.fetch(1, 2, 1)
    made.begin_epoch(3, made.epoch)
    made.begin_epoch(1, made.epoch)
    made.end_epoch(3, made.epoch, 1)
    made.end_epoch(1, made.epoch + 1, 1)
    made.vote_answered(77)
    assert (made.role, made.epoch) == ("leader", 1)


def test_another_leader_of_the_same_epoch_is_not_believed() -> None:
    made = heard_follower()
    made.begin_epoch(3, 1)
    assert made.raft.leader_id == 2
