"""Whose higher epoch a voter makes its own: a member's, within a bound, and hardly anybody else's.

A removed replica disturbs no voter; a voter that our log does not know yet is heard.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from quorate_quorum.raft.machine.events import EpochAnswered, FetchAnswered, VoteAnswered
from quorate_quorum.raft.machine.hard_state import EPOCH_LEAP_MAX, EPOCH_MAX
from quorate_quorum.raft.machine.messages import EpochResponse, FetchResponse, Refusal, VoteResponse
from quorate_quorum.raft.machine.ready import Reply
from tests.harness.raft_machines import Machine, directory, follower, key, machine, serving_leader

LED = 1
STRANGER = 9
Say = Callable[[Machine, int, int], object]


def _fresh_follower() -> Machine:
    made = follower()
    made.answered(FetchResponse(LED, 2, 1))
    return made


def _left_follower() -> Machine:
    made = _fresh_follower()
    made.now_ms += 5_000
    return made


ROLES: dict[str, Callable[[], Machine]] = {
    "leader": serving_leader,
    "hears-a-leader": _fresh_follower,
    "hears-none": _left_follower,
    "unattached": lambda: machine(epoch=LED),
}

SAYINGS: dict[str, Say] = {
    "vote": lambda made, who, epoch: made.ask_vote(who, epoch, last_epoch=epoch, end=99),
    "pre-vote": lambda made, who, epoch: made.ask_vote(who, epoch, end=99, pre_vote=True),
    "begin": lambda made, who, epoch: made.begin_epoch(who, epoch),
    "end": lambda made, who, epoch: made.end_epoch(who, epoch),
    "fetch": lambda made, who, epoch: made.fetch(who, 1, 0, epoch=epoch),
    "vote-answer": lambda made, who, epoch: made.step(
        VoteAnswered(key(who), 0, VoteResponse(epoch, -1, False))
    ),
    "epoch-answer": lambda made, who, epoch: made.step(
        EpochAnswered(key(who), EpochResponse(epoch, -1))
    ),
}
#: What a voter that our log does not know yet says, if it stands or leads.
HEARD_OF_STRANGERS = ("vote", "pre-vote", "begin")


def _moves(role: str, say: str, who: int, by: int) -> bool:
    made = ROLES[role]()
    assert made.epoch == LED
    SAYINGS[say](made, who, LED + by)
    assert made.epoch in (LED, LED + by)
    return made.epoch != LED


@pytest.mark.parametrize("say", SAYINGS)
@pytest.mark.parametrize("role", ROLES)
def test_a_higher_epoch_of_a_member_is_taken_as_far_as_a_leap_goes(role: str, say: str) -> None:
    assert _moves(role, say, 3, 1)
    assert _moves(role, say, 3, EPOCH_LEAP_MAX)
    assert not _moves(role, say, 3, EPOCH_LEAP_MAX + 1)
    assert not _moves(role, say, 3, EPOCH_MAX)


@pytest.mark.parametrize("say", SAYINGS)
@pytest.mark.parametrize("role", ROLES)
def test_a_strangers_epoch_is_taken_only_if_it_stands_or_leads_and_we_hear_no_leader(
    role: str, say: str
) -> None:
    """It may be a voter that we do not know yet, or one that was removed."""
    hears_none = role in ("hears-none", "unattached")
    assert _moves(role, say, STRANGER, 1) is (hears_none and say in HEARD_OF_STRANGERS)
    assert not _moves(role, say, STRANGER, EPOCH_LEAP_MAX + 1)


def test_a_voter_that_our_log_does_not_know_gets_our_vote_while_we_hear_no_leader() -> None:
    """etcd, campaign_learner_must_vote."""
    assert _left_follower().ask_vote(STRANGER, LED + 1, end=9).granted
    assert not _fresh_follower().ask_vote(STRANGER, LED + 1, end=9).granted


def test_a_leader_that_our_log_does_not_know_is_followed_while_we_hear_none() -> None:
    """All that we know may have been replaced while this voter was down."""
    made = _left_follower()
    made.begin_epoch(STRANGER, LED + 1)
    assert (made.role, made.raft.leader_id) == ("follower", STRANGER)


def test_the_leader_that_we_fetch_from_moves_us_by_a_leap_at_most() -> None:
    for by, epoch in ((EPOCH_LEAP_MAX, LED + EPOCH_LEAP_MAX), (EPOCH_LEAP_MAX + 1, LED)):
        made = _fresh_follower()
        made.answered(FetchResponse(LED + by, 2, 1))
        assert made.epoch == epoch


def test_an_answer_on_a_fetch_stream_that_was_given_up_moves_nothing() -> None:
    made = _fresh_follower()
    old = made.raft.state.sessions
    made.begin_epoch(3, LED + 1)
    made.step(FetchAnswered(old, FetchResponse(LED + 2, 2, 1)))
    assert (made.role, made.epoch) == ("follower", LED + 1)


def test_a_refused_epoch_is_answered_invalid() -> None:
    made = serving_leader()
    (answer,) = made.fetch(STRANGER, 1, 0, epoch=LED + 1)
    assert answer.response.refusal is Refusal.INVALID
    (answer,) = made.fetch(3, 1, 0, epoch=LED + EPOCH_LEAP_MAX + 1)
    assert answer.response.refusal is Refusal.INVALID
    (reply,) = made.begin_epoch(STRANGER, LED + 1)
    assert isinstance(reply, Reply)
    assert isinstance(reply.response, EpochResponse)
    assert reply.response == EpochResponse(LED, 1, Refusal.INVALID, directory(1))
    made.end_epoch(STRANGER, LED + 1)
    (reply,) = [m for m in made.sent if isinstance(m, Reply)][-1:]
    assert reply.response == EpochResponse(LED, 1, Refusal.INVALID, directory(1))
    assert made.role == "leader"


def test_a_voter_without_any_epoch_takes_that_of_an_old_quorum() -> None:
    """A new disk in a quorum that has had more elections than a leap."""
    made = machine(epoch=0)
    made.begin_epoch(2, 3 * EPOCH_LEAP_MAX)
    assert (made.role, made.epoch) == ("follower", 3 * EPOCH_LEAP_MAX)
    made = machine(epoch=0)
    made.begin_epoch(2, EPOCH_MAX + 1)
    assert made.epoch == 0
