"""Placement: by rack, then by host."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from quorate_quorum.controller.decisions.placement import Place, place, ring

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
