"""A broker's directories, strays, registration, heartbeats and leave, on a simulated disk."""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from rpds import HashTrieMap

from quorate.errors import DuplicateBrokerError, RequestTimedOutError, StorageError
from quorate.v1.common_pb2 import Error, ErrorCode
from quorate_broker.files.directories import LogDirectories
from quorate_broker.files.replica_files import PartitionMetadata
from quorate_broker.files.strays import Strays
from quorate_broker.lifecycle import Lifecycle
from quorate_broker.replicas.losses import TOLD_MAX, Losses
from quorate_quorum.log.disk import replace_whole
from quorate_quorum.log.identity import Identity, read_identity, write_identity
from quorate_quorum.log.run_file import begin_run, read_run, set_sync_failed, write_marker
from quorate_quorum.metadata.brokers import BrokerImage
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.partitions import PartitionImage, ReplicaImage
from quorate_quorum.metadata.topics import TopicImage
from quorate_quorum.node.config import BrokerConfig, ConfigError
from quorate_quorum.node.features import SUPPORTED
from quorate_quorum.node.listeners import parse
from quorate_quorum.v1.controller_pb2 import (
    HeartbeatRequest,
    HeartbeatResponse,
    PartitionId,
    RegisterRequest,
    RegisterResponse,
)
from quorate_testing.simulated.disk import SimulatedDisk
from quorate_testing.simulated.loop import SimulatedLoop, simulate
from tests.harness.addresses import listener

OURS, THEIRS = b"i" * 16, b"j" * 16
D1, D2 = b"1" * 16, b"2" * 16
TOPIC, GONE = b"t" * 16, b"g" * 16


def config(*log_dirs: str, **options: Any) -> BrokerConfig:
    return BrokerConfig(
        node_id=3,
        listeners=("127.0.0.1:7092",),
        log_dirs=log_dirs or ("/d1",),
        quorum_bootstrap_servers=("127.0.0.1:7093",),
        broker_rack="R1",
        **options,
    )


async def formatted(*directories: tuple[str, bytes], node_id: int = 3) -> SimulatedDisk:
    disk = SimulatedDisk(random.Random(1))
    for path, directory_id in directories:
        await write_identity(disk, path, Identity("c1", node_id, directory_id, 0))
    return disk


class TestDirectories:
    async def test_they_are_locked_read_and_told(self) -> None:
        disk = await formatted(("/d1", D1), ("/d2", D2))
        await begin_run(disk, "/d1")
        await set_sync_failed(disk, "/d2")
        held = await LogDirectories.open(config("/d1", "/d2"), disk)
        assert held.cluster_id == "c1"
        told = [(one.directory_id, one.tail_intact, one.sync_failed) for one in held.registered()]
        assert told == [(D1, True, False), (D2, True, True)]
        with pytest.raises(ConfigError, match="in use by another process"):
            await LogDirectories.open(config("/d1"), disk)
        await held.mark_clean()  # this run never began: the older verdict stands
        held.unlock()
        assert not (await read_run(disk, "/d1")).marker_present
        held = await LogDirectories.open(config("/d1"), disk)
        await held.begin_run()
        await held.mark_clean()
        held.unlock()
        held.unlock()
        assert (await read_run(disk, "/d1")).marker_present

    async def test_a_tail_is_not_intact_after_another_boot(self) -> None:
        disk = await formatted(("/d1", D1))
        await begin_run(disk, "/d1")
        disk.lose_power()
        held = await LogDirectories.open(config("/d1"), disk)
        assert not held.registered()[0].tail_intact
        await held.begin_run()
        assert held.registered()[0].tail_intact

    async def test_wrong_directories_are_refused_and_unlocked(self) -> None:
        disk = await formatted(("/d1", D1), ("/copy", D1), ("/old", D2))
        await write_identity(disk, "/other", Identity("c2", 3, D2, 0))
        for paths, said in (
            (("/d1", "/none"), "not formatted"),
            (("/d1", "/copy"), "copy of the other"),
            (("/d1", "/other"), "cluster"),
        ):
            with pytest.raises(ConfigError, match=said):
                await LogDirectories.open(config(*paths), disk)
        (await LogDirectories.open(config("/d1"), disk)).unlock()
        with pytest.raises(ConfigError, match="node"):
            await LogDirectories.open(config("/d1"), await formatted(("/d1", D1), node_id=4))

    async def test_a_generation_is_remembered_and_never_goes_back(self) -> None:
        disk = await formatted(("/d1", D1))
        held = await LogDirectories.open(config("/d1"), disk)
        await held.learn_generation(2)
        assert (await read_identity(disk, "/d1")).quorum_generation == 2
        with pytest.raises(ConfigError, match="quorum_generation 2"):
            await held.learn_generation(1)

    async def test_a_lost_one_is_remembered_on_disk_and_not_marked(self) -> None:
        disk = await formatted(("/d1", D1), ("/d2", D2))
        held = await LogDirectories.open(config("/d1", "/d2"), disk)
        await held.begin_run()
        assert await held.lose(D1, "bad")
        assert not await held.lose(D1, "again")
        assert held.failed_ids == [D1]
        assert [one.directory_id for one in held.registered()] == [D2]
        await held.mark_clean()
        lost, kept = await read_run(disk, "/d1"), await read_run(disk, "/d2")
        assert (lost.sync_failed, lost.marker_present) == (True, False)
        assert (kept.sync_failed, kept.marker_present) == (False, True)


