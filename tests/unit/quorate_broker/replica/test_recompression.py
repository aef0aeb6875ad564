"""A topic with a codec of its own: the leader recompresses, the followers copy bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from quorate.errors import CorruptRecordError, OutOfOrderSequenceError, RecordTooLargeError
from quorate.record.batch import BatchBuilder, parse_header, records, split
from quorate.record.compression import CODECS, GZIP, LZ4, NONE, SNAPPY, ZSTD
from quorate_broker.replica import checks, produce_queue
from quorate_quorum.v1 import events_pb2 as ev
from tests.unit.quorate_broker.builders import NOW_MS, TOPIC_ID, Broker, World, values_of


def batch_of(codec: int, *values: bytes, sequence: int = -1) -> memoryview:
    builder = BatchBuilder(codec=codec)
    if sequence >= 0:
        builder.producer_id, builder.producer_epoch, builder.base_sequence = 7, 0, sequence
    for index, value in enumerate(values):
        builder.append(NOW_MS + index, b"k%d" % index, value, (("h", b"1"), ("none", None)))
    return memoryview(builder.build())


def send(broker: Broker, batch: memoryview) -> asyncio.Future[produce_queue.Produced]:
    return broker.partition.as_leader().queue.produce(
        batch, acks=-1, timeout_ms=10_000, appended=lambda: None
    )


async def log_of(broker: Broker) -> bytes:
    log = broker.partition.log
    return await log.read(0, end=log.log_end_offset, bytes_max=64 << 20)


@pytest.fixture
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    world = World(brokers=2)
    await world.start(min_isr=2, configs=getattr(request, "param", {"compression.type": "zstd"}))
    yield world
    await world.stop()


@pytest.mark.parametrize(
    "world",
    [
        {"compression.type": "uncompressed" if name == "none" else name}
        | ({"cleanup.policy": "compact"} if is_compacted else {})
        for name in CODECS
        for is_compacted in (False, True)
    ],
    ids=lambda configs: "-".join(configs.values()),
    indirect=True,
)
async def test_every_batch_gets_the_codec_of_the_topic_and_followers_copy_it(
    world: World,
) -> None:
    leader, follower = world.brokers.values()
    values = [b"v" * 300, b"w" * 300]
    sent = [batch_of(codec, *values, sequence=2 * codec) for codec in CODECS.values()]
    placed = await asyncio.gather(*(send(leader, batch) for batch in sent))
    assert [one.base_offset for one in placed] == [0, 2, 4, 6, 8]

    await world.caught_up(2)
    log = await log_of(leader)
    assert await log_of(follower) == log
    wanted = leader.partition.config.codec
    for (header, batch), original in zip(split(log), sent, strict=True):
        before = parse_header(original)
        assert header.codec == wanted
        for field in ("last_offset_delta", "base_timestamp", "max_timestamp", "base_sequence"):
            assert getattr(header, field) == getattr(before, field)
        assert (header.producer_id, header.count) == (7, 2)
        assert [r[1:] for r in records(batch)] == [r[1:] for r in records(original)]


async def test_a_batch_that_is_sent_again_is_known_after_it_was_recompressed(
    world: World,
) -> None:
    leader = world.brokers[1]
    first = await send(leader, batch_of(LZ4, b"v" * 99, sequence=0))
    again = await send(leader, batch_of(LZ4, b"v" * 99, sequence=0))
    assert again.base_offset == first.base_offset == 0
    with pytest.raises(OutOfOrderSequenceError):
        await send(leader, batch_of(LZ4, b"v" * 99, sequence=5))
    assert leader.partition.log_end_offset == 1


@pytest.mark.parametrize(
    "world",
    [{"compression.type": "gzip", "message.timestamp.type": "LogAppendTime"}],
    indirect=True,
)
async def test_a_recompressed_batch_gets_the_time_of_its_append(world: World) -> None:
    leader = world.brokers[1]
    placed = await send(leader, batch_of(SNAPPY, b"v" * 300))
    assert placed.log_append_time_ms == NOW_MS
    ((header, batch),) = split(await log_of(leader))
    assert (header.codec, header.timestamp_type) == (GZIP, "log_append_time")
    assert [record.timestamp_ms for record in records(batch)] == [NOW_MS]


async def test_a_topic_gets_its_codec_while_it_is_in_use(world: World) -> None:
    leader = world.brokers[1]
    for name in ("gzip", "producer", "uncompressed"):
        config = ev.Config(topic_id=TOPIC_ID, name="compression.type", value=name)
        await world.commit(ev.MetadataEvent(config=config))
        await send(leader, batch_of(LZ4, b"v" * 300))
    assert [header.codec for header, _ in split(await log_of(leader))] == [GZIP, LZ4, NONE]


async def test_a_large_batch_is_recompressed_in_a_thread_and_keeps_its_place(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader = world.brokers[1]
    in_threads: list[int] = []

    async def in_thread(work: Callable[..., Any], *arguments: Any) -> Any:
        in_threads.append(len(arguments[0]))
        await asyncio.sleep(0.05)
        return work(*arguments)

    monkeypatch.setattr(leader.disk, "in_thread", in_thread)
    large = b"x" * checks.RECOMPRESSED_IN_A_TURN_BYTES
    batches = [
        batch_of(NONE, b"a"),
        batch_of(NONE, large),
        batch_of(ZSTD, large),
        batch_of(GZIP, b"b"),
    ]
    await asyncio.gather(*(send(leader, batch) for batch in batches))
    assert in_threads == [len(batches[1])]
    assert values_of(await log_of(leader)) == [b"a", large, large, b"b"]


async def test_a_batch_that_cannot_be_recompressed_is_refused_and_the_others_are_taken(
    world: World,
) -> None:
    leader = world.brokers[1]
    damaged = bytearray(batch_of(LZ4, b"v" * 300))
    damaged[61:65] = b"abcd"
    good = [batch_of(LZ4, b"1"), batch_of(LZ4, b"2")]
    results = await asyncio.gather(
        send(leader, good[0]),
        send(leader, memoryview(damaged)),
        send(leader, good[1]),
        return_exceptions=True,
    )
    assert isinstance(results[1], CorruptRecordError)
    assert values_of(await log_of(leader)) == [b"1", b"2"]


@pytest.mark.parametrize(
    "world", [{"compression.type": "uncompressed", "max.message.bytes": "1100000"}], indirect=True
)
async def test_batches_that_grow_keep_their_order_and_the_bound_of_one_append(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few kilobytes that become 24 MB: no more than 8 MiB of them are held at a time."""
    leader = world.brokers[1]
    log = leader.partition.log
    appended: list[int] = []
    append = log.append

    async def watched(writes: list[Any]) -> None:
        appended.append(sum(len(part) for _, parts in writes for part in parts))
        await append(writes)

    monkeypatch.setattr(log, "append", watched)
    values = [bytes((index,)) * 1_000_000 for index in range(24)]
    placed = await asyncio.gather(
        *(send(leader, batch_of(ZSTD, v, sequence=i)) for i, v in enumerate(values))
    )
    assert [one.base_offset for one in placed] == list(range(24))
    assert len(appended) == 3
    assert max(appended) <= produce_queue.APPEND_BYTES_MAX
    assert values_of(await log_of(leader)) == values


@pytest.mark.parametrize(
    "world", [{"compression.type": "uncompressed", "max.message.bytes": "2048"}], indirect=True
)
async def test_a_batch_that_becomes_larger_than_a_message_may_be_is_refused(world: World) -> None:
    with pytest.raises(RecordTooLargeError, match=r"max\.message\.bytes is 2048"):
        await send(world.brokers[1], batch_of(ZSTD, bytes(3000)))
