"""Groups with classic members, members that poll, and members with a stream."""

from __future__ import annotations

import pytest

from quorate.errors import (
    FencedInstanceIdError,
    FencedMemberEpochError,
    GroupMaxSizeError,
    IllegalGenerationError,
    InconsistentGroupProtocolError,
    InvalidPatternError,
    OverloadedError,
    RebalanceInProgressError,
    RecordTooLargeError,
    UnknownMemberIdError,
)
from quorate_broker.groups.machine import conversion
from quorate_broker.groups.machine.classic.values import LeaveGroup, Leaving
from quorate_broker.groups.machine.values import (
    CommitOffsets,
    OffsetCommit,
    RemoveMembers,
    Subscription,
)
from tests.harness.classic_desk import ClassicDesk, ClassicMember
from tests.harness.embedded_members import EmbeddedMember, calm
from tests.harness.group_desk import GROUP, Member
from tests.harness.polled_members import PolledMember, polled

KINDS = pytest.mark.parametrize("is_cooperative", [False, True], ids=["eager", "cooperative"])


def desk(**config: int) -> ClassicDesk:
    return ClassicDesk({"orders": 6}, initial_rebalance_delay_ms=0, **config)


def classic_pair(d: ClassicDesk, *, is_cooperative: bool = False) -> list[EmbeddedMember]:
    """Return two classic members in a stable generation."""
    pair = [EmbeddedMember(d, name, "orders", is_cooperative=is_cooperative) for name in "ab"]
    calm(d, *pair)
    assert [len(one.owned) for one in pair] == [3, 3]
    assert d.phase() == "Stable"
    return pair


def kind_of(d: ClassicDesk) -> str:
    """Return the protocol of the group."""
    (listed,) = d.take(d.machine.list_groups())
    return str(listed.protocol)


def check_shared(d: ClassicDesk, *members: EmbeddedMember | Member) -> None:
    """Every partition has one owner, and the shares are equal."""
    owned = [one for member in members for one in member.owned]
    assert sorted(owned) == sorted(d.of("orders"))
    sizes = [len(member.owned) for member in members]
    assert max(sizes) - min(sizes) <= 1


@KINDS
def test_members_of_three_kinds_share_the_partitions(is_cooperative: bool) -> None:
    d = desk()
    a, b = classic_pair(d, is_cooperative=is_cooperative)
    c = polled(d, "c", "orders")
    assert kind_of(d) == "consumer"
    calm(d, a, b, c)
    check_shared(d, a, b, c)
    e = d.joined("e", "orders")
    calm(d, a, b, c, e)
    check_shared(d, a, b, c, e)
    assert d.described().state == "Stable"
    assert {one.member_id: one.is_classic for one in d.described().members} == {
        a.id: True,
        b.id: True,
        "c": False,
        "e": False,
    }


@KINDS
def test_the_group_is_classic_again_when_the_last_other_member_has_left(
    is_cooperative: bool,
) -> None:
    d = desk()
    a, b = classic_pair(d, is_cooperative=is_cooperative)
    c = polled(d, "c", "orders")
    calm(d, a, b, c)
    c.leave()
    assert kind_of(d) == "classic"
    calm(d, a, b)
    check_shared(d, a, b)
    assert d.phase() == "Stable"


def test_the_group_is_classic_again_when_the_last_other_member_is_silent_or_removed() -> None:
    for is_removed in (False, True):
        d = desk(session_timeout_ms=5_000)
        a, b = classic_pair(d)
        c = polled(d, "c", "orders")
        calm(d, a, b, c)
        if is_removed:
            request = RemoveMembers(GROUP, ["c"])
            d.take(d.machine.remove_members(request, d.now_ms, d.wall_ms))
        else:
            for _ in range(6):
                d.run(1_000)
                a.go_on()
                b.go_on()
        assert kind_of(d) == "classic"
        calm(d, a, b)
        check_shared(d, a, b)


@KINDS
def test_a_classic_member_joins_a_group_of_the_consumer_protocol(is_cooperative: bool) -> None:
    d = desk()
    c, e = polled(d, "c", "orders"), d.joined("e", "orders")
    d.settle(c, e)
    a = EmbeddedMember(d, "a", "orders", is_cooperative=is_cooperative)
    calm(d, c, e, a)
    check_shared(d, a, c, e)
    a.leave()
    calm(d, c, e)
    check_shared(d, c, e)
    assert d.phase() == "Stable"