def placed(directory_id: bytes = D1) -> TopicImage:
    partition = PartitionImage(
        replicas=(ReplicaImage(3, directory_id),), isr=(3,), leader=3, leader_epoch=1
    )
    return TopicImage(TOPIC, "t", (partition,))


def image(offset: int, *brokers: BrokerImage, topic: TopicImage | None = None) -> MetadataImage:
    topics = {} if topic is None else {topic.id: topic}
    names = {} if topic is None else {topic.name: topic.id}
    return MetadataImage(
        offset=offset,
        brokers=HashTrieMap({broker.id: broker for broker in brokers}),
        topics=HashTrieMap(topics),
        topic_ids=HashTrieMap(names),
    )


async def replica(
    disk: SimulatedDisk, path: str, topic_id: bytes, cluster_id: str = "c1", generation: int = 1
) -> None:
    await disk.make_directory(path)
    content = PartitionMetadata(topic_id, cluster_id, generation).encode()
    await replace_whole(disk, f"{path}/partition.metadata", content)


class TestStrays:
    async def test_only_what_this_history_wrote_and_no_longer_places_is_removed(self) -> None:
        disk = await formatted(("/d1", D1))
        await replica(disk, "/d1/t-0", TOPIC)
        await replica(disk, "/d1/t-1", TOPIC)  # the topic has one partition
        await replica(disk, "/d1/gone-0", GONE)
        await replica(disk, "/d1/old-0", GONE, generation=9)
        await replica(disk, "/d1/foreign-0", GONE, cluster_id="c2")
        await replica(disk, f"/d1/x-0.{GONE.hex()}.stray", GONE)
        await disk.make_directory("/d1/lost+found")
        held = await LogDirectories.open(config("/d1"), disk)
        strays = Strays(disk, held, "c1", 1)
        await strays.set_aside(image(9, topic=placed()), 3)
        kept = {"t-0", "old-0", "foreign-0", "lost+found"}
        names = set(await disk.list("/d1"))
        assert kept <= names
        assert {f"gone-0.{GONE.hex()}.stray", f"t-1.{TOPIC.hex()}.stray"} <= names
        await strays.remove_after(1)
        names = set(await disk.list("/d1"))
        assert kept <= names
        assert not [name for name in names if name.endswith(".stray")]

    async def test_a_replica_that_was_placed_on_another_disk_is_a_stray_here(self) -> None:
        disk = await formatted(("/d1", D1), ("/d2", D2))
        await replica(disk, "/d1/t-0", TOPIC)
        await replica(disk, "/d2/t-0", TOPIC)
        held = await LogDirectories.open(config("/d1", "/d2"), disk)
        await Strays(disk, held, "c1", 1).set_aside(image(9, topic=placed(D2)), 3)
        assert "t-0" not in await disk.list("/d1")
        assert "t-0" in await disk.list("/d2")


@dataclass
class FakeStream:
    client: FakeClient
    pushes: int = 0
    closed: bool = False

    def push(self) -> None:
        self.pushes += 1
        self.client.beats.append(self.client.state())

    async def close(self) -> None:
        self.closed = True


