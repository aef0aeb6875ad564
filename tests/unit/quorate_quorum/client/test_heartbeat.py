"""Heartbeats go to the controller of the moment, for as long as they are not closed."""

from __future__ import annotations

import asyncio

from quorate_quorum.v1 import controller_pb2 as wire
from tests.unit.quorate_quorum.client.builders import (
    CLUSTER,
    World,
    in_a_world,
    state,
)


def test_heartbeats_are_sent_at_the_interval_and_when_pushed() -> None:
    async def program(world: World) -> None:
        answers: list[wire.HeartbeatResponse] = []
        stream = world.client.heartbeat(state, answers.append)
        await asyncio.sleep(2.2)
        beats = world.voters[0].beats
        assert 4 <= len(beats) <= 6
        assert {beat.cluster_id for beat in beats} == {CLUSTER}
        before = len(beats)
        stream.push()
        await asyncio.sleep(0.001)
        assert len(beats) == before + 1
        assert answers[-1].fenced
        await stream.close()

    in_a_world(program)


def test_heartbeats_move_to_a_new_controller_as_soon_as_the_watch_tells() -> None:
    async def program(world: World) -> None:
        await world.client.start()
        stream = world.client.heartbeat(state, lambda answer: None)
        await asyncio.sleep(1)
        world.voters[0].is_mute = True  # as by SIGSTOP: nothing breaks
        await asyncio.sleep(0.6)
        world.lead(1, 2)
        await asyncio.sleep(0.3)
        assert world.voters[1].beats, "well before the old one's silence is over"
        await stream.close()

    in_a_world(program)


def test_heartbeats_leave_a_controller_that_is_silent() -> None:
    async def program(world: World) -> None:
        stream = world.client.heartbeat(state, lambda answer: None)
        await asyncio.sleep(1)
        asked = world.voters[0].asked.count("heartbeat")
        world.voters[0].is_mute = True
        await asyncio.sleep(3)
        assert world.voters[0].asked.count("heartbeat") > asked
        await stream.close()

    in_a_world(program)


def test_heartbeats_survive_a_killed_controller() -> None:
    async def program(world: World) -> None:
        await world.client.start()
        stream = world.client.heartbeat(state, lambda answer: None)
        await asyncio.sleep(1)
        world.voters[0].kill()
        await asyncio.sleep(0.5)
        world.lead(2, 2)
        await asyncio.sleep(0.6)
        assert world.voters[2].beats
        tries = sum(voter.asked.count("heartbeat") for voter in world.voters)
        assert tries < 20, "with backoff"
        await stream.close()

    in_a_world(program)


def test_a_fault_in_a_callback_stops_the_node() -> None:
    async def program(world: World) -> None:
        def answered(answer: wire.HeartbeatResponse) -> None:
            raise ValueError("a bug")

        stream = world.client.heartbeat(state, answered)
        await asyncio.sleep(1)
        assert "a bug" in world.failures.pop()
        await stream.close()

    in_a_world(program)


def test_news_of_a_leader_while_a_silent_heartbeat_is_being_closed_is_no_fault() -> None:
    async def program(world: World) -> None:
        stream = world.client.heartbeat(state, lambda answer: None)
        await asyncio.sleep(1)
        world.voters[0].is_mute = True
        await asyncio.sleep(0.6)
        timeout = stream._timeout
        assert timeout is not None
        until = timeout.when()
        assert until is not None
        met: list[bool] = []
        turns = iter(range(5))

        def tell() -> None:  # in each turn of the loop around the end of the silence
            met.append(timeout.expired())
            stream.controller_moved("v101:9093")
            if next(turns, None) is not None:
                world.loop.call_soon(tell)

        errors: list[object] = []
        world.loop.set_exception_handler(lambda loop, what: errors.append(what))
        world.loop.call_at(until, tell)
        await asyncio.sleep(until - world.loop.time() + 1)
        assert any(met)
        assert errors == []
        await stream.close()

    in_a_world(program)
