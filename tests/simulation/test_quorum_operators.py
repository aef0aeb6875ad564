"""The operator of the simulated quorum, and the rule that voters change one at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest

from quorate.errors import QuorateError
from quorate_quorum.controller.decisions.outcome import Outcome
from quorate_quorum.controller.driver.controller import Controller
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.voters import VoterImage, voters_event
from quorate_quorum.raft.machine import voter_change
from quorate_testing.simulated.loop import SimulatedLoop, simulate
from tests.harness.quorum_machines import Machine, Quorum
from tests.harness.quorum_operators import Operator
from tests.harness.quorum_rules import Rules

pytestmark = pytest.mark.simulation


async def led(loop: SimulatedLoop, size: int, spares: int = 0) -> tuple[Quorum, Rules]:
    """Return a quorum that has a leader, and its rules, checked after every event."""
    quorum = Quorum(loop, size, {}, spares=spares)
    rules = Rules(quorum)
    loop.on_instant = rules.check
    await quorum.begin()
    while quorum.leader is None:  # noqa: ASYNC110  # virtual time
        await asyncio.sleep(0.05)
    return quorum, rules


def voters_of(quorum: Quorum) -> list[str]:
    assert quorum.leader is not None
    assert quorum.leader.controller is not None
    ids = [voter.id for voter in quorum.leader.controller.image.voters]
    return [machine.name for machine in quorum.machines if machine.node_id in ids]


def test_an_operator_adds_removes_and_replaces() -> None:
    async def program(loop: SimulatedLoop) -> None:
        quorum, rules = await led(loop, 3, spares=1)
        operator = Operator(quorum)
        one, two, three, spare = quorum.machines
        await asyncio.sleep(2)
        assert await operator.add(spare)
        assert not await operator.add(spare)  # all are voters now
        assert voters_of(quorum) == [m.name for m in quorum.machines]
        assert await operator.remove(one)
        assert not await operator.remove(one)
        assert await operator.wipe(two, 0.5)
        assert voters_of(quorum) == [two.name, three.name, spare.name]
        assert await operator.remove(three)
        assert not await operator.remove(spare)  # two are the least
        assert not await operator.wipe(spare, 0.5)
        assert rules.voter_changes() == 5
        loop.on_instant = None

    simulate(program, 1)


def _without(*gone: int) -> Callable[[MetadataImage], tuple[VoterImage, ...]]:
    return lambda image: tuple(voter for voter in image.voters if voter.id not in gone)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ([(0, 1)], "more than one voter changed"),
        ([(0,), (1,)], "two changes of voters wait for their commit"),
    ],
)
def test_a_voter_that_changes_two_at_once_breaks_the_rule(
    changes: list[tuple[int, ...]], rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The world's rules notice it if the machine allows it."""
    monkeypatch.setattr(voter_change, "check_may_change_voters", lambda *_: None)

    async def program(loop: SimulatedLoop) -> None:
        quorum, _ = await led(loop, 5)
        leader = quorum.leader
        assert leader is not None
        others = [machine.node_id for machine in quorum.machines if machine is not leader]
        for change in changes:
            _propose(leader, _without(*(others[index] for index in change)))
        await asyncio.sleep(5)

    with pytest.raises(Exception, match=rule):
        simulate(program, 1)


def _propose(leader: Machine, wanted: Callable[[MetadataImage], tuple[VoterImage, ...]]) -> None:
    controller, process = leader.controller, leader.process
    assert controller is not None
    assert process is not None
    process.spawn(_run(controller, wanted))


async def _run(
    controller: Controller, wanted: Callable[[MetadataImage], tuple[VoterImage, ...]]
) -> None:
    with contextlib.suppress(QuorateError):
        await controller.active().reign.run(
            lambda image, _: Outcome((voters_event(wanted(image)),), None)
        )