@dataclass
class FakeClient:
    image: MetadataImage = field(default_factory=MetadataImage)
    quorum_generation: int = 1
    registered: list[RegisterRequest] = field(default_factory=list)
    beats: list[HeartbeatRequest] = field(default_factory=list)
    error: Exception | None = None
    next_epoch: int = 20
    state: Callable[[], HeartbeatRequest] = HeartbeatRequest
    answered: Callable[[HeartbeatResponse], None] = lambda response: None
    stream: FakeStream | None = None

    async def register(self, request: RegisterRequest) -> RegisterResponse:
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        self.registered.append(request)
        epoch, self.next_epoch = self.next_epoch, self.next_epoch + 100
        return RegisterResponse(
            broker_epoch=epoch, quorum_generation=self.quorum_generation, apply_offset=epoch + 2
        )

    def heartbeat(
        self,
        state: Callable[[], HeartbeatRequest],
        answered: Callable[[HeartbeatResponse], None],
    ) -> FakeStream:
        self.state, self.answered = state, answered
        self.stream = FakeStream(self)
        return self.stream

    async def wait_applied(self, offset: int, *, timeout_ms: int) -> None:
        await asyncio.sleep(0)
        if self.image.offset < offset:
            raise RequestTimedOutError("not yet")


class FakeReplicas:
    def __init__(self) -> None:
        self.broker_epoch = -1
        self.incarnation = b""
        self.cluster_id = ""
        self.directories: dict[bytes, Any] = {}
        self.image = MetadataImage()
        self.losses = Losses()
        self.on_directory_failed: Any = None
        self.on_generation: Any = None
        self.failed_directories: list[bytes] = []

    def directory_failed(self, directory_id: bytes, reason: str) -> None:
        self.failed_directories.append(directory_id)

    @property
    def fenced(self) -> bool:
        broker = self.image.brokers.get(3)
        return broker is None or broker.fenced or broker.epoch != self.broker_epoch

    def replica_end(self, topic_id: bytes, partition: int) -> tuple[int, int]:
        if partition:
            raise StorageError("offline")
        return 4, 1000


class FakePublisher:
    applied_offset = 0
    started: MetadataImage | None = None

    def start(self, image: MetadataImage) -> None:
        self.started = image


def broker(epoch: int, incarnation: bytes = OURS, *, fenced: bool = True) -> BrokerImage:
    return BrokerImage(3, epoch, incarnation, (parse("h:1"),), "grpc", "R1", "h", (), fenced, False)


class Fixture:
    """A broker that has registered; the test plays the controller, image and replicas."""

    def __init__(self, disk: SimulatedDisk, directories: LogDirectories, **options: Any) -> None:
        self.disk = disk
        self.directories = directories
        self.client = FakeClient()
        self.replicas = FakeReplicas()
        self.publisher = FakePublisher()
        self.failures: list[str] = []
        self.lifecycle = Lifecycle(
            config("/d1", **{"stray_delete_delay_ms": 1, **options}),
            disk=disk,
            features=SUPPORTED,
            incarnation=OURS,
            directories=directories,
            client=cast(Any, self.client),
            replicas=cast(Any, self.replicas),
            fail=self.failures.append,
        )

    async def register(self) -> None:
        await self.lifecycle.register((parse("adv:7092"),), cast(Any, self.publisher))

    async def opened(self) -> None:
        await self.register()
        self.client.image = image(22, broker(20))
        await self.settle()
        self.apply(image(22, broker(20)))

    def apply(self, new: MetadataImage) -> None:
        self.replicas.image = new
        self.publisher.applied_offset = new.offset
        self.lifecycle.applied(new)

    def hear(self, **fields: Any) -> None:
        self.client.answered(HeartbeatResponse(**fields))

    @property
    def last_beat(self) -> HeartbeatRequest:
        return self.client.beats[-1]

    async def settle(self) -> None:
        for _ in range(100):
            await asyncio.sleep(0)


@pytest.fixture
async def fixture() -> Any:
    disk = await formatted(("/d1", D1), ("/d2", D2))
    made = Fixture(disk, await LogDirectories.open(config("/d1", "/d2"), disk))
    yield made
    await made.lifecycle.stop()


