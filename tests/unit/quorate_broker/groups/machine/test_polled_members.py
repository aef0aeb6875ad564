"""Members without a stream (ConsumerGroupHeartbeat of Kafka's clients)."""

from __future__ import annotations

import pytest

from quorate.errors import (
    FencedInstanceIdError,
    FencedMemberEpochError,
    StaleMemberEpochError,
    UnknownMemberIdError,
    UnreleasedInstanceIdError,
    UnsupportedAssignorError,
)
from quorate_broker.groups.machine.session import POLL_MS
from quorate_broker.groups.machine.values import JOIN, LEAVE, LEAVE_STATIC, FetchOffsets
from tests.harness.group_desk import GROUP, Desk
from tests.harness.polled_members import PolledMember, polled


def test_members_with_and_without_a_stream_share_the_partitions() -> None:
    d = Desk({"orders": 6})
    a = polled(d, "a", "orders")
    d.settle(a)
    assert a.owned == d.of("orders")
    b = d.joined("b", "orders")
    d.settle(a, b)
    assert (len(a.owned), len(b.owned)) == (3, 3)
    assert a.owned | b.owned == d.of("orders")
    assert d.described().state == "Stable"


def test_its_state_changes_only_while_it_is_heard() -> None:
    d = Desk({"orders": 2})
    a = polled(d, "a", "orders")
    d.settle(a)
    before = a.epoch
    d.grow("orders", 4)
    d.run(1_000)
    (described,) = d.described().members
    assert described.member_epoch == before
    d.take(d.machine.fetch_offsets(FetchOffsets(GROUP, [*d.of("orders")], "a", before)))
    assert "a" not in d.pushes
    a.send()
    assert (a.epoch > before, a.target) == (True, d.of("orders"))


def test_a_partition_is_given_only_after_it_was_given_back() -> None:
    d = Desk({"orders": 6})
    a = polled(d, "a", "orders")
    d.settle(a)
    b = d.joined("b", "orders")
    d.run(1_000)
    a.send()
    a.send()
    b.catch_up()
    assert b.target == frozenset()
    a.owned = a.target
    a.send()
    b.take_pushes()
    assert b.target == d.of("orders") - a.owned


def test_the_answer_names_the_assignment_when_it_has_changed_or_all_is_said() -> None:
    d = Desk({"orders": 2})
    a = PolledMember(d, "a", "orders")
    assert a.join().assignment == d.of("orders")
    assert a.send().assignment is None
    a.connect()
    assert a.send().assignment == d.of("orders")


def test_what_is_said_before_an_answer_was_read_gives_nothing_back() -> None:
    """It has not begun what the lost answer took away again, and may do so at any time."""
    d = Desk({"orders": 2})
    a = PolledMember(d, "a", "orders")
    a.join()
    b = polled(d, "b", "orders")
    d.run(1_000)
    a.lost_call()
    a.send()
    b.send()
    assert b.target == frozenset()
    a.owned = a.target
    a.send()
    b.send()
    assert b.target == d.of("orders") - a.owned


def test_a_lost_answer_is_made_good_by_the_previous_epoch() -> None:
    d = Desk({"orders": 2})
    a = polled(d, "a", "orders")
    d.settle(a)
    d.grow("orders", 4)
    lost = a.lost_call()
    state = a.send()
    assert state.member_epoch == lost.member_epoch > 1
    assert state.assignment == d.of("orders")
    with pytest.raises(FencedMemberEpochError):
        d.beat(a.heartbeat(member_epoch=1, owned=frozenset({(bytes(16), 9)})))


def test_a_join_whose_answer_was_lost_is_answered_again() -> None:
    d = Desk({"orders": 2})
    a = PolledMember(d, "a", "orders")
    a.open()
    lost = a.lost_call()
    written = len(d.log)
    state = a.send()
    assert (state.member_epoch, state.assignment) == (lost.member_epoch, lost.assignment)
    assert len(d.log) == written


@pytest.mark.parametrize("epoch", [None, JOIN, LEAVE])
def test_a_call_of_a_connection_that_was_given_up_changes_nothing(epoch: int | None) -> None:
    d = Desk({"orders": 2})
    a = polled(d, "a", "orders")
    fields = {"owned": frozenset(), "topics": frozenset({"orders"})}
    late = a.heartbeat(**fields, **({} if epoch is None else {"member_epoch": epoch}))
    a.connect()
    a.catch_up()
    b = polled(d, "b", "orders")
    d.run(1_000)
    a.send()
    with pytest.raises(FencedMemberEpochError, match="newer connection"):
        d.beat(late)
    a.send()
    b.send()
    assert b.target == frozenset()


