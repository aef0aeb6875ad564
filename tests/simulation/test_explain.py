"""What `quorate explain` tells of a whole simulated cluster: each cause, provoked once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from quorate import PartitionExplanation, Producer, TopicPartition
from quorate.errors import (
    DeliveryTimeoutError,
    QuorateError,
    UnknownTopicError,
)
from quorate_quorum.server import QuorumServer
from tests.harness.cluster_scene import REPLICA, TOPIC, Scene, flip, play
from tests.harness.scene_clients import ask

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(120)]

KEY = TopicPartition(TOPIC, 0)
Provoke = Callable[[Scene], Awaitable[None]]


async def explained(scene: Scene, partition: int = 0) -> PartitionExplanation:
    return await ask(scene, lambda admin: admin.explain_partition(TOPIC, partition))


async def told(scene: Scene, text: str, partition: int = 0) -> None:
    """Wait until an event says so. Fail with all that was said."""
    said: list[str] = []
    for _ in range(600):
        found = await explained(scene, partition)
        said = [event.sentence for event in found.events]
        if any(text in one for one in said):
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"not said: {text!r} in\n" + "\n".join(said))


def leader(scene: Scene) -> str:
    return f"broker-{scene.state.leader}"


def follower(scene: Scene) -> str:
    return next(f"broker-{b}" for b in scene.state.broker_ids if b != scene.state.leader)


async def left(scene: Scene, name: str) -> None:
    number = int(name.removeprefix("broker-"))
    await scene.until(lambda: number not in scene.state.isr, f"{name} left the ISR")


async def nothing(_: Scene) -> None:
    """The topic was created."""


async def kills(scene: Scene) -> None:
    scene.cluster.kill(follower(scene))


async def kills_the_leader(scene: Scene) -> None:
    scene.cluster.kill(leader(scene))


async def pauses(scene: Scene) -> None:
    scene.cluster.pause(follower(scene))


async def stops(scene: Scene) -> None:
    await scene.cluster.stop(leader(scene))


async def restarts(scene: Scene) -> None:
    """It is back before the controller has heard that its stream broke."""
    name = follower(scene)
    scene.cluster.kill(name)
    await left(scene, name)
    scene.cluster.start(name)
    await scene.whole()


async def cuts_off(scene: Scene) -> None:
    """The two replicas do not hear each other; the controller hears both."""
    one, other = leader(scene), follower(scene)
    scene.cluster.network.cut([one], [other])
    scene.cluster.network.cut([other], [one])


async def congests(scene: Scene) -> None:
    """200 KB are written each second, and 20 KB/s get through."""
    one, other = leader(scene), follower(scene)
    number = int(other.removeprefix("broker-"))

    async def write() -> None:
        servers = scene.cluster.bootstrap_servers
        async with Producer(bootstrap_servers=servers, acks=1, linger_ms=0) as producer:
            while number in scene.state.isr:
                await producer.send(TOPIC, b"." * 2_000, partition=0)
                await asyncio.sleep(0.01)

    scene.cluster.network.set_links([one], [other], bytes_per_s=20_000)
    await scene.cluster.spawn_client(write)


async def damages(scene: Scene) -> None:
    await scene.produce(30)
    await flip(scene, scene.state.leader, 5)
    with contextlib.suppress(QuorateError):  # the read finds the damage
        await scene.read()


async def moves(scene: Scene, target: list[int] | None) -> None:
    found = await ask(scene, lambda admin: admin.reassign_partitions({KEY: target}))
    assert found[KEY] is None


async def begins_a_move(scene: Scene) -> None:
    one, other, _ = scene.state.broker_ids
    await moves(scene, [one, other, 3])


async def cancels_a_move(scene: Scene) -> None:
    one, other, _ = scene.state.broker_ids
    scene.cluster.network.cut([f"broker-{b}" for b in scene.state.broker_ids], ["broker-3"])
    await moves(scene, [one, other, 3])
    await moves(scene, None)


async def drains(scene: Scene) -> None:
    number = scene.state.leader
    await ask(scene, lambda admin: admin.drain_broker(number))


async def drains_replicas(scene: Scene) -> None:
    number = scene.state.broker_ids[1]
    await ask(scene, lambda admin: admin.drain_broker(number, replicas=True))


async def comes_back(scene: Scene) -> None:
    """The preferred leader was away."""
    name = leader(scene)
    await scene.cluster.stop(name)
    scene.cluster.start(name)
    await scene.whole()


async def elects(scene: Scene) -> None:
    await comes_back(scene)
    await ask(scene, lambda admin: admin.elect_leaders([KEY]))


async def grows(scene: Scene) -> None:
    await ask(scene, lambda admin: admin.create_partitions(TOPIC, 2))


async def loses_all_but_one(scene: Scene) -> None:
    """One replica, which has not all records, comes back."""
    _, *others = scene.state.broker_ids
    name = f"broker-{others[0]}"
    await scene.produce(5)
    scene.cluster.kill(name)
    await left(scene, name)
    await scene.produce(5)
    await scene.kill_all()
    scene.cluster.start(name)
    await scene.until(lambda: bool(scene.node(others[0]).server), "it is back")
    await asyncio.sleep(3)


async def loses_all_but(scene: Scene, number: int) -> None:
    """That replica comes back, and the others, which have more records, do not."""
    scene.cluster.kill(f"broker-{number}")
    await left(scene, f"broker-{number}")
    await scene.produce(5)
    await scene.kill_all()
    scene.cluster.start(f"broker-{number}")
    await scene.until(lambda: bool(scene.node(number).server), "it is back")
    await asyncio.sleep(3)


async def elects_with_loss(scene: Scene) -> None:
    await loses_all_but_one(scene)
    await ask(scene, lambda admin: admin.elect_leaders([KEY], unclean=True))


async def needs_fewer(scene: Scene) -> None:
    name = follower(scene)
    scene.cluster.kill(name)
    await left(scene, name)
    await ask(scene, lambda admin: admin.alter_configs(TOPIC, set={"min.insync.replicas": "2"}))


ROWS: dict[str, tuple[Provoke, str]] = {
    "created": (nothing, "created the partition, with leader"),
    "killed": (kills, "was fenced: its connection broke, and its port refuses"),
    "the leader killed": (kills_the_leader, "in leader epoch 1 and took broker"),
    "silent": (pauses, "was fenced: no heartbeat for 3"),
    "a clean stop": (stops, "asked to shut down"),
    "it has caught up": (restarts, "into the ISR, because broker"),
    "it does not fetch": (cuts_off, "did not fetch for 10"),
    "it lags": (congests, "over replica.lag.time.max.ms, and was"),
    "damage": (damages, "found its log damaged"),
    "a move": (begins_a_move, "began to add replicas on broker 3"),
    "a move that ended": (begins_a_move, "because every target replica is in the ISR"),
    "a move that is cancelled": (cancels_a_move, "because an operator cancelled the reassignment"),
    "a drain": (drains, "is drained"),
    "a drain with replicas": (drains_replicas, "is drained, and its replicas go to other brokers"),
    "the preferred leader, as asked": (elects, "an operator asked for the preferred leader"),
    "the preferred leader, by itself": (comes_back, "(auto.leader.rebalance.enable)"),
    "an unclean election": (elects_with_loss, "because an operator asked for an unclean election"),
}


@pytest.mark.parametrize(("provoke", "text"), list(ROWS.values()), ids=list(ROWS))
def test_a_cause_is_told(provoke: Provoke, text: str) -> None:
    async def story(scene: Scene) -> None:
        await provoke(scene)
        await told(scene, text)

    play(
        story,
        configs={"min.insync.replicas": "1"},
        brokers=4,
        voter_settings={"leader_imbalance_check_interval_seconds": 30},
    )


def test_more_partitions_tell_that_they_are_later_ones() -> None:
    async def story(scene: Scene) -> None:
        await grows(scene)
        await told(scene, "because the topic was given more partitions", partition=1)

    play(story)


def test_the_end_of_the_elr_for_a_lower_min_isr_is_told() -> None:
    async def story(scene: Scene) -> None:
        await needs_fewer(scene)
        await told(scene, "out of the ELR, because a config was changed")

    play(story, configs={"min.insync.replicas": "3"})


def test_a_producer_and_a_description_name_what_led_to_too_few_replicas() -> None:
    async def story(scene: Scene) -> None:
        one, other = (b for b in scene.state.broker_ids if b != scene.state.leader)
        scene.cluster.pause(f"broker-{one}")
        await left(scene, f"broker-{one}")
        scene.cluster.kill(f"broker-{other}")
        await left(scene, f"broker-{other}")
        await asyncio.sleep(20)
        with pytest.raises(DeliveryTimeoutError) as caught:
            await scene.produce(1, timeout_ms=3_000)
        said = str(caught.value)
        lead = scene.state.leader
        assert (
            f"partition {TOPIC}/0 has 1 in-sync replica (broker {lead}), and 2 are needed" in said
        )
        assert f"broker {one} has been out of the ISR for 2" in said
        assert "because it was fenced: no heartbeat for 3" in said
        assert f"broker {other} has been out of the ISR for 2" in said
        assert f"`quorate explain {TOPIC}/0` tells more" in said
        topics = await ask(scene, lambda admin: admin.describe_topics([TOPIC]))
        out = {one.broker_id: one for one in topics[TOPIC].partitions[0].out_of_sync}
        assert set(out) == {one, other}
        assert 20_000 <= out[one].for_ms < 60_000
        assert out[one].reason.startswith("it was fenced: no heartbeat for 3")
        assert out[other].reason.startswith("it was fenced: its connection broke")

    play(story, configs={"min.insync.replicas": "2"})


def test_what_a_partition_without_a_leader_waits_for_and_who_is_back_is_told() -> None:
    async def story(scene: Scene) -> None:
        number = int(follower(scene).removeprefix("broker-"))
        complete = [b for b in scene.state.broker_ids if b != number]
        await loses_all_but(scene, number)
        await scene.until(lambda: scene.state.leader < 0, "no broker leads")
        found = await explained(scene)
        named = found.waits_for.partition(",")[0].removeprefix("waits for broker ")
        assert sorted(map(int, named.split(" or "))) == sorted(complete)
        assert "have all records; neither is alive: start one, or give up" in found.waits_for
        assert f"`quorate partition elect {TOPIC}/0 --unclean --accept-loss`" in found.waits_for
        out = {one.broker_id: one.reason for one in found.state.out_of_sync}
        said = "its port refuses; it is alive again, but not sure to have all records"
        assert out[number].endswith(said)
        assert "alive" not in out[complete[0]]
        health = await ask(scene, lambda admin: admin.describe_health())
        assert health.offline.examples == (f"{TOPIC}/0",)
        assert health.offline.waits_for == (found.waits_for,)
        for broker in complete:
            scene.cluster.start(f"broker-{broker}")
        await scene.whole()
        assert (await explained(scene)).waits_for == ""

    play(story, configs={"min.insync.replicas": "2"})


def test_a_new_controller_and_a_snapshot_keep_the_history() -> None:
    async def story(scene: Scene) -> None:
        name = follower(scene)
        scene.cluster.kill(name)
        await left(scene, name)
        before = await explained(scene)
        assert before.complete
        controller = next(
            node
            for node in scene.cluster.voters
            if isinstance(node.server, QuorumServer) and node.server.is_controller
        )
        for _ in range(40):  # a snapshot is due after 1,000 bytes of the log
            await ask(scene, lambda admin: admin.alter_configs(TOPIC, set={"retention.ms": "5"}))
            await ask(scene, lambda admin: admin.alter_configs(TOPIC, remove=["retention.ms"]))
        snapshots = [
            one for one, _ in controller.disk.files() if "checkpoint" in one or "snap" in one
        ]
        assert snapshots
        scene.cluster.kill(controller.name)
        await asyncio.sleep(5)
        # all brokers and the voter begin with their disks
        for node in scene.cluster.brokers:
            if node.is_running:
                scene.cluster.kill(node.name)
        await asyncio.sleep(5)
        scene.cluster.start(controller.name)
        for node in scene.cluster.brokers:
            scene.cluster.start(node.name)
        await scene.whole()
        after = await explained(scene)
        assert after.events[: len(before.events)] == before.events
        assert len(after.events) > len(before.events)
        assert after.complete

    play(story, voter_settings={"metadata_log_max_record_bytes_between_snapshots": 1_000})


@pytest.mark.parametrize("named", [("nothing", 0), (TOPIC, 9)])
def test_a_partition_that_is_not_there_is_refused_by_its_name(named: tuple[str, int]) -> None:
    async def story(scene: Scene) -> None:
        with pytest.raises(UnknownTopicError, match=named[0] if named[1] == 0 else "and no 9"):
            await ask(scene, lambda admin: admin.explain_partition(*named))

    play(story)


def test_a_replica_that_lost_its_records_leaves_the_elr_with_that_cause() -> None:
    async def story(scene: Scene) -> None:
        await scene.produce(5)
        name = follower(scene)
        number = int(name.removeprefix("broker-"))
        scene.cluster.kill(name)
        await scene.until(lambda: number in scene.state.elr, "it is in the ELR")
        scene.cluster.nodes[name].disk.lose_directory(REPLICA)
        scene.cluster.start(name)
        await told(scene, f"took {name.replace('-', ' ')} out of the ELR, because")
        await told(scene, "reported that its replica has lost records, or cannot be read")

    play(story, configs={"min.insync.replicas": "3"})
