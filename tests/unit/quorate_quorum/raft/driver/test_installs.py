"""A voter that was away too long goes on by a snapshot: downloaded, installed, applied."""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from quorate.errors import OverloadedError, QuorateError, StoppingError, raise_if_error
from quorate.net.methods import DELETE_TOPICS
from quorate.net.principal import ANONYMOUS
from quorate.v1 import admin_pb2
from quorate_quorum.client.client import QuorumClient
from quorate_quorum.metadata.delta import MetadataDelta
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.node.config import BrokerConfig
from quorate_quorum.node.environment import Environment
from quorate_quorum.node.server import NodeFailed
from quorate_quorum.raft.driver.bootstrap import metadata_directory
from quorate_quorum.snapshots import file as files
from quorate_quorum.snapshots.file import SnapshotId
from quorate_quorum.v1.events_pb2 import Config, Feature, MetadataEvent, SnapshotStart
from quorate_testing.simulated.disk import SimulatedDisk
from tests.harness.fake_broker import FakeBroker
from tests.unit.quorate_quorum.builders import CLUSTER, DATA, Machine, VoterWorld, in_a_world
from tests.unit.quorate_quorum.raft.driver.builders import SMALL, agree, start_all, take, write


def test_a_voter_long_away_installs_while_writes_go_on() -> None:
    """The leader's log begins above what it has; it takes part again, after a restart too."""

    async def program(world: VoterWorld) -> None:
        await start_all(world)
        await write(world, 5)
        away = world.voters[0]
        await away.run(away.server.stop())
        leader = await world.controller(*world.voters[1:])
        for _ in range(3):
            await write(world, 30, *world.voters[1:])
            snapshot = await take(leader)
        assert 0 < leader.server.raft.log_start_offset <= snapshot.offset
        writing = asyncio.create_task(write(world, 60, *world.voters[1:]))
        await away.start(**SMALL)
        assert away.server.raft.log_start_offset == 0
        await world.until(lambda: away.server.raft.log_start_offset > 0)
        assert away.server.raft.snapshot == snapshot
        await writing
        await agree(world)
        held = await files.list_snapshots(away.disk, metadata_directory(DATA))
        assert held == [snapshot]

        await away.run(away.server.stop())
        await away.start(**SMALL)
        await leader.run(leader.server.stop())
        await write(world, 3, *(v for v in world.voters if v is not leader))
        await agree(world, *(v for v in world.voters if v is not leader))

    in_a_world(program)


async def apart(world: VoterWorld, **settings: Any) -> tuple[Machine, Machine, SnapshotId]:
    """Return a voter that is down, the leader of the others, and the snapshot that it needs."""
    await start_all(world, **settings)
    await write(world, 5)
    away = world.voters[0]
    await away.run(away.server.stop())
    others = world.voters[1:]
    leader = await world.controller(*others)
    while leader.server.raft.log_start_offset == 0:
        await write(world, 20, *others)
        await agree(world, *others)
        for voter in others:
            await take(voter)
    snapshot = leader.server.raft.snapshot
    assert snapshot is not None
    assert [voter.server.raft.snapshot for voter in others] == [snapshot] * 2
    return away, leader, snapshot


def asked_of(machine: Machine, each_s: float = 0.01) -> list[tuple[SnapshotId, int]]:
    """Return the chunks that a voter is asked for from now on; it takes its time for each."""
    asked: list[tuple[SnapshotId, int]] = []
    raft = machine.server.raft
    read = raft.answers.read_snapshot

    async def noted(snapshot: SnapshotId, position: int, bytes_max: int) -> tuple[int, bytes]:
        asked.append((snapshot, position))
        await asyncio.sleep(each_s)
        return await read(snapshot, position, bytes_max)

    raft.answers.read_snapshot = noted  # type: ignore[method-assign]
    return asked


def test_when_the_leader_dies_the_next_one_sends_the_rest() -> None:
    """The file of every voter is the same, so nothing is fetched twice."""

    async def program(world: VoterWorld) -> None:
        away, leader, snapshot = await apart(world)
        other = next(v for v in world.voters if v not in (away, leader))
        first, second = asked_of(leader), asked_of(other)
        await away.start(**SMALL)
        await world.until(lambda: len(first) >= 3)
        leader.kill()
        await world.until(lambda: away.server.raft.snapshot == snapshot)
        positions = [position for _, position in first + second]
        assert positions == sorted(positions)
        assert second[0][1] >= first[-1][1] > 0
        await leader.start(**SMALL)
        await write(world, 2)
        await agree(world)

    in_a_world(program)


