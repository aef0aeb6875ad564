"""Placement: by rack, then by host."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from quorate_quorum.controller.decisions.placement import Place, next_position, place, ring, spread

INVOICE = [Place(i, "R1" if i < 3 else "R2", f"h{i}") for i in range(6)]


def test_the_ring_alternates_racks() -> None:
    assert [p.broker_id for p in ring(INVOICE)] == [0, 3, 1, 4, 2, 5]


def test_the_table_of_the_design() -> None:
    """Topic invoice: 10 partitions, three replicas, two racks (docs/design/controller.md)."""
    placed = place(INVOICE, 10, 3, 0, 0)
    by_role = [
        {b: [f"P{i}" for i, ids in enumerate(placed) if ids[role] == b] for b in range(6)}
        for role in range(3)
    ]
    table = {b: tuple(roles[b] for roles in by_role) for b in (0, 3, 1, 4, 2, 5)}
    assert table == {
        0: (["P0", "P6"], ["P5"], ["P4"]),
        3: (["P1", "P7"], ["P0", "P6"], ["P5"]),
        1: (["P2", "P8"], ["P1", "P7"], ["P0", "P6"]),
        4: (["P3", "P9"], ["P2", "P8"], ["P1", "P7"]),
        2: (["P4"], ["P3", "P9"], ["P2", "P8"]),
        5: (["P5"], ["P4"], ["P3", "P9"]),
    }


def test_without_racks_replicas_lie_on_different_hosts() -> None:
    places = [Place(i, "", f"h{i // 2}") for i in range(6)]
    for ids in place(places, 12, 3, 0, 0):
        assert len({places[b].host for b in ids}) == 3


def test_where_hosts_run_out_any_unused_broker_serves() -> None:
    places = [Place(i, "", "one") for i in range(3)]
    assert [sorted(ids) for ids in place(places, 2, 3, 0, 0)] == [[0, 1, 2], [0, 1, 2]]


def test_brokers_without_a_rack_share_the_nameless_one() -> None:
    places = [Place(0, "", "a"), Place(1, "R1", "b"), Place(2, "", "c"), Place(3, "R1", "d")]
    for ids in place(places, 8, 2, 0, 0):
        assert {places[b].rack for b in ids} == {"", "R1"}


def test_four_replicas_in_two_racks_are_two_and_two() -> None:
    for shift in range(5):
        for ids in place(INVOICE, 6, 4, 0, shift):
            assert sorted(b // 3 for b in ids) == [0, 0, 1, 1]


def test_brokers_of_a_large_rack_share_what_a_small_one_has_not() -> None:
    """Broker 0 is alone in its rack, and has a replica of each partition."""
    places = [Place(i, "R1" if i == 0 else "R2", f"h{i}") for i in range(6)]
    counts = Counter(b for ids in place(places, 60, 2, 0, 0) for b in ids)
    assert counts.pop(0) == 60
    assert max(counts.values()) - min(counts.values()) <= 2


def test_a_broker_that_has_joined_leads_the_next_partitions() -> None:
    before = place(INVOICE[:5], 10, 3, 0, 0)
    after = place(INVOICE, 2, 3, 7, 0, before)
    assert [ids[0] for ids in after] == [5, 5]


def test_the_shift_changes_followers_and_not_leaders() -> None:
    places = [Place(i, "", f"h{i}") for i in range(4)]
    assert [ids[0] for ids in place(places, 4, 2, 1, 0)] == [1, 2, 3, 0]
    assert place(places, 1, 2, 0, 0) == [[0, 1]]
    assert place(places, 1, 2, 0, 1) == [[0, 2]]
    assert place(places, 1, 2, 0, 2) == [[0, 3]]
    assert place(places, 1, 2, 0, 3) == [[0, 1]]


@given(
    racks=st.lists(st.sampled_from(["", "a", "b", "c"]), min_size=1, max_size=12),
    partitions=st.integers(1, 40),
    factor=st.integers(1, 12),
    start=st.integers(0, 100),
    shift=st.integers(0, 100),
)
def test_every_placement_spreads(
    racks: list[str], partitions: int, factor: int, start: int, shift: int
) -> None:
    places = [Place(i, rack, f"h{i // 2}") for i, rack in enumerate(racks)]
    factor = min(factor, len(places))
    placed = place(places, partitions, factor, start, shift)
    for ids in placed:
        assert len(set(ids)) == factor
        assert len({places[b].rack for b in ids}) == min(factor, len(set(racks)))
    leads = Counter(ids[0] for ids in placed)
    counts = [leads[p.broker_id] for p in places]
    assert max(counts) - min(counts) <= 1


# Any brokers: one to four racks of one to six brokers each, several brokers on one host, one rack
# perhaps the nameless one.


@st.composite
def clusters(draw: st.DrawFn) -> list[Place]:
    nameless = draw(st.booleans())
    places: list[Place] = []
    for rack in range(draw(st.integers(1, 4))):
        name = "" if rack == 0 and nameless else f"R{rack}"
        for _ in range(draw(st.integers(1, 6))):
            host = f"{name}-h{draw(st.integers(0, 5))}"
            places.append(Place(len(places), name, host))
    ids = draw(st.permutations(range(len(places))))
    return [
        Place(broker_id, one.rack, one.host) for broker_id, one in zip(ids, places, strict=True)
    ]


def hosts(places: Sequence[Place]) -> set[tuple[str, str]]:
    return {(one.rack, one.host) for one in places}


def most_apart(places: Sequence[Place], factor: int) -> tuple[int, int]:
    """The largest numbers of racks and hosts that a partition may have."""
    racks = len({one.rack for one in places})
    return min(factor, racks), min(factor, len(hosts(places)))


def by_id(places: Sequence[Place]) -> dict[int, Place]:
    return {one.broker_id: one for one in places}


def may_be_equal(places: Sequence[Place], factor: int) -> bool:
    return factor <= len({one.rack for one in places}) or len(hosts(places)) == len(places)


def unfair(
    places: Sequence[Place], before: Sequence[Sequence[int]], new: Sequence[Sequence[int]]
) -> list[tuple[int, int]]:
    """The followers that another broker should have got, when they were placed.

    The other broker had so many replicas fewer, and would have kept the partition as far apart.
    Without a rack for each replica, shared hosts may forbid equal shares.
    """
    known = by_id(places)
    counts = Counter(dict.fromkeys(known, 0))
    counts.update(b for ids in before for b in ids if b in known)
    found = []
    for ids in new:
        counts.update(ids)
        now = spread(known[b] for b in ids)
        for giver in ids[1:]:
            for taker in known.keys() - set(ids):
                after = spread(known[taker if b == giver else b] for b in ids)
                if counts[giver] - counts[taker] > len(ids) and after >= now:
                    found.append((giver, taker))
    return found


@given(clusters(), st.integers(1, 40), st.integers(1, 5), st.integers(0, 99), st.integers(0, 99))
def test_any_placement_is_apart_and_shared_out(
    places: list[Place], partitions: int, factor: int, start: int, shift: int
) -> None:
    factor = min(factor, len(places))
    known = by_id(places)
    placed = place(places, partitions, factor, start, shift)
    for ids in placed:
        assert len(ids) == len(set(ids)) == factor
        assert spread(known[b] for b in ids)[:2] == most_apart(places, factor)
    leads = Counter(dict.fromkeys(known, 0))
    leads.update(ids[0] for ids in placed)
    assert max(leads.values()) - min(leads.values()) <= 1
    if may_be_equal(places, factor):
        assert unfair(places, [], placed) == []
    if len(hosts(places)) == len(places):
        counts = Counter(dict.fromkeys(known, 0))
        counts.update(b for ids in placed for b in ids)
        for rack in {one.rack for one in places}:
            shares = [counts[b] for b, one in known.items() if one.rack == rack]
            assert max(shares) - min(shares) <= factor + 1


@given(clusters(), st.integers(2, 5), st.integers(0, 99), st.integers(0, 99))
def test_racks_share_the_replicas_of_a_partition_evenly(
    places: list[Place], factor: int, start: int, shift: int
) -> None:
    """With four replicas in two racks, the loss of one rack leaves two."""
    places = [Place(one.broker_id, one.rack, f"h{one.broker_id}") for one in places]
    known = by_id(places)
    size = Counter(one.rack for one in places)
    for ids in place(places, 2 * len(places), min(factor, len(places)), start, shift):
        used = Counter(dict.fromkeys(size, 0))
        used.update(known[b].rack for b in ids)
        for rack, count in used.items():
            fewest = min(n for other, n in used.items() if n < size[other] or other == rack)
            assert count - fewest <= 1


@given(
    clusters(),
    st.integers(1, 30),
    st.integers(1, 30),
    st.integers(1, 5),
    st.sets(st.integers(0, 23)),
    st.randoms(use_true_random=False),
)
def test_a_topic_that_grows_stays_apart_and_shared_out_with_what_it_has(
    places: list[Place],
    had: int,
    added: int,
    factor: int,
    gone: set[int],
    chance: random.Random,
) -> None:
    """Brokers have joined or gone since, and partitions were moved."""
    alive = [one for one in places if one.broker_id not in gone] or places
    joined = alive[: chance.randrange(len(alive))]
    old = [one for one in places if one not in joined] or places
    factor = min(factor, len(alive), len(old))
    before = place(old, had, factor, chance.randrange(9), chance.randrange(9))
    for ids in before:
        if chance.random() < 0.1:
            chance.shuffle(ids)
    position = next_position(alive, before) or (chance.randrange(9), chance.randrange(9))
    new = place(alive, added, factor, *position, before)
    known = by_id(alive)
    for ids in new:
        assert spread(known[b] for b in ids)[:2] == most_apart(alive, factor)
    if may_be_equal(alive, factor):
        assert unfair(alive, before, new) == []

    def skew(every: Sequence[Sequence[int]]) -> int:
        leads = Counter(dict.fromkeys(known, 0))
        leads.update(ids[0] for ids in every if ids[0] in known)
        return max(leads.values()) - min(leads.values())

    assert skew([*before, *new]) <= max(1, skew(before))


def test_a_later_replica_on_a_rack_frees_an_earlier_one() -> None:
    """With more replicas than racks, the third one joins the second one's rack or the leader's."""
    places = [Place(b, "R0" if b < 2 else "R1", f"h{b}") for b in range(5)]
    before = [[3, 1, 2], [3, 2, 1], [4, 3, 2]]
    new = place(places, 1, 3, 2, 0, before)
    assert unfair(places, before, new) == []
    assert new == [[1, 0, 4]]


@given(
    st.integers(1, 4), st.integers(1, 6), st.integers(1, 5), st.integers(0, 23), st.integers(0, 9)
)
def test_where_all_racks_are_equal_the_ring_alone_decides(
    racks: int, brokers: int, factor: int, start: int, shift: int
) -> None:
    places = [Place(i, f"R{i // brokers}", f"h{i}") for i in range(racks * brokers)]
    factor = min(factor, len(places))
    lap = place(places, len(places), factor, start, shift)
    assert place(places, 3 * len(places), factor, start, shift) == lap * 3
