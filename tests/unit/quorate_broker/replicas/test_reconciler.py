"""An image that concerns many partitions does not block the event loop."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from quorate_broker.files.replica_files import PartitionMetadata
from quorate_broker.replica.partition import Partition
from quorate_broker.replicas.reconciler import BEGINNINGS_A_TURN
from quorate_quorum.disk import replace_whole
from quorate_quorum.v1 import events_pb2 as ev
from tests.unit.quorate_broker.builders import World, directory_id

MANY = 100
OTHER_TOPIC = bytes([9]) * 16
OWNED_BY_ANOTHER = PartitionMetadata(bytes([8]) * 16, "cluster", 1).encode()


def new_topic() -> list[ev.MetadataEvent]:
    """Return the events of a topic of MANY partitions on broker 1."""
    return [
        ev.MetadataEvent(topic=ev.Topic(topic_id=OTHER_TOPIC, name="other")),
        *(
            ev.MetadataEvent(
                partition=ev.Partition(
                    topic_id=OTHER_TOPIC,
                    partition=number,
                    replicas=[ev.Replica(broker_id=1, directory_id=directory_id(1))],
                    isr=(1,),
                    leader=1,
                    recovered_epoch=-1,
                )
            )
            for number in range(MANY)
        ),
    ]


async def test_many_new_logs_open_with_one_look_at_the_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(brokers=1)
    await world.start(min_isr=1)
    disk = world.brokers[1].disk
    asked: list[str] = []
    for name in ("exists", "list", "open"):
        ask = getattr(disk, name)

        async def noted(path: str, *arguments: Any, ask: Any = ask, **named: Any) -> Any:
            asked.append(path)
            return await ask(path, *arguments, **named)

        monkeypatch.setattr(disk, name, noted)
    await world.commit(*new_topic())
    assert [path for path in asked if "other" in path or path == "/data"] == ["/data"]
    assert all(world.brokers[1].replicas.get(OTHER_TOPIC, i).is_leader for i in range(MANY))
    await world.stop()


async def test_of_many_new_replicas_one_takes_over_the_directory_that_it_has() -> None:
    """The look at all names finds the directory of a deleted topic, which is moved."""
    world = World(brokers=1)
    await world.start(min_isr=1)
    disk = world.brokers[1].disk
    await disk.make_directory("/data/other-7")
    await replace_whole(disk, "/data/other-7/partition.metadata", OWNED_BY_ANOTHER)
    await world.commit(*new_topic())
    names = await disk.list("/data")
    assert [name for name in names if name.startswith("other-7")] != ["other-7"]
    assert world.brokers[1].replicas.get(OTHER_TOPIC, 7).log_end_offset == 0
    await world.stop()


async def test_few_partitions_of_an_image_get_their_roles_in_one_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(brokers=1)
    await world.start(min_isr=1)
    followed = in_this_turn = most = 0
    follow_image = Partition.follow_image

    async def counted(partition: Partition, *arguments: Any, **named: Any) -> bool:
        nonlocal followed, in_this_turn, most
        followed += 1
        in_this_turn += 1
        most = max(most, in_this_turn)
        return await follow_image(partition, *arguments, **named)

    monkeypatch.setattr(Partition, "follow_image", counted)
    committing = asyncio.ensure_future(world.commit(*new_topic()))
    while not committing.done():
        in_this_turn = 0
        await asyncio.sleep(0)
    await committing
    assert followed == MANY
    assert most <= BEGINNINGS_A_TURN
    await world.stop()
