"""One test for each rule of the Raft paper (extended version), as a pulling Raft keeps it."""

from __future__ import annotations

import pytest

from quorate.errors import NotControllerError
from quorate_quorum.raft.machine.events import HardStateSaved, Saved, VoteRequested
from quorate_quorum.raft.machine.messages import (
    BeginEpochRequest,
    DivergingEpoch,
    FetchResponse,
    Refusal,
    VoteRequest,
)
from quorate_quorum.raft.machine.ready import Call, Fetch, Reply
from tests.harness.raft_machines import (
    batch,
    candidate,
    cluster,
    follower,
    key,
    leader,
    machine,
    serving_leader,
)

# --- 5.1: epochs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["follower", "candidate", "leader"])
def test_a_higher_epoch_in_a_request_is_taken_over_at_once(role: str) -> None:
    """5.1: if one server's current term is smaller, it updates its term to the larger value."""
    made = follower() if role == "follower" else candidate() if role == "candidate" else leader()

    made.ask_vote(3, made.epoch + 5, last_epoch=9, end=9)

    assert made.raft.hard_state.epoch == 6
    assert made.role == "unattached"


@pytest.mark.parametrize("role", ["candidate", "leader"])
def test_a_higher_epoch_in_a_response_ends_a_candidacy_and_a_reign(role: str) -> None:
    """5.1: a candidate or leader that discovers its term is out of date reverts to follower."""
    made = {"candidate": candidate, "leader": leader}[role]()

    if role == "candidate":
        made.vote_answered(2, granted=False, epoch=9)
    else:
        made.fetch(2, 1, 0, epoch=9)

    assert (made.role, made.epoch) == ("unattached", 9)


def test_a_request_of_an_old_epoch_is_refused() -> None:
    """5.1: a server that receives a request with a stale term rejects it."""
    made = leader(epoch=4)

    assert not made.ask_vote(2, 3, last_epoch=9, end=99).granted
    (reply,) = made.fetch(2, 1, 0, epoch=3)
    assert reply.response.refusal is Refusal.FENCED_EPOCH
    (said,) = [m for m in made.begin_epoch(2, 3) if isinstance(m, Reply)]
    assert getattr(said.response, "refusal", None) is Refusal.FENCED_EPOCH
    assert made.role == "leader"


# --- 5.2: elections -------------------------------------------------------------------------------


def test_a_node_begins_without_a_leader_and_asks_before_it_stands() -> None:
    """5.2 and 9.6: servers start as followers; a pre-vote comes before the term is raised."""
    made = machine()
    assert made.role == "unattached"

    said = made.due()

    assert made.role == "prospective"
    assert made.epoch == 0
    assert [m.request.pre_vote for m in said if isinstance(m, Call) and isinstance(
        m.request, VoteRequest)] == [True, True]  # fmt: skip


def test_a_follower_that_hears_nothing_for_a_fetch_timeout_asks_for_pre_votes() -> None:
    """5.2: a follower that receives no communication over the election timeout begins one."""
    made = follower()
    deadline = made.raft.deadline_ms() - made.now_ms
    assert 1000 <= deadline <= 1500

    made.tick(deadline - 1)
    assert made.role == "follower"
    made.tick(1)
    assert made.role == "prospective"


def test_a_candidate_raises_its_epoch_votes_for_itself_and_asks_all_others() -> None:
    """5.2: it increments its current term, votes for itself and issues RequestVote in parallel."""
    made = candidate()

    assert made.raft.hard_state.epoch == 1
    assert made.raft.hard_state.voted_for == key(1)
    asked = [
        m.to.id
        for m in made.sent
        if isinstance(m, Call) and isinstance(m.request, VoteRequest) and not m.request.pre_vote
    ]
    assert asked == [2, 3]


@pytest.mark.parametrize(
    ("size", "votes", "wins"),
    [(1, 0, True), (2, 0, False), (2, 1, True), (3, 0, False), (3, 1, True), (4, 1, False),
     (4, 2, True), (5, 1, False), (5, 2, True), (6, 2, False), (6, 3, True), (7, 2, False),
     (7, 3, True)],
)  # fmt: skip
def test_a_candidate_wins_with_a_majority_of_the_whole_cluster(
    size: int, votes: int, wins: bool
) -> None:
    """5.2: votes from a majority of the servers in the full cluster for the same term."""
    if size == 1:
        made = machine(1, (1,))
        made.due()
    else:
        made = candidate(1, tuple(range(1, size + 1)))
    for voter in range(2, votes + 2):
        made.vote_answered(voter)

    assert (made.role == "leader") is wins


