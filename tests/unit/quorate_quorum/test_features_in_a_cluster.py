"""Feature levels among nodes of two releases, in a simulated world: three voters and a broker."""

from __future__ import annotations

import random
from typing import Any

import pytest

from quorate.errors import InvalidRequestError, UnsupportedError, raise_if_error
from quorate.net.methods import DESCRIBE_FEATURES, UPDATE_FEATURE
from quorate.net.principal import ANONYMOUS
from quorate.v1 import admin_pb2 as admin
from quorate_quorum.controller.decisions.outcome import Outcome
from quorate_quorum.node.environment import Environment
from quorate_quorum.node.features import SUPPORTED, Known, Levels, UnknownLevelError
from quorate_quorum.node.server import NodeFailed
from quorate_quorum.raft.driver import bootstrap
from quorate_quorum.server import QuorumServer
from quorate_quorum.v1.events_pb2 import Feature, MetadataEvent
from tests.harness.fake_broker import FakeBroker
from tests.unit.quorate_quorum.builders import Machine, VoterWorld, in_a_world

NAME = "metadata.version"
#: The first release, this one, and the next one.
OLD: Known = {NAME: Levels(1, 1)}
NOW = SUPPORTED[NAME]
NEW: Known = {NAME: Levels(1, NOW.highest + 1)}


@pytest.fixture(autouse=True)
def _first_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the clusters begin as those of the first release."""
    monkeypatch.setattr(bootstrap, "SUPPORTED", OLD)


async def start(machine: Machine, known: Known) -> None:
    """Start a voter as the release that knows these."""
    machine.process = machine.world.loop.process(machine.name)
    environment = Environment(
        network=machine.world.network.host(machine.name),
        disk=machine.disk,
        wall_clock_ms=machine.process.wall_clock_ms,
        chance=random.Random(machine.node_id),
        features=known,
    )
    machine.server = QuorumServer(machine.config(), environment)
    await machine.run(machine.server.start())


async def ask(world: VoterWorld, broker: FakeBroker, method: Any, request: Any) -> Any:
    process = world.loop.process(f"b{broker.node_id}")
    answer = await process.spawn(
        broker.client.forward(method, request, principal=ANONYMOUS, timeout_ms=5000)
    )
    raise_if_error(answer.error)
    return answer


async def update(world: VoterWorld, broker: FakeBroker, level: int) -> int:
    request = admin.UpdateFeatureRequest(name=NAME, level=level)
    return int((await ask(world, broker, UPDATE_FEATURE, request)).level)


def levels(world: VoterWorld) -> list[int]:
    return [voter.server.image.features[NAME] for voter in world.voters]


async def all_new_but(world: VoterWorld, *old: Machine) -> None:
    for machine in world.voters:
        await start(machine, OLD if machine in old else NEW)
    await world.controller()


def test_a_broker_of_the_first_release_holds_the_level_back() -> None:
    """It registered without its levels. The request comes by an administrator's way."""

    async def program(world: VoterWorld) -> None:
        await all_new_but(world)
        broker = await world.broker(1, tells_levels=False)
        with pytest.raises(UnsupportedError, match=r"broker 1 \(knows 1 to 1\)"):
            await update(world, broker, 2)
        assert await update(world, broker, 1) == 1
        described = await ask(world, broker, DESCRIBE_FEATURES, admin.DescribeFeaturesRequest())
        (one,) = described.features
        assert (one.name, one.level) == (NAME, 1)
        assert (one.nodes[-1].id, one.nodes[-1].voter, one.nodes[-1].highest) == (1, False, 1)

    in_a_world(program)


def test_a_voter_of_the_old_release_refuses_to_start_on_a_log_above_it() -> None:
    """The error names both levels. The voter's log is not changed: the new release starts on it."""

    async def program(world: VoterWorld) -> None:
        await all_new_but(world)
        leader = await world.controller()
        raise_level(leader)
        await world.until(lambda: levels(world) == [2, 2, 2])
        victim = next(one for one in world.voters if one is not leader)
        await victim.run(victim.server.stop())
        with pytest.raises(UnknownLevelError, match=r"level 2 .* knows 1 to 1"):
            await start(victim, OLD)
        await start(victim, NEW)
        await world.until(lambda: victim.server.image.features.get(NAME) == 2)

    in_a_world(program)


def test_a_voter_stops_when_a_level_commits_that_it_does_not_know() -> None:
    async def program(world: VoterWorld) -> None:
        await all_new_but(world)
        leader = await world.controller()
        victim = next(one for one in world.voters if one is not leader)
        await victim.run(victim.server.stop())
        await start(victim, OLD)
        raise_level(leader)  # as if the rule were not there
        with pytest.raises(NodeFailed, match=r"level 2 .* knows 1 to 1"):
            await victim.run(victim.server.stopped())
        await world.controller(leader)

    in_a_world(program)


def test_a_broker_stops_when_a_level_commits_that_it_does_not_know() -> None:
    async def program(world: VoterWorld) -> None:
        await all_new_but(world)
        broker = await world.broker(1)
        world.brokers.remove(broker)  # its failure is what is looked for
        # as if the rule were not there
        raise_level(await world.controller(), NOW.highest + 1)
        await world.until(lambda: bool(broker.failures))
        told = f"at level {NOW.highest + 1} of metadata.version, and this program knows {NOW}"
        assert told in broker.failures[0]

    in_a_world(program)


def test_the_controller_hears_of_every_voters_levels_by_its_fetch_stream() -> None:
    """So the rule holds both ways: raised when the last node knows the level, never lowered."""

    async def program(world: VoterWorld) -> None:
        await all_new_but(world, world.voters[2])
        leader = await world.controller()
        old = world.voters[2]
        if leader is old:
            old.server.raft.hand_over(for_silence=False)
            leader = await world.controller(*world.voters[:2])
        run = leader.server._rooms
        assert run is not None
        await world.until(lambda: len(leader.server.raft.known_features) == 3)
        decide = admin.UpdateFeatureRequest(name=NAME, level=2)
        refused = await leader.run(run.controller.active().update_feature(decide))
        with pytest.raises(UnsupportedError, match=r"voter 102 \(knows 1 to 1\)"):
            raise_if_error(refused.response.error)
        await old.run(old.server.stop())
        await start(old, NEW)
        await world.until(
            lambda: leader.server.raft.known_features[102, old.directory_id] == NEW, seconds=5
        )
        done = await leader.run(run.controller.active().update_feature(decide))
        assert done.response.level == 2
        again = await leader.run(run.controller.active().update_feature(decide))
        assert (again.response.level, again.apply_offset) == (2, done.apply_offset)
        await world.until(lambda: levels(world) == [2, 2, 2])
        back = admin.UpdateFeatureRequest(name=NAME, level=1)
        lowered = await leader.run(run.controller.active().update_feature(back))
        with pytest.raises(InvalidRequestError, match="never lowered"):
            raise_if_error(lowered.response.error)

    in_a_world(program)


def raise_level(leader: Machine, level: int = 2) -> None:
    rooms = leader.server._rooms
    assert rooms is not None
    event = MetadataEvent(feature=Feature(name=NAME, level=level))
    active = rooms.controller.active()
    active.reign.decide(lambda image, context: Outcome((event,), None))
