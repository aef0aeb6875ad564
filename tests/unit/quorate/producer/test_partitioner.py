"""Partitioners: Java's choice by key, turns, and one partition a batch."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorate.producer.partitioner import (
    RoundRobinPartitioner,
    Sticky,
    murmur2,
    partition_for_key,
)
from tests.unit.quorate.record.other_clients import aiokafka_murmur2, kafka_python_murmur2


@pytest.mark.parametrize(
    ("data", "result"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_javas(data: bytes, result: int) -> None:
    assert murmur2(data) == result


@settings(deadline=None)
@given(st.binary(max_size=100))
def test_murmur2_is_what_other_clients_compute(data: bytes) -> None:
    assert murmur2(data) & 0xFFFFFFFF == aiokafka_murmur2(data) & 0xFFFFFFFF
    assert murmur2(data) & 0xFFFFFFFF == kafka_python_murmur2(data) & 0xFFFFFFFF


@settings(deadline=None)
@given(st.binary(), st.integers(1, 1000))
def test_a_key_always_goes_to_the_same_partition(key: bytes, count: int) -> None:
    assert partition_for_key(key, count) == (murmur2(key) & 0x7FFFFFFF) % count


def test_round_robin_takes_turns_among_those_with_a_leader() -> None:
    partitioner = RoundRobinPartitioner()
    assert [partitioner(b"same", (0, 1, 2), (0, 2)) for _ in range(4)] == [0, 2, 0, 2]
    assert [partitioner(None, (0, 1, 2), ()) for _ in range(3)] == [1, 2, 0]


def test_sticky_stays_until_it_moves_on() -> None:
    sticky = Sticky(random.Random(1), 100)
    partitions = (0, 1, 2)
    first = sticky.partition(partitions, partitions)
    assert {sticky.partition(partitions, partitions) for _ in range(100)} == {first}
    sticky.move_on(partitions, partitions)
    second = sticky.partition(partitions, partitions)
    assert second != first
    assert {sticky.partition(partitions, partitions) for _ in range(100)} == {second}


def test_sticky_leaves_a_partition_whose_leader_is_gone() -> None:
    sticky = Sticky(random.Random(1), 100)
    first = sticky.partition((0, 1, 2), (0, 1, 2))
    others = tuple(partition for partition in (0, 1, 2) if partition != first)
    moved = sticky.partition((0, 1, 2), others)
    assert moved in others
    assert sticky.partition((0, 1, 2), (0, 1, 2)) == moved


def test_sticky_without_any_leader_waits_on_some_partition() -> None:
    sticky = Sticky(random.Random(1), 100)
    assert sticky.partition((0, 1), ()) in (0, 1)
    sticky.move_on((0,), (0,))
    assert sticky.partition((0,), (0,)) == 0
    sticky.move_on((0,), (0,))
    assert sticky.partition((0,), (0,)) == 0


def test_sticky_reaches_every_partition() -> None:
    sticky = Sticky(random.Random(7), 100)
    partitions = tuple(range(5))
    seen = set()
    for _ in range(200):
        seen.add(sticky.partition(partitions, partitions))
        sticky.move_on(partitions, partitions)
    assert seen == set(partitions)
