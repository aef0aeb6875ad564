"""A broker registers, sends heartbeats, loses disks and leaves."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from quorate.errors import DuplicateBrokerError, RequestTimedOutError, StorageError
from quorate.v1.common_pb2 import Error, ErrorCode
from quorate_broker.files.directories import LogDirectories
from quorate_broker.lifecycle import Lifecycle
from quorate_broker.registration import Registration
from quorate_broker.replica.replica import Key
from quorate_broker.replicas.losses import TOLD_MAX, Losses
from quorate_quorum.log.identity import read_identity
from quorate_quorum.log.run_file import begin_run, read_run, write_marker
from quorate_quorum.metadata.brokers import BrokerImage
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.topics import TopicImage
from quorate_quorum.node.environment import Environment
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
from tests.unit.quorate_broker.files.builders import (
    CLUSTER,
    D1,
    D2,
    GONE,
    OURS,
    THEIRS,
    TOPIC,
    config,
    formatted,
    image,
    placed,
    replica,
)


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
        self.registration = Registration(CLUSTER, 3, OURS)
        self.directories: dict[bytes, Any] = {}
        self.image = MetadataImage()
        self.losses = Losses()
        self.on_directory_failed: Any = None
        self.on_generation: Any = None
        self.failed_directories: list[bytes] = []
        self.copies: dict[Key, str] = {}
        self.unwritten: dict[bytes, set[Key]] = {D2: {(TOPIC, 0), (TOPIC, 1)}}

    def directory_failed(self, directory_id: bytes, reason: str) -> None:
        self.failed_directories.append(directory_id)

    def is_out_of_sync(self, key: Key) -> bool:
        return False

    @property
    def fenced(self) -> bool:
        broker = self.image.brokers.get(3)
        return broker is None or broker.fenced or broker.epoch != self.registration.broker_epoch

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
            Environment(network=cast(Any, None), disk=disk),
            Registration(CLUSTER, 3, OURS),
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

    async def test_a_duplicate_is_the_callers_error(self, fixture: Fixture) -> None:
        fixture.client.error = DuplicateBrokerError("taken")
        with pytest.raises(DuplicateBrokerError):
            await fixture.register()

    @pytest.mark.parametrize("learns_first", ["by the image", "by registering", "while it opens"])
    def test_a_newer_generation_is_remembered_and_ends_what_the_older_one_had_begun(
        self, learns_first: str
    ) -> None:
        """A stray of an older generation stays, however the broker learns of the new generation."""

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

    async def test_they_tell_the_free_bytes_of_the_working_directories(
        self, fixture: Fixture
    ) -> None:
        fixture.disk.limit("/d1", 1 << 20)
        await fixture.opened()
        assert [
            (one.directory_id, one.free_bytes <= 1 << 20, one.unwritten)
            for one in fixture.client.state().directory_spaces
        ] == [(D1, True, 0), (D2, False, 2)]
        fixture.replicas.on_directory_failed(D1, "sync")
        await fixture.settle()
        assert [one.directory_id for one in fixture.last_beat.directory_spaces] == [D2]

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
        assert fixture.replicas.registration.broker_epoch == 120
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
        """The controller and the replicas in it are told, whichever part met the error."""
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
        fixture.hear(should_shut_down=True)  # it did not ask to stop: ignored
        leaving = asyncio.create_task(fixture.lifecycle.heartbeats.leave())
        await fixture.settle()
        assert fixture.last_beat.want_shutdown
        fixture.hear()
        await fixture.settle()
        assert not leaving.done()
        fixture.hear(should_shut_down=True)
        await leaving

    async def test_silence_ends_the_wait(self, short: Fixture) -> None:
        await short.opened()
        with capture_logs() as logs:
            await short.lifecycle.heartbeats.leave()
        assert [line["event"] for line in logs][-1] == "left_without_leave"

    async def test_answers_that_never_let_go_end_it_too(self, short: Fixture) -> None:
        await short.opened()
        leaving = asyncio.create_task(short.lifecycle.heartbeats.leave())
        while not leaving.done():
            short.hear()
            await asyncio.sleep(0.005)
        await leaving

    async def test_one_that_never_registered_has_nobody_to_ask(self, short: Fixture) -> None:
        await short.lifecycle.heartbeats.leave()


async def test_nothing_begins_before_the_image_has_passed_it(fixture: Fixture) -> None:
    await write_marker(fixture.disk, "/d1")
    await fixture.register()
    fixture.client.image = image(21)
    await fixture.settle()
    assert fixture.publisher.started is None
    assert not fixture.replicas.registration.is_known
    assert (await read_run(fixture.disk, "/d1")).marker_present
    assert not fixture.lifecycle.caught_up.is_set()

    fixture.client.image = image(22, broker(20))
    await fixture.settle()
    assert fixture.publisher.started is fixture.client.image
    assert fixture.replicas.registration == Registration(CLUSTER, 3, OURS, 20)
    assert sorted(fixture.replicas.directories) == [D1, D2]
    run = await read_run(fixture.disk, "/d1")
    assert (run.marker_present, run.same_boot) == (False, True)
    assert fixture.lifecycle.caught_up.is_set()


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
