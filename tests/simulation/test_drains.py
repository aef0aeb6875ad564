"""Brokers are drained, stopped and brought back, in a whole simulated cluster, under load."""

from __future__ import annotations

import asyncio
import random

import pytest

from quorate import BrokerDrain, Consumer, TopicPartition
from quorate.errors import InvalidRequestError, UnknownBrokerError
from tests.harness.cluster_scene import TOPIC, Scene, play
from tests.harness.scene_clients import ask, flow

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(120)]

KEY = TopicPartition(TOPIC, 0)
#: The longest time without an acknowledgement, while a leader takes over from another.
GAP_S = 0.1


@pytest.mark.parametrize("seed", range(3))
def test_a_drain_and_a_stop_make_no_long_gap_and_lose_nothing(seed: int) -> None:
    chance = random.Random(seed)

    async def story(scene: Scene) -> None:
        gaps: list[float] = []
        is_over = asyncio.Event()
        writing = scene.cluster.spawn_client(lambda: flow(scene, gaps, is_over))
        for _ in range(3):
            await asyncio.sleep(0.2)
            gaps.clear()
            leader = scene.state.leader
            drain = await ask(scene, lambda admin, b=leader: admin.drain_broker(b))  # type: ignore[misc]
            assert (drain.leaders_moved, drain.left_count) == (1, 0)
            assert scene.state.leader != leader
            await asyncio.sleep(chance.choice([0.0, 0.3]))
            await scene.cluster.stop(f"broker-{leader}")
            await asyncio.sleep(0.2)
            assert max(gaps) < GAP_S
            scene.cluster.start(f"broker-{leader}")
            await scene.whole()
            described = await ask(scene, lambda admin: admin.describe_cluster())
            assert [b.id for b in described.brokers if b.drained] == [leader]
            assert await ask(scene, lambda admin, b=leader: admin.undrain_broker(b))  # type: ignore[misc]
            assert not await ask(scene, lambda admin, b=leader: admin.undrain_broker(b))  # type: ignore[misc]
        is_over.set()
        await writing
        assert await scene.read() == scene.acked
        await scene.until(scene.logs_are_equal, "the replicas have equal logs")

    play(story, configs={"min.insync.replicas": "2"}, seed=seed)


def test_a_broker_whose_replicas_were_drained_can_be_unregistered() -> None:
    async def story(scene: Scene) -> None:
        gaps: list[float] = []
        is_over = asyncio.Event()
        writing = scene.cluster.spawn_client(lambda: flow(scene, gaps, is_over))
        await asyncio.sleep(0.2)
        gone = scene.state.leader
        drain = await ask(scene, lambda admin: admin.drain_broker(gone, replicas=True))
        assert (drain.leaders_moved, drain.replicas_moved, drain.left_count) == (1, 1, 0)
        await scene.until(
            lambda: gone not in scene.state.broker_ids and not scene.state.is_reassigned,
            "another broker has the replica",
        )
        assert len(scene.state.broker_ids) == 3
        await scene.cluster.stop(f"broker-{gone}")
        await asyncio.sleep(20)  # the session of the broker ends
        await ask(scene, lambda admin: admin.unregister_broker(gone))
        is_over.set()
        await writing
        described = await ask(scene, lambda admin: admin.describe_cluster())
        assert gone not in [broker.id for broker in described.brokers]
        assert await scene.read() == scene.acked

    play(story, brokers=4, configs={"min.insync.replicas": "2"})


def test_internal_topics_get_their_replicas_when_brokers_are_undrained() -> None:
    """They were made while two of three brokers were drained."""

    async def story(scene: Scene) -> None:
        for broker_id in (1, 2):
            await ask(scene, lambda admin, b=broker_id: admin.drain_broker(b))  # type: ignore[misc]

        async def join() -> None:
            async with Consumer(
                TOPIC, bootstrap_servers=scene.cluster.bootstrap_servers, group_id="g"
            ) as consumer:
                await consumer.getmany(timeout_ms=100)

        await scene.cluster.spawn_client(join)
        for broker_id in (1, 2):
            await ask(scene, lambda admin, b=broker_id: admin.undrain_broker(b))  # type: ignore[misc]
        for _ in range(100):
            found = await ask(scene, lambda admin: admin.describe_topics(["__consumer_offsets"]))
            [topic] = found.values()
            if all(len(one.isr) == 3 for one in topic.partitions):
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"{topic} has not all replicas")

    play(story, voter_settings={"auto_leader_rebalance_enable": False})


async def replaced(scene: Scene, broker_id: int) -> BrokerDrain:
    return await ask(scene, lambda admin: admin.drain_broker(broker_id, replicas=True))


def test_all_brokers_are_replaced_one_after_the_other_under_load() -> None:
    """Two calls drain each at once. The last one has no broker to go to, and keeps its replica."""

    async def story(scene: Scene) -> None:
        gaps: list[float] = []
        is_over = asyncio.Event()
        writing = scene.cluster.spawn_client(lambda: flow(scene, gaps, is_over))
        await asyncio.sleep(0.2)
        first = list(scene.state.broker_ids)
        for gone in first[:2]:
            drains = await asyncio.gather(replaced(scene, gone), replaced(scene, gone))
            assert sum(one.replicas_moved for one in drains) == 1
            assert [one.left_count for one in drains] == [0, 0]
            await scene.until(
                lambda b=gone: b not in scene.state.broker_ids and not scene.state.is_reassigned,  # type: ignore[misc]
                "another broker has the replica",
            )
            assert len(scene.state.isr) == 3
        last = await replaced(scene, first[2])
        [why] = last.left.values()
        assert "no other live broker can take the replica" in why
        assert first[2] in scene.state.isr
        is_over.set()
        await writing
        assert await scene.read() == scene.acked

    play(story, brokers=5, configs={"min.insync.replicas": "3"})


def test_a_broker_that_runs_or_has_replicas_is_not_unregistered() -> None:
    async def story(scene: Scene) -> None:
        broker_id = scene.state.broker_ids[1]

        async def refusal(text: str) -> None:
            with pytest.raises(InvalidRequestError, match=text):
                await ask(scene, lambda admin: admin.unregister_broker(broker_id))

        await refusal("runs: stop it first")
        await ask(scene, lambda admin: admin.drain_broker(broker_id))
        await refusal("runs: stop it first")
        scene.cluster.pause(f"broker-{broker_id}")
        await scene.until(lambda: broker_id not in scene.state.isr, "the broker is fenced")
        await refusal("runs: stop it first")
        scene.cluster.kill(f"broker-{broker_id}")
        await asyncio.sleep(20)  # the session of the broker ends
        await refusal(f"broker {broker_id} still holds 1 replicas of partitions: move them")
        drain = await ask(scene, lambda admin: admin.drain_broker(broker_id, replicas=True))
        assert (drain.was_drained, drain.replicas_moved) == (True, 1)
        await scene.until(
            lambda: broker_id not in scene.state.broker_ids and not scene.state.is_reassigned,
            "another broker has the replica",
        )
        await ask(scene, lambda admin: admin.unregister_broker(broker_id))
        with pytest.raises(UnknownBrokerError, match="is not registered; "):
            await ask(scene, lambda admin: admin.unregister_broker(broker_id))
        with pytest.raises(UnknownBrokerError):
            await ask(scene, lambda admin: admin.undrain_broker(broker_id))

    play(story, brokers=4)
