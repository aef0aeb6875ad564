"""Rules of membership by KIP-848: epochs, release before give, fencing, sessions."""

from __future__ import annotations

import pytest

from quorate.errors import (
    FencedMemberEpochError,
    GroupMaxSizeError,
    OverloadedError,
    UnknownMemberIdError,
)
from quorate_broker.groups.machine.shard import LATE_MS, TIMERS_PER_TICK_MAX
from quorate_broker.groups.machine.values import MemberState
from tests.harness.group_desk import Desk, Member


def desk(**config: int) -> Desk:
    return Desk({"orders": 6, "bills": 2}, **config)


def held(*members: Member) -> list[int]:
    """Return how many partitions each member has."""
    return [len(member.owned) for member in members]


# Joining, and the target.


def test_a_first_member_gets_all_with_the_answer() -> None:
    d = desk()
    state = d.member("a", "orders").join()
    assert (state.member_epoch, state.assignment) == (1, d.of("orders"))
    assert state.heartbeat_interval_ms == 5_000


@pytest.mark.parametrize(
    ("session_ms", "interval_ms"), [(1_000, 333), (9_000, 3_000), (45_000, 5_000)]
)
def test_a_member_sends_heartbeats_often_enough_for_its_own_session(
    session_ms: int, interval_ms: int
) -> None:
    d = desk()
    state = d.member("a", "orders").join(session_timeout_ms=session_ms)
    assert state.heartbeat_interval_ms == interval_ms


def test_a_member_that_joins_takes_only_what_must_move() -> None:
    d = desk()
    a = d.joined("a", "orders")
    d.settle(a)
    b = d.joined("b", "orders")
    kept = a.owned
    d.settle(a, b)
    assert held(a, b) == [3, 3]
    assert a.owned < kept


def test_each_join_bumps_the_group_epoch_and_members_that_rest_change_nothing() -> None:
    d = desk()
    a, b = d.joined("a", "orders"), d.joined("b", "orders")
    d.settle(a, b)
    before = len(d.log)
    assert d.described().group_epoch == 2
    a.send()
    b.send()
    assert len(d.log) == before


def test_another_subscription_changes_the_assignment() -> None:
    d = desk()
    a = d.joined("a", "orders")
    d.settle(a)
    a.subscription = d.member("x", "bills").subscription
    a.send()
    d.settle(a)
    assert a.owned == d.of("bills")


def test_topics_that_do_not_exist_are_assigned_once_they_do() -> None:
    d = desk()
    a = d.joined("a", "later")
    assert a.target == frozenset()
    d.create("later", partitions=2)
    d.settle(a)
    assert a.owned == d.of("later")


def test_a_topic_that_grows_is_assigned_whole_and_one_that_is_deleted_no_more() -> None:
    d = desk()
    a = d.joined("a", "orders", "bills")
    d.settle(a)
    d.grow("bills", 5)
    d.settle(a)
    assert a.owned == d.of("orders") | d.of("bills")
    d.delete("orders")
    d.settle(a)
    assert a.owned == d.of("bills")


def test_changes_of_other_topics_change_nothing() -> None:
    d = desk()
    a = d.joined("a", "orders")
    d.settle(a)
    before = len(d.log)
    d.create("other")
    d.grow("bills", 9)
    d.run(1_000)
    assert len(d.log) == before


def test_members_that_join_together_are_assigned_together() -> None:
    d = desk(assignment_interval_ms=200)
    members = [d.joined(f"m{at}", "orders") for at in range(6)]
    d.settle(*members)
    assert held(*members) == [1] * 6
    description = d.described()
    assert (description.group_epoch, description.state) == (6, "Stable")
    # The first one at once, all others together.
    assert {one.member_epoch for one in description.members} == {6}


# Release before give.


def test_a_partition_is_given_only_after_it_was_given_back() -> None:
    d = desk()
    a = d.joined("a", "orders")
    d.settle(a)
    b = d.joined("b", "orders")
    d.run(1_000)
    a.take_pushes()
    b.take_pushes()
    assert b.target == frozenset()
    # It has heard that it must give back, and has not done so yet.
    a.send()
    b.send()
    assert b.target == frozenset()
    d.settle(a, b)
    assert held(a, b) == [3, 3]