class TestRegistration:
    async def test_it_tells_who_and_where_and_which_disks(self, fixture: Fixture) -> None:
        await fixture.register()
        [request] = fixture.client.registered
        assert (request.broker_id, request.incarnation, request.rack) == (3, OURS, "R1")
        assert (list(request.listeners), request.host) == ([listener("adv:7092")], "adv")
        assert request.inter_broker_listener == "grpc"
        assert [one.directory_id for one in request.directories] == [D1, D2]

    async def test_nothing_begins_before_the_image_has_passed_it(self, fixture: Fixture) -> None:
        await write_marker(fixture.disk, "/d1")
        await fixture.register()
        fixture.client.image = image(21)
        await fixture.settle()
        assert fixture.publisher.started is None
        assert fixture.replicas.broker_epoch == -1
        assert (await read_run(fixture.disk, "/d1")).marker_present
        assert not fixture.lifecycle.caught_up.is_set()

        fixture.client.image = image(22, broker(20))
        await fixture.settle()
        assert fixture.publisher.started is fixture.client.image
        assert fixture.replicas.broker_epoch == 20
        assert fixture.replicas.incarnation == OURS
        assert sorted(fixture.replicas.directories) == [D1, D2]
        run = await read_run(fixture.disk, "/d1")
        assert (run.marker_present, run.same_boot) == (False, True)
        assert fixture.lifecycle.caught_up.is_set()

    async def test_a_duplicate_is_the_callers_error(self, fixture: Fixture) -> None:
        fixture.client.error = DuplicateBrokerError("taken")
        with pytest.raises(DuplicateBrokerError):
            await fixture.register()

    @pytest.mark.parametrize("learns_first", ["by the image", "by registering", "while it opens"])
    def test_a_newer_generation_is_remembered_and_ends_what_the_older_one_had_begun(
        self, learns_first: str
    ) -> None:
        """A stray of a history that is over is nobody's to remove, whoever told of the new one."""

        async def program(_: SimulatedLoop) -> None:
            disk = await formatted(("/d1", D1))
            await replica(disk, "/d1/gone-0", GONE)
            made = Fixture(disk, await LogDirectories.open(config("/d1"), disk))
            await made.opened()
            assert f"gone-0.{GONE.hex()}.stray" in await disk.list("/d1")
            if learns_first == "by registering":
                made.client.quorum_generation = 2
                made.hear(error=Error(code=ErrorCode.ERROR_CODE_FENCED))
                await made.settle()
                assert len(made.client.registered) == 2
            elif learns_first == "while it opens":  # it was told when it set them aside
                await made.directories.learn_generation(2)
            await made.replicas.on_generation(2)
            await asyncio.sleep(config().stray_delete_delay_ms / 500)
            assert f"gone-0.{GONE.hex()}.stray" in await disk.list("/d1")
            assert (await read_identity(disk, "/d1")).quorum_generation == 2
            await made.lifecycle.stop()

        simulate(program, seed=1)


