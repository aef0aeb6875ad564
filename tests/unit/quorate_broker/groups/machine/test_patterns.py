"""Subscription by pattern: RE2 on the server, in linear time, in bounded parts."""

from __future__ import annotations

import pytest

from quorate.errors import InvalidPatternError
from quorate_broker.groups.machine.subscriptions import compiled
from quorate_broker.groups.machine.values import Subscription
from tests.harness.group_desk import GROUP, Desk, Member


def follower(d: Desk, member_id: str, pattern: str, *topics: str) -> Member:
    """Return a member that subscribes by pattern, and joins."""
    member = Member(d, member_id, Subscription(frozenset(topics), pattern))
    member.join()
    return member


def desk(**config: int) -> Desk:
    topics = {"eu-orders": 2, "us-orders": 2, "orders-old": 1, "__consumer_offsets": 16}
    return Desk(topics, **config)


def test_a_pattern_matches_whole_names_of_topics_that_are_not_internal() -> None:
    d = desk()
    a = follower(d, "a", ".*orders")
    d.settle(a)
    assert a.owned == d.of("eu-orders") | d.of("us-orders")
    b = follower(d, "b", ".*")
    d.settle(a, b)
    assert a.owned | b.owned == d.of("eu-orders") | d.of("us-orders") | d.of("orders-old")


def test_topics_that_come_and_go_are_followed() -> None:
    d = desk()
    a = follower(d, "a", "..-orders", "orders-old")
    d.create("cn-orders", "other", partitions=1)
    d.settle(a)
    assert d.of("cn-orders", 0) <= a.owned
    d.delete("eu-orders")
    d.delete("orders-old")
    d.settle(a)
    assert a.owned == d.of("us-orders") | d.of("cn-orders")


def test_names_and_pattern_add_up_and_other_members_keep_theirs() -> None:
    d = desk()
    a, b = follower(d, "a", "eu-.*"), follower(d, "b", "", "us-orders")
    d.settle(a, b)
    assert (a.owned, b.owned) == (d.of("eu-orders"), d.of("us-orders"))
    b.leave()
    d.settle(a)
    assert a.owned == d.of("eu-orders")


def test_a_pattern_is_matched_against_many_topics_in_parts() -> None:
    d = Desk({f"t-{at}": 1 for at in range(25)}, names_per_step=10)
    a = follower(d, "a", "t-.*")
    # It has an epoch, and nothing yet: not all names were looked at.
    assert (a.epoch > 0, a.target) == (True, frozenset())
    d.take(d.machine.tick(d.now_ms, d.wall_ms))
    d.create("t-late", partitions=1)
    d.delete("t-24")
    d.settle(a)
    assert len(a.owned) == 25
    assert d.of("t-late") <= a.owned


@pytest.mark.parametrize("pattern", ["(", "a**", "[z-a]", "(?=x)", "x" * 4_097, "(x{1000}){1000}"])
def test_a_pattern_that_does_not_compile_is_refused_and_the_group_goes_on(pattern: str) -> None:
    d = desk()
    a = follower(d, "a", ".*orders")
    d.settle(a)
    with pytest.raises(InvalidPatternError):
        follower(d, "b", pattern)
    with pytest.raises(InvalidPatternError):
        a.send(subscription=Subscription(frozenset(), pattern))
    a.send()
    assert a.owned == d.of("eu-orders") | d.of("us-orders")


def test_a_pattern_that_matches_too_many_topics_costs_its_members_their_place_alone() -> None:
    d = Desk({**{f"t-{at}": 1 for at in range(30)}, "orders": 4}, subscription_topics_max=29)
    a, b = follower(d, "a", "", "orders"), follower(d, "b", "t-.*")
    d.run(1_000)
    with pytest.raises(InvalidPatternError, match="29 topics"):
        b.take_pushes()
    d.settle(a)
    assert a.owned == d.of("orders")
    assert len(d.take(d.machine.describe_group(GROUP)).members) == 1


def test_a_pattern_that_grows_too_wide_costs_its_members_their_place() -> None:
    d = Desk({f"t-{at}": 1 for at in range(3)}, subscription_topics_max=3)
    a = follower(d, "a", "t-.*")
    d.settle(a)
    d.create("t-3")
    with pytest.raises(InvalidPatternError):
        a.take_pushes()


def test_no_pattern_makes_matching_slow() -> None:
    """An engine that backtracks needs more steps for this than there are atoms."""
    for pattern in ("(a*)*b", "(a|aa)+b", "(.*)*(.*)*(.*)*x"):
        assert compiled(pattern).fullmatch(b"a" * 249) is None


def test_a_failover_of_a_group_with_a_pattern_moves_nothing() -> None:
    d = desk(names_per_step=2)
    a, b = follower(d, "a", ".*orders"), follower(d, "b", ".*orders")
    d.settle(a, b)
    log = [*d.log]
    d.fail_over()
    a.reopen()
    b.reopen()
    d.settle(a, b)
    assert d.log == log


def test_topics_that_were_created_while_there_was_no_coordinator_are_found() -> None:
    d = desk()
    a = follower(d, "a", ".*orders")
    d.settle(a)
    log = [*d.log]
    d.create("cn-orders", partitions=1)
    d.fail_over(log)
    a.reopen()
    d.settle(a)
    assert d.of("cn-orders") <= a.owned
