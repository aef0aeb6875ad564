"""Classic groups: rounds of joins, the leader's assignment, generations."""

from __future__ import annotations

import pytest

from quorate.errors import (
    FencedInstanceIdError,
    GroupSubscribedToTopicError,
    IllegalGenerationError,
    InconsistentGroupProtocolError,
    NonEmptyGroupError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)
from quorate_broker.groups.machine.classic.embedded import READ_BYTES_MAX
from quorate_broker.groups.machine.classic.values import LeaveGroup, Leaving
from tests.harness.classic_desk import ClassicDesk
from tests.harness.embedded_members import subscription_bytes
from tests.harness.group_desk import GROUP


def test_the_first_round_waits_for_further_members_and_all_are_in_one_generation() -> None:
    d = ClassicDesk()
    a, b = d.classic("a"), d.classic("b")
    a.join()
    d.run(2_000)
    b.join()
    assert a.waits
    assert b.waits
    d.run(3_000)
    assert a.waits, "b came within the delay, so the round waits once more"
    d.run(1_000)
    first, second = a.take_join(), b.take_join()
    assert (first.generation, second.generation) == (1, 1)
    assert first.leader == second.leader == a.id
    assert [one.member_id for one in first.members] == [a.id, b.id]
    assert [one.metadata for one in first.members] == [b"a", b"b"]
    assert second.members == ()


def test_the_first_round_is_put_off_no_longer_than_the_rebalance_timeout() -> None:
    d = ClassicDesk()
    first = d.classic("a", rebalance_timeout_ms=7_000)
    first.join()
    for number in range(20):
        d.classic(f"m{number}", rebalance_timeout_ms=7_000).join()
        d.run(500)
        if not first.waits:
            break
    assert number < 15
    assert len(first.take_join().members) <= 15


def test_a_sync_waits_for_the_leader_and_gets_what_it_assigned() -> None:
    d = ClassicDesk()
    a, b = d.classic("a"), d.classic("b")
    a.join()
    b.join()
    d.run(6_000)
    a.take_join(), b.take_join()
    b.sync()
    assert b.waits
    assert d.phase() == "CompletingRebalance"
    records = len(d.log)
    a.sync({b.id: b"for b"})
    assert len(d.log) == records + 1
    assert (a.take_sync(), b.take_sync()) == (b"", b"for b")
    assert d.phase() == "Stable"
    b.sync()
    assert b.take_sync() == b"for b", "an answer that was lost is given again"


def test_a_new_member_begins_a_round_which_the_others_learn_from_their_heartbeats() -> None:
    d = ClassicDesk()
    a, b = d.classic("a"), d.classic("b")
    d.stable(a)
    a.beat()
    b.join()
    with pytest.raises(RebalanceInProgressError):
        a.beat()
    assert b.waits
    a.join()
    assert a.take_join().generation == b.take_join().generation == 2
    assert a.leads, "the leader stays, if it is there"


def test_who_does_not_join_again_is_removed_at_the_rebalance_timeout() -> None:
    d = ClassicDesk()
    a = d.classic("a", rebalance_timeout_ms=20_000, session_timeout_ms=300_000)
    b = d.classic("b", rebalance_timeout_ms=10_000)
    d.stable(a)
    b.join()
    d.run(19_000)
    assert b.waits
    d.run(2_000)
    assert [one.member_id for one in b.take_join().members] == [b.id]
    assert b.leads
    with pytest.raises(UnknownMemberIdError):
        a.beat()


def test_who_does_not_sync_is_removed_at_the_rebalance_timeout() -> None:
    d = ClassicDesk()
    a = d.classic("a", rebalance_timeout_ms=20_000, session_timeout_ms=300_000)
    b = d.classic("b", rebalance_timeout_ms=10_000, session_timeout_ms=300_000)
    a.join()
    b.join()
    d.run(6_000)
    a.take_join(), b.take_join()
    b.sync()
    d.run(21_000)
    with pytest.raises(RebalanceInProgressError):
        b.take_sync()
    b.join()
    assert b.take_join().generation == 2
    assert b.leads
    with pytest.raises(UnknownMemberIdError):
        a.sync()


