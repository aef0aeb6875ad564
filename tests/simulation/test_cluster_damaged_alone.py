"""A leader with a bad batch that is alone in the ISR: the ELR has what is committed."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from quorate import Producer
from tests.harness.cluster_scene import TOPIC, Scene, flip, play

CONFIGS = {"min.insync.replicas": "2"}
#: The scrub would find the bad batch, too.
WITHOUT_SCRUB = {"log_scrub_bytes_per_second": 0}
pytestmark = [pytest.mark.simulation, pytest.mark.timeout(120)]


async def write_to_the_leader_alone(scene: Scene, count: int) -> None:
    """Write records that no other replica has: with acks=1, below min ISR."""

    async def run() -> None:
        async with Producer(
            bootstrap_servers=scene.cluster.bootstrap_servers, acks=1, enable_idempotence=False
        ) as producer:
            for number in range(count):
                await producer.send_and_wait(TOPIC, b"alone %d" % number, partition=0)

    await scene.cluster.spawn_client(run)


def _has_left(scene: Scene, broker_id: int) -> bool:
    return broker_id not in scene.state.isr


async def leader_alone_in_a_new_reign(scene: Scene) -> int:
    """Leave one replica in the ISR, with records that no other has, and let it begin a reign."""
    await scene.produce(20)
    leader = scene.state.leader
    for broker_id in [b for b in (0, 1, 2) if b != leader]:
        scene.cluster.kill(f"broker-{broker_id}")
        has_left = partial(_has_left, scene, broker_id)
        await scene.until(has_left, "it has left the ISR")
    await write_to_the_leader_alone(scene, 5)
    scene.cluster.kill(f"broker-{leader}")
    await scene.until(lambda: scene.state.leader < 0, "no replica leads")
    scene.cluster.start(f"broker-{leader}")
    await scene.until(lambda: scene.state.leader == leader, "it leads again")
    assert scene.state.isr == (leader,)
    assert len(scene.state.elr) == 1
    return leader


def test_a_damaged_leader_that_is_alone_in_the_isr_gives_way_to_a_member_of_the_elr() -> None:
    """Otherwise no replica could ever read past the bad batch, and the ISR would stay at one."""

    async def act(scene: Scene) -> None:
        leader = await leader_alone_in_a_new_reign(scene)
        await flip(scene, leader, 22)
        scene.cluster.start_all()
        await scene.until(lambda: scene.state.leader not in (leader, -1), "another leads")
        await scene.whole()
        assert scene.state.recovered_epoch < 0, "nothing that is committed is lost"
        await scene.produce(1)
        found = await scene.read()
        assert {offset: found.get(offset) for offset in scene.acked} == scene.acked
        await scene.until(scene.logs_are_equal, "the bad batch is gone")

    play(act, configs=CONFIGS, broker_settings=WITHOUT_SCRUB)


def test_a_damaged_leader_whose_elr_is_away_leads_on_until_it_is_back() -> None:
    """It writes no note of its damage meanwhile: a start would cut what only this log has."""

    async def act(scene: Scene) -> None:
        leader = await leader_alone_in_a_new_reign(scene)
        [in_elr] = scene.state.elr
        [other] = {0, 1, 2} - {leader, in_elr}
        await flip(scene, leader, 22)
        scene.cluster.start(f"broker-{other}")
        await scene.until(lambda: scene.replica(leader).damage.reason is not None, "it is found")
        await asyncio.sleep(5)
        assert scene.state.leader == leader
        assert not scene.replica(leader).damage.is_noted
        scene.cluster.start(f"broker-{in_elr}")
        await scene.until(lambda: scene.state.leader == in_elr, "the ELR has all that is committed")
        await scene.whole()
        assert scene.state.recovered_epoch < 0
        found = await scene.read()
        assert {offset: found.get(offset) for offset in scene.acked} == scene.acked

    play(act, configs=CONFIGS, broker_settings=WITHOUT_SCRUB)
