"""The ISR keeper checks only partitions whose ISR may have to change."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from quorate_broker.replica.leader_replica import LeaderReplica
from tests.unit.quorate_broker.builders import World, until

LAG_MS = 400


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World(lag_ms=LAG_MS)
    yield world
    await world.stop()


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The brokers that were asked for a proposal, one entry for each check of a partition."""
    found: list[int] = []
    propose = LeaderReplica.propose_isr

    def counted(role: LeaderReplica, *arguments: object) -> object:
        found.append(role.machine.broker_id)
        return propose(role, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(LeaderReplica, "propose_isr", counted)
    return found


async def until_settled(world: World) -> LeaderReplica:
    role = world.brokers[1].partition.as_leader()
    await until(lambda: role.machine.is_settled, what="settled")
    return role


async def test_an_idle_partition_with_a_complete_isr_is_not_checked(
    world: World, checks: list[int]
) -> None:
    await world.start()
    await world.brokers[1].produce(b"a")
    await until_settled(world)
    checks.clear()
    await world.brokers[1].isr.look()
    assert checks == []


async def test_an_append_begins_the_checks_again(world: World, checks: list[int]) -> None:
    await world.start()
    role = await until_settled(world)
    checks.clear()
    await world.brokers[1].produce(b"a")
    await until_settled(world)
    assert checks
    assert role.machine.isr == (1, 2, 3)


async def test_a_follower_that_dies_while_all_is_idle_leaves_the_isr(world: World) -> None:
    await world.start()
    await world.brokers[1].produce(b"a")
    await until_settled(world)
    await world.brokers[3].stop()
    await until(lambda: world.state.isr == (1, 2), what="the ISR without it")


async def test_a_follower_on_a_newer_stream_is_missed_when_that_one_ends(world: World) -> None:
    """The keeper knew only the older stream, which kept the partition settled at first."""
    await world.start()
    await world.brokers[1].produce(b"a")
    await until_settled(world)
    await world.brokers[3].stop()
    await world.brokers[3].start()
    await world.register(world.brokers[3])
    await until_settled(world)
    await world.brokers[3].stop()
    await until(lambda: world.state.isr == (1, 2), what="the ISR without it")
