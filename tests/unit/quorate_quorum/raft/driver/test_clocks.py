"""Wrong clocks, foreign threads, answers that come too late."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import Any

import pytest

from quorate_quorum.raft.machine.events import Written
from tests.harness.raft_machines import leader
from tests.unit.quorate_quorum.builders import VoterWorld, in_a_world

HOUR_MS = 3_600_000


@pytest.mark.parametrize("by_ms", [HOUR_MS, -HOUR_MS], ids=["forward", "back"])
def test_a_wall_clock_that_jumps_ends_no_reign_and_delays_no_election(by_ms: int) -> None:
    """Timers go by the loop's clock alone; an hour is thousands of their longest waits."""

    async def program(world: VoterWorld) -> None:
        await world.start()
        first = await world.controller()
        broker = await world.broker(1)
        epoch = first.server.raft.epoch
        for number, one in enumerate(world.voters):
            one.process.jump_clock(by_ms)
            await asyncio.sleep(3)
            await world.create(broker, f"t{number}")
        assert {one.server.raft.epoch for one in world.voters} == {epoch}
        first.process.jump_clock(-2 * by_ms)
        first.kill()
        others = [one for one in world.voters if one is not first]
        begun_s = world.loop.time()
        second = await world.controller(*others)
        assert second.server.raft.epoch == epoch + 1
        assert world.loop.time() - begun_s < 3

    in_a_world(program)


def test_a_node_is_touched_by_its_own_loop_alone() -> None:
    """KAFKA-15100: another thread is refused before anything has changed."""

    async def program(world: VoterWorld) -> None:
        await world.start()
        first = await world.controller()
        node = first.server.raft
        before = node.describe()
        failures: list[BaseException] = []

        def touch() -> None:
            calls: list[Any] = [
                lambda: node.loop.step(Written(99, 0)),
                lambda: node.hand_over(for_silence=False),
            ]
            for call in calls:
                try:
                    call()
                except RuntimeError as error:
                    failures.append(error)

        thread = threading.Thread(target=touch)
        thread.start()
        thread.join()
        assert len(failures) == 2
        assert node.describe() == before
        assert node.is_leader

    in_a_world(program)


def test_bytes_that_were_read_for_a_reign_or_a_log_that_is_over_are_not_sent() -> None:
    """cockroach #36353: the log may have been cut, and grown again, while they were read."""
    made = leader()
    (reply,) = made.fetch(2, 1, 0)
    assert reply.end == 2
    assert made.raft.still_holds(reply)
    assert not made.raft.still_holds(replace(reply, truncations=reply.truncations + 1))
    made.tick(1500)
    assert made.role == "resigned"
    assert not made.raft.still_holds(reply)
    again = leader(log=[0, 1], epoch=1)
    assert again.epoch != reply.response.epoch
    assert not again.raft.still_holds(reply)