class TestHeartbeats:
    async def test_it_wants_to_be_fenced_until_its_logs_are_open(self, fixture: Fixture) -> None:
        await fixture.register()
        beat = fixture.client.state()
        assert (beat.want_fence, beat.applied_offset, beat.broker_epoch) == (True, 0, 20)
        fixture.client.image = image(22, broker(20))
        await fixture.settle()
        fixture.apply(image(22, broker(20)))
        assert not fixture.last_beat.want_fence
        assert fixture.last_beat.applied_offset == 22
        assert fixture.lifecycle.is_fenced

    async def test_it_is_unfenced_when_its_image_says_so(self, fixture: Fixture) -> None:
        await fixture.opened()
        fixture.apply(image(23, broker(20, fenced=False)))
        assert not fixture.lifecycle.is_fenced
        assert fixture.lifecycle.unfenced.is_set()
        fixture.apply(image(24, broker(20)))  # silence fenced it: it goes on and comes back
        assert fixture.lifecycle.is_fenced
        fixture.apply(image(25, broker(20, fenced=False)))
        assert not fixture.lifecycle.is_fenced
        assert len(fixture.client.registered) == 1

    async def test_it_speaks_when_the_offset_is_reached_that_was_asked_for(
        self, fixture: Fixture
    ) -> None:
        await fixture.opened()
        before = len(fixture.client.beats)
        fixture.hear(notify_offset=30)
        fixture.apply(image(29, broker(20)))
        assert len(fixture.client.beats) == before
        fixture.apply(image(31, broker(20)))
        assert fixture.last_beat.applied_offset == 31
        before = len(fixture.client.beats)
        fixture.hear(notify_offset=30)  # reached already
        assert len(fixture.client.beats) == before + 1

    async def test_ends_are_told_when_asked_and_the_logs_are_open(self, fixture: Fixture) -> None:
        await fixture.register()
        wanted = [
            PartitionId(topic_id=TOPIC, partition=0),
            PartitionId(topic_id=TOPIC, partition=1),
        ]
        fixture.hear(ends_wanted=wanted)
        assert not fixture.client.state().replica_ends
        fixture.client.image = image(22, broker(20))
        await fixture.settle()
        fixture.apply(image(22, broker(20)))
        [end] = fixture.last_beat.replica_ends
        assert (end.partition, end.last_epoch, end.log_end_offset) == (0, 4, 1000)
        assert not fixture.client.state().replica_ends
        fixture.hear(ends_wanted=wanted)
        assert len(fixture.last_beat.replica_ends) == 1

    async def test_many_lossy_replicas_are_told_in_slices_each_when_the_one_before_is_settled(
        self, fixture: Fixture
    ) -> None:
        count = 3 * TOLD_MAX
        state = placed().partitions[0]
        topic = TopicImage(TOPIC, "t", (state,) * count)
        await fixture.opened()
        for index in range(count):
            fixture.replicas.losses.found((TOPIC, index), f"t-{index}", "cut")
        told: list[int] = []
        for offset in range(23, 26):
            fixture.apply(image(offset, broker(20), topic=topic))
            slice_ = [one.partition for one in fixture.last_beat.lossy_replicas]
            assert len(slice_) == TOLD_MAX
            told += slice_
            for index in slice_:
                fixture.replicas.losses.settled((TOPIC, index))
        assert told == list(range(count))

    async def test_one_found_while_it_runs_is_told_at_once(self, fixture: Fixture) -> None:
        await fixture.opened()
        fixture.apply(image(23, broker(20), topic=placed()))
        fixture.replicas.losses.found((TOPIC, 0), "t-0", "a bad batch")
        assert len(fixture.last_beat.lossy_replicas) == 1

    async def test_one_who_is_told_fenced_registers_again(self, fixture: Fixture) -> None:
        await fixture.opened()
        refusal = Error(code=ErrorCode.ERROR_CODE_FENCED, message="unknown epoch")
        fixture.hear(error=refusal)
        fixture.hear(error=refusal)
        await fixture.settle()
        assert len(fixture.client.registered) == 2
        again = fixture.client.registered[1]
        assert again.incarnation == OURS
        assert all(one.tail_intact for one in again.directories)
        assert fixture.last_beat.broker_epoch == 120
        assert fixture.replicas.broker_epoch == 120
        assert not fixture.failures

    async def test_one_whose_place_was_taken_stops(self, fixture: Fixture) -> None:
        await fixture.opened()
        fixture.apply(image(60, broker(55, THEIRS)))
        assert "another process registered as broker 3" in fixture.failures[0]

    async def test_one_whose_place_is_taken_when_it_registers_again_stops(
        self, fixture: Fixture
    ) -> None:
        await fixture.opened()
        fixture.client.error = DuplicateBrokerError("taken")
        fixture.hear(error=Error(code=ErrorCode.ERROR_CODE_FENCED))
        await fixture.settle()
        assert "took broker 3 over" in fixture.failures[0]