def test_a_heartbeat_that_crosses_a_new_assignment_gives_nothing_back() -> None:
    d = desk()
    a = d.joined("a", "orders")
    d.settle(a)
    b = d.joined("b", "orders")
    d.run(1_000)
    # Its heartbeat left before the state with fewer partitions arrived. Even if it says that it has
    # nothing, it may still begin what the older state names.
    d.beat(a.heartbeat(owned=frozenset()))
    one, two = d.described().members
    assert (one.assignment, two.assignment) == (d.of("orders"), frozenset())
    a.catch_up()
    d.settle(a, b)
    assert held(a, b) == [3, 3]


def test_a_member_gets_one_state_at_a_time() -> None:
    d = desk()
    a = d.joined("a", "orders")
    d.settle(a)
    b = d.joined("b", "orders")
    a.leave()
    d.run(1_000)
    # The answer to its join is still on its way.
    assert d.pushes["b"] == []
    assert b.send().assignment == d.of("orders")
    d.settle(b)
    assert held(b) == [6]


def test_a_member_that_leaves_frees_its_partitions_at_once() -> None:
    d = desk()
    a, b = d.joined("a", "orders"), d.joined("b", "orders")
    d.settle(a, b)
    b.leave()
    d.settle(a)
    assert held(a) == [6]
    b.epoch = 2
    with pytest.raises(UnknownMemberIdError):
        b.send()


def test_what_was_given_back_is_pushed_to_its_next_owner_at_once() -> None:
    d = desk()
    a = d.joined("a", "orders")
    d.settle(a)
    b = d.joined("b", "orders")
    d.run(1_000)
    # B has taken in that it has nothing yet. Then A gives back.
    b.take_pushes()
    b.send()
    a.catch_up()
    (state,) = d.pushes["b"]
    assert isinstance(state, MemberState)
    assert state.assignment == d.of("orders") - a.owned


# Epochs.


def test_a_lost_answer_is_made_good_by_the_previous_epoch() -> None:
    d = desk()
    a, b = d.joined("a", "orders"), d.joined("b", "orders")
    d.settle(a, b)
    epoch = a.epoch
    b.leave()
    d.run(1_000)
    d.pushes.clear()  # The stream broke under the state with the newer epoch.
    a.lose_stream()
    assert a.epoch == epoch
    state = a.reopen()
    assert state.member_epoch == epoch + 1
    d.settle(a)
    assert held(a) == [6]


@pytest.mark.parametrize("ahead", [-1, 1])
def test_a_member_with_an_epoch_that_the_group_does_not_know_is_fenced(ahead: int) -> None:
    d = desk()
    members = [d.joined(f"m{at}", "orders") for at in range(3)]
    d.settle(*members)
    d.run(1_000)
    with pytest.raises(FencedMemberEpochError, match="join again"):
        d.beat(members[0].heartbeat(member_epoch=members[0].epoch + ahead))


def test_the_previous_epoch_with_partitions_that_are_gone_is_fenced() -> None:
    d = desk()
    a = d.joined("a", "orders")
    d.settle(a)
    old, owned = a.epoch, a.owned
    b = d.joined("b", "orders")
    d.settle(a, b)
    with pytest.raises(FencedMemberEpochError):
        d.beat(a.heartbeat(member_epoch=old, owned=owned))


def test_a_member_that_joins_again_has_nothing_and_gets_its_share_again() -> None:
    d = desk()
    a, b = d.joined("a", "orders"), d.joined("b", "orders")
    d.settle(a, b)
    before, epoch = a.owned, b.epoch
    a.join()
    d.settle(a, b)
    assert a.owned == before
    assert b.epoch == epoch


def test_a_join_that_is_said_twice_on_a_stream_is_answered_twice() -> None:
    d = desk()
    a = d.member("a", "orders")
    a.open()
    first = d.beat(a.heartbeat())
    again = d.beat(a.heartbeat())
    assert (again.member_epoch, again.assignment) == (first.member_epoch, first.assignment)
    assert again.state_number == first.state_number
    # What the member has begun by the first answer is its own.
    a.take(first)
    a.catch_up()
    b = d.joined("b", "orders")
    d.settle(a, b)
    assert held(a, b) == [3, 3]


def test_a_member_of_a_group_that_is_gone_must_join() -> None:
    d = desk()
    a = d.member("a", "orders")
    a.epoch = 3
    with pytest.raises(UnknownMemberIdError, match="join with the epoch 0"):
        a.send()


# Sessions, streams, timeouts.


