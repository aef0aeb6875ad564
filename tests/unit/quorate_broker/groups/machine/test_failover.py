"""Another coordinator replays the log: nothing moves, nothing is lost, whatever compaction left."""

from __future__ import annotations

import random

import pytest

from quorate.errors import FencedMemberEpochError, UnsupportedError
from quorate_broker.groups.machine.config import GroupsConfig
from quorate_broker.groups.machine.shard import ShardMachine
from tests.harness.group_desk import Desk, Member


def trio(d: Desk) -> list[Member]:
    """Return three members at rest that have committed."""
    members = [d.joined(name, "orders") for name in ("a", "b", "c")]
    d.settle(*members)
    for member in members:
        d.commit(dict.fromkeys(member.owned, 11), member)
    return members


@pytest.mark.parametrize("is_compacted", [False, True])
def test_a_new_coordinator_moves_nothing_and_loses_no_offset(is_compacted: bool) -> None:
    d = Desk({"orders": 6})
    members = trio(d)
    offsets, log = d.every_offset(), [*d.log]
    described = d.described()
    d.fail_over(d.compacted() if is_compacted else None)
    assert d.described() == described
    for member in members:
        member.reopen()
    d.settle(*members)
    assert d.every_offset() == offsets
    assert d.log == log


def test_a_member_goes_on_giving_back_at_the_new_coordinator() -> None:
    d = Desk({"orders": 6})
    a = d.joined("a", "orders")
    d.settle(a)
    b = d.joined("b", "orders")
    d.run(1_000)
    d.fail_over()
    # It heard at the old coordinator that it must give back, and says at the new one that it has.
    a.owned = frozenset(list(a.owned)[:3])
    state = a.reopen()
    assert b.target == frozenset()
    assert state.assignment is not None
    b.reopen()
    d.settle(a, b)
    assert [len(a.owned), len(b.owned)] == [3, 3]


def test_sessions_begin_anew() -> None:
    d = Desk({"orders": 6})
    a, b, c = trio(d)
    d.run(40_000)
    d.fail_over()
    d.run(10_000)
    a.reopen()
    b.reopen()
    d.run(34_000)
    a.send()
    b.send()
    d.run(2_000)
    d.settle(a, b)
    assert len(a.owned) + len(b.owned) == 6
    with pytest.raises(FencedMemberEpochError):
        # It never came, so it has no stream here to be told on.
        d.beat(c.heartbeat(member_id="a"))


def test_every_order_of_keys_and_every_gap_that_compaction_leaves_give_the_same_group() -> None:
    d = Desk({"orders": 6})
    a, _, _ = trio(d)
    a.leave()
    d.run(1_000)
    whole = [*d.log]
    last = {record.key: record for record in whole}
    rng = random.Random(5)
    expected = None
    for _ in range(50):
        # Of each key, the last record and any of the older ones, each key in its order.
        kept = [one for one in whole if one is last[one.key] or rng.random() < 0.5]
        at = {key: [one for one in kept if one.key == key] for key in last}
        order = [one.key for one in kept]
        rng.shuffle(order)
        d.fail_over([at[key].pop(0) for key in order])
        described = d.described()
        offsets = d.every_offset()
        assert expected in (None, (described, offsets))
        expected = described, offsets


def test_tombstones_of_groups_that_are_not_there_and_records_of_others_are_passed_over() -> None:
    d = Desk({"orders": 6})
    trio(d)
    machine = ShardMachine(GroupsConfig(), d.topics)
    for record in d.log:
        machine.replay(record.key, None)
    # A group of Kafka's "streams" protocol.
    machine.replay(bytes.fromhex("0011000167"), b"streams")
    assert machine.list_groups().answer == ()


def test_a_value_of_a_newer_program_is_not_passed_over() -> None:
    d = Desk({"orders": 6})
    trio(d)
    machine = ShardMachine(GroupsConfig(), d.topics)
    with pytest.raises(UnsupportedError):
        machine.replay(d.log[0].key, b"\0\x63")


def test_an_assignment_that_was_due_is_made_by_the_new_coordinator() -> None:
    d = Desk({"orders": 6}, assignment_interval_ms=1_000)
    a = d.joined("a", "orders")
    d.settle(a)
    b, c = d.joined("b", "orders"), d.joined("c", "orders")
    d.fail_over()
    for member in (a, b, c):
        member.reopen()
    d.settle(a, b, c)
    assert [len(one.owned) for one in (a, b, c)] == [2, 2, 2]


def test_groups_open_when_they_are_needed_and_members_that_never_come_back_are_removed() -> None:
    d = Desk({"orders": 6})
    trio(d)
    d.fail_over()
    d.run(46_000)
    described = d.described()
    assert (described.state, described.members) == ("Empty", ())
