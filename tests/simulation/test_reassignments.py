"""Replicas move between brokers, in a whole simulated cluster, while a producer writes."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Sequence

import pytest

from quorate import Admin, Producer, Reassignment, TopicPartition
from quorate.errors import (
    InvalidReplicaAssignmentError,
    NoReassignmentInProgressError,
    QuorateError,
    QuorumUnavailableError,
    UnknownTopicError,
)
from quorate_quorum.server import QuorumServer
from tests.harness.cluster_scene import LOG, TOPIC, Scene, play
from tests.harness.scene_clients import ask, flow

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(120)]

KEY = TopicPartition(TOPIC, 0)


async def move(scene: Scene, target: Sequence[int] | None) -> QuorateError | None:
    found = await ask(scene, lambda admin: admin.reassign_partitions({KEY: target}))
    return found[KEY]


async def move_by(scene: Scene, broker_id: int, target: Sequence[int]) -> None:
    """Ask one broker until the controller has decided: others may be cut off."""
    before = scene.state

    async def run() -> None:
        servers = scene.node(broker_id).endpoint
        async with Admin(bootstrap_servers=servers, request_timeout_ms=3000) as admin:
            await admin.reassign_partitions({KEY: target})

    while scene.state == before:
        with contextlib.suppress(QuorateError):
            await scene.cluster.spawn_client(run)


async def listed(scene: Scene) -> dict[TopicPartition, Reassignment]:
    return await ask(scene, lambda admin: admin.list_reassignments())


async def arrived(scene: Scene, target: Sequence[int]) -> None:
    await scene.until(
        lambda: scene.state.broker_ids == tuple(target) and not scene.state.is_reassigned,
        f"the replicas are {target}",
    )


def holders(scene: Scene) -> set[int]:
    """The brokers that have the log of the partition on their disk."""
    return {n for n in range(len(scene.cluster.brokers)) if LOG in dict(scene.node(n).disk.files())}


async def gone_elsewhere(scene: Scene, target: Sequence[int]) -> None:
    await scene.until(lambda: holders(scene) == set(target), "removed replicas are deleted")


async def check(scene: Scene) -> None:
    read = await scene.read()
    assert read == scene.acked, "each acknowledged record is there, once"
    await scene.whole()
    await scene.until(scene.logs_are_equal, "the replicas have equal logs")


def test_a_partition_moves_to_other_brokers_under_load() -> None:
    async def story(scene: Scene) -> None:
        is_over = asyncio.Event()
        writing = scene.cluster.spawn_client(lambda: flow(scene, [], is_over))
        await asyncio.sleep(0.2)
        for target in ([3, 4, 5], [0, 4, 2], [2, 0, 1]):
            assert await move(scene, target) is None
            await arrived(scene, target)
            assert scene.state.leader in target
            await gone_elsewhere(scene, target)
        assert await listed(scene) == {}
        assert "replica_lossy" not in scene.told, "what was removed is not missed"
        is_over.set()
        await writing
        await check(scene)

    play(story, brokers=6, configs={"min.insync.replicas": "2"})


def test_what_is_under_way_is_listed_and_a_cancelled_move_keeps_the_first_replicas() -> None:
    async def story(scene: Scene) -> None:
        first = scene.state.broker_ids
        await scene.produce(20)
        new = [b for b in range(6) if b not in first]
        brokers = {node.name for node in scene.cluster.brokers}
        late = f"broker-{new[2]}"
        scene.cluster.network.cut({late}, brokers - {late})  # it never catches up
        assert await move(scene, new) is None
        await scene.until(lambda: set(new[:2]) <= set(scene.state.isr), "two have caught up")
        found = (await listed(scene))[KEY]
        assert found.target == tuple(new)
        assert found.adding == tuple(new)
        assert found.removing == first
        assert {*first, *new[:2]} <= set(found.isr)
        assert await ask(scene, lambda admin: admin.list_reassignments([KEY])) == {KEY: found}
        other = [TopicPartition(TOPIC, 5), TopicPartition("nothing", 0)]
        assert await ask(scene, lambda admin: admin.list_reassignments(other)) == {}
        assert await move(scene, None) is None
        assert set(scene.state.broker_ids) == set(first)
        assert isinstance(await move(scene, None), NoReassignmentInProgressError)
        await scene.until(lambda: holders(scene) == set(first), "the new ones are gone")
        scene.cluster.network.heal()
        await scene.produce(20)
        await check(scene)

    play(story, brokers=6)


def test_an_impossible_target_is_refused_with_what_is_possible() -> None:
    async def story(scene: Scene) -> None:
        before = scene.state
        for target in ([], [0, 0], [7]):
            assert isinstance(await move(scene, target), InvalidReplicaAssignmentError)
        wrong = {TopicPartition(TOPIC, 9): [0], TopicPartition("nothing", 0): [0]}
        found = await ask(scene, lambda admin: admin.reassign_partitions(wrong))
        assert all(isinstance(one, UnknownTopicError) for one in found.values())
        assert scene.state == before

    play(story, replicas=1, brokers=2)


@pytest.mark.parametrize("seed", range(6))
def test_moves_while_brokers_and_controllers_die_lose_nothing(seed: int) -> None:
    """Targets of chance, cancellations, kills of brokers and of the controller, under load."""
    chance = random.Random(seed)

    async def story(scene: Scene) -> None:
        is_over = asyncio.Event()
        writing = scene.cluster.spawn_client(lambda: flow(scene, [], is_over))
        for _ in range(12):
            target = chance.sample(range(5), chance.randint(2, 4))
            await move(scene, None if chance.random() < 0.25 else target)
            await asyncio.sleep(chance.choice([0.0, 0.01, 0.2, 1.0]))
            victim = chance.choice(["broker", "leader", "controller", "nobody"])
            if victim != "nobody":
                name = chosen(scene, victim, chance)
                scene.cluster.kill(name)
                await asyncio.sleep(chance.choice([0.1, 1.0]))
                scene.cluster.start(name)
            await scene.until(scene.all_unfenced, "all brokers are back")
            await scene.until(lambda: controller(scene) is not None, "a voter leads")
        is_over.set()
        await writing
        target = chance.sample(range(5), 3)
        assert await move(scene, target) is None
        await arrived(scene, target)
        read = await scene.read()
        assert read == scene.acked, "each acknowledged record is there, once"
        await scene.until(lambda: set(scene.state.isr) == set(target), "the ISR is whole")
        await scene.until(scene.logs_are_equal, "the replicas have equal logs")
        await gone_elsewhere(scene, target)

    play(story, brokers=5, configs={"min.insync.replicas": "2"}, seed=seed)


def controller(scene: Scene) -> str | None:
    for node in scene.cluster.voters:
        if isinstance(node.server, QuorumServer) and node.server.is_controller:
            return node.name
    return None


def chosen(scene: Scene, victim: str, chance: random.Random) -> str:
    if victim == "controller":
        found = controller(scene)
        assert found is not None
        return found
    if victim == "leader" and scene.state.leader >= 0:
        return f"broker-{scene.state.leader}"
    return f"broker-{chance.randrange(5)}"


def cut_from_voters(scene: Scene, broker_id: int) -> None:
    """From now on, the broker's metadata is as old as it is."""
    voters = {node.name for node in scene.cluster.voters}
    scene.cluster.network.cut({f"broker-{broker_id}"}, voters)


