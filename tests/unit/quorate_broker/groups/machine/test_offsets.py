"""Committed offsets: who may commit what, what is read back, what is forgotten and when."""

from __future__ import annotations

import pytest

from quorate.errors import (
    FencedMemberEpochError,
    GroupSubscribedToTopicError,
    InvalidPartitionsError,
    NonEmptyGroupError,
    OffsetMetadataTooLargeError,
    OverloadedError,
    QuorateError,
    StaleMemberEpochError,
    UnknownMemberIdError,
    UnknownTopicError,
)
from quorate_broker.groups.machine import shard
from quorate_broker.groups.machine.values import FetchOffsets, LogRecord
from quorate_broker.groups.records.keys import OffsetKey, encode_key
from quorate_broker.groups.records.values import OffsetValue, Partition
from tests.harness.group_desk import GROUP, Desk, Member

MINUTE_MS = 60_000


def desk(**config: int) -> Desk:
    return Desk({"orders": 6, "bills": 2}, **config)


def one(d: Desk, number: int = 0, topic: str = "orders") -> Partition:
    (partition,) = d.of(topic, number)
    return partition


def why(
    d: Desk, partition: Partition, offset: int | None, member: Member | None = None
) -> QuorateError:
    """Return why an offset is refused."""
    return d.commit({partition: offset}, member).refused[partition]


def test_a_member_commits_and_all_is_read_back_as_it_was_committed() -> None:
    d = desk()
    a = d.joined("a", "orders")
    d.settle(a)
    assert d.commit({one(d): 7}, a, metadata="note").refused == {}
    stored = d.every_offset()[one(d)]
    assert (stored.offset, stored.leader_epoch, stored.metadata) == (7, 3, "note")
    assert stored.committed_at_ms == d.wall_ms
    assert d.committed(one(d), one(d, 1)) == [7, None]


def test_a_caller_that_is_no_member_commits_only_while_the_group_has_no_members() -> None:
    d = desk()
    d.commit({one(d): 3})
    a = d.joined("a", "orders")
    d.settle(a)
    with pytest.raises(NonEmptyGroupError, match="1 members"):
        d.commit({one(d): 5})
    a.leave()
    d.commit({one(d): 5})
    assert d.committed(one(d)) == [5]


def test_offsets_of_topics_that_no_member_reads_are_forgotten_while_the_group_has_members() -> None:
    d = desk()
    d.commit({one(d): 3, one(d, topic="bills"): 4})
    a = d.joined("a", "orders")
    d.settle(a)
    assert isinstance(why(d, one(d), None), GroupSubscribedToTopicError)
    assert d.commit({one(d, topic="bills"): None}).refused == {}
    assert d.committed(one(d), one(d, topic="bills")) == [3, None]
    with pytest.raises(NonEmptyGroupError):
        d.commit({one(d, topic="bills"): None, one(d, 1, topic="bills"): 5})
    a.leave()
    assert d.commit({one(d): None}).refused == {}


def first_counts(d: Desk) -> dict[int, int]:
    """Return, by partition of a topic, how many partitions the topic had at the first commit."""
    stored = d.every_offset()
    return {key[1]: stored[key].partitions_at_first_commit for key in sorted(stored)}


def test_an_offset_tells_how_many_partitions_the_topic_had_at_its_first_commit() -> None:
    d = desk()
    d.commit({one(d): 3})
    d.grow("orders", 8)
    d.commit({one(d): 5, one(d, 1): 5})
    assert first_counts(d) == {0: 6, 1: 8}
    d.fail_over(d.compacted())
    assert first_counts(d) == {0: 6, 1: 8}


def test_the_first_commit_after_an_offset_was_forgotten_is_a_first_one() -> None:
    d = desk()
    d.commit({one(d): 3})
    d.grow("orders", 8)
    d.commit({one(d): None})
    d.commit({one(d): 5})
    assert first_counts(d) == {0: 8}


def test_the_first_commit_of_a_topic_made_again_is_a_first_one() -> None:
    d = desk(cleanup_records_max=1)
    d.commit(dict.fromkeys(d.of("orders"), 5))
    d.delete("orders")
    d.create("orders", partitions=7)
    # Not all of the old ones are forgotten yet.
    left = max(first_counts(d))
    d.commit({one(d, left): 1})
    assert first_counts(d)[left] == 7