def test_a_partition_is_given_only_after_a_classic_member_has_given_it_back() -> None:
    d = desk()
    a, b = classic_pair(d, is_cooperative=True)
    c = polled(d, "c", "orders")
    d.run(1_000)
    for _ in range(3):
        c.catch_up()
    assert c.target == frozenset()
    with pytest.raises(RebalanceInProgressError):
        a.beat()
    a.forget_call()
    a.begin()
    a.take_join()
    a.sync({})
    # It knows now what it shall give back, and has not done so.
    for _ in range(3):
        c.catch_up()
    assert c.target == frozenset()
    before = a.owned
    a.go_on()
    a.begin()
    c.catch_up()
    c.catch_up()
    assert c.owned == before - a.owned != frozenset()
    calm(d, a, b, c)
    check_shared(d, a, b, c)


def test_a_failover_of_a_mixed_group_moves_nothing() -> None:
    d = desk()
    a, b = classic_pair(d)
    c = polled(d, "c", "orders")
    calm(d, a, b, c)
    before = [one.owned for one in (a, b, c)]
    d.fail_over(d.compacted())
    c.connect()
    calm(d, a, b, c)
    assert [one.owned for one in (a, b, c)] == before
    assert (a.generation, b.generation) == (c.epoch, c.epoch)
    for _ in range(100):
        d.run(3_000)
        for one in (a, b):
            one.beat()
        c.send()
    assert len(d.described().members) == 3


def test_a_classic_member_commits_in_its_generation_for_its_own_partitions() -> None:
    d = desk()
    a, b = classic_pair(d)
    c = polled(d, "c", "orders")
    calm(d, a, b, c)

    def commit(generation: int) -> set[object]:
        offsets = [OffsetCommit(one, 7) for one in sorted(d.of("orders"))]
        request = CommitOffsets(GROUP, offsets, a.id, generation)
        answer = d.take(d.machine.commit_offsets(request, d.now_ms, d.wall_ms))
        assert {type(one) for one in answer.refused.values()} <= {RebalanceInProgressError}
        return {*answer.refused}

    assert commit(a.generation) == d.of("orders") - a.owned
    with pytest.raises(IllegalGenerationError):
        commit(a.generation - 1)


@pytest.mark.parametrize("has_settled", [False, True])
def test_a_classic_member_that_does_not_join_again_in_time_is_removed(*, has_settled: bool) -> None:
    """The time begins with the conversion, and again with each later heartbeat that is told so."""
    d = desk()
    a, b = classic_pair(d)
    for one in (a, b):
        one.rebalance_timeout_ms = 5_000
    a.forget_call()
    calm(d, a, b)
    polling = [polled(d, "c", "orders")]
    if has_settled:
        calm(d, a, b, *polling)
        polling.append(polled(d, "e", "orders"))
    with pytest.raises(RebalanceInProgressError):
        a.beat()
    for _ in range(7):
        d.run(1_000)
        b.go_on()
        for member in polling:
            member.catch_up()
        if a.id in {one.member_id for one in d.described().members}:
            with pytest.raises(RebalanceInProgressError):
                a.beat()
    with pytest.raises(UnknownMemberIdError):
        a.beat()


def test_a_silent_classic_member_is_removed_when_its_own_session_ends() -> None:
    d = desk()
    a, b = classic_pair(d)
    c = polled(d, "c", "orders")
    calm(d, a, b, c)
    for _ in range(11):
        d.run(1_000)
        b.go_on()
        c.catch_up()
    with pytest.raises(UnknownMemberIdError):
        a.beat()
    calm(d, b, c)
    check_shared(d, b, c)


def test_members_that_wait_in_a_round_are_told_to_join_again() -> None:
    d = ClassicDesk({"orders": 6}, initial_rebalance_delay_ms=3_000)
    a = EmbeddedMember(d, "a", "orders")
    a.begin()
    assert a.waits
    c = polled(d, "c", "orders")
    with pytest.raises(RebalanceInProgressError):
        a.take_join()
    calm(d, a, c)
    check_shared(d, a, c)


def test_a_static_name_goes_from_one_protocol_to_the_other() -> None:
    d = desk()
    a = EmbeddedMember(d, "a", "orders", instance_id="i")
    b = EmbeddedMember(d, "b", "orders")
    calm(d, a, b)
    again = PolledMember(d, "again", "orders", instance_id="i")
    again.join()
    with pytest.raises(FencedInstanceIdError):
        a.beat()
    calm(d, b, again)
    check_shared(d, b, again)
    back = EmbeddedMember(d, "back", "orders", instance_id="i")
    calm(d, b, back)
    assert kind_of(d) == "classic"
    check_shared(d, b, back)