def test_a_leader_that_joins_again_begins_a_round_and_a_follower_does_not() -> None:
    d = ClassicDesk()
    a, b = d.classic("a"), d.classic("b")
    d.stable(a, b)
    b.join()
    assert b.take_join().generation == 1
    b.protocols = (("range", b"other"),)
    b.join()
    assert b.waits
    a.join()
    assert a.take_join().generation == b.take_join().generation == 2
    for one in (a, b):
        one.sync()
    a.take_sync(), b.take_sync()
    a.join()
    assert a.waits


def test_a_lost_answer_to_join_is_given_again_while_the_leader_assigns() -> None:
    d = ClassicDesk()
    a, b = d.classic("a"), d.classic("b")
    a.join()
    b.join()
    d.run(6_000)
    a.take_join(), b.take_join()
    a.join()
    assert a.take_join().generation == 1
    assert len(a.answer.members) == 2  # type: ignore[union-attr]


def test_a_round_ends_only_when_members_that_have_got_an_id_have_come() -> None:
    d = ClassicDesk()
    a = d.classic("a")
    d.stable(a)
    b = d.classic("b", is_id_required=True)
    d.take(d.machine.join_group(b.request(), 77, d.now_ms, d.wall_ms))
    assert d.phase() == "Stable", "an id alone begins no round"
    c = d.classic("c")
    c.join()
    a.join()
    assert a.waits
    d.run(10_000)  # the session timeout of the one that never came
    assert a.take_join().generation == c.take_join().generation == 2


def test_an_id_that_is_required_is_used() -> None:
    d = ClassicDesk()
    a = d.classic("a", is_id_required=True)
    a.join()
    assert a.id == "a-1"
    d.run(6_000)
    assert a.take_join().member_id == "a-1"


def test_the_protocol_is_the_one_that_most_members_prefer_of_those_that_all_support() -> None:
    d = ClassicDesk()
    a = d.classic("a", protocols=(("only-a", b""), ("sticky", b"1"), ("range", b"2")))
    b = d.classic("b", protocols=(("range", b"3"), ("sticky", b"4")))
    c = d.classic("c", protocols=(("sticky", b"5"), ("range", b"6")))
    d.stable(a, b, c)
    assert a.answer is not None
    assert a.answer.protocol == "sticky"
    assert [one.metadata for one in a.answer.members] == [b"1", b"4", b"5"]


@pytest.mark.parametrize(
    "fields",
    [
        {"protocols": (("other", b""),)},
        {"protocol_type": "connect"},
        {"protocol_type": ""},
        {"protocols": (("sticky", b""),)},
    ],
)
def test_a_member_with_which_the_group_cannot_agree_is_refused(fields: dict[str, object]) -> None:
    d = ClassicDesk()
    a = d.classic("a")
    d.stable(a)
    with pytest.raises(InconsistentGroupProtocolError):
        d.classic("b", **fields).join()
    a.beat()
    assert d.phase() == "Stable"


def test_members_of_a_generation_that_is_over_are_told() -> None:
    d = ClassicDesk()
    a, b = d.classic("a"), d.classic("b")
    d.stable(a)
    b.join()
    a.generation, generation = 0, a.generation
    with pytest.raises(IllegalGenerationError):
        a.beat()
    with pytest.raises(IllegalGenerationError):
        a.sync()
    a.generation = generation
    with pytest.raises(RebalanceInProgressError):
        a.sync()


