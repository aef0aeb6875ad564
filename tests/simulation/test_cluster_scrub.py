"""Damage that no reader meets is found in the background, and healed without human hands."""

from __future__ import annotations

import asyncio

import pytest

from tests.harness.cluster_scene import LOG, Scene, flip, play

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(120)]


@pytest.mark.parametrize("is_leader", [True, False])
@pytest.mark.parametrize("is_restarted", [True, False])
def test_a_bad_batch_that_nobody_reads_is_healed(*, is_leader: bool, is_restarted: bool) -> None:
    async def act(scene: Scene) -> None:
        await scene.produce(100)
        if is_restarted:
            for node in scene.cluster.brokers:
                await scene.cluster.stop(node.name)
            scene.cluster.start_all()
            await scene.whole()
        leader = scene.state.leader
        hurt = leader if is_leader else next(b for b in scene.state.isr if b != leader)
        await flip(scene, hurt, 50)
        assert not scene.logs_are_equal()
        await scene.until(scene.logs_are_equal, "the bad batch is gone", within_s=200)
        await scene.whole()
        assert (scene.state.leader == leader) == (not is_leader), "a damaged leader gives way"
        assert scene.state.recovered_epoch < 0
        first = "replica_damaged" if is_leader else "replica offline"
        assert {first, "replica_lossy", "replica_salvaged"} <= set(scene.told)
        assert await scene.read() == scene.acked

    play(act)


def test_a_damaged_only_copy_is_told_and_serves_the_rest() -> None:
    async def act(scene: Scene) -> None:
        await scene.produce(100)
        leader = scene.state.leader
        await flip(scene, leader, 50)
        await scene.until(
            lambda: scene.replica(leader).damage.reason is not None, "it is found", within_s=200
        )
        await asyncio.sleep(200)
        assert scene.replica(leader).is_leader
        assert scene.replica(leader).log_end_offset == 100
        await scene.produce(1)

    play(act, replicas=1)


def test_nothing_is_looked_for_at_a_rate_of_0() -> None:
    async def act(scene: Scene) -> None:
        await scene.produce(100)
        follower = next(b for b in scene.state.isr if b != scene.state.leader)
        await flip(scene, follower, 50)
        bad = scene.node(follower).disk.content(LOG)
        await asyncio.sleep(500)
        assert scene.node(follower).disk.content(LOG) == bad

    play(act, broker_settings={"log_scrub_bytes_per_second": 0})
