"""What a leader shows to consumers and takes from followers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from crc32c import crc32c

from quorate.aio.clock import loop_ms
from quorate.errors import (
    FencedLeaderEpochError,
    NotLeaderError,
    OffsetOutOfRangeError,
    UnknownLeaderEpochError,
)
from quorate.record.batch import BatchBuilder, check
from quorate_broker.replica import checks
from quorate_broker.replica.hints import hint_of
from quorate_broker.replica.leader import ReplicaStream
from quorate_broker.replica.produce_queue import Produced
from quorate_broker.v1.replica_pb2 import ReplicaFetchPartition
from tests.unit.quorate_broker.builders import (
    NOW_MS,
    TOPIC_ID,
    Broker,
    World,
    batch_of,
    values_of,
)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World(brokers=1)
    await world.start(min_isr=1)
    yield world
    await world.stop()


@pytest.fixture
def broker(world: World) -> Broker:
    return world.brokers[1]


async def read_all(broker: Broker) -> list[bytes]:
    fetched = await broker.partition.as_leader().fetch(0, bytes_max=1 << 20)
    return values_of(fetched.batches)


async def test_another_leader_epoch_is_told_apart(broker: Broker) -> None:
    """KIP-320: an older view is fenced, a newer one means that this broker is behind."""
    partition = broker.partition
    await broker.world.change(raise_epoch=True)

    with pytest.raises(FencedLeaderEpochError) as caught:
        await partition.as_leader(0).fetch(0, bytes_max=1)
    with pytest.raises(UnknownLeaderEpochError):
        await partition.as_leader(2).fetch(0, bytes_max=1)
    with pytest.raises(FencedLeaderEpochError):
        await partition.as_leader(0).queue.produce(
            batch_of(b"a"), acks=1, timeout_ms=1, appended=lambda: None
        )
    hint = hint_of(caught.value)
    assert hint is not None
    assert (hint.leader, hint.leader_epoch) == (1, 1)


async def test_fetch_between_the_high_watermark_and_the_end_is_empty() -> None:
    world = World(brokers=2)
    await world.start(min_isr=2)
    one = world.brokers[1]
    await one.produce(b"a")
    await world.brokers[2].stop()
    await one.produce(b"b", acks=1)

    assert (one.partition.high_watermark, one.partition.log_end_offset) == (1, 2)
    assert await read_all(one) == [b"a"]
    for offset in (1, 2):
        fetched = await one.partition.as_leader().fetch(offset, bytes_max=1 << 20)
        assert fetched.batches == b""
    for offset in (-1, 3):
        with pytest.raises(OffsetOutOfRangeError):
            await one.partition.as_leader().fetch(offset, bytes_max=1 << 20)
    await world.stop()


async def test_reading_while_appending_shows_nothing_beyond_the_high_watermark() -> None:
    """A read at the end of the log races appends."""
    world = World(brokers=2)
    await world.start(min_isr=1)
    one = world.brokers[1]
    writing: list[asyncio.Future[Produced]] = []

    async def write() -> None:
        for number in range(300):
            writing.append(one.produce(b"%d" % number))
            await asyncio.sleep(0)

    writer = asyncio.create_task(write())
    seen: list[bytes] = []
    offset = races = 0
    while len(seen) < 300:
        fetched = await one.partition.as_leader().fetch(offset, bytes_max=1 << 20)
        values = values_of(fetched.batches)
        offset += len(values)
        assert offset <= fetched.high_watermark <= one.partition.high_watermark
        races += bool(values) and one.partition.log_end_offset > fetched.high_watermark
        seen.extend(values)
        await asyncio.sleep(0)
    await writer
    await asyncio.gather(*writing)
    assert races
    assert seen == [b"%d" % number for number in range(300)]
    await world.stop()


async def test_a_read_that_outlives_the_reign_is_not_served(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """KAFKA-9838: the next leader may have cut what was read."""
    await broker.produce(b"a")
    leader, log, begun = broker.partition.as_leader(), broker.partition.log, asyncio.Event()
    gate, read = asyncio.Event(), log.read

    async def held(offset: int, **bounds: Any) -> bytes:
        found = await read(offset, **bounds)
        begun.set()
        await gate.wait()
        return found

    monkeypatch.setattr(log, "read", held)
    reading = asyncio.create_task(leader.fetch(0, bytes_max=1 << 20))
    await begun.wait()
    await broker.world.change(raise_epoch=True)
    gate.set()

    with pytest.raises(NotLeaderError):
        await reading


def fetch_of(offset: int, last_epoch: int, *, leader_epoch: int = 1) -> ReplicaFetchPartition:
    return ReplicaFetchPartition(
        topic_id=TOPIC_ID,
        partition=0,
        leader_epoch=leader_epoch,
        fetch_offset=offset,
        last_fetched_epoch=last_epoch,
    )


async def test_a_fetch_that_diverges_or_is_stale_moves_no_state() -> None:
    """Only a position whose past is that of the leader's log counts."""
    world = World(brokers=2)
    await world.start(min_isr=1)
    one = world.brokers[1]
    await one.produce(b"a", b"b")
    await world.brokers[2].stop()
    await world.change(raise_epoch=True)
    await one.produce(b"c", b"d", acks=1)
    partition = one.partition
    stream = ReplicaStream(2, 1, b"", 9, 0)

    for request in (fetch_of(4, 0), fetch_of(4, 9), fetch_of(3, 0)):
        diverging = partition.as_leader().follower_fetch(stream, request, 0)
        assert diverging is not None
        assert (diverging.epoch, diverging.end_offset) in [(0, 2), (1, 4)]
    for request, error in (
        (fetch_of(4, 1, leader_epoch=0), FencedLeaderEpochError),
        (fetch_of(4, 1, leader_epoch=2), UnknownLeaderEpochError),
        (fetch_of(4, 1, leader_epoch=-1), FencedLeaderEpochError),
        (fetch_of(-1, 1), OffsetOutOfRangeError),
        (fetch_of(9, -1), OffsetOutOfRangeError),
    ):
        with pytest.raises(error):
            partition.as_leader().follower_fetch(stream, request, 0)
    assert partition.high_watermark == 2
    assert partition.as_leader().follower_fetch(stream, fetch_of(4, 1), 0) is None
    assert partition.high_watermark == 4
    await world.stop()


