"""Three voters as in production, in a simulated world: they start, decide, die and stop."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from quorate.errors import (
    NetworkError,
    OutcomeUnknownError,
    QuorumUnavailableError,
)
from quorate.net.methods import DESCRIBE_QUORUM
from quorate.net.network import Answered, Refused
from quorate.net.principal import ANONYMOUS
from quorate.v1 import admin_pb2 as admin
from quorate.v1.common_pb2 import ErrorCode
from quorate_quorum.disk import replace_whole
from quorate_quorum.log.identity import Identity
from quorate_quorum.node.config import ConfigError
from quorate_quorum.node.server import NodeFailed
from quorate_quorum.raft.driver.bootstrap import format_voter, metadata_directory
from quorate_quorum.raft.driver.quorum_state import QUORUM_STATE, encode_state, read_state
from quorate_quorum.raft.machine.hard_state import HardState
from quorate_quorum.raft.machine.voters import ReplicaKey, Voter
from quorate_quorum.v1 import controller_pb2 as wire
from quorate_testing.simulated.disk import SimulatedDisk
from tests.unit.quorate_quorum.builders import CLUSTER, DATA, VoterWorld, in_a_world


@pytest.mark.parametrize("chance", range(8))
def test_a_vote_whose_name_was_not_synced_by_who_died_is_durable_once_the_next_one_runs(
    chance: int,
) -> None:
    """Else a power loss could take it, and it could be given again (sim-quorum seed 5697)."""
    state = HardState(5, ReplicaKey(101, bytes([101]) * 16))
    directory = metadata_directory(DATA)

    async def program(world: VoterWorld) -> None:
        voter = world.voters[0]
        disk = voter.disk = SimulatedDisk(random.Random(chance))
        members = [Voter(m.node_id, m.directory_id, m.endpoint) for m in world.voters]
        identity = Identity(CLUSTER, voter.node_id, voter.directory_id, 1)
        await format_voter(disk, DATA, identity, members, {})
        disk.hook = lambda name, _: disk.crash_process() if name == "sync_directory" else None
        with suppress(OSError):
            await replace_whole(disk, f"{directory}/{QUORUM_STATE}", encode_state(state))
        disk.hook = None
        assert await read_state(disk, directory) == state
        await voter.start()
        voter.process.kill()
        disk.lose_power()
        assert (await read_state(disk, directory)).epoch == 5

    in_a_world(program)


def test_three_voters_elect_one_controller() -> None:
    async def program(world: VoterWorld) -> None:
        await world.start()
        await world.controller()
        await asyncio.sleep(2)
        assert sum(machine.server.is_controller for machine in world.voters) == 1

    in_a_world(program)


def test_a_topic_is_created_the_controller_killed_and_life_goes_on() -> None:
    async def program(world: VoterWorld) -> None:
        await world.start()
        first = await world.controller()
        broker = await world.broker(1)
        await world.create(broker, "before")
        first.kill()
        others = [machine for machine in world.voters if machine is not first]
        second = await world.controller(*others)
        await world.create(broker, "after")
        assert sorted(broker.client.image.topic_ids) == ["after", "before"]
        assert sorted(second.server.image.topic_ids) == ["after", "before"]
        await world.until(
            lambda: broker.is_unfenced and broker.last.epoch == second.server.raft.epoch
        )
        await first.start()
        await world.until(lambda: sorted(first.server.image.topic_ids) == ["after", "before"])

    for seed in range(3):
        in_a_world(program, seed=seed)


@pytest.mark.parametrize("pause_s", [5.0, 5.3, 5.6, 5.9, 6.2])  # wherever the timers stand then
def test_voters_that_see_their_leader_die_do_not_wait_for_a_fetch_timeout(pause_s: float) -> None:
    """A deadline that comes sooner than the timer that was set moves the timer."""

    async def program(world: VoterWorld) -> None:
        await world.start()
        first = await world.controller()
        others = [machine for machine in world.voters if machine is not first]
        await asyncio.sleep(pause_s)
        first.kill()
        took = await world.until(lambda: any(m.server.is_controller for m in others))
        assert took < first.config().quorum_fetch_timeout_ms / 1000 / 4

    in_a_world(program)


def test_an_isr_change_converges_though_the_controller_dies_with_the_answer() -> None:
    """The reply is lost; the repeat is refused by partition_epoch, or makes the change."""

    async def program(world: VoterWorld, delay_s: float) -> None:
        await world.start()
        first = await world.controller()
        brokers = [await world.broker(node_id) for node_id in range(3)]
        await world.create(brokers[0], "t")
        topic_id = b"t".ljust(16, b"\0")
        await world.until(lambda: topic_id in brokers[0].client.image.topics)
        leader = brokers[brokers[0].client.image.topics[topic_id].partitions[0].leader]

        def partition() -> Any:
            return leader.client.image.topics[topic_id].partitions[0]

        async def shrink() -> None:
            while len(partition().isr) == 3:
                proposal = wire.AlterPartition(
                    topic_id=topic_id,
                    leader_epoch=partition().leader_epoch,
                    partition_epoch=partition().partition_epoch,
                )
                for node_id in partition().isr[:2]:
                    proposal.isr.add(broker_id=node_id, broker_epoch=brokers[node_id].broker_epoch)
                request = wire.AlterPartitionsRequest(
                    broker_id=leader.node_id, broker_epoch=leader.broker_epoch
                )
                request.partitions.append(proposal)
                try:
                    answer = await leader.client.alter_partitions(request)
                    assert answer.partitions[0].error.code in (
                        ErrorCode.ERROR_CODE_NONE,
                        ErrorCode.ERROR_CODE_STALE_PARTITION_EPOCH,
                    )
                except (NetworkError, QuorumUnavailableError, OutcomeUnknownError):
                    pass
                await asyncio.sleep(0.05)

        before = partition()
        world.loop.call_later(delay_s, first.kill)
        await world.loop.process(f"b{leader.node_id}").spawn(shrink())
        assert partition().isr == before.isr[:2]
        assert partition().partition_epoch == before.partition_epoch + 1, "made once"

    for step in range(8):
        in_a_world(partial(program, delay_s=step * 0.0005))


def test_one_voter_alone_decides_at_once() -> None:
    async def program(world: VoterWorld) -> None:
        await world.start()
        started = world.loop.time()
        await world.controller()
        assert world.loop.time() - started < 0.5
        broker = await world.broker(1)
        await world.create(broker, "t")

    in_a_world(program, voters=1)


def test_a_clean_stop_hands_over_and_is_remembered() -> None:
    async def program(world: VoterWorld) -> None:
        await world.start()
        first = await world.controller()
        started = world.loop.time()
        await first.run(first.server.stop())
        await first.run(first.server.stop())
        await first.run(first.server.stopped())
        assert world.loop.time() - started < 1
        assert first.server.endpoint == ""
        others = [machine for machine in world.voters if machine is not first]
        await world.controller(*others)
        assert world.loop.time() - started < 1.5, "no election timeout was waited for"
        await first.start()

    in_a_world(program)


def test_a_voter_whose_peers_are_all_gone_stops_within_five_seconds() -> None:
    async def program(world: VoterWorld) -> None:
        await world.start()
        last = await world.controller()
        broker = await world.broker(1)
        for machine in world.voters:
            if machine is not last:
                machine.kill()
        broker.wants_shutdown = True
        started = world.loop.time()
        await last.run(last.server.stop())
        assert world.loop.time() - started < 5

    in_a_world(program)


def test_voters_that_stop_with_the_brokers_let_them_leave_first() -> None:
    async def program(world: VoterWorld) -> None:
        await world.start()
        await world.controller()
        brokers = [await world.broker(node_id) for node_id in range(3)]
        await world.create(brokers[0], "t")
        for broker in brokers:  # Ctrl-C: all nodes get the signal at once
            broker.wants_shutdown = True
            assert broker.stream is not None
            broker.stream.push()
        stopping = [asyncio.ensure_future(m.run(m.server.stop())) for m in world.voters]
        started = world.loop.time()
        await world.until(lambda: all(b.last.should_shut_down for b in brokers), seconds=2)
        for broker in brokers:
            world.loop.process(f"b{broker.node_id}").kill()
        await asyncio.gather(*stopping)
        assert world.loop.time() - started < 3

    in_a_world(program)


def test_a_port_in_use_is_a_clear_error_and_leaves_nothing_open() -> None:
    async def program(world: VoterWorld) -> None:
        machine = world.voters[0]
        other = world.loop.process("other")
        listener = await other.spawn(world.network.host(machine.name).serve(machine.endpoint, []))
        with pytest.raises(ConfigError, match="7093"):
            await machine.start()
        await other.spawn(listener.stop(0))
        await machine.start()

    in_a_world(program)


def test_a_directory_in_use_is_refused() -> None:
    async def program(world: VoterWorld) -> None:
        machine = world.voters[0]
        lock = await machine.disk.lock(DATA)
        with pytest.raises(ConfigError, match="in use by another process"):
            await machine.start()
        lock.release()
        await machine.start()

    in_a_world(program)


def test_a_disk_of_another_node_or_none_at_all_is_refused() -> None:
    async def program(world: VoterWorld) -> None:
        one, two, _three = world.voters
        one.disk, two.disk = two.disk, one.disk
        with pytest.raises(ConfigError, match="belongs to node 101"):
            await one.start()
        two.disk = SimulatedDisk(random.Random(1))
        with pytest.raises(ConfigError, match="not formatted"):
            await two.start()

    in_a_world(program)


def test_a_failed_sync_stops_the_voter_and_says_why() -> None:
    async def program(world: VoterWorld) -> None:
        await world.start()
        first = await world.controller()
        broker = await world.broker(1)
        first.disk.fail_next_sync()
        creating = asyncio.ensure_future(world.create(broker, "t"))
        with pytest.raises(NodeFailed, match="sync"):
            await first.run(first.server.stopped())
        await creating

    in_a_world(program)


def test_a_voter_says_who_it_is() -> None:
    async def program(world: VoterWorld) -> None:
        await world.start()
        machine = world.voters[0]
        host = world.network.host("asker")

        async def ask() -> list[Any]:
            found = await host.probe(machine.endpoint, timeout_ms=1000)
            nobody = await host.probe("voter-100:1", timeout_ms=1000)
            return [found, nobody]

        found, nobody = await world.loop.process("asker").spawn(ask())
        assert found == Answered(100, machine.server.incarnation)
        assert nobody == Refused()

    in_a_world(program)


def test_the_quorum_is_described() -> None:
    async def program(world: VoterWorld) -> None:
        await world.start()
        leader = await world.controller()
        broker = await world.broker(1)
        await asyncio.sleep(1)
        answer = await world.loop.process("b1").spawn(
            broker.client.forward(
                DESCRIBE_QUORUM,
                admin.DescribeQuorumRequest(),
                principal=ANONYMOUS,
                timeout_ms=1000,
            )
        )
        assert answer.leader == leader.node_id
        assert [voter.id for voter in answer.voters] == [100, 101, 102]
        assert {voter.lag for voter in answer.voters} == {0}
        assert all(0 <= voter.last_caught_up_ms < 1000 for voter in answer.voters)

    in_a_world(program)


def test_a_stop_amid_the_start_leaves_nothing_open() -> None:
    async def program(world: VoterWorld) -> None:
        machine = world.voters[0]
        starting = asyncio.ensure_future(machine.start())
        await asyncio.sleep(0.0005)
        await machine.run(machine.server.stop())
        with pytest.raises(NodeFailed, match="stopped before"):
            await starting
        assert machine.server.endpoint == ""
        await machine.start()

    in_a_world(program)