def test_a_member_that_leaves_is_gone_at_once_and_the_last_one_empties_the_group() -> None:
    d = ClassicDesk()
    a, b = d.classic("a"), d.classic("b")
    d.stable(a, b)
    a.leave()
    with pytest.raises(RebalanceInProgressError):
        b.beat()
    b.join()
    assert b.take_join().leader == b.id
    b.sync()
    b.take_sync()
    b.leave()
    assert d.phase() == "Empty"
    with pytest.raises(UnknownMemberIdError):
        b.beat()
    with pytest.raises(UnknownMemberIdError):
        b.leave()


def test_a_member_that_waits_in_join_is_answered_when_it_is_removed() -> None:
    d = ClassicDesk()
    a, b = d.classic("a"), d.classic("b")
    d.stable(a, b)
    b.join()
    b.protocols = (("range", b"new"),)
    b.join()
    request = LeaveGroup(GROUP, [Leaving(b.id)])
    d.take(d.machine.leave_group(request, d.now_ms, d.wall_ms))
    with pytest.raises(UnknownMemberIdError):
        b.take_join()


def test_a_session_ends_without_heartbeats_but_not_while_the_member_waits() -> None:
    d = ClassicDesk()
    a = d.classic("a", session_timeout_ms=6_000, rebalance_timeout_ms=100_000)
    b = d.classic("b", session_timeout_ms=60_000, rebalance_timeout_ms=100_000)
    d.stable(a, b)
    d.run(5_999)
    b.beat()
    a.beat()
    a.protocols = (("range", b"new"),)
    a.join()
    d.run(20_000)
    assert a.waits, "b has not joined yet"
    b.join()
    assert len(a.take_join().members) + len(b.take_join().members) == 2
    for one in (a, b):
        one.sync()
    a.take_sync(), b.take_sync()
    d.run(6_000)
    with pytest.raises(UnknownMemberIdError):
        a.beat()
    with pytest.raises(RebalanceInProgressError):
        b.beat()


def test_a_member_whose_first_join_waits_for_ever_is_given_up() -> None:
    d = ClassicDesk()
    a = d.classic("a", session_timeout_ms=1_800_000, rebalance_timeout_ms=1_800_000)
    d.stable(a)
    d.classic("gone", rebalance_timeout_ms=1_800_000).join()
    d.run(299_999)
    assert [one.member_id for one in d.machine.describe_group(GROUP).answer.members] == [  # type: ignore[union-attr]
        a.id,
        "gone-1",
    ]
    d.run(2)
    a.join()
    assert [one.member_id for one in a.take_join().members] == [a.id]


# Static members (KIP-345).


def test_a_static_member_that_restarts_moves_nothing() -> None:
    d = ClassicDesk()
    a, b = d.classic("a", instance_id="i"), d.classic("b", instance_id="j")
    d.stable(a, b)
    again = d.classic("b2", instance_id="j", protocols=b.protocols)
    again.join()
    assert again.take_join().generation == 1
    assert not again.answer.members  # type: ignore[union-attr]
    again.sync()
    assert again.take_sync() == b"of " + b.id.encode()
    a.beat()
    with pytest.raises(FencedInstanceIdError):
        b.beat()


@pytest.mark.parametrize("can_skip", [True, False])
def test_a_static_leader_that_restarts_moves_nothing_either(can_skip: bool) -> None:
    d = ClassicDesk()
    a, b = d.classic("a", instance_id="i"), d.classic("b", instance_id="j")
    d.stable(a, b)
    again = d.classic("a2", instance_id="i", protocols=a.protocols, can_skip_assignment=can_skip)
    again.join()
    answer = again.take_join()
    assert answer.generation == 1
    assert answer.is_assignment_skipped == can_skip
    assert again.leads == can_skip
    assert len(answer.members) == (2 if can_skip else 0)
    again.sync({})
    assert again.take_sync() == b"of " + a.id.encode()
    b.beat()


def test_a_static_member_with_another_subscription_begins_a_round() -> None:
    d = ClassicDesk()
    a, b = d.classic("a", instance_id="i"), d.classic("b", instance_id="j")
    d.stable(a, b)
    again = d.classic("b2", instance_id="j", protocols=(("range", b"more topics"),))
    again.join()
    assert again.waits
    a.join()
    assert a.take_join().generation == again.take_join().generation == 2


