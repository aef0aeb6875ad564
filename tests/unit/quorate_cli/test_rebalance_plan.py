"""Plans of a rebalance: equal shares, racks apart, few moves, one plan for one cluster."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate import TopicPartition
from quorate_cli import rebalance_plan
from quorate_cli.rebalance_plan import Broker, Plan, Planner
from quorate_quorum.controller.decisions.placement import Place, spread


def plan(
    replicas: Sequence[Sequence[int]],
    brokers: Sequence[Broker],
    sizes: Sequence[int] = (),
) -> Plan:
    keys = [TopicPartition("t", number) for number in range(len(replicas))]
    given_sizes = dict(zip(keys, sizes or [1] * len(keys), strict=True))
    return Planner(brokers, dict(zip(keys, replicas, strict=True)), given_sizes).plan()


def after(replicas: Sequence[Sequence[int]], found: Plan) -> list[list[int]]:
    return [
        found.targets.get(TopicPartition("t", number), list(ids))
        for number, ids in enumerate(replicas)
    ]


def racks(*ids: int, per_rack: int = 2) -> list[Broker]:
    return [Broker(b, f"R{b // per_rack}", f"h{b}") for b in ids]


def test_a_balanced_cluster_needs_no_move() -> None:
    replicas = [[0, 2], [2, 1], [1, 3], [3, 0]]
    found = plan(replicas, racks(0, 1, 2, 3))
    assert (found.targets, found.moved_bytes, found.before) == ({}, 0, found.after)


def test_a_broker_that_joined_gets_its_share_of_the_smallest() -> None:
    found = plan([[0], [1], [0], [1], [0], [1]], racks(0, 1, 2, per_rack=9), [9, 9, 1, 1, 5, 5])
    assert found.targets == {TopicPartition("t", 2): [2], TopicPartition("t", 3): [2]}
    assert found.expected == {TopicPartition("t", 2): (0,), TopicPartition("t", 3): (1,)}
    assert (found.moved_replicas, found.moved_bytes) == (2, 2)
    assert {b: share.replicas for b, share in found.after.items()} == {0: 2, 1: 2, 2: 2}


def test_racks_stay_apart_although_shares_differ() -> None:
    """One rack has one broker, the other three: each partition keeps a replica on each rack."""
    brokers = [Broker(0, "R0"), *(Broker(b, "R1", f"h{b}") for b in (1, 2, 3))]
    replicas = [[0, 1]] * 6
    found = plan(replicas, brokers)
    assert {b: share.replicas for b, share in found.after.items()} == {0: 6, 1: 2, 2: 2, 3: 2}
    assert all(0 in ids for ids in after(replicas, found))


def test_leaders_are_spread_by_the_order_of_replicas_alone() -> None:
    replicas = [[0, 1], [0, 1], [0, 1], [0, 1]]
    found = plan(replicas, racks(0, 1, per_rack=9))
    assert found.moved_bytes == 0
    assert {b: share.preferred_leaders for b, share in found.after.items()} == {0: 2, 1: 2}


def test_a_drained_broker_is_emptied_and_a_dead_one_gets_nothing() -> None:
    brokers = [Broker(0, drained=True), Broker(1, host="a"), Broker(2, host="b", alive=False)]
    found = plan([[0], [1], [2]], brokers)
    assert found.targets == {TopicPartition("t", 0): [1]}
    assert found.after[0].replicas == 0
    assert found.after[2].replicas == 1


def test_what_no_broker_can_take_stays() -> None:
    assert plan([[0, 1]], [Broker(0, drained=True), Broker(1)]).targets == {}
    assert plan([[7]], [Broker(0, alive=False)]).targets == {}
    assert plan([], []).targets == {}


def factor(
    replicas: Sequence[Sequence[int]], brokers: Sequence[Broker], number: int
) -> list[list[int]]:
    keys = [TopicPartition("t", n) for n in range(len(replicas))]
    planner = Planner(brokers, dict(zip(keys, replicas, strict=True)), {})
    return after(replicas, planner.with_factor("t", number))


def test_more_replicas_go_to_racks_without_one_and_to_brokers_with_few() -> None:
    brokers = racks(0, 1, 2, 3)  # R0: 0, 1; R1: 2, 3
    assert factor([[0], [0]], brokers, 2) == [[0, 2], [0, 3]]
    assert factor([[0], [2]], brokers, 3) == [[0, 3, 1], [2, 0, 1]]
    assert factor([[0, 2]], brokers, 2) == [[0, 2]]


def test_fewer_replicas_keep_the_preferred_leader_racks_apart_and_those_alive() -> None:
    brokers = racks(0, 1, 2, 3)
    assert factor([[0, 1, 2]], brokers, 2) == [[0, 2]]
    assert factor([[0, 1, 2]], brokers, 1) == [[0]]
    dead = [Broker(0), Broker(1), Broker(2, alive=False)]
    assert factor([[0, 2, 1]], dead, 2) == [[0, 1]]


def reduced(
    replicas: Sequence[int], in_sync: Sequence[int], brokers: Sequence[Broker], number: int
) -> list[int]:
    key = TopicPartition("t", 0)
    planner = Planner(brokers, {key: replicas}, {}, {key: in_sync})
    return planner.with_factor("t", number).targets[key]


def test_fewer_replicas_keep_one_that_is_in_sync() -> None:
    brokers = racks(0, 1, 2, 3)
    assert reduced([0, 1, 2], [1], brokers, 1) == [1]
    assert reduced([0, 1, 2], [1], brokers, 2) == [1, 2]
    assert reduced([0, 1, 2], [1, 2], brokers, 2) == [1, 2]
    dead = [Broker(0, alive=False), Broker(1, drained=True), Broker(2)]
    assert reduced([0, 1, 2], [1], dead, 2) == [1, 2]
    assert reduced([0, 1, 2], [1], dead, 1) == [1]
    assert reduced([0, 1, 2], [2], dead, 1) == [2]
    assert len(reduced([0, 1, 2], [], dead, 1)) == 1


def test_a_preferred_leader_that_is_not_alive_goes_before_the_others() -> None:
    dead = [Broker(0, alive=False), Broker(1), Broker(2)]
    assert reduced([0, 1, 2], [1, 2], dead, 2) == [1, 2]


def test_a_replica_on_a_failed_disk_goes_before_others_on_its_broker_s_rack() -> None:
    """Its broker is alive, and alone on that rack. A replica on a failed disk serves no client."""
    key = TopicPartition("t", 0)
    brokers = racks(0, 1, 2)  # R0: 0, 1; R1: 2
    planner = Planner(brokers, {key: [0, 1, 2]}, {}, {key: [0, 1]}, {key: [2]})
    assert planner.with_factor("t", 2).targets == {key: [0, 1]}
    planner = Planner(brokers, {key: [0, 1, 2]}, {}, {key: [2]}, {key: [2]})
    assert planner.with_factor("t", 1).targets == {key: [2]}, "it alone has all records"


def test_a_rack_that_joined_gets_a_replica_of_each_partition() -> None:
    """And no more than one replica of each is copied."""
    brokers = racks(0, 1, 2, 3)
    found = plan([[0, 1], [1, 0], [0, 1], [1, 0]], brokers)
    assert {b: share.replicas for b, share in found.after.items()} == dict.fromkeys(range(4), 2)
    assert {b: share.preferred_leaders for b, share in found.after.items()} == dict.fromkeys(
        range(4), 1
    )
    for ids in after([[0, 1]] * 4, found):
        assert {b // 2 for b in ids} == {0, 1}
    assert found.moved_replicas == 4


def test_hosts_are_parted_where_racks_can_not_be() -> None:
    brokers = [Broker(0, "", "a"), Broker(1, "", "a"), Broker(2, "", "b"), Broker(3, "", "b")]
    for ids in after([[0, 1], [2, 3]], plan([[0, 1], [2, 3]], brokers)):
        assert {brokers[b].host for b in ids} == {"a", "b"}


def test_a_drained_broker_that_was_alone_in_its_rack_is_emptied() -> None:
    """Its replicas go where they are farthest from the others: to a host of their own if any."""
    others = [Broker(1, "R2", "a"), Broker(2, "R2", "a"), Broker(3, "R2", "b")]
    brokers = [Broker(0, "R1", drained=True), *others]
    found = plan([[0, 1], [1, 0], [0, 2]], brokers)
    assert (found.moved_replicas, found.kept) == (3, 0)
    assert all(3 in ids and 0 not in ids for ids in after([[0, 1], [1, 0], [0, 2]], found))


def test_what_no_other_broker_can_take_is_counted_on_a_drained_one() -> None:
    found = plan([[0, 1], [0, 1]], [Broker(0, "R1", drained=True), Broker(1, "R2")])
    assert (found.moved_replicas, found.kept) == (0, 2)


def looks(monkeypatch: pytest.MonkeyPatch, partitions: int, drained: bool) -> int:
    """How often a plan of so many partitions, after two brokers joined, looks at replicas."""
    count = 0

    def counted(places: Iterable[Place]) -> tuple[int, int, int]:
        nonlocal count
        count += 1
        return spread(places)

    monkeypatch.setattr(rebalance_plan, "spread", counted)
    replicas = [[(index + step) % 6 for step in range(3)] for index in range(partitions)]
    brokers = [Broker(b, f"R{b % 3}", f"h{b}", drained and b == 0) for b in range(8)]
    assert len(plan(replicas, brokers, range(partitions)).targets) > partitions / 4
    return count


@pytest.mark.parametrize("drained", [False, True])
def test_a_plan_of_many_partitions_looks_only_so_often_at_each(
    monkeypatch: pytest.MonkeyPatch, drained: bool
) -> None:
    few, many = (looks(monkeypatch, count, drained) for count in (200, 1_600))
    assert many <= 10 * few


def test_leaderships_go_a_way_over_several_brokers() -> None:
    """Brokers 0 and 2 share no partition: 0 gives a leadership to 1, and 1 another one to 2."""
    replicas = [[0, 1], [0, 1], [0, 1], [1, 2], [1, 2], [2, 1]]
    hosts = [Broker(0, "R0"), Broker(1, "R1"), Broker(2, "R0")]
    found = plan(replicas, hosts)
    assert found.moved_replicas == 0
    assert {b: share.preferred_leaders for b, share in found.after.items()} == {0: 2, 1: 2, 2: 2}


def test_more_replicas_than_brokers_are_refused() -> None:
    with pytest.raises(ValueError, match="t/0 has replicas on brokers"):
        factor([[0]], [Broker(0), Broker(1, alive=False), Broker(2, drained=True)], 2)
    with pytest.raises(ValueError, match=r"on brokers \[0\], and brokers \[0, 1\] are alive"):
        factor([[0]], [Broker(0), Broker(1)], 3)


CLUSTERS = st.integers(1, 8).flatmap(
    lambda count: st.tuples(
        st.lists(
            st.builds(
                Broker,
                st.just(0),
                st.sampled_from(["R1", "R2", "R3"]),
                st.sampled_from(["a", "b"]),
                st.booleans(),
                st.sampled_from([True, True, True, False]),
            ),
            min_size=count,
            max_size=count,
        ),
        st.lists(
            st.lists(st.integers(0, count - 1), min_size=1, max_size=4, unique=True), max_size=20
        ),
    )
)


@given(CLUSTERS)
def test_any_plan_keeps_numbers_of_replicas_racks_and_levels(
    cluster: tuple[list[Broker], list[list[int]]],
) -> None:
    drawn, replicas = cluster
    brokers = [
        Broker(number, one.rack, one.host, one.drained, one.alive)
        for number, one in enumerate(drawn)
    ]
    found = plan(replicas, brokers)
    takers = {b.id for b in brokers if b.alive and not b.drained}

    def spread(ids: Sequence[int]) -> tuple[int, int]:
        return (
            len({brokers[b].rack for b in ids}),
            len({(brokers[b].rack, brokers[b].host) for b in ids}),
        )

    for old, new in zip(replicas, after(replicas, found), strict=True):
        assert len(new) == len(set(new)) == len(old)
        assert set(new) - set(old) <= takers
        if takers - set(new):
            assert not any(brokers[b].drained for b in new)
        assert spread(new) >= spread([b for b in old if not brokers[b].drained])
        if not any(brokers[b].drained for b in old):
            assert spread(new) >= spread(old)
        for gone in new:
            for other in takers - set(new):
                assert spread([other if b == gone else b for b in new]) <= spread(new)
        giver = new[0]
        for taker in takers.intersection(new[1:]):
            assert found.after[giver].preferred_leaders - found.after[taker].preferred_leaders <= 1
    assert sum(s.replicas for s in found.after.values()) == sum(map(len, replicas))
    again = plan(replicas, brokers)
    assert again == found
    settled = plan(after(replicas, found), brokers)
    assert settled.targets == {}, "a second plan has nothing to do"
    single = {b.rack for b in brokers} == {""}
    if single:
        counts = [found.after[b].replicas for b in takers]
        assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("brokers", [3, 5, 8])
def test_without_racks_the_shares_differ_by_one_at_most(brokers: int) -> None:
    replicas = [[0, 1, 2]] * 30
    found = plan(replicas, [Broker(b, "", f"h{b}") for b in range(brokers)])
    counts = [share.replicas for share in found.after.values()]
    leaders = [share.preferred_leaders for share in found.after.values()]
    assert max(counts) - min(counts) <= 1
    assert max(leaders) - min(leaders) <= 1


@given(
    st.integers(1, 8).flatmap(
        lambda count: st.tuples(
            st.just(count),
            st.lists(
                st.lists(st.integers(0, count - 1), min_size=1, max_size=4, unique=True),
                max_size=20,
            ),
        )
    )
)
def test_without_racks_no_replica_moves_that_need_not(cluster: tuple[int, list[list[int]]]) -> None:
    count, replicas = cluster
    found = plan(replicas, [Broker(b, "", f"h{b}") for b in range(count)])
    shares = [found.before[b].replicas for b in range(count)]
    low, more = divmod(sum(shares), count)
    above = sum(max(0, share - low - (more > 0)) for share in shares)
    below = sum(max(0, low - share) for share in shares)
    assert found.moved_replicas == max(above, below)


@given(CLUSTERS, st.integers(1, 5), st.data())
def test_any_other_number_of_replicas_is_apart_and_keeps_one_in_sync(
    cluster: tuple[list[Broker], list[list[int]]], number: int, data: st.DataObject
) -> None:
    drawn, replicas = cluster
    brokers = [replace(one, id=broker_id) for broker_id, one in enumerate(drawn)]
    takers = {b.id for b in brokers if b.alive and not b.drained}
    keys = [TopicPartition("t", index) for index in range(len(replicas))]
    in_sync = {
        key: data.draw(st.lists(st.sampled_from(ids), unique=True))
        for key, ids in zip(keys, replicas, strict=True)
    }
    planner = Planner(brokers, dict(zip(keys, replicas, strict=True)), {}, in_sync)
    if any(len(takers | set(ids)) < number for ids in replicas):
        with pytest.raises(ValueError, match="it can't have"):
            planner.with_factor("t", number)
        return

    def apart(ids: Sequence[int]) -> tuple[int, int, int]:
        return spread(Place(b, brokers[b].rack, brokers[b].host) for b in ids)

    found = after(replicas, planner.with_factor("t", number))
    for key, old, new in zip(keys, replicas, found, strict=True):
        assert len(new) == len(set(new)) == number
        if number >= len(old):
            assert new[: len(old)] == list(old), "each replica stays, in its order"
            for count in range(len(old), number):
                free = takers - set(new[:count])
                best = max(apart([*new[:count], taker]) for taker in free)
                assert apart(new[: count + 1]) == best
            continue
        assert set(new) < set(old)
        assert not in_sync[key] or set(new) & set(in_sync[key])
        if len(old) == number + 1 and takers >= set(old) and old[0] in in_sync[key]:
            may_go = [b for b in old[1:] if set(in_sync[key]) - {b}]
            assert apart(new) == max(apart([one for one in old if one != b]) for b in may_go)
