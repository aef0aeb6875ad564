"""The Leader machine: the high watermark, the ISR, one proposal at a time."""

from __future__ import annotations

import random

import pytest

from quorate_broker.replica.awaited import Wait
from quorate_broker.replica.in_sync_replicas import Proposal
from quorate_broker.replica.leader import Leader, ReplicaStream
from quorate_quorum.metadata.history import Cause
from quorate_quorum.v1 import events_pb2 as ev

LAG = 10_000


def leader_of(*isr: int, min_isr: int = 2, end: int = 0) -> Leader:
    return Leader.begin(
        broker_id=1,
        leader_epoch=5,
        log_end_offset=end,
        own_end=end,
        high_watermark=0,
        partition_epoch=7,
        isr=isr,
        replicas=(1, 2, 3),
        min_isr=min_isr,
        lag_ms=LAG,
        now_ms=0,
    )


def stream_of(replica: int, *, epoch: int = 100, number: int = 1, at: int = 0) -> ReplicaStream:
    return ReplicaStream(replica, epoch + replica, b"i", number, at)


def append(leader: Leader, end: int) -> None:
    leader.appended(end)
    leader.saved(end)


def fetch(leader: Leader, stream: ReplicaStream, offset: int, now_ms: int = 0) -> bool:
    stream.last_request_ms = now_ms
    if not leader.record_fetch(stream, offset, now_ms):
        return False
    return leader.advance()


def eligible(broker_id: int) -> int:
    return 100 + broker_id


def test_the_high_watermark_is_the_least_end_of_the_isr() -> None:
    leader = leader_of(1, 2, 3)
    append(leader, 10)

    assert not fetch(leader, stream_of(2), 10)
    assert leader.high_watermark == 0
    assert fetch(leader, stream_of(3), 6)
    assert leader.high_watermark == 6


def test_the_high_watermark_never_goes_back() -> None:
    leader = leader_of(1, 2)
    append(leader, 10)
    two = stream_of(2)
    fetch(leader, two, 10)

    fetch(leader, two, 4)

    assert leader.high_watermark == 10


def test_with_flush_on_ack_the_leader_counts_itself_when_it_has_synced() -> None:
    leader = leader_of(1, 2)
    leader.appended(10)
    fetch(leader, stream_of(2), 10)
    assert leader.high_watermark == 0

    leader.saved(10)

    assert leader.advance()


def test_the_high_watermark_stands_while_the_isr_is_below_min_isr() -> None:
    leader = leader_of(1, min_isr=2)
    append(leader, 10)

    assert not leader.advance()
    assert not leader.has_enough_replicas


def test_a_new_leader_knows_its_high_watermark_once_it_reached_the_start_of_its_epoch() -> None:
    leader = leader_of(1, 2, end=10)
    assert not leader.knows_high_watermark

    fetch(leader, stream_of(2), 10)

    assert leader.knows_high_watermark
    assert leader.is_confirmed


def test_a_proposed_member_counts_before_it_is_committed() -> None:
    """The controller may already have committed the proposal, and may elect that member."""
    leader = leader_of(1, 2)
    append(leader, 10)
    two, three = stream_of(2), stream_of(3)
    fetch(leader, two, 10)
    fetch(leader, three, 10)
    proposal = leader.propose(0, 101, eligible)
    assert proposal is not None
    assert proposal.members == ((1, 101), (2, 102), (3, 103))

    append(leader, 20)
    fetch(leader, two, 20)
    assert leader.high_watermark == 10
    leader.in_sync.lost(proposal, 0)
    assert not leader.advance()
    assert leader.propose(500, 101, eligible) is proposal

    assert leader.update(8, (1, 2, 3), (1, 2, 3), 600)
    assert leader.isr == (1, 2, 3)
    assert not leader.advance()