@pytest.mark.parametrize(
    "what", ["eligible", "fenced", "a disk that failed", "another registration", "being removed"]
)
async def test_the_high_watermark_waits_only_for_a_replica_that_may_enter_the_isr(
    what: str,
) -> None:
    """And for that one only as long as two of its rounds and a little more."""
    world = World(brokers=2, lag_ms=1_000)
    await world.start(min_isr=1)
    one = world.brokers[1]
    await world.brokers[2].stop()
    await world.change(isr=[1], **({"removing": [2]} if what == "being removed" else {}))
    await world.register(world.brokers[2])
    epoch = world.image.brokers[2].epoch
    if what == "fenced":
        await world.fence(2)
    elif what == "a disk that failed":
        await world.fail_directory(2)
    stream = ReplicaStream(2, epoch - (what == "another registration"), b"", 9, 0)
    leader = one.partition.as_leader()
    await one.produce(b"a")
    now_ms = loop_ms()
    leader.follower_fetch(stream, fetch_of(0, -1, leader_epoch=0), now_ms)
    await one.produce(b"b")

    leader.follower_fetch(stream, fetch_of(1, 0, leader_epoch=0), now_ms + 2)
    assert list(leader.machine.awaited.broker_ids) == ([2] if what == "eligible" else [])

    await one.produce(b"c")
    assert one.partition.high_watermark == 3
    assert not leader.machine.awaited.broker_ids
    assert leader.machine.isr == (1,)
    await world.stop()


async def test_list_offset_knows_the_ends_and_times(broker: Broker) -> None:
    await broker.produce(b"a", timestamp_ms=1000)
    await broker.produce(b"b", timestamp_ms=2000)
    partition = broker.partition

    assert await partition.as_leader().list_offset(-2) == (0, -1, 0)
    assert await partition.as_leader().list_offset(-1) == (2, -1, 0)
    assert await partition.as_leader().list_offset(1500) == (1, 2000, 0)
    assert await partition.as_leader().list_offset(2500) == (-1, -1, -1)


def garbage_batch() -> memoryview:
    """Return a batch whose header and CRC hold, and whose records do not decode."""
    builder = BatchBuilder()
    builder.append(NOW_MS, b"k", b"0123456789")
    data = bytearray(builder.build())
    data[61:] = b"\xff" * (len(data) - 61)
    data[17:21] = crc32c(data[21:]).to_bytes(4, "big")
    check(data, from_producer=True)
    return memoryview(data)


async def test_a_batch_whose_records_do_not_decode_costs_no_disk(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older brokers took such batches unseen. A search by time meets one."""
    leader = world.brokers[1]
    monkeypatch.setattr(checks, "check_records", lambda data, position, **_: (len(data), 0))
    produced = await leader.partition.as_leader().queue.produce(
        garbage_batch(), acks=-1, timeout_ms=5_000, appended=lambda: None
    )

    found = await leader.partition.as_leader().list_offset(NOW_MS)

    assert found[:2] == (produced.base_offset, NOW_MS)
    assert leader.partition.offline is None
    assert leader.replicas.failed_directories == {}
