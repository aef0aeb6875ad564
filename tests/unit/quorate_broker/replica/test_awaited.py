"""The replicas that are about to enter the ISR: how long the high watermark waits, and how often.

The leader is 1, its ISR is (1, 2), and 3 fetches from outside.
"""

from __future__ import annotations

from quorate_broker.replica.awaited import AwaitedReplicas, Wait, wait_ms
from quorate_broker.replica.leader import Leader, ReplicaStream

LAG = 10_000
ROUND = 60


def leader_of(*isr: int) -> Leader:
    return Leader.begin(
        broker_id=1,
        leader_epoch=5,
        log_end_offset=0,
        own_end=0,
        high_watermark=0,
        partition_epoch=7,
        isr=isr,
        replicas=(1, 2, 3, 4),
        min_isr=1,
        lag_ms=LAG,
        now_ms=0,
    )


def stream_of(replica: int, *, epoch: int = 100) -> ReplicaStream:
    return ReplicaStream(replica, epoch + replica, b"i", 1, 0)


def eligible(broker_id: int) -> int:
    return 100 + broker_id


def commit(leader: Leader, end: int, member: ReplicaStream, now_ms: int) -> int:
    """Append up to `end`, let the other member of the ISR have all, return what is committed."""
    leader.appended(end)
    leader.saved(end)
    leader.record_fetch(member, end, now_ms)
    leader.advance()
    return leader.high_watermark


def fetch(leader: Leader, stream: ReplicaStream, offset: int, now_ms: int) -> Wait | None:
    assert leader.record_fetch(stream, offset, now_ms)
    wait = leader.await_entry(stream.replica_id, now_ms)
    leader.advance()
    return wait


def awaiting() -> tuple[Leader, ReplicaStream, ReplicaStream, Wait]:
    """Return a leader that waits at 20 for replica 3, which has 10, since 1060; and the streams."""
    leader, two, three = leader_of(1, 2), stream_of(2), stream_of(3)
    assert commit(leader, 10, two, 0) == 10
    assert fetch(leader, three, 0, 1_000) is None
    assert fetch(leader, stream_of(4), 0, 1_000) is None
    assert commit(leader, 20, two, 1_010) == 20
    wait = fetch(leader, three, 10, 1_000 + ROUND)
    assert wait is not None
    assert leader.waits_for(3), "it is sent its records as one that is in sync"
    return leader, two, three, wait


def test_the_high_watermark_waits_for_a_replica_that_keeps_up_until_it_may_enter() -> None:
    leader, two, three, wait = awaiting()
    assert wait.ms == wait_ms(ROUND, LAG)

    assert commit(leader, 30, two, 1_070) == 20, "it waits"
    assert leader.propose(1_080, 101, eligible) is None
    fetch(leader, three, 20, 1_120)
    assert commit(leader, 40, two, 1_121) == 20, "until the proposal is made"

    proposal = leader.propose(1_122, 101, eligible)
    assert proposal is not None
    assert proposal.isr == (1, 2, 3)
    assert not leader.awaited.broker_ids
    assert commit(leader, 50, two, 1_130) == 20, "a proposed member counts"


def test_it_never_goes_back_to_the_end_of_the_replica_that_it_waits_for() -> None:
    leader, *_ = awaiting()

    assert leader.replicas[3].log_end_offset == 10
    assert not leader.advance()
    assert leader.high_watermark == 20


def test_a_replica_that_does_not_keep_up_is_not_waited_for() -> None:
    leader, two, three = leader_of(1, 2), stream_of(2), stream_of(3)
    commit(leader, 10, two, 0)
    fetch(leader, three, 0, 1_000)
    commit(leader, 20, two, 1_010)

    assert fetch(leader, three, 9, 1_000 + ROUND) is None
    assert commit(leader, 30, two, 1_070) == 30


def test_a_replica_whose_round_takes_too_long_is_not_waited_for() -> None:
    leader, two, three = leader_of(1, 2), stream_of(2), stream_of(3)
    commit(leader, 10, two, 0)
    fetch(leader, three, 0, 1_000)
    commit(leader, 20, two, 1_010)

    assert fetch(leader, three, 10, 1_000 + LAG // 4) is None
    assert commit(leader, 30, two, 4_000) == 30


def test_the_wait_for_a_replica_that_dies_ends_and_comes_once_in_the_lag_time() -> None:
    leader, two, three, wait = awaiting()
    assert commit(leader, 30, two, 1_070) == 20

    leader.awaited.over(wait)
    assert leader.advance()
    assert leader.high_watermark == 30

    fetch(leader, three, 20, 2_000)
    commit(leader, 40, two, 2_001)
    assert fetch(leader, three, 30, 2_060) is None, "it had its wait"
    assert commit(leader, 50, two, 2_070) == 50
    later = 1_000 + ROUND + LAG
    fetch(leader, three, 40, later - ROUND)
    commit(leader, 60, two, later - 1)
    assert fetch(leader, three, 50, later) is not None


def test_the_wait_ends_when_the_replica_leaves_begins_again_or_is_removed() -> None:
    leader, two, three, _ = awaiting()
    assert leader.follower_left(three)
    assert commit(leader, 30, two, 1_070) == 30

    leader, two, *_ = awaiting()
    assert leader.record_fetch(stream_of(3, epoch=200), 10, 1_065)
    assert commit(leader, 30, two, 1_070) == 30

    leader, two, *_ = awaiting()
    assert leader.update(8, (1, 2), (1, 2), 1_065)
    assert commit(leader, 30, two, 1_070) == 30


def test_a_refused_replica_is_not_waited_for_again_at_once() -> None:
    leader, two, three, _ = awaiting()
    fetch(leader, three, 20, 1_120)
    proposal = leader.propose(1_121, 101, eligible)
    assert proposal is not None

    leader.in_sync.refused(proposal)

    commit(leader, 30, two, 1_130)
    assert fetch(leader, three, 20, 1_180) is None
    assert commit(leader, 40, two, 1_190) == 40


def test_no_wait_begins_while_a_proposal_is_undecided() -> None:
    """The replica could not be proposed in time. It may try again after the decision."""
    leader, two, three, _ = awaiting()
    four = stream_of(4)
    assert fetch(leader, four, 10, 1_065) is not None, "the high watermark waits for both"
    assert commit(leader, 30, two, 1_070) == 20
    fetch(leader, three, 30, 1_120)
    proposal = leader.propose(1_121, 101, eligible)
    assert proposal is not None
    assert proposal.isr == (1, 2, 3)
    assert not leader.awaited.broker_ids

    assert fetch(leader, four, 20, 1_125) is None
    assert leader.update(8, (1, 2, 3), (1, 2, 3, 4), 1_140)
    assert fetch(leader, four, 30, 1_190) is not None


def test_an_end_of_an_earlier_wait_ends_no_later_one() -> None:
    awaited = AwaitedReplicas(LAG)
    first = awaited.begin(3, ROUND, 0)
    assert first is not None
    awaited.leave(3)
    assert awaited.begin(3, ROUND, LAG) is not None

    awaited.over(first)

    assert list(awaited.broker_ids) == [3]
