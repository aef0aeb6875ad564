"""Replicas that come back with less than they had: damaged, gone, cut; with 1 to 3 replicas.

If fewer than min ISR replicas are damaged, no record is lost. If all are damaged, the partition
comes back with what is left, and the controller says that records may be lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import pytest

from quorate import Admin, Consumer, TopicPartition
from quorate.errors import CorruptRecordError, QuorateError
from quorate.record.batch import split
from quorate_broker.files.inventory import FILE_NAME
from quorate_broker.files.replica_files import METADATA_FILE
from quorate_broker.replica.replica import Failure
from quorate_broker.server import BrokerServer
from quorate_testing.simulated.cluster import SimulatedNode
from tests.harness.amounts import few_or_many
from tests.harness.cluster_scene import LOG, REPLICA, TOPIC, Scene, flip, play

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(120)]


def opens_logs(node: SimulatedNode) -> bool:
    """Whether a broker opens its logs, or has opened them."""
    server = node.server
    return isinstance(server, BrokerServer) and bool(
        server.endpoint and server.replicas.directories
    )


async def flip_length(scene: Scene, broker_id: int) -> None:
    """Flip a bit in the length of a batch amid the log: it looks like a torn last write."""
    scene.node(broker_id).disk.flip_bit(LOG, scene.position_of(broker_id, 20) + 10, 4)


async def flip_last(scene: Scene, broker_id: int) -> None:
    end = len(list(split(scene.node(broker_id).disk.content(LOG))))
    await flip(scene, broker_id, end - 1)


async def flip_epoch(scene: Scene, broker_id: int) -> None:
    """Flip a bit in the leader_epoch of the last batch, which no CRC covers."""
    end = len(list(split(scene.node(broker_id).disk.content(LOG))))
    scene.node(broker_id).disk.flip_bit(LOG, scene.position_of(broker_id, end - 1) + 13, 3)


async def lose_directory(scene: Scene, broker_id: int) -> None:
    await scene.node(broker_id).disk.remove_directory(REPLICA)


async def lose_log(scene: Scene, broker_id: int) -> None:
    """Remove the log; its directory stays."""
    await scene.node(broker_id).disk.remove(LOG)


async def lose_all(scene: Scene, broker_id: int) -> None:
    """Remove the directory, and the file that remembers that it existed."""
    await lose_directory(scene, broker_id)
    await scene.node(broker_id).disk.remove(f"/data/{FILE_NAME}")


Damage = Callable[[Scene, int], Awaitable[None]]
DAMAGES: Sequence[Damage] = (
    flip,
    flip_length,
    flip_last,
    flip_epoch,
    lose_directory,
    lose_log,
    lose_all,
)
each_damage = pytest.mark.parametrize("harm", DAMAGES, ids=lambda harm: harm.__name__)


@each_damage
@pytest.mark.parametrize("replicas", [2, 3])
@pytest.mark.parametrize("seed", [1, 2][: few_or_many(1, 2)])
def test_a_damaged_replica_that_comes_back_first_costs_nothing(
    harm: Damage, replicas: int, seed: int
) -> None:
    async def act(scene: Scene) -> None:
        await scene.produce(50)
        await scene.kill_all()
        first = (*scene.state.isr, *scene.state.elr)[0]
        await harm(scene, first)
        scene.cluster.start(f"broker-{first}")
        await asyncio.sleep(3)
        assert scene.state.leader != first, "what it has left must not be taken for all"
        scene.cluster.start_all()
        await scene.whole()
        await scene.produce(1)
        assert await scene.read() == scene.acked
        assert scene.state.recovered_epoch < 0, "nothing was lost, and nothing is said to be"
        await scene.until(scene.logs_are_equal, "the damaged replica has everything again")

    play(act, replicas=replicas, seed=seed)


@each_damage
@pytest.mark.parametrize("broker_ids_late", [(0, 1, 2), (2, 1, 0)])
def test_a_lossy_last_member_of_the_isr_waits_for_the_others(
    harm: Damage, broker_ids_late: Sequence[int]
) -> None:
    """At min ISR 1, only records that this replica alone had may be lost, and that is told."""

    async def act(scene: Scene) -> None:
        await scene.produce(50)
        last = scene.state.leader
        others = [b for b in broker_ids_late if b != last]
        for broker_id in others:
            scene.cluster.kill(f"broker-{broker_id}")
        await scene.until(lambda: scene.state.isr == (last,), "it is alone")
        await scene.produce(5)
        await scene.kill_all()
        await harm(scene, last)
        scene.cluster.start(f"broker-{last}")
        for broker_id in others:
            await asyncio.sleep(2)
            assert scene.state.leader < 0, "the first to come back must not win by seconds"
            scene.cluster.start(f"broker-{broker_id}")
        await scene.whole()
        await scene.produce(1)
        found = await scene.read()
        assert {offset: found.get(offset) for offset in range(50)} == {
            offset: scene.acked[offset] for offset in range(50)
        }
        assert scene.state.recovered_epoch >= 0, "what is lost is told"
        await scene.until(scene.logs_are_equal, "all have the same")

    play(act, configs={"min.insync.replicas": "1"})


@each_damage
def test_it_is_told_again_by_a_broker_that_died_before_it_could_tell(harm: Damage) -> None:
    """The first start cuts the log; the second one finds nothing bad in what is left."""

    async def act(scene: Scene) -> None:
        await scene.produce(50)
        await scene.kill_all()
        first = (*scene.state.isr, *scene.state.elr)[0]
        await harm(scene, first)
        cluster, name = scene.cluster, f"broker-{first}"
        voters = [node.name for node in cluster.voters]
        cluster.start(name)
        await scene.until(lambda: opens_logs(cluster.nodes[name]), "its registration is applied")
        cluster.network.cut([name], voters)
        await asyncio.sleep(2)
        cluster.kill(name)
        cluster.network.heal()
        cluster.start(name)
        await asyncio.sleep(3)
        assert scene.state.leader != first
        cluster.start_all()
        await scene.whole()
        assert await scene.read() == scene.acked

    play(act)


@each_damage
@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_where_all_are_damaged_the_partition_comes_back_and_the_loss_is_told(
    harm: Damage, replicas: int
) -> None:
    async def act(scene: Scene) -> None:
        await scene.produce(50)
        await scene.kill_all()
        for broker_id in range(replicas):
            await harm(scene, broker_id)
        scene.cluster.start_all()
        await scene.whole()
        assert scene.state.recovered_epoch >= 0
        await scene.produce(1)
        found = await scene.read()
        assert all(scene.acked[offset] == value for offset, value in found.items())
        assert len(found) >= 1
        await scene.until(scene.logs_are_equal, "all have the same")

    play(act, replicas=replicas)


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_a_kill_of_all_without_damage_is_no_loss_and_is_not_told_as_one(replicas: int) -> None:
    async def act(scene: Scene) -> None:
        for count in (1, 20):
            await scene.produce(count)
            await scene.kill_all()
            scene.cluster.start_all()
            await scene.whole()
        assert await scene.read() == scene.acked
        assert scene.state.recovered_epoch < 0

    play(act, replicas=replicas)


def test_a_replica_that_was_never_written_is_not_lossy() -> None:
    async def act(scene: Scene) -> None:
        await scene.kill_all()
        scene.cluster.start_all()
        await scene.whole()
        assert scene.state.recovered_epoch < 0

    play(act)


@pytest.mark.parametrize("replicas", [2, 3])
def test_a_corrupt_replica_in_the_elr_is_fetched_again(replicas: int) -> None:
    """Its log is cut below the synced end, so it does not open."""

    async def act(scene: Scene) -> None:
        await scene.produce(20)
        other = next(b for b in scene.state.isr if b != scene.state.leader)
        others = [b for b in scene.state.isr if b != scene.state.leader]
        for broker_id in others:
            await scene.cluster.stop(f"broker-{broker_id}")
        await scene.until(lambda: len(scene.state.isr) == 1, "they have left")
        disk = scene.node(other).disk
        disk.put(LOG, disk.content(LOG)[:200])
        for broker_id in others:
            scene.cluster.start(f"broker-{broker_id}")
        await scene.whole()
        await scene.produce(1)
        assert await scene.read() == scene.acked
        await scene.until(scene.logs_are_equal, "it has everything again")

    play(act, replicas=replicas)


async def flip_owner(scene: Scene, broker_id: int) -> None:
    """Flip one bit of the file that names the partition to which the directory belongs."""
    scene.node(broker_id).disk.flip_bit(f"{REPLICA}/{METADATA_FILE}", 3)


async def lose_owner(scene: Scene, broker_id: int) -> None:
    await scene.node(broker_id).disk.remove(f"{REPLICA}/{METADATA_FILE}")


@pytest.mark.parametrize("harm", [flip_owner, lose_owner])
@pytest.mark.parametrize("replicas", [1, 3])
def test_a_log_whose_owner_file_is_bad_or_gone_loses_nothing(harm: Damage, replicas: int) -> None:
    """The inventory says that this replica was written here, so the log belongs to it."""

    async def act(scene: Scene) -> None:
        await scene.produce(30)
        await scene.kill_all()
        for broker_id in range(replicas):
            await harm(scene, broker_id)
        scene.cluster.start_all()
        await scene.whole()
        await scene.produce(1)
        assert await scene.read() == scene.acked
        assert scene.state.recovered_epoch < 0

    play(act, replicas=replicas)


@pytest.mark.parametrize("harm", [flip_owner, lose_owner])
def test_the_log_of_a_deleted_topic_without_owner_file_is_not_that_of_its_successor(
    harm: Damage,
) -> None:
    """The broker was away when the topic was deleted and made again."""

    async def act(scene: Scene) -> None:
        await scene.produce(30)
        cluster = scene.cluster

        async def make_again() -> None:
            async with Admin(bootstrap_servers=cluster.bootstrap_servers) as admin:
                await admin.delete_topics([TOPIC])
                making = asyncio.create_task(admin.create_topic(TOPIC, 1, 3))
                await asyncio.sleep(0.3)
                cluster.kill("broker-2")
                cluster.network.heal()
                with suppress(QuorateError):  # broker 2 does not know the new topic yet
                    await making

        cluster.network.cut(["broker-2"], [node.name for node in cluster.voters])
        await cluster.spawn_client(make_again)
        scene.acked.clear()
        await scene.produce(10)
        await harm(scene, 2)
        cluster.start("broker-2")
        await scene.whole()
        await scene.until(scene.logs_are_equal, "all have the records of the new topic")

    play(act)


async def lose_first_segment(scene: Scene, broker_id: int) -> None:
    await scene.node(broker_id).disk.remove(LOG)


async def lose_middle_segment(scene: Scene, broker_id: int) -> None:
    await scene.node(broker_id).disk.remove(f"{REPLICA}/{20:020d}.log")


async def cut_middle_segment(scene: Scene, broker_id: int) -> None:
    disk, path = scene.node(broker_id).disk, f"{REPLICA}/{20:020d}.log"
    disk.put(path, disk.content(path)[:500_000])


@pytest.mark.parametrize("harm", [lose_first_segment, lose_middle_segment, cut_middle_segment])
@pytest.mark.parametrize("replicas", [1, 3])
def test_a_log_that_lost_one_of_its_segments(harm: Damage, replicas: int) -> None:
    """The damaged replica is fetched again from the others. An only copy leads on.

    If it led, the other replicas would cut what it lacks, and consumers would skip it. An only copy
    keeps what is known to be whole.
    """

    async def act(scene: Scene) -> None:
        await scene.produce(60, filling=b"x" * 50_000)
        assert (await scene.node(0).disk.list(REPLICA)).count(f"{40:020d}.log") == 1
        await asyncio.sleep(6)
        await scene.kill_all()
        first = (*scene.state.isr, *scene.state.elr)[0]
        await harm(scene, first)
        scene.cluster.start(f"broker-{first}")
        await asyncio.sleep(3)
        scene.cluster.start_all()
        await scene.whole()
        await scene.produce(1)
        found = await scene.read()
        if replicas == 3:
            assert found == scene.acked
            assert scene.state.recovered_epoch < 0
            await scene.until(scene.logs_are_equal, "the damaged replica has everything again")
            return
        assert scene.state.recovered_epoch >= 0
        rest = range(20, 61) if harm is lose_first_segment else range(20)
        assert set(found) >= set(rest)
        epoch = scene.state.recovered_epoch
        await scene.kill_all()
        scene.cluster.start_all()
        await scene.whole()
        assert scene.state.recovered_epoch == epoch, "it is told once"

    play(act, replicas=replicas, configs={"segment.bytes": "1048576"})


def test_a_lossy_replica_waits_for_others_that_may_have_more() -> None:
    """With min ISR 1 it was alone in the ISR. The others lack only records of that time."""

    async def act(scene: Scene) -> None:
        await scene.produce(20)
        leader = scene.state.leader
        for broker_id in {0, 1, 2} - {leader}:
            scene.cluster.kill(f"broker-{broker_id}")
        await scene.until(lambda: scene.state.isr == (leader,), "it is alone")
        await scene.produce(5)
        await scene.kill_all()
        await lose_directory(scene, leader)
        scene.cluster.start(f"broker-{leader}")
        await asyncio.sleep(3)
        scene.cluster.start_all()
        await scene.whole()
        assert scene.state.recovered_epoch >= 0
        assert set(await scene.read()) >= set(range(20))

    play(act, configs={"min.insync.replicas": "1"})


def test_with_flush_on_ack_a_power_loss_of_all_and_one_lost_directory_lose_nothing() -> None:
    async def act(scene: Scene) -> None:
        await scene.produce(30)
        for node in scene.cluster.brokers:
            scene.cluster.lose_power(node.name)
        await scene.until(lambda: scene.state.leader < 0, "no replica leads")
        first = (*scene.state.isr, *scene.state.elr)[0]
        await lose_directory(scene, first)
        scene.cluster.start(f"broker-{first}")
        await asyncio.sleep(3)
        assert scene.state.leader != first
        scene.cluster.start_all()
        await scene.whole()
        assert await scene.read() == scene.acked
        assert scene.state.recovered_epoch < 0

    play(act, configs={"flush.on.ack": "true"})


def test_a_leader_with_a_bad_batch_gives_way_to_a_good_copy_and_is_repaired() -> None:
    """The bad batch is found by a follower that needs it."""

    async def act(scene: Scene) -> None:
        leader = scene.state.leader
        behind = next(b for b in (2, 1, 0) if b != leader)
        scene.cluster.kill(f"broker-{behind}")
        await scene.until(lambda: behind not in scene.state.isr, "it has left the ISR")
        await scene.produce(100)
        await flip(scene, leader, 50)
        scene.cluster.start(f"broker-{behind}")
        await scene.until(lambda: scene.state.leader != leader, "another leads")
        await scene.whole()
        assert scene.state.recovered_epoch < 0
        assert await scene.read() == scene.acked
        await scene.until(scene.logs_are_equal, "the bad batch is gone")

    # without the scrub, which would find the bad batch, too
    play(act, broker_settings={"log_scrub_bytes_per_second": 0})


@pytest.mark.parametrize("seed", [1, 2][: few_or_many(1, 2)])
def test_a_bad_batch_is_not_forgotten_by_a_leader_that_dies_before_the_repair(seed: int) -> None:
    """The bad batch lies below the synced end, where no start looks for damage."""

    async def act(scene: Scene) -> None:
        await scene.produce(100)
        for node in scene.cluster.brokers:
            await scene.cluster.stop(node.name)
        scene.cluster.start_all()
        await scene.whole()
        leader = scene.state.leader
        await flip(scene, leader, 50)
        scene.replica(leader).damage.suspect(50)
        await scene.until(lambda: scene.state.leader != leader, "it has resigned")
        scene.cluster.kill(f"broker-{leader}")
        scene.cluster.start(f"broker-{leader}")
        await scene.whole()
        await scene.until(scene.logs_are_equal, "the bad batch is gone")
        assert await scene.read() == scene.acked
        assert scene.state.recovered_epoch < 0

    play(act, seed=seed)


def test_a_damaged_only_copy_that_is_fenced_for_a_moment_loses_nothing_more() -> None:
    """No other replica can lead: it is not cut at its bad batch, and leads again."""

    async def act(scene: Scene) -> None:
        await scene.produce(100)
        leader = scene.state.leader
        await flip(scene, leader, 50)
        scene.replica(leader).damage.suspect(50)
        await scene.until(lambda: scene.replica(leader).damage.reason is not None, "it is found")
        voters = [node.name for node in scene.cluster.voters]
        scene.cluster.network.cut([f"broker-{leader}"], voters)
        await scene.until(lambda: scene.state.leader < 0, "it is fenced")
        scene.cluster.network.heal()
        await scene.whole()
        assert scene.replica(leader).log_end_offset == 100
        assert scene.state.recovered_epoch < 0

    play(act, replicas=1)


def test_a_consumer_that_meets_a_bad_batch_gets_the_good_copy() -> None:
    """The consumer raises no error, and reads on from the next leader."""

    async def act(scene: Scene) -> None:
        await scene.produce(100)
        leader = scene.state.leader
        await flip(scene, leader, 50)
        found: dict[int, bytes | None] = {}

        async def read_all() -> None:
            async with Consumer(
                TOPIC,
                bootstrap_servers=scene.cluster.bootstrap_servers,
                auto_offset_reset="earliest",
            ) as consumer:
                while len(found) < 100:
                    record = await consumer.getone()
                    found[record.offset] = record.value

        await scene.cluster.spawn_client(read_all)
        assert found == scene.acked
        assert scene.state.leader != leader
        await scene.whole()
        await scene.until(scene.logs_are_equal, "the bad batch is gone")
        assert scene.state.recovered_epoch < 0

    play(act)


def test_a_complaint_about_a_good_batch_changes_nothing() -> None:
    async def act(scene: Scene) -> None:
        await scene.produce(10)
        leader = scene.state.leader
        partition = scene.replica(leader)
        for offset in range(-1, 12):
            partition.damage.suspect(offset)
            await asyncio.sleep(1.5)
        assert partition.damage.reason is None
        assert (scene.state.leader, len(scene.state.isr)) == (leader, 3)

    play(act)


def test_the_only_copy_with_a_bad_batch_leads_on_and_serves_the_rest() -> None:
    """A reader of the bad batch gets an error; the followers stop before it and wait."""

    async def act(scene: Scene) -> None:
        leader = scene.state.leader
        others = [b for b in range(3) if b != leader]
        for broker_id in others:
            scene.cluster.kill(f"broker-{broker_id}")
        await scene.until(lambda: scene.state.isr == (leader,), "it is alone")
        await scene.produce(100)
        await flip(scene, leader, 50)
        for broker_id in others:
            scene.cluster.start(f"broker-{broker_id}")
        await asyncio.sleep(10)
        assert (scene.state.leader, scene.state.isr) == (leader, (leader,))
        assert {scene.replica(b).log_end_offset for b in others} == {50}, "all before it is there"
        found: list[int] = []

        async def read_behind_it() -> None:
            async with Consumer(
                bootstrap_servers=scene.cluster.bootstrap_servers, auto_offset_reset="earliest"
            ) as consumer:
                consumer.assign([TopicPartition(TOPIC, 0)])
                consumer.seek(TopicPartition(TOPIC, 0), 50)
                with pytest.raises(CorruptRecordError):
                    await consumer.getone()
                consumer.seek(TopicPartition(TOPIC, 0), 51)
                found.extend([(await consumer.getone()).offset for _ in range(49)])

        await scene.cluster.spawn_client(read_behind_it)
        assert found == list(range(51, 100))
        await scene.produce(1)

    play(act, configs={"min.insync.replicas": "1"})


@pytest.mark.parametrize("failure", ["corrupt", "broken"])
def test_an_offline_replica_leaves_the_isr_of_an_idle_partition_at_once(failure: Failure) -> None:
    async def act(scene: Scene) -> None:
        await scene.produce(5)
        await asyncio.sleep(30)
        follower = next(b for b in scene.state.isr if b != scene.state.leader)
        before = scene.loop.world_time()
        scene.replica(follower).take_offline(failure, "for the test")
        await scene.until(lambda: follower not in scene.state.isr, "it has left")
        assert scene.loop.world_time() - before < 1
        await scene.whole()

    play(act)
