"""The leader, at the machine: check-quorum, fetches, what counts, reads."""

from __future__ import annotations

import pytest

from quorate_quorum.raft.machine.events import (
    FetchAbandoned,
    Saved,
    Written,
)
from quorate_quorum.raft.machine.leader import Leader
from quorate_quorum.raft.machine.messages import (
    Refusal,
    StreamKey,
)
from quorate_quorum.raft.machine.ready import FetchReply
from quorate_quorum.raft.machine.replicas import OBSERVERS_MAX
from tests.harness.raft_machines import (
    batch,
    key,
    leader,
    machine,
    serving_leader,
    voters,
)


def test_a_leader_that_no_majority_echoes_resigns_after_one_and_a_half_fetch_timeouts() -> None:
    made = serving_leader()
    for _ in range(4):
        made.tick(250)
        made.fetch(2, 2, 1, high_watermark=2, round=0)  # fetches, but echoes no round of now
    made.tick(499)
    assert made.role == "leader"
    made.tick(1)
    assert made.role == "resigned"


def test_a_leader_whose_rounds_are_echoed_stays() -> None:
    made = serving_leader()
    round_now = 0
    for _ in range(40):
        made.fetch(2, 2, 1, high_watermark=2, round=round_now)
        replies = [m for m in made.tick(250) if isinstance(m, FetchReply)]
        round_now = replies[-1].response.round
    assert made.role == "leader"


def test_a_single_voter_never_resigns() -> None:
    """KAFKA-16144."""
    made = machine(1, (1,))
    made.due()
    for _ in range(10):
        made.tick(10_000)
    assert made.role == "leader"


def test_a_leader_outside_the_voter_set_does_not_count_itself() -> None:
    """KAFKA-16531."""
    made = serving_leader(1, (1, 2, 3))
    role = made.raft.role
    assert isinstance(role, Leader)
    assert role.replicas.majority_end(voters(2, 3, 4)) == 2
    assert role.replicas.majority_round(voters(2, 3)) == 0


def test_a_diverging_fetch_moves_no_progress() -> None:
    """KAFKA-13141, etcd/raft #149."""
    made = leader(log=[0, 1, 1], epoch=1)
    made.fetch(2, 4, 1)
    assert isinstance(made.raft.role, Leader)
    assert made.raft.role.replicas.of(key(2)).log_end_offset == 0
    assert made.raft.high_watermark == 1


@pytest.mark.parametrize(
    ("incarnation", "number", "admitted"),
    [(b"a", 1, False), (b"a", 2, True), (b"b", 1, True)],
)
def test_a_request_of_an_older_stream_moves_no_state(
    incarnation: bytes, number: int, admitted: bool
) -> None:
    made = leader()
    made.fetch(2, 1, 0, number=2)
    replies = made.fetch(2, 2, 1, incarnation=incarnation, number=number)
    refused = any(r.response.refusal is Refusal.OLD_STREAM for r in replies)
    assert refused is not admitted
    assert (made.raft.high_watermark == 2) is admitted


def test_a_superseded_incarnation_stays_superseded() -> None:
    made = leader()
    made.fetch(2, 1, 0, incarnation=b"a")
    made.fetch(2, 1, 0, incarnation=b"b")
    (reply,) = made.fetch(2, 2, 1, incarnation=b"a", number=9)
    assert reply.response.refusal is Refusal.OLD_STREAM


def test_what_is_not_synced_does_not_count_though_it_is_served() -> None:
    """The leader serves what is written, and counts itself when it is synced."""
    made = leader(1, (1, 2))
    made.fetch(2, 2, 1)
    made.saves_at_once = False
    made.raft.propose(batch(2, 1), made.now_ms)
    made.drain()
    made.fetch(2, 2, 1, high_watermark=2)
    (reply,) = [m for m in made.step(Written(3, 0)) if isinstance(m, FetchReply)]
    assert reply.end == 3
    made.fetch(2, 3, 1)
    assert made.raft.high_watermark == 2
    made.step(Saved(1, 3, 0))
    assert made.raft.high_watermark == 3


