"""Snapshots of a voter: taken, kept, handed out in chunks."""

from __future__ import annotations

from contextlib import aclosing

import pytest

from quorate.errors import InvalidRequestError, OverloadedError, StorageError
from quorate.v1.common_pb2 import ErrorCode
from quorate_quorum.log.events import decode_events
from quorate_quorum.methods import FETCH_SNAPSHOT
from quorate_quorum.raft.driver.bootstrap import metadata_directory
from quorate_quorum.raft.driver.wire import to_history
from quorate_quorum.snapshots import file as files
from quorate_quorum.snapshots.file import SnapshotId
from quorate_quorum.v1 import raft_pb2
from quorate_testing.simulated.disk import SimulatedDisk
from tests.unit.quorate_quorum.builders import CLUSTER, DATA, Machine, VoterWorld, in_a_world


async def taken(machine: Machine) -> SnapshotId:
    snapshot: SnapshotId = await machine.run(machine.server.take_snapshot())
    return snapshot


def test_a_voter_takes_a_snapshot_of_what_is_committed_and_keeps_the_newest() -> None:
    """What is in a snapshot is committed, and a second one of the same image is not written."""

    async def program(world: VoterWorld) -> None:
        await world.start()
        leader = await world.controller()
        first = await taken(leader)
        assert await taken(leader) == first
        image = leader.server.image
        assert first == SnapshotId(image.offset, image.epoch)
        async with aclosing(leader.server.raft.snapshots.parts(first)) as parts:
            events = [event async for part in parts for event in decode_events(part)]
        assert events == list(image.to_events())

        await leader.run(leader.server.stop())
        await leader.start()
        assert leader.server.raft.snapshot == first
        await world.until(lambda: leader.server.image.offset > first.offset)
        second = await taken(leader)
        assert second > first
        held = await files.list_snapshots(leader.disk, metadata_directory(DATA))
        assert held == [second]

    in_a_world(program)


def test_a_snapshot_of_what_is_not_applied_or_of_another_epoch_is_refused() -> None:
    async def program(world: VoterWorld) -> None:
        await world.start()
        leader = await world.controller()
        raft, image = leader.server.raft, leader.server.image
        wrong = [(image.offset + 1, image.epoch), (image.offset, image.epoch + 1), (0, -1)]
        for offset, epoch in wrong:
            with pytest.raises(InvalidRequestError, match="applied here"):
                await leader.run(raft.taker.take(offset, epoch, image.to_events()))
        assert raft.snapshot is None

    in_a_world(program)


def test_voters_of_one_image_hold_the_same_bytes() -> None:
    """A download that began at one leader goes on at the next."""

    async def program(world: VoterWorld) -> None:
        await world.start()
        leader = await world.controller()
        end = leader.server.image.offset
        await world.until(lambda: all(v.server.image.offset == end for v in world.voters))
        contents = []
        for voter in world.voters:
            snapshot = await taken(voter)
            contents.append(voter.disk.content(files.path_of(metadata_directory(DATA), snapshot)))
        assert contents[0] == contents[1] == contents[2]

    in_a_world(program)


def test_chunks_are_handed_out_and_hostile_requests_refused() -> None:
    """Unknown id, stale or future epoch, positions and sizes that are none."""

    async def program(world: VoterWorld) -> None:
        await world.start()
        leader = await world.controller()
        snapshot = await taken(leader)
        raft = leader.server.raft
        path = files.path_of(metadata_directory(DATA), snapshot)
        content = leader.disk.content(path)
        connection = world.network.host("client").connect(leader.endpoint, purpose="control")

        async def ask(
            *,
            epoch: int = raft.epoch,
            wanted: SnapshotId = snapshot,
            position: int = 0,
            max_bytes: int = 100,
            generation: int = 1,
            cluster_id: str = CLUSTER,
        ) -> raft_pb2.FetchSnapshotResponse:
            history = to_history(raft.peers.history)
            history.quorum_generation, history.cluster_id = generation, cluster_id
            return await connection.unary(
                FETCH_SNAPSHOT,
                raft_pb2.FetchSnapshotRequest(
                    history=history,
                    epoch=epoch,
                    snapshot=raft_pb2.SnapshotId(offset=wanted.offset, epoch=wanted.epoch),
                    position=position,
                    max_bytes=max_bytes,
                ),
                timeout_ms=1000,
            )

        got = b""
        while len(got) < len(content):
            answer = await ask(position=len(got), max_bytes=97)
            assert (answer.error.code, answer.position) == (0, len(got))
            assert (answer.size, len(answer.chunk) <= 97) == (len(content), True)
            got += answer.chunk
        assert got == content
        assert (await ask(max_bytes=2**32 - 1)).chunk == content

        invalid = ErrorCode.ERROR_CODE_INVALID_REQUEST
        for position in (-1, len(content), len(content) + 1, 2**63 - 1):
            assert (await ask(position=position)).error.code == invalid, position
        assert (await ask(max_bytes=0)).error.code == invalid
        missing = ErrorCode.ERROR_CODE_SNAPSHOT_NOT_FOUND
        for other in (
            SnapshotId(snapshot.offset + 1, snapshot.epoch),
            SnapshotId(snapshot.offset, snapshot.epoch + 1),
            SnapshotId(-1, -1),
            SnapshotId(2**63 - 1, 2**31 - 1),
        ):
            assert (await ask(wanted=other)).error.code == missing, other
        fenced = ErrorCode.ERROR_CODE_FENCED_LEADER_EPOCH
        assert (await ask(epoch=raft.epoch - 1)).error.code == fenced
        assert (await ask(epoch=raft.epoch + 1)).error.code == ErrorCode.ERROR_CODE_NOT_CONTROLLER
        stranger = ErrorCode.ERROR_CODE_WRONG_CLUSTER
        assert (await ask(generation=2)).error.code == stranger
        assert (await ask(cluster_id="c2")).error.code == stranger
        assert leader.server.is_controller
        await connection.close()

    in_a_world(program)


