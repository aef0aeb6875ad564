"""A loop that stands still, and work that fails (docs/guarantees.md, rule loud-failures)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NoReturn

import pytest

from quorate_quorum.node.config import QuorumConfig
from quorate_quorum.node.server import NodeFailed
from tests.unit.quorate_quorum.builders import VoterWorld, in_a_world

#: The shortest time-outs of a voter: without a leader, and in an election.
CONFIG = QuorumConfig(node_id=1, listeners=("h:1",), log_dirs=("/d",))
FETCH_S = CONFIG.quorum_fetch_timeout_ms / 1000
ELECTION_S = CONFIG.quorum_election_timeout_ms / 1000


@pytest.mark.parametrize("leads", [True, False], ids=["leader", "follower"])
def test_a_loop_that_stalls_for_half_an_election_timeout_changes_nothing(leads: bool) -> None:
    """Neither the leader nor a follower loses its place by it (KAFKA-17751)."""

    async def program(world: VoterWorld) -> None:
        await world.start()
        leader = await world.controller()
        broker = await world.broker(1)
        epoch = leader.server.raft.epoch
        stalls = leader if leads else next(one for one in world.voters if one is not leader)
        for number in range(10):
            stalls.process.pause()
            await asyncio.sleep(0.5 * ELECTION_S)
            stalls.process.resume()
            await world.create(broker, f"t{number}")
        assert {one.server.raft.epoch for one in world.voters} == {epoch}

    in_a_world(program)


@pytest.mark.parametrize("leads", [True, False], ids=["leader", "follower"])
def test_a_loop_that_stalls_for_long_costs_one_election_at_most(leads: bool) -> None:
    """A leader is replaced, and follows when it wakes. A follower causes no election."""

    async def program(world: VoterWorld) -> None:
        await world.start()
        leader = await world.controller()
        broker = await world.broker(1)
        await world.create(broker, "before")
        epoch = leader.server.raft.epoch
        others = [one for one in world.voters if one is not leader]
        stalls = leader if leads else others[0]
        for _ in range(3):
            stalls.process.pause()
            await asyncio.sleep(3 * FETCH_S)
            stalls.process.resume()
        await asyncio.sleep(5)
        now = await world.controller()
        assert (now is leader) is not leads
        assert now.server.raft.epoch - epoch <= (2 if leads else 0)
        assert stalls.server.raft.leader_id == now.node_id
        await world.create(broker, "after")
        assert len(now.server.image.sorted_topics()) == 2

    in_a_world(program)


@pytest.mark.parametrize("leads", [True, False], ids=["leader", "follower"])
def test_a_voter_whose_applying_fails_stops_and_says_so(leads: bool) -> None:
    """A task that dies in silence would leave a voter that still acknowledges (PySyncObj #190)."""

    async def program(world: VoterWorld) -> None:
        await world.start()
        leader = await world.controller()
        broker = await world.broker(1)
        fails = leader if leads else next(one for one in world.voters if one is not leader)
        assert fails.server._rooms is not None

        def committed(batches: Sequence[bytes], high_watermark: int) -> NoReturn:
            raise ZeroDivisionError("of a bug in applying")

        fails.server._rooms.controller.committed = committed  # type: ignore[method-assign]
        creating = asyncio.ensure_future(world.create(broker, "t"))
        with pytest.raises(NodeFailed, match="raft applier: ZeroDivisionError: of a bug"):
            await fails.run(fails.server.stopped())
        fails.kill()
        await creating
        others = [one for one in world.voters if one is not fails]
        await world.controller(*others)

    in_a_world(program)
