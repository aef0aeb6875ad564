"""What each error of the operating system takes with it: a file, a replica, a disk, or time."""

from __future__ import annotations

import errno
import random
from collections.abc import AsyncIterator, Callable

import pytest

from quorate.errors import NotLeaderError, QuorateError, StorageError
from quorate.record.batch import BatchBuilder, BatchHeader, parse_header
from quorate_broker.files.replica_files import (
    DELETED,
    KEPT,
    NAME_BYTES_MAX,
    STRAY,
    name_on_the_way_out,
)
from quorate_broker.replica.replica import Failure
from quorate_quorum.log.disk import SyncError
from quorate_quorum.log.disk_errors import (
    TABLE,
    DiskFullError,
    ReopenError,
    Scope,
    TryAgainError,
    done_without,
    scope_of,
    storage_error,
)
from quorate_quorum.log.log import Log, LogConfig, LogCorruptError
from quorate_quorum.raft.driver.quorum_state import read_state
from quorate_quorum.raft.driver.storage import Storage
from quorate_quorum.raft.machine.events import HardStateSaved
from quorate_quorum.raft.machine.hard_state import HardState
from quorate_quorum.v1 import events_pb2 as ev
from quorate_testing.simulated.disk import Hook, SimulatedDisk
from tests.unit.quorate_broker.builders import TOPIC_ID, Broker, World, no_controller, until

PATH = "/data/t-0"
#: One errno of each scope, and the scope.
EXAMPLES = (
    (errno.EMFILE, Scope.PROCESS),
    (errno.ENFILE, Scope.PROCESS),
    (errno.ENOMEM, Scope.PROCESS),
    (errno.ENOSPC, Scope.ROOM),
    (errno.EDQUOT, Scope.ROOM),
    (errno.EFBIG, Scope.ROOM),
    (errno.ENAMETOOLONG, Scope.FILE),
    (errno.EACCES, Scope.FILE),
    (errno.EIO, Scope.DIRECTORY),
    (errno.EROFS, Scope.DIRECTORY),
)


def batch(offset: int, epoch: int = 1) -> tuple[BatchHeader, list[bytes]]:
    builder = BatchBuilder()
    builder.append(offset, b"key", b"value of %d" % offset)
    data = builder.build(base_offset=offset, leader_epoch=epoch)
    return parse_header(data), [data]


def test_every_error_of_a_sync_is_the_disks() -> None:
    for number in errno.errorcode:
        assert scope_of(SyncError(number, "for the test")) is Scope.DIRECTORY


class TestTable:
    @pytest.mark.parametrize(("number", "scope"), EXAMPLES)
    def test_an_errno_says_how_much_stops(self, number: int, scope: Scope) -> None:
        assert scope_of(OSError(number, "for the test")) is scope

    def test_what_nobody_listed_is_the_disks(self) -> None:
        assert scope_of(OSError("no errno")) is Scope.DIRECTORY
        for number in (set(errno.errorcode) - set(TABLE)) | {99_999}:
            assert scope_of(OSError(number, "for the test")) is Scope.DIRECTORY

    def test_only_the_disks_errors_are_bare_storage_errors(self) -> None:
        for number in errno.errorcode:
            error = OSError(number, "for the test")
            scope = scope_of(error)
            for nothing_done in (True, False):
                raised = storage_error("x", error, nothing_done=nothing_done)
                assert (type(raised) is StorageError) == (scope is Scope.DIRECTORY)
                assert isinstance(raised, TryAgainError) == (
                    nothing_done and scope in (Scope.ROOM, Scope.PROCESS)
                )

    def test_what_can_be_made_again_is_done_without_unless_the_disk_fails(self) -> None:
        for number, scope in EXAMPLES:
            if scope is Scope.DIRECTORY:
                with pytest.raises(OSError, match="for the test"), done_without("x", "/data"):
                    raise OSError(number, "for the test")
            else:
                with done_without("x", "/data"):
                    raise OSError(number, "for the test")


