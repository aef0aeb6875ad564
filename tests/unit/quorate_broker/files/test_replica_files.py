"""The directories of replicas: which partition owns them, and when they are removed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from tests.unit.quorate_broker.builders import World, until


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    await world.start()
    yield world
    await world.stop()


async def test_a_directory_whose_owner_can_not_be_told_is_not_taken_for_ours(world: World) -> None:
    """It may belong to a deleted topic: while others have the records, they are fetched again."""
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
    await until(lambda: not replicas.files.removals)
    assert not [name for name in await broker.disk.list("/data") if "invoice" in name]
