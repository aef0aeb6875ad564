"""An observer, or a voter that does not know of its removal, finds the leader; no more."""

from __future__ import annotations

import pytest

from quorate_quorum.raft.driver.finder import leader_in
from quorate_quorum.raft.machine.events import LeaderFound, VoteAnswered
from quorate_quorum.raft.machine.hard_state import EPOCH_LEAP_MAX, EPOCH_MAX
from quorate_quorum.raft.machine.messages import FetchResponse, VoteResponse
from quorate_quorum.raft.machine.ready import FindLeader, Message
from quorate_quorum.v1.raft_pb2 import DescribeNodeResponse
from tests.harness.raft_machines import (
    Cluster,
    Machine,
    batch,
    candidate,
    cluster,
    directory,
    follower,
    key,
    machine,
    serving_leader,
    voters,
)

#: A disk that is no voter's, as `storage format --new-voter` leaves it: not even the bootstrap.
NEW = 9


def new_voter(*bootstrap_servers: str) -> Machine:
    return machine(NEW, (), (), bootstrap_servers=bootstrap_servers)


def asked(messages: list[Message]) -> list[str]:
    return [one.endpoint for one in messages if isinstance(one, FindLeader)]


def test_who_may_not_stand_asks_all_that_it_knows_who_leads() -> None:
    made = machine(NEW, (1, 2), bootstrap_servers=("host2:1", "host7:1", "host9:1"))
    assert asked(made.due()) == ["host1:1", "host2:1", "host7:1"]
    assert made.role == "unattached"
    assert asked(made.due()) == ["host1:1", "host2:1", "host7:1"]  # and again


def test_a_new_disk_asks_the_bootstrap_servers_and_follows_whom_they_hear() -> None:
    made = new_voter("host1:1", "host2:1")
    assert asked(made.due()) == ["host1:1", "host2:1"]
    made.step(LeaderFound(7, key(2), "host2:1"))
    assert (made.role, made.epoch, made.raft.leader_id) == ("follower", 7, 2)


def test_a_voter_that_stands_asks_bootstrap_servers_that_are_no_voters_to_its_knowledge() -> None:
    """All the voters that it knows may have been replaced while it was down."""
    made = machine(1, (1, 2, 3), bootstrap_servers=("host2:1", "host4:1"))
    assert asked(made.due()) == ["host4:1"]
    made.step(LeaderFound(3, key(4), "host4:1"))
    assert (made.role, made.raft.leader_id) == ("follower", 4)


@pytest.mark.parametrize("make", [serving_leader, candidate])
def test_news_of_an_older_epoch_or_of_ourselves_change_nothing(make: object) -> None:
    made = make()  # type: ignore[operator]
    role = made.role
    made.step(LeaderFound(made.epoch - 1, key(3), "host3:1"))
    made.step(LeaderFound(made.epoch + 1, key(1), "host1:1"))
    assert made.role == role


@pytest.mark.parametrize("leader", [2, 3])
def test_who_follows_a_leader_of_that_epoch_already_keeps_to_its_stream(leader: int) -> None:
    """Also while it does not hear the leader: an epoch has one leader, whose answer may come."""
    made = follower(1, 2, 1)
    session = made.raft.role.session
    made.step(LeaderFound(1, key(leader), f"host{leader}:1"))
    assert made.raft.leader_id == 2
    assert made.raft.role.session == session


@pytest.mark.parametrize("by", [EPOCH_LEAP_MAX + 1, EPOCH_MAX])
def test_an_epoch_too_far_ahead_is_not_believed(by: int) -> None:
    made = machine(epoch=1)
    made.step(LeaderFound(1 + by, key(2), "host2:1"))
    assert (made.role, made.epoch) == ("unattached", 1)


@pytest.mark.parametrize(
    "answer",
    [
        DescribeNodeResponse(leader_id=-1, leader_directory_id=directory(2), leader_endpoint="h:1"),
        DescribeNodeResponse(leader_id=2, leader_directory_id=b"short", leader_endpoint="h:1"),
        DescribeNodeResponse(leader_id=2, leader_directory_id=directory(2)),
        DescribeNodeResponse(
            leader_id=2, leader_directory_id=directory(2), leader_endpoint="h" * 301
        ),
    ],
)
def test_a_leader_that_is_none_is_not_found(answer: DescribeNodeResponse) -> None:
    assert leader_in(answer) is None


def test_who_hears_a_leader_is_not_led_away_by_other_news() -> None:
    made = follower(1, leader=2)
    made.answered(FetchResponse(1, 2, 1))
    made.step(LeaderFound(5, key(3), "host3:1"))
    assert (made.epoch, made.raft.leader_id) == (1, 2)


