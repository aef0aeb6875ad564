"""Replicas enter the ISR while writes go on, in a whole simulated cluster.

The round trip to them takes longer than the pause between two commits, so they never have all that
is committed when their fetch arrives.
"""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest

from quorate import Producer, TopicPartition
from quorate_broker.replica.awaited import AwaitedReplicas, wait_ms
from tests.harness.catch_up import Delays, write
from tests.harness.cluster_scene import TOPIC, Scene, play
from tests.harness.scene_clients import ask

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(120)]

LAG_S = 10


def link(scene: Scene, broker_id: int, delay_ms: float) -> None:
    """Give the links between one broker and the others a delay."""
    names = {node.name for node in scene.cluster.brokers}
    far = f"broker-{broker_id}"
    scene.cluster.network.set_links(
        sorted(names - {far}), [far], delay_min_ms=delay_ms, delay_max_ms=delay_ms
    )


async def flow(
    scene: Scene, is_over: asyncio.Event, acks: Literal["all", 1], a_second: int
) -> None:
    """Write records at a constant rate, without waiting for their acknowledgements."""
    async with Producer(
        bootstrap_servers=scene.cluster.bootstrap_servers, acks=acks, linger_ms=0
    ) as producer:
        while not is_over.is_set():
            await producer.send(TOPIC, b"." * 100, partition=0)
            await asyncio.sleep(1 / a_second)


async def add_replica(scene: Scene, broker_id: int) -> None:
    target = [*scene.state.broker_ids, broker_id]
    key = TopicPartition(TOPIC, 0)
    assert await ask(scene, lambda a: a.reassign_partitions({key: target})) == {key: None}


def other_than(scene: Scene, *broker_ids: int) -> int:
    return next(n for n in range(len(scene.cluster.brokers)) if n not in broker_ids)


@pytest.mark.parametrize(("delay_ms", "a_second"), [(3, 400), (30, 50), (200, 100)])
@pytest.mark.parametrize("acks", ["all", 1])
def test_a_replica_enters_the_isr_while_writes_go_on(
    acks: Literal["all", 1], delay_ms: int, a_second: int
) -> None:
    """With acks=1 the leader is alone in the ISR, and commits each record at once."""

    async def story(scene: Scene) -> None:
        leader, is_over = scene.state.leader, asyncio.Event()
        far = other_than(scene, *scene.state.broker_ids)
        link(scene, far, delay_ms)
        writing = scene.cluster.spawn_client(lambda: flow(scene, is_over, acks, a_second))
        await asyncio.sleep(1)
        await add_replica(scene, far)
        await scene.until(lambda: far in scene.state.isr, "it is in the ISR", within_s=2 * LAG_S)
        assert not scene.state.is_reassigned
        isr_epoch = scene.state.partition_epoch
        await asyncio.sleep(1.5 * LAG_S)
        assert scene.state.leader == leader
        assert scene.state.partition_epoch == isr_epoch, "it stays"
        is_over.set()
        await writing

    play(
        story,
        replicas=2 if acks == "all" else 1,
        brokers=3 if acks == "all" else 2,
        configs={"min.insync.replicas": "1"},
    )


def test_a_replica_that_dies_when_it_is_about_to_enter_delays_commits_once_and_little() -> None:
    """Its link is cut as soon as the high watermark waits for it; it stays eligible for a while."""
    delay_ms = 30

    async def story(scene: Scene) -> None:
        leader, delays = scene.state.leader, Delays()
        far = other_than(scene, *scene.state.broker_ids)
        link(scene, far, delay_ms)
        writing = scene.cluster.spawn_client(lambda: write(scene, delays))
        await asyncio.sleep(1)
        assert delays.take()[-1] < 50
        await add_replica(scene, far)
        awaited: AwaitedReplicas = scene.replica(leader).as_leader().machine.awaited
        await scene.until(lambda: far in awaited.broker_ids, "the high watermark waits")
        ours, theirs = [f"broker-{leader}"], [f"broker-{far}"]
        scene.cluster.network.cut(ours, theirs)
        await asyncio.sleep(LAG_S - 2)
        found = delays.take()
        longest = wait_ms(3 * delay_ms, LAG_S * 1000)
        assert longest is not None
        print(f"{len(found)} writes, the slowest {found[-1]:.0f} ms, the second {found[-2]:.0f} ms")
        assert 2 * delay_ms < found[-1] < longest
        assert found[-2] < 50, "the others do not wait"
        assert far not in scene.state.isr

        scene.cluster.network.heal(ours, theirs)
        await scene.until(lambda: far in scene.state.isr, "it is in the ISR", within_s=3 * LAG_S)
        assert delays.take()[-1] < longest
        delays.is_over.set()
        await writing
        assert await scene.read() == scene.acked

    play(story, replicas=2, brokers=3, configs={"min.insync.replicas": "2"})
