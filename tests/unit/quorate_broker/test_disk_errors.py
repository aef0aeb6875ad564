"""What an error of the operating system takes offline in a broker: a replica or a directory."""

from __future__ import annotations

import errno
import random
from collections.abc import AsyncIterator

import pytest

from quorate.errors import NotLeaderError, QuorateError, StorageError
from quorate_broker.files.replica_files import (
    DELETED,
    KEPT,
    NAME_BYTES_MAX,
    STRAY,
    name_on_the_way_out,
)
from quorate_broker.replica.replica import Failure
from quorate_quorum.v1 import events_pb2 as ev
from tests.unit.quorate_broker.builders import TOPIC_ID, Broker, World, no_controller, until

#: One errno of each scope that is not the disk's.
NOT_THE_DISKS = (
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.ENAMETOOLONG,
    errno.EACCES,
)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World(brokers=1)
    await world.start(min_isr=1)
    yield world
    world.brokers[1].disk.hook = None
    await world.stop()


@pytest.fixture
async def pair() -> AsyncIterator[World]:
    world = World(brokers=2)
    await world.start(min_isr=1)
    yield world
    await world.stop()


def opens_fail(broker: Broker, number: int) -> None:
    """Let nothing be opened any more."""

    def hook(name: str, path: str) -> None:
        if name == "open":
            raise OSError(number, "for the test", path)

    broker.disk.hook = hook


@pytest.mark.parametrize("number", NOT_THE_DISKS)
class TestBroker:
    async def test_an_error_that_is_not_the_disks_costs_no_directory_at_an_append(
        self, world: World, number: int
    ) -> None:
        leader = world.brokers[1]
        opens_fail(leader, number)
        with pytest.raises(QuorateError):
            await leader.produce(b"a")
        assert leader.replicas.failed_directories == {}
        leader.disk.hook = None
        await until(lambda: leader.partition.offline is None and leader.partition.is_leader)
        await leader.produce(b"b")
        assert (await leader.stored())[-1] == b"b"

    async def test_an_error_that_is_not_the_disks_costs_no_directory_at_a_checkpoint(
        self, world: World, number: int
    ) -> None:
        leader = world.brokers[1]
        await leader.produce(b"a")
        opens_fail(leader, number)
        await leader.partition.replica_log.checkpoint()
        assert leader.replicas.failed_directories == {}
        assert leader.partition.offline is None
        await leader.produce(b"b")

    async def test_an_error_that_is_not_the_disks_costs_no_directory_at_an_open(
        self, world: World, number: int
    ) -> None:
        leader = world.brokers[1]
        await leader.produce(b"a")
        await leader.stop()

        def hook(name: str, path: str) -> None:
            if name == "open" and path.endswith(".log"):
                raise OSError(number, "for the test", path)

        leader.disk.hook = hook
        await leader.start()
        assert leader.replicas.failed_directories == {}
        leader.disk.hook = None
        await until(lambda: leader.replicas.find(TOPIC_ID, 0) is not None)
        await world.register(leader)
        assert await leader.stored() == [b"a"]

    async def test_an_error_that_is_not_the_disks_costs_no_directory_at_a_removal(
        self, world: World, number: int
    ) -> None:
        leader = world.brokers[1]
        await leader.produce(b"a")

        def hook(name: str, path: str) -> None:
            if name in ("rename", "remove_directory"):
                raise OSError(number, "for the test", path)

        leader.disk.hook = hook
        await world.commit(ev.MetadataEvent(remove_topic=ev.RemoveTopic(topic_id=TOPIC_ID)))
        assert leader.replicas.failed_directories == {}
        leader.disk.hook = None
        await leader.stop()

        def sweeping(name: str, path: str) -> None:
            if name == "remove_directory":
                raise OSError(number, "for the test", path)

        leader.disk.hook = sweeping
        await leader.start()
        assert leader.replicas.failed_directories == {}