def test_a_static_member_keeps_its_place_in_a_round_that_it_misses() -> None:
    d = ClassicDesk()
    a = d.classic("a", instance_id="i", session_timeout_ms=100_000, rebalance_timeout_ms=8_000)
    b = d.classic("b", session_timeout_ms=100_000, rebalance_timeout_ms=8_000)
    d.stable(a, b)
    b.leave()
    c = d.classic("c", session_timeout_ms=100_000, rebalance_timeout_ms=8_000)
    c.join()
    d.run(8_001)
    answer = c.take_join()
    assert [one.instance_id for one in answer.members] == ["i", None]
    assert c.leads, "a member that is away does not lead"
    c.sync()
    d.run(9_000)
    assert c.take_sync()
    c.beat()


def test_an_old_holder_that_waits_is_fenced_by_the_new_one() -> None:
    d = ClassicDesk()
    a = d.classic("a", instance_id="i")
    a.join()
    again = d.classic("a2", instance_id="i")
    again.join()
    with pytest.raises(FencedInstanceIdError):
        a.take_join()
    d.run(6_000)
    assert [one.member_id for one in again.take_join().members] == ["a2-1"]


# Offsets.


@pytest.mark.parametrize(
    ("metadata", "forgotten"),
    [(subscription_bytes(frozenset({"orders"})), {"bills"}), (b"no subscription", set())],
    ids=["topics that members read", "not readable"],
)
def test_offsets_of_topics_that_no_consumer_reads_are_forgotten_meanwhile(
    metadata: bytes, forgotten: set[str]
) -> None:
    """As in Kafka: all topics count as read if a member's subscription cannot be read."""
    d = ClassicDesk({"orders": 1, "bills": 1})
    d.commit(dict.fromkeys((*d.of("orders"), *d.of("bills")), 5))
    d.stable(d.classic("a", protocols=(("range", metadata),)))
    for topic in ("orders", "bills"):
        refused = d.commit(dict.fromkeys(d.of(topic), None)).refused
        kinds = [] if topic in forgotten else [GroupSubscribedToTopicError]
        assert [type(one) for one in refused.values()] == kinds


def test_subscriptions_of_many_bytes_are_not_read_to_forget_offsets() -> None:
    """To read those of one group would take seconds, and each step of a request would do so."""
    names = frozenset(f"topic-{number:05}" for number in range(11_000))
    subscriptions = [subscription_bytes(names | {f"one-{number}"}) for number in range(2)]
    assert max(map(len, subscriptions)) <= READ_BYTES_MAX < sum(map(len, subscriptions))
    d = ClassicDesk({"bills": 1})
    d.commit(dict.fromkeys(d.of("bills"), 5))
    a, b = (
        d.classic(f"m{number}", protocols=(("range", one),))
        for number, one in enumerate(subscriptions)
    )
    d.stable(a, b)
    (refused,) = d.commit(dict.fromkeys(d.of("bills"), None)).refused.values()
    assert isinstance(refused, GroupSubscribedToTopicError)
    b.leave()
    assert d.commit(dict.fromkeys(d.of("bills"), None)).refused == {}


def test_offsets_of_workers_are_forgotten_in_an_empty_group_only() -> None:
    """What they read is not known: their protocol is not that of consumers."""
    d = ClassicDesk({"orders": 1})
    d.commit(dict.fromkeys(d.of("orders"), 5))
    d.stable(d.classic("a", protocol_type="connect"))
    with pytest.raises(NonEmptyGroupError):
        d.commit(dict.fromkeys(d.of("orders"), None))


