"""Named faults done to a whole cluster in virtual time, while records flow."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from quorate_broker.server import BrokerServer
from quorate_quorum.server import QuorumServer
from quorate_testing.simulated.cluster import SimulatedNode
from tests.harness.amounts import few_or_many
from tests.harness.cluster_shape import Shape
from tests.harness.invariants import partitions_of
from tests.harness.world import World, run_faults

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(120)]

SEEDS = range(few_or_many(1, 3))
SESSION_TIMEOUT_S = 3.0


def controller(world: World) -> SimulatedNode:
    """The voter that leads the newest reign."""
    leading = [
        (node.server.raft.epoch, node)
        for node in world.cluster.voters
        if isinstance(node.server, QuorumServer) and node.server.raft.is_leader
    ]
    return max(leading, key=lambda one: one[0])[1]


def leading_broker(world: World) -> SimulatedNode:
    """The broker that leads most partitions."""
    return max(world.cluster.brokers, key=lambda node: _led_by(node))


def _led_by(node: SimulatedNode) -> int:
    assert isinstance(node.server, BrokerServer)
    return sum(partition.is_leader for partition in partitions_of(node.server))


def fenced(world: World) -> list[str]:
    """The brokers that know that they are fenced."""
    return [
        node.name
        for node in world.cluster.brokers
        if isinstance(node.server, BrokerServer) and node.server.is_fenced
    ]


def longest_gap_s(world: World, since: float, until: float) -> float:
    """The longest time in which nothing was acknowledged."""
    times = [since, *(t for t in world.history.acked_at if since <= t <= until), until]
    return max(b - a for a, b in pairwise(times))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_control_connection_reset_50_times_changes_no_leader(seed: int) -> None:
    async def faults(world: World) -> None:
        await asyncio.sleep(2)
        voters = [node.name for node in world.cluster.voters]
        broker = leading_broker(world)
        leaders = dict(world.invariants.leaders)
        reigns = dict(world.invariants.quorum_leaders)
        for _ in range(50):
            world.cluster.network.break_streams([broker.name], voters)
            await asyncio.sleep(world.chance.uniform(0.01, 0.2))
            assert fenced(world) == []
        await asyncio.sleep(5)
        assert world.invariants.leaders == leaders
        assert world.invariants.quorum_leaders == reigns

    outcome = run_faults(faults, seed, simulated_s=20)
    assert outcome.failed == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_brokers_cut_from_the_controller_only_are_not_fenced_in_a_mass(seed: int) -> None:
    async def faults(world: World) -> None:
        await asyncio.sleep(2)
        brokers = [node.name for node in world.cluster.brokers]
        old = controller(world)
        world.cluster.network.cut(brokers, [old.name])
        began = world.loop.time()
        while world.loop.time() < began + SESSION_TIMEOUT_S:
            assert fenced(world) == []
            await asyncio.sleep(0.05)
        await asyncio.sleep(7)
        assert controller(world) is not old, "the reign goes where the brokers are heard"
        assert fenced(world) == []
        assert longest_gap_s(world, began, world.loop.time()) < 1

    outcome = run_faults(faults, seed, simulated_s=22)
    assert outcome.failed == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_a_stopped_leader_is_replaced_and_does_no_harm_when_it_goes_on(seed: int) -> None:
    async def faults(world: World) -> None:
        await asyncio.sleep(2)
        leader = leading_broker(world)
        began = world.loop.time()
        world.cluster.pause(leader.name)
        await asyncio.sleep(10)
        assert _led_by(leader) > 0, "it still believes that it leads"
        world.cluster.resume(leader.name)
        await asyncio.sleep(5)
        assert longest_gap_s(world, began, world.loop.time()) < 5
        assert fenced(world) == []

    outcome = run_faults(faults, seed, simulated_s=24)
    assert outcome.failed == 0


@pytest.mark.parametrize("syncs_on_ack", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_all_six_killed_at_once_come_back_with_all(seed: int, *, syncs_on_ack: bool) -> None:
    """And with flush.on.ack they come back from a power loss of all six."""

    async def faults(world: World) -> None:
        for _ in range(3):
            await asyncio.sleep(world.chance.uniform(2, 3))
            before = len(world.history.acked)
            for name in world.cluster.nodes:
                if syncs_on_ack:
                    world.cluster.lose_power(name)
                else:
                    world.cluster.kill(name)
            await asyncio.sleep(0.2)
            world.cluster.start_all()
            await asyncio.sleep(4)
            assert len(world.history.acked) > before

    outcome = run_faults(faults, seed, simulated_s=26, shape=Shape(syncs_on_ack=syncs_on_ack))
    assert outcome.failed == 0
