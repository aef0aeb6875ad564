"""What arrives late, of an older stream, leader epoch or registration, changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from quorate.aio.tasks import Tasks
from quorate.net.frame import Frame
from quorate.v1.common_pb2 import ErrorCode
from quorate_broker.methods import REPLICA_FETCH
from quorate_broker.replica.follower_replica import FetchPosition
from quorate_broker.replica.leader import UNKNOWN
from quorate_broker.replica.watches import Watches
from quorate_broker.replication.followed import Followed
from quorate_broker.v1.replica_pb2 import (
    ReplicaFetched,
    ReplicaFetchHeader,
    ReplicaFetchPartition,
    ReplicaFetchRequest,
    ReplicaOpen,
)
from tests.unit.quorate_broker.builders import TOPIC_ID, Broker, World, no_controller, until

# the follower's side

EPOCH, END = 5, 100


@dataclass
class FakeFollower:
    """A follower whose log ends at `end`. It notes the answers that it carries out."""

    end: int = END
    leader_epoch: int = EPOCH
    was_corrupt: bool = False
    carried_out: list[ReplicaFetched] = field(default_factory=list)

    async def fetch_position(self) -> FetchPosition:
        await asyncio.sleep(0)
        return FetchPosition(1, self.leader_epoch, self.end, self.leader_epoch, 0, 0)

    async def take(self, fetched: ReplicaFetched, batches: memoryview) -> None:
        await asyncio.sleep(0)
        self.carried_out.append(fetched)
        self.end += len(batches)


@dataclass
class FakePartition:
    follower: FakeFollower = field(default_factory=FakeFollower)
    name: str = "t-0"
    log_start_offset: int = 0
    key: tuple[bytes, int] = (TOPIC_ID, 0)
    broker_id: int = 2
    replica_watches: Watches = field(default_factory=Watches)


class Unthrottled:
    """A throttle that holds nothing."""

    def ask(self, *_: Any) -> None:
        return None

    def used(self, *_: Any) -> None:
        return None


@dataclass
class Following:
    """A partition on a stream, its sent positions, and the number of dropped or written bytes."""

    partition: FakePartition = field(default_factory=FakePartition)
    named: list[FetchPosition] = field(default_factory=list)
    written: int = 0

    def __post_init__(self) -> None:
        partition: Any = self.partition
        throttle: Any = Unthrottled()
        self.tasks = Tasks(lambda _, error: pytest.fail(repr(error)))
        self.followed = Followed(
            partition,
            1,
            self.tasks,
            throttle,
            named=lambda _, position, __: self.named.append(position),
            written=self._written,
            backoff_s=lambda: 0.0,
        )

    def _written(self, batches: memoryview) -> None:
        self.written += len(batches)

    async def named_again(self) -> None:
        await self.tasks.ended()


def chunk(offset: int, epoch: int = EPOCH) -> ReplicaFetched:
    return ReplicaFetched(leader_epoch=epoch, base_offset=offset, size=10)


async def following() -> Following:
    found = Following()
    found.followed.begin_stream()
    await found.named_again()
    return found


@pytest.mark.parametrize(
    ("late", "is_carried_out"),
    [
        (chunk(END), True),
        (chunk(END - 10), False),
        (chunk(END + 10), False),
        (chunk(END, EPOCH - 1), False),
        (chunk(END, EPOCH + 1), False),
    ],
    ids=["awaited", "lower offset", "higher offset", "older epoch", "newer epoch"],
)
async def test_only_the_answer_to_the_last_position_is_carried_out(
    late: ReplicaFetched, is_carried_out: bool
) -> None:
    stream = await following()
    stream.followed.take(late, memoryview(bytes(10)))
    await stream.named_again()
    assert bool(stream.partition.follower.carried_out) == is_carried_out
    assert stream.written == 10, "its bytes are let go in any case"


async def test_a_chunk_that_comes_twice_is_carried_out_once() -> None:
    stream = await following()
    for _ in range(2):
        stream.followed.take(chunk(END), memoryview(bytes(10)))
    await stream.named_again()
    assert len(stream.partition.follower.carried_out) == 1


async def test_a_chunk_of_the_old_stream_is_dropped_when_a_new_one_begins() -> None:
    """It would fit: it is for the same offset and epoch."""
    stream = await following()
    stream.followed.take(chunk(END), memoryview(bytes(10)))
    stream.followed.begin_stream()
    await stream.named_again()
    assert stream.partition.follower.carried_out == []
    assert [position.offset for position in stream.named] == [END, END]


# the leader's side


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Broker 1 leads; broker 2 is registered, and a test speaks for it."""
    world = World()
    await world.start()
    world.on_alter = no_controller
    await world.brokers[1].produce(b"a", b"b", b"c")
    await world.brokers[2].stop()
    yield world
    await world.stop()


