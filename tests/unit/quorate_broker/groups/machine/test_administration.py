"""What administrators see of groups, and do with them."""

from __future__ import annotations

import pytest

from quorate.errors import FencedMemberEpochError, GroupNotFoundError, NonEmptyGroupError
from quorate_broker.groups.machine.values import ListedGroup, RemoveMembers
from tests.harness.group_desk import GROUP, Desk


def phases(d: Desk) -> list[ListedGroup]:
    return [*d.take(d.machine.list_groups())]


def test_groups_are_listed_with_their_state() -> None:
    d = Desk({"orders": 4})
    d.commit(dict.fromkeys(d.of("orders"), 1), group_id="only-offsets")
    a = d.joined("a", "orders")
    assert phases(d) == [
        ListedGroup("g", "Stable", "consumer", 1),
        ListedGroup("only-offsets", "Empty", "", 0),
    ]
    d.settle(a)
    b = d.joined("b", "orders")
    assert phases(d)[0].state == "Reconciling"
    c = d.joined("c", "orders")
    assert phases(d)[0].state == "Assigning"
    c.leave()
    d.settle(a, b)
    assert phases(d)[0].state == "Stable"
    a.leave()
    b.leave()
    assert phases(d)[0] == ListedGroup("g", "Empty", "consumer", 0)


def test_a_group_is_described_with_members_client_host_assignment_and_target() -> None:
    d = Desk({"orders": 4})
    a = d.joined("a", "orders", rack="r")
    d.settle(a)
    b = d.joined("b", "orders", instance_id="i")
    d.run(1_000)
    described = d.described()
    one, two = described.members
    assert (one.member_id, one.client_id, one.client_host) == ("a", "client-a", "10.0.0.1")
    assert (one.rack, two.instance_id) == ("r", "i")
    assert (one.assignment, len(one.target)) == (d.of("orders"), 2)
    assert (two.assignment, len(two.target)) == (frozenset(), 2)
    assert (described.group_epoch, described.assignment_epoch) == (2, 2)
    d.settle(a, b)


def test_a_group_that_is_not_there_is_not_found() -> None:
    d = Desk({"orders": 4})
    with pytest.raises(GroupNotFoundError):
        d.described("x")
    with pytest.raises(GroupNotFoundError):
        d.take(d.machine.delete_group("x", d.now_ms, d.wall_ms))
    with pytest.raises(GroupNotFoundError):
        d.take(d.machine.remove_members(RemoveMembers("x", all=True), d.now_ms, d.wall_ms))


def test_a_group_is_deleted_whole_and_only_without_members() -> None:
    d = Desk({"orders": 4})
    a = d.joined("a", "orders")
    d.settle(a)
    d.commit(dict.fromkeys(d.of("orders"), 1), a)
    with pytest.raises(NonEmptyGroupError, match="1 members"):
        d.take(d.machine.delete_group(GROUP, d.now_ms, d.wall_ms))
    a.leave()
    d.run(1_000)
    d.take(d.machine.delete_group(GROUP, d.now_ms, d.wall_ms))
    assert phases(d) == []
    # No record of it is left in a compacted log.
    assert [record.value for record in d.compacted() if record.value is not None] == []
    # A group of the same name begins anew.
    assert d.joined("a", "orders").epoch == 1


def test_a_group_with_many_offsets_is_deleted_in_steps() -> None:
    d = Desk({"orders": 25}, deleted_offsets_max=10)
    a = d.joined("a", "orders")
    d.settle(a)
    d.commit(dict.fromkeys(d.of("orders"), 1), a)
    a.leave()
    d.run(1_000)
    steps = [d.machine.delete_group(GROUP, d.now_ms, d.wall_ms) for _ in range(3)]
    assert [d.take(step) for step in steps] == [False, False, True]
    assert [len(step.records) for step in steps] == [10, 10, 7]
    assert phases(d) == []
    assert [record.value for record in d.compacted() if record.value is not None] == []


@pytest.mark.parametrize(
    "request_",
    [
        RemoveMembers(GROUP, member_ids=["a", "nobody"]),
        RemoveMembers(GROUP, instance_ids=["i", "none"]),
        RemoveMembers(GROUP, all=True),
    ],
)
def test_members_are_removed_by_id_by_instance_or_all(request_: RemoveMembers) -> None:
    d = Desk({"orders": 4})
    a = d.joined("a", "orders", instance_id="i")
    b = d.joined("b", "orders")
    d.settle(a, b)
    removed = d.take(d.machine.remove_members(request_, d.now_ms, d.wall_ms))
    assert removed == (("a", "b") if request_.all else ("a",))
    with pytest.raises(FencedMemberEpochError, match="administrator"):
        a.take_pushes()
    if not request_.all:
        d.settle(b)
        assert len(b.owned) == 4


def test_groups_of_one_shard_know_nothing_of_each_other() -> None:
    d = Desk({"orders": 4})
    a = d.joined("a", "orders")
    b = d.joined("a", "orders", group_id="other")
    d.settle(a)
    d.settle(b)
    assert a.owned == b.owned == d.of("orders")
    d.commit(dict.fromkeys(d.of("orders"), 1), a)
    assert d.committed(*d.of("orders"), group_id="other") == [None] * 4
