"""The assignors: balance, stickiness, determinism, racks, and what their work is bounded by."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorate_broker.groups.assignors.table import ASSIGNORS
from quorate_broker.groups.assignors.values import Assignment, PartitionSet, TaskMember, TaskTopic

NAMES = sorted(ASSIGNORS)
STICKY = ["rack-uniform", "uniform"]
RACKS = ["", "x", "y", "z"]


def topic(number: int, partitions: int, racks: Sequence[str] = ()) -> TaskTopic:
    known = [frozenset({rack} - {""}) for rack in racks]
    return TaskTopic(number.to_bytes(16, "big"), f"t{number}", partitions, known)


def ids(*topics: TaskTopic) -> frozenset[bytes]:
    return frozenset(one.topic_id for one in topics)


def member(name: str, topic_ids: frozenset[bytes], rack: str = "") -> TaskMember:
    return TaskMember(name, "", rack, topic_ids, frozenset())


def following(members: Sequence[TaskMember], assignment: Assignment) -> list[TaskMember]:
    """Return the members as the next assignment finds them."""
    return [replace(one, assigned=assignment[one.member_id]) for one in members]


def moves(before: Assignment, after: Assignment) -> int:
    """Return how many partitions went from one member to another."""
    owners = {one: member_id for member_id, share in before.items() for one in share}
    return sum(
        owners.get(one, member_id) != member_id
        for member_id, share in after.items()
        for one in share
    )


def sizes(assignment: Assignment) -> list[int]:
    return sorted(len(share) for share in assignment.values())


Drawn = tuple[list[TaskMember], list[TaskTopic]]


def group_of(seed: int, *, is_equal: bool) -> Drawn:
    """Return members and topics by chance; `is_equal`: all members have the same subscription."""
    rng = random.Random(seed)
    topics = []
    for at in range(rng.randint(1, 5)):
        size = rng.randint(1, 12)
        topics.append(topic(at, size, [rng.choice(RACKS) for _ in range(size)]))
    every = [one.topic_id for one in topics]

    def subscription() -> frozenset[bytes]:
        return frozenset(one for one in every if rng.random() < 0.6)

    same = subscription()
    # What they had may be anything: topics shrink, members subscribe otherwise, two had the same.
    had = [(topic_id, number) for topic_id in [*every, b"gone"] for number in range(14)]
    members = [
        TaskMember(
            f"m{at}",
            rng.choice(["", f"i{9 - at}"]),
            rng.choice(RACKS),
            same if is_equal else subscription(),
            frozenset(rng.sample(had, rng.randint(0, 12))),
        )
        for at in range(rng.randint(1, 8))
    ]
    return members, topics


def groups(*, is_equal: bool = False) -> st.SearchStrategy[Drawn]:
    """Draw a group by its seed, which costs less than to draw each part."""
    return st.integers(0, 1 << 32).map(lambda seed: group_of(seed, is_equal=is_equal))


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None)
@given(groups())
def test_each_wanted_partition_goes_to_one_member_that_subscribes_to_it(
    name: str, drawn: Drawn
) -> None:
    members, topics = drawn
    assignment = ASSIGNORS[name](members, topics)
    assert assignment.keys() == {one.member_id for one in members}
    given_out = Counter(one for share in assignment.values() for one in share)
    wanted = frozenset[bytes]().union(*(one.topic_ids for one in members))
    assert given_out == Counter(
        (one.topic_id, number)
        for one in topics
        if one.topic_id in wanted
        for number in range(one.partitions)
    )
    for one in members:
        assert {topic_id for topic_id, _ in assignment[one.member_id]} <= one.topic_ids


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None)
@given(groups(), st.randoms(use_true_random=False))
def test_the_order_of_members_and_topics_does_not_matter(
    name: str, drawn: Drawn, rng: random.Random
) -> None:
    members, topics = drawn
    expected = ASSIGNORS[name](members, topics)
    rng.shuffle(members)
    rng.shuffle(topics)
    assert ASSIGNORS[name](members, topics) == expected


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None)
@given(groups())
def test_an_assignment_that_stands_is_kept(name: str, drawn: Drawn) -> None:
    members, topics = drawn
    assignment = ASSIGNORS[name](members, topics)
    assert ASSIGNORS[name](following(members, assignment), topics) == assignment


@pytest.mark.parametrize("name", STICKY)
@settings(deadline=None)
@given(groups(is_equal=True))
def test_equal_subscriptions_get_equal_shares(name: str, drawn: Drawn) -> None:
    shares = sizes(ASSIGNORS[name](*drawn))
    assert shares[-1] - shares[0] <= 1


@pytest.mark.parametrize("name", STICKY)
@settings(deadline=None)
@given(groups())
def test_no_partition_could_go_to_a_member_that_has_two_fewer(name: str, drawn: Drawn) -> None:
    members, topics = drawn
    assignment = ASSIGNORS[name](members, topics)
    for one in members:
        share = assignment[one.member_id]
        for other in members:
            if len(share) >= len(assignment[other.member_id]) + 2:
                assert not {topic_id for topic_id, _ in share} & other.topic_ids


@settings(deadline=None)
@given(groups(is_equal=True), st.integers(1, 3))
def test_a_member_that_joins_moves_no_more_than_its_share(drawn: Drawn, joining: int) -> None:
    members, topics = drawn
    before = ASSIGNORS["uniform"](members, topics)
    more = [member(f"n{at}", members[0].topic_ids) for at in range(joining)]
    after = ASSIGNORS["uniform"]([*following(members, before), *more], topics)
    assert moves(before, after) == sum(len(after[one.member_id]) for one in more)


@settings(deadline=None)
@given(groups(is_equal=True))
def test_a_member_that_leaves_moves_only_what_it_had(drawn: Drawn) -> None:
    members, topics = drawn
    before = ASSIGNORS["uniform"](members, topics)
    after = ASSIGNORS["uniform"](following(members[1:], before), topics)
    for one in members[1:]:
        assert before[one.member_id] <= after[one.member_id]


@settings(deadline=None)
@given(groups(is_equal=True), st.integers(1, 5))
def test_a_topic_that_grows_moves_nothing_that_need_not_move(drawn: Drawn, more: int) -> None:
    members, topics = drawn
    before = ASSIGNORS["uniform"](members, topics)
    grown = [replace(topics[0], partitions=topics[0].partitions + more), *topics[1:]]
    after = ASSIGNORS["uniform"](following(members, before), grown)
    most = max(sizes(after))
    # Only members whose topics sort later could have more than the new quota; none has.
    assert moves(before, after) == sum(max(0, len(share) - most) for share in before.values())


def test_range_cuts_each_topic_into_ranges_and_joins_equal_topics() -> None:
    one, two = topic(1, 7), topic(2, 7)
    members = [member(name, ids(one, two)) for name in "abc"]
    assignment = ASSIGNORS["range"](members, [one, two])
    numbers = {
        name: [sorted(n for t, n in share if t == each.topic_id) for each in (one, two)]
        for name, share in assignment.items()
    }
    assert numbers == {"a": [[0, 1, 2]] * 2, "b": [[3, 4]] * 2, "c": [[5, 6]] * 2}


def local(
    members: Sequence[TaskMember], topics: Sequence[TaskTopic], shares: Mapping[str, PartitionSet]
) -> int:
    """Return how many partitions are with a member in one of their racks."""
    racks = {one.topic_id: one.racks for one in topics}
    return sum(one.rack in racks[t][n] for one in members for t, n in shares[one.member_id])


@pytest.mark.parametrize("assigned_before", [False, True])
def test_rack_uniform_makes_all_local_if_every_rack_has_its_share(assigned_before: bool) -> None:
    t = topic(1, 12, ["x", "y", "z"] * 4)
    members = [member(f"m{at}", ids(t), RACKS[1 + at % 3]) for at in range(6)]
    if assigned_before:
        members = following(members, ASSIGNORS["uniform"](members, [t]))
    shares = ASSIGNORS["rack-uniform"](members, [t])
    assert (sizes(shares), local(members, [t], shares)) == ([2] * 6, 12)


def test_rack_uniform_without_racks_is_uniform() -> None:
    t = topic(1, 12)
    members = [member(f"m{at}", ids(t), "x") for at in range(5)]
    assert ASSIGNORS["rack-uniform"](members, [t]) == ASSIGNORS["uniform"](members, [t])


@settings(deadline=None)
@given(groups(is_equal=True))
def test_rack_uniform_is_never_less_local_than_uniform_from_the_start(drawn: Drawn) -> None:
    members = [replace(one, assigned=frozenset()) for one in drawn[0]]
    near = local(members, drawn[1], ASSIGNORS["rack-uniform"](members, drawn[1]))
    far = local(members, drawn[1], ASSIGNORS["uniform"](members, drawn[1]))
    assert near >= far


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("is_equal", [True, False])
def test_200_members_and_1_000_partitions_come_to_an_end(name: str, is_equal: bool) -> None:
    topics = [topic(at, 100, ["x", "y", "z", ""] * 25) for at in range(10)]
    every = [one.topic_id for one in topics]
    members = [
        member(
            f"m{at}",
            frozenset(every if is_equal else [t for n, t in enumerate(every) if (n + at) % 3]),
            RACKS[at % 4],
        )
        for at in range(200)
    ]
    shares = ASSIGNORS[name](members, topics)
    assert sum(sizes(shares)) == 1_000
    again = ASSIGNORS[name](following(members[:-20], shares), topics)
    assert sum(sizes(again)) == 1_000