@pytest.mark.parametrize(
    "fields",
    [
        {"protocol_type": "connect"},
        {"protocols": (("range", b"x"),)},
        {"protocols": (("range", b"\xff\xff\0\0\0\0"),)},
    ],
)
def test_other_programs_than_consumers_keep_a_group_for_themselves(
    fields: dict[str, object],
) -> None:
    d = desk()
    a = ClassicMember(d, "a", **fields)  # type: ignore[arg-type]
    d.stable(a)
    written = len(d.log)
    with pytest.raises(InconsistentGroupProtocolError):
        polled(d, "c", "orders")
    a.beat()
    assert len(d.log) == written
    other = ClassicDesk({"orders": 6})
    polled(other, "c", "orders")
    with pytest.raises(InconsistentGroupProtocolError):
        ClassicMember(other, "a", **fields).join()  # type: ignore[arg-type]


def test_a_partition_that_a_leader_gave_to_two_members_is_not_taken_over() -> None:
    d = desk()
    a, b = classic_pair(d)
    a.forget_call()
    calm(d, a, b, rounds=1)
    for one in (a, b):
        one.forget_call()
        one.begin()
    answers = [one.take_join() for one in (a, b)]
    leader = next(one for one in (a, b) if one.leads)
    both = leader.plan()
    leader.sync(dict.fromkeys(both, both[leader.id]))
    assert answers
    with pytest.raises(InconsistentGroupProtocolError, match="two members"):
        polled(d, "c", "orders")


def test_what_classic_members_tell_is_bounded() -> None:
    d = desk(classic_group_bytes_max=300)
    c = polled(d, "c", "orders")
    a = EmbeddedMember(d, "a", "orders", *(f"topic-{at}" for at in range(20)))
    with pytest.raises(RecordTooLargeError):
        a.begin()
    c.send()


def test_a_call_of_the_other_protocol_is_refused() -> None:
    d = desk()
    a, b = classic_pair(d)
    c = polled(d, "c", "orders")
    calm(d, a, b, c)
    wrong = PolledMember(d, a.id, "orders")
    wrong.connect()
    wrong.epoch = a.generation
    with pytest.raises(UnknownMemberIdError):
        wrong.send()
    other = EmbeddedMember(d, "x", "orders")
    other.id, other.generation = "c", c.epoch
    with pytest.raises(UnknownMemberIdError):
        other.beat()
    check_shared(d, a, b, c)


def test_a_member_that_was_removed_gives_up_what_it_has_before_it_joins() -> None:
    d = desk()
    a, b = classic_pair(d, is_cooperative=True)
    c = polled(d, "c", "orders")
    calm(d, a, b, c)
    d.take(d.machine.remove_members(RemoveMembers(GROUP, [a.id]), d.now_ms, d.wall_ms))
    a.forget_call()
    with pytest.raises(UnknownMemberIdError):
        a.begin()
    a.forget_call()
    a.id, a.owned = "", frozenset()
    calm(d, a, b, c)
    check_shared(d, a, b, c)


def test_a_member_too_many_leaves_a_classic_group_as_it_is() -> None:
    d = desk(members_max=2)
    a, b = classic_pair(d)
    before = len(d.log)
    with pytest.raises(GroupMaxSizeError):
        polled(d, "c", "orders")
    assert (d.phase(), len(d.log)) == ("Stable", before)
    a.beat()
    b.beat()


def test_a_member_takes_the_place_of_a_classic_one_in_a_full_group() -> None:
    d = desk(members_max=2)
    a = EmbeddedMember(d, "a", "orders", instance_id="i")
    b = EmbeddedMember(d, "b", "orders")
    calm(d, a, b)
    again = polled(d, "again", "orders", instance_id="i")
    calm(d, b, again)
    check_shared(d, b, again)


def test_a_classic_group_that_is_too_large_for_one_batch_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    d = desk()
    a, b = classic_pair(d)
    before = len(d.log)
    monkeypatch.setattr(conversion, "CONVERTED_BYTES_MAX", 100)
    with pytest.raises(InconsistentGroupProtocolError, match="bytes of metadata and assignments"):
        polled(d, "c", "orders")
    assert (d.phase(), len(d.log)) == ("Stable", before)
    a.beat()
    b.beat()


def test_a_classic_group_with_too_many_partitions_that_do_not_exist_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    d = desk()
    a, b = classic_pair(d)
    d.hide("orders")
    monkeypatch.setattr(conversion, "UNSEEN_MAX", 5)
    with pytest.raises(InconsistentGroupProtocolError, match="5 partitions that do not exist"):
        polled(d, "c", "orders")
    a.beat()
    b.beat()


