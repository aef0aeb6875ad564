"""Voters whose disks are new, for the tests of the Raft driver."""

from __future__ import annotations

import asyncio
from typing import Any

from quorate.errors import QuorateError
from quorate_quorum.controller.decisions.outcome import Outcome
from quorate_quorum.log.identity import Identity
from quorate_quorum.raft.driver.bootstrap import format_new_voter
from quorate_quorum.snapshots.file import SnapshotId
from quorate_quorum.v1.events_pb2 import Config, MetadataEvent
from tests.unit.quorate_quorum.builders import CLUSTER, DATA, Machine, VoterWorld

NEW = 103


async def new_voter(world: VoterWorld, node_id: int = NEW, *, cluster_id: str = CLUSTER) -> Machine:
    """A machine as `storage format --new-voter` leaves it."""
    machine = Machine(world, node_id)
    identity = Identity(cluster_id, node_id, machine.directory_id, 0)
    await format_new_voter(machine.disk, DATA, identity)
    return machine


def servers(world: VoterWorld) -> tuple[str, ...]:
    """Return where the voters of a world listen."""
    return tuple(one.endpoint for one in world.voters)


SMALL: dict[str, Any] = {
    "metadata_log_segment_bytes": 2048,
    "quorum_fetch_snapshot_max_bytes": 100,
}


async def start_all(world: VoterWorld, **settings: Any) -> None:
    for voter in world.voters:
        await voter.start(**SMALL, **settings)


async def write(world: VoterWorld, count: int, *among: Machine) -> None:
    """Set `count` cluster configs, each committed, at any leader."""
    for number in range(count):
        name, value = f"key.{number % 5}", f"{world.loop.time()} {number}"
        event = MetadataEvent(config=Config(name=name, value=value))
        while True:
            leader = await world.controller(*among)
            try:
                decided = leader.server._rooms.controller.active().reign.run(  # type: ignore[union-attr]
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


async def agree(world: VoterWorld, *machines: Machine) -> None:
    """Wait until all voters have equal images."""
    among = machines or tuple(world.voters)
    await world.until(lambda: same_images(*among))
    first, *others = [list(machine.server.image.to_events()) for machine in among]
    assert all(other == first for other in others)