def test_it_asks_often_while_it_waits_for_its_share() -> None:
    d = Desk({"orders": 2})
    a = polled(d, "a", "orders")
    assert a.send().heartbeat_interval_ms == d.config.heartbeat_interval_ms
    b = polled(d, "b", "orders")
    d.run(1_000)
    assert b.send().heartbeat_interval_ms == POLL_MS
    d.settle(a, b)
    assert b.send().heartbeat_interval_ms == d.config.heartbeat_interval_ms


def test_its_session_ends_by_the_timeout_of_the_cluster_and_no_grace_counts() -> None:
    d = Desk({"orders": 2}, session_timeout_ms=20_000)
    a = polled(d, "a", "orders")
    d.run(19_999)
    assert a.send()
    d.fail_over()
    d.run(19_999)
    a.connect()
    assert a.send()
    d.run(20_000)
    with pytest.raises(UnknownMemberIdError):
        a.send()


def test_a_member_that_does_not_give_back_in_time_is_removed() -> None:
    d = Desk({"orders": 2})
    a = polled(d, "a", "orders", rebalance_timeout_ms=10_000)
    d.settle(a)
    d.joined("b", "orders")
    d.run(1_000)
    a.send()
    d.run(9_000)
    a.send()
    d.run(1_000)
    with pytest.raises(UnknownMemberIdError):
        a.send()


def test_a_static_name_is_free_only_after_its_holder_said_that_it_stops() -> None:
    d = Desk({"orders": 2})
    a = polled(d, "a1", "orders", instance_id="a")
    d.settle(a)
    d.fail_over()
    d.run(20_000)
    with pytest.raises(UnreleasedInstanceIdError):
        polled(d, "a2", "orders", instance_id="a")
    a.connect()
    a.send()
    a.leave(LEAVE_STATIC)
    again = polled(d, "a2", "orders", instance_id="a")
    d.settle(again)
    assert again.owned == d.of("orders")
    a.epoch = 1
    with pytest.raises(FencedInstanceIdError):
        d.beat(a.heartbeat(instance_id="a"))


def test_a_field_that_is_left_out_stays_as_it_was() -> None:
    d = Desk({"orders": 2, "bills": 2, "rest": 2})
    a = polled(d, "a", "orders")
    d.settle(a)
    a.send(pattern="bil.*")
    d.settle(a)
    assert a.owned == d.of("orders") | d.of("bills")
    a.send(topics=frozenset({"rest"}))
    d.settle(a)
    assert a.owned == d.of("rest") | d.of("bills")
    a.send(pattern="")
    d.settle(a)
    assert a.owned == d.of("rest")


def test_it_cannot_compute_assignments() -> None:
    d = Desk({"orders": 2})
    with pytest.raises(UnsupportedAssignorError, match="range"):
        polled(d, "a", "orders", assignor="client")


def test_it_may_take_as_long_to_give_back_as_it_likes() -> None:
    d = Desk({"orders": 2})
    a = polled(d, "a", "orders", rebalance_timeout_ms=2**31 - 1)
    d.settle(a)
    assert a.owned == d.of("orders")


def test_it_reads_offsets_with_its_present_epoch_alone() -> None:
    d = Desk({"orders": 2})
    a = polled(d, "a", "orders")
    d.settle(a)
    with pytest.raises(StaleMemberEpochError):
        d.take(d.machine.fetch_offsets(FetchOffsets(GROUP, [*d.of("orders")], "a", a.epoch - 1)))


def test_a_heartbeat_that_names_no_partitions_gives_nothing_back() -> None:
    """A Java consumer sends such ones while its program still takes up an assignment."""
    d = Desk({"orders": 4})
    a, b = polled(d, "a", "orders"), polled(d, "b", "orders")
    for _ in range(10):
        d.run(1_000)
        a.catch_up()
        b.catch_up()
    assert (len(a.owned), len(b.owned)) == (2, 2)
    b.leave()
    for _ in range(3):
        d.run(1_000)
        a.send()
    assert a.target == d.of("orders"), "its program takes these up, and says nothing yet"
    c = polled(d, "c", "orders")
    for _ in range(4):
        d.run(1_000)
        a.send()
        c.catch_up()
        assert not c.owned
    for _ in range(4):
        d.run(1_000)
        a.catch_up()
        c.catch_up()
    assert (len(a.owned), len(c.owned)) == (2, 2)
    assert a.owned | c.owned == d.of("orders")


def test_a_static_member_that_left_before_its_second_heartbeat_comes_back() -> None:
    d = Desk({"orders": 4})
    a = polled(d, "a", "orders", instance_id="i")
    d.beat(a.heartbeat(member_epoch=LEAVE_STATIC))
    d.run(1_000)
    a.epoch, a.owned = JOIN, frozenset()
    a.connect()
    state = d.beat(a.heartbeat())
    assert state.member_epoch > 0
    a.take(state)
    a.catch_up()
    assert a.owned == d.of("orders")