def failing(
    number: int, at: int, seen: list[str], operation: Callable[[str], bool] = lambda name: True
) -> Hook:
    """Return a hook that fails the operation of that number, and notes all."""

    def hook(name: str, path: str) -> None:
        if operation(name):
            seen.append(name)
            if len(seen) == at + 1:
                raise OSError(number, "for the test", path)

    return hook


async def life(disk: SimulatedDisk, appended: list[int], kept: list[int]) -> Log:
    """Use a log in every way; say what is in it for sure, as it goes."""
    log = await Log.open(disk, PATH, LogConfig(segment_bytes=250))
    for offset in range(6):
        await log.append([batch(offset)])
        appended.append(offset + 1)
    await log.checkpoint_high_watermark(3, 1)
    await log.sync()
    kept[:] = [4]
    await log.truncate(4)
    appended.append(4)
    for offset in range(4, 8):
        await log.append([batch(offset, epoch=2)])
        appended.append(offset + 1)
    await log.delete_segments_below(2)
    await log.read(3, end=8, bytes_max=99)
    await log.offset_for_time(5, end=8)
    await log.close(clean=True)
    return log


class TestLog:
    @pytest.mark.parametrize(("number", "scope"), EXAMPLES)
    async def test_only_the_disks_errors_end_in_a_bare_storage_error(
        self, number: int, scope: Scope
    ) -> None:
        """At every operation of a life in turn; and whatever was written is there afterwards."""
        at = 0
        while True:
            disk = SimulatedDisk(random.Random(at))
            await disk.make_directory("/data")
            seen: list[str] = []
            appended, kept = [0], [0]
            disk.hook = failing(number, at, seen)
            error: QuorateError | None = None
            try:
                await life(disk, appended, kept)
            except QuorateError as raised:
                error = raised
            disk.hook = None
            if len(seen) <= at:
                assert at > 100
                return
            where = f"{errno.errorcode[number]} at {at}: {seen[at]}"
            if scope is Scope.DIRECTORY or "sync" in seen[at]:
                assert error is None or type(error) is StorageError, where
            else:
                assert error is None or isinstance(error, TryAgainError | ReopenError), where
            disk.crash_process()  # whatever it held open
            again = await Log.open(disk, PATH, LogConfig(segment_bytes=250))
            ends = {appended[-1], appended[-1] + 1} if error is not None else {8}
            assert again.log_end_offset in ends | set(kept) | {6}, where
            await again.close(clean=False)
            at += 1

    async def test_bytes_that_are_no_batches_are_never_a_failed_disk(self) -> None:
        disk = SimulatedDisk(random.Random(1))
        await disk.make_directory("/data")
        log = await Log.open(disk, PATH, LogConfig(segment_bytes=250))
        for offset in range(8):
            await log.append([batch(offset)])
        await log.close(clean=True)
        for name in await disk.list(PATH):
            if name.endswith((".index", ".timeindex")):
                await disk.remove(f"{PATH}/{name}")
        log = await Log.open(disk, PATH, LogConfig(segment_bytes=250))
        disk.flip_bit(f"{PATH}/{0:020d}.log", 16, bit=5)
        with pytest.raises(LogCorruptError):
            await log.segments()
        await log.close(clean=False)

    async def test_a_log_is_opened_and_cut_on_a_full_disk(self) -> None:
        disk = SimulatedDisk(random.Random(1))
        await disk.make_directory("/data")
        log = await Log.open(disk, PATH, LogConfig(segment_bytes=400))
        for offset in range(9):
            await log.append([batch(offset, epoch=1 + offset // 5)])
        disk.fill(0)
        await log.truncate(7)
        with pytest.raises(DiskFullError):
            await log.append([batch(7, epoch=4)])
        disk.crash_process()
        log = await Log.open(disk, PATH, LogConfig(segment_bytes=400))
        assert (log.log_end_offset, log.last_epoch) == (7, 2)
        await log.sync()  # its mark of that needs room, and is only a lower bound
        assert log.synced_end == 7
        await log.close(clean=True)
        disk.lose_power()
        log = await Log.open(disk, PATH, LogConfig(segment_bytes=400))
        assert log.log_end_offset == 7
        disk.fill(None)
        await log.append([batch(7, epoch=4)])
        assert log.epochs.entries == [(1, 0), (2, 5), (4, 7)]
        await log.close(clean=True)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World(brokers=1)
    await world.start(min_isr=1)
    yield world
    world.brokers[1].disk.hook = None
    await world.stop()


@pytest.fixture
async def pair() -> AsyncIterator[World]:
    world = World(brokers=2)
    await world.start(min_isr=1)
    yield world
    await world.stop()


def opens_fail(broker: Broker, number: int) -> None:
    """Let nothing be opened any more."""

    def hook(name: str, path: str) -> None:
        if name == "open":
            raise OSError(number, "for the test", path)

    broker.disk.hook = hook


@pytest.mark.parametrize(
    "number", [number for number, scope in EXAMPLES if scope is not Scope.DIRECTORY]
)
class TestBroker:
    async def test_an_error_that_is_not_the_disks_costs_no_directory_at_an_append(
        self, world: World, number: int
    ) -> None:
        leader = world.brokers[1]
        opens_fail(leader, number)
        with pytest.raises(QuorateError):
            await leader.produce(b"a")
        assert leader.replicas.failed_directories == {}
        leader.disk.hook = None
        await until(lambda: leader.partition.offline is None and leader.partition.is_leader)
        await leader.produce(b"b")
        assert (await leader.stored())[-1] == b"b"

    async def test_an_error_that_is_not_the_disks_costs_no_directory_at_a_checkpoint(
        self, world: World, number: int
    ) -> None:
        leader = world.brokers[1]
        await leader.produce(b"a")
        opens_fail(leader, number)
        await leader.partition.replica_log.checkpoint()
        assert leader.replicas.failed_directories == {}
        assert leader.partition.offline is None
        await leader.produce(b"b")

    async def test_an_error_that_is_not_the_disks_costs_no_directory_at_an_open(
        self, world: World, number: int
    ) -> None:
        leader = world.brokers[1]
        await leader.produce(b"a")
        await leader.stop()

        def hook(name: str, path: str) -> None:
            if name == "open" and path.endswith(".log"):
                raise OSError(number, "for the test", path)

        leader.disk.hook = hook
        await leader.start()
        assert leader.replicas.failed_directories == {}
        leader.disk.hook = None
        await until(lambda: leader.replicas.find(TOPIC_ID, 0) is not None)
        await world.register(leader)
        assert await leader.stored() == [b"a"]

    async def test_an_error_that_is_not_the_disks_costs_no_directory_at_a_removal(
        self, world: World, number: int
    ) -> None:
        leader = world.brokers[1]
        await leader.produce(b"a")

        def hook(name: str, path: str) -> None:
            if name in ("rename", "remove_directory"):
                raise OSError(number, "for the test", path)

        leader.disk.hook = hook
        await world.commit(ev.MetadataEvent(remove_topic=ev.RemoveTopic(topic_id=TOPIC_ID)))
        assert leader.replicas.failed_directories == {}
        leader.disk.hook = None
        await leader.stop()

        def sweeping(name: str, path: str) -> None:
            if name == "remove_directory":
                raise OSError(number, "for the test", path)

        leader.disk.hook = sweeping
        await leader.start()
        assert leader.replicas.failed_directories == {}


async def test_a_leader_whose_log_must_be_opened_again_hands_over_first(pair: World) -> None:
    leader, follower = pair.brokers[1], pair.brokers[2]
    await leader.produce(b"a")
    failed = leader.partition
    failed.take_offline("replica", "for the test")
    await until(lambda: follower.partition.is_leader)
    await follower.produce(b"b")
    await until(lambda: leader.partition.log_end_offset == 2)
    assert leader.partition is not failed
    await until(lambda: pair.state.isr == (1, 2))


@pytest.mark.parametrize("failure", ["broken", "replica"])
async def test_a_replica_that_is_elected_out_of_use_hands_over(
    pair: World, failure: Failure
) -> None:
    """It was elected before anybody heard of that: else nobody would lead for good."""
    leader, follower = pair.brokers[1], pair.brokers[2]
    await leader.produce(b"a")
    await until(lambda: follower.partition.log_end_offset == 1)
    follower.partition.take_offline(failure, "for the test")
    await pair.change(isr=(1, 2), leader=2)
    await until(lambda: pair.state.leader == 1)
    await leader.produce(b"b")
    await until(lambda: follower.partition.log_end_offset == 2)


@pytest.mark.parametrize("name", ["make_directory", "append"])
async def test_a_disk_that_fails_at_a_followers_first_append_is_given_up(
    pair: World, name: str
) -> None:
    """Before a replica's first write its directory is made, and its slot in the inventory."""
    leader, follower = pair.brokers[1], pair.brokers[2]

    def hook(operation: str, path: str) -> None:
        if operation == name and not path.endswith(".log"):
            raise OSError(errno.EIO, "for the test", path)

    inventory = next(iter(follower.replicas.inventories.values()))
    inventory._made = inventory._used
    follower.disk.hook = hook
    await leader.produce(b"a")
    await until(lambda: len(follower.replicas.failed_directories) == 1)
    assert follower.partition.failure == "storage"


async def test_a_replica_that_does_not_open_again_hands_over_and_tries_on(pair: World) -> None:
    leader, follower = pair.brokers[1], pair.brokers[2]
    await leader.produce(b"a")
    await until(lambda: follower.partition.log_end_offset == 1)

    tries: list[str] = []

    def hook(name: str, path: str) -> None:
        if name == "open" and path.endswith(".log"):
            tries.append(path)
            raise OSError(errno.EACCES, "for the test", path)

    follower.disk.hook = hook
    follower.partition.take_offline("replica", "for the test")
    await until(lambda: bool(tries))
    await pair.change(isr=(1, 2), leader=2)
    await until(lambda: pair.state.leader == 1)
    assert follower.replicas.failed_directories == {}
    follower.disk.hook = None
    await leader.produce(b"b")
    await until(lambda: follower.partition.log_end_offset == 2)


async def test_who_asks_a_replica_that_does_not_open_comes_again_while_another_may_lead(
    pair: World,
) -> None:
    """A StorageError would end a consumer, or a batch, that another leader serves in a moment."""
    follower = pair.brokers[2]
    await pair.brokers[1].produce(b"a")
    await until(lambda: follower.partition.log_end_offset == 1)
    pair.on_alter = no_controller

    def hook(name: str, path: str) -> None:
        if name == "open" and path.endswith(".log"):
            raise OSError(errno.EACCES, "for the test", path)

    await follower.stop()
    follower.disk.hook = hook
    await follower.start()
    await pair.register(follower)
    assert follower.replicas.find(TOPIC_ID, 0) is None
    await pair.change(isr=(1, 2), leader=2)
    with pytest.raises(NotLeaderError):
        follower.replicas.get(TOPIC_ID, 0)
    await pair.change(isr=(2,))
    with pytest.raises(StorageError, match="offline here"):
        follower.replicas.get(TOPIC_ID, 0)


async def test_a_replica_that_opens_again_with_less_is_corrupt(pair: World) -> None:
    """What it had, others were told of: to go on without it would lose records in silence."""
    leader, follower = pair.brokers[1], pair.brokers[2]
    await leader.produce(b"a")
    await leader.produce(b"b")
    pair.on_alter = no_controller  # it stays out of the ISR: nobody counts on it
    await pair.change(isr=(1,))
    failed = follower.partition
    failed.take_offline("replica", "for the test")
    follower.disk.put(f"/data/invoice-0/{0:020d}.log", b"")
    await until(lambda: follower.replicas.find(TOPIC_ID, 0) not in (None, failed))
    await until(lambda: follower.partition.log_end_offset == 2)
    assert await follower.stored() == [b"a", b"b"]


async def test_the_only_replica_does_not_lead_on_with_less_than_it_had(world: World) -> None:
    leader = world.brokers[1]
    await leader.produce(b"a")
    leader.partition.take_offline("replica", "for the test")
    leader.disk.put(f"/data/invoice-0/{0:020d}.log", b"")
    await until(lambda: (TOPIC_ID, 0) in leader.replicas.losses)
    assert leader.replicas.find(TOPIC_ID, 0) is None
    assert leader.replicas.failed_directories == {}


async def test_a_directory_that_was_unmounted_is_not_begun_anew(world: World) -> None:
    leader = world.brokers[1]
    await leader.produce(b"a")
    await leader.disk.remove("/data/meta.properties")
    leader.partition.take_offline("replica", "for the test")
    await until(lambda: leader.replicas.failed_directories != {})


class TestVoter:
    async def voter(self, number: int, times: int) -> tuple[SimulatedDisk, list[object]]:
        """Let a voter save its epoch while opens fail so often; return what it told."""
        disk = SimulatedDisk(random.Random(1))
        await disk.make_directory("/data")
        log = await Log.open(disk, PATH, LogConfig(track_synced=True))
        told: list[object] = []
        storage = Storage(disk, log, "/data", told.append)
        left = [times]

        def hook(name: str, path: str) -> None:
            if name == "open" and left[0]:
                left[0] -= 1
                raise OSError(number, "for the test", path)

        disk.hook = hook
        storage.submit(HardState(epoch=7), 1, None)
        storage.end()
        await storage.run()
        return disk, told

    async def test_what_fails_for_want_of_descriptors_is_saved_a_little_later(self) -> None:
        disk, told = await self.voter(errno.EMFILE, 5)
        assert told == [HardStateSaved(1)]
        assert (await read_state(disk, "/data")).epoch == 7

    @pytest.mark.parametrize(
        ("number", "times"), [(errno.EMFILE, 10_000), (errno.ENOSPC, 1), (errno.EIO, 1)]
    )
    async def test_a_voter_that_can_not_save_stops(self, number: int, times: int) -> None:
        with pytest.raises(OSError, match="for the test"):
            await self.voter(number, times)


class TestNames:
    @pytest.mark.parametrize("ending", [DELETED, STRAY, f".{2**63}{KEPT}"])
    def test_a_name_on_the_way_out_fits_a_file_system(self, ending: str) -> None:
        chance = random.Random(1)
        for length in range(1, 250):
            topic = "".join(chance.choices("abc-._", k=length))
            for partition in (0, 9_999):
                name = name_on_the_way_out(f"{topic}-{partition}", TOPIC_ID, ending)
                assert len(name.encode()) <= NAME_BYTES_MAX
                assert name.endswith(f"-{partition}.{TOPIC_ID.hex()}{ending}")
                assert topic.startswith(name.split(f"-{partition}.{TOPIC_ID.hex()}")[0])

    @pytest.mark.parametrize("length", [213, 214, 249])
    async def test_a_topic_with_a_long_name_is_deleted(self, world: World, length: int) -> None:
        broker = world.brokers[1]
        topic_id = bytes([9]) * 16
        partition = ev.Partition(
            topic_id=topic_id,
            partition=0,
            replicas=[ev.Replica(broker_id=1, directory_id=bytes([1]) * 16)],
            isr=(1,),
            leader=1,
            recovered_epoch=-1,
        )
        topic = ev.Topic(topic_id=topic_id, name="x" * length)
        await world.commit(ev.MetadataEvent(topic=topic), ev.MetadataEvent(partition=partition))
        found = broker.replicas.get(topic_id, 0)
        await broker.replicas.prepare(found, is_noted=False)
        await world.commit(ev.MetadataEvent(remove_topic=ev.RemoveTopic(topic_id=topic_id)))
        assert broker.replicas.failed_directories == {}
        await until(lambda: not [n for n in broker.disk.names("/data") if n.startswith("xxx")])


async def test_a_batch_that_is_refused_on_a_full_disk_is_no_sign_of_room(world: World) -> None:
    leader = world.brokers[1]
    leader.disk.fill(0)
    with pytest.raises(QuorateError):
        await leader.produce(b"a")
    assert leader.partition.as_leader().queue.is_full
    with pytest.raises(QuorateError):
        await leader.produce(b"out of its turn", producer_id=1, epoch=0, sequence=5)
    assert leader.partition.as_leader().queue.is_full
    leader.disk.fill(None)
    await leader.produce(b"b")
    assert not leader.partition.as_leader().queue.is_full
