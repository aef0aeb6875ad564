"""Subscription by pattern: RE2 on the server, in linear time, in bounded parts."""

from __future__ import annotations

import pytest

from quorate.errors import InvalidPatternError, OverloadedError
from quorate.net.principal import Principal
from quorate.topic_pattern import compiled
from quorate_broker.groups.machine.subscriptions import WORK_PER_STEP
from quorate_broker.groups.machine.values import Subscription
from tests.harness.group_desk import Desk, Member


def follower(d: Desk, member_id: str, pattern: str, *topics: str) -> Member:
    """Return a member that subscribes by pattern, and joins."""
    member = Member(d, member_id, Subscription(frozenset(topics), pattern))
    member.join()
    return member


def desk(**config: int) -> Desk:
    topics = {"eu-orders": 2, "us-orders": 2, "orders-old": 1, "__consumer_offsets": 16, "__x": 1}
    return Desk(topics, **config)


def test_a_pattern_matches_whole_names_of_topics_that_are_not_internal() -> None:
    d = desk()
    a = follower(d, "a", ".*orders")
    d.settle(a)
    assert a.owned == d.of("eu-orders") | d.of("us-orders")
    b = follower(d, "b", ".*")
    d.settle(a, b)
    others = d.of("orders-old") | d.of("__x")
    assert a.owned | b.owned == d.of("eu-orders") | d.of("us-orders") | others


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
        a.send(topics=frozenset(), pattern=pattern)
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
    assert len(d.described().members) == 1


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


#: RE2 has no memory for the states of this one, and walks its whole program at each letter.
WALKED = "|".join(f"(?:a|b)*a(?:a|b){{{size}}}c" for size in range(900, 911))


def targets(d: Desk) -> list[int]:
    """Return how many partitions each member shall have, as far as it is decided."""
    return [len(one.target) for one in d.described().members]


def test_a_step_matches_little_of_a_costly_pattern() -> None:
    d = Desk({f"t-{at}": 1 for at in range(40)})
    a = follower(d, "a", f"t-.*|{WALKED}")
    most = max(WORK_PER_STEP // compiled(WALKED).programsize, 1)
    for _ in range(40 // most):
        assert targets(d) == [0]
        d.take(d.machine.tick(d.now_ms, d.wall_ms))
    d.settle(a)
    assert len(a.owned) == 40


def test_new_topics_are_matched_later_if_all_patterns_are_too_much_for_a_step() -> None:
    d = desk()
    a, b = follower(d, "a", f"new-.*|{WALKED}"), follower(d, "b", f"new-[0-9]|{WALKED}")
    d.settle(a, b)
    d.run(1_000)
    d.create(*(f"new-{at}" for at in range(9)), partitions=1)
    assert targets(d) == [0, 0]
    d.delete("new-0")
    d.settle(a, b)
    assert len(a.owned) + len(b.owned) == 8


@pytest.mark.parametrize("pattern", [WALKED * 2, r"(?i)[\p{L}]{40}"])
def test_a_pattern_with_a_large_program_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidPatternError, match="too large"):
        compiled(pattern)


def test_a_shard_takes_so_many_different_patterns() -> None:
    d = desk(patterns_max=2)
    a, b = follower(d, "a", "eu-.*"), follower(d, "b", "us-.*")
    with pytest.raises(OverloadedError, match="2 different patterns"):
        follower(d, "c", "cn-.*")
    with pytest.raises(OverloadedError):
        a.send(topics=frozenset(), pattern="cn-.*")
    follower(d, "c", "us-.*").leave()
    b.leave()
    follower(d, "d", "cn-.*")


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


# -- rights


ALICE, BOB = Principal("User", "alice"), Principal("User", "bob")


def principals(d: Desk, *forbidden: tuple[str, str]) -> tuple[Member, Member]:
    """Return a member of Alice and one of Bob, with the same pattern."""
    d.forbidden |= {*forbidden}
    every = Subscription(frozenset(), ".*orders")
    members = (Member(d, "a", every, principal=ALICE), Member(d, "b", every, principal=BOB))
    for member in members:
        member.join()
    d.settle(*members)
    return members


def test_a_pattern_matches_only_topics_that_its_member_may_describe() -> None:
    d = Desk({"eu-orders": 4, "us-orders": 4})
    a, b = principals(d, ("alice", "eu-orders"), ("bob", "us-orders"), ("bob", "cn-orders"))
    assert (a.owned, b.owned) == (d.of("us-orders"), d.of("eu-orders"))
    d.create("cn-orders", partitions=1)
    d.settle(a, b)
    assert (a.owned, b.owned) == (d.of("us-orders") | d.of("cn-orders"), d.of("eu-orders"))


def test_a_topic_that_no_member_may_describe_is_read_by_none() -> None:
    d = desk()
    a, b = principals(d, ("alice", "us-orders"), ("bob", "us-orders"))
    assert a.owned | b.owned == d.of("eu-orders")


def test_rights_that_are_given_or_withdrawn_act_within_the_check_interval() -> None:
    d = Desk({"eu-orders": 4, "us-orders": 8}, offsets_check_interval_ms=10_000, names_per_step=1)
    a, b = principals(d, ("alice", "us-orders"))
    assert (a.owned, b.owned) == (d.of("eu-orders"), d.of("us-orders"))
    d.forbidden.clear()
    d.run(10_000)
    d.settle(a, b)
    assert (len(a.owned), len(b.owned)) == (6, 6)
    d.forbidden.add(("bob", "us-orders"))
    d.run(10_000)
    d.settle(a, b)
    # The topics of the group are the same as before, so they alone would not tell.
    assert (a.owned, b.owned) == (d.of("us-orders"), d.of("eu-orders"))


def test_a_failover_does_not_show_a_member_what_it_may_not_describe() -> None:
    d = Desk({"eu-orders": 4, "us-orders": 4})
    a, b = principals(d, ("alice", "us-orders"))
    log = [*d.log]
    d.fail_over()
    d.run(1_000)
    a.reopen()
    d.run(1_000)
    b.reopen()
    d.settle(a, b)
    assert d.log == log, "nothing moves"


def test_a_member_that_was_not_heard_after_a_failover_keeps_its_share() -> None:
    d = Desk({"eu-orders": 4, "us-orders": 4, "cn-orders": 4})
    a, b = principals(d, ("alice", "us-orders"))
    share = a.owned
    b.leave()
    d.fail_over()
    d.run(1_000)
    target = d.described().members[0].target
    assert target.isdisjoint(d.of("us-orders"))
    assert share <= target
    a.reopen()
    d.settle(a)
    assert a.owned == d.of("eu-orders") | d.of("cn-orders")


def test_what_was_assigned_before_all_members_were_heard_is_assigned_again() -> None:
    d = Desk({"eu-orders": 4, "us-orders": 1})
    a, b = principals(d, ("alice", "us-orders"))
    others = [d.joined(name, "eu-orders") for name in "cde"]
    d.settle(a, b, *others)
    assert b.owned == d.of("us-orders"), "what the new coordinator knows of its rights"
    for other in others:
        other.leave()
    d.fail_over()
    a.reopen()
    d.run(1_000)
    b.reopen()
    d.settle(a, b)
    assert (len(a.owned), len(b.owned)) == (3, 2)


def test_a_shard_counts_the_same_pattern_of_another_principal_as_another_one() -> None:
    d = desk(patterns_max=1)
    follower(d, "a", "eu-.*")
    with pytest.raises(OverloadedError):
        Member(d, "b", Subscription(frozenset(), "eu-.*"), principal=BOB).join()
