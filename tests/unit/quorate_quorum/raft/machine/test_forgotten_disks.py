"""A disk that may have been replaced gives no votes until it has caught up."""

from __future__ import annotations

import pytest

from quorate_quorum.raft.machine.events import (
    Saved,
)
from quorate_quorum.raft.machine.messages import (
    FetchResponse,
)
from tests.harness.raft_machines import (
    batch,
    follower,
    machine,
)


def test_a_voter_that_holds_only_the_bootstrap_batch_elects_no_history() -> None:
    """A disk replaced under its old id: its vote could elect a log that lacks what it forgot."""
    made = machine()
    assert not made.ask_vote(2, 3, last_epoch=2, end=9).granted
    assert made.raft.hard_state.is_behind
    made.due()
    assert made.role == "unattached"  # nor does it stand


@pytest.mark.parametrize(
    ("first_vote_epoch", "last_epoch", "granted"),
    [(0, 2, False), (3, 2, False), (2, 2, True), (1, 2, True), (0, 0, True)],
)
def test_a_disk_that_voted_before_grants_to_logs_of_that_epoch_and_later(
    first_vote_epoch: int, last_epoch: int, granted: bool
) -> None:
    """A new cluster whose voters all lose power before its first commit elects a leader again."""
    made = machine(epoch=3, first_vote_epoch=first_vote_epoch)
    assert made.ask_vote(2, 4, last_epoch=last_epoch, end=9).granted is granted
    assert made.raft.hard_state.is_behind is not granted


def test_the_first_vote_of_a_disk_is_remembered_with_it_and_never_changed() -> None:
    made = machine()
    assert made.ask_vote(2, 4, last_epoch=0, end=1).granted
    assert made.raft.hard_state.first_vote_epoch == 4
    assert made.ask_vote(3, 6, last_epoch=4, end=2).granted
    assert made.raft.hard_state.first_vote_epoch == 4


def test_it_votes_and_stands_again_once_it_has_fetched_to_a_high_watermark_of_a_leader() -> None:
    made = follower(is_behind=True, epoch=3)
    made.answered(FetchResponse(3, 2, 1, 0, batches=(batch(1, 2, begins=True),)))
    assert made.raft.hard_state.is_behind  # the leader does not know it itself yet
    made.saves_at_once = False
    made.answered(FetchResponse(3, 2, 2, 3, batches=(batch(2, 3, begins=True),)))
    assert made.raft.hard_state.is_behind  # fetched, but not known to be on disk
    made.step(Saved(3, 3, made.raft.ledger.truncations))
    assert not made.raft.hard_state.is_behind


def test_a_half_fetched_history_is_remembered_before_any_of_it_is_written() -> None:
    made = follower(epoch=5)
    made.readies.clear()
    made.answered(FetchResponse(5, 2, 1, 900, batches=(batch(1, 2, begins=True),)))
    (ready,) = [r for r in made.readies if r.save and r.save.batches]
    assert ready.hard_state is not None
    assert ready.hard_state.is_behind


def test_the_first_epoch_of_a_new_cluster_makes_nobody_wait() -> None:
    made = follower(epoch=1)
    made.answered(FetchResponse(1, 2, 1, 0, batches=(batch(1, 1, begins=True),)))
    assert not made.raft.hard_state.is_behind