def test_a_newer_snapshot_in_the_middle_of_a_download_replaces_it() -> None:
    """Two snapshots quickly; the older one is gone from the leader's disk besides."""

    async def program(world: VoterWorld) -> None:
        away, leader, snapshot = await apart(world)
        asked = asked_of(leader, 0.1)
        await away.start(**SMALL)
        await world.until(lambda: len(asked) >= 2)
        for _ in range(2):
            await write(world, 10, *world.voters[1:])
            newer = await take(leader)
        await world.until(lambda: away.server.raft.log_start_offset > 0)
        assert away.server.raft.snapshot == newer > snapshot
        await agree(world)
        names = await away.disk.list(metadata_directory(DATA))
        assert [name for name in names if ".snapshot" in name] == [files.file_name(newer)]

    in_a_world(program)


def test_it_fetches_and_votes_while_it_downloads() -> None:
    """A download that lasts many fetch timeouts costs no election, and leaves no leader alone."""

    async def program(world: VoterWorld) -> None:
        away, leader, snapshot = await apart(world)
        other = next(v for v in world.voters if v not in (away, leader))
        epoch = leader.server.raft.epoch
        asked_of(leader, 1.5)
        await away.start(**SMALL)
        await asyncio.sleep(1)
        other.kill()  # from here on check-quorum hangs on the one that downloads
        waited = await world.until(lambda: away.server.raft.snapshot == snapshot)
        assert waited > 3, "several fetch timeouts"
        assert (leader.server.is_controller, leader.server.raft.epoch) == (True, epoch)
        await write(world, 2, leader)
        await agree(world, away, leader)

    in_a_world(program)


@pytest.mark.parametrize("kind", ["cut", "longer", "lies", "rotten", "missing"])
def test_what_a_leader_sends_is_believed_only_whole(kind: str) -> None:
    """Chunks that do not fit, a size that lies, a rotten file: refused, and tried again."""

    async def program(world: VoterWorld) -> None:
        away, leader, needed = await apart(world)
        raft = leader.server.raft
        read = raft.answers.read_snapshot
        sent: list[int] = []

        async def wrong(snapshot: SnapshotId, position: int, bytes_max: int) -> tuple[int, bytes]:
            size, chunk = await read(snapshot, position, bytes_max)
            sent.append(position)
            match kind:
                case "cut":
                    return size, b""
                case "longer":
                    return size, chunk * 2
                case "lies":
                    return size - position, chunk
                case "rotten":
                    return size, bytes(byte ^ (position > 0) for byte in chunk)
                case _:
                    raise OverloadedError("no time")

        raft.answers.read_snapshot = wrong  # type: ignore[method-assign]
        await away.start(**SMALL)
        await asyncio.sleep(10)
        assert len(sent) > 2, "it is tried again"
        assert len(sent) < 200, "but not without a pause"
        assert away.server.raft.snapshot is None
        held = await files.list_snapshots(away.disk, metadata_directory(DATA))
        assert held == []
        raft.answers.read_snapshot = read  # type: ignore[method-assign]
        await world.until(lambda: away.server.raft.snapshot == needed)
        await agree(world)

    in_a_world(program)


def test_a_whole_snapshot_that_names_no_voters_gets_no_name() -> None:
    """Or the next start would find it, and could not begin."""

    async def program(world: VoterWorld) -> None:
        away, leader, needed = await apart(world)
        raft = leader.server.raft
        forger = SimulatedDisk(random.Random(1))
        await forger.make_directory(DATA)
        start = SnapshotStart(
            version=1,
            offset=needed.offset,
            epoch=needed.epoch,
            cluster_id=CLUSTER,
            quorum_generation=1,
            bootstrap_hash=raft.peers.history.bootstrap_hash,
        )
        event = MetadataEvent(config=Config(name="n", value="v"))
        await files.write_snapshot(forger, DATA, start, [event] * 2)
        content = forger.content(files.path_of(DATA, needed))

        async def forged(snapshot: SnapshotId, position: int, bytes_max: int) -> tuple[int, bytes]:
            return len(content), content[position : position + bytes_max]

        honest, raft.answers.read_snapshot = raft.answers.read_snapshot, forged  # type: ignore[method-assign]
        await away.start(**SMALL)
        await asyncio.sleep(5)
        assert away.server.raft.snapshot is None
        await away.run(away.server.stop())
        await away.start(**SMALL)
        raft.answers.read_snapshot = honest  # type: ignore[method-assign]
        await world.until(lambda: away.server.raft.snapshot == needed)
        await agree(world)

    in_a_world(program)


