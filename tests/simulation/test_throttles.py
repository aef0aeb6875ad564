"""Copies to replicas that are out of sync are throttled, in a whole simulated cluster.

The times are those of the simulated world, in which a copy without a throttle takes no second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from quorate import Admin, Producer, TopicPartition
from quorate_quorum.server import QuorumServer
from tests.harness.cluster_scene import TOPIC, Scene, play
from tests.harness.scene_clients import ask, flow

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(120)]

KEY = TopicPartition(TOPIC, 0)
RECORDS, RECORD = 40, 20_000
#: The bytes of the records that `filled` writes.
SIZE = RECORDS * RECORD
LEADER, FOLLOWER = "leader.replication.throttled.", "follower.replication.throttled."


async def filled(scene: Scene) -> None:
    await scene.produce(RECORDS, filling=bytes(RECORD))


async def move(scene: Scene, target: Sequence[int], throttle: int = 0) -> None:
    found = await ask(
        scene, lambda admin: admin.reassign_partitions({KEY: target}, throttle=throttle)
    )
    assert found == {KEY: None}


async def configure(scene: Scene, topic: str | None, configs: Mapping[str, str]) -> None:
    await ask(scene, lambda admin: admin.alter_configs(topic, set=configs))


async def arrived(scene: Scene, target: Sequence[int], *, within_s: float = 300) -> float:
    """Wait for the end of the move. Return how long that was, in seconds."""
    begin = scene.loop.time()
    await scene.until(
        lambda: scene.state.broker_ids == tuple(target) and not scene.state.is_reassigned,
        f"the replicas are {target}",
        within_s=within_s,
    )
    return scene.loop.time() - begin


def copied(scene: Scene, broker_id: int) -> int:
    """The bytes that a broker has of the partition; 0 before it has a replica."""
    try:
        return scene.replica(broker_id).log.size
    except (AssertionError, ValueError):
        return 0


async def written(scene: Scene, count: int) -> None:
    """Write records with acks=all, one after the other. No controller is needed."""
    servers = scene.cluster.bootstrap_servers
    async with Producer(bootstrap_servers=servers, enable_idempotence=False) as producer:
        for _ in range(count):
            await producer.send_and_wait(TOPIC, b"x", partition=0)


def is_about(seconds: float, rate: int, size: int = SIZE) -> bool:
    """Whether a copy at this rate takes so long: one second of bytes is free at the begin."""
    return size / rate - 1.5 <= seconds <= 1.1 * size / rate + 2


@pytest.mark.parametrize("rate", [40_000, 100_000, 1_000_000])
def test_a_throttled_move_takes_its_size_by_its_rate(rate: int) -> None:
    async def story(scene: Scene) -> None:
        await filled(scene)
        await move(scene, [3, 1, 2], rate)
        assert (await ask(scene, lambda admin: admin.list_reassignments()))[KEY].throttle == rate
        assert is_about(await arrived(scene, [3, 1, 2]), rate)
        assert scene.state.throttle == 0
        assert await scene.read() == scene.acked

    play(story, brokers=4)


def test_a_move_without_a_throttle_takes_no_second() -> None:
    async def story(scene: Scene) -> None:
        await filled(scene)
        await move(scene, [3, 1, 2])
        assert await arrived(scene, [3, 1, 2]) < 1

    play(story, brokers=4)


def test_two_replicas_of_one_leader_share_what_it_may_send() -> None:
    async def story(scene: Scene) -> None:
        await filled(scene)
        await move(scene, [0, 1, 2], 100_000)
        assert is_about(await arrived(scene, [0, 1, 2]), 100_000, 2 * SIZE)

    play(story, replicas=1, brokers=3)


def test_a_rate_below_one_batch_goes_on_batch_after_batch() -> None:
    async def story(scene: Scene) -> None:
        await scene.produce(4, filling=bytes(RECORD))
        await move(scene, [3, 1, 2], 1_000)
        # nothing waits for the bytes of the last batch
        assert is_about(await arrived(scene, [3, 1, 2]), 1_000, 3 * RECORD)

    play(story, brokers=4)


@pytest.mark.parametrize("side", [LEADER, FOLLOWER])
def test_each_side_alone_throttles_the_replicas_that_the_topic_lists(side: str) -> None:
    """As kafka-reassign-partitions.sh sets it."""

    async def story(scene: Scene) -> None:
        await filled(scene)
        await configure(scene, TOPIC, {side + "replicas": "0:0,0:1,0:2,0:3"})
        await configure(scene, None, {side + "rate": "100000"})
        await move(scene, [3, 1, 2])
        assert is_about(await arrived(scene, [3, 1, 2]), 100_000)

    play(story, brokers=4)


@pytest.mark.parametrize("side", [LEADER, FOLLOWER])
def test_a_replica_in_sync_is_never_throttled(side: str) -> None:
    """At one byte a second, it would leave the ISR, and commits would wait for it."""

    async def story(scene: Scene) -> None:
        await configure(scene, TOPIC, {side + "replicas": "*"})
        await configure(scene, None, {side + "rate": "1"})
        epoch = scene.state.partition_epoch
        begin = scene.loop.time()
        for _ in range(5):
            await filled(scene)
            await asyncio.sleep(8)
        assert scene.loop.time() - begin < 45
        assert (len(scene.state.isr), scene.state.partition_epoch) == (3, epoch)

    play(story, configs={"min.insync.replicas": "3"})


def test_a_replica_is_free_as_soon_as_the_leader_proposes_it_for_the_isr() -> None:
    """Its own image does not have it in the ISR, and commits wait for it already."""

    async def story(scene: Scene) -> None:
        [leader] = scene.state.broker_ids
        added = 1 - leader
        voters = {node.name for node in scene.cluster.voters}
        scene.cluster.network.cut({f"broker-{added}"}, {f"broker-{leader}"})
        await move(scene, [leader, added], 1)
        await scene.until(
            lambda: added in scene.replica(leader).as_leader().machine.replicas, "the leader knows"
        )
        scene.cluster.network.heal()
        scene.cluster.network.cut({f"broker-{leader}", f"broker-{added}"}, voters)
        machine = scene.replica(leader).as_leader().machine
        await scene.until(lambda: added in machine.in_sync.maximal, "it is proposed")
        assert scene.state.isr == (leader,)
        begin = scene.loop.time()
        await scene.cluster.spawn_client(lambda: written(scene, 20))
        assert scene.loop.time() - begin < 2
        scene.cluster.network.heal()
        await arrived(scene, [leader, added])

    play(story, replicas=1, brokers=2)


def test_other_partitions_of_the_same_brokers_go_at_full_speed() -> None:
    other = TopicPartition("other", 0)

    async def story(scene: Scene) -> None:
        await filled(scene)

        async def make(admin: Admin) -> None:
            await admin.create_topic("other", assignments=[list(scene.state.broker_ids)])

        await ask(scene, make)
        await move(scene, [3, 1, 2], 10_000)
        await scene.until(lambda: copied(scene, 3) > 0, "the copy has begun")
        begin = scene.loop.time()
        await ask(scene, lambda admin: admin.reassign_partitions({other: [3, 1, 2]}))
        moving = {KEY, other}
        while other in moving:
            moving = set(await ask(scene, lambda admin: admin.list_reassignments()))
        assert scene.loop.time() - begin < 1
        assert moving == {KEY}
        assert scene.state.throttle == 10_000
        is_over = asyncio.Event()
        gaps: list[float] = []
        writing = scene.cluster.spawn_client(lambda: flow(scene, gaps, is_over))
        await asyncio.sleep(2)
        is_over.set()
        await writing
        assert max(gaps) < 0.2, "the in-sync replicas of the partition itself, too"

    play(story, brokers=4, configs={"min.insync.replicas": "3"})


@pytest.mark.parametrize("how", ["lifted", "raised", "cancelled"])
def test_a_copy_that_waits_for_years_is_free_at_once_when_its_throttle_ends(how: str) -> None:
    async def story(scene: Scene) -> None:
        await filled(scene)
        first = scene.state.broker_ids
        await move(scene, [3, 1, 2], 1)
        await asyncio.sleep(5)
        assert scene.state.is_reassigned
        if how == "cancelled":
            await ask(scene, lambda admin: admin.reassign_partitions({KEY: None}))
            assert (set(scene.state.broker_ids), scene.state.throttle) == (set(first), 0)
            return
        await move(scene, [3, 1, 2], 0 if how == "lifted" else 1 << 30)
        assert await arrived(scene, [3, 1, 2]) < 2

    play(story, brokers=4)


@pytest.mark.parametrize("where", ["topic", "cluster"])
def test_a_setting_that_is_removed_frees_the_copy_at_once(where: str) -> None:
    async def story(scene: Scene) -> None:
        await filled(scene)
        lists = {LEADER + "replicas": "*", FOLLOWER + "replicas": "*"}
        rates = {LEADER + "rate": "1", FOLLOWER + "rate": "1"}
        await configure(scene, TOPIC, lists)
        await configure(scene, None, rates)
        await move(scene, [3, 1, 2])
        await asyncio.sleep(5)
        assert scene.state.is_reassigned
        topic, names = (TOPIC, lists) if where == "topic" else (None, rates)
        await ask(scene, lambda admin: admin.alter_configs(topic, remove=list(names)))
        assert await arrived(scene, [3, 1, 2]) < 2

    play(story, brokers=4)


def test_a_broker_that_was_away_catches_up_at_the_rate_of_its_topic() -> None:
    async def story(scene: Scene) -> None:
        await scene.produce(1)
        away = next(b for b in scene.state.broker_ids if b != scene.state.leader)
        scene.cluster.kill(f"broker-{away}")
        await scene.until(lambda: away not in scene.state.isr, "it left the ISR")
        await filled(scene)
        await configure(scene, TOPIC, {FOLLOWER + "replicas": f"0:{away}"})
        await configure(scene, None, {FOLLOWER + "rate": "100000"})
        scene.cluster.start(f"broker-{away}")
        begin = scene.loop.time()
        await scene.whole()
        assert scene.loop.time() - begin > SIZE / 100_000 - 1.5

    play(story)


@pytest.mark.parametrize("victim", ["controller", "leader", "new replica"])
def test_a_throttled_move_goes_on_after_a_death_in_the_middle(victim: str) -> None:
    async def story(scene: Scene) -> None:
        await filled(scene)
        rate = 50_000
        await move(scene, [3, 1, 2], rate)
        begin = scene.loop.time()
        await scene.until(lambda: copied(scene, 3) > SIZE // 3, "a third is copied")
        name = {
            "controller": next(
                node.name
                for node in scene.cluster.voters
                if isinstance(node.server, QuorumServer) and node.server.is_controller
            ),
            "leader": f"broker-{scene.state.leader}",
            "new replica": "broker-3",
        }[victim]
        scene.cluster.kill(name)
        await asyncio.sleep(1)
        scene.cluster.start(name)
        await scene.until(scene.all_unfenced, "all brokers are back")
        assert scene.state.throttle == rate
        await arrived(scene, [3, 1, 2])
        assert scene.loop.time() - begin > SIZE / rate - 4, "a new limit begins with a second"
        assert scene.state.throttle == 0
        assert await scene.read() == scene.acked

    play(story, brokers=4)
