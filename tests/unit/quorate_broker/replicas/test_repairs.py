"""A replica that has less than it had gets no role, and is then repaired."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from quorate_broker.replica.partition import Partition
from quorate_quorum.v1 import events_pb2 as ev
from tests.unit.quorate_broker.builders import TOPIC_ID, Broker, World, no_controller, until

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
