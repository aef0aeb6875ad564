"""`quorate quorum recover`: what it reads, when it refuses, what it writes; crashes in it."""

from __future__ import annotations

import asyncio
import itertools
import random
from dataclasses import replace
from typing import Any

import pytest

from quorate.errors import QuorateError
from quorate_quorum.controller.decisions.lossy_elections import (
    AskEnds,
    LossyElection,
    LossyElections,
)
from quorate_quorum.disk import read_whole
from quorate_quorum.log.identity import FILE_NAME, Identity, read_identity
from quorate_quorum.log.segment import LOG
from quorate_quorum.metadata.delta import replayed
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.partitions import NO_LEADER
from quorate_quorum.metadata.recovered import (
    EPOCHS_PASSED,
    OFFSETS_PASSED,
    PRODUCER_IDS_PASSED,
    recovered,
)
from quorate_quorum.metadata.voters import VoterImage
from quorate_quorum.node.config import ConfigError
from quorate_quorum.node.features import SUPPORTED
from quorate_quorum.raft.driver.bootstrap import metadata_directory
from quorate_quorum.raft.machine.hard_state import EPOCH_MAX, HardState
from quorate_quorum.recover import recover
from quorate_quorum.recover.decision import Peer, Said, plan, refusals
from quorate_quorum.recover.survivor import Survivor, read_survivor
from quorate_quorum.v1 import controller_pb2 as wire
from quorate_testing.simulated.disk import SimulatedDisk
from tests.unit.quorate_quorum.builders import CLUSTER, DATA, Machine, VoterWorld, in_a_world
from tests.unit.quorate_quorum.metadata.builders import (
    brokers,
    built,
    partition_made,
    topic_event,
    topic_id,
    unfence_event,
)

META = metadata_directory(DATA)
ME = VoterImage(100, b"me" * 8, "voter-100:7093")
OTHERS = (
    VoterImage(101, b"b1" * 8, "voter-101:7093"),
    VoterImage(102, b"b2" * 8, "voter-102:7093"),
)


# The image of the new history.


def a_world_of_topics() -> Any:
    image = brokers([1, 2, 3], fenced=[3])
    image = built(
        topic_event(1, "t"),
        partition_made(1, 0, [1, 2, 3], isr=[1, 2], elr=[3], leader=1, leader_epoch=7),
        partition_made(1, 1, [2, 3], isr=[2], leader=2),
        on=image,
    )
    return replace(image, next_producer_id=5000, voters=(ME, *OTHERS))


def test_the_new_history_trusts_nobody_and_passes_over_every_number_given_away() -> None:
    """No epoch, offset or id of the lost tail is given again."""
    old = a_world_of_topics()
    new = recovered(old, ME, epoch_seen=old.epoch + 3)

    assert (new.offset, new.epoch) == (old.offset + OFFSETS_PASSED, old.epoch + 3 + EPOCHS_PASSED)
    assert new.voters == (ME,)
    assert all(broker.fenced for broker in new.sorted_brokers())
    assert new.next_producer_id == 5000 + PRODUCER_IDS_PASSED
    for before, after in zip(
        old.topics[topic_id(1)].partitions, new.topics[topic_id(1)].partitions, strict=True
    ):
        assert after.leader == NO_LEADER
        assert (after.isr, after.elr) == ((), ())
        assert after.last_isr == before.broker_ids, "every replica is asked what it has"
        assert after.replicas == before.replicas
        assert after.leader_epoch == before.leader_epoch + EPOCHS_PASSED
        assert after.partition_epoch == before.partition_epoch + EPOCHS_PASSED
        assert after.recovered_epoch == after.leader_epoch
        after.check()
    assert (new.configs, new.topic_ids) == (old.configs, old.topic_ids)
    assert new.partitions_created == old.partitions_created


def unfenced(image: MetadataImage, *broker_ids: int) -> MetadataImage:
    return replayed(image, [unfence_event(b, image.brokers[b].epoch) for b in broker_ids])


