"""A replica that has less than it had gets no role, and is then repaired."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from quorate.record.batch import BatchBuilder
from quorate_broker.replica.partition import Partition
from quorate_quorum.v1 import events_pb2 as ev
from tests.unit.quorate_broker.builders import (
    NOW_MS,
    TOPIC_ID,
    Broker,
    World,
    no_controller,
    until,
)
from tests.unit.quorate_broker.compaction.builders import compact, final, read

LOG = "/data/invoice-0/00000000000000000000.log"
KEY = (TOPIC_ID, 0)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    await world.start()
    yield world
    await world.stop()


async def damaged(broker: Broker, kept: int) -> None:
    """Stop a broker, cut its log file at an odd place, and start it again."""
    await broker.stop(clean=True)
    broker.disk.put(LOG, broker.disk.content(LOG)[:kept])
    await broker.start()


async def test_a_lossy_replica_takes_no_role_while_the_image_counts_on_it(world: World) -> None:
    for number in range(5):
        await world.brokers[1].produce(b"%d" % number)
    follower = world.brokers[2]
    await world.caught_up(2)
    world.on_alter = no_controller
    await follower.stop()
    content = bytearray(follower.disk.content(LOG))
    content[65] ^= 1
    follower.disk.put(LOG, bytes(content))
    await follower.start()
    await world.register(follower)

    assert KEY in follower.replicas.losses
    [told] = follower.replicas.losses.to_tell(world.image)
    assert told.partition_epoch == world.state.partition_epoch
    assert follower.partition.follower is None, "it fetches nothing: it would look caught up"
    assert follower.replicas.replica_end(*KEY) == (-1, 0), "an election may ask for its end"
    await world.change(isr=[1, 3])
    await until(lambda: follower.partition.follower is not None)
    assert KEY not in follower.replicas.losses
    await world.caught_up(2)


async def test_a_corrupt_replica_is_cut_at_the_first_bad_batch_and_fetched_again(
    world: World,
) -> None:
    for number in range(5):
        await world.brokers[1].produce(b"%d" % number)
    follower = world.brokers[2]
    await world.caught_up(2)
    world.on_alter = no_controller
    await damaged(follower, 150)
    await world.register(follower)
    assert KEY in follower.replicas.losses
    assert follower.replicas.find(*KEY) is None
    await world.change(isr=[1, 3])
    await until(lambda: follower.replicas.find(*KEY) is not None)
    await world.caught_up(2)
    assert await follower.stored() == [b"0", b"1", b"2", b"3", b"4"]


async def test_a_repaired_follower_is_not_trusted_for_what_it_had_before(world: World) -> None:
    """Its leader may have proposed it for the ISR before it heard of the damage."""
    for number in range(5):
        await world.brokers[1].produce(b"%d" % number)
    follower = world.brokers[2]
    await world.caught_up(2)
    world.on_alter = no_controller
    await world.change(isr=[1, 3])
    await follower.fetchers.stop()  # what is lost is not fetched again
    before = follower.partition
    content = bytearray(follower.disk.content(LOG))
    content[65] ^= 1
    follower.disk.put(LOG, bytes(content))
    before.take_offline("corrupt", "for the test")
    await until(lambda: repaired(follower, before))
    partition = follower.partition
    assert partition.log_end_offset == 0

    await world.change(isr=[1, 2, 3])  # the earlier proposal is committed now
    assert KEY in follower.replicas.losses
    await world.change(leader=2)
    assert not partition.is_leader
    await world.change(leader=1, isr=[1, 3])
    assert KEY not in follower.replicas.losses
    assert partition.follower is not None


def repaired(broker: Broker, before: Partition) -> bool:
    now = broker.replicas.find(*KEY)
    return now is not None and now is not before and now.offline is None


async def test_a_removed_topic_is_told_of_no_more(world: World) -> None:
    await world.brokers[1].produce(b"a")
    follower = world.brokers[2]
    await world.caught_up(2)
    world.on_alter = no_controller
    follower.partition.take_offline("corrupt", "for the test")
    await until(lambda: KEY in follower.replicas.losses)
    await world.commit(ev.MetadataEvent(remove_topic=ev.RemoveTopic(topic_id=TOPIC_ID)))
    assert KEY not in follower.replicas.losses


# compacted topics


@pytest.fixture
async def compacted() -> AsyncIterator[World]:
    """A topic whose third replica has a deleted key and a bad batch; the others have neither."""
    world = World()
    await world.start(configs={"cleanup.policy": "compact"})
    for key, value in ((b"k", b"v"), (b"x", b"1"), (b"k", None), (b"y", b"1")):
        await put(world, key, value)
    await world.caught_up(2, 3)
    for now_ms in (NOW_MS, 2 * NOW_MS):
        await put(world, b"y", b"2")
        await world.caught_up(2, 3)
        for broker_id in (1, 2):
            broker = world.brokers[broker_id]
            await broker.partition.log.roll()
            await compact(broker.disk, broker.partition.log, now_ms)
            assert b"k" not in final(await read(broker.partition.log))
    batches = await read(world.brokers[3].partition.log)
    world.brokers[3].disk.flip_bit(LOG, len(batches[0][1]) + 66)
    yield world
    await world.stop()


async def put(world: World, key: bytes, value: bytes | None) -> None:
    builder = BatchBuilder()
    builder.append(NOW_MS, key, value)
    queue = world.brokers[world.state.leader].partition.as_leader().queue
    batch = memoryview(builder.build())
    await queue.produce(batch, acks=-1, timeout_ms=10_000, appended=lambda: None)


async def salvaged(world: World) -> Partition:
    """Have the third replica salvaged, and return it."""
    broker = world.brokers[3]
    before = broker.partition
    world.on_alter = no_controller
    before.take_offline("corrupt", "for the test")
    await until(lambda: KEY in broker.replicas.losses)
    await world.change(isr=[1, 2])
    await until(lambda: repaired(broker, before))
    return broker.partition


async def test_a_deleted_key_does_not_come_back_with_a_repaired_replica(compacted: World) -> None:
    """It kept what was before its bad batch, and the others had dropped the tombstone."""
    partition = await salvaged(compacted)
    await compacted.caught_up(3)
    leader = compacted.brokers[1].partition
    assert await read(partition.log) == await read(leader.log)
    await compacted.change(isr=[1, 2, 3])
    assert not partition.log.damage.is_noted, "it is an ordinary replica again"


async def test_a_restart_before_a_repaired_log_begins_again_forgets_nothing(
    compacted: World,
) -> None:
    broker = compacted.brokers[3]
    await broker.fetchers.stop()
    partition = await salvaged(compacted)
    assert b"k" in final(await read(partition.log))
    await broker.stop()
    await broker.start()
    await compacted.register(broker)
    await compacted.caught_up(3)
    assert b"k" not in final(await read(broker.partition.log))


async def test_a_repaired_log_that_has_caught_up_does_not_begin_again(compacted: World) -> None:
    await salvaged(compacted)
    await compacted.caught_up(3)
    await compacted.change(isr=[1, 2, 3])
    broker = compacted.brokers[3]
    await broker.stop()
    await broker.start()
    assert KEY not in broker.replicas.losses
    await compacted.register(broker)
    await put(compacted, b"z", b"1")
    await compacted.caught_up(3)
    assert broker.partition.log.truncations == 0


async def test_a_damaged_log_that_is_elected_keeps_what_is_left(compacted: World) -> None:
    broker = compacted.brokers[3]
    await broker.fetchers.stop()
    partition = await salvaged(compacted)
    end = partition.log_end_offset
    await compacted.change(leader=-1, isr=[])
    await compacted.change(leader=3, isr=[3], recovered=True)
    assert partition.is_leader
    assert partition.log_end_offset == end > 0
    assert not partition.log.damage.is_noted
    await compacted.change(leader=1, isr=[1, 3])
    assert broker.partition.log_end_offset == end
