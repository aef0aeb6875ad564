"""An image that concerns many partitions does not block the event loop."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from quorate_broker.replica.partition import Partition
from quorate_broker.replicas.reconciler import BEGINNINGS_A_TURN
from quorate_quorum.v1 import events_pb2 as ev
from tests.unit.quorate_broker.builders import World, directory_id

MANY = 100
OTHER_TOPIC = bytes([9]) * 16


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
    committing = asyncio.ensure_future(
        world.commit(
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
        )
    )
    while not committing.done():
        in_this_turn = 0
        await asyncio.sleep(0)
    await committing
    assert followed == MANY
    assert most <= BEGINNINGS_A_TURN
    await world.stop()
