"""The raiser: internal topics get more replicas in small batches, and again if the log is full."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from quorate.errors import OverloadedError
from quorate_quorum.controller.decisions.internal_topics import CHANGED_MAX
from quorate_quorum.controller.decisions.outcome import Outcome
from quorate_quorum.metadata.topics import OFFSETS_TOPIC
from quorate_quorum.v1 import events_pb2 as ev
from tests.unit.quorate_quorum.controller.builders import World, in_a_world
from tests.unit.quorate_quorum.metadata.builders import config_event

PARTITIONS = 3 * CHANGED_MAX


async def alone(world: World) -> None:
    """Broker 0 is alone, and the offsets topic has many partitions."""
    await world.unfenced(1)
    many = config_event("offsets.topic.num.partitions", str(PARTITIONS))
    active = world.controller.active()
    active.reign.attempt("configure", lambda image, context: one(many))
    await active.create_internal_topic(OFFSETS_TOPIC)


def one(event: ev.MetadataEvent) -> Outcome[bool]:
    return Outcome((event,), True)


def is_raised(world: World) -> Callable[[], bool]:
    def look() -> bool:
        topic = world.controller.image.topic_named(OFFSETS_TOPIC)
        return topic is not None and all(len(p.target) == 2 for p in topic.partitions)

    return look


def test_a_broker_that_joins_gets_replicas_in_small_batches() -> None:
    async def program(world: World) -> None:
        await alone(world)
        active = world.controller.active()
        sizes: list[int] = []
        told = active.reign.when_proposed

        def count(events: Sequence[ev.MetadataEvent]) -> None:
            sizes.append(len(events))
            told(events)

        active.reign.when_proposed = count
        await world.broker(1)
        await world.until(is_raised(world))
        assert max(sizes) == CHANGED_MAX
        assert sum(size == CHANGED_MAX for size in sizes) == 3

    in_a_world(program)


def test_a_log_that_is_full_delays_the_replicas_alone() -> None:
    async def program(world: World) -> None:
        await alone(world)
        propose, refused = world.raft.propose, 0

        def full(epoch: int, events: Sequence[ev.MetadataEvent]) -> int:
            nonlocal refused
            if len(events) == CHANGED_MAX and refused < 3:
                refused += 1
                raise OverloadedError("the log is full")
            return propose(epoch, events)

        world.raft.propose = full  # type: ignore[method-assign]
        await world.broker(1)
        await world.until(is_raised(world))
        assert refused == 3

    in_a_world(program)
