"""How systems of this kind have failed, as tables over one machine: pre-votes, restarts, rounds."""

from __future__ import annotations

import pytest

from quorate_quorum.node.history import History
from quorate_quorum.raft.machine.events import (
    FetchAbandoned,
    FetchBroken,
    HardStateSaved,
    Saved,
    VoteAnswered,
    Written,
)
from quorate_quorum.raft.machine.follower import Follower
from quorate_quorum.raft.machine.hard_state import EPOCH_MAX
from quorate_quorum.raft.machine.leader import Leader
from quorate_quorum.raft.machine.messages import (
    DivergingEpoch,
    EndEpochRequest,
    FetchResponse,
    Refusal,
    StreamKey,
    VoteRequest,
    VoteResponse,
)
from quorate_quorum.raft.machine.ready import Call, Fetch, FetchReply
from quorate_quorum.raft.machine.replicas import OBSERVERS_MAX
from quorate_quorum.raft.machine.voters import ReplicaKey
from tests.harness.raft_machines import (
    Machine,
    batch,
    candidate,
    cluster,
    directory,
    follower,
    key,
    leader,
    machine,
    serving_leader,
    voters,
)


def fresh_follower() -> Machine:
    made = follower()
    made.answered(FetchResponse(1, 2, 1))
    return made


# --- pre-votes (R24, KIP-996) ---------------------------------------------------------------------


def test_a_leader_denies_pre_votes_to_the_most_complete_of_logs() -> None:
    """R24 (KIP-996): it is no want of records that makes it deny."""
    made = leader()
    answer = made.ask_vote(3, made.epoch, last_epoch=made.epoch, end=99, pre_vote=True)
    assert (answer.granted, answer.leader_id) == (False, 1)


def test_a_voter_whose_stream_broke_grants_pre_votes_again() -> None:
    made = fresh_follower()
    assert isinstance(made.raft.role, Follower)
    made.step(FetchBroken(made.raft.role.session, refused=False))
    assert made.ask_vote(3, 1, end=9, pre_vote=True).granted


def test_a_voter_that_fetched_long_ago_grants_pre_votes_again() -> None:
    made = fresh_follower()
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
    """R25: cut off for a hundred timeouts, it comes back to the same leader and epoch."""
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
    """R36: our voter set may be older than the candidate's."""
    assert machine().ask_vote(9, 1).granted


# --- restarts (R2, R3) ----------------------------------------------------------------------------


def test_who_stood_in_an_epoch_starts_resigned_in_it_and_never_leads_in_it() -> None:
    """R3, law 5 (KAFKA-10527)."""
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
    """R2 (Hazelcast #16643)."""
    made = leader()
    made.tick(1500)
    assert (made.role, made.epoch) == ("resigned", 1)
    assert not made.ask_vote(2, 1, last_epoch=9, end=9).granted


# --- check-quorum (R23) ---------------------------------------------------------------------------


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


# --- fetches at the leader (R15, R22) -------------------------------------------------------------


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
    """R4: the leader serves what is written, and counts itself when it is synced."""
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


def test_a_completion_from_before_a_cut_is_not_credited_to_what_replaced_it() -> None:
    """R22: etcd's async append ABA."""
    made = follower(log=[0, 1, 1], epoch=2, synced=1)
    made.saves_at_once = False
    made.raft.ledger.synced_end = 1
    made.answered(FetchResponse(2, 3, 3))  # another leader's answer, our session: no batches
    made.answered(FetchResponse(2, 2, 3, diverging=DivergingEpoch(0, 1)))
    made.answered(FetchResponse(2, 2, 1, batches=(batch(1, 2, begins=True), batch(2, 2))))
    made.step(Saved(2, 3, 0))
    assert made.raft.ledger.synced_end == 1
    made.step(Saved(1, 3, 1))
    assert made.raft.ledger.synced_end == 1
    made.step(Saved(2, 3, 1))
    assert made.raft.ledger.synced_end == 3


def test_a_completion_that_is_ignored_is_followed_by_another_sync() -> None:
    made = follower(log=[0, 1, 1], epoch=2)
    made.saves_at_once = False
    made.raft.ledger.synced_end = 1
    made.readies.clear()
    made.step(Saved(1, 3, 0))
    (save,) = [r.save for r in made.readies if r.save]
    assert (save.epoch, save.end_offset, save.truncations) == (2, 3, 0)


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


# --- the follower ---------------------------------------------------------------------------------


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
    """R17, law 4."""
    made = follower(log=[0, 1, 1], epoch=2)
    made.answered(FetchResponse(2, 2, 3, 3))
    assert made.raft.high_watermark == 3
    made.answered(FetchResponse(2, 2, 3, diverging=DivergingEpoch(1, 2)))
    assert made.raft.ledger.log_end_offset == 3
    assert any("below the high watermark" in (r.fatal or "") for r in made.readies)


def test_a_voter_set_that_is_cut_off_is_taken_back() -> None:
    """R34."""
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
    made = fresh_follower()
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
    made = fresh_follower()
    assert isinstance(made.raft.role, Follower)
    made.step(FetchBroken(made.raft.role.session, refused=True))
    assert 50 <= made.raft.deadline_ms() - made.now_ms <= 150


