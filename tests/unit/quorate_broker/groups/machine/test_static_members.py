"""Static members: a name that outlives its holder keeps its share."""

from __future__ import annotations

import pytest

from quorate.errors import (
    FencedMemberEpochError,
    InvalidRequestError,
    UnknownMemberIdError,
    UnreleasedInstanceIdError,
)
from quorate_broker.groups.machine.session import FIRST_STREAM_MS
from quorate_broker.groups.machine.values import LEAVE_STATIC
from tests.harness.group_desk import Desk, Member


def pair(d: Desk, **fields: int) -> tuple[Member, Member]:
    """Return a static member and a dynamic one, at rest."""
    a = d.joined("a1", "orders", instance_id="a", **fields)
    b = d.joined("b", "orders")
    d.settle(a, b)
    return a, b


def test_a_restart_within_the_session_moves_nothing() -> None:
    d = Desk({"orders": 6})
    a, b = pair(d)
    share, epoch = a.owned, b.epoch
    a.leave(LEAVE_STATIC)
    d.run(10_000)
    b.send()
    again = d.joined("a2", "orders", instance_id="a")
    d.settle(again, b)
    assert again.owned == share
    assert b.epoch == epoch
    assert d.described().state == "Stable"


def test_a_restart_after_a_crash_moves_nothing() -> None:
    d = Desk({"orders": 6})
    a, b = pair(d)
    share, epoch = a.owned, b.epoch
    a.lose_stream()
    d.run(500)
    again = d.joined("a2", "orders", instance_id="a")
    d.settle(again, b)
    assert (again.owned, b.epoch) == (share, epoch)
    with pytest.raises(UnknownMemberIdError):
        a.reopen()


@pytest.mark.parametrize("has_lost_stream", [False, True])
def test_a_second_holder_of_a_name_is_refused_while_the_first_is_there(
    has_lost_stream: bool,
) -> None:
    d = Desk({"orders": 6})
    a, b = pair(d)
    if has_lost_stream:
        a.lose_stream()
        d.run(499)
    second = d.member("a2", "orders", instance_id="a")
    with pytest.raises(UnreleasedInstanceIdError, match="'a'"):
        second.join()
    a.reopen()
    d.settle(a, b)
    assert [len(a.owned), len(b.owned)] == [3, 3]


def test_a_static_member_that_does_not_come_back_loses_its_share_with_its_session() -> None:
    d = Desk({"orders": 6})
    a, b = pair(d, session_timeout_ms=6_000)
    a.leave(LEAVE_STATIC)
    d.run(5_900)
    b.take_pushes()
    assert len(b.owned) == 3
    d.run(200)
    d.settle(b)
    assert len(b.owned) == 6


def test_a_broken_stream_alone_costs_a_static_member_nothing() -> None:
    d = Desk({"orders": 6})
    a, b = pair(d, session_timeout_ms=6_000)
    a.lose_stream()
    d.run(5_000)
    a.reopen()
    d.settle(a, b)
    assert len(a.owned) == 3


def test_what_a_static_member_that_is_away_shall_give_up_goes_to_others_at_once() -> None:
    d = Desk({"orders": 6})
    a, b = pair(d)
    a.leave(LEAVE_STATIC)
    c = d.joined("c", "orders")
    d.settle(b, c)
    assert [len(b.owned), len(c.owned)] == [2, 2]
    again = d.joined("a2", "orders", instance_id="a")
    d.settle(again, b, c)
    assert len(again.owned) == 2


def test_a_failover_keeps_the_share_of_a_static_member_that_is_away() -> None:
    d = Desk({"orders": 6})
    a, b = pair(d)
    share = a.owned
    a.leave(LEAVE_STATIC)
    d.fail_over()
    b.reopen()
    again = d.joined("a2", "orders", instance_id="a")
    d.settle(again, b)
    assert again.owned == share


def test_a_static_member_that_died_with_the_coordinator_takes_its_share_up_again() -> None:
    d = Desk({"orders": 6})
    a, b = pair(d)
    share = a.owned
    d.fail_over()
    b.reopen()
    again = d.member("a2", "orders", instance_id="a")
    d.run(FIRST_STREAM_MS - 1)
    with pytest.raises(UnreleasedInstanceIdError):
        again.join()
    d.run(1)
    again.join()
    d.settle(again, b)
    assert again.owned == share


def test_a_static_member_that_found_the_new_coordinator_keeps_its_name() -> None:
    d = Desk({"orders": 6})
    a, b = pair(d)
    d.fail_over()
    a.reopen()
    b.reopen()
    d.run(2 * FIRST_STREAM_MS)
    with pytest.raises(UnreleasedInstanceIdError):
        d.joined("a2", "orders", instance_id="a")


def test_the_old_holder_can_not_commit_after_the_takeover() -> None:
    d = Desk({"orders": 6})
    a, b = pair(d)
    partition = min(a.owned)
    a.lose_stream()
    d.run(500)
    again = d.joined("a2", "orders", instance_id="a")
    d.settle(again, b)
    d.commit({partition: 9}, again)
    with pytest.raises(UnknownMemberIdError):
        d.commit({partition: 3}, a)


def test_a_name_can_not_change() -> None:
    d = Desk({"orders": 6})
    a, _ = pair(d)
    with pytest.raises(InvalidRequestError, match="Leave and join"):
        a.send(instance_id="z")


def test_a_dynamic_member_that_says_it_will_come_back_leaves() -> None:
    d = Desk({"orders": 6})
    _, b = pair(d)
    b.leave(LEAVE_STATIC)
    assert len(d.described().members) == 1


def test_a_static_member_that_is_away_can_not_go_on_without_joining() -> None:
    d = Desk({"orders": 6})
    a, _ = pair(d)
    epoch = a.epoch
    a.leave(LEAVE_STATIC)
    a.epoch = epoch + 1
    with pytest.raises(FencedMemberEpochError):
        a.reopen()
