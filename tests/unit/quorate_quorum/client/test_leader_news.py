"""The broker's door to the quorum: news of a leader in the turn in which a heartbeat gives up."""

from __future__ import annotations

import asyncio

from tests.unit.quorate_quorum.client.test_client import World, in_a_world, state


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