def test_a_vote_counts_once() -> None:
    """5.2: each server votes for at most one candidate; its repeated answer adds nothing."""
    made = candidate(1, (1, 2, 3, 4, 5))
    made.vote_answered(2)
    made.vote_answered(2)
    assert made.role == "candidate"


def test_each_voter_votes_once_in_an_epoch_first_come_first_served() -> None:
    """5.2: at most one candidate in a given term, on a first-come-first-served basis."""
    made = machine()

    assert made.ask_vote(2, 1).granted
    assert not made.ask_vote(3, 1).granted
    assert made.ask_vote(2, 1).granted  # the answer may have been lost
    assert made.ask_vote(3, 2).granted  # another epoch, another vote


def test_a_candidate_that_hears_of_the_leader_of_its_epoch_follows_it() -> None:
    """5.2: if the leader's term is at least the candidate's, it recognises it as legitimate."""
    made = candidate()
    made.begin_epoch(2, made.epoch)
    assert (made.role, made.raft.leader_id) == ("follower", 2)


def test_a_candidate_that_hears_of_an_older_leader_stays_one() -> None:
    """5.2: if the term is smaller, it rejects the RPC and continues in candidate state."""
    made = candidate(epoch=3)
    made.begin_epoch(2, 3)
    assert made.role == "candidate"


def test_a_split_vote_ends_with_a_new_try_in_a_new_epoch() -> None:
    """5.2: each candidate times out and starts a new election by incrementing its term."""
    made = candidate()
    made.due()
    assert (made.role, made.epoch) == ("prospective", 1)
    made.vote_answered(2)
    assert (made.role, made.epoch) == ("candidate", 2)


def test_voters_with_one_seed_do_not_split_their_votes_for_ever() -> None:
    """5.2: randomised timeouts; and the same seed everywhere still ends in a leader."""
    for seed in range(5):
        world = cluster(1, 2, 3, seed=seed)
        world.run(5_000)
        assert len(world.leading) == 1


@pytest.mark.parametrize(
    ("ours", "theirs", "granted"),
    [
        pytest.param((1, 3), (1, 3), True, id="equal"),
        pytest.param((1, 3), (1, 4), True, id="longer"),
        pytest.param((1, 3), (1, 2), False, id="shorter"),
        pytest.param((1, 3), (2, 2), True, id="newer-epoch-shorter-log"),
        pytest.param((2, 3), (1, 9), False, id="older-epoch-longer-log"),
        pytest.param((2, 3), (3, 1), True, id="newest"),
    ],
)
@pytest.mark.parametrize("pre_vote", [True, False])
def test_a_vote_goes_only_to_a_log_that_is_at_least_as_up_to_date(
    ours: tuple[int, int], theirs: tuple[int, int], granted: bool, pre_vote: bool
) -> None:
    """5.4.1: later last term wins; with equal terms the longer log."""
    last_epoch, end = ours
    made = machine(log=[0] + [last_epoch] * (end - 1), epoch=5)

    answer = made.ask_vote(
        2, 5 if pre_vote else 6, last_epoch=theirs[0], end=theirs[1], pre_vote=pre_vote
    )

    assert answer.granted is granted


# --- 5.3: replication -----------------------------------------------------------------------------


def test_a_leader_begins_its_reign_with_a_record_of_its_own_and_says_so() -> None:
    """5.2, 8: upon election it tells each server, and commits a blank entry of its term."""
    made = leader(log=[0, 1, 1], epoch=1)

    assert made.raft.ledger.last_epoch == 2
    assert made.raft.ledger.log_end_offset == 4
    told = [
        m.to.id
        for m in made.sent
        if isinstance(m, Call) and isinstance(m.request, BeginEpochRequest)
    ]
    assert told == [2, 3]


def test_it_says_so_again_until_the_voter_fetches() -> None:
    """5.3: the leader retries indefinitely."""
    made = leader()
    made.fetch(2, 1, 0)
    made.sent.clear()
    made.tick(250)
    again = [m for m in made.sent if isinstance(m, Call)]
    assert [m.to.id for m in again] == [3]


def test_a_record_is_committed_when_a_majority_has_it() -> None:
    """5.3: committed once the leader that created the entry has replicated it on a majority."""
    made = serving_leader()
    end = made.raft.ledger.log_end_offset
    made.raft.propose(batch(end, made.epoch), made.now_ms)
    made.drain()
    assert made.raft.high_watermark == end

    made.fetch(3, end + 1, made.epoch)

    assert made.raft.high_watermark == end + 1