def test_offsets_are_committed_by_the_generation_and_without_one_only_in_an_empty_group() -> None:
    d = ClassicDesk()
    a, b = d.classic("a"), d.classic("b")
    partitions = dict.fromkeys(d.of("orders"), 5)
    d.commit(partitions)
    d.stable(a)
    with pytest.raises(NonEmptyGroupError):
        d.commit(partitions)

    class Committer:
        def __init__(self, member_id: str, generation: int) -> None:
            self.id, self.epoch = member_id, generation

    partitions = dict.fromkeys(d.of("orders"), 7)
    d.commit(partitions, Committer(a.id, a.generation))  # type: ignore[arg-type]
    assert set(d.committed(*d.of("orders"))) == {7}
    with pytest.raises(IllegalGenerationError):
        d.commit(partitions, Committer(a.id, a.generation - 1))  # type: ignore[arg-type]
    with pytest.raises(UnknownMemberIdError):
        d.commit(partitions, Committer("nobody", a.generation))  # type: ignore[arg-type]
    b.join()
    d.commit(partitions, Committer(a.id, a.generation))  # type: ignore[arg-type]
    a.join()
    a.take_join()
    with pytest.raises(RebalanceInProgressError):
        d.commit(partitions, Committer(a.id, a.generation))  # type: ignore[arg-type]


def test_offsets_of_a_group_with_members_do_not_expire_and_of_an_empty_one_do() -> None:
    d = ClassicDesk(offsets_retention_ms=100_000, offsets_check_interval_ms=10_000)
    a = d.classic("a", session_timeout_ms=1_800_000)
    d.commit(dict.fromkeys(d.of("orders"), 5))
    d.stable(a)
    d.run(200_000)
    assert set(d.committed(*d.of("orders"))) == {5}
    a.leave()
    d.run(90_000)
    assert set(d.committed(*d.of("orders"))) == {5}
    d.run(30_000)
    assert set(d.committed(*d.of("orders"))) == {None}
    d.run(30_000)
    assert d.phase() == "none"
    assert [record for record in d.compacted() if record.value is not None] == []


# Failover and conversion.


def test_a_new_coordinator_knows_the_stable_generation() -> None:
    d = ClassicDesk()
    a, b = d.classic("a", instance_id="i"), d.classic("b")
    d.stable(a, b)
    d.fail_over(d.compacted())
    assert d.phase() == "Stable"
    a.beat()
    b.beat()
    b.sync()
    assert b.take_sync() == b"of " + b.id.encode()
    again = d.classic("a2", instance_id="i", protocols=a.protocols)
    again.join()
    assert again.take_join().generation == 1
    d.run(10_000)
    with pytest.raises(UnknownMemberIdError):
        b.beat()


def test_a_new_coordinator_does_not_know_a_round_that_was_not_over() -> None:
    d = ClassicDesk()
    a, b = d.classic("a"), d.classic("b")
    d.stable(a)
    b.join()
    d.fail_over()
    a.beat()
    b.id = "b-1"
    with pytest.raises(UnknownMemberIdError):
        b.join()


def test_an_empty_group_changes_its_protocol_and_one_of_other_programs_does_not() -> None:
    d = ClassicDesk()
    a = d.classic("a")
    d.stable(a)
    with pytest.raises(InconsistentGroupProtocolError, match="classic members"):
        d.joined("native", "orders")
    a.leave()
    native = d.joined("native", "orders")
    d.settle(native)
    with pytest.raises(InconsistentGroupProtocolError, match="consumer protocol"):
        d.classic("b").join()
    native.leave()
    d.run(1_000)
    b = d.classic("b")
    d.stable(b)
    d.fail_over(d.compacted())
    assert d.phase() == "Stable"
    b.beat()


def test_a_group_without_members_and_records_is_gone() -> None:
    d = ClassicDesk()
    a = d.classic("a", is_id_required=True)
    d.take(d.machine.join_group(a.request(), 5, d.now_ms, d.wall_ms))
    assert d.phase() == "Empty"
    d.run(10_001)
    assert d.phase() == "none"