def test_the_first_commit_that_an_older_program_did_not_note_is_the_next_one() -> None:
    d = desk()
    (topic_id, _) = one(d)
    key, old = OffsetKey(GROUP, "orders", 0), OffsetValue(3, -1, "", d.wall_ms, topic_id)
    d.fail_over([LogRecord(encode_key(key), old.encode())])
    assert first_counts(d) == {0: 0}
    d.commit({one(d): 5})
    d.grow("orders", 8)
    d.commit({one(d): 7})
    assert first_counts(d) == {0: 6}


def test_a_commit_of_an_unknown_member_is_refused() -> None:
    d = desk()
    stranger = d.member("x", "orders")
    with pytest.raises(UnknownMemberIdError):
        d.commit({one(d): 5}, stranger)
    d.joined("a", "orders")
    with pytest.raises(UnknownMemberIdError):
        d.commit({one(d): 5}, stranger)


def test_a_commit_with_an_epoch_ahead_is_fenced() -> None:
    d = desk()
    a = d.joined("a", "orders")
    a.epoch += 1
    with pytest.raises(FencedMemberEpochError):
        d.commit({one(d): 5}, a)


def test_a_member_commits_what_it_gives_back_until_it_has() -> None:
    d = desk()
    a = d.joined("a", "orders")
    d.settle(a)
    b = d.joined("b", "orders")
    d.run(1_000)
    a.take_pushes()
    assert d.commit(dict.fromkeys(d.of("orders"), 9), a).refused == {}
    d.settle(a, b)
    assert d.commit(dict.fromkeys(a.owned, 10), a).refused == {}


def test_a_late_commit_does_not_undo_that_of_the_next_owner() -> None:
    d = desk()
    a = d.joined("a", "orders")
    d.settle(a)
    old = a.epoch
    b = d.joined("b", "orders")
    d.settle(a, b)
    moved = min(b.owned)
    d.commit({moved: 20}, b)
    a.epoch = old
    assert isinstance(why(d, moved, 10, a), StaleMemberEpochError)
    assert d.committed(moved) == [20]


def test_a_late_commit_does_not_pass_because_the_partition_came_back() -> None:
    d = desk()
    a = d.joined("a", "orders")
    d.settle(a)
    old = a.epoch
    b = d.joined("b", "orders")
    d.settle(a, b)
    moved = min(b.owned)
    d.commit({moved: 20}, b)
    b.leave()
    d.settle(a)
    assert moved in a.owned
    a.epoch = old
    assert isinstance(why(d, moved, 10, a), StaleMemberEpochError)


def test_a_commit_on_its_way_while_the_epoch_grew_counts_for_what_the_member_kept() -> None:
    d = desk()
    a = d.joined("a", "orders")
    d.settle(a)
    old = a.epoch
    b = d.joined("b", "orders")
    d.settle(a, b)
    a.epoch = old
    assert d.commit(dict.fromkeys(a.owned, 8), a).refused == {}


def test_a_commit_for_a_partition_of_another_member_is_refused_and_the_rest_is_not() -> None:
    d = desk()
    a, b = d.joined("a", "orders"), d.joined("b", "orders")
    d.settle(a, b)
    mine, theirs = min(a.owned), min(b.owned)
    refused = d.commit({mine: 4, theirs: 5}, a).refused
    assert [*refused] == [theirs]
    assert isinstance(refused[theirs], FencedMemberEpochError)
    assert d.committed(mine, theirs) == [4, None]


@pytest.mark.parametrize(
    ("number", "error"), [(-1, InvalidPartitionsError), (6, UnknownTopicError)]
)
def test_a_commit_for_an_impossible_partition_is_refused(
    number: int, error: type[QuorateError]
) -> None:
    d = desk()
    a = d.joined("a", "orders")
    d.settle(a)
    assert isinstance(why(d, one(d, number), 0, a), error)


#: Kafka clients commit -1 and -2, too, and have a meaning of their own for them.
ANY_OFFSETS = (-(2**63), -1001, -2, -1, 0, 2**63 - 1)


@pytest.mark.parametrize("is_member", [True, False])
def test_every_offset_of_64_bits_is_stored_and_outlives_a_fail_over(is_member: bool) -> None:
    d = desk()
    a = d.joined("a", "orders") if is_member else None
    if a is not None:
        d.settle(a)
    offsets = dict(zip(d.of("orders"), ANY_OFFSETS, strict=True))
    assert d.commit(offsets, a).refused == {}
    for _ in range(2):
        assert d.committed(*offsets) == [*ANY_OFFSETS]
        assert {key: value.offset for key, value in d.every_offset().items()} == offsets
        d.fail_over(d.compacted())


