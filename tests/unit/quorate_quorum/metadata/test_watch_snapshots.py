"""A broker applies a snapshot whole or not at all, whichever node dies during the transfer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from quorate_quorum.log.events import encode_events
from quorate_quorum.v1.events_pb2 import Feature, MetadataEvent
from tests.harness.configs import voter_config
from tests.unit.quorate_quorum.client.builders import Recorder, World, feature, in_a_world


class Snapshots:
    """Twenty features, each at the level of the voter's own; one part in 50 ms where it is slow."""

    def __init__(self, newest: tuple[int, int], level: int, *, is_slow: bool) -> None:
        self.newest: tuple[int, int] | None = newest
        self.log_start_offset = newest[0]
        self.level = level
        self.is_slow = is_slow
        self.begun = 0

    async def parts(self, snapshot: tuple[int, int]) -> AsyncGenerator[bytes, None]:
        self.begun += 1
        for at in range(20):
            event = MetadataEvent(feature=Feature(name=f"f{at}", level=self.level))
            yield encode_events([event], base_offset=at, epoch=1, timestamp_ms=0)
            await asyncio.sleep(0.05 if self.is_slow else 0)


@pytest.mark.parametrize("seed", range(6))
def test_a_voter_that_dies_in_the_middle_of_a_snapshot_leaves_nothing_of_it(seed: int) -> None:
    async def program(world: World) -> None:
        leader = world.voters[0]
        for level in range(10):
            leader.raft.propose(1, [feature(level)])
        await asyncio.sleep(0)
        world.replicate(leader)
        told = [Snapshots((12, 1), n, is_slow=n > 0) for n in range(3)]
        for voter, snapshots in zip(world.voters, told, strict=True):
            voter.watch.snapshots = snapshots
            voter.watch._config = voter_config(watch_frame_max_bytes=100)
        recorder = Recorder()
        world.client.subscribe(recorder)
        await world.client.start()
        await asyncio.sleep(0.4)
        world.voters[1].kill()
        world.voters[2].kill()
        await world.client.wait_applied(12, timeout_ms=8000)
        levels = {world.client.image.features[f"f{at}"] for at in range(20)}
        assert len(levels) == 1, "no mixed image"
        assert recorder.offsets == [12], "nothing of a half snapshot is shown"
        leader.raft.propose(1, [feature(77)])
        await world.client.wait_applied(13, timeout_ms=8000)
        assert world.client.image.features["x"] == 77

    in_a_world(program, seed=seed)
