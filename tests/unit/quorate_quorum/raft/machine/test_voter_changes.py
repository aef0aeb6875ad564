"""Voters that change: one at a time, effective when appended (KIP-853)."""

from __future__ import annotations

import pytest

from quorate.errors import InvalidRequestError, NotControllerError, OverloadedError
from quorate_quorum.raft.machine.events import Applied
from quorate_quorum.raft.machine.messages import FetchResponse
from quorate_quorum.raft.machine.ready import Fetch
from quorate_quorum.raft.machine.voters import Voter, VoterSet
from tests.harness.raft_machines import (
    Machine,
    batch,
    directory,
    follower,
    leader,
    machine,
    serving_leader,
    voters,
)


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
    made.fetch(2, made.raft.ledger.log_end_offset, made.epoch, number=2)
    made.fetch(3, made.raft.ledger.log_end_offset, made.epoch, number=2)
    with pytest.raises(OverloadedError, match="has not caught up"):
        propose(made, 1, 2, 3, 4)
    made.fetch(4, made.raft.ledger.log_end_offset, made.epoch, number=2)
    propose(made, 1, 2, 3, 4)
    assert made.raft.ledger.voters == voters(1, 2, 3, 4)


def test_a_node_that_gives_no_votes_yet_is_not_added() -> None:
    """If the leader died right after, the others could need its vote, and it would wait for a
    leader: there would be none for ever (`make sim-quorum SEED=1000194`).
    """
    made = serving_leader()
    end = made.raft.ledger.log_end_offset
    made.fetch(4, end, made.epoch, is_behind=True)
    made.fetch(4, end, made.epoch, is_behind=True)
    with pytest.raises(OverloadedError, match=f"{end} of {end} records and gives no votes yet"):
        propose(made, 1, 2, 3, 4)
    made.fetch(4, end, made.epoch)
    propose(made, 1, 2, 3, 4)
    assert made.raft.ledger.voters == voters(1, 2, 3, 4)


@pytest.mark.parametrize("is_behind", [True, False])
def test_a_follower_says_with_each_fetch_whether_it_gives_votes(is_behind: bool) -> None:
    made = follower(3, 2, 5, log=(0, 1, 1), is_behind=is_behind)
    asked = made.answered(FetchResponse(made.epoch, 2, made.raft.ledger.log_end_offset, 0))
    assert [m.request.is_behind for m in asked if isinstance(m, Fetch)] == [is_behind]


@pytest.mark.parametrize("ids", [(1,), (), (1, 2, 3), (1, 2, 9), (1, 2, 2)])
def test_voters_change_one_at_a_time(ids: tuple[int, ...]) -> None:
    """Two changes at once may make two majorities without a common voter."""
    with pytest.raises(InvalidRequestError):
        propose(serving_leader(), *ids)


def test_no_change_before_the_one_before_is_committed() -> None:
    """Else two majorities without a common voter are possible (Ongaro, raft-dev, 2015)."""
    made = serving_leader()
    propose(made, 1, 2)
    with pytest.raises(OverloadedError):
        propose(made, 1)
    made.fetch(2, made.raft.ledger.log_end_offset, made.epoch)
    propose(made, 1)
    assert made.raft.high_watermark == made.raft.ledger.log_end_offset  # it alone is the majority


@pytest.mark.parametrize(
    ("heard", "left", "allowed"),
    [
        ((2, 3), (1, 2), True),
        ((3,), (1, 2), False),  # the removal of 3 could not commit, nor be taken back
        ((2,), (1, 2), True),  # the dead one goes
        ((2,), (2, 3), False),  # the leader goes, and one of the two left is dead
        ((2, 3), (2, 3), True),
    ],
)
def test_a_majority_of_the_voters_that_are_left_has_caught_up(
    heard: tuple[int, ...], left: tuple[int, ...], allowed: bool
) -> None:
    """No change may leave the quorum in a state that it can't get out of."""
    made = serving_leader()
    made.now_ms += 1_001
    for voter in heard:
        made.fetch(voter, made.raft.ledger.log_end_offset, made.epoch, number=2)
    if allowed:
        propose(made, *left)
        assert made.raft.ledger.voters == voters(*left)
        return
    with pytest.raises(OverloadedError, match="a majority must be"):
        propose(made, *left)
    assert made.raft.ledger.voters == voters(1, 2, 3)


