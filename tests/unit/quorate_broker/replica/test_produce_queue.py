"""What producers send to a leader: refused, appended in order, known again, and stamped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from quorate.errors import (
    CorruptRecordError,
    InvalidRequestError,
    InvalidTimestampError,
    NotEnoughReplicasAfterAppendError,
    NotLeaderError,
    OutcomeUnknownError,
    OutOfOrderSequenceError,
    QuorateError,
    RecordTooLargeError,
    UnknownProducerIdError,
)
from quorate.record.batch import split, stamp
from quorate_broker.replica import checks
from quorate_broker.replica.chain import Chain
from quorate_broker.replica.produce_queue import (
    APPEND_UNITS,
    APPEND_UNITS_A_TURN,
    Produced,
    ProduceQueue,
)
from quorate_broker.replicas.replicas import FIRST_APPENDS_MAX
from quorate_quorum.v1 import events_pb2 as ev
from tests.unit.quorate_broker.builders import (
    NOW_MS,
    TOPIC_ID,
    Broker,
    World,
    batch_of,
    directory_id,
    until,
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


async def test_produce_answers_with_the_place_of_the_batch(broker: Broker) -> None:
    first = await broker.produce(b"a", b"b")
    second = await broker.produce(b"c")

    assert (first.base_offset, second.base_offset) == (0, 2)
    assert first.log_append_time_ms == -1
    assert await read_all(broker) == [b"a", b"b", b"c"]


async def test_log_append_time_is_the_leaders_clock() -> None:
    world = World(brokers=1)
    await world.start(min_isr=1, configs={"message.timestamp.type": "LogAppendTime"})
    produced = await world.brokers[1].produce(b"a", timestamp_ms=5)

    assert produced.log_append_time_ms == NOW_MS
    assert await read_all(world.brokers[1]) == [b"a"]
    await world.stop()


async def test_a_compacted_topic_refuses_records_without_a_key() -> None:
    world = World(brokers=1)
    await world.start(min_isr=1, configs={"cleanup.policy": "compact"})
    partition = world.brokers[1].partition

    with pytest.raises(InvalidRequestError, match="record 0 of its batch is without a key"):
        await partition.as_leader().queue.produce(
            batch_of(b"a", key=None),
            acks=1,
            timeout_ms=1000,
            appended=lambda: None,
        )
    await world.stop()


def with_changed_byte(batch: memoryview) -> memoryview:
    data = bytearray(batch)
    data[-1] ^= 1
    return memoryview(bytes(data))


@pytest.mark.parametrize(
    ("batch", "error"),
    [
        (with_changed_byte(batch_of(b"a")), CorruptRecordError),
        (batch_of(b"a")[:-1], CorruptRecordError),
        (memoryview(b""), CorruptRecordError),
        (memoryview(bytes(batch_of(b"a")) * 2), CorruptRecordError),
        (batch_of(b"x" * (2 << 20)), RecordTooLargeError),
        (batch_of(b"a", timestamp_ms=NOW_MS + (2 << 32)), InvalidTimestampError),
        (batch_of(b"a", producer_id=7, epoch=0, sequence=4), UnknownProducerIdError),
    ],
    ids=["a bit", "cut", "empty", "two", "large", "in the future", "unknown producer"],
)
async def test_what_is_refused_leaves_its_neighbours_alone(
    broker: Broker, batch: memoryview, error: type[QuorateError]
) -> None:
    appended: list[str] = []
    before = broker.produce(b"before")
    refused = broker.partition.as_leader().queue.produce(
        batch, acks=-1, timeout_ms=1000, appended=lambda: appended.append("it")
    )
    after = broker.produce(b"after")

    with pytest.raises(error):
        await refused
    await asyncio.gather(before, after)
    assert appended == ["it"]
    assert await read_all(broker) == [b"before", b"after"]


async def test_a_duplicate_waits_for_the_commit_of_the_original() -> None:
    """It gets the original's offset: five in flight, in one append or in several."""
    world = World(brokers=2)
    await world.start(min_isr=2)
    one = world.brokers[1]
    await world.brokers[2].stop()
    first = [one.produce(b"%d" % n, producer_id=7, epoch=0, sequence=n) for n in range(5)]
    await until(lambda: one.partition.log_end_offset == 5)
    again = [one.produce(b"%d" % n, producer_id=7, epoch=0, sequence=n) for n in range(5)]
    behind = one.produce(b"behind the duplicates")
    await until(lambda: one.partition.log_end_offset == 6)
    assert not any(future.done() for future in (*first, *again))

    await world.brokers[2].start()
    await world.register(world.brokers[2])

    assert [(await future).base_offset for future in again] == [0, 1, 2, 3, 4]
    assert one.partition.log_end_offset == 6
    with pytest.raises(OutOfOrderSequenceError):
        await one.produce(b"x", producer_id=7, epoch=0, sequence=9)
    await asyncio.gather(*first, behind)
    await world.stop()


