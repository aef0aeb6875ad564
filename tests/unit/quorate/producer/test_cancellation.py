"""A call of a producer is cancelled at each of its suspensions in turn.

After each cancellation the loop has what it has after the same call without one, the producer goes
on, each record is written once and in order, and a send that was cancelled has written nothing. A
cancelled stop() leaves nothing at all, and no delivery without an outcome.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count

import pytest

from quorate import Delivery, Producer
from quorate.errors import ClosedError, DeliveryTimeoutError, OutcomeUnknownError
from tests.harness.cancellation import Census, Steps, When
from tests.harness.fake_leaders import FakeCluster, FakePartition, with_cluster

#: All that a cancelled call began has ended after this time.
SETTLE_S = 0.3
#: Longer than any call takes.
PATIENCE_S = 10.0
#: The brokers answer after this time, so that calls wait.
DELAY_S = 0.02
#: Room for two records of LARGE bytes.
BUFFER_BYTES, LARGE = 3000, 1200
TIMEOUT_MS = 2000


@dataclass
class World:
    """One producer, and a topic of its own."""

    cluster: FakeCluster
    name: str
    deliveries: dict[bytes, Delivery] = field(default_factory=dict)
    #: Values whose send() has not returned.
    unsure: list[bytes] = field(default_factory=list)
    #: Otherwise tasks send at once, in no order among them.
    has_one_sender: bool = True

    def __post_init__(self) -> None:
        self.partitions: list[FakePartition] = self.cluster.add_topic(self.name, 2).partitions
        self.numbers = count()
        self.producer = Producer(
            bootstrap_servers=self.cluster.bootstrap,
            buffer_memory=BUFFER_BYTES,
            delivery_timeout_ms=TIMEOUT_MS,
        )

    def value(self, size: int = 0) -> bytes:
        return b"%06d" % next(self.numbers) + bytes(size)

    async def send(self, size: int = 0, partition: int = 0) -> Delivery:
        value = self.value(size)
        self.unsure.append(value)
        found = await self.producer.send(self.name, value, partition=partition)
        self.unsure.remove(value)
        self.deliveries[value] = found
        return found

    @property
    def written(self) -> list[bytes]:
        return [value for one in self.partitions for value in one.values() if value is not None]


# -- the calls -------------------------------------------------------------------------------------


async def start(world: World) -> None:
    await world.producer.start()


async def send(world: World) -> None:
    await world.send()


async def send_in_a_full_buffer(world: World) -> None:
    for _ in range(4):
        await world.send(LARGE)


async def others_send(world: World) -> None:
    """Wait for room before and behind the call."""
    world.has_one_sender = False
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(world.send(LARGE))
        await asyncio.sleep(0)
        group.create_task(world.send(LARGE))


async def send_to_a_new_partition(world: World) -> None:
    await world.send()
    world.partitions.append(FakePartition())
    world.cluster.image_offset += 1
    await world.send(partition=2)


async def send_one_after_another(world: World) -> None:
    for _ in range(8):
        await (await world.send(LARGE))


async def send_many(world: World) -> None:
    values = [world.value(LARGE) for _ in range(4)]
    world.unsure += values
    found = await world.producer.send_many(world.name, values, partition=1)
    world.deliveries.update(zip(values, found, strict=True))
    world.unsure = [one for one in world.unsure if one not in values]


async def send_and_wait(world: World) -> None:
    value = world.value()
    world.unsure.append(value)
    await world.producer.send_and_wait(world.name, value, partition=0)


async def flush(world: World) -> None:
    for _ in range(2):
        await world.send(LARGE)
    await world.producer.flush()


async def gather(world: World) -> None:
    found = [await world.send() for _ in range(3)]
    await asyncio.gather(*found)


async def partitions_for(world: World) -> None:
    await world.producer.partitions_for(world.name)


async def stop(world: World) -> None:
    await world.producer.stop()


async def sends(world: World) -> None:
    await world.send()


async def sends_without_answer(world: World) -> None:
    world.cluster.fault = lambda *_: "lose"
    await world.send()


# -- what must hold after the call -----------------------------------------------------------------


async def goes_on(world: World) -> None:
    """A call that was cancelled has written nothing; all that was taken is written, once."""
    await writes_all(world)
    assert not set(world.written) & set(world.unsure)


async def wrote_the_first(world: World) -> None:
    """The call has written its first records, and none after one that it has not written."""
    await writes_all(world)
    unsure = [one for one in world.written if one in world.unsure]
    assert unsure == world.unsure[: len(unsure)]


async def writes_all(world: World) -> None:
    assert world.producer._accumulator.flushes == 0
    async with asyncio.timeout(PATIENCE_S):
        for _ in range(4):
            await world.send(LARGE)
        await world.producer.flush()
        await world.producer.stop()
    for value, delivery in world.deliveries.items():
        place = delivery.result()
        assert world.partitions[place.partition].values()[place.offset] == value
    assert len(set(world.written)) == len(world.written)
    assert set(world.written) <= {*world.deliveries, *world.unsure}
    for partition in world.partitions if world.has_one_sender else ():
        values = [value for value in partition.values() if value is not None]
        assert values == sorted(values)


async def starts_again(world: World) -> None:
    await world.producer.start()
    await goes_on(world)


async def is_closed(world: World) -> None:
    world.cluster.fault = lambda *_: None
    for value, delivery in world.deliveries.items():
        error = delivery.exception()
        assert isinstance(error, ClosedError | OutcomeUnknownError | DeliveryTimeoutError | None)
        if not isinstance(error, OutcomeUnknownError | DeliveryTimeoutError):
            assert (error is None) == (value in world.written)
    with pytest.raises(ClosedError):
        await world.producer.send(world.name, b"")
    await world.producer.stop()


@dataclass(frozen=True)
class Call:
    run: Callable[[World], Awaitable[None]]
    then: Callable[[World], Awaitable[None]] = goes_on
    is_started: bool = True
    #: What is done before the call.
    before: Callable[[World], Awaitable[None]] | None = None
    #: What other tasks do meanwhile. It ends, whatever happens to the call.
    beside: Callable[[World], Awaitable[None]] | None = None


CALLS = {
    "start": Call(start, starts_again, is_started=False),
    "send": Call(send),
    "send, full buffer": Call(send_in_a_full_buffer),
    "send, others wait for room": Call(send_in_a_full_buffer, before=sends, beside=others_send),
    "send, new partition": Call(send_to_a_new_partition),
    "send, each awaited": Call(send_one_after_another),
    "send_many": Call(send_many, wrote_the_first),
    "send_and_wait": Call(send_and_wait, wrote_the_first),
    "flush": Call(flush),
    "gather": Call(gather),
    "partitions_for": Call(partitions_for),
    "stop": Call(stop, is_closed, before=sends),
    "stop, no answer": Call(stop, is_closed, before=sends_without_answer),
}


async def play(
    world: World, call: Call, census: Census, at: int | None, when: When
) -> tuple[Steps, Counter[str]]:
    """Play one call. Return its steps, and what the loop has after it beside what it had before."""
    empty, connections = census.take(), world.cluster.network.connections_open
    if call.is_started:
        await world.producer.start()
    if call.before is not None:
        await call.before(world)
    beside = None if call.beside is None else asyncio.ensure_future(call.beside(world))
    steps = Steps(call.run(world), at, when)
    task = asyncio.create_task(steps.run())
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.wait([task])
    if not task.cancelled():
        task.result()
    if beside is not None:
        async with asyncio.timeout(PATIENCE_S):
            await beside
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
        cluster.fault = lambda *_: None
        await reference.producer.stop()
        assert whole.suspensions
        for at in range(whole.suspensions):
            for when in When:
                world = World(cluster, f"t{at}{when.value}")
                try:
                    steps, left = await play(world, call, census, at, when)
                    if steps.was_cancelled:
                        more = left - (kept if call.is_started else Counter())
                        assert more == Counter(), more
                        await call.then(world)
                    else:
                        await world.producer.stop()
                except BaseException as error:
                    error.add_note(f"cancelled at suspension {at}: {when.value}")
                    raise

    with_cluster(program)