def test_committing_a_record_commits_all_before_it() -> None:
    """5.3: this also commits all preceding entries, also of previous leaders."""
    made = leader(log=[0, 1, 1, 2], epoch=2)
    assert made.raft.high_watermark == 1
    made.fetch(2, 5, 3)
    assert made.raft.high_watermark == 5


def test_a_fetch_whose_past_is_not_ours_learns_where_the_logs_part() -> None:
    """5.3: the consistency check; with pulling the leader names an epoch and its end."""
    made = leader(log=[0, 1, 1, 3], epoch=3)

    (reply,) = made.fetch(2, 5, 2)

    assert reply.response.diverging == DivergingEpoch(1, 3)


@pytest.mark.parametrize(
    ("log", "diverging", "ends"),
    [
        pytest.param([0, 1, 1, 2, 2], DivergingEpoch(1, 3), 3, id="cut-to-epoch-end"),
        pytest.param([0, 1, 1, 1, 1], DivergingEpoch(1, 3), 3, id="cut-inside-epoch"),
        pytest.param([0, 1, 3, 3, 3], DivergingEpoch(2, 4), 2, id="epoch-not-held"),
    ],
)
def test_a_follower_cuts_what_contradicts_the_leader(
    log: list[int], diverging: DivergingEpoch, ends: int
) -> None:
    """5.3: conflicting entries in follower logs are overwritten with the leader's."""
    made = follower(log=log, epoch=4)

    made.answered(FetchResponse(made.epoch if made.epoch else 4, 2, 5, diverging=diverging))

    assert made.raft.ledger.log_end_offset == ends
    assert made.raft.ledger.truncations == 1
    (save,) = [r.save for r in made.readies if r.save and r.save.truncate_to is not None]
    assert save.truncate_to == ends


def test_logs_that_parted_for_several_epochs_come_together_in_several_rounds() -> None:
    """5.3, figure 7: each refusal lets the leader bypass all conflicting entries of a term."""
    world = cluster(1, 2, 3)
    world.machines[1] = machine(1, (1, 2, 3), [0, 1, 1, 4, 4, 7, 7], epoch=7)
    world.machines[2] = machine(2, (1, 2, 3), [0, 1, 1, 2, 3, 3, 3], epoch=7)
    world.machines[3] = machine(3, (1, 2, 3), [0, 1, 5, 5, 6, 6], epoch=7)

    world.run(6_000)

    (leading,) = world.leading
    assert leading == 1
    epochs = world.machines[1].raft.ledger.epochs()
    assert world.machines[2].raft.ledger.epochs() == epochs
    assert world.machines[3].raft.ledger.epochs() == epochs
    assert all(m.raft.high_watermark == 8 for m in world.machines.values())


def test_a_repeated_answer_does_not_cut_the_log() -> None:
    """Figure 2: entries are deleted only if an existing one conflicts with a new one."""
    made = follower()
    first = FetchResponse(1, 2, 1, batches=(batch(1, 1, begins=True), batch(2, 1)))
    made.answered(first)
    made.answered(first)
    assert made.raft.ledger.log_end_offset == 3
    assert made.raft.ledger.truncations == 0


def test_a_leader_never_cuts_its_own_log() -> None:
    """5.3, Leader Append-Only."""
    made = leader(log=[0, 1, 1], epoch=1)
    made.fetch(2, 9, 1)
    made.answered(FetchResponse(made.epoch, 2, 4, diverging=DivergingEpoch(0, 1)))
    assert made.raft.ledger.log_end_offset == 4
    assert made.raft.ledger.truncations == 0


def test_a_follower_learns_the_high_watermark_but_not_beyond_its_own_end() -> None:
    """Figure 2: commitIndex = min(leaderCommit, index of last new entry)."""
    made = follower()
    made.answered(FetchResponse(1, 2, 1, 9, batches=(batch(1, 1, begins=True),)))
    assert made.raft.high_watermark == 2


def test_the_high_watermark_never_goes_back() -> None:
    """Figure 2: a delayed answer with a smaller high watermark changes nothing."""
    made = follower()
    made.answered(FetchResponse(1, 2, 1, 3, batches=(batch(1, 1, begins=True), batch(2, 1))))
    made.answered(FetchResponse(1, 2, 3, 2))
    assert made.raft.high_watermark == 3


# --- 5.4: safety ----------------------------------------------------------------------------------


