"""A follower serves consumers below its own high watermark, and only while it is surely in sync."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from quorate.errors import (
    FencedLeaderEpochError,
    NotLeaderError,
    OffsetNotAvailableError,
    OffsetOutOfRangeError,
    UnknownLeaderEpochError,
)
from quorate.record.batch import split
from quorate_broker.replica.contact import Contact
from quorate_broker.replica.fetched import Fetched
from quorate_broker.replica.follower_replica import FollowerReplica
from quorate_broker.replica.hints import hint_of
from quorate_broker.v1.replica_pb2 import ReplicaFetched
from quorate_quorum.log.log import Log
from tests.unit.quorate_broker.builders import Broker, World, no_controller, until, values_of

LOG = "/data/invoice-0/00000000000000000000.log"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Broker 1 leads; the records a and b are committed, and known to be so by all."""
    world = World()
    await world.start()
    await world.brokers[1].produce(b"a")
    await world.brokers[1].produce(b"b")
    await until(lambda: all(one.partition.high_watermark == 2 for one in world.brokers.values()))
    yield world
    await world.stop()


async def uncommitted(world: World) -> Broker:
    """Let broker 2 have a record c that is not committed, because broker 3 lacks it."""
    world.on_alter = no_controller
    await world.brokers[3].stop()
    await world.brokers[1].produce(b"c", acks=1)
    await world.caught_up(2)
    follower = world.brokers[2]
    assert (follower.partition.high_watermark, follower.partition.log_end_offset) == (2, 3)
    return follower


async def fetch(broker: Broker, offset: int, *, last_epoch: int = -1, epoch: int = -1) -> Fetched:
    source = broker.partition.as_source(epoch)
    return await source.fetch(offset, bytes_max=1 << 20, last_epoch=last_epoch)


@pytest.mark.parametrize(("offset", "values"), [(0, [b"a", b"b"]), (1, [b"b"]), (2, []), (3, [])])
async def test_nothing_above_its_own_high_watermark_is_read(
    world: World, offset: int, values: list[bytes]
) -> None:
    follower = await uncommitted(world)
    read: list[bytes] = []
    at = offset
    while found := (await fetch(follower, at)).batches:
        read += values_of(found)
        at = max(header.end_offset for header, _ in split(found))
    assert read == values
    assert (await fetch(follower, at)).high_watermark == 2


async def test_a_position_above_its_log_is_for_the_leader_to_judge(world: World) -> None:
    with pytest.raises(OffsetNotAvailableError, match="offset 3 is above this follower's end 2"):
        await fetch(world.brokers[2], 3)


async def test_a_position_below_its_start_is_out_of_range(world: World) -> None:
    follower = world.brokers[2]
    await follower.partition.log.move_start(1)
    with pytest.raises(OffsetOutOfRangeError, match="offset 0 is below the start 1"):
        await fetch(follower, 0)


async def test_the_start_of_a_log_moves_before_its_high_watermark(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A follower that comes back may have records below the leader's start that nobody committed.

    With the high watermark first, they would count as committed while the start is written.
    """
    follower = await uncommitted(world)
    await world.brokers[1].stop()
    log, role = follower.partition.log, follower.partition.role
    assert isinstance(role, FollowerReplica)
    seen: list[tuple[int, int]] = []
    move_start = Log.move_start

    async def watched(self: Log, offset: int) -> None:
        seen.append((offset, self.high_watermark))
        await move_start(self, offset)

    monkeypatch.setattr(Log, "move_start", watched)
    answer = ReplicaFetched(
        leader_epoch=role.leader_epoch, base_offset=3, high_watermark=3, log_start_offset=3
    )
    assert await role.take(answer, b"") is None
    assert seen == [(3, 2)]
    assert (log.log_start_offset, log.high_watermark) == (3, 3)


async def test_another_past_is_for_the_leader_to_judge(world: World) -> None:
    await world.change(raise_epoch=True)
    await world.brokers[1].produce(b"d")
    follower = world.brokers[2]
    await until(lambda: follower.partition.high_watermark == 3)
    assert values_of((await fetch(follower, 2, last_epoch=0)).batches) == [b"d"]
    with pytest.raises(OffsetNotAvailableError, match="has another one here"):
        await fetch(follower, 3, last_epoch=0)
    with pytest.raises(UnknownLeaderEpochError):
        await fetch(follower, 3, last_epoch=7)


async def test_epochs_are_compared_as_a_leader_does(world: World) -> None:
    await world.change(raise_epoch=True)
    with pytest.raises(FencedLeaderEpochError):
        world.brokers[2].partition.as_source(0)
    with pytest.raises(UnknownLeaderEpochError):
        world.brokers[2].partition.as_source(2)
    assert world.brokers[1].partition.as_source(1) is world.brokers[1].partition.role


async def test_one_that_has_left_the_isr_sends_its_consumers_to_the_leader(world: World) -> None:
    follower = world.brokers[2]
    woken: list[bool] = []
    follower.partition.watches.add(lambda: woken.append(True))
    world.on_alter = no_controller
    await world.change(isr=[1, 3], to=[2])
    assert woken, "consumers that wait are told"
    with pytest.raises(NotLeaderError, match="is not in the ISR: ask the leader, broker 1") as told:
        await fetch(follower, 0)
    hint = hint_of(told.value)
    assert hint is not None
    assert hint.leader == 1


async def test_one_that_does_not_hear_its_leader_sends_its_consumers_away(world: World) -> None:
    follower = world.brokers[2]
    assert follower.partition.follower is not None
    follower.partition.follower.reads.contact = Contact()
    with pytest.raises(NotLeaderError, match="has not heard the leader for 10000 ms"):
        await fetch(follower, 0)


async def test_nothing_is_read_before_the_leader_has_confirmed_its_log(world: World) -> None:
    """What it knows to be committed may be gone after a lossy election."""
    follower = world.brokers[2]
    await world.brokers[1].stop()
    await world.change(leader=1, isr=[1, 2, 3], recovered=True)
    with pytest.raises(NotLeaderError, match="has not compared its log with the leader's yet"):
        await fetch(follower, 0)


async def test_one_that_neither_leads_nor_follows_serves_nobody(world: World) -> None:
    await world.change(leader=-1, isr=[2])
    with pytest.raises(NotLeaderError):
        await fetch(world.brokers[2], 0)


async def test_a_bad_batch_that_a_consumer_met_has_the_replica_repaired(world: World) -> None:
    follower = world.brokers[2]
    partition = follower.partition
    follower.disk.flip_bit(LOG, 65)
    partition.damage.suspect(0)
    await until(lambda: partition.failure == "corrupt")
    with pytest.raises(NotLeaderError):
        await fetch(follower, 0)


async def test_a_follower_that_takes_over_serves_as_the_leader(world: World) -> None:
    await world.change(leader=2)
    assert values_of((await fetch(world.brokers[2], 0)).batches) == [b"a", b"b"]
