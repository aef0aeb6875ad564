"""The member's side of KIP-848, rule by rule."""

from __future__ import annotations

import pytest

from quorate.cluster.parts import Part, from_wire, to_wire
from quorate.consumer.group.membership import Lose, MemberSettings, Membership, Revoke, Take
from quorate.errors import GroupAuthorizationFailedError
from quorate.v1.groups_pb2 import MemberHeartbeat, MembersAssignment, MemberState

A, B, C = Part(b"t" * 16, 0), Part(b"t" * 16, 1), Part(b"u" * 16, 0)


def new_member(**settings: object) -> Membership:
    member = Membership(MemberSettings("g", "m", "client", **settings))  # type: ignore[arg-type]
    member.subscribe(["t"], "")
    return member


class Link:
    """One stream of a member: numbers the states, and keeps what the member sends."""

    def __init__(self, member: Membership) -> None:
        self.member = member
        self.number = 0
        self.now_ms = 0
        member.stream_opened()

    def sent(self) -> MemberHeartbeat | None:
        return self.member.next_heartbeat(self.now_ms)

    def state(self, epoch: int, *parts: Part, unchanged: bool = False) -> None:
        self.number += 1
        state = MemberState(
            member_epoch=epoch, state_number=self.number, heartbeat_interval_ms=1000
        )
        if not unchanged:
            state.assignment.CopyFrom(to_wire(parts))
        self.member.take(state, self.now_ms)


def joined(*parts: Part, **settings: object) -> tuple[Membership, Link]:
    member = new_member(**settings)
    link = Link(member)
    assert link.sent() is not None
    link.state(1, *parts)
    if parts:
        take_up(member, *parts)
    assert link.sent() is not None
    return member, link


def take_up(member: Membership, *parts: Part) -> None:
    assert member.step() == Take(frozenset(parts))
    member.take_up(frozenset(parts))


def test_the_first_heartbeat_of_a_stream_says_everything() -> None:
    member = new_member(instance_id="i", rack="r", assignor="range", session_timeout_ms=7)
    heartbeat = Link(member).sent()
    assert heartbeat is not None
    assert (heartbeat.group_id, heartbeat.member_id, heartbeat.client_id) == ("g", "m", "client")
    assert (heartbeat.member_epoch, heartbeat.state_number) == (0, 0)
    assert (heartbeat.instance_id, heartbeat.rack, heartbeat.assignor) == ("i", "r", "range")
    assert (heartbeat.session_timeout_ms, heartbeat.rebalance_timeout_ms) == (7, 300_000)
    assert list(heartbeat.subscription.topics) == ["t"]
    assert heartbeat.HasField("owned")
    assert from_wire(heartbeat.owned) == frozenset()


def test_a_member_asks_to_join_once_on_each_stream() -> None:
    member = new_member()
    assert Link(member).sent() is not None
    assert member.due_ms(10_000_000) is None
    member.stream_ended()
    again = Link(member).sent()
    assert again is not None
    assert again.member_epoch == 0


def test_the_next_heartbeat_is_due_after_the_interval_or_with_news() -> None:
    member, link = joined(A)
    assert member.due_ms(0) == 1000
    link.now_ms = 1000
    heartbeat = link.sent()
    assert heartbeat is not None
    assert not heartbeat.HasField("owned")
    assert not heartbeat.HasField("subscription")
    member.subscribe(["t", "u"], "")
    heartbeat = link.sent()
    assert heartbeat is not None
    assert list(heartbeat.subscription.topics) == ["t", "u"]


def test_a_state_is_echoed_at_once() -> None:
    _, link = joined(A)
    link.state(2, unchanged=True)
    heartbeat = link.sent()
    assert heartbeat is not None
    assert (heartbeat.member_epoch, heartbeat.state_number) == (2, 2)
    assert not heartbeat.HasField("owned")
    assert link.sent() is None


def test_a_member_revokes_first_and_reports_when_all_is_released() -> None:
    member, link = joined(A, B)
    link.state(1, A, C)
    assert member.step() == Revoke(frozenset({B}))
    echo = link.sent()
    assert echo is not None
    assert not echo.HasField("owned"), "B is not released yet"
    member.released(frozenset({B}))
    report = link.sent()
    assert report is not None
    assert from_wire(report.owned) == {A}
    take_up(member, C)
    assert member.owned == {A, C}


def test_only_what_the_last_state_gives_may_be_taken_up() -> None:
    member, link = joined(A)
    link.state(1, A, B)
    assert member.step() == Take(frozenset({B}))
    before = member.withdrawals
    link.state(1, A, B, C)
    assert member.still_given(before)
    link.state(1, A)
    assert not member.still_given(before)
    with pytest.raises(AssertionError):
        member.take_up(frozenset({B}))


