"""Elections on request, in a whole simulated cluster."""

from __future__ import annotations

import asyncio

import pytest

from quorate import LeaderElection, TopicPartition
from quorate.errors import (
    ElectionNotNeededError,
    EligibleLeadersNotAvailableError,
    PreferredLeaderNotAvailableError,
    UnknownTopicError,
)
from quorate_cli.node_disks import format_broker
from tests.harness.cluster_scene import TOPIC, Scene, play
from tests.harness.scene_clients import ask, flow

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(120)]

KEY = TopicPartition(TOPIC, 0)
#: The longest time without an acknowledgement, while a leader takes over from another.
GAP_S = 0.1


async def elect(scene: Scene, *, unclean: bool = False) -> LeaderElection:
    found = await ask(scene, lambda admin: admin.elect_leaders([KEY], unclean=unclean))
    return found[KEY]


@pytest.mark.parametrize("seed", range(2))
def test_a_preferred_election_under_load_loses_nothing_and_makes_no_long_gap(seed: int) -> None:
    async def story(scene: Scene) -> None:
        preferred = scene.state.broker_ids[0]
        name = f"broker-{preferred}"
        gaps: list[float] = []
        is_over = asyncio.Event()
        writing = scene.cluster.spawn_client(lambda: flow(scene, gaps, is_over))
        for _ in range(2):
            await scene.cluster.stop(name)
            assert scene.state.leader != preferred
            refused = await elect(scene)
            assert isinstance(refused.error, PreferredLeaderNotAvailableError)
            scene.cluster.start(name)
            await scene.whole()
            await asyncio.sleep(0.2)
            gaps.clear()
            assert await elect(scene) == LeaderElection(preferred, None)
            await asyncio.sleep(0.3)
            assert len(gaps) > 50
            assert max(gaps) < GAP_S
            again = await elect(scene)
            assert isinstance(again.error, ElectionNotNeededError)
        is_over.set()
        await writing
        read = await scene.read()
        assert read == scene.acked, "each record is there, once"
        assert [int(value) for _, value in sorted(read.items())] == list(range(scene.sent))
        await scene.until(scene.logs_are_equal, "the replicas have equal logs")

    play(story, configs={"min.insync.replicas": "2"}, seed=seed)


def test_all_partitions_have_their_election_and_others_are_refused() -> None:
    async def story(scene: Scene) -> None:
        preferred = scene.state.broker_ids[0]
        await scene.cluster.stop(f"broker-{preferred}")
        scene.cluster.start(f"broker-{preferred}")
        await scene.whole()
        found = await ask(scene, lambda admin: admin.elect_leaders())
        assert found == {KEY: LeaderElection(preferred, None)}
        assert await ask(scene, lambda admin: admin.elect_leaders()) == {}
        wrong = [TopicPartition(TOPIC, 9), TopicPartition("nothing", 0)]
        found = await ask(scene, lambda admin: admin.elect_leaders(wrong))
        assert all(isinstance(one.error, UnknownTopicError) for one in found.values())
        assert found.keys() == set(wrong)

    play(story)


def test_an_unclean_election_lets_the_furthest_of_the_replicas_that_are_alive_lead() -> None:
    """The last member of the ISR is gone for good, and an operator accepts the loss."""

    async def story(scene: Scene) -> None:
        last, *others = scene.state.broker_ids
        await scene.produce(20)
        for broker_id in others:
            scene.cluster.kill(f"broker-{broker_id}")
            await scene.until(lambda gone=broker_id: gone not in scene.state.isr, "it left")  # type: ignore[misc]
            await scene.produce(10)
        scene.cluster.kill(f"broker-{last}")
        await scene.until(lambda: scene.state.leader < 0, "no replica leads")
        for broker_id in others:
            scene.cluster.start(f"broker-{broker_id}")
        await asyncio.sleep(3)
        assert scene.state.leader < 0, "no replica leads by itself"
        refused = await elect(scene)
        assert isinstance(refused.error, PreferredLeaderNotAvailableError)
        furthest = others[1]  # it left last
        assert await elect(scene, unclean=True) == LeaderElection(
            furthest, None, may_have_lost=True
        )
        assert scene.state.recovered_epoch == scene.state.leader_epoch
        assert "partition_recovered_with_possible_loss" in scene.told
        read = await scene.read()
        assert sorted(read) == list(range(30)), "the last 10 records are lost, and no other"
        found = await elect(scene, unclean=True)
        assert isinstance(found.error, ElectionNotNeededError)

    play(story, configs={"min.insync.replicas": "1"})


def test_the_only_replica_begins_empty_on_a_replaced_disk_if_an_operator_asks() -> None:
    async def story(scene: Scene) -> None:
        await scene.produce(20)
        [only] = scene.state.broker_ids
        node = scene.node(only)
        scene.cluster.kill(node.name)
        await scene.until(lambda: scene.state.leader < 0, "no replica leads")
        refused = await elect(scene, unclean=True)
        assert isinstance(refused.error, EligibleLeadersNotAvailableError)
        assert f"broker {only} is not alive: start it" in str(refused.error)
        node.disk.lose_directory("/data")
        await format_broker(scene.cluster.cluster_id, node.node_id, ["/data"], disk=node.disk)
        scene.cluster.start(node.name)
        await scene.until(scene.all_unfenced, "the broker is back, and takes part")
        await asyncio.sleep(120)
        assert scene.state.leader < 0, "the disk may come back: it does not begin empty by itself"
        assert await elect(scene, unclean=True) == LeaderElection(only, None, may_have_lost=True)
        assert scene.state.recovered_epoch == scene.state.leader_epoch
        scene.acked.clear()
        await scene.produce(5)
        assert await scene.read() == scene.acked

    play(story, brokers=3, replicas=1)


def test_preferred_replicas_lead_again_by_themselves() -> None:
    async def story(scene: Scene) -> None:
        preferred = scene.state.broker_ids[0]
        gaps: list[float] = []
        is_over = asyncio.Event()
        writing = scene.cluster.spawn_client(lambda: flow(scene, gaps, is_over))
        await scene.cluster.stop(f"broker-{preferred}")
        scene.cluster.start(f"broker-{preferred}")
        await scene.whole()
        assert scene.state.leader != preferred
        gaps.clear()
        await scene.until(lambda: scene.state.leader == preferred, "the preferred one leads")
        await asyncio.sleep(0.2)
        assert max(gaps) < GAP_S
        is_over.set()
        await writing
        assert await scene.read() == scene.acked

    play(story, voter_settings={"leader_imbalance_check_interval_seconds": 5})


def test_preferred_replicas_stay_followers_if_the_setting_says_so() -> None:
    async def story(scene: Scene) -> None:
        preferred = scene.state.broker_ids[0]
        await scene.cluster.stop(f"broker-{preferred}")
        scene.cluster.start(f"broker-{preferred}")
        await scene.whole()
        await asyncio.sleep(20)
        assert scene.state.leader != preferred

    settings = {
        "leader_imbalance_check_interval_seconds": 5,
        "auto_leader_rebalance_enable": False,
    }
    play(story, voter_settings=settings)