def test_a_negative_offset_expires_like_any_other() -> None:
    d = desk(offsets_retention_ms=60 * MINUTE_MS, offsets_check_interval_ms=MINUTE_MS)
    d.commit({one(d): -2, one(d, 1): -1})
    d.run(59 * MINUTE_MS)
    assert d.committed(one(d), one(d, 1)) == [-2, -1]
    d.run(3 * MINUTE_MS)
    assert d.committed(one(d), one(d, 1)) == [None, None]
    assert d.take(d.machine.list_groups()) == ()


def test_a_commit_for_an_unknown_topic_is_refused() -> None:
    d = desk()
    assert isinstance(why(d, (b"x" * 16, 0), 5), UnknownTopicError)
    # The group that was begun for it is not there.
    assert d.take(d.machine.list_groups()) == ()


def test_metadata_has_a_bound() -> None:
    d = desk()
    assert d.commit({one(d): 5}, metadata="m" * 4_096).refused == {}
    refused = d.commit({one(d): 6}, metadata="ü" * 2_049).refused
    assert isinstance(refused[one(d)], OffsetMetadataTooLargeError)
    assert d.committed(one(d)) == [5]


def test_commits_make_no_more_groups_than_there_may_be() -> None:
    d = desk(groups_max=1)
    d.commit({one(d): 5})
    with pytest.raises(OverloadedError):
        d.commit({one(d): 5}, group_id="other")


def test_an_administrator_takes_an_offset_away() -> None:
    d = desk()
    d.commit({one(d): 5, one(d, 1): 6})
    d.commit({one(d): None})
    assert d.committed(one(d), one(d, 1)) == [None, 6]
    d.commit({one(d, 1): None})
    assert d.take(d.machine.list_groups()) == ()


def test_what_a_group_that_is_not_there_has_committed_is_nothing() -> None:
    d = desk()
    assert d.committed(one(d)) == [None]
    assert d.every_offset() == {}


def test_a_member_reads_offsets_only_with_its_present_epoch() -> None:
    d = desk()
    a = d.joined("a", "orders")
    for epoch, error in ((a.epoch - 1, StaleMemberEpochError), (9, FencedMemberEpochError)):
        request = FetchOffsets(GROUP, [one(d)], "a", epoch)
        with pytest.raises(error):
            d.take(d.machine.fetch_offsets(request))
    with pytest.raises(UnknownMemberIdError):
        d.take(d.machine.fetch_offsets(FetchOffsets(GROUP, [one(d)], "x", 1)))
    assert d.take(d.machine.fetch_offsets(FetchOffsets(GROUP, [one(d)], "a", a.epoch)))


# Topics that go and come.


def test_the_offsets_of_a_deleted_topic_are_forgotten() -> None:
    d = desk()
    d.commit({one(d): 5, one(d, 0, "bills"): 6})
    d.delete("orders")
    d.run(0)
    assert {key: stored.offset for key, stored in d.every_offset().items()} == {
        one(d, 0, "bills"): 6
    }


def test_a_topic_made_again_does_not_inherit_offsets() -> None:
    d = desk(cleanup_records_max=1)
    d.commit(dict.fromkeys(d.of("orders"), 5))
    old = one(d)
    d.delete("orders")
    d.create("orders", partitions=6)
    # Not all of the old ones are forgotten yet.
    assert len(d.every_offset()) == 4
    assert d.committed(*d.of("orders"), old) == [None] * 7
    d.commit({one(d): 1})
    d.run(0)
    assert d.committed(one(d)) == [1]
    assert isinstance(why(d, old, 7), UnknownTopicError)


def test_offsets_of_a_topic_that_was_deleted_while_there_was_no_coordinator_are_forgotten() -> None:
    d = desk(cleanup_records_max=2)
    d.commit(dict.fromkeys(d.of("orders"), 5))
    log = [*d.log]
    d.delete("orders")
    d.create("orders")
    d.fail_over(log)
    assert d.every_offset() == {}