def cut_from_brokers(scene: Scene, broker_id: int) -> None:
    """The broker fetches nothing."""
    brokers = {node.name for node in scene.cluster.brokers}
    scene.cluster.network.cut({f"broker-{broker_id}"}, brokers - {f"broker-{broker_id}"})


@pytest.mark.parametrize("produced", [0, 1])
def test_what_a_removed_replica_has_fetched_does_not_count_for_a_new_one(produced: int) -> None:
    """A move is cancelled and begun again, and the new broker learns of neither in time.

    Its old replica fetches on. The new one is empty: it must not end the move.
    """

    async def story(scene: Scene) -> None:
        await scene.produce(50)
        [old] = scene.state.broker_ids
        new, slow = [b for b in range(3) if b != old]
        cut_from_brokers(scene, slow)  # so the move does not end
        assert await move(scene, [new, slow]) is None
        await scene.until(lambda: new in scene.state.isr, "the new broker has caught up")
        cut_from_voters(scene, new)
        assert await move(scene, None) is None
        assert await move(scene, [new]) is None
        await scene.produce(produced)
        await asyncio.sleep(1)
        assert scene.state.isr == (old,)
        scene.cluster.network.heal()
        await arrived(scene, [new])
        await gone_elsewhere(scene, [new])
        assert await scene.read() == scene.acked

    play(story, replicas=1, brokers=3)