def test_a_full_disk_takes_no_snapshot_and_the_voter_goes_on() -> None:
    async def program(world: VoterWorld) -> None:
        await world.start()
        leader = await world.controller()
        leader.disk.fill(10)
        with pytest.raises(OverloadedError, match="no room"):
            await taken(leader)
        assert leader.server.raft.snapshot is None
        assert leader.server.is_controller

    in_a_world(program)


def test_a_damaged_snapshot_stops_the_start_with_a_clear_word() -> None:
    """And a half-written one is swept away."""

    async def program(world: VoterWorld) -> None:
        await world.start()
        voter = await world.controller()
        snapshot = await taken(voter)
        await voter.run(voter.server.stop())
        path = files.path_of(metadata_directory(DATA), snapshot)
        part = path + ".part"
        await voter.disk.open(part, create=True)
        content = bytearray(voter.disk.content(path))
        content[-1] ^= 1
        voter.disk.put(path, bytes(content))
        with pytest.raises(StorageError, match="compare the disk"):
            await voter.start()
        assert not await voter.disk.exists(part)

    in_a_world(program)


async def copied(disk: SimulatedDisk, source: Machine, snapshot: SnapshotId) -> None:
    path = files.path_of(metadata_directory(DATA), snapshot)
    await disk.open(path, create=True)
    disk.put(path, source.disk.content(path))
    await disk.sync_directory(metadata_directory(DATA))


def test_a_run_begins_with_the_snapshot_and_goes_on_by_the_log() -> None:
    async def program(world: VoterWorld) -> None:
        await world.start()
        leader = await world.controller()
        await taken(leader)
        await leader.run(leader.server.stop())
        other = await world.controller(*(v for v in world.voters if v is not leader))
        await leader.start()
        await world.until(lambda: leader.server.image.offset == other.server.image.offset)
        assert list(leader.server.image.to_events()) == list(other.server.image.to_events())

    in_a_world(program)


def test_a_log_that_ends_below_the_snapshot_begins_anew_at_it() -> None:
    """A crash between a snapshot's name and the log's reset: the start completes it.

    Without the rule the voter would serve and count a log with a hole.
    """

    async def program(world: VoterWorld) -> None:
        await world.start()
        away = world.voters[0]
        await away.run(away.server.stop())
        leader = await world.controller(*world.voters[1:])
        snapshot = await taken(leader)
        await copied(away.disk, leader, snapshot)

        await away.start()
        raft = away.server.raft
        assert (raft.log_start_offset, raft.snapshot) == (snapshot.offset, snapshot)
        assert raft.peers.history == leader.server.raft.peers.history, (
            "the snapshot tells the bootstrap hash"
        )
        await world.until(lambda: away.server.image.offset == leader.server.image.offset)
        assert list(away.server.image.to_events()) == list(leader.server.image.to_events())

        await leader.run(leader.server.stop())
        await world.controller(*(v for v in world.voters if v is not leader))
        await away.run(away.server.stop())
        await away.start()
        assert away.server.raft.log_start_offset == snapshot.offset

    in_a_world(program)


def test_a_log_above_zero_without_its_snapshot_does_not_start() -> None:
    """The rule of safety: what is not in the log any more is in a snapshot."""

    async def program(world: VoterWorld) -> None:
        await world.start()
        away = world.voters[0]
        await away.run(away.server.stop())
        leader = await world.controller(*world.voters[1:])
        snapshot = await taken(leader)
        await copied(away.disk, leader, snapshot)
        await away.start()
        await away.run(away.server.stop())
        await away.disk.remove(files.path_of(metadata_directory(DATA), snapshot))
        with pytest.raises(StorageError, match="no snapshot is there"):
            await away.start()

    in_a_world(program)


def test_a_snapshot_cuts_a_log_of_one_segment_too() -> None:
    """The active segment is closed first, or nothing below could go before it is full."""

    async def program(world: VoterWorld) -> None:
        await world.start()
        leader = await world.controller()
        snapshot = await taken(leader)
        assert leader.server.raft.log_start_offset == snapshot.offset

    in_a_world(program)
