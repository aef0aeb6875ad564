"""A call of a consumer in a group is cancelled at each of its suspensions in turn.

After each cancellation the loop has what it has after the same call without one, the consumer goes
on, no record is passed over or given twice, and no position is beyond what was given. A cancelled
stop() leaves nothing at all.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

import pytest

from quorate import Consumer, Producer, TopicPartition
from quorate.errors import ClosedError
from quorate.model import AnyRecord
from tests.harness.cancellation import Census, Steps, When
from tests.harness.fake_leaders import START_MS, FakeCluster, FakePartition, with_cluster

PARTITIONS = 2
RECORDS_FIRST, RECORDS = 4, 8
#: All that a cancelled call began has ended after this time.
SETTLE_S = 0.3
#: Longer than any call and any read of the rest takes.
PATIENCE_S = 10.0
#: The calls of other tasks end within this time after a stop. Without it they may take 5 s.
STOP_S = 1.0
#: So many points of each call are chosen by the seed. With EVERY_SUSPENSION=1 in the environment,
#: each call is cancelled at every one.
POINTS = 6
SEED = 1
EVERY = bool(os.environ.get("EVERY_SUSPENSION"))

Given = dict[TopicPartition, list[int]]


@dataclass
class World:
    """One consumer of a group of its own, and a topic of its own."""

    cluster: FakeCluster
    name: str
    callback_s: float = 0.0
    given: list[AnyRecord] = field(default_factory=list)
    has: set[TopicPartition] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.has_all = asyncio.Event()
        self.partitions: list[FakePartition] = self.cluster.add_topic(
            self.name, PARTITIONS
        ).partitions
        self.keys = [TopicPartition(self.name, number) for number in range(PARTITIONS)]
        self.write(RECORDS_FIRST)
        self.consumer = self.another()

    def another(self) -> Consumer:
        return Consumer(
            bootstrap_servers=self.cluster.bootstrap,
            group_id=self.name,
            auto_offset_reset="earliest",
            auto_commit_interval_ms=50,
        )

    def write(self, count: int) -> None:
        for partition in self.partitions:
            for _ in range(count):
                partition.write(b"v")

    def write_soon(self) -> None:
        for number in range(RECORDS - RECORDS_FIRST):
            asyncio.get_running_loop().call_later(0.02 * (number + 1), self.write, 1)

    async def on_partitions_assigned(self, keys: list[TopicPartition]) -> None:
        self.has.update(keys)
        if self.has == set(self.keys):
            self.has_all.set()
        await asyncio.sleep(self.callback_s)

    async def on_partitions_revoked(self, keys: list[TopicPartition]) -> None:
        await asyncio.sleep(self.callback_s)
        self.has.difference_update(keys)

    def subscribe(self) -> Awaitable[None]:
        return self.consumer.subscribe([self.name], listener=self)

    async def begin(self) -> None:
        self.subscribe()
        await self.consumer.start()

    async def read(self, count: int) -> None:
        while len(self.given) < count:
            self.took(await self.consumer.getmany(timeout_ms=100, max_records=3))

    def took(self, found: dict[TopicPartition, list[AnyRecord]]) -> None:
        self.given.extend(record for records in found.values() for record in records)

    @property
    def offsets(self) -> Given:
        found: Given = {key: [] for key in self.keys}
        for record in self.given:
            found[TopicPartition(record.topic, record.partition)].append(record.offset)
        return found

    @property
    def committed(self) -> dict[TopicPartition, int]:
        found = self.cluster.coordinator.committed(self.name)
        return {TopicPartition(self.name, number): offset for number, offset in found.items()}

    def check_committed(self) -> None:
        """Nothing is committed that was not given."""
        for key, offset in self.committed.items():
            assert offset <= max(self.offsets[key], default=-1) + 1, (key, offset)


# -- the calls: each leaves the consumer a member that has read all first records ------------------


async def start(world: World) -> None:
    await world.consumer.start()


async def subscribe(world: World) -> None:
    await world.subscribe()


async def unsubscribe(world: World) -> None:
    await world.consumer.unsubscribe()


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


async def commit(world: World) -> None:
    await world.consumer.commit()


async def commit_while_the_coordinator_moves(world: World) -> None:
    world.cluster.coordinator.fail_over(1 - world.cluster.coordinator.leader)
    await world.consumer.commit(dict.fromkeys(world.keys, 1))


async def committed(world: World) -> None:
    for key in world.keys:
        await world.consumer.committed(key)


async def seek_to_time(world: World) -> None:
    await world.consumer.seek_to_time(START_MS + 1)


async def seek_to_time_without_record(world: World) -> None:
    await world.consumer.seek_to_time(START_MS + 1_000_000)


async def seek_to_beginning(world: World) -> None:
    await world.consumer.seek_to_beginning()


async def seek_to_end(world: World) -> None:
    await world.consumer.seek_to_end()


async def lag(world: World) -> None:
    await world.consumer.lag()


async def stop(world: World) -> None:
    await world.consumer.stop()


async def waits_for_a_position(world: World) -> None:
    world.cluster.move(world.name, 0, -1)
    with suppress(ClosedError):
        await world.consumer.seek_to_end(world.keys[0])
    world.cluster.move(world.name, 0, 0)


# -- what must hold after the call -----------------------------------------------------------------


async def goes_on(world: World) -> None:
    """The records that were not given come, each once and in order."""
    positions = {key: await world.consumer.position(key) for key in world.keys}
    assert positions == {key: len(found) for key, found in world.offsets.items()}
    world.check_committed()
    await ends_well(world)


async def is_at_either(world: World, target: int) -> None:
    """All positions are as before the seek, or all are as after it."""
    before = {key: len(found) for key, found in world.offsets.items()}
    positions = {key: await world.consumer.position(key) for key in world.keys}
    assert positions in (before, dict.fromkeys(world.keys, target))
    for key, offset in world.committed.items():
        assert offset <= max(before[key], target)
    await world.consumer.seek_to_beginning()
    world.given.clear()
    await ends_well(world)


async def ends_well(world: World) -> None:
    world.write(RECORDS - len(world.partitions[0].values()))
    async with asyncio.timeout(PATIENCE_S):
        await world.read(PARTITIONS * RECORDS)
    world.took(await world.consumer.getmany(timeout_ms=200))
    assert world.offsets == {key: list(range(RECORDS)) for key in world.keys}
    await world.consumer.commit()
    for key in world.keys:
        assert await world.consumer.committed(key) == RECORDS
    assert world.has == set(world.keys)
    await world.consumer.stop()
    assert world.has == set()
    assert world.committed == dict.fromkeys(world.keys, RECORDS)


async def starts_again(world: World) -> None:
    assert world.has == set(), "told of partitions, and never that they are gone"
    world.has_all.clear()
    await world.consumer.start()
    # a start that was cancelled twice may not have left: the group waits until that member is gone
    async with asyncio.timeout(PATIENCE_S):
        await world.has_all.wait()
    await goes_on(world)


async def subscribes_again(world: World) -> None:
    await world.subscribe()
    await reads_the_rest_from_the_committed_offsets(world)


async def reads_the_rest_from_the_committed_offsets(world: World) -> None:
    world.check_committed()
    begin = {key: world.committed.get(key, 0) for key in world.keys}
    world.given = [
        one for one in world.given if one.offset < begin[TopicPartition(one.topic, one.partition)]
    ]
    await ends_well(world)


async def is_closed(world: World) -> None:
    with pytest.raises(ClosedError):
        await world.consumer.getmany()
    await world.consumer.stop()
    world.has.clear()
    world.consumer = world.another()
    await world.begin()
    await reads_the_rest_from_the_committed_offsets(world)


@dataclass(frozen=True)
class Call:
    run: Callable[[World], Awaitable[None]]
    then: Callable[[World], Awaitable[None]] = goes_on
    is_started: bool = True
    is_subscribed: bool = True
    callback_s: float = 0.0
    #: What another task does meanwhile.
    beside: Callable[[World], Awaitable[None]] | None = None
    at_every_point: bool = False


CALLS = {
    "start": Call(start, starts_again, is_started=False),
    "start, callbacks take time": Call(start, starts_again, is_started=False, callback_s=0.1),
    "subscribe": Call(subscribe, is_subscribed=False, callback_s=0.1),
    "unsubscribe": Call(unsubscribe, subscribes_again, callback_s=0.1),
    "getmany": Call(getmany),
    "getone": Call(getone),
    "async for": Call(iterate),
    "commit": Call(commit),
    "commit while the coordinator moves": Call(commit_while_the_coordinator_moves),
    "committed": Call(committed),
    "seek_to_time": Call(seek_to_time, lambda world: is_at_either(world, 1)),
    "seek_to_time, no record": Call(
        seek_to_time_without_record, lambda world: is_at_either(world, RECORDS_FIRST)
    ),
    "seek_to_beginning": Call(seek_to_beginning, lambda world: is_at_either(world, 0)),
    "seek_to_end": Call(seek_to_end, lambda world: is_at_either(world, RECORDS_FIRST)),
    "lag": Call(lag),
    "stop": Call(stop, is_closed),
    "stop, callbacks take time": Call(stop, is_closed, callback_s=0.1),
    "stop, another task reads": Call(stop, is_closed, beside=iterate),
    "stop, another task waits for a position": Call(
        stop, is_closed, beside=waits_for_a_position, at_every_point=True
    ),
}


async def play(
    world: World, call: Call, census: Census, at: int | None, when: When
) -> tuple[Steps, Counter[str]]:
    """Play one call. Return its steps, and what the loop has after it beside what it had before."""
    empty, connections = census.take(), world.cluster.network.connections_open
    if call.is_subscribed:
        world.subscribe()
    if call.is_started:
        await world.consumer.start()
    if call.is_started and call.is_subscribed:
        # a task that has ended holds no partition back from the call
        await asyncio.create_task(world.read(5))
    beside = None if call.beside is None else asyncio.ensure_future(call.beside(world))
    steps = Steps(call.run(world), at, when)
    task = asyncio.create_task(steps.run())
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.wait([task])
    if not task.cancelled():
        task.result()
    if beside is not None:
        async with asyncio.timeout(STOP_S):
            await beside
    await asyncio.sleep(SETTLE_S)
    left = census.take() - empty
    left["connections"] = world.cluster.network.connections_open - connections
    return steps, left


def cancel_at_points(name: str) -> None:
    """Play a call, whole and then cancelled at each of the chosen points."""
    call = CALLS[name]

    async def program(cluster: FakeCluster) -> None:
        census = Census()
        reference = World(cluster, "reference", callback_s=call.callback_s)
        whole, kept = await play(reference, call, census, None, When.WAITING)
        await reference.consumer.stop()
        if not call.is_started:
            kept = Counter()
        every = [(at, when) for at in range(whole.suspensions) for when in When]
        chosen = (
            every
            if EVERY or call.at_every_point
            else Random(SEED).sample(every, min(POINTS, len(every)))
        )
        for number, (at, when) in enumerate(chosen):
            world = World(cluster, f"t{number}", callback_s=call.callback_s)
            try:
                steps, left = await play(world, call, census, at, when)
                if steps.was_cancelled:
                    assert left - kept == Counter(), left
                    if when is When.TWICE and not call.is_started:
                        world.has.clear()  # the second one left no time for the callbacks
                    await call.then(world)
                else:
                    await world.consumer.stop()
            except BaseException as error:
                error.add_note(f"cancelled at suspension {at} of {whole.suspensions}: {when.value}")
                raise

    print(f"seed {SEED}")
    with_cluster(program)


@pytest.mark.parametrize("name", [name for name in CALLS if name.startswith("start")])
def test_a_start_that_is_cancelled_at_any_point(name: str) -> None:
    cancel_at_points(name)


@pytest.mark.parametrize("name", [name for name in CALLS if name.startswith("stop")])
def test_a_stop_that_is_cancelled_at_any_point(name: str) -> None:
    cancel_at_points(name)


def test_a_stop_that_is_cancelled_ends_the_waits_of_other_tasks() -> None:
    async def program(cluster: FakeCluster) -> None:
        for turns in range(1, 60):
            producer = Producer(bootstrap_servers=cluster.bootstrap)
            await producer.start()
            sending = asyncio.ensure_future(producer.send("missing", b"v"))
            await asyncio.sleep(1)
            assert not sending.done()
            stopping = asyncio.ensure_future(producer.stop())
            for _ in range(turns):
                await asyncio.sleep(0)
            stopping.cancel()
            await asyncio.wait([stopping])
            await asyncio.wait([sending], timeout=0.5)
            assert isinstance(sending.exception(), ClosedError), turns
            await producer.stop()
            if not stopping.cancelled():
                return
        raise AssertionError("no stop came to its end before it was cancelled")

    with_cluster(program)


@pytest.mark.parametrize("name", [one for one in CALLS if not one.startswith(("start", "stop"))])
def test_a_call_that_is_cancelled_at_any_point(name: str) -> None:
    cancel_at_points(name)
