"""A voter dies at each operation of its disk while it installs a snapshot, or takes one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

import pytest
import structlog

from quorate_quorum.raft.driver.bootstrap import metadata_directory
from quorate_quorum.snapshots import file as files
from quorate_quorum.v1.events_pb2 import Config, MetadataEvent
from tests.harness.quorum_snapshots import is_whole
from tests.unit.quorate_quorum.builders import DATA, Machine, VoterWorld, in_a_world
from tests.unit.quorate_quorum.raft.driver.builders import SMALL, agree, start_all, take, write

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(300)]

KINDS = ("kill", "power")
#: More operations than an install or a snapshot has.
OPERATIONS_MAX = 200


@pytest.fixture(autouse=True)
def quiet() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


class Crash:
    """Ends a machine as the n-th operation begins, counted from the first that `begins`."""

    def __init__(self, machine: Machine, at: int, kind: str, begins: Callable[[str], bool]) -> None:
        self.machine, self.at, self.kind, self.begins = machine, at, kind, begins
        self.count = 0
        self.happened = asyncio.Event()
        machine.disk.hook = self.operation

    def operation(self, name: str, path: str) -> None:
        if not self.count and not self.begins(path):
            return
        self.count += 1
        if self.count != self.at:
            return
        self.machine.disk.hook = None
        self.machine.process.kill()
        if self.kind == "kill":
            self.machine.disk.crash_process()
        else:
            self.machine.disk.lose_power()
        self.happened.set()

    async def is_over(self, done: Callable[[], bool]) -> bool:
        """Wait until the crash has happened, or `done`; return whether it has happened."""
        while not self.happened.is_set() and not done():  # noqa: ASYNC110  # virtual time
            await asyncio.sleep(0.005)
        self.machine.disk.hook = None
        return self.happened.is_set()


def check_disk(machine: Machine) -> None:
    """Check, on the disk itself, that a whole snapshot holds all that lies below the log."""
    found = {
        path.rpartition("/")[2]: path
        for path, _ in machine.disk.files()
        if path.startswith(metadata_directory(DATA))
    }
    bases = [int(name.removesuffix(".log")) for name in found if name.endswith(".log")]
    whole = [
        snapshot.offset
        for name, path in found.items()
        if (snapshot := files.id_of(name)) and is_whole(machine.disk.content(path))
    ]
    start = min(bases, default=0)
    assert start == 0 or max(whole, default=0) >= start, (start, whole)


async def with_a_tail(world: VoterWorld, away: Machine) -> None:
    """Let that voter lead, then append records, cut off, that the others never get."""
    others = [v.name for v in world.voters if v is not away]
    while not away.server.is_controller:
        leader = await world.controller()
        leader.process.context().run(partial(leader.server.raft.hand_over, for_silence=False))
        await asyncio.sleep(0.5)
    world.network.cut([away.name], others)
    raft = away.server.raft
    for number in range(60):
        event = MetadataEvent(config=Config(name=f"lost.{number}", value="lost" * 10))
        away.process.context().run(raft.propose, raft.epoch, [event])
    await asyncio.sleep(0.1)
    away.kill()
    world.network.heal()


async def install(world: VoterWorld, *, at: int, kind: str, has_tail: bool) -> bool:
    """Return whether the voter died in its install. In any case it has recovered afterwards."""
    await start_all(world)
    await write(world, 3)
    away = world.voters[0]
    if has_tail:
        await with_a_tail(world, away)
    else:
        away.kill()
    others = world.voters[1:]
    while True:
        await write(world, 10, *others)
        leader = await world.controller(*others)
        await take(leader)
        if leader.server.raft.log_start_offset > 0:
            break
    crash = Crash(away, at, kind, lambda path: path.endswith(files.FETCHED_SUFFIX))
    await away.start(**SMALL)

    def is_installed() -> bool:
        return away.server.image.offset >= leader.server.raft.high_watermark

    happened = await crash.is_over(is_installed)
    check_disk(away)
    if happened:
        await away.start(**SMALL)
    await write(world, 2)
    await agree(world)
    check_disk(away)
    assert "lost.59" not in away.server.image.configs  # the first ones may be on the wire
    names = await away.disk.list(metadata_directory(DATA))
    assert not [name for name in names if name.endswith(files.PART_SUFFIX)]
    # It counts again: with another voter gone it must hold all that is committed.
    await leader.run(leader.server.stop())
    rest = [v for v in world.voters if v is not leader]
    await write(world, 1, *rest)
    return happened


@pytest.mark.parametrize("has_tail", [False, True], ids=["prefix", "other-past"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_voter_dies_at_each_operation_of_an_install(kind: str, has_tail: bool) -> None:
    """No high watermark lies beyond the log, and nothing of the old log comes back."""
    for at in range(1, OPERATIONS_MAX):
        died: list[bool] = []

        async def program(world: VoterWorld, at: int = at, died: list[bool] = died) -> None:
            died.append(await install(world, at=at, kind=kind, has_tail=has_tail))

        in_a_world(program, seed=at)
        if not died[0]:
            break
    assert 10 < at < OPERATIONS_MAX - 1


async def taking(world: VoterWorld, *, at: int, kind: str) -> bool:
    """Return whether the voter died while it took its second snapshot, and cut its log."""
    (one,) = world.voters
    await one.start(**SMALL)
    await write(world, 10)
    first = await take(one)
    await write(world, 10)
    image = one.server.image
    crash = Crash(one, at, kind, lambda _: True)
    task = one.process.spawn(one.server.take_snapshot())
    happened = await crash.is_over(task.done)
    check_disk(one)
    if happened:
        held = await files.list_snapshots(one.disk, metadata_directory(DATA))
        assert held, "the newest is never removed before there is a newer one"
        assert held[-1] >= first
        await one.start(**SMALL)
    await world.until(lambda: one.server.image.offset >= image.offset)
    assert dict(one.server.image.configs.items()) == dict(image.configs.items())
    await write(world, 1)
    await take(one)
    check_disk(one)
    return happened


@pytest.mark.parametrize("kind", KINDS)
def test_a_voter_dies_at_each_operation_of_taking_a_snapshot(kind: str) -> None:
    """The log is cut only below a snapshot that is whole on disk."""
    for at in range(1, OPERATIONS_MAX):
        died: list[bool] = []

        async def program(world: VoterWorld, at: int = at, died: list[bool] = died) -> None:
            died.append(await taking(world, at=at, kind=kind))

        in_a_world(program, voters=1, seed=at)
        if not died[0]:
            break
    assert 10 < at < OPERATIONS_MAX - 1
