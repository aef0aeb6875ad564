"""A voter that was away too long goes on by a snapshot: downloaded, installed, applied."""

from __future__ import annotations

import asyncio
from typing import Any

from quorate.errors import QuorateError
from quorate_quorum.controller.outcome import Outcome
from quorate_quorum.log import snapshot as files
from quorate_quorum.log.snapshot import SnapshotId
from quorate_quorum.raft.bootstrap import metadata_directory
from quorate_quorum.v1.events_pb2 import Config, MetadataEvent
from tests.unit.test_quorum_server import DATA, Machine, World, in_a_world

SMALL: dict[str, Any] = {
    "metadata_log_segment_bytes": 2048,
    "quorum_fetch_snapshot_max_bytes": 100,
}


async def start_all(world: World, **settings: Any) -> None:
    for voter in world.voters:
        await voter.start(**SMALL, **settings)


async def write(world: World, count: int, *among: Machine) -> None:
    """Set so many cluster configs, each committed, whoever leads."""
    for number in range(count):
        name, value = f"key.{number % 5}", f"{world.loop.time()} {number}"
        event = MetadataEvent(config=Config(name=name, value=value))
        while True:
            leader = await world.controller(*among)
            try:
                decided = leader.server._rooms.controller.run(  # type: ignore[union-attr]
                    lambda *_, event=event: Outcome((event,), None)
                )
                await leader.run(decided)
            except QuorateError:
                await asyncio.sleep(0.01)
                continue
            break


async def take(machine: Machine) -> SnapshotId:
    taken: SnapshotId = await machine.run(machine.server.take_snapshot())
    return taken


def same_images(*machines: Machine) -> bool:
    images = [machine.server.image for machine in machines]
    return len({image.offset for image in images}) == 1


async def agree(world: World, *machines: Machine) -> None:
    """Wait until all show one image, event for event."""
    among = machines or tuple(world.voters)
    await world.until(lambda: same_images(*among))
    first, *others = [list(machine.server.image.to_events()) for machine in among]
    assert all(other == first for other in others)


def test_a_voter_long_away_installs_while_writes_go_on() -> None:
    """The leader's log begins above what it has; it takes part again, after a restart too."""

    async def program(world: World) -> None:
        await start_all(world)
        await write(world, 5)
        away = world.voters[0]
        await away.run(away.server.stop())
        leader = await world.controller(*world.voters[1:])
        for _ in range(3):
            await write(world, 30, *world.voters[1:])
            snapshot = await take(leader)
        assert 0 < leader.server.raft.log_start_offset <= snapshot.offset
        writing = asyncio.create_task(write(world, 60, *world.voters[1:]))
        await away.start(**SMALL)
        assert away.server.raft.log_start_offset == 0
        await world.until(lambda: away.server.raft.log_start_offset > 0)
        assert away.server.raft.snapshot == snapshot
        await writing
        await agree(world)
        held = await files.list_snapshots(away.disk, metadata_directory(DATA))
        assert held == [snapshot]

        await away.run(away.server.stop())
        await away.start(**SMALL)
        await leader.run(leader.server.stop())
        await write(world, 3, *(v for v in world.voters if v is not leader))
        await agree(world, *(v for v in world.voters if v is not leader))

    in_a_world(program)
