"""What a broker does with a replica that has less than it had: no role, then repair."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator

import pytest

from quorate_broker.replica.partition import Partition
from quorate_quorum.log.directory import CORRUPT_FILE
from quorate_quorum.v1 import controller_pb2 as wire
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


async def caught_up(world: World, *ids: int) -> None:
    """Wait until these have all that the leader has."""
    leader = world.brokers[world.state.leader]
    await until(
        lambda: all(
            world.brokers[b].partition.log_end_offset == leader.partition.log_end_offset
            for b in ids
        )
    )


async def damaged(broker: Broker, kept: int) -> None:
    """Stop a broker, cut its log file at an odd place, and start it again."""
    await broker.stop(clean=True)
    broker.disk.put(LOG, broker.disk.content(LOG)[:kept])
    await broker.start()


async def test_a_lossy_replica_takes_no_role_while_the_image_counts_on_it(world: World) -> None:
    for number in range(5):
        await world.brokers[1].produce(b"%d" % number)
    follower = world.brokers[2]
    await caught_up(world, 2)
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
    await caught_up(world, 2)


async def test_a_corrupt_replica_is_cut_at_the_first_bad_batch_and_fetched_again(
    world: World,
) -> None:
    for number in range(5):
        await world.brokers[1].produce(b"%d" % number)
    follower = world.brokers[2]
    await caught_up(world, 2)
    world.on_alter = no_controller
    await damaged(follower, 150)
    await world.register(follower)
    assert KEY in follower.replicas.losses
    assert follower.replicas.find(*KEY) is None
    await world.change(isr=[1, 3])
    await until(lambda: follower.replicas.find(*KEY) is not None)
    await caught_up(world, 2)
    assert await follower.stored() == [b"0", b"1", b"2", b"3", b"4"]


async def test_a_repaired_follower_is_not_trusted_for_what_it_had_before(world: World) -> None:
    """Its leader may have proposed it for the ISR before it heard of the damage."""
    for number in range(5):
        await world.brokers[1].produce(b"%d" % number)
    follower = world.brokers[2]
    await caught_up(world, 2)
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

    await world.change(isr=[1, 2, 3])  # the proposal of then is committed now
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
    await caught_up(world, 2)
    world.on_alter = no_controller
    follower.partition.take_offline("corrupt", "for the test")
    await until(lambda: KEY in follower.replicas.losses)
    await world.commit(ev.MetadataEvent(remove_topic=ev.RemoveTopic(topic_id=TOPIC_ID)))
    assert KEY not in follower.replicas.losses


NOTE = f"/data/invoice-0/{CORRUPT_FILE}"


async def damaged_leader(world: World) -> Broker:
    """A leader with a bad batch that was found."""
    leader = world.brokers[1]
    for number in range(5):
        await leader.produce(b"%d" % number)
    await caught_up(world, 2, 3)
    leader.disk.flip_bit(LOG, 65)
    return leader


def noted(broker: Broker) -> bool:
    return CORRUPT_FILE in broker.disk.names("/data/invoice-0")


async def test_a_leader_notes_its_damage_durably_before_it_resigns(world: World) -> None:
    """It may die before the repair, and the next start does not look where the bad batch is."""
    leader = await damaged_leader(world)
    resignations: list[bool] = []

    def on_alter(wanted: wire.AlterPartition) -> None:
        if wanted.lossy:
            resignations.append(noted(leader))
            no_controller(wanted)

    world.on_alter = on_alter
    leader.partition.damage.suspect(0)
    await until(lambda: len(resignations) > 0)
    assert all(resignations)

    await leader.stop()
    await leader.start()
    await world.register(leader)
    assert KEY in leader.replicas.losses
    assert leader.replicas.find(*KEY) is None, "it has no role before it is repaired"
    await world.change(leader=2, isr=[2, 3])
    await until(lambda: leader.replicas.find(*KEY) is not None)
    await caught_up(world, 1)
    assert await leader.stored() == [b"0", b"1", b"2", b"3", b"4"]
    assert not noted(leader)


async def test_a_leader_that_can_not_note_its_damage_does_not_resign(world: World) -> None:
    leader = await damaged_leader(world)
    tries: list[str] = []

    def full(name: str, path: str) -> None:
        if path == NOTE:
            tries.append(name)
            raise OSError(errno.ENOSPC, "no room")

    leader.disk.hook = full
    leader.partition.damage.suspect(0)
    await until(lambda: len(tries) >= 2)
    assert leader.partition.is_leader
    leader.disk.hook = None
    await until(lambda: world.state.leader != 1)


async def test_the_only_copy_of_a_damaged_log_is_not_noted_as_corrupt(world: World) -> None:
    """What is good behind the bad batch would be cut at the next start."""
    leader = await damaged_leader(world)
    world.on_alter = no_controller
    leader.partition.damage.suspect(0)
    await until(lambda: noted(leader))
    await world.change(isr=[1])
    await until(lambda: not noted(leader))
    assert leader.partition.damage.reason is not None
    assert leader.partition.is_leader


async def test_a_damaged_leader_that_nobody_replaced_keeps_its_log(world: World) -> None:
    """It was fenced for a moment: what is good behind the bad batch is nowhere else."""
    leader = await damaged_leader(world)
    world.on_alter = no_controller
    await world.change(isr=[1])
    leader.partition.damage.suspect(0)
    await until(lambda: leader.partition.damage.reason is not None)
    await world.change(leader=-1, isr=[1])
    assert leader.partition.offline is None
    await world.change(leader=1)
    assert leader.partition.is_leader
    assert leader.partition.log_end_offset == 5


async def test_a_corrupt_follower_is_noted_on_the_disk_before_it_is_told(world: World) -> None:
    leader = await damaged_leader(world)
    follower = world.brokers[2]
    seen: list[bool] = []
    follower.replicas.losses.on_found = lambda: seen.append(noted(follower))
    world.on_alter = no_controller
    follower.partition.take_offline("corrupt", "for the test")
    await until(lambda: len(seen) > 0)
    assert all(seen)
    assert leader.partition.is_leader