class TestFailedDisks:
    async def test_a_failure_is_on_disk_before_it_is_told(self, fixture: Fixture) -> None:
        await fixture.opened()
        fixture.replicas.on_directory_failed(D1, "sync")
        assert not fixture.client.state().failed_directories
        await fixture.settle()
        assert (await read_run(fixture.disk, "/d1")).sync_failed
        assert list(fixture.last_beat.failed_directories) == [D1]
        assert not fixture.failures
        fixture.replicas.on_directory_failed(D2, "sync")
        await fixture.settle()
        assert "last log directory" in fixture.failures[0]

    @pytest.mark.parametrize("path", ["begin", "learn", "set aside", "remove strays"])
    async def test_one_that_is_given_up_is_told_on_every_path(
        self, fixture: Fixture, path: str
    ) -> None:
        """To the controller and to the replicas in it, whoever met the error."""
        if path == "begin":
            self.fail(fixture, "/d1/run")
        if path in ("set aside", "remove strays"):
            await replica(fixture.disk, "/d1/gone-0", GONE)
        if path == "set aside":
            self.fail(fixture, "/d1/gone-0")
        await fixture.register()
        fixture.client.image = image(22, broker(20))
        if path == "remove strays":
            self.fail(fixture, f"/d1/gone-0.{GONE.hex()}.stray")
        await fixture.settle()
        fixture.apply(image(22, broker(20)))
        if path == "learn":
            self.fail(fixture, "/d1/meta.properties")
            await fixture.replicas.on_generation(2)
        async with asyncio.timeout(5):
            while not fixture.replicas.failed_directories:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        await fixture.settle()
        assert fixture.replicas.failed_directories == [D1]
        assert list(fixture.last_beat.failed_directories) == [D1]

    def fail(self, fixture: Fixture, start: str) -> None:
        def hook(name: str, path: str) -> None:
            if path.startswith(start) and name != "read":
                raise OSError(errno.EIO, "for the test", path)

        fixture.disk.hook = hook

    @pytest.mark.parametrize("has_run_before", [True, False])
    async def test_a_run_begins_on_a_full_disk(
        self, fixture: Fixture, has_run_before: bool
    ) -> None:
        """In place where there is a run file, else as soon as there is room."""
        if has_run_before:
            await begin_run(fixture.disk, "/d1")
            await begin_run(fixture.disk, "/d2")
            await write_marker(fixture.disk, "/d1")
            fixture.disk.lose_power()
        await fixture.directories.learn_generation(1)
        fixture.disk.fill(0)
        await fixture.register()
        fixture.client.image = image(22, broker(20))
        await fixture.settle()
        if not has_run_before:
            assert fixture.publisher.started is None
            fixture.disk.fill(None)
            async with asyncio.timeout(5):
                while fixture.publisher.started is None:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        assert fixture.publisher.started is not None
        assert fixture.directories.failed_ids == []
        run = await read_run(fixture.disk, "/d1")
        assert (run.same_boot, run.marker_present, run.sync_failed) == (True, False, False)
        await fixture.directories.mark_clean()
        assert fixture.directories.failed_ids == []


class TestLeave:
    @pytest.fixture
    async def short(self) -> Any:
        disk = await formatted(("/d1", D1))
        made = Fixture(
            disk,
            await LogDirectories.open(config("/d1"), disk),
            controlled_shutdown_timeout_ms=60,
            controlled_shutdown_silence_max_ms=20,
        )
        yield made
        await made.lifecycle.stop()

    async def test_it_serves_until_it_is_told_that_all_have_moved_on(
        self, fixture: Fixture
    ) -> None:
        await fixture.opened()
        fixture.hear(should_shut_down=True)  # nobody asked: ignored
        leaving = asyncio.create_task(fixture.lifecycle.leave())
        await fixture.settle()
        assert fixture.last_beat.want_shutdown
        fixture.hear()
        await fixture.settle()
        assert not leaving.done()
        fixture.hear(should_shut_down=True)
        await leaving

    async def test_silence_ends_the_wait(self, short: Fixture) -> None:
        await short.opened()
        await short.lifecycle.leave()
        assert not short.lifecycle.should_shut_down.is_set()

    async def test_answers_that_never_let_go_end_it_too(self, short: Fixture) -> None:
        await short.opened()
        leaving = asyncio.create_task(short.lifecycle.leave())
        while not leaving.done():
            short.hear()
            await asyncio.sleep(0.005)
        await leaving

    async def test_one_that_never_registered_has_nobody_to_ask(self, short: Fixture) -> None:
        await short.lifecycle.leave()


async def test_it_stays_fenced_until_its_lossy_replicas_are_settled(fixture: Fixture) -> None:
    await fixture.register()
    fixture.replicas.losses.found((TOPIC, 0), "t-0", "found while the logs are opened")
    assert not fixture.client.state().lossy_replicas, "not before all logs were looked at"
    trusted = image(22, broker(20), topic=placed())
    fixture.client.image = trusted
    await fixture.settle()
    fixture.apply(trusted)
    [told] = fixture.last_beat.lossy_replicas
    assert (told.topic_id, told.partition, told.partition_epoch) == (TOPIC, 0, 0)
    assert fixture.last_beat.want_fence
    fixture.replicas.losses.settled((TOPIC, 0))
    fixture.apply(image(23, broker(20), topic=placed()))
    assert not fixture.last_beat.lossy_replicas
    assert not fixture.last_beat.want_fence
