"""The driver of the leases: what a reign finds, what an older run says, what breaks inside."""

from __future__ import annotations

import asyncio

import pytest

from quorate_quorum.controller.decisions.outcome import Context, Outcome
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.v1.events_pb2 import MetadataEvent, UnregisterBroker
from tests.unit.quorate_quorum.controller.builders import World, feature, in_a_world


def test_an_older_run_fails_no_directory_of_a_newer_registration() -> None:
    async def program(world: World) -> None:
        (first,) = await world.unfenced(1)
        active = world.controller.active()
        session = world.session(0)
        world.raft.commits_soon = False
        assert first.listener is not None
        await first.listener.stop(0)
        taking_over = asyncio.ensure_future(world.broker(0))
        await world.until(lambda: active.reign.pending.brokers[0].epoch != session.broker_epoch)
        beat = first._state()
        beat.failed_directories.append(first.directory_id)
        active.leases.take(session, beat)
        (directory,) = active.reign.pending.brokers[0].directories
        assert not directory.failed
        world.raft.commits_soon = True
        world.raft.commit()
        await taking_over

    in_a_world(program)


def test_a_broken_invariant_of_the_leases_stops_the_node() -> None:
    async def program(world: World) -> None:
        (broker,) = await world.unfenced(1)
        active = world.controller.active()
        liveness = active.leases.liveness

        def broken(broker_id: int, incarnation: bytes) -> None:
            raise AssertionError("a bug")

        liveness.heard = broken  # type: ignore[method-assign]
        with pytest.raises(AssertionError, match="a bug"):
            active.leases.take(world.session(0), broker._state())
        assert "a bug" in world.failures.pop()
        del liveness.heard

    in_a_world(program)


def test_nothing_of_an_outcome_is_proposed_unless_all_of_it_fits_the_image() -> None:
    def half_wrong(image: MetadataImage, context: Context) -> Outcome[None]:
        large = [feature(n, f"{n}" + "x" * 1_000_000) for n in range(6)]
        wrong = MetadataEvent(unregister_broker=UnregisterBroker(broker_id=77, broker_epoch=1))
        return Outcome((*large, wrong), None)

    async def program(world: World) -> None:
        before = world.raft.log_end_offset
        active = world.controller.active()
        with pytest.raises(AssertionError, match="77"):
            active.reign.decide(half_wrong)
        assert world.raft.log_end_offset == before

    in_a_world(program)
