"""The follower, at the machine: answers that it takes, cuts, broken streams."""

from __future__ import annotations

import pytest

from quorate_quorum.raft.machine.events import (
    FetchBroken,
)
from quorate_quorum.raft.machine.follower import Follower
from quorate_quorum.raft.machine.messages import (
    DivergingEpoch,
    FetchResponse,
)
from quorate_quorum.raft.machine.ready import Fetch
from tests.harness.raft_machines import (
    batch,
    follower,
    heard_follower,
    voters,
)


@pytest.mark.parametrize(
    "batches",
    [
        pytest.param((batch(2, 1),), id="gap"),
        pytest.param((batch(1, 2, begins=True),), id="of-an-epoch-that-has-not-been"),
        pytest.param((batch(1, 1, begins=True), batch(1, 1)), id="overlap"),
        pytest.param((batch(1, 1, begins=True), batch(2, 0)), id="epochs-go-back"),
    ],
)
def test_an_unsound_answer_is_not_appended(batches: tuple[object, ...]) -> None:
    made = follower()
    made.answered(FetchResponse(1, 2, 1, batches=batches))  # type: ignore[arg-type]
    assert made.raft.ledger.log_end_offset == 1


def test_a_cut_below_the_high_watermark_stops_the_node() -> None:
    """What is committed is never cut."""
    made = follower(log=[0, 1, 1], epoch=2)
    made.answered(FetchResponse(2, 2, 3, 3))
    assert made.raft.high_watermark == 3
    made.answered(FetchResponse(2, 2, 3, diverging=DivergingEpoch(1, 2)))
    assert made.raft.ledger.log_end_offset == 3
    assert any("below the high watermark" in (r.fatal or "") for r in made.readies)


def test_a_voter_set_that_is_cut_off_is_taken_back() -> None:
    """Counted on, it would be a majority that no voter ever agreed to."""
    made = follower()
    made.answered(FetchResponse(1, 2, 1, batches=(batch(1, 1, members=voters(1, 2), begins=True),)))
    assert len(made.raft.ledger.voters.voters) == 2
    made.answered(FetchResponse(1, 2, 2, diverging=DivergingEpoch(0, 1)))
    assert len(made.raft.ledger.voters.voters) == 3


def test_a_slow_sync_makes_the_follower_repeat_its_last_synced_offset() -> None:
    made = follower()
    made.saves_at_once = False
    made.answered(FetchResponse(1, 2, 1, batches=(batch(1, 1, begins=True),)))
    made.tick(199)
    assert not [m for m in made.tick() if isinstance(m, Fetch)]
    (fetch,) = [m for m in made.tick(1) if isinstance(m, Fetch)]
    assert fetch.request.fetch_offset == 1


def test_a_broken_stream_is_reconnected_once_and_then_an_election_comes_soon() -> None:
    made = heard_follower()
    role = made.raft.role
    assert isinstance(role, Follower)
    first = role.session
    (fetch,) = [m for m in made.step(FetchBroken(first, refused=False)) if isinstance(m, Fetch)]
    assert fetch.session == role.session != first
    assert made.step(FetchBroken(role.session, refused=False)) == []
    assert 50 <= made.raft.deadline_ms() - made.now_ms <= 150
    made.due()
    assert made.role == "prospective"


def test_a_refused_leader_is_followed_by_an_election_soon() -> None:
    made = heard_follower()
    assert isinstance(made.raft.role, Follower)
    made.step(FetchBroken(made.raft.role.session, refused=True))
    assert 50 <= made.raft.deadline_ms() - made.now_ms <= 150


def test_an_answer_to_a_fetch_from_another_offset_is_not_taken() -> None:
    made = follower(log=[0, 1, 1], epoch=2)
    made.answered(FetchResponse(2, 2, 2, diverging=DivergingEpoch(0, 1)))
    made.answered(FetchResponse(2, 2, 1, batches=(batch(3, 2),)))
    assert made.raft.ledger.log_end_offset == 3
