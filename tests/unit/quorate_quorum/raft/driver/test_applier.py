"""What the listener gets when snapshots are installed faster than it applies them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest

from quorate.errors import CorruptRecordError, StorageError
from quorate_quorum.raft.driver.applier import Applier
from quorate_quorum.raft.driver.batches import read_below
from quorate_quorum.raft.machine.events import Event
from quorate_quorum.raft.machine.ready import Ready
from quorate_quorum.snapshots import file as files
from quorate_quorum.snapshots.file import SnapshotId
from quorate_quorum.snapshots.store import Snapshots
from quorate_quorum.v1 import events_pb2 as ev
from quorate_testing.simulated.disk import SimulatedDisk
from quorate_testing.simulated.loop import simulate

DIRECTORY = "/log"
FIRST, SECOND = SnapshotId(10, 1), SnapshotId(20, 2)


class World:
    """Snapshots on a disk, and a listener that notes what it gets."""

    def __init__(self) -> None:
        self.disk = SimulatedDisk(random.Random(1))
        self.snapshots = Snapshots(self.disk, DIRECTORY)
        self.snapshot: SnapshotId | None = None
        self.told: list[object] = []
        self.at_part: list[SnapshotId] = []
        self.applier = Applier(self, self, self.snapshots, self)  # type: ignore[arg-type]

    @property
    def log_start_offset(self) -> int:
        return self.snapshot.offset if self.snapshot else 0

    async def write(self, snapshot: SnapshotId) -> None:
        if not await self.disk.exists(DIRECTORY):
            await self.disk.make_directory(DIRECTORY)
        start = ev.SnapshotStart(version=1, offset=snapshot.offset, epoch=snapshot.epoch)
        config = ev.Config(name="n", value="x" * 2 * files.BATCH_BYTES)
        events = [ev.MetadataEvent(config=config)] * 3
        await files.write_snapshot(self.disk, DIRECTORY, start, events)

    def install(self, snapshot: SnapshotId) -> None:
        self.snapshot = snapshot
        self.applier.proceed(Ready(readable_end=snapshot.offset))

    def step(self, event: Event) -> None:
        raise AssertionError(event)

    def snapshot_part(self, batches: bytes) -> None:
        self.told.append("part")
        if self.at_part:
            self.install(self.at_part.pop())

    def snapshot_end(self, offset: int, epoch: int) -> None:
        self.told.append(SnapshotId(offset, epoch))

    def committed(self, batches: Sequence[bytes], high_watermark: int) -> None:
        raise AssertionError("nothing but snapshots")


def run(program: Any) -> None:
    async def whole(_: object) -> None:
        world = World()
        await world.write(FIRST)
        await world.write(SECOND)
        running = asyncio.create_task(world.applier.run())
        await asyncio.sleep(0)
        await program(world)
        await asyncio.sleep(1)
        if running.done():
            running.result()
        running.cancel()

    simulate(whole, seed=1)


def test_a_snapshot_that_is_begun_is_passed_whole_before_a_newer_one() -> None:
    """The parts of two are never mixed."""

    async def program(world: World) -> None:
        world.at_part = [SECOND]
        world.install(FIRST)
        await asyncio.sleep(1)
        assert world.told == ["part", "part", "part", FIRST, "part", "part", "part", SECOND]
        assert world.applier.applied_end == SECOND.offset

    run(program)


def test_a_snapshot_that_a_newer_one_replaced_is_not_missed() -> None:
    async def program(world: World) -> None:
        await world.disk.remove(files.path_of(DIRECTORY, FIRST))
        parts = world.snapshots.parts

        def replaced(snapshot: SnapshotId) -> Any:
            world.install(SECOND)
            return parts(snapshot)

        world.snapshots.parts = replaced  # type: ignore[method-assign]
        world.install(FIRST)
        await asyncio.sleep(1)
        assert world.told == ["part", "part", "part", SECOND]

    run(program)


def test_a_snapshot_that_is_just_missing_ends_the_node() -> None:
    async def program(world: World) -> None:
        await world.disk.remove(files.path_of(DIRECTORY, FIRST))
        world.install(FIRST)

    with pytest.raises(Exception, match="no snapshot of offset 10"):
        run(program)


def test_what_lies_below_the_log_is_not_read_from_it() -> None:
    """A watcher reads while the log is cut; its next read gets the snapshot."""

    async def program(world: World) -> None:
        world.install(FIRST)
        assert await world.applier.read(5, 10, 1000) == b""

    run(program)


def test_a_snapshot_that_names_no_voters_is_none() -> None:
    """A node that loaded it would have no voters to count."""

    async def program(world: World) -> None:
        with pytest.raises(CorruptRecordError, match="names no voters"):
            await read_below(FIRST, world.snapshots.parts(FIRST))

    run(program)


def test_a_disk_that_fails_under_a_snapshot_is_told_as_a_failed_disk() -> None:
    async def program(world: World) -> None:
        opened = world.disk.open

        async def fail(path: str, *, create: bool = False) -> Any:
            await opened(path, create=create)
            raise OSError(5, "input/output error")

        world.disk.open = fail  # type: ignore[method-assign]
        with pytest.raises(StorageError, match="can't read snapshot"):
            async for _ in world.snapshots.parts(FIRST):
                pass

    run(program)
