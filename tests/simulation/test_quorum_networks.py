"""Partial connectivity (R26): links that fail one by one, not nodes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

import pytest
import structlog

from quorate_testing.simulated.loop import SimulatedLoop, simulate
from tests.harness.quorum_world import QuorumWorld, SimulatedVoter

pytestmark = pytest.mark.simulation

Link = tuple[SimulatedVoter, SimulatedVoter, bool]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


def quorum_loss(leader: SimulatedVoter, others: list[SimulatedVoter]) -> list[Link]:
    """Only one voter still reaches all; the old leader reaches that one alone."""
    hub = others[0]
    rest = [leader, *others[1:]]
    return [(one, two, False) for one in rest for two in rest if one is not two and two is not hub]


def chain(leader: SimulatedVoter, others: list[SimulatedVoter]) -> list[Link]:
    """A - leader - B: the ends do not see each other."""
    return [(others[0], others[1], False)]


def chain_with_leader_at_the_end(
    leader: SimulatedVoter, others: list[SimulatedVoter]
) -> list[Link]:
    """leader - A - B."""
    return [(leader, others[1], False)]


def leader_does_not_hear_one(leader: SimulatedVoter, others: list[SimulatedVoter]) -> list[Link]:
    return [(others[0], leader, True)]


def one_does_not_hear_the_leader(
    leader: SimulatedVoter, others: list[SimulatedVoter]
) -> list[Link]:
    return [(leader, others[0], True)]


def nobody_hears_the_leader(leader: SimulatedVoter, others: list[SimulatedVoter]) -> list[Link]:
    return [(leader, other, True) for other in others]


def the_leader_hears_nobody(leader: SimulatedVoter, others: list[SimulatedVoter]) -> list[Link]:
    return [(other, leader, True) for other in others]


@pytest.mark.parametrize(
    ("links", "size"),
    [
        (quorum_loss, 5),
        (chain, 3),
        (chain_with_leader_at_the_end, 3),
        (leader_does_not_hear_one, 3),
        (one_does_not_hear_the_leader, 3),
        (nobody_hears_the_leader, 3),
        (the_leader_hears_nobody, 5),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_a_quorum_that_can_still_commit_settles_on_one_leader_and_commits(
    links: Callable[[SimulatedVoter, list[SimulatedVoter]], list[Link]], size: int, seed: int
) -> None:
    async def program(loop: SimulatedLoop) -> None:
        world = QuorumWorld(loop, seed, size)
        await world.start()
        leader = await world.elected()
        await asyncio.sleep(1)
        others = [voter for voter in world.voters if voter is not leader]
        for one, other, one_way in links(leader, others):
            world.network.cut([one.name], [other.name], one_way=one_way)
        await asyncio.sleep(10)

        settled = world.leader
        assert settled is not None
        assert settled.node is not None
        epoch = settled.node.epoch
        for _ in range(20):
            assert await world.write()
            await asyncio.sleep(0.5)
        assert world.leader is settled
        assert settled.node.epoch == epoch, "one leader, not one after the other"
        await world.converge()

    simulate(program, seed)


def test_the_same_seed_gives_the_same_run() -> None:
    """Determinism: every role change at the same moment, twice."""

    def once() -> list[tuple[float, str]]:
        seen: list[tuple[float, str]] = []

        def note(_logger: Any, _method: str, entry: MutableMapping[str, Any]) -> Mapping[str, Any]:
            if entry.get("event") == "raft role":
                seen.append((loops[0].time(), str(sorted(entry.items(), key=str))))
            raise structlog.DropEvent

        loops: list[SimulatedLoop] = []

        async def program(loop: SimulatedLoop) -> None:
            loops.append(loop)
            world = QuorumWorld(loop, 7, 5)
            await world.start()
            for _ in range(4):
                leader = await world.elected()
                assert await world.write()
                leader.lose_power()
                await asyncio.sleep(1)
                leader.start()

        structlog.configure(
            processors=[note], wrapper_class=structlog.make_filtering_bound_logger(logging.INFO)
        )
        simulate(program, 7)
        return seen

    first, second = once(), once()
    assert first == second
    assert len(first) > 20
