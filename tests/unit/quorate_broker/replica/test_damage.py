"""A bad batch in a log that is in use: what is noted on the disk before the leader gives way."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator

import pytest

from quorate.errors import NotLeaderError
from quorate_quorum.log.directory import CORRUPT_FILE
from quorate_quorum.log.log import LogCorruptError
from quorate_quorum.v1 import controller_pb2 as wire
from tests.unit.quorate_broker.builders import TOPIC_ID, Broker, World, no_controller, until

LOG = "/data/invoice-0/00000000000000000000.log"
KEY = (TOPIC_ID, 0)
NOTE = f"/data/invoice-0/{CORRUPT_FILE}"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    await world.start()
    yield world
    await world.stop()


async def damaged_leader(world: World) -> Broker:
    """A leader with a bad batch that was found."""
    leader = world.brokers[1]
    for number in range(5):
        await leader.produce(b"%d" % number)
    await world.caught_up(2, 3)
    leader.disk.flip_bit(LOG, 65)
    return leader


def noted(broker: Broker) -> bool:
    return CORRUPT_FILE in broker.disk.names("/data/invoice-0")


async def test_a_leader_notes_its_damage_durably_before_it_resigns(world: World) -> None:
    """It may die before the repair, and the next start does not check old segments."""
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
    await world.caught_up(1)
    assert await leader.stored() == [b"0", b"1", b"2", b"3", b"4"]
    assert not noted(leader)


async def test_a_leader_finds_a_flipped_epoch_in_its_log(world: World) -> None:
    """The CRC does not cover it. Receivers refused the batch, and the leader found it good."""
    leader = world.brokers[1]
    for number in range(5):
        await leader.produce(b"%d" % number)
    await world.caught_up(2, 3)
    leader.disk.flip_bit(LOG, 13)
    leader.partition.damage.suspect(0)
    await until(lambda: leader.partition.damage.reason is not None)


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
    """The next start would cut off the good batches behind the bad one."""
    leader = await damaged_leader(world)
    world.on_alter = no_controller
    leader.partition.damage.suspect(0)
    await until(lambda: noted(leader))
    await world.change(isr=[1])
    await until(lambda: not noted(leader))
    assert leader.partition.damage.reason is not None
    assert leader.partition.is_leader


async def test_a_damaged_leader_that_nobody_replaced_keeps_its_log(world: World) -> None:
    """It was fenced for a moment. The good batches behind the bad one are nowhere else."""
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


async def test_a_reader_of_a_leader_that_gave_way_during_the_read_is_sent_to_the_next(
    world: World,
) -> None:
    """It got StorageError, which a consumer does not try again."""
    leader = await damaged_leader(world)
    role = leader.partition.as_leader()

    async def read() -> bytes:
        await world.change(leader=2, isr=[2, 3])
        raise LogCorruptError("a bad batch")

    with pytest.raises(NotLeaderError):
        await role._read(read())


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