# --- rounds (R43) ---------------------------------------------------------------------------------


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


# --- leaving (R29) --------------------------------------------------------------------------------


def test_a_leader_that_resigns_names_the_most_caught_up_voter_first() -> None:
    made = leader(1, (1, 2, 3))
    made.fetch(3, 2, 1)
    made.fetch(3, 2, 1, high_watermark=2)
    made.fetch(2, 1, 0)
    made.sent.clear()
    made.raft.resign(made.now_ms, reason="stopping")
    said = made.drain()
    requests = [m.request for m in said if isinstance(m, Call)]
    assert requests == [EndEpochRequest(1, 1, (3, 2))] * 2
    assert any(isinstance(m, FetchReply) and m.response.refusal is Refusal.NOT_LEADER for m in said)
    assert made.role == "resigned"


def test_the_first_successor_stands_at_once_and_the_others_wait() -> None:
    first, second = fresh_follower(), fresh_follower()
    first.end_epoch(2, 1, 1, 3)
    second.end_epoch(2, 1, 3, 1)
    assert (first.role, first.epoch) == ("candidate", 2)
    assert second.role == "unattached"
    assert 200 <= second.raft.deadline_ms() - second.now_ms <= 300
    transfers = [
        m.request.leadership_transfer
        for m in first.sent
        if isinstance(m, Call) and isinstance(m.request, VoteRequest)
    ]
    assert transfers == [True, True]


def test_the_successor_says_that_leadership_was_handed_over_for_silence() -> None:
    made = fresh_follower()
    made.end_epoch(2, 1, 1, 3, silence=True)
    made.vote_answered(3)
    made.fetch(3, 2, 2)
    (reign,) = [r.reign for r in made.readies if r.reign]
    assert reign.handed_over_for_silence


def test_leadership_moves_without_a_pause() -> None:
    world = cluster(1, 2, 3)
    world.run(3_000)
    (first,) = world.leading
    world.machines[first].raft.resign(world.machines[first].now_ms, reason="asked")
    world.run(10)
    (second,) = world.leading
    assert second != first


# --- formatting (DESIGN section 5) ----------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (History("c", 1, b"h"), None),
        (History("c", 1, b""), None),
        (History("d", 1, b"h"), "cluster id"),
        (History("c", 2, b"h"), "generation"),
        (History("c", 1, b"x"), "bootstrap"),
    ],
)
def test_a_peer_of_another_history_is_refused(other: History, why: str | None) -> None:
    refusal = History("c", 1, b"h").refusal_of(other)
    assert refusal is None if why is None else why in (refusal or "")


# --- hostile peers --------------------------------------------------------------------------------


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
    made = fresh_follower()
    made.begin_epoch(3, 1)
    assert made.raft.leader_id == 2


def test_nothing_is_said_with_an_epoch_that_is_not_on_disk() -> None:
    made = machine(saves_at_once=False)
    assert made.begin_epoch(2, 4) == []
    version = made.readies[-1].hard_state_version
    said = made.step(HardStateSaved(version))
    assert [m.request.epoch for m in said if isinstance(m, Fetch)] == [4]


def test_directories_tell_voters_of_one_id_apart() -> None:
    """R33."""
    made = candidate()
    attempt = made.raft.role.attempt  # type: ignore[attr-defined]
    stranger = ReplicaKey(2, directory(99))
    made.step(VoteAnswered(stranger, attempt, VoteResponse(1, -1, True)))
    assert made.role == "candidate"


# --- each of these was written because a machine without the rule passed all tests above ----------


def test_an_answer_to_a_fetch_from_another_offset_is_not_taken() -> None:
    made = follower(log=[0, 1, 1], epoch=2)
    made.answered(FetchResponse(2, 2, 2, diverging=DivergingEpoch(0, 1)))
    made.answered(FetchResponse(2, 2, 1, batches=(batch(3, 2),)))
    assert made.raft.ledger.log_end_offset == 3


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
    """R28 (hashicorp #50)."""
    deadlines = [machine(i, (100, 101, 102)).raft.deadline_ms() for i in (100, 101, 102)]
    assert len(set(deadlines)) == 3


def test_a_single_voter_keeps_its_epoch_through_any_pause() -> None:
    made = machine(1, (1,))
    made.due()
    for _ in range(5):
        made.tick(10_000)
        assert (made.role, made.epoch) == ("leader", 1)


def test_an_echo_proves_only_that_the_leader_was_heard_after_it_issued_that_round() -> None:
    made = serving_leader()
    assert isinstance(made.raft.role, Leader)
    issued, begun = made.raft.role.rounds.check_round, made.now_ms
    made.now_ms = begun + 1000
    made.fetch(2, 2, 1, high_watermark=2, round=issued)
    made.now_ms = begun + 1500
    made.tick()
    assert made.role == "resigned"


def test_a_follower_votes_for_nobody_else_in_its_leaders_epoch() -> None:
    made = follower()
    assert made.raft.hard_state.voted_for is None
    assert not made.ask_vote(3, 1, end=9).granted


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
