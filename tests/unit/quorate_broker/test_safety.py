"""What must not cost a broker more than it should: hostile batches, full disks, replicas that go
while they are read, and broken invariants, which are one replica's affair (law 11).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from quorate.errors import PeerRefusedError, QuorateError, StorageError
from quorate.net.grpc_network import GrpcNetwork
from quorate.net.methods import IDENTIFY
from quorate.record import batch as record_batch
from quorate.record.batch import BatchBuilder, check
from quorate_broker.replica.leader import Leader
from quorate_quorum.v1 import events_pb2 as ev
from tests.unit.quorate_broker.builders import NOW_MS, TOPIC_ID, World, until, values_of


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    await world.start()
    yield world
    await world.stop()


def garbage_batch() -> memoryview:
    """Return a batch whose header and CRC hold, and whose records do not decode."""
    builder = BatchBuilder()
    builder.append(NOW_MS, b"k", b"0123456789")
    data = bytearray(builder.build())
    data[61:] = b"\xff" * (len(data) - 61)
    forged = record_batch._with_crc(data)
    check(forged, from_producer=True)
    return memoryview(forged)


async def test_a_batch_whose_records_do_not_decode_costs_no_disk(world: World) -> None:
    """Brokers do not decode (law 8), so anybody can write one; a search by time meets it."""
    leader = world.brokers[1]
    produced = await leader.partition.as_leader().queue.produce(
        garbage_batch(), acks=-1, timeout_ms=5_000, appended=lambda: None
    )

    found = await leader.partition.as_leader().list_offset(NOW_MS)

    assert found[:2] == (produced.base_offset, NOW_MS)
    assert leader.partition.offline is None
    assert leader.replicas.failed_directories == {}


async def test_a_read_under_way_when_a_topic_is_removed_costs_no_disk(world: World) -> None:
    leader = world.brokers[1]
    await leader.produce(b"a")
    reading = asyncio.Event()

    def hook(name: str, path: str) -> None:
        if name == "read":
            reading.set()

    leader.disk.slow = 0.05
    leader.disk.hook = hook
    fetch = asyncio.create_task(leader.partition.as_leader().fetch(0, bytes_max=1000))
    await reading.wait()
    await world.commit(ev.MetadataEvent(remove_topic=ev.RemoveTopic(topic_id=TOPIC_ID)))
    leader.disk.slow = 0.0

    with pytest.raises(QuorateError):
        await fetch
    assert leader.replicas.failed_directories == {}


async def test_a_checkpoint_under_way_when_a_topic_is_removed_costs_no_disk(world: World) -> None:
    leader = world.brokers[1]
    await leader.produce(b"a")
    partition = leader.partition
    leader.disk.slow = 0.05
    checkpoint = asyncio.create_task(partition.replica_log.checkpoint())
    await asyncio.sleep(0)
    await world.commit(ev.MetadataEvent(remove_topic=ev.RemoveTopic(topic_id=TOPIC_ID)))
    leader.disk.slow = 0.0

    await checkpoint
    assert leader.replicas.failed_directories == {}


async def test_a_clean_stop_during_a_checkpoint_is_clean(world: World) -> None:
    leader = world.brokers[1]
    await leader.produce(b"a")
    replicas: Any = leader.replicas
    await leader.reconciler.checkpoints.stop()
    replicas.config = msgspec.structs.replace(
        replicas.config, replica_high_watermark_checkpoint_interval_ms=1
    )
    writing = asyncio.Event()

    def hook(name: str, path: str) -> None:
        if name == "overwrite" and "high-watermark" in path:
            writing.set()

    leader.disk.slow = 0.05
    leader.disk.hook = hook
    leader.reconciler.checkpoints.start()
    await writing.wait()
    await leader.reconciler.close(clean=True)
    leader.disk.slow = 0.0

    assert leader.replicas.failed_directories == {}


async def test_a_broken_invariant_at_an_image_costs_this_replica_only(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader = world.brokers[1]

    def broken(*_: object) -> bool:
        raise AssertionError("broken for the test")

    with monkeypatch.context() as patch:
        patch.setattr(Leader, "update", broken)
        await world.change(isr=(1, 2))

    assert leader.failures == []
    await until(lambda: world.brokers[2].partition.is_leader)


async def test_a_broken_invariant_at_an_answer_costs_this_replica_only(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader = world.brokers[1]

    def broken(*_: object) -> bool:
        raise AssertionError("broken for the test")

    with monkeypatch.context() as patch:
        patch.setattr(Leader, "committed", broken)
        await world.change(isr=(1, 2))  # broker 3 is in sync: it is asked back in
        leader.replicas.isr_wanted(leader.partition)
        await until(lambda: world.brokers[2].partition.is_leader)

    assert leader.failures == []


async def test_a_leader_that_broke_asks_for_another(world: World) -> None:
    """Its invariant broke: it leaves itself out, and the controller elects one that stands."""
    await world.brokers[1].produce(b"a")
    broken = world.brokers[1].partition
    broken.take_offline("broken", "for the test")

    await until(lambda: world.brokers[2].partition.is_leader)
    assert (2, 3) in world.altered
    await world.brokers[2].produce(b"b")
    await until(lambda: world.brokers[1].partition.log_end_offset == 2)
    assert world.brokers[1].partition is not broken
    assert await world.brokers[1].stored() == [b"a", b"b"]
    await until(lambda: world.state.isr == (1, 2, 3))


async def test_a_full_disk_refuses_and_recovers(world: World) -> None:
    """Nothing of it is lost, and nobody's directory is: writes are refused until there is room."""
    leader = world.brokers[1]
    await leader.produce(b"a")
    leader.disk.fill(0)

    with pytest.raises(StorageError, match="full"):
        await leader.produce(b"b")
    assert leader.partition.offline is None
    assert values_of((await leader.partition.as_leader().fetch(0, bytes_max=999)).batches) == [b"a"]
    leader.disk.fill(None)
    assert (await leader.produce(b"c")).base_offset == 1
    assert await leader.stored() == [b"a", b"c"]


