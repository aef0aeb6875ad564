"""Voters added to and removed from servers as in production, in a simulated world."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

import pytest

from quorate.errors import (
    InvalidRequestError,
    OutcomeUnknownError,
    OverloadedError,
    QuorateError,
    from_wire,
    raise_if_error,
)
from quorate.net.methods import ADD_VOTER, REMOVE_VOTER
from quorate.net.principal import ANONYMOUS
from quorate.v1 import admin_pb2 as admin
from quorate_quorum.controller.decisions.voters import remove_voter
from quorate_quorum.log.identity import Identity
from quorate_quorum.node.config import QuorumConfig
from quorate_quorum.raft.driver.bootstrap import format_new_voter, metadata_directory
from quorate_quorum.snapshots import file as files
from quorate_testing.simulated.disk import SimulatedDisk
from tests.harness.fake_broker import FakeBroker
from tests.unit.quorate_quorum.builders import CLUSTER, DATA, Machine, VoterWorld, in_a_world
from tests.unit.quorate_quorum.raft.driver.builders import NEW, new_voter, servers

IDS = [100, 101, 102]
R = TypeVar("R", admin.AddVoterResponse, admin.RemoveVoterResponse)


async def add(world: VoterWorld, broker: FakeBroker, machine: Machine) -> admin.AddVoterResponse:
    """Add a voter as the command does: repeat while the error may pass."""
    request = admin.AddVoterRequest(
        voter_id=machine.node_id, directory_id=machine.directory_id, endpoint=machine.endpoint
    )

    async def ask() -> admin.AddVoterResponse:
        return await broker.client.forward(ADD_VOTER, request, principal=ANONYMOUS, timeout_ms=5000)

    return await _asked(world, broker, ask)


async def remove(
    world: VoterWorld, broker: FakeBroker, node_id: int, directory_id: bytes = b""
) -> admin.RemoveVoterResponse:
    request = admin.RemoveVoterRequest(voter_id=node_id, directory_id=directory_id)

    async def ask() -> admin.RemoveVoterResponse:
        return await broker.client.forward(
            REMOVE_VOTER, request, principal=ANONYMOUS, timeout_ms=5000
        )

    return await _asked(world, broker, ask)


async def _asked(
    world: VoterWorld, broker: FakeBroker, ask: Callable[[], Coroutine[Any, Any, R]]
) -> R:
    process = world.loop.process(f"b{broker.node_id}")
    for _ in range(60):
        try:
            answer = await process.spawn(ask())
            raise_if_error(answer.error)
        except InvalidRequestError:
            raise
        except QuorateError:
            await asyncio.sleep(0.2)
        else:
            return answer
    raise AssertionError("it was not done")


async def started(world: VoterWorld, ids: Iterable[int]) -> list[Machine]:
    """New disks that follow."""
    made = []
    for node_id in ids:
        machine = await new_voter(world, node_id)
        await machine.start(quorum_bootstrap_servers=servers(world))
        made.append(machine)
    return made


def voters_of(machine: Machine) -> list[int]:
    return [one.id for one in machine.server.image.voters]


def test_from_three_voters_to_five_and_back_with_writes_all_the_while() -> None:
    """The first leader and a follower are removed in the end. No write is lost or unknown."""

    async def program(world: VoterWorld) -> None:
        await world.start()
        await world.controller()
        broker = await world.broker(1)
        topics: list[str] = []

        async def write() -> None:
            while True:
                name = f"t{len(topics)}"
                await world.create(broker, name)
                topics.append(name)
                await asyncio.sleep(0.05)

        writing = asyncio.create_task(write())
        new = await started(world, (103, 104))
        for machine in new:
            assert not (await add(world, broker, machine)).already
            assert (await add(world, broker, machine)).already
        everyone = [*world.voters, *new]
        leader = await world.controller(*everyone)
        assert voters_of(leader) == [100, 101, 102, 103, 104]
        for gone in (100, 101):
            assert not (await remove(world, broker, gone)).already
            assert (await remove(world, broker, gone)).already
        await asyncio.sleep(1)
        written = len(topics)
        for machine in world.voters[:2]:
            machine.kill()  # removed: the three voters that are left are all up
        await world.until(lambda: len(topics) > written + 3)
        assert not writing.done()
        writing.cancel()
        left = [world.voters[2], *new]
        await world.until(lambda: len({m.server.image.offset for m in left}) == 1)
        for machine in left:
            assert voters_of(machine) == [102, 103, 104]
            shown = {one.name for one in machine.server.image.sorted_topics()}
            assert shown >= set(topics)

    in_a_world(program)


@pytest.mark.parametrize("seed", range(3))
def test_the_leader_removes_itself_and_tells_so(seed: int) -> None:
    """Who asked learns that it is done; a successor leads at once; it stays outside.

    Restarted with all that it knows, it follows; nothing brings it back but an administrator.
    """
    assert not [name for name in QuorumConfig.__struct_fields__ if "join" in name]

    async def program(world: VoterWorld) -> None:
        await world.start()
        leader = await world.controller()
        broker = await world.broker(1)
        others = [one for one in world.voters if one is not leader]
        began = world.loop.time()
        request = admin.RemoveVoterRequest(voter_id=leader.node_id)
        answer = await world.loop.process("b1").spawn(
            broker.client.forward(REMOVE_VOTER, request, principal=ANONYMOUS, timeout_ms=5000)
        )
        assert answer.error.code == 0
        assert (answer.already, answer.directory_id) == (False, leader.directory_id)
        successor = await world.controller(*others)
        assert world.loop.time() - began < 1
        await world.create(broker, "after")
        await world.until(lambda: leader.server.image.offset == successor.server.image.offset)
        epoch = successor.server.raft.epoch
        await leader.run(leader.server.stop())
        await leader.start(quorum_bootstrap_servers=servers(world))
        await asyncio.sleep(30)
        assert successor.server.raft.epoch == epoch
        assert voters_of(successor) == [one.node_id for one in others]
        assert leader.server.raft.leader_id == successor.node_id

    in_a_world(program, seed=seed)


def test_a_wiped_disk_comes_back_as_a_new_voter_under_the_same_id() -> None:
    """Refused beside its old self; added once that is removed; and then it counts."""

    async def program(world: VoterWorld) -> None:
        await world.start()
        leader = await world.controller()
        broker = await world.broker(1)
        await world.create(broker, "kept")
        victim = next(one for one in world.voters if one is not leader)
        other = next(one for one in world.voters if one not in (leader, victim))
        old = victim.directory_id
        victim.kill()
        victim.disk = SimulatedDisk(random.Random(7), latency_max=0.001)
        victim.directory_id = b"\x77" * 16
        identity = Identity(CLUSTER, victim.node_id, victim.directory_id, 0)
        await format_new_voter(victim.disk, DATA, identity)
        await victim.start(quorum_bootstrap_servers=servers(world))
        with pytest.raises(InvalidRequestError, match=f"{victim.node_id}:{old.hex()}"):
            await add(world, broker, victim)
        assert (await remove(world, broker, victim.node_id, old)).directory_id == old
        assert (await remove(world, broker, victim.node_id, old)).already
        assert not (await add(world, broker, victim)).already
        other.kill()  # now its vote is needed
        await world.create(broker, "more")
        await world.until(lambda: len(victim.server.image.sorted_topics()) == 2)

    in_a_world(program)


def test_one_voter_alone_becomes_three_and_knows_that_it_may_hand_over() -> None:
    """What began as one laptop grows; silence of all brokers is then no longer judged alone."""

    async def program(world: VoterWorld) -> None:
        await world.start()
        leader = await world.controller()
        broker = await world.broker(1)
        assert leader.server._rooms is not None
        active = leader.server._rooms.controller.active()
        assert not active.leases.liveness.hearing.has_other_voter
        new = await started(world, (101, 102))
        for machine in new:
            await add(world, broker, machine)
        assert active.leases.liveness.hearing.has_other_voter
        leader.kill()
        await world.controller(*new)
        await world.create(broker, "t")

    in_a_world(program, voters=1)


def test_a_node_that_does_not_follow_is_not_added() -> None:
    async def program(world: VoterWorld) -> None:
        await world.start()
        await world.controller()
        broker = await world.broker(1)
        machine = await new_voter(world)
        request = admin.AddVoterRequest(
            voter_id=machine.node_id, directory_id=machine.directory_id, endpoint=machine.endpoint
        )
        answer = await world.loop.process("b1").spawn(
            broker.client.forward(ADD_VOTER, request, principal=ANONYMOUS, timeout_ms=5000)
        )
        assert isinstance(from_wire(answer.error), OverloadedError)
        assert not isinstance(from_wire(answer.error), OutcomeUnknownError)

    in_a_world(program)


def test_a_change_that_its_leader_could_not_commit_is_undone() -> None:
    """Cut off with its removal of another, it takes it back when it meets the quorum."""

    async def program(world: VoterWorld) -> None:
        await world.start()
        leader = await world.controller()
        broker = await world.broker(1)
        names = [one.name for one in world.voters if one is not leader]
        victim = next(one for one in world.voters if one is not leader)
        request = admin.RemoveVoterRequest(voter_id=victim.node_id)
        world.network.cut([leader.name], names)
        asking = leader.process.spawn(_removed(leader, request))
        await asyncio.sleep(0.01)
        ledger = leader.server.raft.machine.ledger
        assert len(ledger.voters.voters) == 2
        assert not ledger.are_voters_committed
        others = [one for one in world.voters if one is not leader]
        await world.controller(*others)
        await world.until(asking.done)
        assert isinstance(asking.result(), OutcomeUnknownError)
        world.network.heal()
        await world.create(broker, "after")
        await world.until(lambda: len(leader.server.raft.machine.ledger.voters.voters) == 3)
        assert voters_of(leader) == [100, 101, 102]
        assert ledger.truncations > 0

    in_a_world(program)


async def _removed(machine: Machine, request: admin.RemoveVoterRequest) -> QuorateError | None:
    assert machine.server._rooms is not None
    try:
        await machine.server._rooms.controller.active().reign.run(
            lambda image, _: remove_voter(image, request)
        )
    except QuorateError as error:
        return error
    return None


@pytest.mark.parametrize("after_ms", [0, 1, 2, 3, 4, 5, 6, 8, 10, 14, 20, 30])
@pytest.mark.parametrize("comes", [True, False], ids=["added", "removed"])
def test_a_change_whose_leader_dies_amid_it_is_whole_or_was_not(comes: bool, after_ms: int) -> None:
    """At each step (appended, sent, synced by some, committed); asked again it is done."""

    async def program(world: VoterWorld) -> None:
        await world.start()
        leader = await world.controller()
        broker = await world.broker(1)
        (new,) = await started(world, (NEW,))
        await world.until(
            lambda: [one.lag for one in leader.server.raft.describe().observers] == [0]
        )
        victim = next(one for one in world.voters if one is not leader)
        change = add_voter_at(leader, new) if comes else removed_at(leader, victim)
        asking = leader.process.spawn(change)
        await asyncio.sleep(after_ms / 1000)
        leader.kill()
        asking.cancel()
        await leader.start()  # of two that may be left one was killed
        successor = await world.controller()
        before = voters_of(successor)
        changed = [100, 101, 102, NEW] if comes else [n for n in IDS if n != victim.node_id]
        assert before in (IDS, changed)
        if comes:
            await add(world, broker, new)
        else:
            await remove(world, broker, victim.node_id)
        everyone = [*world.voters, new]
        await world.until(lambda: all(voters_of(one) == changed for one in everyone))
        await world.create(broker, "after")

    in_a_world(program, seed=after_ms)


async def removed_at(machine: Machine, victim: Machine) -> None:
    request = admin.RemoveVoterRequest(voter_id=victim.node_id)
    await _removed(machine, request)


async def add_voter_at(machine: Machine, new: Machine) -> None:
    request = admin.AddVoterRequest(
        voter_id=new.node_id, directory_id=new.directory_id, endpoint=new.endpoint
    )
    assert machine.server._rooms is not None
    with contextlib.suppress(QuorateError):
        await machine.server._rooms.controller.active().add_voter(request)


def test_a_new_voter_begins_with_a_snapshot_where_the_log_begins_later() -> None:
    async def program(world: VoterWorld) -> None:
        for machine in world.voters:
            await machine.start(metadata_log_segment_bytes=4096)
        leader = await world.controller()
        broker = await world.broker(1)
        for number in range(40):
            await world.create(broker, f"t{number}")
        await world.until(lambda: len({m.server.image.offset for m in world.voters}) == 1)
        for machine in world.voters:
            await machine.run(machine.server.take_snapshot())
        await world.create(broker, "later")
        assert leader.server.raft.log_start_offset > 0
        (new,) = await started(world, (NEW,))
        await add(world, broker, new)
        others = [one for one in world.voters if one is not leader]
        others[0].kill()
        leader.kill()  # two of four: nothing goes without one of them
        await leader.start()
        everyone = [leader, others[1], new]
        await world.controller(*everyone)
        await world.create(broker, "last")
        assert new.server.raft.log_start_offset > 0
        await world.until(lambda: len(new.server.image.sorted_topics()) == 42)

    in_a_world(program)


@pytest.mark.parametrize("begins_with_a_snapshot", [False, True])
def test_a_new_voters_snapshots_are_those_of_the_others_byte_for_byte(
    begins_with_a_snapshot: bool,
) -> None:
    """A download that began at one leader goes on at the next, which may be the new voter."""

    async def program(world: VoterWorld) -> None:
        for machine in world.voters:
            await machine.start(metadata_log_segment_bytes=4096)
        leader = await world.controller()
        broker = await world.broker(1)
        for number in range(40):
            await world.create(broker, f"t{number}")
        if begins_with_a_snapshot:
            await leader.run(leader.server.take_snapshot())
            assert leader.server.raft.log_start_offset > 0
        await world.create(broker, "later")
        (new,) = await started(world, (NEW,))
        await add(world, broker, new)
        await world.until(
            lambda: (
                len({one.server.image.offset for one in (leader, new)}) == 1
                and len(new.server.image.sorted_topics()) == 41
            )
        )
        contents = []
        for machine in (leader, new):
            snapshot = await machine.run(machine.server.take_snapshot())
            path = files.path_of(metadata_directory(DATA), snapshot)
            contents.append(machine.disk.content(path))
        assert contents[0] == contents[1]

    in_a_world(program)