def test_a_full_disk_downloads_nothing_and_the_voter_goes_on_when_there_is_room() -> None:
    async def program(world: VoterWorld) -> None:
        away, _, snapshot = await apart(world)
        await away.start(**SMALL)
        away.disk.fill(150)
        await asyncio.sleep(10)
        assert away.server.raft.snapshot is None
        away.disk.mend()
        await world.until(lambda: away.server.raft.snapshot == snapshot)
        await agree(world)

    in_a_world(program)


def test_a_sync_that_fails_under_a_download_stops_the_voter() -> None:
    """And what it had fetched is swept away at the next start."""

    async def program(world: VoterWorld) -> None:
        away, _, snapshot = await apart(world)

        def fail(operation: str, path: str) -> None:
            if operation == "sync" and path.endswith(files.FETCHED_SUFFIX):
                away.disk.fail_next_sync()
                away.disk.hook = None

        away.disk.hook = fail
        await away.start(**SMALL)
        with pytest.raises(NodeFailed, match="raft download"):
            await away.run(away.server.stopped())
        await away.start(**SMALL)
        await world.until(lambda: away.server.raft.snapshot == snapshot)
        await agree(world)

    in_a_world(program)


def test_a_program_that_does_not_know_the_level_of_a_snapshot_stops_and_names_both() -> None:
    async def program(world: VoterWorld) -> None:
        away, leader, _ = await apart(world)
        raft = leader.server.raft
        event = MetadataEvent(feature=Feature(name="metadata.version", level=99))
        leader.server._rooms.controller._loader._known = None  # type: ignore[union-attr]
        others = [v for v in world.voters if v not in (away, leader)]
        for other in others:
            other.server._rooms.controller._loader._known = None  # type: ignore[union-attr]
        leader.process.context().run(raft.propose, raft.epoch, [event])
        await world.until(lambda: leader.server.image.features["metadata.version"] == 99)
        await take(leader)
        await away.start(**SMALL)
        with pytest.raises(NodeFailed, match=r"level 99.*(knows|1)"):
            await away.run(away.server.stopped())

    in_a_world(program)


async def forward(world: VoterWorld, broker: FakeBroker, request: Any) -> None:
    """Ask through a broker, until it is done."""
    process = world.loop.process(f"b{broker.node_id}")
    while True:
        work = broker.client.forward(DELETE_TOPICS, request, principal=ANONYMOUS, timeout_ms=5000)
        try:
            answer = await process.spawn(work)
            raise_if_error(answer.topics[0].error)
        except QuorateError:
            await asyncio.sleep(0.1)
        else:
            return


def test_a_broker_below_the_log_gets_the_snapshot_and_learns_what_was_deleted_in_between() -> None:
    """And one that starts from nothing gets the same image."""

    async def program(world: VoterWorld) -> None:
        await start_all(world)
        near, far = await world.broker(1), await world.broker(2)
        await world.create(near, "gone")
        await world.create(near, "kept")
        await world.until(lambda: sorted(far.client.image.topic_ids) == ["gone", "kept"])
        removed: list[str] = []

        def changed(delta: MetadataDelta, image: MetadataImage) -> None:
            removed.extend(topic.name for topic in delta.topics.removed)

        far.image_changed = changed  # type: ignore[method-assign]
        world.network.cut(["b2"], [voter.name for voter in world.voters])
        await forward(world, near, admin_pb2.DeleteTopicsRequest(topics=["gone"]))
        while any(v.server.raft.log_start_offset <= far.client.image.offset for v in world.voters):
            await write(world, 10)
            await agree(world)
            for voter in world.voters:
                await take(voter)
        assert removed == []
        world.network.heal()
        await world.until(lambda: removed == ["gone"])
        fresh = await world.broker(3)
        image = world.voters[0].server.image
        brokers = (near, far, fresh)
        await world.until(lambda: all(b.client.image.offset >= image.offset for b in brokers))
        for broker in brokers:
            assert sorted(broker.client.image.topic_ids) == ["kept"]
            assert dict(broker.client.image.configs) == dict(image.configs)

    in_a_world(program)


