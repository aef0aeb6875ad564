"""A reign: decide on the pending image, answer what is committed, never more."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from quorate.errors import (
    NotControllerError,
    OutcomeUnknownError,
    OverloadedError,
    UnknownServerError,
)
from quorate_quorum.controller.decisions.outcome import Context, Outcome
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.v1.events_pb2 import MetadataEvent, UnregisterBroker, Voter, Voters
from tests.unit.quorate_quorum.controller.builders import (
    World,
    feature,
    in_a_world,
    nothing,
    one_event,
)


def test_an_answer_is_told_when_it_is_committed() -> None:
    async def program(world: World) -> None:
        world.raft.commits_soon = False
        asking = asyncio.ensure_future(world.run(one_event(7)))
        await asyncio.sleep(1)
        assert not asking.done()
        assert "x" not in world.controller.image.features
        world.raft.commit()
        decided = await asking
        assert (decided.response, decided.apply_offset) == (7, world.raft.high_watermark)
        assert world.controller.image.features["x"] == 7

    in_a_world(program)


def test_each_decision_sees_all_that_was_decided_before_it() -> None:
    async def program(world: World) -> None:
        world.raft.commits_soon = False
        first = asyncio.ensure_future(world.run(one_event(7)))
        second = asyncio.ensure_future(world.run(nothing))
        await asyncio.sleep(1)
        assert not second.done(), "what it saw is not committed"
        world.raft.commit()
        assert (await first).response == 7
        assert (await second).response == 7

    in_a_world(program)


def test_an_answer_without_events_needs_proof_that_this_is_still_the_leader() -> None:
    async def program(world: World) -> None:
        rounds = world.raft.rounds
        await world.run(nothing)
        assert world.raft.rounds == rounds + 1

    in_a_world(program)


def test_losing_the_reign_tells_each_what_is_known() -> None:
    async def program(world: World) -> None:
        world.raft.commits_soon = False
        proposed = asyncio.ensure_future(world.run(one_event(7)))
        depends = asyncio.ensure_future(world.run(nothing))
        await asyncio.sleep(0.1)
        world.raft.lose(101, 2, "v101:9093")
        with pytest.raises(OutcomeUnknownError):
            await proposed
        with pytest.raises(NotControllerError):
            await depends
        with pytest.raises(NotControllerError):
            await world.run(one_event(8))
        assert world.controller.leader_hint == (101, "v101:9093")

    in_a_world(program)


def test_a_new_reign_starts_from_what_is_committed() -> None:
    async def program(world: World) -> None:
        world.raft.commits_soon = False
        lost = asyncio.ensure_future(world.run(one_event(7)))
        await asyncio.sleep(0)
        world.raft.lose(101, 2)
        with pytest.raises(OutcomeUnknownError):
            await lost
        world.raft.commits_soon = True
        world.raft.lead(3)
        assert (await world.run(nothing)).response == -1

    in_a_world(program)


def test_a_large_outcome_is_several_batches_and_answered_when_the_last_commits() -> None:
    async def program(world: World) -> None:
        many = tuple(feature(1, name=f"{n:06}" + "y" * 2000) for n in range(3000))
        before = len(world.raft.batches)
        decided = await world.run(lambda image, context: Outcome(many, "done"))
        batches = world.raft.batches[before:]
        assert len(batches) == 2
        assert all(len(batch) <= 4 << 20 for batch in batches)
        assert decided.apply_offset == world.raft.log_end_offset
        assert len(world.controller.image.features) == 3001

    in_a_world(program)


def test_a_full_log_refuses_and_a_change_of_which_a_part_fitted_is_unknown() -> None:
    async def program(world: World) -> None:
        many = tuple(feature(1, name=f"{n:06}" + "y" * 2000) for n in range(3000))
        world.raft.room = 0
        with pytest.raises(OverloadedError):
            await world.run(one_event(1))
        world.raft.room = 1
        with pytest.raises(OutcomeUnknownError, match="part"):
            await world.run(lambda image, context: Outcome(many, None))
        world.raft.room = None
        assert (await world.run(one_event(1))).response == 1

    in_a_world(program)


def test_a_decision_that_contradicts_the_image_is_refused_and_nothing_of_it_proposed() -> None:
    async def program(world: World) -> None:
        twice = MetadataEvent(voters=Voters(voters=[Voter(id=1), Voter(id=1)]))
        before = world.raft.log_end_offset
        with pytest.raises(UnknownServerError):
            await world.run(lambda image, context: Outcome((twice,), None))
        assert world.raft.log_end_offset == before
        assert (await world.run(one_event(1))).response == 1

    in_a_world(program)


def test_a_committed_batch_that_breaks_the_image_stops_the_node() -> None:
    async def program(world: World) -> None:
        twice = MetadataEvent(voters=Voters(voters=[Voter(id=1), Voter(id=1)]))
        world.raft.propose(1, [twice])
        await asyncio.sleep(0.1)
        assert "the metadata image cannot go on" in world.failures.pop()

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


def test_a_change_in_turns_sees_what_others_propose_between_its_turns() -> None:
    async def program(world: World) -> None:
        seen: list[int] = []

        def watch(events: Sequence[MetadataEvent]) -> None:
            seen.extend(event.feature.level for event in events)

        def step(image: MetadataImage, context: Context) -> Outcome[bool]:
            level = image.features.get("x", 0) + 1
            return Outcome((feature(level),), level >= 6)

        reign = world.controller.active().reign
        in_turns = asyncio.ensure_future(reign.run_in_turns(step, watch))
        await asyncio.sleep(0)
        await asyncio.gather(in_turns, world.run(one_event(4)))
        assert seen[seen.index(4) :] == [4, 5, 6]
        await world.run(one_event(9))
        assert 9 not in seen, "it has ended"

    in_a_world(program)