async def test_a_leader_whose_log_must_be_opened_again_hands_over_first(pair: World) -> None:
    leader, follower = pair.brokers[1], pair.brokers[2]
    await leader.produce(b"a")
    failed = leader.partition
    failed.take_offline("replica", "for the test")
    await until(lambda: follower.partition.is_leader)
    await follower.produce(b"b")
    await until(lambda: leader.partition.log_end_offset == 2)
    assert leader.partition is not failed
    await until(lambda: pair.state.isr == (1, 2))


@pytest.mark.parametrize("failure", ["broken", "replica"])
async def test_a_replica_that_is_elected_out_of_use_hands_over(
    pair: World, failure: Failure
) -> None:
    """The controller elected it before it knew: without a hand-over no replica would lead."""
    leader, follower = pair.brokers[1], pair.brokers[2]
    await leader.produce(b"a")
    await until(lambda: follower.partition.log_end_offset == 1)
    follower.partition.take_offline(failure, "for the test")
    await pair.change(isr=(1, 2), leader=2)
    await until(lambda: pair.state.leader == 1)
    await leader.produce(b"b")
    await until(lambda: follower.partition.log_end_offset == 2)


@pytest.mark.parametrize("name", ["make_directory", "append"])
async def test_a_disk_that_fails_at_a_followers_first_append_is_given_up(
    pair: World, name: str
) -> None:
    """Before a replica's first write its directory is made, and its slot in the inventory."""
    leader, follower = pair.brokers[1], pair.brokers[2]

    def hook(operation: str, path: str) -> None:
        if operation == name and not path.endswith(".log"):
            raise OSError(errno.EIO, "for the test", path)

    inventory = next(iter(follower.replicas.inventories.values()))
    inventory._made = inventory._used
    follower.disk.hook = hook
    await leader.produce(b"a")
    await until(lambda: len(follower.replicas.failed_directories) == 1)
    assert follower.partition.failure == "storage"


async def test_a_replica_that_does_not_open_again_hands_over_and_tries_on(pair: World) -> None:
    leader, follower = pair.brokers[1], pair.brokers[2]
    await leader.produce(b"a")
    await until(lambda: follower.partition.log_end_offset == 1)

    tries: list[str] = []

    def hook(name: str, path: str) -> None:
        if name == "open" and path.endswith(".log"):
            tries.append(path)
            raise OSError(errno.EACCES, "for the test", path)

    follower.disk.hook = hook
    follower.partition.take_offline("replica", "for the test")
    await until(lambda: bool(tries))
    await pair.change(isr=(1, 2), leader=2)
    await until(lambda: pair.state.leader == 1)
    assert follower.replicas.failed_directories == {}
    follower.disk.hook = None
    await leader.produce(b"b")
    await until(lambda: follower.partition.log_end_offset == 2)


async def test_who_asks_a_replica_that_does_not_open_comes_again_while_another_may_lead(
    pair: World,
) -> None:
    """It raises NotLeaderError: a StorageError would end clients that another leader can serve."""
    follower = pair.brokers[2]
    await pair.brokers[1].produce(b"a")
    await until(lambda: follower.partition.log_end_offset == 1)
    pair.on_alter = no_controller

    def hook(name: str, path: str) -> None:
        if name == "open" and path.endswith(".log"):
            raise OSError(errno.EACCES, "for the test", path)

    await follower.stop()
    follower.disk.hook = hook
    await follower.start()
    await pair.register(follower)
    assert follower.replicas.find(TOPIC_ID, 0) is None
    await pair.change(isr=(1, 2), leader=2)
    with pytest.raises(NotLeaderError):
        follower.replicas.get(TOPIC_ID, 0)
    await pair.change(isr=(2,))
    with pytest.raises(StorageError, match="offline here"):
        follower.replicas.get(TOPIC_ID, 0)