def test_a_broker_that_watches_a_voter_which_installs_jumps_with_it() -> None:
    """The voter's log begins above what the broker has, and never held what lies between."""

    async def program(world: VoterWorld) -> None:
        await start_all(world)
        leader = await world.controller()
        away = next(voter for voter in world.voters if voter is not leader)
        others = [voter for voter in world.voters if voter is not away]
        near = await world.broker(1)
        await world.create(near, "gone")
        process = world.loop.process("b2")
        environment = Environment(
            network=world.network.host(process.name),
            disk=None,  # type: ignore[arg-type]
            chance=random.Random(2),
        )
        config = BrokerConfig(
            node_id=2,
            listeners=("b2:9092",),
            log_dirs=("/data",),
            quorum_bootstrap_servers=(away.endpoint,),
        )
        client = QuorumClient(config, environment, cluster_id=CLUSTER, fail=lambda _: None)
        await process.spawn(client.start())
        await world.until(lambda: sorted(client.image.topic_ids) == ["gone"])
        world.network.cut([away.name], [voter.name for voter in others])
        await forward(world, near, admin_pb2.DeleteTopicsRequest(topics=["gone"]))
        while any(v.server.raft.log_start_offset <= client.image.offset for v in others):
            await write(world, 10, *others)
            await agree(world, *others)
            for voter in others:
                await take(voter)
        world.network.heal()
        await agree(world)
        assert away.server.raft.log_start_offset > 0
        await world.until(lambda: client.image.offset >= away.server.image.offset)
        assert sorted(client.image.topic_ids) == []
        assert dict(client.image.configs) == dict(away.server.image.configs)
        await process.spawn(client.stop())

    in_a_world(program)


# --- taking -------------------------------------------------------------------------------------


def test_voters_take_snapshots_by_themselves_and_cut_their_logs() -> None:
    """Each for itself, after so many bytes; they come to the same ones."""

    async def program(world: VoterWorld) -> None:
        await start_all(world, metadata_log_max_record_bytes_between_snapshots=1000)
        await write(world, 40)
        await agree(world)
        await asyncio.sleep(1)
        taken = [voter.server.raft.snapshot for voter in world.voters]
        assert None not in taken
        assert len(set(taken)) == 1
        assert all(voter.server.raft.log_start_offset > 0 for voter in world.voters)
        held = await files.list_snapshots(world.voters[0].disk, metadata_directory(DATA))
        assert len(held) == 1

    in_a_world(program)


def test_a_voter_takes_a_snapshot_after_the_interval_if_anything_was_committed() -> None:
    async def program(world: VoterWorld) -> None:
        await start_all(world, metadata_log_max_snapshot_interval_ms=5000)
        await write(world, 1)
        await asyncio.sleep(6)
        taken = [voter.server.raft.snapshot for voter in world.voters]
        assert None not in taken
        await asyncio.sleep(12)
        assert [voter.server.raft.snapshot for voter in world.voters] == taken

    in_a_world(program)


def test_a_snapshot_taken_while_writes_go_on_cuts_nothing_above_it() -> None:
    """The segment that was closed for it may reach beyond its offset."""

    async def program(world: VoterWorld) -> None:
        await start_all(world)
        leader = await world.controller()
        for _ in range(5):
            image = leader.server.image
            await write(world, 10)  # more is committed and applied before it is written
            raft = leader.server.raft
            taken = raft.taker.take(image.offset, image.epoch, image.to_events())
            await leader.run(taken)
            assert leader.server.raft.log_start_offset <= image.offset
        assert leader.server.raft.log_start_offset > 0
        await agree(world)

    in_a_world(program)


