"""Leadership transfer with writes going on: the named voter leads, and nothing is lost.

Rule transfer of docs/guarantees.md.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Coroutine

import pytest
import structlog

from quorate.errors import InvalidRequestError, NotControllerError, OverloadedError, StoppingError
from quorate_testing.simulated.loop import SimulatedLoop, simulate
from tests.harness.amounts import few_or_many
from tests.harness.quorum_world import QuorumWorld, SimulatedVoter

pytestmark = pytest.mark.simulation


@pytest.fixture(autouse=True)
def quiet() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def run(
    program: Callable[[QuorumWorld], Coroutine[None, None, None]], size: int = 3, seed: int = 1
) -> None:
    async def whole(loop: SimulatedLoop) -> None:
        world = QuorumWorld(loop, seed, size)
        await world.start()
        await world.elected()
        await program(world)

    simulate(whole, seed)


async def writer(world: QuorumWorld) -> None:
    while True:
        world.propose()
        await world.write()
        await asyncio.sleep(0.01)


def leads(world: QuorumWorld, voter: SimulatedVoter) -> bool:
    return world.leader is voter


async def transfer(leader: SimulatedVoter, voter_id: int | None) -> asyncio.Task[int]:
    """Ask, in the leader's own process; return the task when it is done, or 10 s have passed."""
    assert leader.node is not None
    assert leader.process is not None
    task = leader.process.spawn(leader.node.transfer(voter_id), name="transfer")
    await asyncio.wait([task], timeout=10)
    return task


@pytest.mark.parametrize("seed", range(few_or_many(2, 5)))
def test_the_named_voter_leads_and_nothing_is_lost(seed: int) -> None:
    """Every voter is named in turn, while several writes are under way."""

    async def program(world: QuorumWorld) -> None:
        writing = [asyncio.create_task(writer(world)) for _ in range(3)]
        for _ in range(3):
            for named in world.voters:
                await asyncio.sleep(world.chance.uniform(0.05, 0.4))
                leader = await world.elected()
                task = await transfer(leader, named.id)
                assert task.result() == named.id
                await world.until(functools.partial(leads, world, named), seconds=5)
        for one in writing:
            assert not one.done()
            one.cancel()
        await world.converge()
        world.check_nothing_lost()
        assert len(world.history.acknowledged) > 20

    run(program, 5 if seed % 2 else 3, seed)


def test_without_a_name_another_voter_leads() -> None:
    async def program(world: QuorumWorld) -> None:
        leader = await world.elected()
        task = await transfer(leader, None)
        assert task.result() in [one.id for one in world.voters if one is not leader]

    run(program)


def test_a_voter_that_is_gone_does_not_become_the_leader_and_the_reign_goes_on() -> None:
    """The transfer fails after an election timeout, and then the leader takes writes again."""

    async def program(world: QuorumWorld) -> None:
        leader = await world.elected()
        gone = next(one for one in world.voters if one is not leader)
        gone.kill()
        assert leader.applied is not None
        reign = leader.applied.reign
        assert await world.write()
        task = await transfer(leader, gone.id)
        assert isinstance(task.exception(), OverloadedError)
        assert leader.applied.reign == reign
        assert await world.write()
        gone.start()
        await world.converge()

    run(program)


def test_who_may_not_be_asked_and_who_may_not_be_named() -> None:
    async def program(world: QuorumWorld) -> None:
        leader = await world.elected()
        other = next(one for one in world.voters if one is not leader)
        assert isinstance((await transfer(other, leader.id)).exception(), NotControllerError)
        assert isinstance((await transfer(leader, 7)).exception(), InvalidRequestError)
        assert (await transfer(leader, leader.id)).result() == leader.id
        assert world.leader is leader

    run(program)


def test_another_name_fails_who_waits_for_the_first_and_a_stop_fails_all() -> None:
    """Two administrators name different voters. Neither waits for ever."""

    async def program(world: QuorumWorld) -> None:
        leader = await world.elected()
        first, second = [one for one in world.voters if one is not leader]
        first.kill()
        assert await world.write()
        assert leader.process is not None
        assert leader.node is not None
        waiting = leader.process.spawn(leader.node.transfer(first.id), name="first")
        await asyncio.sleep(0.01)
        assert not waiting.done()
        assert (await transfer(leader, second.id)).result() == second.id
        assert isinstance(waiting.exception(), OverloadedError)
        first.start()
        await world.converge()
        again = world.leader
        assert again is not None
        assert again.process is not None
        assert again.node is not None
        first, second = [one for one in world.voters if one is not again]
        first.kill()
        assert await world.write()
        waiting = again.process.spawn(again.node.transfer(first.id), name="stopped")
        await asyncio.sleep(0.01)
        second.kill()  # no voter can take over
        await again.stop()
        assert isinstance(waiting.exception(), StoppingError)

    run(program)