def test_fewer_and_again_more_replicas_are_complete_before_they_count() -> None:
    async def story(scene: Scene) -> None:
        await scene.produce(50)
        await scene.whole()
        leader, *others = scene.state.broker_ids
        for broker_id in others:
            cut_from_voters(scene, broker_id)
        assert await move(scene, [leader]) is None
        assert await move(scene, [leader, *others]) is None
        await asyncio.sleep(1)
        assert scene.state.isr == (leader,)
        scene.cluster.network.heal()
        await arrived(scene, [leader, *others])
        await scene.produce(1)
        await scene.whole()
        scene.cluster.kill(f"broker-{leader}")
        await scene.until(lambda: scene.state.leader in others, "another leads")
        assert await scene.read() == scene.acked

    play(story, configs={"min.insync.replicas": "2"})


def test_an_election_ends_a_move_to_the_one_that_leads_then() -> None:
    async def story(scene: Scene) -> None:
        await scene.produce(20)
        await scene.whole()
        dying = scene.state.leader
        [target] = [b for b in scene.state.broker_ids if b != dying]
        scene.cluster.kill(f"broker-{target}")
        await scene.until(lambda: target not in scene.state.isr, "the target left the ISR")
        assert await move(scene, [target]) is None
        scene.cluster.kill(f"broker-{dying}")
        await scene.until(lambda: scene.state.leader < 0, "no replica leads")
        scene.cluster.start(f"broker-{target}")
        await arrived(scene, [target])
        await scene.produce(5)
        assert await scene.read() == scene.acked

    play(story, replicas=2, brokers=2, configs={"min.insync.replicas": "2"})


def test_a_copy_of_an_idle_partition_joins_the_isr() -> None:
    """The leader learns late that a replica was removed and added again; nothing is written."""

    async def story(scene: Scene) -> None:
        await scene.produce(50)
        await scene.whole()
        leader, other = scene.state.broker_ids
        cut_from_voters(scene, leader)
        await move_by(scene, other, [leader])
        await move_by(scene, other, [leader, other])
        await asyncio.sleep(0.5)
        scene.cluster.network.heal()
        await arrived(scene, [leader, other])

    play(story, replicas=2, brokers=2)


def test_a_leader_that_stays_answers_every_batch_while_followers_are_removed() -> None:
    """Without idempotence a batch of unknown outcome would be written twice."""

    async def story(scene: Scene) -> None:
        await scene.produce(5)
        await scene.whole()
        leader = scene.state.leader
        others = [b for b in scene.state.broker_ids if b != leader]
        over = asyncio.Event()
        sent: list[bytes] = []

        async def write() -> None:
            async with Producer(
                bootstrap_servers=scene.cluster.bootstrap_servers,
                linger_ms=0,
                enable_idempotence=False,
            ) as producer:
                while not over.is_set():
                    values = [b"v%d" % (len(sent) + n) for n in range(20)]
                    futures = [await producer.send(TOPIC, one, partition=0) for one in values]
                    await asyncio.gather(*futures)
                    sent.extend(values)
                    await asyncio.sleep(0.0005)

        writing = scene.cluster.spawn_client(write)
        for _ in range(5):
            for target in ([leader, others[0]], [leader, *others]):
                assert await move(scene, target) is None
                await arrived(scene, target)
                await asyncio.sleep(0.1)
        over.set()
        await writing
        assert scene.state.leader == leader
        read = [value for value in (await scene.read()).values() if value.startswith(b"v")]
        assert sorted(read) == sorted(sent), "each record is there, once"

    play(story)


def test_a_broker_that_is_cut_off_does_not_say_that_nothing_moves() -> None:
    """Its image is old. It asks the controller, as in Kafka, and says that it does not reach it."""

    async def story(scene: Scene) -> None:
        await scene.produce(5)
        await scene.whole()
        cut_from_brokers(scene, 5)
        cut_from_voters(scene, 3)
        await move_by(scene, 0, [1, 4, 5])

        async def run() -> dict[TopicPartition, Reassignment]:
            servers = scene.node(3).endpoint
            async with Admin(bootstrap_servers=servers, request_timeout_ms=3000) as admin:
                return await admin.list_reassignments()

        with pytest.raises(QuorumUnavailableError, match="controller"):
            await scene.cluster.spawn_client(run)
        assert set(await listed(scene)) == {KEY}

    play(story, brokers=6)