def test_a_stop_in_the_middle_of_a_snapshot_is_a_clean_one() -> None:
    """The log is not interrupted half way, at whatever moment the stop comes."""

    async def taken(voter: Machine) -> None:
        with contextlib.suppress(StoppingError):
            await voter.server.take_snapshot()

    async def program(world: VoterWorld, after_s: float) -> None:
        voter = world.voters[0]
        await voter.start(**SMALL)
        await write(world, 10)
        taking = voter.process.spawn(taken(voter))
        await asyncio.sleep(after_s)
        await voter.run(voter.server.stop())
        await voter.run(voter.server.stopped())
        await asyncio.wait([taking])
        await voter.start(**SMALL)
        await write(world, 1)

    for step in range(30):
        in_a_world(partial(program, after_s=step * 0.0007), voters=1)


def test_a_full_disk_at_any_step_of_a_snapshot_stops_nobody() -> None:
    """Neither while it is written, nor when the log is cut with what little room is left."""
    outcomes: list[bool] = []

    async def program(world: VoterWorld, room: int) -> None:
        voter = world.voters[0]
        await voter.start(**SMALL)
        await write(world, 10)
        await take(voter)
        await write(world, 10)
        voter.disk.fill(room)
        try:
            await take(voter)
            outcomes.append(True)
        except OverloadedError:
            outcomes.append(False)
        voter.disk.mend()
        await write(world, 3)
        assert await take(voter) == voter.server.raft.snapshot
        await voter.run(voter.server.stop())
        await voter.start(**SMALL)
        await write(world, 1)

    for room in range(0, 1400, 23):
        in_a_world(partial(program, room=room), voters=1)
    assert outcomes == sorted(outcomes), "with more room it has come further"
    assert outcomes[0] != outcomes[-1]


def test_a_slow_wire_is_asked_for_less_until_it_can_carry_it() -> None:
    """Else every chunk would run into its timeout, and the download never end."""

    async def program(world: VoterWorld) -> None:
        away, leader, snapshot = await apart(world)
        asked = asked_of(leader, 0)
        for voter in world.voters:
            world.network.set_links([voter.name], [away.name], bytes_per_s=150)
        await away.start(**SMALL | {"quorum_fetch_snapshot_max_bytes": 1 << 20})
        await world.until(lambda: away.server.raft.snapshot == snapshot, seconds=60)
        assert len(asked) > 3
        world.network.set_links(bytes_per_s=None)
        await agree(world)

    in_a_world(program)


def test_a_disk_that_joined_later_takes_the_same_snapshot_as_the_others() -> None:
    """It has learnt the bootstrap batch's hash from the log, or from a snapshot."""

    async def program(world: VoterWorld) -> None:
        away, leader, _ = await apart(world)
        await away.start(**SMALL)
        raft = away.server.raft
        raft.peers.history = replace(raft.peers.history, bootstrap_hash=b"")
        await agree(world)
        assert raft.peers.history == leader.server.raft.peers.history, "from the snapshot"
        await write(world, 1)
        await agree(world)
        contents = []
        for voter in (away, leader):
            path = files.path_of(metadata_directory(DATA), await take(voter))
            contents.append(voter.disk.content(path))
        assert contents[0] == contents[1]

    in_a_world(program)

    async def from_the_log(world: VoterWorld) -> None:
        await start_all(world)
        await write(world, 3)
        one = world.voters[0].server.raft
        one.peers.history = replace(one.peers.history, bootstrap_hash=b"")
        await take(world.voters[0])
        assert one.peers.history == world.voters[1].server.raft.peers.history

    in_a_world(from_the_log)


@pytest.mark.parametrize("at", range(1, 6))
def test_a_sync_that_fails_under_a_snapshot_stops_the_voter(at: int) -> None:
    """Of the log before it, of the file, or of the closed segment; nothing is lost."""

    async def program(world: VoterWorld) -> None:
        voter = world.voters[0]
        await voter.start(**SMALL)
        await write(world, 10)
        syncs = 0

        def fail(operation: str, path: str) -> None:
            nonlocal syncs
            syncs += operation == "sync"
            if syncs == at:
                voter.disk.fail_next_sync()

        voter.disk.hook = fail
        with contextlib.suppress(
            QuorateError
        ):  # a snapshot is taken before the log below it is cut
            await take(voter)
        if syncs >= at:
            with pytest.raises(NodeFailed):
                await voter.run(voter.server.stopped())
            voter.disk.hook = None
            voter.disk.mend()
            await voter.start(**SMALL)
        voter.disk.hook = None
        await write(world, 3)
        assert len(voter.server.image.configs) == 5

    in_a_world(program, voters=1)