def test_nobody_leads_before_all_replicas_have_told_what_they_hold() -> None:
    """The survivor may not know the last ISR: any replica may have been in it."""
    image = recovered(a_world_of_topics(), ME, epoch_seen=10)
    key = (topic_id(1), 0)
    recovery = LossyElections(60_000)
    recovery.changed(image, [key])
    image = unfenced(image, 1, 2)
    assert recovery.tick(image, 1_000) == []
    image = unfenced(image, 3)
    asks = recovery.tick(image, 2_000)
    assert [one.broker_id for one in asks if isinstance(one, AskEnds)] == [1, 2, 3]
    for broker_id, last_epoch, end in ((1, 6, 900), (2, 7, 40), (3, 7, 41)):
        told = wire.ReplicaEnd(
            topic_id=key[0], partition=0, last_epoch=last_epoch, log_end_offset=end
        )
        assert not [one for one in recovery.tick(image, 2_100) if isinstance(one, LossyElection)]
        recovery.answered(broker_id, image.brokers[broker_id].epoch, [told])
    (found,) = [one for one in recovery.tick(image, 2_200) if isinstance(one, LossyElection)]
    assert (found.partition, found.leader) == (0, 3)


# Peers that speak against a recovery.


def survivor(**changed: Any) -> Survivor:
    image = replace(a_world_of_topics(), epoch=5)
    given: dict[str, Any] = {
        "log_dir": DATA,
        "identity": Identity(CLUSTER, ME.id, ME.directory_id, 1),
        "endpoint": ME.endpoint,
        "hard_state": HardState(epoch=6),
        "image": image,
        "log_start_offset": 0,
        "high_watermark": 3,
        "snapshot": None,
        "bootstrap_hash": b"h" * 32,
        "bootstrap_end": 3,
        "voters_named": image.voters,
        "begun": None,
    }
    return Survivor(**{**given, **changed})


def peer(voter: VoterImage = OTHERS[0], **changed: Any) -> Peer:
    given: dict[str, Any] = {
        "cluster_id": CLUSTER,
        "node_id": voter.id,
        "directory_id": voter.directory_id,
        "quorum_generation": 1,
        "epoch": 6,
        "leader_id": -1,
        "last_epoch": 4,
        "log_end_offset": 4,
        "past_bootstrap": False,
    }
    return Peer(voter.endpoint, Said(**{**given, **changed}))


LOST = [Peer(one.endpoint, None) for one in OTHERS]
END = survivor().image.offset
#: It was removed, or never added: what it holds is whole all the same.
OBSERVER = {"identity": Identity(CLUSTER, 104, b"ob" * 8, 1), "endpoint": "voter-104:7093"}
MAJORITY = [peer(one, past_bootstrap=True, last_epoch=5) for one in OTHERS]


@pytest.mark.parametrize(
    ("disk", "peers", "because"),
    [
        ({}, [peer(leader_id=102), LOST[1]], "knows a leader"),
        ({}, [peer(last_epoch=5, log_end_offset=END + 1)], "node 101 at voter-101:7093 has more"),
        ({}, [peer(last_epoch=6, log_end_offset=2)], "has more"),
        ({}, [peer(quorum_generation=2)], "recovered without it"),
        ({}, [peer(directory_id=ME.directory_id)], "copy of this disk"),
        ({}, [peer(past_bootstrap=True)], "they are a majority"),
        (OBSERVER, MAJORITY, "2 of 3 voters answer, and this node is none"),
        ({"image": replace(survivor().image, voters=(ME,))}, [], "the only voter already"),
        ({"bootstrap_end": END}, LOST, "no history"),
        ({"hard_state": HardState(epoch=EPOCH_MAX - 1)}, LOST, "no epochs"),
    ],
)
def test_it_refuses(disk: dict[str, Any], peers: list[Peer], because: str) -> None:
    """The quorum lives, or a peer has more, or there is nothing to recover from."""
    (said,) = refusals(survivor(**disk), peers)
    assert because in said


