"""A call of a consumer without a group is cancelled at each of its suspensions in turn.

After each cancellation the loop has what it has after the same call without one, no record is
passed over or given twice, and a cancelled seek has moved all positions or none. A cancelled stop()
leaves nothing at all. For members of groups see group/test_cancellation.py.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from quorate import Consumer, TopicPartition
from quorate.errors import ClosedError
from quorate.model import AnyRecord
from tests.harness.cancellation import Census, Steps, When
from tests.harness.fake_leaders import START_MS, FakeCluster, FakePartition, with_cluster

PARTITIONS = 2
RECORDS_FIRST, RECORDS = 4, 8
#: All that a cancelled call began has ended after this time.
SETTLE_S = 1.0
#: Longer than any call takes.
PATIENCE_S = 10.0
#: The brokers answer after this time, so that calls wait.
DELAY_S = 0.02


@dataclass
class World:
    """One consumer, and a topic of its own."""

    cluster: FakeCluster
    name: str
    given: list[AnyRecord] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.partitions: list[FakePartition] = self.cluster.add_topic(
            self.name, PARTITIONS
        ).partitions
        self.keys = [TopicPartition(self.name, number) for number in range(PARTITIONS)]
        self.write(RECORDS_FIRST)
        self.consumer = Consumer(
            bootstrap_servers=self.cluster.bootstrap, auto_offset_reset="earliest"
        )

    def write(self, count: int) -> None:
        for partition in self.partitions:
            for _ in range(count):
                partition.write(b"v")

    def write_soon(self) -> None:
        for number in range(RECORDS - RECORDS_FIRST):
            asyncio.get_running_loop().call_later(0.02 * (number + 1), self.write, 1)

    async def read(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.given) < count:
                self.took(await self.consumer.getmany(timeout_ms=100, max_records=3))

    def took(self, found: dict[TopicPartition, list[AnyRecord]]) -> None:
        self.given.extend(record for records in found.values() for record in records)

    @property
    def offsets(self) -> dict[TopicPartition, list[int]]:
        found: dict[TopicPartition, list[int]] = {key: [] for key in self.keys}
        for record in self.given:
            found[TopicPartition(record.topic, record.partition)].append(record.offset)
        return found

    async def positions(self) -> list[int]:
        return [await self.consumer.position(key) for key in self.keys]


# -- the calls: each leaves the consumer with all partitions ---------------------------------------


async def start(world: World) -> None:
    await world.consumer.start()


async def subscribe(world: World) -> None:
    await world.consumer.subscribe([world.name])


async def subscribe_to_a_pattern(world: World) -> None:
    await world.consumer.subscribe(pattern=world.name)


async def assign(world: World) -> None:
    await world.consumer.assign(world.keys)


async def getmany(world: World) -> None:
    world.write_soon()
    while len(world.given) < PARTITIONS * RECORDS:
        world.took(await world.consumer.getmany(timeout_ms=15, max_records=2))


async def getone(world: World) -> None:
    world.write_soon()
    while len(world.given) < PARTITIONS * RECORDS:
        world.given.append(await world.consumer.getone())


async def iterate(world: World) -> None:
    world.write_soon()
    async for record in world.consumer:
        world.given.append(record)
        if len(world.given) == PARTITIONS * RECORDS:
            break


async def seek_to_time(world: World) -> None:
    await world.consumer.seek_to_time(START_MS + 1)


async def seek_to_beginning(world: World) -> None:
    await world.consumer.seek_to_beginning()


async def seek_to_end(world: World) -> None:
    await world.consumer.seek_to_end()


async def ask(world: World) -> None:
    consumer = world.consumer
    await consumer.position(world.keys[0])
    await consumer.beginning_offsets(world.keys)
    await consumer.end_offsets(world.keys)
    await consumer.offsets_for_times(dict.fromkeys(world.keys, START_MS + 1))
    await consumer.partitions_for(world.name)
    await consumer.lag()


async def stop(world: World) -> None:
    await world.consumer.stop()


# -- what must hold after the call -----------------------------------------------------------------


async def goes_on(world: World) -> None:
    """The records that were not given come, each once and in order."""
    assert await world.positions() == [len(found) for found in world.offsets.values()]
    await ends_well(world)


async def is_at_either(world: World, target: int) -> None:
    """All positions are as before the seek, or all are as after it."""
    before = [len(found) for found in world.offsets.values()]
    assert await world.positions() in (before, [target] * PARTITIONS)
    await world.consumer.seek_to_beginning()
    world.given.clear()
    await ends_well(world)


async def ends_well(world: World) -> None:
    world.write(RECORDS - len(world.partitions[0].values()))
    await world.read(PARTITIONS * RECORDS)
    world.took(await world.consumer.getmany(timeout_ms=200))
    assert world.offsets == {key: list(range(RECORDS)) for key in world.keys}
    await world.consumer.stop()


async def starts_again(world: World) -> None:
    await world.consumer.start()
    await ends_well(world)


async def is_closed(world: World) -> None:
    with pytest.raises(ClosedError):
        await world.consumer.getmany()
    await world.consumer.stop()


@dataclass(frozen=True)
class Call:
    run: Callable[[World], Awaitable[None]]
    then: Callable[[World], Awaitable[None]] = goes_on
    is_started: bool = True
    is_subscribed: bool = True


CALLS = {
    "start": Call(start, starts_again, is_started=False),
    "subscribe": Call(subscribe, is_subscribed=False),
    "subscribe to a pattern": Call(subscribe_to_a_pattern, is_subscribed=False),
    "assign": Call(assign, is_subscribed=False),
    "getmany": Call(getmany),
    "getone": Call(getone),
    "async for": Call(iterate),
    "seek_to_time": Call(seek_to_time, lambda world: is_at_either(world, 1)),
    "seek_to_beginning": Call(seek_to_beginning, lambda world: is_at_either(world, 0)),
    "seek_to_end": Call(seek_to_end, lambda world: is_at_either(world, RECORDS_FIRST)),
    "questions": Call(ask),
    "stop": Call(stop, is_closed),
}


async def play(
    world: World, call: Call, census: Census, at: int | None, when: When
) -> tuple[Steps, Counter[str]]:
    """Play one call. Return its steps, and what the loop has after it beside what it had before."""
    empty, connections = census.take(), world.cluster.network.connections_open
    if call.is_subscribed:
        world.consumer.subscribe([world.name])
    if call.is_started:
        await world.consumer.start()
    if call.is_started and call.is_subscribed:
        await world.read(5)
    steps = Steps(call.run(world), at, when)
    task = asyncio.create_task(steps.run())
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.wait([task])
    if not task.cancelled():
        task.result()
    await asyncio.sleep(SETTLE_S)
    left = census.take() - empty
    left["connections"] = world.cluster.network.connections_open - connections
    return steps, left


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_is_cancelled_at_any_point(name: str) -> None:
    call = CALLS[name]

    async def program(cluster: FakeCluster) -> None:
        cluster.delay_s = DELAY_S
        census = Census()
        reference = World(cluster, "reference")
        whole, kept = await play(reference, call, census, None, When.WAITING)
        await reference.consumer.stop()
        assert whole.suspensions
        for at in range(whole.suspensions):
            for when in When:
                world = World(cluster, f"t{at}-{when.value}")
                try:
                    steps, left = await play(world, call, census, at, when)
                    if steps.was_cancelled:
                        more = left - (kept if call.is_started else Counter())
                        assert not [one for one in more if "FakeBroker" not in one], more
                        await call.then(world)
                    else:
                        await world.consumer.stop()
                except BaseException as error:
                    error.add_note(f"cancelled at suspension {at}: {when.value}")
                    raise

    with_cluster(program)
