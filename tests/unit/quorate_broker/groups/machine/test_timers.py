"""The deadlines of a shard."""

from __future__ import annotations

import random

from quorate_broker.groups.machine.timers import SUPERSEDED_MAX, Timers
from tests.harness.group_desk import Desk


def test_members_that_have_left_leave_no_timers_behind() -> None:
    d = Desk({"orders": 1})
    a = d.member("a", "orders")
    a.join(session_timeout_ms=1_800_000)
    for at in range(SUPERSEDED_MAX):
        one = d.member(f"m-{at}", "orders")
        one.join(session_timeout_ms=1_800_000)
        one.leave()
    assert len(d.machine._shared.timers) <= SUPERSEDED_MAX + 10
    d.run(1_900_000)
    assert d.take(d.machine.list_groups()) == ()


def test_names_are_woken_once_at_their_earliest_time_and_not_after_they_are_forgotten() -> None:
    chance = random.Random(7)
    timers, due = Timers[int](), dict[int, int]()
    for now_ms in range(20_000):
        name = chance.randrange(50)
        if chance.random() < 0.4:
            timers.forget(name)
            due.pop(name, None)
        else:
            at_ms = now_ms + chance.randrange(5_000)
            timers.at(at_ms, name)
            due[name] = min(due.get(name, at_ms), at_ms)
        while (woken := timers.due(now_ms)) is not None:
            assert due.pop(woken) <= now_ms
        assert timers.next_ms() == min(due.values(), default=None)
        assert len(timers) <= 2 * len(due) + SUPERSEDED_MAX + 2