def test_a_state_of_a_broken_stream_gives_nothing_more() -> None:
    member, link = joined(A)
    link.state(1, A, B)
    before = member.withdrawals
    link = Link(member)
    assert not member.still_given(before)
    assert member.step() is None
    heartbeat = link.sent()
    assert heartbeat is not None
    assert (heartbeat.member_epoch, heartbeat.state_number) == (1, 0)
    assert from_wire(heartbeat.owned) == {A}
    link.state(1, A, B)
    assert member.step() == Take(frozenset({B}))


def test_a_fenced_member_loses_all_and_joins_when_the_program_knows_it() -> None:
    member, _ = joined(A, B)
    member.fenced()
    link = Link(member)
    assert member.owned == frozenset()
    assert member.step() == Lose(frozenset({A, B}))
    assert link.sent() is None
    member.told_lost(frozenset({A, B}))
    heartbeat = link.sent()
    assert heartbeat is not None
    assert heartbeat.member_epoch == 0
    assert from_wire(heartbeat.owned) == frozenset()


def test_what_is_revoked_while_the_member_is_fenced_is_not_lost_as_well() -> None:
    member, link = joined(A, B)
    link.state(1, A)
    assert member.step() == Revoke(frozenset({B}))
    member.fenced()
    member.released(frozenset({B}))
    assert member.step() == Lose(frozenset({A}))


@pytest.mark.parametrize(("instance_id", "epoch"), [("", -1), ("i", -2)])
def test_a_member_leaves_after_it_has_given_everything_back(instance_id: str, epoch: int) -> None:
    member, link = joined(A, instance_id=instance_id)
    member.leave()
    assert link.sent() is None
    assert member.step() == Revoke(frozenset({A}))
    member.released(frozenset({A}))
    heartbeat = link.sent()
    assert heartbeat is not None
    assert heartbeat.member_epoch == epoch
    assert link.sent() is None
    member.left()
    assert member.due_ms(0) is None


def test_a_leaving_member_keeps_its_session_and_takes_nothing() -> None:
    member, link = joined(A)
    member.leave()
    link.now_ms = 1000
    heartbeat = link.sent()
    assert heartbeat is not None
    assert heartbeat.member_epoch == 1
    link.state(2, A, B)
    assert member.step() == Revoke(frozenset({A}))
    assert member.epoch == 2


def test_a_silent_program_loses_all_at_once_and_joins_when_it_asks() -> None:
    member, link = joined(A, instance_id="i")
    member.fell_silent()
    heartbeat = link.sent()
    assert heartbeat is not None
    assert heartbeat.member_epoch == -1, "also a static member gives its partitions to others"
    assert member.step() == Lose(frozenset({A}))
    member.left()
    member.told_lost(frozenset({A}))
    assert member.due_ms(0) is None
    member.resume()
    assert member.phase == "joining"


def test_a_new_subscription_while_it_leaves_joins_again() -> None:
    member, _ = joined()
    member.leave()
    member.subscribe(["u"], "")
    member.left()
    assert member.phase == "joining"


def test_a_join_that_was_not_answered_is_taken_back() -> None:
    member = new_member()
    link = Link(member)
    assert link.sent() is not None
    member.leave()
    heartbeat = link.sent()
    assert heartbeat is not None
    assert heartbeat.member_epoch == -1


def test_a_session_without_news_has_ended() -> None:
    member, link = joined(A, session_timeout_ms=6000)
    assert not member.session_has_ended(5999)
    assert member.session_has_ended(6000)
    link.now_ms = 3000
    link.state(1, unchanged=True)
    assert not member.session_has_ended(8999)


def test_a_refused_member_is_out_until_it_subscribes_again() -> None:
    member, _ = joined(A)
    error = GroupAuthorizationFailedError("no")
    member.fail(error)
    assert member.failure is error
    assert member.step() == Lose(frozenset({A}))
    assert member.due_ms(0) is None
    member.told_lost(frozenset({A}))
    member.subscribe(["t"], "")
    assert member.failure is None
    assert member.phase == "joining"


def test_a_proposal_is_sent_once() -> None:
    member, link = joined(A)
    member.propose(MembersAssignment(group_epoch=3))
    heartbeat = link.sent()
    assert heartbeat is not None
    assert heartbeat.proposal.group_epoch == 3
    assert link.sent() is None


def test_partitions_on_the_wire_are_grouped_by_topic() -> None:
    message = to_wire([B, C, A])
    assert [(one.topic_id, list(one.partitions)) for one in message.topics] == [
        (b"t" * 16, [0, 1]),
        (b"u" * 16, [0]),
    ]
    assert from_wire(message) == {A, B, C}