def test_a_member_that_is_proposed_out_counts_until_that_is_committed() -> None:
    leader = leader_of(1, 2, 3)
    append(leader, 10)
    two = stream_of(2)
    fetch(leader, two, 10, LAG)
    proposal = leader.propose(LAG + 1, 101, eligible)
    assert proposal is not None
    assert proposal.isr == (1, 2)
    assert not leader.advance()

    assert leader.update(8, (1, 2), (1, 2, 3), LAG + 2)

    assert leader.advance()
    assert leader.high_watermark == 10


def test_a_refused_member_counts_on_if_an_earlier_try_was_lost() -> None:
    """The lost try may still be under way; only a new partition_epoch, or time, ends it."""
    leader = leader_of(1, 2)
    two, three = stream_of(2), stream_of(3)
    fetch(leader, two, 0)
    fetch(leader, three, 0)
    proposal = leader.propose(0, 101, eligible)
    assert proposal is not None
    leader.in_sync.lost(proposal, 0)
    assert leader.propose(100, 101, eligible) is proposal
    leader.in_sync.refused(proposal)
    append(leader, 10)
    fetch(leader, two, 10, 200)
    assert leader.high_watermark == 0

    two.last_request_ms = 2 * LAG
    assert leader.propose(2 * LAG + 1, 101, lambda _: -1) is None
    fetch(leader, two, 10, 2 * LAG + 1)

    assert leader.high_watermark == 10


def test_a_refused_proposal_reverts_to_the_committed_isr() -> None:
    leader = leader_of(1, 2)
    two, three = stream_of(2), stream_of(3)
    fetch(leader, two, 0)
    fetch(leader, three, 0)
    proposal = leader.propose(0, 101, eligible)
    assert proposal is not None
    append(leader, 10)
    fetch(leader, two, 10)

    leader.in_sync.refused(proposal)

    assert leader.in_sync.maximal == (1, 2)
    assert leader.advance()


def test_one_proposal_at_a_time() -> None:
    leader = leader_of(1, 2)
    fetch(leader, stream_of(2), 0)
    fetch(leader, stream_of(3), 0)

    assert leader.propose(0, 101, eligible) is not None
    assert leader.propose(0, 101, eligible) is None


def test_an_image_ends_the_proposal_that_it_decides() -> None:
    """KAFKA-14144: whether it was accepted, or another change of the partition came first."""
    for isr in ((1, 2, 3), (1, 2)):
        leader = leader_of(1, 2)
        fetch(leader, stream_of(2), 0)
        fetch(leader, stream_of(3), 0)
        proposal = leader.propose(0, 101, eligible)
        assert proposal is not None
        leader.in_sync.lost(proposal, 0)

        assert leader.update(8, isr, (1, 2, 3), 1)

        assert leader.in_sync.maximal == isr
        following = leader.propose(1, 101, eligible)
        assert (following is None) == (isr == (1, 2, 3))
        assert following is None or following.partition_epoch == 8


def test_an_older_image_changes_nothing() -> None:
    leader = leader_of(1, 2)

    assert not leader.update(6, (1,), (1, 2, 3), 0)
    assert leader.isr == (1, 2)


def test_a_follower_enters_at_the_high_watermark_and_the_start_of_the_epoch() -> None:
    leader = leader_of(1, 2, end=10)
    three = stream_of(3)
    fetch(leader, three, 9)
    assert leader.propose(0, 101, eligible) is None

    fetch(leader, three, 10)

    proposal = leader.propose(0, 101, eligible)
    assert proposal is not None
    assert proposal.isr == (1, 2, 3)


def test_only_the_registration_that_fetched_may_enter() -> None:
    """KIP-903: a broker that registered again has to fetch again first."""
    leader = leader_of(1, 2)
    fetch(leader, stream_of(3, epoch=50), 0)

    assert leader.propose(0, 101, eligible) is None


def test_a_fetch_of_an_older_registration_or_stream_moves_nothing() -> None:
    """KAFKA-15221: it may arrive after the new one's first fetch."""
    leader = leader_of(1, 2, 3)
    append(leader, 10)
    new = stream_of(3, epoch=200, number=1)
    fetch(leader, new, 2)

    assert not leader.record_fetch(stream_of(3, epoch=100, number=9), 10, 5)
    newer = stream_of(3, epoch=200, number=2)
    assert leader.record_fetch(newer, 3, 6)
    assert not leader.record_fetch(new, 10, 7)

    assert leader.replicas[3].log_end_offset == 3


