"""A reader tells the epoch of its last record; a log that holds another past says so (KIP-320)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from quorate.errors import UnknownLeaderEpochError
from quorate_broker.replica.leader_replica import DivergedError
from tests.unit.quorate_broker.builders import Broker, World, values_of


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    """A leader of two reigns: records 0 and 1 are of epoch 0, 2 and 3 of epoch 2."""
    world = World(brokers=1)
    await world.start(min_isr=1)
    one = world.brokers[1]
    await one.produce(b"a", b"b")
    await world.change(raise_epoch=True)
    await world.change(raise_epoch=True)
    await one.produce(b"c", b"d")
    yield one
    await world.stop()


@pytest.mark.parametrize(
    ("offset", "last_epoch"),
    [(2, 0), (1, 0), (3, 2), (4, 2), (2, -1), (4, -1), (0, 2), (1, 2)],
)
async def test_a_reader_whose_past_is_in_the_log_reads_on(
    broker: Broker, offset: int, last_epoch: int
) -> None:
    found = await broker.partition.as_leader(2).fetch(offset, bytes_max=1000, last_epoch=last_epoch)
    values = values_of(found.batches)
    assert values == ([b"a", b"b"] if offset < 2 else []) + ([b"c", b"d"] if offset < 4 else [])


@pytest.mark.parametrize(
    ("offset", "last_epoch", "epoch", "end_offset"),
    [
        (3, 0, 0, 2),  # the record before it is of another epoch
        (2, 1, 0, 2),  # there is no record of that epoch
        (9, 2, 2, 4),  # the log ends before it
        (9, 0, 0, 2),
    ],
)
async def test_a_reader_whose_past_is_not_in_the_log_is_told_where_it_leaves_it(
    broker: Broker, offset: int, last_epoch: int, epoch: int, end_offset: int
) -> None:
    with pytest.raises(DivergedError) as raised:
        await broker.partition.as_leader(2).fetch(offset, bytes_max=1000, last_epoch=last_epoch)
    assert raised.value.divergence == (epoch, end_offset)


async def test_a_leader_that_is_behind_the_readers_past_proves_nothing(broker: Broker) -> None:
    with pytest.raises(UnknownLeaderEpochError, match="retry"):
        await broker.partition.as_leader().fetch(3, bytes_max=1000, last_epoch=5)


async def test_the_latest_offset_comes_with_the_epoch_of_the_record_before_it(
    broker: Broker,
) -> None:
    await broker.world.change(raise_epoch=True)
    assert await broker.partition.as_leader(3).list_offset(-1) == (4, -1, 2)