def test_a_silent_member_is_removed_when_its_session_ends() -> None:
    d = desk()
    a = d.joined("a", "orders")
    d.settle(a)
    b = d.joined("b", "orders", session_timeout_ms=6_000)
    d.settle(a, b)
    d.run(5_999 - d.config.assignment_interval_ms)
    a.send()
    assert held(a, b) == [3, 3]
    d.run(2_000)
    with pytest.raises(FencedMemberEpochError, match="session_timeout_ms"):
        b.take_pushes()
    d.settle(a)
    assert held(a) == [6]


def test_heartbeats_keep_a_session() -> None:
    d = desk()
    a = d.joined("a", "orders", session_timeout_ms=6_000)
    d.settle(a)
    for _ in range(10):
        d.run(5_000)
        a.send()
    assert a.epoch == 1


def test_a_member_without_a_stream_is_removed_after_the_grace() -> None:
    d = desk()
    a, b = d.joined("a", "orders"), d.joined("b", "orders")
    d.settle(a, b)
    b.lose_stream()
    d.run(499)
    a.take_pushes()
    assert held(a) == [3]
    d.run(1)
    d.settle(a)
    assert held(a) == [6]
    with pytest.raises(UnknownMemberIdError):
        b.reopen()


def test_a_member_that_opens_another_stream_in_time_keeps_all() -> None:
    d = desk()
    a, b = d.joined("a", "orders"), d.joined("b", "orders")
    d.settle(a, b)
    before = len(d.log)
    b.lose_stream()
    d.run(499)
    state = b.reopen()
    d.settle(a, b)
    assert state.assignment == b.owned
    assert len(d.log) == before


def test_a_member_that_does_not_give_back_in_time_is_removed() -> None:
    d = desk()
    a = d.joined("a", "orders", rebalance_timeout_ms=3_000)
    d.settle(a)
    b = d.joined("b", "orders")
    d.run(d.config.assignment_interval_ms)
    a.take_pushes()
    for _ in range(4):
        d.run(700)
        a.send()
    assert held(b) == [0]
    d.run(1_000)
    with pytest.raises(FencedMemberEpochError, match="rebalance_timeout_ms"):
        a.take_pushes()
    d.settle(b)
    assert held(b) == [6]


def test_a_coordinator_that_stood_still_removes_no_member_for_it() -> None:
    d = desk()
    a = d.joined("a", "orders", session_timeout_ms=6_000)
    d.settle(a)
    d.now_ms += 60_000
    d.take(d.machine.tick(d.now_ms, d.wall_ms))
    a.take_pushes()
    a.send()
    assert a.epoch == 1


def test_a_standstill_is_forgiven_once_though_many_timers_are_due() -> None:
    d = desk(assignment_interval_ms=10_000_000)
    for at in range(TIMERS_PER_TICK_MAX + 1):
        d.joined(f"m-{at}", "orders", session_timeout_ms=6_000)
    d.now_ms += 20_000
    # The standstill, and a session from its end on. Timers are as late as the bound allows.
    d.run(6_000 + LATE_MS)
    assert d.described().members == ()


# Bounds.


def test_the_members_of_a_large_group_move_on_in_several_steps() -> None:
    d = Desk({"orders": 12}, members_per_step=3)
    members = [d.joined(f"m{at}", "orders") for at in range(6)]
    d.settle(*members)
    d.pushes.clear()
    last = d.member("last", "orders")
    last.open()
    step = d.machine.heartbeat(last.heartbeat(), d.now_ms, d.wall_ms)
    # The one that asks is not among those that must wait.
    last.take(d.take(step))
    assert last.epoch == members[0].epoch + 1
    assert len(step.pushes) == 3
    d.run(0)
    assert len(d.pushes) == 6
    d.settle(*members, last)
    assert sum(held(*members, last)) == 12


def test_a_group_has_no_more_members_than_it_may() -> None:
    d = desk(members_max=2)
    d.joined("a", "orders")
    b = d.joined("b", "orders")
    c = d.member("c", "orders")
    with pytest.raises(GroupMaxSizeError, match=r"group\.max\.size"):
        c.join()
    b.leave()
    assert c.join().member_epoch > 0


def test_a_shard_has_no_more_groups_than_it_may() -> None:
    d = desk(groups_max=1)
    d.joined("a", "orders")
    with pytest.raises(OverloadedError):
        d.member("b", "orders", group_id="other").join()


def test_a_join_that_is_refused_leaves_no_group_behind() -> None:
    d = desk(groups_max=1, members_max=0)
    with pytest.raises(GroupMaxSizeError):
        d.member("a", "orders").join()
    assert d.take(d.machine.list_groups()) == ()