async def test_a_follower_with_a_full_disk_catches_up_when_there_is_room(world: World) -> None:
    await world.brokers[1].produce(b"a")
    follower = world.brokers[3]
    follower.disk.fill(0)
    await world.change(isr=(1, 2))
    await world.brokers[1].produce(b"b")
    assert follower.partition.offline is None
    follower.disk.fill(None)

    await until(lambda: follower.partition.log_end_offset == 2)
    assert follower.replicas.failed_directories == {}


async def test_an_endpoint_that_is_none_is_a_peer_that_refuses() -> None:
    """A broker may register any text; who dials it must not fall over."""
    network = GrpcNetwork()
    connection = network.connect("nonsense")
    with pytest.raises(PeerRefusedError):
        connection.stream(IDENTIFY, _nothing())
    await network.close()


async def _nothing() -> AsyncIterator[Any]:
    return
    yield


async def test_a_directory_whose_owner_can_not_be_told_is_not_taken_for_ours(world: World) -> None:
    """It may be of a topic that was deleted (K25): while others have the records, fetch again."""
    await world.brokers[1].produce(b"a")
    follower = world.brokers[3]
    await until(lambda: follower.partition.log_end_offset == 1)
    await follower.stop()
    await world.change(isr=(1, 2))
    follower.disk.put("/data/invoice-0/partition.metadata", b"damaged")
    await follower.start()
    await world.register(follower)

    await until(lambda: follower.partition.log_end_offset == 1)
    assert await follower.disk.exists("/data/invoice-0/partition.metadata")
    assert b"damaged" not in follower.disk.content("/data/invoice-0/partition.metadata")


async def test_a_stranger_found_while_running_is_removed_in_time(world: World) -> None:
    broker = world.brokers[1]
    replicas: Any = broker.replicas
    replicas.config = msgspec.structs.replace(replicas.config, stray_delete_delay_ms=1)
    await broker.produce(b"a")
    await replicas.files.make_room(bytes([1]) * 16, "/data/invoice-0", bytes(16))
    await until(lambda: all(task.done() for task in replicas.files._removals))
    assert not [name for name in await broker.disk.list("/data") if "invoice" in name]
