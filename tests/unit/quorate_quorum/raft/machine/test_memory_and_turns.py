"""Raft: memory that was removed, leadership that goes round, fetches without an answer."""

from __future__ import annotations

from quorate_quorum.raft.machine.messages import FetchResponse, Refusal
from quorate_quorum.raft.machine.ready import FetchReply
from tests.harness.raft_machines import follower, machine, serving_leader


def test_a_voter_whose_log_was_removed_elects_no_history() -> None:
    """Its identity is still there, its metadata log is not: it may have held what was committed."""
    made = machine(log=(), epoch=3)
    assert not made.ask_vote(2, 4, last_epoch=2, end=9).granted
    assert made.raft.hard_state.is_behind


def test_a_later_successor_says_too_that_leadership_was_handed_over_for_silence() -> None:
    """Else its reign would hand over again for silence, and dead brokers stay unfenced."""
    made = follower()
    made.answered(FetchResponse(1, 2, 1))
    made.end_epoch(2, 1, 3, 1, silence=True)
    made.due()
    assert made.role == "prospective"
    made.vote_answered(3)
    assert made.role == "candidate"
    made.vote_answered(3)
    made.fetch(3, 2, 2)
    (reign,) = [r.reign for r in made.readies if r.reign]
    assert reign.handed_over_for_silence


def test_a_leader_that_nobody_succeeds_reigns_again_as_one_handed_over() -> None:
    made = serving_leader()
    made.raft.resign(made.now_ms, reason="silence", for_silence=True)
    made.drain()
    made.due()
    made.vote_answered(3)
    assert made.role == "candidate"
    made.vote_answered(3)
    made.readies.clear()
    end = made.raft.ledger.log_end_offset
    made.fetch(3, end, made.epoch)
    (reign,) = [r.reign for r in made.readies if r.reign]
    assert reign.handed_over_for_silence


def test_a_fetch_that_a_newer_stream_supersedes_is_answered() -> None:
    made = serving_leader()
    end = made.raft.ledger.log_end_offset
    round_now = made.raft.state.round
    made.fetch(2, end, made.epoch, number=1, high_watermark=end, round=round_now)
    made.sent.clear()
    made.fetch(2, end, made.epoch, number=2, high_watermark=end, round=round_now)
    refused = [
        m
        for m in made.sent
        if isinstance(m, FetchReply) and m.response.refusal is Refusal.OLD_STREAM
    ]
    assert len(refused) == 1
