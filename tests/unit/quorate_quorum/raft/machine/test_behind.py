"""A disk that may have forgotten something votes again as soon as it holds all that it forgot."""

from __future__ import annotations

from quorate_quorum.raft.machine.events import HardStateSaved, Saved
from quorate_quorum.raft.machine.messages import DivergingEpoch, FetchResponse
from quorate_quorum.raft.machine.ready import Fetch
from tests.harness.raft_machines import Machine, batch, follower


def told(made: Machine, count: int, high_watermark: int) -> None:
    """Let the leader answer with `count` records from the follower's end on."""
    base = made.raft.ledger.log_end_offset
    batches = tuple(batch(base + i, 5, begins=base + i == 1) for i in range(count))
    made.answered(FetchResponse(made.epoch, 2, base, high_watermark, 0, 1, batches))


def test_a_voter_that_fell_behind_votes_again_though_the_high_watermark_runs_ahead_of_it() -> None:
    """It must reach the first high watermark that a leader named, not each later one."""
    made = follower(3, 2, 5)
    told(made, 3, high_watermark=10)
    assert made.raft.hard_state.is_behind
    told(made, 3, high_watermark=20)
    assert made.raft.hard_state.is_behind
    told(made, 4, high_watermark=30)
    assert made.raft.ledger.synced_end == 11
    assert not made.raft.hard_state.is_behind


def test_who_says_that_it_has_caught_up_can_vote_already() -> None:
    """A new voter that its leader needs to be elected again must not refuse it: both would wait."""
    made = follower(3, 2, 5, is_behind=True)
    made.saves_at_once = False
    told(made, 3, high_watermark=4)
    assert made.raft.hard_state.is_behind
    asked = made.step(Saved(made.epoch, 4, made.raft.ledger.truncations))
    assert not made.raft.hard_state.is_behind
    assert asked == []  # not before that is on disk
    (fetch,) = made.step(HardStateSaved(made.readies[-1].hard_state_version))
    assert isinstance(fetch, Fetch)
    assert fetch.request.fetch_offset == 4


def test_a_high_watermark_told_below_a_past_that_is_not_ours_brings_nobody_up() -> None:
    """It may lie below the follower's end, and yet above the point where the logs part."""
    made = follower(3, 2, 5, log=(0, 1, 1, 1), is_behind=True)
    base = made.raft.ledger.log_end_offset
    diverging = DivergingEpoch(1, 3)
    made.answered(FetchResponse(made.epoch, 2, base, 3, 0, 1, diverging=diverging))
    assert made.raft.ledger.log_end_offset == 3
    assert made.raft.hard_state.is_behind
    told(made, 0, high_watermark=3)
    assert not made.raft.hard_state.is_behind
