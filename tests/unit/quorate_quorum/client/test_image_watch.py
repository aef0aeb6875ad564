"""The image follows the log through one voter at a time, and never goes back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from quorate.errors import (
    RequestTimedOutError,
)
from quorate_quorum.v1 import controller_pb2 as wire
from quorate_quorum.v1.events_pb2 import MetadataEvent, Voter, Voters
from tests.harness.configs import voter_config
from tests.unit.quorate_quorum.client.builders import (
    FakeVoter,
    Recorder,
    World,
    feature,
    in_a_world,
)


def test_the_image_follows_the_log_and_listeners_see_every_batch() -> None:
    async def program(world: World) -> None:
        recorder = Recorder()
        world.client.subscribe(recorder)
        await world.client.start()
        await world.client.wait_applied(2, timeout_ms=1000)
        leader = world.voters[0]
        leader.raft.propose(1, [feature(1), feature(2)])
        await asyncio.sleep(0)
        world.replicate(leader)
        await world.client.wait_applied(4, timeout_ms=1000)
        assert recorder.offsets == [1, 2, 4]
        assert world.client.image.features["x"] == 2
        assert (world.client.leader_id, world.client.leader_endpoint) == (100, "v100:9093")
        assert world.client.quorum_generation == 1

    in_a_world(program)


def test_a_watch_whose_voter_is_killed_goes_on_at_another() -> None:
    async def program(world: World) -> None:
        await world.client.start()
        await world.client.wait_applied(2, timeout_ms=1000)
        world.voters[2].kill()
        world.voters[1].kill()
        world.voters[0].raft.propose(1, [feature(1)])
        await world.client.wait_applied(3, timeout_ms=2000)

    in_a_world(program)


def test_a_silent_watch_is_dropped_after_a_second_and_opened_elsewhere() -> None:
    async def program(world: World) -> None:
        silent = world.voters[1:]
        for voter in silent:  # the voters stand still: no frame, no end
            voter.watch._config = voter_config(watch_wait_max_ms=1_000_000)
        await world.client.start()
        await world.client.wait_applied(2, timeout_ms=1000)
        world.voters[0].raft.propose(1, [feature(1)])
        await world.client.wait_applied(3, timeout_ms=8000)

    for seed in range(3):
        in_a_world(program, seed=seed)


def test_what_the_watcher_needs_for_a_frame_is_not_the_silence_of_the_voter() -> None:
    """Else a snapshot that takes longer than that to load is begun again and again."""

    async def program(world: World) -> None:
        client = world.client
        take = client._watch._take_frame
        frames = 0

        async def slowly(frame: Any) -> None:
            nonlocal frames
            frames += 1
            await take(frame)
            await asyncio.sleep(1.5)

        client._watch._take_frame = slowly  # type: ignore[method-assign]
        connected = client._connections.get
        opened: list[str] = []

        def connect(endpoint: str) -> Any:
            opened.append(endpoint)
            return connected(endpoint)

        client._connections.get = connect  # type: ignore[method-assign]
        await client.start()
        await asyncio.sleep(20)
        assert frames > 5
        assert len(opened) == 1, "one watch"

    in_a_world(program)


def test_a_voter_that_lags_behind_what_heartbeats_tell_is_left() -> None:
    async def program(world: World) -> None:
        client = world.client
        await client.start()
        await client.wait_applied(2, timeout_ms=1000)
        stream = client.heartbeat(wire.HeartbeatRequest, lambda answer: None)
        world.voters[0].raft.propose(1, [feature(1)])  # the two others do not follow
        await client.wait_applied(3, timeout_ms=10_000)
        await stream.close()

    in_a_world(program)


def test_a_watcher_that_diverges_reloads_and_its_image_never_goes_back() -> None:
    async def program(world: World) -> None:
        recorder = Recorder()
        world.client.subscribe(recorder)
        world.voters[0].raft.propose(1, [feature(1)])
        await asyncio.sleep(0)
        world.replicate(world.voters[0])
        await world.client.start()
        await world.client.wait_applied(3, timeout_ms=1000)
        for voter in world.voters:  # another history of the same length, then longer
            voter.kill()
        world.voters = [await FakeVoter(world.network, 100 + n).start() for n in range(3)]
        leader = world.lead(0, 3)
        leader.raft.propose(3, [feature(5)])
        await asyncio.sleep(0)
        world.replicate(leader)
        await asyncio.sleep(3)
        leader.raft.propose(3, [feature(6)])
        await asyncio.sleep(0)
        world.replicate(leader)
        await world.client.wait_applied(4, timeout_ms=5000)
        assert world.client.image.features["x"] == 6
        assert recorder.offsets == sorted(recorder.offsets)

    in_a_world(program)


def test_an_event_that_contradicts_the_image_stops_the_node() -> None:
    async def program(world: World) -> None:
        await world.client.start()
        await world.client.wait_applied(2, timeout_ms=1000)
        twice = MetadataEvent(voters=Voters(voters=[Voter(id=1), Voter(id=1)]))
        world.voters[0].raft.propose(1, [twice])
        await asyncio.sleep(0.01)
        world.replicate(world.voters[0])
        await asyncio.sleep(0.1)
        assert len(world.failures) == 1
        assert world.client.image.offset == 2
        world.failures.clear()

    in_a_world(program)


def test_waiting_for_an_offset_ends_at_the_timeout() -> None:
    async def program(world: World) -> None:
        await world.client.start()
        with pytest.raises(RequestTimedOutError, match="100 ms"):
            await world.client.wait_applied(1000, timeout_ms=100)

    in_a_world(program)
