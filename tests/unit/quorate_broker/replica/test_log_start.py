"""The start of a replica's log: it stays below what is committed, whoever asks for more."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from quorate.errors import NotLeaderError
from quorate_broker.v1.replica_pb2 import ReplicaFetched
from tests.unit.quorate_broker.builders import World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Three replicas in the ISR. The third is silent: nothing is committed."""
    world = World()
    await world.start()
    await world.brokers[3].stop()
    await world.brokers[1].produce(b"value", acks=1)
    await world.caught_up(2)
    yield world
    await world.stop()


async def test_a_follower_keeps_what_it_does_not_know_to_be_committed(world: World) -> None:
    partition = world.brokers[2].partition
    assert partition.follower is not None
    answer = ReplicaFetched(
        leader_epoch=world.state.leader_epoch, base_offset=1, high_watermark=0, log_start_offset=1
    )
    assert await partition.follower.take(answer, b"") is None
    assert (partition.log_start_offset, partition.log_end_offset) == (0, 1)


async def test_a_reign_that_is_over_moves_no_start(world: World) -> None:
    start = world.brokers[1].partition.as_leader().log_start
    await world.change(leader=2)
    with pytest.raises(NotLeaderError):
        await start.move(0, "a test")