def test_a_position_beyond_our_end_moves_nothing() -> None:
    leader = leader_of(1, 2)
    append(leader, 10)

    assert not leader.record_fetch(stream_of(2), 11, 0)
    assert not leader.record_fetch(stream_of(2), -1, 0)
    assert not leader.record_fetch(stream_of(9), 5, 0)


def test_a_member_that_lost_what_was_committed_leaves_at_once() -> None:
    leader = leader_of(1, 2, 3)
    append(leader, 10)
    for stream in (stream_of(2), stream_of(3)):
        fetch(leader, stream, 10)

    fetch(leader, stream_of(3, epoch=200), 0, 5)

    proposal = leader.propose(10, 101, eligible)
    assert proposal is not None
    assert proposal.isr == (1, 2)


@pytest.mark.parametrize(
    ("offset", "out"), [(10, False), (9, True)], ids=["caught up", "always one behind"]
)
def test_caught_up_is_measured_by_what_the_leader_had_at_the_last_fetch(
    offset: int, out: bool
) -> None:
    """Kafka's rule: reaching the leader's end of the previous fetch is being caught up then."""
    leader = leader_of(1, 2)
    two = stream_of(2)
    append(leader, 10)
    fetch(leader, two, 0, 1_000)
    append(leader, 20)
    fetch(leader, two, offset, LAG + 500)

    proposal = leader.propose(LAG + 500, 101, eligible)

    assert (proposal is not None) is out


def test_an_idle_follower_is_as_fresh_as_its_streams_last_request() -> None:
    leader = leader_of(1, 2)
    two = stream_of(2)
    fetch(leader, two, 0, 0)

    two.last_request_ms = 9_000
    assert leader.propose(15_000, 101, eligible) is None
    append(leader, 1)
    assert leader.propose(18_999, 101, eligible) is None

    two.last_request_ms = 19_500
    assert leader.propose(19_500, 101, eligible) is not None


def test_the_property_holds_over_random_schedules() -> None:
    """What the controller committed is always within the leader's maximal ISR, and the high
    watermark never passes a member of it, whatever is lost, repeated or late."""
    for seed in range(200):
        run_schedule(random.Random(seed), seed)