@pytest.mark.parametrize(
    "peers",
    [
        LOST,
        [],
        [peer(past_bootstrap=False)],  # formatted anew under its old id: it counts for nothing
        [peer(replace(OTHERS[0], directory_id=b"n" * 16), past_bootstrap=True)],  # a new disk
        [peer(cluster_id="another", leader_id=7, log_end_offset=10**9)],
        [peer(last_epoch=5, log_end_offset=END)],  # as much as the survivor has
    ],
)
def test_who_has_less_or_is_a_stranger_speaks_against_nothing(peers: list[Peer]) -> None:
    assert refusals(survivor(), peers) == []


def test_a_disk_that_is_no_voters_may_be_all_that_is_left() -> None:
    assert refusals(survivor(**OBSERVER), [MAJORITY[0], LOST[1]]) == []


def test_a_voter_of_a_history_that_is_over_speaks_against_nothing() -> None:
    mine = survivor()
    mine = survivor(identity=replace(mine.identity, quorum_generation=2))
    assert refusals(mine, [peer(quorum_generation=1, leader_id=101, log_end_offset=10**6)]) == []


def test_the_epoch_is_above_all_that_were_heard_of_but_no_leap_is_believed() -> None:
    mine = survivor()
    assert plan(mine, LOST).snapshot.epoch == 6 + EPOCHS_PASSED
    assert plan(mine, [peer(epoch=40)]).snapshot.epoch == 40 + EPOCHS_PASSED
    assert plan(mine, [peer(epoch=EPOCH_MAX)]).snapshot.epoch == 6 + EPOCHS_PASSED
    assert plan(mine, [peer(epoch=40, cluster_id="x")]).snapshot.epoch == 6 + EPOCHS_PASSED


def test_two_survivors_of_one_generation_are_told_apart() -> None:
    """Both recovered, by mistake: they refuse each other by the hash of their beginnings."""
    mine = survivor()
    other = survivor(identity=replace(mine.identity, directory_id=b"other one's disk"))
    ours, theirs = plan(mine, LOST), plan(other, LOST)
    assert ours.quorum_generation == theirs.quorum_generation == 2
    assert ours.bootstrap_hash != theirs.bootstrap_hash != mine.bootstrap_hash


# The disk.


async def a_history(world: VoterWorld) -> Machine:
    """Three voters decide something; then all stop, and one is returned."""
    await world.start()
    leader = await world.controller()
    broker = await world.broker(1)
    await world.create(broker, "t")
    end = leader.server.image.offset
    await world.until(lambda: all(v.server.image.offset >= end for v in world.voters))
    await broker.stop()
    for voter in world.voters:
        voter.kill()
    return world.voters[0]


async def read(machine: Machine) -> Survivor:
    return await read_survivor(machine.disk, machine.config(), SUPPORTED)


def test_a_survivor_is_read_as_its_node_would_read_it_and_nothing_is_written() -> None:
    async def program(world: VoterWorld) -> None:
        machine = await a_history(world)
        before = {
            name: machine.disk.content(f"{META}/{name}") for name in await machine.disk.list(META)
        }
        found = await read(machine)
        assert list(found.image.topic_ids) == ["t"]
        assert found.is_voter
        assert [v.id for v in found.image.voters] == [100, 101, 102]
        assert recover.endpoints(found, ["voter-100:7093", "elsewhere:1"]) == [
            "voter-101:7093",
            "voter-102:7093",
            "elsewhere:1",
        ]
        assert await machine.disk.list(META) == sorted(before)
        for name, content in before.items():
            assert machine.disk.content(f"{META}/{name}") == content
        await machine.start()
        raft = machine.server.raft
        assert (found.image.offset, found.image.epoch) == (
            raft.log_end_offset,
            raft.answers.describe_node().last_epoch,
        )
        assert found.bootstrap_hash == raft.peers.history.bootstrap_hash

    in_a_world(program)


