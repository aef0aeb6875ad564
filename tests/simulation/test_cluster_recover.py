"""Two of three voters are lost while records flow; the third is recovered; no record is lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import partial

import pytest

from quorate import Admin, Producer
from quorate.errors import QuorateError, TopicExistsError
from quorate_broker.server import BrokerServer
from quorate_quorum.log.identity import Identity, read_identity
from quorate_quorum.node.features import SUPPORTED
from quorate_quorum.raft.driver.bootstrap import format_new_voter
from quorate_quorum.recover import recover
from quorate_quorum.recover.decision import plan, refusals
from quorate_quorum.recover.survivor import read_survivor
from quorate_quorum.server import QuorumServer
from quorate_testing.simulated.cluster import DATA, SimulatedNode
from quorate_testing.simulated.disk import SimulatedDisk
from tests.harness.amounts import few_or_many
from tests.harness.invariants import partitions_of
from tests.harness.world import World, run_faults

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(120)]


async def recovered(world: World, node: SimulatedNode) -> list[str]:
    """Run `quorum recover` on a stopped voter's disk; return the reasons for a refusal."""
    disk = node.disk
    network = world.cluster.network.host(world.loop.process("operator").name)
    found = await read_survivor(disk, world.cluster.voter_config(node), SUPPORTED)
    asked = recover.endpoints(found, [voter.endpoint for voter in world.cluster.voters])
    peers = await recover.ask(network, asked, timeout_ms=1000)
    refused = refusals(found, peers)
    if not refused:
        await recover.carry_out(disk, found, plan(found, peers))
        world.has_recovered = True
    return refused


async def until(holds: Callable[[], bool], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110  (any condition, not an event)
            await asyncio.sleep(0.01)


def all_serve(world: World, generation: int) -> bool:
    """Whether all brokers are unfenced in that generation, and all partitions have a leader."""
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


@pytest.mark.parametrize(("seed", "how"), [(0, "killed"), (1, "dark"), (2, "with brokers")])
def test_the_last_voter_begins_anew_brokers_keep_their_data_and_the_lost_disturb_nobody(
    seed: int, how: str
) -> None:
    """The world's judge finds every acknowledged record readable."""

    async def faults(world: World) -> None:
        cluster = world.cluster
        await asyncio.sleep(world.chance.uniform(1, 4))
        voters = list(cluster.voters)
        world.chance.shuffle(voters)
        survivor, *lost = voters
        for node in voters:
            (cluster.lose_power if how == "dark" else cluster.kill)(node.name)
        down = cluster.brokers if how == "with brokers" else []
        for node in down:
            cluster.kill(node.name)
        world.tell(f"lost; {survivor.name} is left")
        await asyncio.sleep(world.chance.uniform(0, 3))
        for node in down[1:]:
            cluster.start(node.name)
        assert await recovered(world, survivor) == []
        cluster.start(survivor.name)
        await asyncio.sleep(world.chance.uniform(0, 3))
        for node in down[:1]:
            cluster.start(node.name)
        await until(lambda: all_serve(world, 2))
        world.tell("all serve")
        for node in cluster.brokers:
            assert (await read_identity(node.disk, DATA)).quorum_generation == 2

        # The disks that were thought lost come back: a majority of the old generation.
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

    run_faults(faults, seed, simulated_s=40.0)


@pytest.mark.parametrize("seed", range(few_or_many(1, 2)))
def test_the_quorum_grows_back_to_three_on_new_disks_and_outlives_the_survivor(seed: int) -> None:
    """New voters join the new history: by its snapshot, in its generation and epochs."""

    async def faults(world: World) -> None:
        cluster = world.cluster
        await asyncio.sleep(2)
        survivor, *lost = cluster.voters
        for node in cluster.voters:
            cluster.kill(node.name)
        assert await recovered(world, survivor) == []
        cluster.start(survivor.name)
        for node in lost:
            node.disk = SimulatedDisk(random.Random(seed), latency_max=0.001)
            directory_id = world.chance.randbytes(16)
            identity = Identity(cluster.cluster_id, node.node_id, directory_id, 0)
            await format_new_voter(node.disk, DATA, identity)
            cluster.start(node.name)
            await cluster.spawn_client(partial(add_voter, world, node, directory_id))
        await until(lambda: all_serve(world, 2))
        cluster.kill(survivor.name)
        await until(lambda: any(epoch_of(node)[0] for node in lost))
        for node in lost:
            assert (await read_identity(node.disk, DATA)).quorum_generation == 2
        cluster.start(survivor.name)
        await until(lambda: all_serve(world, 2))

    run_faults(faults, seed, simulated_s=40.0)


async def add_voter(world: World, node: SimulatedNode, directory_id: bytes) -> None:
    async with Admin(bootstrap_servers=world.cluster.bootstrap_servers) as admin:
        while True:
            try:
                await admin.add_voter(node.node_id, directory_id.hex(), node.endpoint)
                return
            except QuorateError as error:
                world.tell(f"{node.name} is not added yet: {error}")
                await asyncio.sleep(0.1)


LATE = "late"


@pytest.mark.parametrize("seed", range(1))
def test_what_the_survivor_never_heard_of_is_kept_by_those_who_have_it(seed: int) -> None:
    """The survivor was cut off when the topic was made: its brokers keep the files."""

    async def faults(world: World) -> None:
        cluster = world.cluster
        survivor = cluster.voters[0]
        cluster.network.cut({survivor.name}, {*cluster.nodes} - {survivor.name})
        await cluster.spawn_client(partial(make_late_topic, world))
        for node in cluster.voters:
            cluster.kill(node.name)
        cluster.network.heal()
        assert await recovered(world, survivor) == []
        cluster.start(survivor.name)
        await until(lambda: all_serve(world, 2), 90)
        for node in cluster.brokers:
            cluster.kill(node.name)
            cluster.start(node.name)
        await asyncio.sleep(70)  # strays are removed after 60 s
        await until(lambda: all_serve(world, 2), 90)
        assert isinstance(survivor.server, QuorumServer)
        assert survivor.server.image.topic_named(LATE) is None
        kept = [await node.disk.exists(f"{DATA}/{LATE}-0") for node in cluster.brokers]
        assert kept == [True, True, True]

    run_faults(faults, seed, simulated_s=120.0)


async def make_late_topic(world: World) -> None:
    servers = world.cluster.bootstrap_servers
    async with Admin(bootstrap_servers=servers) as admin:
        while True:
            try:
                await admin.create_topic(LATE, 1, 3)
                break
            except TopicExistsError:
                break  # the answer was lost: the controller was cut off
            except QuorateError as error:
                world.tell(f"{LATE} is not made yet: {error}")
                await asyncio.sleep(0.1)
    async with Producer(bootstrap_servers=servers) as producer:
        await producer.send_and_wait(LATE, b"kept")


async def refused_while_leading(world: World, survivor: SimulatedNode) -> bool:
    """Try to recover a lost voter, too: it is refused, for it was left behind."""
    lost = next(node for node in world.cluster.voters if node is not survivor)
    world.cluster.kill(lost.name)
    said = await recovered(world, lost)
    world.cluster.start(lost.name)
    return any("recovered without it" in one for one in said)