def test_a_new_leader_commits_nothing_until_a_record_of_its_own_epoch() -> None:
    """5.4.2 and figure 8: counting replicas of an older epoch's record is not enough."""
    made = leader(log=[0, 1, 2], epoch=3)
    assert made.epoch == 4

    made.fetch(2, 2, 1)
    made.fetch(3, 3, 2)  # a majority holds all of epoch 2, and exactly up to our EpochStart
    assert made.raft.high_watermark == 1

    made.fetch(3, 4, 4)
    assert made.raft.high_watermark == 4


def test_nobody_is_told_of_a_high_watermark_that_is_not_of_this_epoch() -> None:
    """KAFKA-12619; nothing is exposed while our EpochStart itself is not replicated."""
    made = leader(log=[0, 1, 1], epoch=1)
    (reply,) = made.fetch(2, 3, 1)
    assert reply.response.high_watermark == 0


def test_a_leader_is_announced_only_once_its_own_record_is_committed() -> None:
    """The state machine sees a reign after its EpochStart, and lost ones at once."""
    made = leader()
    assert all(ready.reign is None for ready in made.readies)
    with pytest.raises(NotControllerError):
        made.raft.check_may_propose(made.epoch)

    made.fetch(2, 2, 1)

    (reign,) = [ready.reign for ready in made.readies if ready.reign]
    assert (reign.epoch, reign.since) == (1, 2)
    made.raft.check_may_propose(1)

    made.ask_vote(3, 5)
    assert made.readies[-1].lost_epoch == 1 or any(r.lost_epoch == 1 for r in made.readies)
    with pytest.raises(NotControllerError):
        made.raft.check_may_propose(1)


# --- persistence (figure 2: updated on stable storage before responding) --------------------------


def test_a_vote_is_on_disk_before_it_is_spoken() -> None:
    """Figure 2: currentTerm and votedFor are updated on stable storage before responding."""
    made = machine(saves_at_once=False)
    request = VoteRequest(made.raft.me, key(2), 1, 0, 1, False)
    assert not [m for m in made.step(VoteRequested(request, 1)) if isinstance(m, Reply)]
    saved = [r for r in made.readies if r.hard_state is not None][-1]
    assert saved.hard_state is not None
    assert saved.hard_state.voted_for == key(2)

    (reply,) = made.step(HardStateSaved(saved.hard_state_version))

    assert isinstance(reply, Reply)


def test_a_candidate_asks_nobody_and_counts_no_vote_of_its_own_before_its_vote_is_on_disk() -> None:
    """Figure 2; the single voter too (etcd #14370)."""
    made = machine(1, (1,), saves_at_once=False)
    made.due()
    assert made.role == "candidate"
    made.due()
    assert made.role == "candidate"
    made.step(HardStateSaved(made.readies[-1].hard_state_version))
    assert made.role == "leader"


def test_a_voter_that_voted_keeps_its_vote_through_a_restart() -> None:
    """Figure 2: votedFor persists."""
    made = machine(epoch=3, voted_for=2)
    assert not made.ask_vote(3, 3).granted
    assert made.ask_vote(2, 3).granted


def test_a_follower_acknowledges_only_what_is_on_disk() -> None:
    """Figure 2 (log[] persists before responding): the next fetch waits for the sync."""
    made = follower()
    made.saves_at_once = False
    said = made.answered(FetchResponse(1, 2, 1, batches=(batch(1, 1, begins=True),)))
    assert not [m for m in said if isinstance(m, Fetch)]

    (fetch,) = made.step(Saved(1, 2, 0))

    assert isinstance(fetch, Fetch)
    assert fetch.request.fetch_offset == 2


# --- 8: clients -----------------------------------------------------------------------------------


def test_a_read_waits_for_a_record_of_the_epoch_and_for_a_majority_that_heard_of_it() -> None:
    """Section 8: a leader checks that it was not deposed, and commits a no-op, before a read."""
    made = leader()
    read = made.raft.read(made.now_ms)
    made.drain()
    made.fetch(2, 1, 0, round=read)  # heard of it, but nothing of our epoch is committed
    assert not any(ready.confirmed_reads for ready in made.readies)

    made.fetch(2, 2, 1, round=read)

    assert [ready.confirmed_reads for ready in made.readies if ready.confirmed_reads] == [
        ((read, 2),)
    ]


def test_only_the_leader_reads() -> None:
    """Section 8: reads go through the leader."""
    with pytest.raises(NotControllerError):
        follower().raft.read(0)