class RawStream:
    """A stream of broker 2 that a test drives by hand."""

    def __init__(
        self, world: World, number: int, *, epoch: int = 0, incarnation: bytes = b""
    ) -> None:
        broker = world.brokers[2]
        self.open = ReplicaOpen(
            cluster_id="cluster",
            quorum_generation=1,
            replica_id=2,
            broker_epoch=world.image.brokers[2].epoch + epoch,
            incarnation=incarnation or broker.incarnation,
            stream_number=number,
        )
        self._requests: asyncio.Queue[ReplicaFetchRequest | None] = asyncio.Queue()
        self._connection = world.network_of("broker-2").connect(world.brokers[1].endpoint)
        self.frames = self._connection.stream(REPLICA_FETCH, self._sent())
        self._count = 0

    async def _sent(self) -> AsyncGenerator[ReplicaFetchRequest, None]:
        while (request := await self._requests.get()) is not None:
            yield request

    def name(self, world: World, offset: int, leader_epoch: int | None = None) -> None:
        epoch = world.state.leader_epoch if leader_epoch is None else leader_epoch
        self._count += 1
        request = ReplicaFetchRequest(
            partitions=[
                ReplicaFetchPartition(
                    topic_id=TOPIC_ID,
                    leader_epoch=epoch,
                    fetch_offset=offset,
                    last_fetched_epoch=epoch if offset else -1,
                )
            ],
            max_bytes=1 << 20,
            max_wait_ms=10,
            request_number=self._count,
        )
        if self._count == 1:
            request.open.CopyFrom(self.open)
        self._requests.put_nowait(request)

    async def frame(self) -> Frame[ReplicaFetchHeader] | None:
        async for frame in self.frames:
            return frame
        return None

    async def error(self) -> ErrorCode.ValueType:
        """Return the error of the stream."""
        while (frame := await self.frame()) is not None:
            if frame.header.error.code:
                return frame.header.error.code
        return ErrorCode.ERROR_CODE_NONE

    async def close(self) -> None:
        await self._connection.close()


def end_of_2(leader: Broker) -> int:
    return leader.partition.as_leader().machine.replicas[2].log_end_offset


async def test_a_request_of_a_replaced_stream_acknowledges_nothing(world: World) -> None:
    leader = world.brokers[1]
    old, new = RawStream(world, 1001), RawStream(world, 1002)
    old.name(world, 0)
    await until(lambda: end_of_2(leader) == 0)
    new.name(world, 1)
    await until(lambda: end_of_2(leader) == 1)
    old.name(world, 3)
    while await old.frame() is not None:
        pass  # the leader ends the old stream
    new.name(world, 2)
    await until(lambda: end_of_2(leader) == 2)
    for stream in (old, new):
        await stream.close()


async def test_a_stream_that_opens_late_does_not_replace_a_newer_one(world: World) -> None:
    leader = world.brokers[1]
    new, old = RawStream(world, 1002), RawStream(world, 1001)
    new.name(world, 1)
    await until(lambda: end_of_2(leader) == 1)
    old.name(world, 3)
    assert await old.error() == ErrorCode.ERROR_CODE_FENCED
    assert end_of_2(leader) == 1
    new.name(world, 2)
    await until(lambda: end_of_2(leader) == 2)
    for stream in (old, new):
        await stream.close()


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"epoch": -1}, ErrorCode.ERROR_CODE_FENCED),
        ({"incarnation": bytes(16)}, ErrorCode.ERROR_CODE_FENCED),
        ({"epoch": 1}, ErrorCode.ERROR_CODE_UNKNOWN_BROKER),
    ],
    ids=["older registration", "another run", "unknown registration"],
)
async def test_a_stream_of_another_registration_is_refused(
    world: World, changed: dict[str, Any], code: ErrorCode.ValueType
) -> None:
    before = end_of_2(world.brokers[1])
    stream = RawStream(world, 1001, **changed)
    stream.name(world, 3)
    assert await stream.error() == code
    assert end_of_2(world.brokers[1]) == before
    await stream.close()


@pytest.mark.parametrize("step", [-1, 1], ids=["older", "newer"])
async def test_a_position_of_another_leader_epoch_acknowledges_nothing(
    world: World, step: int
) -> None:
    await world.change(raise_epoch=True)
    leader = world.brokers[1]
    assert end_of_2(leader) == UNKNOWN
    stream = RawStream(world, 1001)
    stream.name(world, 3, world.state.leader_epoch + step)
    while (frame := await stream.frame()) is not None and not frame.header.partitions:
        pass
    assert frame is not None
    [answer] = frame.header.partitions
    assert answer.error.code in (
        ErrorCode.ERROR_CODE_FENCED_LEADER_EPOCH,
        ErrorCode.ERROR_CODE_UNKNOWN_LEADER_EPOCH,
    )
    assert end_of_2(leader) == UNKNOWN
    await stream.close()