def test_a_voter_that_is_heard_but_behind_is_not_made_the_one_that_a_majority_needs() -> None:
    """It may not vote yet, and without a leader it never could (sim-raft, seed 10142)."""
    made = serving_leader()
    made.now_ms += 1_001
    made.fetch(2, 1, 0, number=2)
    made.fetch(3, made.raft.ledger.log_end_offset, made.epoch, number=2)
    with pytest.raises(OverloadedError, match=r"\[2\] are not heard or have not caught up"):
        propose(made, 1, 2)
    made.fetch(2, made.raft.ledger.log_end_offset, made.epoch, number=2)
    propose(made, 1, 2)
    assert made.raft.ledger.voters == voters(1, 2)


def test_who_is_heard_is_judged_at_the_time_of_now() -> None:
    """Not at that of the last event: what is allowed must stay so until it is proposed."""
    made = serving_leader()
    changed = voters(1, 2)
    made.raft.check_may_change_voters(changed, made.now_ms)
    with pytest.raises(OverloadedError, match="a majority must be"):
        made.raft.check_may_change_voters(changed, made.now_ms + 1_001)


def test_nothing_changes_before_a_record_of_the_leaders_own_epoch_is_committed() -> None:
    """Else two leaders of different epochs could each add or remove another voter."""
    made = leader()
    for other in (2, 3):
        made.fetch(other, 1, 0)
    with pytest.raises(NotControllerError, match="nothing of it is committed"):
        propose(made, 1, 2)


def test_a_voter_may_move_to_another_endpoint_but_not_to_another_disk() -> None:
    """The same id on another disk is another voter; its old self goes first."""
    made = serving_leader()
    old = made.raft.ledger.voters.voters
    moved = VoterSet((*old[:2], Voter(3, directory(3), "elsewhere:1")))
    end = made.raft.ledger.log_end_offset
    made.raft.propose(batch(end, made.epoch, members=moved), made.now_ms)
    assert made.raft.ledger.voters == moved
    made.fetch(2, end + 1, made.epoch)
    swapped = VoterSet((*old[:2], Voter(3, directory(33), "elsewhere:1")))
    with pytest.raises(InvalidRequestError, match="1 would be added, 1 removed"):
        made.raft.propose(batch(end + 1, made.epoch, members=swapped), made.now_ms)


def test_a_leader_that_removed_itself_does_not_count_itself_and_resigns_at_the_commit() -> None:
    """KAFKA-16531."""
    made = serving_leader()
    propose(made, 2, 3)
    end, epoch = made.raft.ledger.log_end_offset, made.epoch
    made.fetch(2, end, epoch)
    assert (made.role, made.raft.high_watermark) == ("leader", end - 1)
    made.fetch(3, end, epoch)
    assert (made.role, made.raft.high_watermark) == ("resigned", end)


def test_a_removed_leader_stays_until_its_removal_is_told_of() -> None:
    """Whoever asked for the removal must learn that it is committed."""
    made = serving_leader()
    made.applies_at_once = False
    propose(made, 2, 3)
    end, epoch = made.raft.ledger.log_end_offset, made.epoch
    made.fetch(2, end, epoch)
    made.fetch(3, end, epoch)
    wanted = [ready.wants_applied for ready in made.readies if ready.wants_applied is not None]
    assert (made.role, made.raft.high_watermark, wanted) == ("leader", end, [end])
    made.step(Applied())
    assert made.role == "resigned"


def test_voters_that_count_since_now_have_time_to_be_heard() -> None:
    """A sole voter need not be heard by anybody; one of two must, from now on."""
    made = machine(ids=(1,))
    made.tick()
    assert made.role == "leader"
    made.now_ms += 1_400
    made.fetch(2, made.raft.ledger.log_end_offset, made.epoch)
    made.now_ms += 50
    propose(made, 1, 2)
    made.tick(1_400)
    assert made.role == "leader"
    made.tick(200)
    assert made.role == "resigned"


@pytest.mark.parametrize("pre_vote", [True, False])
def test_a_vote_from_outside_disturbs_nobody_who_hears_a_leader(pre_vote: bool) -> None:
    """A removed voter that has not learned of its removal asks again and again in higher epochs."""
    leads = serving_leader()
    follows = follower(1, leader=2)
    follows.answered(FetchResponse(1, 2, 1))
    for made in (leads, follows):
        epoch, role = made.epoch, made.role
        answer = made.ask_vote(9, epoch + 5, last_epoch=epoch + 5, end=99, pre_vote=pre_vote)
        assert (answer.granted, made.epoch, made.role) == (False, epoch, role)


def test_a_vote_from_outside_is_given_where_no_leader_is_heard() -> None:
    """It may count in a newer set than ours, and we may be needed to elect it."""
    made = follower(1, leader=2)
    made.answered(FetchResponse(1, 2, 1))
    made.now_ms += 1_001
    assert made.ask_vote(9, 6, end=99).granted