def test_a_survivor_with_a_snapshot_is_read_from_it() -> None:
    async def program(world: VoterWorld) -> None:
        await world.start()
        leader = await world.controller()
        taken = await leader.run(leader.server.take_snapshot())
        image = leader.server.image
        for voter in world.voters:
            voter.kill()
        found = await read(leader)
        assert found.snapshot == taken
        assert found.high_watermark == taken.offset
        assert (found.image.offset, found.image.voters) == (image.offset, image.voters)

    in_a_world(program)


def test_a_torn_tail_is_passed_over_and_a_bad_byte_below_the_sync_refused() -> None:
    """A disk whose synced records are damaged does not become the truth of a cluster."""

    async def program(world: VoterWorld) -> None:
        machine = await a_history(world)
        whole = await read(machine)
        segment = next(n for n in await machine.disk.list(META) if n.endswith(LOG))
        file = await machine.disk.open(f"{META}/{segment}")
        size = file.size
        await file.append((b"torn" * 30,))
        assert (await read(machine)).image.offset == whole.image.offset
        machine.disk.flip_bit(f"{META}/{segment}", size // 2)
        with pytest.raises(QuorateError, match="was synced"):
            await read(machine)
        machine.disk.flip_bit(f"{META}/{segment}", size // 2)
        machine.disk.flip_bit(f"{META}/{segment}", 15)  # the first batch's epoch
        with pytest.raises(QuorateError, match=r"no EpochStart since epoch 0.* was synced"):
            await read(machine)

    in_a_world(program)


def test_a_directory_that_is_no_voters_is_refused() -> None:
    async def program(world: VoterWorld) -> None:
        machine = world.voters[0]
        disk = machine.disk
        machine.disk = SimulatedDisk(random.Random(1))
        with pytest.raises(ConfigError, match="not formatted"):
            await read(machine)
        await machine.disk.make_directory(DATA)
        file = await machine.disk.open(f"{DATA}/{FILE_NAME}", create=True)
        await file.append((await read_whole(disk, f"{DATA}/{FILE_NAME}"),))
        with pytest.raises(ConfigError, match="no metadata log"):
            await read(machine)

    in_a_world(program)


async def recover_once(machine: Machine) -> Survivor:
    found = await read(machine)
    assert refusals(found, LOST) == []
    await recover.carry_out(machine.disk, found, plan(found, LOST))
    return found


def test_the_survivor_leads_alone_and_what_it_held_is_there() -> None:
    async def program(world: VoterWorld) -> None:
        machine = await a_history(world)
        before = await recover_once(machine)
        assert "the only voter already" in refusals(await read(machine), LOST)[0]
        await machine.start()
        await world.controller(machine)
        server = machine.server
        assert (await read_identity(machine.disk, DATA)).quorum_generation == 2
        assert server.raft.log_start_offset == before.image.offset + OFFSETS_PASSED
        assert server.raft.epoch > before.hard_state.epoch + EPOCHS_PASSED
        assert list(server.image.topic_ids) == ["t"]
        assert [voter.id for voter in server.image.voters] == [100]

        # The lost voters come back, as a majority: they elect, and are refused by the new one.
        offset, epoch = server.image.offset, server.raft.epoch
        for lost in world.voters[1:]:
            await lost.start()
        await world.controller(*world.voters[1:])
        assert (server.is_controller, server.raft.epoch) == (True, epoch)
        assert server.image.offset == offset

        # It starts again, from the snapshot and its new log.
        machine.kill()
        await machine.start()
        await world.controller(machine)
        assert list(machine.server.image.topic_ids) == ["t"]

    in_a_world(program)


def test_of_two_that_were_recovered_only_the_first_runs() -> None:
    """Brokers would take the two histories for one: they have the same generation."""

    async def program(world: VoterWorld) -> None:
        first = await a_history(world)
        second = world.voters[1]
        for machine in (first, second):
            found = await read(machine)
            await recover.carry_out(machine.disk, found, plan(found, LOST))
        servers = tuple(machine.endpoint for machine in world.voters)
        await first.start(quorum_bootstrap_servers=servers)
        await world.controller(first)
        with pytest.raises(ConfigError, match="a recovery of its own"):
            await second.start(quorum_bootstrap_servers=servers)
        first.kill()
        await first.start(quorum_bootstrap_servers=servers)
        await world.controller(first)

        # Nor may both start if neither listens yet when the other asks.
        first.kill()
        world.network.cut({first.name}, {second.name})
        starting = asyncio.gather(
            *(one.start(quorum_bootstrap_servers=servers) for one in (first, second)),
            return_exceptions=True,
        )
        await asyncio.sleep(0.9)
        world.network.heal()
        started = await starting
        assert any(isinstance(one, ConfigError) for one in started)

    in_a_world(program)


@pytest.mark.parametrize("by_power", [False, True], ids=["process", "power"])
def test_a_crash_at_any_write_leaves_the_old_history_or_one_that_recover_completes(
    by_power: bool,
) -> None:
    """Snapshot, epoch, identity: a node in between does not start, and never resets its log."""

    async def program(world: VoterWorld) -> None:
        machine = await a_history(world)
        original = machine.disk
        seen: dict[str, int] = {}
        for crash_at in itertools.count(1):
            for seed in range(4 if by_power else 1):
                disk = await copied(original, seed)
                crashed = await crash_in(machine, disk, crash_at, by_power=by_power)
                outcome = await outcome_of(machine, disk)
                seen[outcome] = seen.get(outcome, 0) + 1
                if not crashed:
                    assert outcome == "new"
            if not crashed:
                break
        assert min(seen.get(one, 0) for one in ("old", "cut short", "new")) > 0, seen

    in_a_world(program)


async def copied(disk: SimulatedDisk, seed: int) -> SimulatedDisk:
    copy = SimulatedDisk(random.Random(seed))
    for directory in (DATA, META):
        await copy.make_directory(directory)
        for name in await disk.list(directory):
            path = f"{directory}/{name}"
            if path == META:
                continue
            file = await copy.open(path, create=True)
            await file.append((disk.content(path),))
            await file.sync()
            await file.close()
        await copy.sync_directory(directory)
    return copy


async def crash_in(machine: Machine, disk: SimulatedDisk, crash_at: int, *, by_power: bool) -> bool:
    operations = 0
    machine.disk = disk
    found = await read(machine)

    def hook(name: str, path: str) -> None:
        nonlocal operations
        operations += 1
        if operations == crash_at:
            (disk.lose_power if by_power else disk.crash_process)()
            raise OSError("the machine is gone")

    disk.hook = hook
    try:
        await recover.carry_out(disk, found, plan(found, LOST))
    except OSError:
        assert operations >= crash_at
        return True
    else:
        return False
    finally:
        disk.hook = None


async def outcome_of(machine: Machine, disk: SimulatedDisk) -> str:
    """Start the node, and complete the recovery if it asks for that; return what it found."""
    machine.disk = disk
    generation = (await read_identity(disk, DATA)).quorum_generation
    outcome = "new" if generation == 2 else "old"
    log = {n: disk.content(f"{META}/{n}") for n in await disk.list(META) if n.endswith(LOG)}
    try:
        await machine.start()
    except ConfigError as error:
        outcome = "cut short" if "Run it again" in str(error) else str(error)
        assert (outcome, generation) == ("cut short", 1)
        assert log == {
            n: disk.content(f"{META}/{n}") for n in await disk.list(META) if n.endswith(LOG)
        }, "nothing of the log was reset"
        machine.kill()
        found = await read(machine)
        assert found.begun is not None
        assert list(found.image.topic_ids) == ["t"]
        await recover.carry_out(disk, found, plan(found, LOST))
        await machine.start()
    if outcome != "old":
        await machine.world.controller(machine)
        assert machine.server.raft.peers.history.quorum_generation == 2
    await machine.world.until(lambda: machine.server.image.offset > 0)
    machine.kill()
    return outcome