def test_there_is_a_bound_on_observers() -> None:
    made = leader()
    for replica in range(10, 10 + OBSERVERS_MAX):
        made.fetch(replica, 1, 0)
    (reply,) = made.fetch(99, 1, 0)
    assert reply.response.refusal is Refusal.OVERLOADED
    made.fetch(2, 2, 1)
    assert made.raft.high_watermark == 2


def test_an_observer_is_not_counted() -> None:
    made = leader()
    made.fetch(9, 2, 1)
    assert made.raft.high_watermark == 1


def test_a_leader_answers_at_once_when_it_has_something_to_say_and_else_after_250_ms() -> None:
    made = serving_leader()
    assert made.fetch(2, 2, 1, high_watermark=2) == []
    made.tick(249)
    assert not [m for m in made.tick() if isinstance(m, FetchReply)]
    (reply,) = [m for m in made.tick(1) if isinstance(m, FetchReply)]
    assert reply.response.refusal is None

    assert len(made.fetch(2, 2, 1, high_watermark=1)) == 1  # a higher high watermark
    assert made.fetch(2, 2, 1, high_watermark=2) == []
    made.raft.propose(batch(2, 1), made.now_ms)
    assert [m.caller for m in made.drain() if isinstance(m, FetchReply)] == [2]  # data
    made.fetch(2, 3, 1, high_watermark=3)
    made.raft.read(made.now_ms)
    assert [m.caller for m in made.drain() if isinstance(m, FetchReply)] == [2]  # a new round


def test_a_read_id_is_never_given_twice_not_even_in_another_reign() -> None:
    """etcd #20418: a retry that reused its id was confirmed by an old answer."""
    made = serving_leader()
    ids = [made.raft.read(made.now_ms) for _ in range(3)]
    made.ask_vote(3, 5, last_epoch=9, end=9)
    assert made.role == "unattached"
    made.due()
    made.vote_answered(2)
    made.vote_answered(2)
    assert made.role == "leader"
    ids += [made.raft.read(made.now_ms) for _ in range(3)]
    assert ids == sorted(set(ids))


def test_an_echo_of_a_round_from_before_the_read_does_not_confirm_it() -> None:
    made = serving_leader()
    old = made.raft.read(made.now_ms)
    made.drain()
    read = made.raft.read(made.now_ms)
    made.drain()
    made.readies.clear()
    made.fetch(2, 2, 1, round=old)
    confirmed = [one for r in made.readies for one in r.confirmed_reads]
    assert [number for number, _ in confirmed] == [old]
    made.fetch(3, 2, 1, round=read)
    confirmed = [one for r in made.readies for one in r.confirmed_reads]
    assert [number for number, _ in confirmed] == [old, read]


def test_a_round_that_was_never_issued_proves_nothing() -> None:
    made = serving_leader()
    read = made.raft.read(made.now_ms)
    made.fetch(2, 2, 1, round=read + 1000)
    assert not any(r.confirmed_reads for r in made.readies)


def test_an_echo_proves_only_that_the_leader_was_heard_after_it_issued_that_round() -> None:
    made = serving_leader()
    assert isinstance(made.raft.role, Leader)
    issued, begun = made.raft.role.rounds.check_round, made.now_ms
    made.now_ms = begun + 1000
    made.fetch(2, 2, 1, high_watermark=2, round=issued)
    made.now_ms = begun + 1500
    made.tick()
    assert made.role == "resigned"


def test_the_place_of_an_observer_that_is_gone_is_free_again() -> None:
    """Observers come and go during one reign; their number is bounded, their sum is not."""
    made = serving_leader()
    for replica in range(10, 10 + OBSERVERS_MAX):
        made.fetch(replica, 0, -1)
    (refused,) = made.fetch(99, 0, -1)
    assert refused.response.refusal is Refusal.OVERLOADED
    for replica in range(10, 10 + OBSERVERS_MAX):
        stream = StreamKey(key(replica), b"a", 1)
        made.step(FetchAbandoned(stream))
    made.now_ms += 4_999
    (refused,) = made.fetch(99, 0, -1)
    assert refused.response.refusal is Refusal.OVERLOADED
    made.now_ms += 1
    (taken,) = made.fetch(99, 0, -1)
    assert taken.response.refusal is None
    assert [one.id for one in made.raft.status().observers] == [99]
