"""No turn of the loop is long: what comes in one piece is taken in a part at a time."""

from __future__ import annotations

import asyncio

import pytest

from quorate.errors import CorruptRecordError
from quorate_quorum.log.events import encode_events
from quorate_quorum.metadata.delta import MetadataDelta
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.loader import TURN_BYTES, turns
from quorate_quorum.raft.driver.applier import APPLY_BYTES
from quorate_quorum.v1.events_pb2 import Config, MetadataEvent
from tests.unit.quorate_quorum.client.builders import World, in_a_world


def config(number: int, value_bytes: int = 1000) -> MetadataEvent:
    return MetadataEvent(config=Config(name=f"n{number}", value="v" * value_bytes))


def batches(count: int, events: int = 4) -> list[bytes]:
    return [
        encode_events(
            [config(events * n + i) for i in range(events)],
            base_offset=events * n,
            epoch=1,
            timestamp_ms=0,
        )
        for n in range(count)
    ]


def test_a_turn_takes_whole_batches_in_order_and_not_many_bytes() -> None:
    joined = b"".join(batches(40))
    found = [bytes(part) for part in turns(joined)]
    assert b"".join(found) == joined
    assert len(found) > 5
    assert all(len(part) <= TURN_BYTES for part in found)


def test_a_batch_larger_than_a_turn_goes_alone() -> None:
    small, large = batches(1)[0], batches(1, events=40)[0]
    assert len(large) > TURN_BYTES
    assert [bytes(part) for part in turns(small + large + small)] == [small, large, small]
    assert list(turns(b"")) == []


def test_a_torn_end_is_corrupt() -> None:
    with pytest.raises(CorruptRecordError):
        list(turns(batches(1)[0][:-1]))


class Turns:
    """Counts the turns of the loop, and which of them showed how many events."""

    def __init__(self) -> None:
        self.turn = 0
        self.bytes_of: dict[int, int] = {}

    def image_changed(self, delta: MetadataDelta, image: MetadataImage) -> None:
        grown = (image.offset - delta.image.offset) * 1000
        self.bytes_of[self.turn] = self.bytes_of.get(self.turn, 0) + grown

    async def count(self) -> None:
        while True:
            await asyncio.sleep(0)
            self.turn += 1
            if self.turn % 50 == 0:
                await asyncio.sleep(0.001)  # let time go on, too


def test_a_watcher_takes_a_large_frame_in_over_several_turns() -> None:
    async def program(world: World) -> None:
        counted = Turns()
        world.client.subscribe(counted)
        leader = world.voters[0]
        for n in range(20):
            leader.raft.propose(1, [config(4 * n + i) for i in range(4)])
        await asyncio.sleep(0)
        world.replicate(leader)
        counting = asyncio.ensure_future(counted.count())
        await world.client.start()
        await world.client.wait_applied(leader.raft.high_watermark, timeout_ms=5000)
        counting.cancel()
        assert len(world.client.image.configs) == 80
        assert max(counted.bytes_of.values()) <= TURN_BYTES

    in_a_world(program)


def test_a_voter_applies_no_more_in_a_turn_than_a_watcher() -> None:
    assert APPLY_BYTES == TURN_BYTES
