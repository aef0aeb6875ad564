"""Followers that are slow, congested or far behind, in a whole simulated cluster, under load."""

from __future__ import annotations

import asyncio

import pytest

from tests.harness.catch_up import (
    Delays,
    backlog,
    fill_backlog,
    make_backlog_topic,
    write,
)
from tests.harness.cluster_scene import Scene, play

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(120)]

MIB = 1 << 20


@pytest.mark.parametrize("partitions", [1, 8, 40])
@pytest.mark.parametrize("megabytes_per_s", [4, 10, 100])
def test_a_follower_that_catches_up_delays_its_in_sync_partitions_little(
    partitions: int, megabytes_per_s: int
) -> None:
    """Without an order of frames, a producer waits for all of the backlog that is under way."""
    size = max(4 * megabytes_per_s, 30) * MIB // 2

    async def story(scene: Scene) -> None:
        leader = scene.state.leader
        follower = 1 - leader
        await make_backlog_topic(scene, [leader, follower], partitions)
        scene.cluster.kill(f"broker-{follower}")
        await fill_backlog(scene, partitions, size)
        scene.cluster.network.set_links(
            [f"broker-{leader}"], [f"broker-{follower}"], bytes_per_s=megabytes_per_s * 1e6
        )
        scene.cluster.start(f"broker-{follower}")
        await scene.whole()
        began, isr_epoch, delays = scene.loop.time(), scene.state.partition_epoch, Delays()
        writing = scene.cluster.spawn_client(lambda: write(scene, delays))
        await scene.until(lambda: all(len(one.isr) == 2 for one in backlog(scene)), "all in sync")
        took_s, during = scene.loop.time() - began, delays.take()
        await asyncio.sleep(0.5)
        delays.is_over.set()
        await writing
        after = delays.take()
        print(f"{partitions} partitions, {took_s:.2f} s: {during[-1]:.0f} ms, {after[-1]:.0f} ms")
        assert during[len(during) // 2] < 60, "half of them"
        assert during[-1] < 200, "the slowest"
        # the link is used: catching up takes little longer than the bytes need
        assert took_s < 1.25 * size / (megabytes_per_s * 1e6) + 0.5
        assert scene.state.partition_epoch == isr_epoch, "no in-sync replica left the ISR"
        assert await scene.read() == scene.acked

    play(story, replicas=2, configs={"min.insync.replicas": "1"})