async def test_the_window_outlives_a_restart_and_a_change_of_leader() -> None:
    world = World(brokers=2)
    await world.start(min_isr=1)
    one, two = world.brokers.values()
    for number in range(7):
        await one.produce(b"%d" % number, producer_id=7, epoch=0, sequence=number)
    await two.stop()
    await two.start()
    await world.register(two)
    await world.change(leader=2)

    again = await two.produce(b"3", producer_id=7, epoch=0, sequence=3)

    assert again.base_offset == 3
    assert two.partition.log_end_offset == 7
    older = await two.produce(b"1", producer_id=7, epoch=0, sequence=1)
    assert older.base_offset == -1  # it is there; where, is not remembered
    assert two.partition.log_end_offset == 7
    with pytest.raises(OutOfOrderSequenceError):
        await two.produce(b"9", producer_id=7, epoch=0, sequence=9)
    await world.stop()


@pytest.mark.parametrize("timestamp_type", ["CreateTime", "LogAppendTime"])
@pytest.mark.parametrize("policy", ["delete", "compact"])
async def test_a_batch_of_another_library_is_stamped_over_and_can_be_read(
    timestamp_type: str, policy: str
) -> None:
    """It says no producer id, a sequence all the same, and any offset and leader_epoch."""
    world = World(brokers=1)
    configs = {"message.timestamp.type": timestamp_type, "cleanup.policy": policy}
    await world.start(min_isr=1, configs=configs)
    broker = world.brokers[1]
    for sequence in (0, 0):
        foreign = bytearray(batch_of(b"a", epoch=-1, sequence=sequence))
        stamp(foreign, base_offset=-1, leader_epoch=-9)
        await broker.partition.as_leader().queue.produce(
            memoryview(foreign), acks=-1, timeout_ms=10_000, appended=lambda: None
        )
    fetched = await broker.partition.as_leader().fetch(0, bytes_max=1 << 20)
    headers = [header for header, _ in split(fetched.batches)]
    assert [(one.base_offset, one.leader_epoch) for one in headers] == [(0, 0), (1, 0)]
    assert values_of(fetched.batches) == [b"a", b"a"]
    await world.stop()


async def test_a_large_batch_is_decompressed_in_a_thread_and_keeps_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(brokers=1)
    await world.start(min_isr=1, configs={"cleanup.policy": "compact"})
    broker = world.brokers[1]
    in_threads: list[object] = []

    async def in_thread(work: Callable[..., Any], *arguments: object) -> Any:
        in_threads.append(work)
        for _ in range(50):  # long enough for the batches behind it to pass it, if they could
            await asyncio.sleep(0)
        return work(*arguments)

    monkeypatch.setattr(broker.disk, "in_thread", in_thread)
    large = b"x" * checks.DECOMPRESSED_IN_A_TURN_BYTES
    results = await asyncio.gather(
        broker.produce(b"a"),
        broker.produce(large),
        broker.produce(large, key=None),  # type: ignore[arg-type]
        broker.produce(b"b"),
        return_exceptions=True,
    )
    assert len(in_threads) == 2
    assert isinstance(results[2], InvalidRequestError)
    assert await read_all(broker) == [b"a", large, b"b"]
    await world.stop()


async def many_queues(world: World, count: int) -> list[ProduceQueue]:
    """Return the queues of `count` partitions that broker 1 leads and that hold nothing yet."""
    replica = ev.Replica(broker_id=1, directory_id=directory_id(1))
    made = (
        ev.Partition(
            topic_id=TOPIC_ID,
            partition=index,
            replicas=[replica],
            isr=[1],
            leader=1,
            recovered_epoch=-1,
        )
        for index in range(1, count)
    )
    await world.commit(*(ev.MetadataEvent(partition=partition) for partition in made))
    replicas = world.brokers[1].replicas
    return [replicas.get(TOPIC_ID, index).as_leader().queue for index in range(count)]


async def test_batches_for_many_partitions_are_appended_in_several_turns(world: World) -> None:
    """One request may name a thousand partitions: heartbeats must not wait for all of them."""
    count = 200
    queues = await many_queues(world, count)
    loop = asyncio.get_running_loop()
    appended = [0]
    handles: list[asyncio.Handle] = []

    def next_turn() -> None:
        appended.append(0)
        handles[:] = [loop.call_soon(next_turn)]

    def count_one() -> None:
        appended[-1] += 1

    next_turn()
    await asyncio.gather(
        *(
            queue.produce(batch_of(b"a"), acks=1, timeout_ms=10_000, appended=count_one)
            for queue in queues
        )
    )
    handles[0].cancel()
    assert sum(appended) == count
    assert max(appended) <= APPEND_UNITS_A_TURN // APPEND_UNITS


