"""The assignor "client": one member computes, the coordinator checks, and never waits for ever."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from quorate.errors import InvalidAssignmentError, UnsupportedAssignorError
from quorate_broker.groups.assignors.values import PartitionSet
from quorate_broker.groups.machine.values import LEAVE_STATIC, Task
from tests.harness.group_desk import Desk, Member


def pair(**config: int) -> tuple[Desk, Member, Member]:
    """Return two members that bring an assignor. The first one has the task."""
    d = Desk({"orders": 4, "bills": 2}, **config)
    a, b = (d.joined(name, "orders", assignor="client") for name in ("a", "b"))
    d.run(d.config.assignment_interval_ms)
    a.take_pushes()
    b.take_pushes()
    return d, a, b


def test_a_member_is_asked_and_its_proposal_is_carried_out() -> None:
    d, a, b = pair()
    assert a.task is not None
    assert b.task is None
    assert [member.member_id for member in a.task.members] == ["a", "b"]
    assert [(topic.name, topic.partitions) for topic in a.task.topics] == [("orders", 4)]
    a.propose({"a": d.of("orders", 0), "b": d.of("orders", 1, 2, 3)})
    d.settle(a, b)
    assert (len(a.owned), len(b.owned)) == (1, 3)
    assert d.described().assignor == "client"


Nonsense = Callable[[Desk, Task], Mapping[str, PartitionSet]]
NONSENSE: dict[str, Nonsense] = {
    "has no member": lambda d, task: {"x": d.of("orders")},
    "none of the task's": lambda d, task: {"a": d.of("orders") | d.of("orders", 9)},
    "none of the task's, either": lambda d, task: {"a": d.of("orders") | d.of("bills", 0)},
    "was given to 'a' and 'b'": lambda d, task: {"a": d.of("orders"), "b": d.of("orders", 1)},
    "was given to no member": lambda d, task: {"a": d.of("orders", 0, 1)},
}


@pytest.mark.parametrize("found", NONSENSE)
def test_nonsense_is_refused_and_the_group_goes_on_with_the_default(found: str) -> None:
    d, a, b = pair()
    assert a.task is not None
    with pytest.raises(InvalidAssignmentError, match=found.partition(",")[0]):
        a.propose(NONSENSE[found](d, a.task))
    d.settle(a, b)
    assert (len(a.owned), len(b.owned)) == (2, 2)


def test_partitions_go_only_to_members_that_subscribe_to_them() -> None:
    d = Desk({"orders": 2, "bills": 2})
    a, b = d.joined("a", "orders", assignor="client"), d.joined("b", "bills", assignor="client")
    d.run(d.config.assignment_interval_ms)
    a.take_pushes()
    with pytest.raises(InvalidAssignmentError, match="does not subscribe"):
        a.propose({"a": d.of("orders") | d.of("bills", 0), "b": d.of("bills", 1)})
    d.settle(a, b)
    assert (a.owned, b.owned) == (d.of("orders"), d.of("bills"))


def test_a_member_that_does_not_answer_holds_nobody_up() -> None:
    d, a, b = pair(proposal_timeout_ms=2_000)
    d.run(2_000)
    d.settle(a, b)
    assert (len(a.owned), len(b.owned)) == (2, 2)


def test_a_proposal_for_an_older_epoch_is_passed_over() -> None:
    d, a, b = pair()
    old = a.task
    c = d.joined("c", "orders", assignor="client")
    d.run(d.config.assignment_interval_ms)
    a.task = old
    a.propose({"a": d.of("orders")})
    a.take_pushes()
    assert a.task is not None
    a.propose({"a": d.of("orders"), "b": frozenset(), "c": frozenset()})
    d.settle(a, b, c)
    assert len(a.owned) == 4


def test_when_the_asked_member_is_gone_another_is_asked() -> None:
    d, a, b = pair()
    a.leave()
    d.run(d.config.assignment_interval_ms)
    b.take_pushes()
    assert b.task is not None
    b.propose({"b": d.of("orders")})
    d.settle(b)
    assert len(b.owned) == 4


def test_a_member_that_opens_another_stream_gets_its_task_again() -> None:
    d, a, b = pair()
    a.lose_stream()
    a.task = None
    a.reopen()
    a.propose({"a": d.of("orders"), "b": frozenset()})
    d.settle(a, b)
    assert len(a.owned) == 4


def test_a_static_member_that_comes_back_during_a_task_is_in_the_next_one() -> None:
    d = Desk({"orders": 4})
    a = d.joined("a", "orders", assignor="client")
    b = d.joined("b1", "orders", assignor="client", instance_id="b")
    d.run(d.config.assignment_interval_ms)
    a.take_pushes()
    old = a.task
    b.leave(LEAVE_STATIC)
    again = d.joined("b2", "orders", assignor="client", instance_id="b")
    a.task = old
    a.propose({"a": d.of("orders", 0), "b1": d.of("orders", 1, 2, 3)})
    d.run(d.config.assignment_interval_ms)
    a.take_pushes()
    a.propose({"a": d.of("orders", 0), "b2": d.of("orders", 1, 2, 3)})
    d.settle(a, again)
    assert [len(a.owned), len(again.owned)] == [1, 3]


def test_a_new_coordinator_asks_again() -> None:
    d, a, b = pair()
    d.fail_over()
    a.task = None
    a.reopen()
    b.reopen()
    d.run(d.config.assignment_interval_ms)
    a.take_pushes()
    d.settle(a, b)
    assert len(a.owned) + len(b.owned) == 4


def test_the_assignor_that_most_members_want_is_used() -> None:
    d = Desk({"orders": 5, "bills": 5})
    members = [
        d.joined("a", "orders", "bills", assignor="range"),
        d.joined("b", "orders", "bills", assignor="range"),
        d.joined("c", "orders", "bills", assignor="uniform"),
    ]
    d.settle(*members)
    assert d.described().assignor == "range"
    assert sorted(len(member.owned) for member in members) == [2, 4, 4]


def test_members_that_come_and_go_do_not_put_a_silent_assignor_s_time_off() -> None:
    d = Desk({"orders": 4})
    a = d.joined("a", "orders", assignor="client")
    members = [a]
    for at in range(4):
        d.run(2_000)
        members.append(d.joined(f"b-{at}", "orders"))
    d.run(1_000)
    for member in members:
        member.catch_up()
    assert sum(len(member.target) for member in members) > 0


def test_an_unknown_assignor_is_refused() -> None:
    d = Desk({"orders": 5})
    with pytest.raises(UnsupportedAssignorError, match="uniform"):
        d.joined("a", "orders", assignor="sticky")


def test_the_rack_aware_assignor_sees_the_racks_of_replicas_and_follows_their_changes() -> None:
    d = Desk({"orders": 4})
    d.place("orders", "x", "y", "x", "y")
    a = d.joined("a", "orders", assignor="rack-uniform", rack="x")
    b = d.joined("b", "orders", assignor="rack-uniform", rack="y")
    d.settle(a, b)
    assert (a.owned, b.owned) == (d.of("orders", 0, 2), d.of("orders", 1, 3))
    d.place("orders", "y", "y", "x", "x")
    d.settle(a, b)
    assert (a.owned, b.owned) == (d.of("orders", 2, 3), d.of("orders", 0, 1))
