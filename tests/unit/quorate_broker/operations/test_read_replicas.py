"""A leader sends a consumer to a replica in its rack that is in sync, and to no other (KIP-392)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from quorate.errors import NotLeaderError, OffsetOutOfRangeError, QuorateError
from quorate_broker.operations.fetch import Fetch, FetchSession, Wanted
from quorate_broker.operations.full_fetch import FetchAsked, FullFetch
from quorate_broker.operations.read_replicas import Reader, read_replica
from quorate_broker.replica.fetched import HERE, Fetched
from quorate_broker.replica.leader import Leader, ReplicaStream
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.node.authorizer import ALLOW_ALL
from tests.unit.quorate_broker.builders import TOPIC_ID, Broker, World, until, values_of
from tests.unit.quorate_broker.operations.builders import ANN
from tests.unit.quorate_quorum.metadata.builders import brokers

LAG_MS = 10_000
NOW_MS = 1_000
LISTENER = brokers([0]).brokers[0].listeners[0].name
IN_R2 = Reader("R2", LISTENER)
RACKS = {0: "R1", 1: "R1", 2: "R2", 3: "R2", 4: "R3"}


def leader(*, ends: dict[int, int] | None = None, isr: tuple[int, ...] = (0, 1, 2, 3, 4)) -> Leader:
    """Broker 0 leads a log of 10 records. The others have all of them, or as `ends` says."""
    machine = Leader.begin(
        broker_id=0,
        leader_epoch=0,
        log_end_offset=10,
        own_end=10,
        high_watermark=8,
        partition_epoch=0,
        isr=isr,
        replicas=range(5),
        min_isr=1,
        lag_ms=LAG_MS,
        now_ms=0,
    )
    for broker_id in range(1, 5):
        stream = ReplicaStream(broker_id, 0, b"", 1, NOW_MS)
        end = (ends or {}).get(broker_id, 10)
        if end >= 0:
            machine.record_fetch(stream, end, NOW_MS)
    return machine


def image(**changes: Any) -> MetadataImage:
    """All brokers are alive; broker 2 is changed."""
    found = brokers(range(5), racks=RACKS)
    return replace(found, brokers=found.brokers.insert(2, replace(found.brokers[2], **changes)))


ROWS: list[tuple[str, MetadataImage, Leader, Reader, int, int]] = [
    ("in its rack", image(), leader(), IN_R2, 5, 2),
    ("at the leader's end", image(), leader(), IN_R2, 10, 2),
    ("no rack", image(), leader(), Reader("", LISTENER), 5, HERE),
    ("the leader's own rack", image(), leader(), Reader("R1", LISTENER), 5, HERE),
    ("a rack without a broker", image(), leader(), Reader("R9", LISTENER), 5, HERE),
    ("outside the ISR", image(), leader(isr=(0, 1)), IN_R2, 5, HERE),
    ("one of two outside the ISR", image(), leader(isr=(0, 3)), IN_R2, 5, 3),
    ("fenced", image(fenced=True), leader(isr=(0, 2)), IN_R2, 5, HERE),
    ("shutting down", image(shutting_down=True), leader(isr=(0, 2)), IN_R2, 5, HERE),
    ("no listener for it", image(listeners=()), leader(isr=(0, 2)), IN_R2, 5, HERE),
    ("behind the position", image(), leader(ends={2: 4, 3: 4}), IN_R2, 5, HERE),
    ("just at the position", image(), leader(ends={2: 5, 3: 4}), IN_R2, 5, 2),
    ("the furthest of two", image(), leader(ends={2: 8, 3: 9}), IN_R2, 5, 3),
    ("not heard in this reign", image(), leader(ends={2: -1, 3: -1}), IN_R2, 0, HERE),
]


@pytest.mark.parametrize(
    ("seen", "machine", "reader", "offset", "expected"),
    [row[1:] for row in ROWS],
    ids=[row[0] for row in ROWS],
)
def test_the_replica_is_in_the_rack_in_sync_alive_reachable_and_has_the_position(
    seen: MetadataImage, machine: Leader, reader: Reader, offset: int, expected: int
) -> None:
    assert read_replica(seen, machine, reader, offset, NOW_MS) == expected


def test_a_silent_replica_gets_no_consumers() -> None:
    machine = leader()
    assert read_replica(image(), machine, IN_R2, 5, NOW_MS + LAG_MS // 2) == 2
    assert read_replica(image(), machine, IN_R2, 5, NOW_MS + LAG_MS // 2 + 1) == HERE


# With three brokers: 1 leads in R1, 2 follows in R1, 3 follows in R2.


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World(racks={1: "R1", 2: "R1", 3: "R2"})
    await world.start()
    await world.brokers[1].produce(b"a")
    await until(lambda: all(one.partition.high_watermark == 1 for one in world.brokers.values()))
    yield world
    await world.stop()


async def fetched(
    broker: Broker, reader: Reader, offset: int = 0, *, wait_ms: int = 0
) -> Fetched | QuorateError:
    replicas, config = broker.replicas, broker.replicas.config
    fetch = Fetch(replicas, config, ALLOW_ALL)
    full = FullFetch(fetch, replicas, config, ALLOW_ALL)
    wanted = fetch.wanted(0, 1, 1 << 20, wait_ms)
    [found] = await full.once(ANN, reader, [FetchAsked(TOPIC_ID, 0, offset, -1, 1 << 20)], wanted)
    return found


async def test_a_leader_sends_the_consumer_away_at_once_and_without_records(world: World) -> None:
    found = await fetched(world.brokers[1], Reader("R2"), wait_ms=60_000)
    assert found == Fetched(b"", 1, 0, read_replica=3)
    there = await fetched(world.brokers[3], Reader("R2"))
    assert isinstance(there, Fetched)
    assert values_of(there.batches) == [b"a"]


async def test_a_leader_judges_the_position_before_it_sends_the_consumer_away(
    world: World,
) -> None:
    assert isinstance(await fetched(world.brokers[1], Reader("R2"), 5), OffsetOutOfRangeError)


@pytest.mark.parametrize("reader", [Reader(), Reader("R1"), Reader("R9")])
async def test_a_leader_serves_the_others_itself(world: World, reader: Reader) -> None:
    found = await fetched(world.brokers[1], reader)
    assert isinstance(found, Fetched)
    assert values_of(found.batches) == [b"a"]


async def test_a_consumer_without_a_rack_is_told_the_leader(world: World) -> None:
    assert isinstance(await fetched(world.brokers[3], Reader()), NotLeaderError)


async def test_a_consumer_that_waits_at_a_follower_is_woken_by_what_is_committed(
    world: World,
) -> None:
    session = Fetch(world.brokers[3].replicas, world.brokers[3].replicas.config, ALLOW_ALL).session(
        ANN, Reader("R2")
    )
    session.name((TOPIC_ID, 0), 1, leader_epoch=-1, bytes_max=1000)
    await collected(session, wait_ms=0)
    await world.brokers[1].produce(b"b")
    [found] = await collected(session, wait_ms=60_000)
    assert values_of(found.batches) == [b"b"]
    session.close()


async def collected(session: FetchSession, *, wait_ms: int) -> list[Fetched]:
    looks = await session.collect(Wanted(0, 1, 1 << 20, wait_ms), lambda: False)
    return [look.found for look in looks.values() if isinstance(look.found, Fetched)]


async def test_a_session_sends_the_consumer_away_once(world: World) -> None:
    leading = world.brokers[1].replicas
    session = Fetch(leading, leading.config, ALLOW_ALL).session(ANN, Reader("R2"))
    session.name((TOPIC_ID, 0), 1, leader_epoch=-1, bytes_max=1000)
    [found] = await collected(session, wait_ms=60_000)
    assert found.read_replica == 3
    await world.brokers[1].produce(b"b")
    assert await collected(session, wait_ms=0) == []
    session.name((TOPIC_ID, 0), 1, leader_epoch=-1, bytes_max=1000, stays_here=True)
    [found] = await collected(session, wait_ms=60_000)
    assert values_of(found.batches) == [b"b"]
    session.close()