async def test_few_replicas_make_their_first_append_at_the_same_time(world: World) -> None:
    """Each waits for files that it makes; a thousand would end together, in one turn."""
    queues = await many_queues(world, 3 * FIRST_APPENDS_MAX)
    under_way = most = 0

    def hook(name: str, path: str) -> None:
        nonlocal under_way, most
        if name == "make_directory":
            under_way += 1
            most = max(most, under_way)

    def appended() -> None:
        nonlocal under_way
        under_way -= 1

    world.brokers[1].disk.slow = 0.001  # appends wait for one another
    world.brokers[1].disk.hook = hook
    await asyncio.gather(
        *(q.produce(batch_of(b"a"), acks=1, timeout_ms=10_000, appended=appended) for q in queues)
    )
    assert 1 < most <= FIRST_APPENDS_MAX


@pytest.fixture
async def pair() -> AsyncIterator[World]:
    """A leader, and a follower that does not run: nothing is committed."""
    world = World(brokers=2)
    await world.start(min_isr=1)
    await world.brokers[2].stop()
    yield world
    await world.stop()


async def test_a_leader_that_leads_the_next_epoch_keeps_what_waits_for_its_commit(
    pair: World,
) -> None:
    """A replica was removed: the log is the same, so the records are committed in it."""
    broker = pair.brokers[1]
    written = broker.produce(b"a")
    await until(lambda: broker.partition.log_end_offset == 1)
    role = broker.partition.role
    await pair.change(raise_epoch=True)
    assert broker.partition.role is not role
    assert not written.done()
    await pair.change(isr=[1])
    assert (await written).base_offset == 0
    assert await broker.stored() == [b"a"]


async def test_a_batch_that_is_being_appended_when_the_next_epoch_begins_is_written_once(
    pair: World,
) -> None:
    broker = pair.brokers[1]
    sent = [broker.produce(b"%d" % n, acks=acks) for n, acks in enumerate((-1, 1, 0))]
    await pair.change(raise_epoch=True)
    sent.append(broker.produce(b"3"))
    await pair.change(isr=[1])
    assert [(await one).base_offset for one in sent] == [0, 1, 2, 3]
    assert await broker.stored() == [b"0", b"1", b"2", b"3"]


async def test_what_waits_fails_if_another_may_have_led_between(pair: World) -> None:
    """The record at its offset may be another one by then."""
    broker = pair.brokers[1]
    written = broker.produce(b"a")
    await until(lambda: broker.partition.log_end_offset == 1)
    await pair.change(raise_epoch=True, to=[])
    await pair.change(raise_epoch=True)
    with pytest.raises(OutcomeUnknownError):
        await written


async def test_what_waits_fails_in_a_next_epoch_whose_isr_is_too_small() -> None:
    world = World(brokers=2)
    await world.start(min_isr=2)
    await world.brokers[2].stop()
    broker = world.brokers[1]
    written = broker.produce(b"a")
    await until(lambda: broker.partition.log_end_offset == 1)
    await world.change(raise_epoch=True, isr=[1])
    with pytest.raises(NotEnoughReplicasAfterAppendError, match="then the ISR shrank"):
        await written
    await world.stop()


async def test_batches_of_the_broker_itself_end_with_the_epoch(pair: World) -> None:
    """Their writer reads the log anew, and must not find batches in it that come later."""
    broker = pair.brokers[1]
    chain = Chain()

    def write(value: bytes) -> asyncio.Future[Produced]:
        queue = broker.partition.as_leader().queue
        return queue.produce(
            batch_of(value), acks=-1, timeout_ms=10_000, appended=lambda: None, chain=chain
        )

    waiting = write(b"a")
    await until(lambda: broker.partition.log_end_offset == 1)
    queue = broker.partition.as_leader().queue
    await pair.change(raise_epoch=True)
    with pytest.raises(OutcomeUnknownError):
        await waiting
    assert broker.partition.as_leader().queue is not queue
    with pytest.raises(OutcomeUnknownError):
        await write(b"b")
    late = queue.produce(batch_of(b"c"), acks=-1, timeout_ms=10_000, appended=lambda: None)
    with pytest.raises(NotLeaderError):
        await late
    assert await broker.stored() == [b"a"]
