"""Two of three voters are lost while records flow; the third is recovered, and nobody loses any."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from quorate_broker.server import BrokerServer
from quorate_quorum.log.identity import read_identity
from quorate_quorum.node.features import SUPPORTED
from quorate_quorum.recover import recover
from quorate_quorum.recover.decision import plan, refusals
from quorate_quorum.recover.survivor import read_survivor
from quorate_quorum.server import QuorumServer
from quorate_testing.simulated.cluster import DATA, SimulatedNode
from tests.harness.invariants import partitions_of
from tests.harness.world import World, run_faults

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(120)]


async def recovered(world: World, node: SimulatedNode) -> list[str]:
    """What an operator does on a stopped voter's machine; return why it was refused."""
    disk = node.disk
    network = world.cluster.network.host(world.loop.process("operator").name)
    found = await read_survivor(disk, world.cluster.voter_config(node), SUPPORTED)
    asked = recover.endpoints(found, [voter.endpoint for voter in world.cluster.voters])
    peers = await recover.ask(network, asked, timeout_ms=1000)
    refused = refusals(found, peers)
    if not refused:
        await recover.carry_out(disk, found, plan(found, peers))
    return refused


async def until(holds: Callable[[], bool], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110  (any condition, not an event)
            await asyncio.sleep(0.01)


def all_serve(world: World, generation: int) -> bool:
    """Whether every broker follows that generation, unfenced, and every partition is led."""
    led = 0
    for node in world.cluster.brokers:
        server = node.server
        if not isinstance(server, BrokerServer) or server.is_fenced:
            return False
        if server.replicas.quorum_generation != generation:
            return False
        led += sum(partition.is_leader for partition in partitions_of(server))
    return led == 3


def epoch_of(node: SimulatedNode) -> tuple[bool, int]:
    assert isinstance(node.server, QuorumServer)
    return node.server.is_controller, node.server.raft.epoch


@pytest.mark.parametrize(("seed", "by_power"), [(0, False), (1, True), (2, False), (3, True)])
def test_the_last_voter_begins_anew_brokers_keep_their_data_and_the_lost_disturb_nobody(
    seed: int, *, by_power: bool
) -> None:
    """Every acknowledged record is readable; it is the world that judges that."""

    async def faults(world: World) -> None:
        cluster = world.cluster
        await asyncio.sleep(world.chance.uniform(1, 4))
        voters = list(cluster.voters)
        world.chance.shuffle(voters)
        survivor, *lost = voters
        for node in voters:
            (cluster.lose_power if by_power else cluster.kill)(node.name)
        world.tell(f"lost; {survivor.name} is left")
        await asyncio.sleep(world.chance.uniform(0, 3))
        assert await recovered(world, survivor) == []
        cluster.start(survivor.name)
        await until(lambda: all_serve(world, 2))
        world.tell("all serve")
        for node in cluster.brokers:
            assert (await read_identity(node.disk, DATA)).quorum_generation == 2

        # The disks that were thought lost come back: a majority, of a history that is over.
        reign = epoch_of(survivor)
        for node in lost:
            cluster.start(node.name)
        await asyncio.sleep(3)
        broker = world.chance.choice(cluster.brokers)
        cluster.kill(broker.name)  # whose next run asks all voters anew
        await asyncio.sleep(1)
        cluster.start(broker.name)
        await until(lambda: all_serve(world, 2))
        assert epoch_of(survivor) == reign
        assert await refused_while_leading(world, survivor)

    run_faults(faults, seed, simulated_s=40.0, syncs_on_ack=False)


async def refused_while_leading(world: World, survivor: SimulatedNode) -> bool:
    """A lost voter that is recovered now learns that it was left behind."""
    lost = next(node for node in world.cluster.voters if node is not survivor)
    world.cluster.kill(lost.name)
    said = await recovered(world, lost)
    world.cluster.start(lost.name)
    return any("recovered without it" in one for one in said)