def test_only_who_hears_a_leader_names_one() -> None:
    """Old knowledge would send others to a leader that is gone."""
    assert serving_leader().raft.leader_heard() == LeaderFound(1, key(1), "host1:1")
    made = follower(1, leader=2)
    assert made.raft.leader_heard() is None
    made.answered(FetchResponse(1, 2, 1))
    assert made.raft.leader_heard() == LeaderFound(1, key(2), "host2:1")
    made.now_ms += 1_001
    made.raft.state.now_ms = made.now_ms
    assert made.raft.leader_heard() is None
    assert machine().raft.leader_heard() is None


@pytest.mark.parametrize(
    ("leader_id", "of_directory"), [(8, directory(8)), (3, b"another disk....")]
)
def test_a_hint_at_a_leader_that_we_do_not_know_makes_us_ask_who_gave_it(
    leader_id: int, of_directory: bytes
) -> None:
    """An id on another disk is another voter, and may listen elsewhere."""
    made = machine()
    made.due()
    attempt = made.raft.role.attempt  # type: ignore[attr-defined]
    response = VoteResponse(0, leader_id, False, of_directory)
    assert asked(made.step(VoteAnswered(key(2), attempt, response))) == ["host2:1"]
    assert made.role == "prospective"


def test_a_leader_on_another_disk_than_we_know_is_followed_where_it_says_it_listens() -> None:
    """The same id on another disk is another replica."""
    made = machine()
    made.begin_epoch(2, 1)
    assert made.raft.leader_endpoint == "host2:1"
    other = machine(ids=(1, 2, 3))
    other.begin_epoch(8, 1)
    assert other.raft.leader_endpoint == "host8:1"


def removed(among: Cluster, gone: int) -> int:
    """Remove a voter that is cut off; return the leader."""
    (leads,) = among.leading
    made = among.machines[leads]
    others = [one for one in among.machines if one != gone]
    end = made.raft.ledger.log_end_offset
    made.raft.propose(batch(end, made.epoch, members=voters(*others)), made.now_ms)
    among.run(600)
    assert made.raft.high_watermark == end + 1
    return leads


@pytest.mark.parametrize("seed", range(6))
def test_a_removed_voter_that_never_saw_its_removal_causes_no_change_of_leader(seed: int) -> None:
    """KAFKA-17030: cut off, removed, and back after a hundred timeouts; it learns of it."""
    among = cluster(1, 2, 3, seed=seed)
    among.run(5_000)
    gone = next(one for one in among.machines if one not in among.leading)
    among.cut.append(gone)
    leads = removed(among, gone)
    epoch = among.machines[leads].epoch
    among.run(100_000)
    among.cut.clear()
    among.run(20_000)
    outside = among.machines[gone]
    assert (among.leading, among.machines[leads].epoch) == ([leads], epoch)
    assert (outside.role, outside.epoch, outside.raft.state.is_voter()) == (
        "follower",
        epoch,
        False,
    )


@pytest.mark.parametrize("seed", range(6))
def test_a_new_disk_finds_each_leader_in_turn_and_never_stands(seed: int) -> None:
    among = cluster(1, 2, 3, seed=seed)
    among.machines[NEW] = new_voter("host1:1", "host2:1", "host3:1")
    among.run(5_000)
    for _ in range(3):
        (leads,) = among.leading
        assert among.machines[NEW].raft.leader_id == leads
        among.cut.append(leads)
        among.run(8_000)
        among.cut.clear()
        among.run(5_000)
    roles = [change.role for one in among.machines[NEW].readies for change in one.role_changes]
    assert {"prospective", "candidate", "leader"}.isdisjoint(roles)
    assert among.machines[NEW].raft.ledger.voters == voters(1, 2, 3)


def test_a_removed_leader_stays_outside_whatever_happens() -> None:
    """Nothing brings it back by itself, and no election is its doing."""
    among = cluster(1, 2, 3)
    among.run(5_000)
    (leads,) = among.leading
    made = among.machines[leads]
    others = [one for one in (1, 2, 3) if one != leads]
    end = made.raft.ledger.log_end_offset
    made.raft.propose(batch(end, made.epoch, members=voters(*others)), made.now_ms)
    among.run(5_000)
    (successor,) = among.leading
    assert successor in others
    epoch = among.machines[successor].epoch
    among.run(60_000)
    assert among.leading == [successor]
    assert among.machines[successor].epoch == epoch
    assert made.role == "follower"
    assert made.raft.ledger.voters == voters(*others)
