"""Elections, at the machine: pre-votes, votes, restarts, and one vote in an epoch."""

from __future__ import annotations

import pytest

from quorate_quorum.raft.machine.events import (
    FetchBroken,
    HardStateSaved,
    VoteAnswered,
)
from quorate_quorum.raft.machine.follower import Follower
from quorate_quorum.raft.machine.messages import (
    VoteResponse,
)
from quorate_quorum.raft.machine.voters import ReplicaKey
from tests.harness.raft_machines import (
    candidate,
    cluster,
    directory,
    follower,
    heard_follower,
    key,
    leader,
    machine,
)


def test_a_leader_denies_pre_votes_to_the_most_complete_of_logs() -> None:
    """KIP-996: it is no want of records that makes it deny."""
    made = leader()
    answer = made.ask_vote(3, made.epoch, last_epoch=made.epoch, end=99, pre_vote=True)
    assert (answer.granted, answer.leader_id) == (False, 1)


def test_a_voter_whose_stream_broke_grants_pre_votes_again() -> None:
    made = heard_follower()
    assert isinstance(made.raft.role, Follower)
    made.step(FetchBroken(made.raft.role.session, refused=False))
    assert made.ask_vote(3, 1, end=9, pre_vote=True).granted


def test_a_voter_that_fetched_long_ago_grants_pre_votes_again() -> None:
    made = heard_follower()
    made.now_ms += 999
    assert not made.ask_vote(3, 1, end=9, pre_vote=True).granted
    made.now_ms += 1
    assert made.ask_vote(3, 1, end=9, pre_vote=True).granted


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"epoch": 0}, "old epoch"),
        ({"last_epoch": 0, "end": 1}, "log behind"),
        ({"voter": ReplicaKey(1, b"another disk....")}, "another disk of ours"),
    ],
)
@pytest.mark.parametrize("pre_vote", [True, False])
def test_votes_that_are_refused_by_everybody(
    change: dict[str, object], why: str, pre_vote: bool
) -> None:
    made = machine(log=[0, 1], epoch=1)
    given: dict[str, object] = {"epoch": 1, "last_epoch": 1, "end": 2} | change
    epoch = given.pop("epoch")
    assert not made.ask_vote(2, epoch, pre_vote=pre_vote, **given).granted  # type: ignore[arg-type]


def test_a_pre_vote_that_is_denied_names_the_leader_and_the_asker_follows() -> None:
    made = machine()
    made.due()
    attempt = made.raft.role.attempt  # type: ignore[attr-defined]
    made.step(VoteAnswered(key(2), attempt, VoteResponse(0, 3, False, directory(3))))
    assert (made.role, made.raft.leader_id) == ("follower", 3)


def test_an_answer_to_an_earlier_attempt_is_not_counted() -> None:
    """Redpanda #18394: what was granted before the epoch or the attempt changed counts no more."""
    made = candidate(1, (1, 2, 3))
    old = made.raft.role.attempt  # type: ignore[attr-defined]
    made.due()
    made.due()
    made.step(VoteAnswered(key(2), old, VoteResponse(made.epoch, -1, True)))
    assert made.role == "prospective"


def test_an_isolated_voter_does_not_raise_its_epoch_and_disturbs_nobody() -> None:
    """Cut off for a hundred timeouts, it comes back to the same leader and epoch."""
    world = cluster(1, 2, 3)
    world.run(3_000)
    (first,) = world.leading
    epoch = world.machines[first].epoch
    lost = next(i for i in (1, 2, 3) if i != first)
    world.cut.append(lost)
    world.run(60_000)
    world.cut.clear()
    world.run(5_000)
    assert world.leading == [first]
    assert {m.epoch for m in world.machines.values()} == {epoch}


def test_a_vote_for_a_candidate_outside_our_voter_set_is_possible() -> None:
    """Our voter set may be older than the candidate's."""
    assert machine().ask_vote(9, 1).granted


def test_who_stood_in_an_epoch_starts_resigned_in_it_and_never_leads_in_it() -> None:
    """KAFKA-10527."""
    made = machine(epoch=4, voted_for=1)
    assert made.role == "resigned"
    assert not made.ask_vote(2, 4).granted
    made.due()
    assert (made.role, made.epoch) == ("prospective", 4)
    made.vote_answered(2)
    assert (made.role, made.epoch) == ("candidate", 5)


def test_a_single_voter_never_leads_twice_in_an_epoch_either() -> None:
    made = machine(1, (1,), epoch=4, voted_for=1)
    assert made.role == "resigned"
    made.due()
    assert (made.role, made.epoch) == ("leader", 5)


def test_an_epoch_in_the_log_is_never_given_again_when_the_hard_state_is_older() -> None:
    made = machine(log=[0, 3], epoch=1)
    assert made.epoch == 3
    assert made.raft.hard_state.voted_for is None


def test_a_leader_that_steps_down_for_want_of_a_majority_remembers_its_vote() -> None:
    """Hazelcast #16643."""
    made = leader()
    made.tick(1500)
    assert (made.role, made.epoch) == ("resigned", 1)
    assert not made.ask_vote(2, 1, last_epoch=9, end=9).granted


def test_directories_tell_voters_of_one_id_apart() -> None:
    """A vote of one disk must not count for another under the same id."""
    made = candidate()
    attempt = made.raft.role.attempt  # type: ignore[attr-defined]
    stranger = ReplicaKey(2, directory(99))
    made.step(VoteAnswered(stranger, attempt, VoteResponse(1, -1, True)))
    assert made.role == "candidate"


def test_a_majority_of_others_does_not_elect_one_whose_own_vote_is_not_on_disk() -> None:
    made = machine(1, (1, 2, 3), saves_at_once=False)
    made.due()
    made.vote_answered(2)
    assert made.role == "candidate"
    made.vote_answered(2)
    made.vote_answered(3)
    assert made.role == "candidate"
    made.step(HardStateSaved(made.readies[-1].hard_state_version))
    assert made.role == "leader"


def test_the_save_of_an_older_hard_state_is_no_vote() -> None:
    made = machine(1, (1,), [0, 3], epoch=1, saves_at_once=False)
    made.due()
    assert (made.role, made.epoch) == ("candidate", 4)
    made.step(HardStateSaved(1))
    assert made.role == "candidate"
    made.step(HardStateSaved(2))
    assert made.role == "leader"


def test_two_voters_with_one_seed_wait_differently() -> None:
    """hashicorp #50."""
    deadlines = [machine(i, (100, 101, 102)).raft.deadline_ms() for i in (100, 101, 102)]
    assert len(set(deadlines)) == 3


def test_a_single_voter_keeps_its_epoch_through_any_pause() -> None:
    made = machine(1, (1,))
    made.due()
    for _ in range(5):
        made.tick(10_000)
        assert (made.role, made.epoch) == ("leader", 1)


def test_a_follower_votes_for_nobody_else_in_its_leaders_epoch() -> None:
    made = follower()
    assert made.raft.hard_state.voted_for is None
    assert not made.ask_vote(3, 1, end=9).granted
