"""Classic groups: what a member may not take from others, by size, by time, or by asking."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest

from quorate.errors import (
    CoordinatorLoadingError,
    InvalidRequestError,
    InvalidSessionTimeoutError,
    OverloadedError,
    QuorateError,
    RebalanceInProgressError,
    RecordTooLargeError,
)
from quorate_broker.groups.machine.classic.values import LeaveGroup, Leaving
from tests.harness.classic_desk import ClassicDesk
from tests.harness.group_desk import GROUP

DAY_MS = 86_400_000


def idle(*, is_classic: bool = False) -> ClassicDesk:
    """Return a group whose last member has gone just now, with an offset that is 10 days old."""
    d = ClassicDesk()
    d.commit(dict.fromkeys(d.of("orders"), 7))
    d.now_ms += 10 * DAY_MS
    if is_classic:
        member = d.classic("old")
        d.stable(member)
        member.leave()
    else:
        native = d.joined("old", "orders")
        d.settle(native)
        native.leave()
    return d


def refused(d: ClassicDesk) -> None:
    member = d.classic("new")
    member.protocols = ()
    with suppress(QuorateError):
        member.join()


def named_only(d: ClassicDesk) -> None:
    member = d.classic("new", is_id_required=True)
    d.take(d.machine.join_group(member.request(), 77, d.now_ms, d.wall_ms))


def joined_and_gone(d: ClassicDesk) -> None:
    member = d.classic("new")
    member.join()


def native_refused(d: ClassicDesk) -> None:
    with suppress(QuorateError):
        d.joined("new", "orders", session_timeout_ms=1)


@pytest.mark.parametrize("fails_over", [False, True])
@pytest.mark.parametrize("is_classic", [False, True])
@pytest.mark.parametrize("come", [refused, named_only, joined_and_gone, native_refused])
def test_offsets_do_not_expire_because_a_member_of_the_other_protocol_came(
    *, come: Callable[[ClassicDesk], None], is_classic: bool, fails_over: bool
) -> None:
    """Since when a group is empty stands in the records of the protocol that it had."""
    d = idle(is_classic=is_classic)
    d.run(60_000)
    come(d)
    if fails_over:
        d.fail_over(d.compacted())
    d.run(30 * 60_000)
    assert set(d.committed(*d.of("orders"))) == {7}


def test_followers_are_answered_when_the_assignment_of_the_leader_is_too_large() -> None:
    d = ClassicDesk(classic_group_bytes_max=10_000)
    a, b = d.classic("a"), d.classic("b")
    a.join()
    b.join()
    d.run(6_000)
    a.take_join(), b.take_join()
    b.sync()
    a.sync({b.id: b"x" * 20_000})
    with pytest.raises(RecordTooLargeError):
        a.take_sync()
    with pytest.raises(RebalanceInProgressError):
        b.take_sync()


def test_the_type_of_a_group_is_that_of_its_first_member_that_is_there() -> None:
    d = ClassicDesk()
    worker = d.classic("worker", protocol_type="connect")
    worker.join()
    worker.id = "worker-1"
    worker.leave()
    b = d.classic("b")
    d.stable(b)
    assert b.answer is not None
    assert b.answer.protocol_type == "consumer"


def test_static_members_that_are_away_cost_no_ticks() -> None:
    d = ClassicDesk(initial_rebalance_delay_ms=0)
    a = d.classic("a", instance_id="i", session_timeout_ms=60_000, rebalance_timeout_ms=1)
    d.stable(a)
    d.classic("b", rebalance_timeout_ms=1).join()
    ticks = 0
    until_ms = d.now_ms + 10_000
    while (due_ms := d.machine.deadline()) is not None and due_ms <= until_ms:
        d.now_ms = max(d.now_ms, due_ms)
        d.take(d.machine.tick(d.now_ms, d.wall_ms))
        ticks += 1
    assert ticks < 10, "b is removed, and the round of the one that is away waits"
    assert d.phase() == "PreparingRebalance"
    a.join()
    assert a.take_join().leader == a.id, "the round was overdue"


def test_names_count_as_metadata_does() -> None:
    d = ClassicDesk(classic_group_bytes_max=10_000)
    a = d.classic("a")
    a.join()
    with pytest.raises(RecordTooLargeError):
        d.classic("b" * 1_000, instance_id="i" * 1_000, protocols=(("range", b"x" * 8_000),)).join()
    a.protocols = tuple((f"p{i}", b"") for i in range(101))
    with pytest.raises(InvalidRequestError, match="101 protocols"):
        a.join()


def test_all_groups_of_a_coordinator_together_have_a_bound_that_leaving_frees() -> None:
    d = ClassicDesk(classic_shard_bytes_max=10_000)
    members = [
        d.classic(f"m{i}", group_id=f"g{i}", protocols=(("range", b"x" * 4_000),)) for i in range(3)
    ]
    members[0].join()
    members[1].join()
    with pytest.raises(OverloadedError):
        members[2].join()
    members[0].id = "m0-1"
    members[0].leave()
    members[2].join()


def test_a_deletion_in_steps_goes_on_by_itself_and_nobody_joins_meanwhile() -> None:
    d = ClassicDesk({"orders": 25}, deleted_offsets_max=10)
    d.commit(dict.fromkeys(d.of("orders"), 1))
    assert d.take(d.machine.delete_group(GROUP, d.now_ms, d.wall_ms)) is False
    with pytest.raises(CoordinatorLoadingError):
        d.classic("a").join()
    with pytest.raises(CoordinatorLoadingError):
        d.joined("native", "orders")
    with pytest.raises(CoordinatorLoadingError):
        d.commit(dict.fromkeys(d.of("orders"), 1))
    d.run(1_000)
    assert d.phase() == "none"
    d.stable(d.classic("a"))


@pytest.mark.parametrize("ms", [5_999, 1_800_001])
def test_a_session_timeout_outside_of_what_is_allowed_is_refused(ms: int) -> None:
    with pytest.raises(InvalidSessionTimeoutError):
        ClassicDesk().classic("a", session_timeout_ms=ms).join()


def test_a_request_to_leave_names_no_more_members_than_a_group_has() -> None:
    d = ClassicDesk()
    request = LeaveGroup(GROUP, [Leaving("x")] * 1_001)
    with pytest.raises(InvalidRequestError, match="1001 members"):
        d.take(d.machine.leave_group(request, d.now_ms, d.wall_ms))
