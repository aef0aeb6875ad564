"""A disk made by `storage format --new-voter`: it finds its quorum by itself, and only its own."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from quorate_cli.node_disks import format_broker
from quorate_quorum.disk import replace_whole
from quorate_quorum.log.identity import read_identity
from quorate_quorum.node.config import ConfigError
from quorate_quorum.node.server import NodeFailed
from quorate_quorum.raft.driver.bootstrap import metadata_directory
from quorate_quorum.raft.driver.quorum_state import QUORUM_STATE, encode_state, read_state
from quorate_testing.simulated.disk import SimulatedDisk
from tests.cluster.support import run_here
from tests.unit.quorate_quorum.builders import CLUSTER, DATA, Machine, VoterWorld, in_a_world
from tests.unit.quorate_quorum.raft.driver.builders import NEW, new_voter, servers


def test_a_new_disk_learns_the_generation_and_follows_as_an_observer() -> None:
    async def program(world: VoterWorld) -> None:
        await world.start()
        leader = await world.controller()
        broker = await world.broker(1)
        await world.create(broker, "before")
        machine = await new_voter(world)
        server = await machine.start(quorum_bootstrap_servers=servers(world))
        identity = await read_identity(machine.disk, DATA)
        assert identity.quorum_generation == 1
        await world.create(broker, "after")
        await world.until(lambda: server.image.offset == leader.server.image.offset)
        assert [one.name for one in server.image.sorted_topics()] == ["after", "before"]
        await world.until(lambda: leader.server.raft.describe().observers[0].lag == 0)
        (seen,) = leader.server.raft.describe().observers
        told = (seen.id, seen.directory_id, seen.endpoint)
        assert told == (NEW, machine.directory_id, machine.endpoint)
        assert [one.id for one in leader.server.raft.describe().voters] == [100, 101, 102]

    in_a_world(program)


def test_a_new_disk_follows_each_leader_and_is_there_again_after_a_restart_without_servers() -> (
    None
):
    async def program(world: VoterWorld) -> None:
        await world.start()
        machine = await new_voter(world)
        server = await machine.start(quorum_bootstrap_servers=servers(world))
        for _ in range(2):
            leader = await world.controller(*[one for one in world.voters if one.process.is_alive])
            await world.until(lambda at=leader: server.raft.leader_id == at.node_id)  # type: ignore[misc]
            epoch = server.raft.epoch
            leader.kill()
            await world.until(lambda at=epoch: server.raft.epoch > at)  # type: ignore[misc]
            await leader.start()
        machine.kill()
        server = await machine.start()  # it knows the voters from its log by now
        leader = await world.controller()
        await world.until(lambda: server.image.offset == leader.server.image.offset > 0)
        assert server.raft.leader_id == leader.node_id

    in_a_world(program)


def test_a_new_disk_waits_for_a_leader() -> None:
    """Nothing is written down before a node that hears a leader has told the generation."""

    async def program(world: VoterWorld) -> None:
        machine = await new_voter(world)
        starting = asyncio.ensure_future(machine.start(quorum_bootstrap_servers=servers(world)))
        await world.voters[0].start()  # alone it hears none
        await asyncio.sleep(5)
        assert not starting.done()
        assert (await read_identity(machine.disk, DATA)).quorum_generation == 0
        for one in world.voters[1:]:
            await one.start()
        await starting
        assert (await read_identity(machine.disk, DATA)).quorum_generation == 1

    in_a_world(program)


def test_a_new_disk_that_waits_for_a_leader_can_be_stopped() -> None:
    async def program(world: VoterWorld) -> None:
        machine = await new_voter(world)
        starting = asyncio.ensure_future(machine.start(quorum_bootstrap_servers=servers(world)))
        await asyncio.sleep(2)
        await machine.run(machine.server.stop())
        with pytest.raises(NodeFailed, match="stopped before"):
            await starting
        assert machine.server.endpoint == ""

    in_a_world(program)


def test_a_new_disk_knows_nobody_without_bootstrap_servers() -> None:
    async def program(world: VoterWorld) -> None:
        machine = await new_voter(world)
        with pytest.raises(ConfigError, match=r"set quorum\.bootstrap\.servers"):
            await machine.start()

    in_a_world(program)


def test_a_new_disk_of_another_cluster_is_refused() -> None:
    async def program(world: VoterWorld) -> None:
        await world.start()
        machine = await new_voter(world, cluster_id="another")
        with pytest.raises(ConfigError, match=r"is of cluster 'c1', and this disk .* 'another'"):
            await machine.start(quorum_bootstrap_servers=servers(world))

    in_a_world(program)


def test_a_disk_that_lost_power_while_it_joined_joins_again() -> None:
    async def program(world: VoterWorld) -> None:
        await world.start()
        machine = await new_voter(world)
        for wait_s in (0.002, 0.02, 0.2, 1.0):
            starting = asyncio.ensure_future(machine.start(quorum_bootstrap_servers=servers(world)))
            await asyncio.sleep(wait_s)
            machine.process.kill()
            machine.disk.lose_power()
            starting.cancel()
        server = await machine.start(quorum_bootstrap_servers=servers(world))
        leader = await world.controller()
        await world.until(lambda: server.image.offset == leader.server.image.offset > 0)

    in_a_world(program)


def _config(folder: Path, *lines: str) -> str:
    path = folder / "voter.toml"
    text = [
        f"node.id = {NEW}",
        'listeners = ["127.0.0.1:1"]',
        f'log.dirs = ["{folder}/data"]',
        *lines,
    ]
    path.write_text("\n".join(text) + "\n")
    return str(path)


def test_formatting_a_new_voter_says_how_it_is_added(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = _config(tmp_path, 'quorum.bootstrap.servers = ["127.0.0.1:2"]')
    command = ("storage", "format", "--config", config, "--cluster-id", CLUSTER, "--new-voter")
    done = run_here(command, capfd, b"")
    assert (done.status, done.err) == (0, "")
    hexes = done.out.partition("directory ")[2][:32]
    assert f"quorate quorum add-voter {NEW}@127.0.0.1:1:{hexes}\n" in done.out
    again = run_here(command, capfd, b"")
    assert again.status == 1
    assert "formatted already" in again.err


def test_formatting_a_new_voter_without_bootstrap_servers_says_what_to_do(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ("storage", "format", "--config", _config(tmp_path), "--cluster-id", "x")
    done = run_here([*command, "--new-voter"], capfd, b"")
    assert done.status == 1
    assert "set quorum.bootstrap.servers" in done.err
    assert not (tmp_path / "data").exists()


def test_a_disk_of_a_broker_is_not_taken_for_a_new_voters() -> None:
    """Both have no generation; but ids are one space, and an id is of one node."""

    async def program(world: VoterWorld) -> None:
        await world.start()
        machine = Machine(world, NEW)
        await format_broker(CLUSTER, 1, [DATA], disk=machine.disk, chance=random.Random(1))
        with pytest.raises(ConfigError, match="belongs to node 1"):
            await machine.start(quorum_bootstrap_servers=servers(world))
        machine.disk = SimulatedDisk(random.Random(1))

    in_a_world(program)


def test_a_voter_formatted_as_a_broker_says_how_to_format_it() -> None:
    """It did wait for ever: neither an initial voter nor a new one."""

    async def program(world: VoterWorld) -> None:
        await world.start()
        machine = Machine(world, NEW)
        await format_broker(CLUSTER, NEW, [DATA], disk=machine.disk, chance=random.Random(1))
        with pytest.raises(ConfigError, match="formatted without --initial-voters, --standalone"):
            await machine.start(quorum_bootstrap_servers=servers(world))

    in_a_world(program)


def test_a_removed_disk_of_a_later_epoch_stays_outside_and_says_why() -> None:
    """It stood in vain before it was removed; its fetches would end the leader's reign."""

    async def program(world: VoterWorld) -> None:
        await world.start()
        leader = await world.controller()
        machine = await new_voter(world)
        await machine.start(quorum_bootstrap_servers=servers(world))
        await world.until(lambda: machine.server.raft.leader_id == leader.node_id)
        machine.kill()
        directory = metadata_directory(DATA)
        state = await read_state(machine.disk, directory)
        later = replace(state, epoch=state.epoch + 3)
        await replace_whole(machine.disk, f"{directory}/{QUORUM_STATE}", encode_state(later))
        epoch = leader.server.raft.epoch
        with structlog.testing.capture_logs() as told:
            await machine.start(quorum_bootstrap_servers=servers(world))
            await asyncio.sleep(20)
        (line,) = [one for one in told if "of an earlier epoch" in one["event"]]
        assert (line["epoch"], line["own_epoch"]) == (epoch, later.epoch)
        assert leader.server.is_controller
        assert leader.server.raft.epoch == epoch
        assert machine.server.raft.leader_id == -1

    in_a_world(program)