async def test_a_replica_that_opens_again_with_less_is_corrupt(pair: World) -> None:
    """It had acknowledged more: going on with less would lose records in silence."""
    leader, follower = pair.brokers[1], pair.brokers[2]
    await leader.produce(b"a")
    await leader.produce(b"b")
    pair.on_alter = no_controller  # it stays out of the ISR
    await pair.change(isr=(1,))
    failed = follower.partition
    failed.take_offline("replica", "for the test")
    follower.disk.put(f"/data/invoice-0/{0:020d}.log", b"")
    await until(lambda: follower.replicas.find(TOPIC_ID, 0) not in (None, failed))
    await until(lambda: follower.partition.log_end_offset == 2)
    assert await follower.stored() == [b"a", b"b"]


async def test_the_only_replica_does_not_lead_on_with_less_than_it_had(world: World) -> None:
    leader = world.brokers[1]
    await leader.produce(b"a")
    leader.partition.take_offline("replica", "for the test")
    leader.disk.put(f"/data/invoice-0/{0:020d}.log", b"")
    await until(lambda: (TOPIC_ID, 0) in leader.replicas.losses)
    assert leader.replicas.find(TOPIC_ID, 0) is None
    assert leader.replicas.failed_directories == {}


async def test_a_directory_that_was_unmounted_is_not_begun_anew(world: World) -> None:
    leader = world.brokers[1]
    await leader.produce(b"a")
    await leader.disk.remove("/data/meta.properties")
    leader.partition.take_offline("replica", "for the test")
    await until(lambda: leader.replicas.failed_directories != {})


class TestNames:
    @pytest.mark.parametrize("ending", [DELETED, STRAY, f".{2**63}{KEPT}"])
    def test_a_name_on_the_way_out_fits_a_file_system(self, ending: str) -> None:
        chance = random.Random(1)
        for length in range(1, 250):
            topic = "".join(chance.choices("abc-._", k=length))
            for partition in (0, 9_999):
                name = name_on_the_way_out(f"{topic}-{partition}", TOPIC_ID, ending)
                assert len(name.encode()) <= NAME_BYTES_MAX
                assert name.endswith(f"-{partition}.{TOPIC_ID.hex()}{ending}")
                assert topic.startswith(name.split(f"-{partition}.{TOPIC_ID.hex()}")[0])

    @pytest.mark.parametrize("length", [213, 214, 249])
    async def test_a_topic_with_a_long_name_is_deleted(self, world: World, length: int) -> None:
        broker = world.brokers[1]
        topic_id = bytes([9]) * 16
        partition = ev.Partition(
            topic_id=topic_id,
            partition=0,
            replicas=[ev.Replica(broker_id=1, directory_id=bytes([1]) * 16)],
            isr=(1,),
            leader=1,
            recovered_epoch=-1,
        )
        topic = ev.Topic(topic_id=topic_id, name="x" * length)
        await world.commit(ev.MetadataEvent(topic=topic), ev.MetadataEvent(partition=partition))
        found = broker.replicas.get(topic_id, 0)
        await broker.replicas.prepare(found, is_noted=False)
        await world.commit(ev.MetadataEvent(remove_topic=ev.RemoveTopic(topic_id=topic_id)))
        assert broker.replicas.failed_directories == {}
        await until(lambda: not [n for n in broker.disk.names("/data") if n.startswith("xxx")])


async def test_a_batch_that_is_refused_on_a_full_disk_is_no_sign_of_room(world: World) -> None:
    leader = world.brokers[1]
    leader.disk.fill(0)
    with pytest.raises(QuorateError):
        await leader.produce(b"a")
    assert leader.partition.as_leader().queue.is_full
    with pytest.raises(QuorateError):
        await leader.produce(b"out of its turn", producer_id=1, epoch=0, sequence=5)
    assert leader.partition.as_leader().queue.is_full
    leader.disk.fill(None)
    await leader.produce(b"b")
    assert not leader.partition.as_leader().queue.is_full
