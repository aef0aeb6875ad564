"""Voters whose disks are new, for the tests of the Raft driver."""

from __future__ import annotations

from quorate_quorum.log.identity import Identity
from quorate_quorum.raft.driver.bootstrap import format_new_voter
from tests.unit.quorate_quorum.builders import CLUSTER, DATA, Machine, World

NEW = 103


async def new_voter(world: World, node_id: int = NEW, *, cluster_id: str = CLUSTER) -> Machine:
    """A machine as `storage format --new-voter` leaves it."""
    machine = Machine(world, node_id)
    identity = Identity(cluster_id, node_id, machine.directory_id, 0)
    await format_new_voter(machine.disk, DATA, identity)
    return machine


def servers(world: World) -> tuple[str, ...]:
    """Return where the voters of a world listen."""
    return tuple(one.endpoint for one in world.voters)