def run_schedule(chance: random.Random, seed: int) -> None:
    leader = leader_of(1, 2, 3, min_isr=1)
    streams = {broker_id: stream_of(broker_id) for broker_id in (2, 3)}
    ends = {2: 0, 3: 0}
    committed: tuple[int, ...] = (1, 2, 3)
    epoch, now = 7, 0
    under_way: list[tuple[Proposal, int]] = []
    waits: list[Wait] = []
    for _ in range(120):
        now += chance.choice((1, 50, LAG // 2))
        before = leader.high_watermark
        match chance.randrange(7):
            case 0:
                append(leader, leader.log_end_offset + chance.randrange(1, 4))
                leader.advance()
            case 1:
                who = chance.choice((2, 3))
                ends[who] = chance.randint(ends[who], leader.log_end_offset)
                fetch(leader, streams[who], ends[who], now)
                wait = leader.await_entry(who, now)
                if wait is not None:
                    waits.append(wait)
            case 2:
                proposal = leader.propose(now, 101, eligible)
                if proposal is not None:
                    under_way.append((proposal, now))
            case 3 if under_way:
                proposal, _ = under_way.pop(chance.randrange(len(under_way)))
                if proposal.partition_epoch != epoch:
                    leader.in_sync.lost(proposal, now)
                elif chance.random() < 0.3:
                    leader.in_sync.refused(proposal)
                else:
                    committed, epoch = proposal.isr, epoch + 1
                    if chance.random() < 0.5:
                        leader.update(epoch, committed, (1, 2, 3), now)
                        leader.advance()
                    else:
                        leader.in_sync.lost(proposal, now)
            case 4:
                leader.update(epoch, committed, (1, 2, 3), now)
                leader.advance()
            case 5 if waits:
                leader.awaited.over(waits.pop(0))
                leader.advance()
            case _ if under_way:
                proposal, _ = under_way[-1]
                leader.in_sync.lost(proposal, now)
                under_way = [entry for entry in under_way if now - entry[1] <= LAG]
        assert set(committed) <= set(leader.in_sync.maximal), seed
        assert leader.high_watermark >= before, seed
        for broker_id in committed:
            held = leader.log_end_offset if broker_id == 1 else ends[broker_id]
            assert held >= leader.high_watermark, seed


def test_what_an_old_incarnation_asked_for_says_nothing_of_the_new_one() -> None:
    """KAFKA-15221: the new incarnation may have less than the old one that was caught up."""
    leader = leader_of(1, 2, 3)
    append(leader, 10)
    fetch(leader, stream_of(2), 0, now_ms=5_000)
    append(leader, 20)

    fetch(leader, stream_of(2, epoch=200), 10, now_ms=9_000)

    assert leader.replicas[2].caught_up_ms < 5_000


def test_a_follower_that_leaves_a_partition_out_of_its_stream_is_out_of_sync_at_once() -> None:
    """Its stream goes on for other partitions: those requests prove nothing for this one."""
    leader = leader_of(1, 2, 3)
    append(leader, 10)
    second, third = stream_of(2), stream_of(3)
    fetch(leader, second, 10)
    fetch(leader, third, 10)
    assert leader.propose(1, 101, eligible) is None

    assert not leader.follower_left(stream_of(3, number=2)), "it never came on that stream"
    assert leader.follower_left(third)
    assert not leader.follower_left(third)
    third.last_request_ms = second.last_request_ms = 5
    proposal = leader.propose(5, 101, eligible)
    assert proposal is not None
    assert proposal.isr == (1, 2)
    leader.update(8, (1, 2), (1, 2, 3), 5)
    assert leader.propose(6, 101, eligible) is None

    fetch(leader, third, 10, now_ms=7)
    back = leader.propose(7, 101, eligible)
    assert back is not None
    assert back.isr == (1, 2, 3)


@pytest.mark.parametrize(
    ("what", "cause"),
    [
        ("lags", Cause(ev.CAUSE_KIND_FELL_BEHIND, 3, ms=LAG + 1, records=90)),
        ("is silent", Cause(ev.CAUSE_KIND_NOT_FETCHING, 3, ms=LAG + 1, records=90)),
        ("was never heard", Cause(ev.CAUSE_KIND_NOT_FETCHING, 3, ms=LAG + 1, records=100)),
        ("left", Cause(ev.CAUSE_KIND_REPLICA_LEFT, 3)),
        ("lost records", Cause(ev.CAUSE_KIND_LOST_RECORDS, 3, records=6)),
    ],
)
def test_a_proposal_says_why_a_replica_leaves(what: str, cause: Cause) -> None:
    leader = leader_of(1, 2, 3)
    append(leader, 100)
    two, three = stream_of(2), stream_of(3)
    if what == "lost records":
        leader.record_fetch(three, 100, 0)
    fetch(leader, two, 100)
    now_ms = LAG + 1
    if what != "was never heard":
        fetch(leader, three, 94 if what == "lost records" else 10)
    two.last_request_ms = now_ms
    if what in ("lags", "left"):
        fetch(leader, three, 10, now_ms)
    if what == "left":
        leader.follower_left(three)

    proposal = leader.propose(now_ms, 101, eligible)

    assert proposal is not None
    assert (proposal.isr, proposal.causes) == ((1, 2), (cause,))


def test_a_proposal_says_that_a_replica_has_caught_up() -> None:
    leader = leader_of(1, 2)
    append(leader, 10)
    fetch(leader, stream_of(2), 10)
    fetch(leader, stream_of(3), 10)

    proposal = leader.propose(0, 101, eligible)

    assert proposal is not None
    assert proposal.causes == (Cause(ev.CAUSE_KIND_CAUGHT_UP, 3),)
