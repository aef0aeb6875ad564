"""How a leader resigns and the voter that it names succeeds it."""

from __future__ import annotations

from quorate_quorum.raft.machine.messages import (
    EndEpochRequest,
    Refusal,
    VoteRequest,
)
from quorate_quorum.raft.machine.ready import Call, FetchReply
from tests.harness.raft_machines import (
    cluster,
    heard_follower,
    leader,
)


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
    first, second = heard_follower(), heard_follower()
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
    made = heard_follower()
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