def test_many_offsets_are_forgotten_in_steps() -> None:
    d = desk(cleanup_records_max=2)
    d.commit(dict.fromkeys(d.of("orders"), 5))
    d.delete("orders")
    assert len(d.every_offset()) == 4
    steps = 0
    while (d.machine.deadline() or 0) <= d.now_ms:
        before = len(d.log)
        d.take(d.machine.tick(d.now_ms, d.wall_ms))
        assert len(d.log) - before <= 2
        steps += 1
    assert steps <= 4
    assert d.every_offset() == {}


def test_a_tick_looks_at_a_bounded_number_of_offsets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard, "OFFSETS_PER_TICK_MAX", 12)
    d = desk(offsets_check_interval_ms=MINUTE_MS)
    for number in range(6):
        d.commit(dict.fromkeys(d.of("orders"), 5), group_id=f"g{number}")
    d.run(MINUTE_MS - 1)
    d.now_ms += 1
    ticks = 0
    while (d.machine.deadline() or 0) <= d.now_ms:
        d.take(d.machine.tick(d.now_ms, d.wall_ms))
        ticks += 1
    assert ticks == 3, "two groups of six offsets each time"


def test_all_that_is_committed_is_told_by_topic() -> None:
    d = desk()
    d.commit(dict.fromkeys(d.of("orders"), 5))
    assert d.take(d.machine.committed_topics(GROUP)) == (("orders", 6),)
    told = d.take(d.machine.fetch_offsets(FetchOffsets(GROUP, topics=["orders", "other"])))
    assert [one.partition for one in told] == sorted(d.of("orders"))
    assert d.take(d.machine.committed_topics("another")) == ()


# Expiry.


def test_offsets_of_a_group_without_members_expire() -> None:
    d = desk(offsets_retention_ms=60 * MINUTE_MS, offsets_check_interval_ms=MINUTE_MS)
    d.commit({one(d): 5})
    d.run(59 * MINUTE_MS)
    d.commit({one(d, 1): 6})
    d.run(2 * MINUTE_MS)
    assert d.committed(one(d), one(d, 1)) == [None, 6]
    d.run(60 * MINUTE_MS)
    assert d.take(d.machine.list_groups()) == ()


def test_offsets_of_a_group_with_members_never_expire() -> None:
    d = desk(offsets_retention_ms=60 * MINUTE_MS, offsets_check_interval_ms=MINUTE_MS)
    a = d.joined("a", "bills", session_timeout_ms=300_000)
    d.settle(a)
    d.commit({one(d, 0, "bills"): 5}, a)
    for _ in range(100):
        d.run(2 * MINUTE_MS)
        a.send()
    assert d.committed(one(d, 0, "bills")) == [5]


def test_the_time_of_offsets_begins_when_the_last_member_is_gone() -> None:
    d = desk(offsets_retention_ms=60 * MINUTE_MS, offsets_check_interval_ms=MINUTE_MS)
    a = d.joined("a", "orders", session_timeout_ms=300_000)
    d.settle(a)
    d.commit({one(d): 5}, a)
    for _ in range(60):
        d.run(2 * MINUTE_MS)
        a.send()
    a.leave()
    d.run(59 * MINUTE_MS)
    assert d.committed(one(d)) == [5]
    d.fail_over()
    assert d.committed(one(d)) == [5]
    d.run(3 * MINUTE_MS)
    assert d.committed(one(d)) == [None]
    assert d.take(d.machine.list_groups()) == ()


@pytest.mark.parametrize("has_failed_over", [False, True])
def test_no_offset_expires_before_the_target_of_a_group_whose_members_are_gone(
    has_failed_over: bool,
) -> None:
    d = desk(
        offsets_retention_ms=60 * MINUTE_MS,
        offsets_check_interval_ms=1_000,
        assignment_interval_ms=5_000,
    )
    a = d.joined("a", "orders", assignor="client", session_timeout_ms=300_000)
    assert a.task is not None
    a.propose({"a": d.of("orders")})
    d.settle(a)
    d.commit({one(d): 5}, a)
    for _ in range(60):
        d.run(2 * MINUTE_MS)
        a.send()
    # A joins and leaves with the work to assign in hand, so the target is two hours old.
    b = d.joined("b", "orders", assignor="client")
    a.leave()
    b.leave()
    if has_failed_over:
        d.fail_over()
    d.run(59 * MINUTE_MS)
    assert d.committed(one(d)) == [5]
    d.run(2 * MINUTE_MS)
    assert d.committed(one(d)) == [None]