def test_a_member_with_a_pattern_that_is_known_to_be_too_wide_leaves_a_classic_group_as_it_is() -> (
    None
):
    d = ClassicDesk(
        {"orders": 6, **{f"t-{at}": 1 for at in range(30)}},
        initial_rebalance_delay_ms=0,
        subscription_topics_max=20,
        names_per_step=25,
    )
    a, b = classic_pair(d)
    subscription = Subscription(frozenset(), "t-.*")
    # Another group has the pattern: it was matched against 25 of the names, and 20 is the most.
    other = Member(d, "x", subscription, group_id="other")
    other.join()
    d.take(d.machine.tick(d.now_ms, d.wall_ms))
    before = len(d.log)
    newcomer = PolledMember(d, "c")
    newcomer.subscription = subscription
    with pytest.raises(InvalidPatternError, match="20 topics"):
        newcomer.join()
    assert (d.phase(), len(d.log)) == ("Stable", before)
    a.beat()
    b.beat()


def test_the_topics_of_classic_members_count_in_a_mixed_group() -> None:
    """A member's record has its topics beside its metadata."""
    names = [f"topic-{at}" for at in range(20)]
    d = desk(classic_group_bytes_max=500)
    c = polled(d, "c", "orders")
    a = EmbeddedMember(d, "a", *names)
    size = sum(len(name) + len(metadata) for name, metadata in a.request().protocols)
    assert size < 500 < size + sum(map(len, names))
    with pytest.raises(RecordTooLargeError):
        a.begin()
    c.send()


def test_a_classic_member_that_says_the_same_again_needs_no_more_room() -> None:
    d = desk(classic_shard_bytes_max=130)
    c = polled(d, "c", "orders")
    a = EmbeddedMember(d, "a", "orders")
    a.begin()
    c.send()
    with pytest.raises(OverloadedError):
        EmbeddedMember(d, "b", "orders").begin()
    a.forget_call()
    a.begin()


@KINDS
def test_a_partition_of_a_topic_that_the_coordinator_does_not_see_yet_keeps_its_owner(
    is_cooperative: bool,
) -> None:
    """The members may have a newer image of the cluster than the coordinator has."""
    d = ClassicDesk({"orders": 2, "new": 2}, initial_rebalance_delay_ms=0)
    a = EmbeddedMember(d, "a", "orders", "new", is_cooperative=is_cooperative)
    calm(d, a)
    assert a.owned == d.of("orders") | d.of("new")
    new = d.of("new")
    d.hide("new")
    c = polled(d, "c", "orders", "new")
    for _ in range(3):
        c.catch_up()
    d.show("new")
    d.run(1_000)
    for _ in range(3):
        c.catch_up()
    assert c.owned & a.owned == frozenset()
    calm(d, a, c)
    assert a.owned | c.owned == d.of("orders") | new
    assert a.owned & c.owned == frozenset()
    assert len(a.owned) == len(c.owned) == 2


def removed_by_leave_group(d: ClassicDesk, *leaving: Leaving) -> list[type[Exception] | None]:
    """Return the error of each member that a LeaveGroup request names."""
    left = d.take(d.machine.leave_group(LeaveGroup(GROUP, leaving), d.now_ms, d.wall_ms))
    return [None if one is None else type(one) for one in left]


def test_leave_group_removes_members_of_both_protocols_as_in_kafka() -> None:
    """Kafka's admin clients have no other request for it (removeMembersFromConsumerGroup)."""
    d = desk()
    a, b = classic_pair(d)
    c = polled(d, "c", "orders", instance_id="i1")
    e = d.joined("e", "orders")
    calm(d, a, b, c, e)
    assert removed_by_leave_group(
        d, Leaving("zz", "i1"), Leaving("zz"), Leaving("", "i9"), Leaving("", "i1"), Leaving("e")
    ) == [FencedInstanceIdError, UnknownMemberIdError, UnknownMemberIdError, None, None]
    assert kind_of(d) == "classic"
    with pytest.raises(FencedMemberEpochError, match="LeaveGroup removed"):
        e.take_pushes()
    calm(d, a, b)
    check_shared(d, a, b)


def test_leave_group_may_name_all_members_of_both_protocols() -> None:
    d = desk()
    a, b = classic_pair(d)
    c = polled(d, "c", "orders")
    calm(d, a, b, c)
    every = [Leaving(one) for one in ("c", a.id, b.id)]
    assert removed_by_leave_group(d, *every, Leaving(a.id)) == [None] * 3 + [UnknownMemberIdError]
    assert [one.state for one in d.take(d.machine.list_groups())] in ([], ["Empty"])


def test_leave_group_removes_the_members_of_a_group_without_classic_ones() -> None:
    d = desk()
    c, e = polled(d, "c", "orders"), polled(d, "e", "orders", instance_id="i1")
    assert removed_by_leave_group(d, Leaving("c")) == [None]
    assert [one.member_id for one in d.described().members] == ["e"]
    assert removed_by_leave_group(d, Leaving("e", "i1")) == [None]
    assert d.described().state == "Empty"
    for one in (c, e):
        with pytest.raises(UnknownMemberIdError):
            one.send()
