"""The sweeper: what a broker's state asks of partitions is proposed in turns of the loop."""

from __future__ import annotations

from collections.abc import Sequence

from quorate_quorum.metadata.history import Cause
from quorate_quorum.v1 import events_pb2 as ev
from tests.unit.quorate_quorum.controller.builders import World, in_a_world
from tests.unit.quorate_quorum.metadata.builders import leads

GONE = Cause(ev.CAUSE_KIND_BROKER_GONE, 0)


def test_a_new_reign_completes_what_the_last_one_left_and_unfences_nobody_before() -> None:
    """A broker that leads in the image must not come back to it in the same epoch."""

    async def program(world: World) -> None:
        first, _ = await world.unfenced(2)
        many = await world.create("many", partitions=120)
        active = world.controller.active()
        led = leads(world.controller.image, 0)
        assert led == 60
        # The reign ends with the fence proposed and committed, and nothing of what it asks.
        active.leases.sweeper.take_step = lambda: False  # type: ignore[method-assign]
        active.leases.fencing.fence(GONE)
        world.raft.commit()
        assert leads(world.controller.image, 0) == led
        session = world.session(0)
        session.applied_offset = 1 << 40
        active.leases.unfence(session)
        assert active.reign.pending.brokers[0].fenced, "not while partitions count on it"
        world.raft.lose(101, 2)
        world.raft.lead(3)
        await world.until(lambda: leads(world.controller.image, 0) == 0)
        await world.until(lambda: not world.controller.image.brokers[0].fenced)
        assert first.broker_epoch >= 0
        partitions = world.controller.image.topics[many].partitions
        assert {(p.leader, p.leader_epoch) for p in partitions} == {(1, 0), (1, 1)}

    in_a_world(program)


def test_a_fence_of_many_partitions_goes_to_the_log_in_small_batches() -> None:
    async def program(world: World) -> None:
        await world.unfenced(2)
        await world.create("many", partitions=240)
        active = world.controller.active()
        sizes: list[int] = []
        told = active.reign.when_proposed

        def count(events: Sequence[ev.MetadataEvent]) -> None:
            sizes.append(len(events))
            told(events)

        active.reign.when_proposed = count
        active.leases.fencing.fence(GONE)
        await world.until(lambda: leads(active.reign.pending, 0) == 0)
        assert sizes[0] == 1
        assert 1 < max(sizes) <= 50
        assert sum(sizes) >= 241

    in_a_world(program)


def test_an_older_fencing_that_is_settled_says_nothing_of_a_newer_one() -> None:
    async def program(world: World) -> None:
        await world.unfenced(2)
        await world.create("many", partitions=20)
        active = world.controller.active()
        leases = active.leases
        leases.fencing.fence(GONE)
        await world.until(lambda: leads(world.controller.image, 0) == 0)
        await world.until(lambda: not world.controller.image.brokers[0].fenced)
        leases.sweeper.take_step = lambda: False  # type: ignore[method-assign]
        leases.fencing.fence(GONE)
        session = world.session(0)
        session.applied_offset = 1 << 40
        leases.unfence(session)
        assert active.reign.pending.brokers[0].fenced

    in_a_world(program)


def test_who_shuts_down_goes_only_when_all_partitions_have_been_looked_at() -> None:
    async def program(world: World) -> None:
        await world.unfenced(2)
        await world.create("many", partitions=20)
        active = world.controller.active()
        leases = active.leases
        take_step, leases.sweeper.take_step = leases.sweeper.take_step, lambda: False  # type: ignore[method-assign]
        session = world.session(0)
        session.wants_shutdown = True
        leases.shut_down(session)
        world.raft.commit()
        assert not leases.may_go(session)
        assert not leases.answer(session).should_shut_down
        leases.sweeper.take_step = take_step  # type: ignore[method-assign]
        await world.until(lambda: leads(world.controller.image, 0) == 0)
        await world.until(lambda: leases.may_go(session))
        leases.sweeper.take_step = lambda: False  # type: ignore[method-assign]
        leases.shut_down(session)  # asked again, it is looked at again
        assert not leases.may_go(session)

    in_a_world(program)
