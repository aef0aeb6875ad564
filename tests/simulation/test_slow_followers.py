"""Followers that are slow, congested or far behind, in a whole simulated cluster, under load."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest

from quorate import Producer
from quorate_broker.replication.stream_credit import LATE_MS, SLOW_CHUNK_BYTES_MIN
from quorate_broker.server import BrokerServer
from quorate_quorum.metadata.partitions import PartitionImage
from tests.harness.catch_up import (
    BACKLOG,
    Delays,
    backlog,
    fill_backlog,
    make_backlog_topic,
    write,
)
from tests.harness.cluster_scene import TOPIC, Scene, play
from tests.harness.scene_clients import ask

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(120)]

KIB, MIB = 1 << 10, 1 << 20


@pytest.mark.parametrize(
    ("partitions", "megabytes_per_s"), [(1, 10), (8, 4), (8, 10), (40, 10), (40, 100)]
)
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


def directory_of(partition: PartitionImage, broker_id: int) -> bytes:
    """Return the id of the log directory in which a broker has its replica."""
    found = partition.directory_of(broker_id)
    assert found is not None
    return found


@pytest.mark.parametrize("partitions", [2, 60])
def test_appends_to_a_dead_disk_delay_no_other_partition_on_the_stream(partitions: int) -> None:
    """The fault: half of the partitions hold all room of the stream, or all first appends."""
    play_dead_disk(partitions, "append")


@pytest.mark.parametrize("partitions", [16, 40])
def test_reads_from_a_dead_disk_delay_no_other_partition_on_the_stream(partitions: int) -> None:
    """The fault: half of the partitions hold all room of the stream, or all its reads."""
    play_dead_disk(partitions, "read")


@pytest.mark.parametrize("operation", ["append", "read"])
def test_batches_larger_than_a_room_on_a_dead_disk_delay_no_other_partition(
    operation: Literal["append", "read"],
) -> None:
    """The fault: the second one does not fit into the room of slow partitions, and stays."""
    play_dead_disk(4, operation, batch_bytes=9 * MIB)


def play_dead_disk(
    partitions: int, operation: Literal["append", "read"], *, batch_bytes: int = 0
) -> None:
    """Half of a follower's appends, or of its leader's reads, take five minutes each.

    With `batch_bytes`, each of these partitions first gets one batch of that size.
    """
    segment = max(MIB, 2 * batch_bytes)
    configs = {"min.insync.replicas": "1", "segment.bytes": str(segment)}
    if batch_bytes:
        configs["max.message.bytes"] = str(2 * batch_bytes)

    async def story(scene: Scene) -> None:
        leader = scene.state.leader
        follower = 1 - leader
        await make_backlog_topic(scene, [leader, follower], partitions, configs)
        broker_id = follower if operation == "append" else leader
        good = directory_of(scene.state, broker_id)
        dead = {n for n, one in enumerate(backlog(scene)) if directory_of(one, broker_id) != good}
        assert 1 <= len(dead) < partitions
        paths = tuple(f"/data{n}/{BACKLOG}-{p}/" for n in (1, 2) for p in dead)
        disk = scene.node(broker_id).disk
        disk.slow_path = lambda name, path: 300 * (name == operation and path.startswith(paths))

        async def write_large() -> None:
            async with Producer(
                bootstrap_servers=scene.cluster.bootstrap_servers, acks=1
            ) as producer:
                for n in sorted(dead):
                    await producer.send_and_wait(BACKLOG, b"." * batch_bytes, partition=n)

        isr_epoch, delays = scene.state.partition_epoch, Delays()
        writing = scene.cluster.spawn_client(lambda: write(scene, delays))
        if batch_bytes:
            await scene.cluster.spawn_client(write_large)
        await fill_backlog(scene, partitions, partitions * MIB)
        await scene.until(
            lambda: all(len(one.isr) == 1 for n, one in enumerate(backlog(scene)) if n in dead),
            "those on the dead disk left",
        )
        during = delays.take()
        # they may hold the room once, until they count as slow; a large batch is alone in it
        assert during[-1] < LATE_MS * (len(dead) if batch_bytes else 1) + 500
        assert during[len(during) // 2] < 50
        await asyncio.sleep(5)
        assert delays.take()[-1] < 50
        delays.is_over.set()
        await writing
        alive = [one for n, one in enumerate(backlog(scene)) if n not in dead]
        assert all(len(one.isr) == 2 for one in alive)
        assert scene.state.partition_epoch == isr_epoch, "no other replica left the ISR"
        disk.mend()
        await scene.until(
            lambda: all(len(one.isr) == 2 for one in backlog(scene)), "they are back", within_s=400
        )
        assert await scene.read() == scene.acked

    play(
        story,
        replicas=2,
        configs={"min.insync.replicas": "1"},
        log_dirs=("/data1", "/data2"),
    )


def test_what_a_dead_disk_holds_stops_no_stream_when_others_begin() -> None:
    """The fault: the room of each stream shrinks below what the follower holds for the dead disk.

    Then it waited for that disk before it read on, with all healthy partitions of the stream.
    """
    partitions, limit = 80, 8 * MIB

    async def story(scene: Scene) -> None:
        leader = scene.state.leader
        [follower] = {*scene.state.broker_ids} - {leader}
        configs = {"min.insync.replicas": "1", "segment.bytes": str(MIB)}
        await make_backlog_topic(scene, [leader, follower], partitions, configs)
        good = directory_of(scene.state, follower)
        dead = {n for n, one in enumerate(backlog(scene)) if directory_of(one, follower) != good}
        paths = tuple(f"/data{n}/{BACKLOG}-{p}/" for n in (1, 2) for p in dead)
        disk, server = scene.node(follower).disk, scene.node(follower).server
        assert isinstance(server, BrokerServer)
        disk.slow_path = lambda name, path: 300 * (name == "append" and path.startswith(paths))
        isr_epoch, delays = scene.state.partition_epoch, Delays()
        writing = scene.cluster.spawn_client(lambda: write(scene, delays))
        await fill_backlog(scene, partitions, partitions * MIB)
        await asyncio.sleep(2 * LATE_MS / 1000)
        _, held = server.replication_bytes
        others = [n for n in range(5) if n not in (leader, follower)]
        assert limit // (1 + len(others)) < held <= limit, "more than the stream may hold from now"
        delays.take()
        led = [[other, follower] for other in others]
        configs = {"min.insync.replicas": "1"}
        await ask(scene, lambda a: a.create_topic("more", configs=configs, assignments=led))
        for _ in range(15):
            await asyncio.sleep(1)
            assert delays.take()[-1] < 50
            assert server.replication_bytes[1] <= limit
        assert scene.state.partition_epoch == isr_epoch, "no other replica left the ISR"
        delays.is_over.set()
        await writing
        disk.mend()

    play(
        story,
        replicas=2,
        brokers=5,
        configs={"min.insync.replicas": "1"},
        log_dirs=("/data1", "/data2"),
        broker_settings={"replica_queued_max_bytes": limit},
    )


def test_first_appends_on_a_dead_disk_stop_none_on_another() -> None:
    """The fault: few replicas make their first append at a time, and those never end."""
    partitions = 80

    async def story(scene: Scene) -> None:
        leader = scene.state.leader
        follower = 1 - leader
        await make_backlog_topic(scene, [leader, follower], partitions)
        disk = scene.node(follower).disk
        disk.slow_path = lambda _, path: 300 * path.startswith("/data2/")
        await fill_backlog(scene, partitions, partitions * 64 * KIB)

        def lengths(disk_path: str) -> list[int]:
            files = dict(scene.node(follower).disk.files())
            return [
                size
                for path, size in files.items()
                if path.startswith(f"{disk_path}/{BACKLOG}-") and path.endswith(".log")
            ]

        await scene.until(
            lambda: sum(size > 0 for size in lengths("/data1")) >= partitions // 2 - 1,
            "all on the good disk are written",
            within_s=LATE_MS / 1000 + 1,
        )
        assert not any(lengths("/data2"))

    play(
        story,
        replicas=2,
        configs={"min.insync.replicas": "1"},
        log_dirs=("/data1", "/data2"),
    )


LAG_S = 10


async def flow_of_bytes(scene: Scene, delays: Delays, record: int, pause_s: float) -> None:
    """Write records with acks=1 at a constant rate."""
    async with Producer(
        bootstrap_servers=scene.cluster.bootstrap_servers, acks=1, linger_ms=0
    ) as producer:
        while not delays.is_over.is_set():
            await producer.send(TOPIC, b"." * record, partition=0)
            await asyncio.sleep(pause_s)


@pytest.mark.parametrize("seed", range(2))
def test_a_congested_follower_leaves_the_isr_after_the_lag_time_and_comes_back(seed: int) -> None:
    """200 KB are written each second, and 20 KB/s get through. One chunk needs several seconds.

    The second fault: a follower takes a stream for silent before the first chunk has arrived,
    opens another one, and asks for the same chunk, for ever.
    """

    async def story(scene: Scene) -> None:
        leader = scene.state.leader
        follower = 1 - leader
        delays = Delays()
        writing = scene.cluster.spawn_client(lambda: flow_of_bytes(scene, delays, 10_000, 0.05))
        await asyncio.sleep(2)
        assert len(scene.state.isr) == 2
        pair = ([f"broker-{leader}"], [f"broker-{follower}"])
        began = scene.loop.time()
        scene.cluster.network.set_links(*pair, bytes_per_s=20_000)
        await scene.until(lambda: len(scene.state.isr) == 1, "it left")
        assert LAG_S <= scene.loop.time() - began <= LAG_S + 2
        end = scene.replica(follower).log.log_end_offset
        await asyncio.sleep(30)
        got = scene.replica(follower).log.log_end_offset - end
        assert got * 10_000 > 30 * 20_000 // 2, "it goes on to follow, as far as the link permits"
        assert len(scene.state.isr) == 1
        scene.cluster.network.set_links(*pair, bytes_per_s=None)
        began = scene.loop.time()
        await scene.until(lambda: len(scene.state.isr) == 2, "it is back while writes go on")
        assert scene.loop.time() - began < LAG_S
        isr_epoch = scene.state.partition_epoch
        await asyncio.sleep(1.5 * LAG_S)
        assert scene.state.partition_epoch == isr_epoch, "it stays"
        delays.is_over.set()
        await writing

    play(story, replicas=2, configs={"min.insync.replicas": "1"}, seed=seed)


@pytest.mark.parametrize("delay_ms", [50, 400])
def test_a_follower_that_is_always_a_little_behind_stays_in_the_isr(delay_ms: int) -> None:
    """Writes never stop, so it never has all that the leader has."""

    async def story(scene: Scene) -> None:
        leader = scene.state.leader
        pair = ([f"broker-{leader}"], [f"broker-{1 - leader}"])
        scene.cluster.network.set_links(*pair, delay_min_ms=delay_ms, delay_max_ms=delay_ms)
        isr_epoch, delays = scene.state.partition_epoch, Delays()
        writing = scene.cluster.spawn_client(lambda: flow_of_bytes(scene, delays, 100, 0.01))
        await asyncio.sleep(2.5 * LAG_S)
        assert scene.state.partition_epoch == isr_epoch
        delays.is_over.set()
        await writing

    play(story, replicas=2, configs={"min.insync.replicas": "1"})


@pytest.mark.parametrize("seed", range(2))
def test_a_new_leader_gives_its_followers_the_whole_lag_time(seed: int) -> None:
    """All links of the healthy follower stand still for less than the lag time, at the election."""

    async def story(scene: Scene) -> None:
        leader = scene.state.leader
        delays = Delays()
        writing = scene.cluster.spawn_client(lambda: write(scene, delays))
        await asyncio.sleep(1)
        seen = {scene.state.isr}
        scene.cluster.kill(f"broker-{leader}")
        await scene.until(lambda: scene.state.leader not in (leader, -1), "another leads")
        others = [n for n in (0, 1, 2) if n not in (leader, scene.state.leader)]
        pair = ([f"broker-{scene.state.leader}"], [f"broker-{others[0]}"])
        scene.cluster.network.cut(*pair)
        for _ in range(8 * 20):
            seen.add(scene.state.isr)
            await asyncio.sleep(0.05)
        scene.cluster.network.heal(*pair)
        for _ in range(5 * 20):
            seen.add(scene.state.isr)
            await asyncio.sleep(0.05)
        healthy = tuple(sorted({0, 1, 2} - {leader}))
        assert seen == {(0, 1, 2), healthy}
        scene.cluster.start(f"broker-{leader}")
        await scene.whole()
        delays.is_over.set()
        await writing
        assert await scene.read() == scene.acked

    play(story, configs={"min.insync.replicas": "2"}, seed=seed)


@pytest.mark.parametrize(("how", "seed"), [("kill", 1), ("lose_power", 2), ("pause", 3)])
def test_a_follower_that_dies_or_stands_still_comes_back_and_nothing_is_lost(
    how: str, seed: int
) -> None:
    async def story(scene: Scene) -> None:
        leader = scene.state.leader
        follower = next(n for n in (0, 1, 2) if n != leader)
        delays = Delays()
        writing = scene.cluster.spawn_client(lambda: write(scene, delays))
        for _ in range(2):
            await asyncio.sleep(1)
            delays.take()
            getattr(scene.cluster, how)(f"broker-{follower}")
            await scene.until(lambda: follower not in scene.state.isr, "it left")
            await asyncio.sleep(3)
            assert delays.take()[-1] < (LAG_S + 2) * 1000
            if how == "pause":
                scene.cluster.resume(f"broker-{follower}")
            else:
                scene.cluster.start(f"broker-{follower}")
            await scene.whole()
            assert scene.state.leader == leader
        delays.is_over.set()
        await writing
        assert await scene.read() == scene.acked
        await scene.until(scene.logs_are_equal, "the replicas have equal logs")

    play(story, configs={"min.insync.replicas": "2"}, seed=seed)


@pytest.mark.parametrize("slow_disk_s", [0.0, 0.3])
def test_many_followers_that_catch_up_at_once_take_bounded_memory(slow_disk_s: float) -> None:
    """replica.queued.max.bytes is one limit for all streams, of the leader and of a follower.

    On the leader's side, partitions on slow disks beyond it add one chunk each.
    """
    limit, followers, partitions = 8 * MIB, 5, 40
    of_slow_disks = followers * partitions * SLOW_CHUNK_BYTES_MIN if slow_disk_s else 0

    async def story(scene: Scene) -> None:
        leader = scene.state.leader
        others = [n for n in range(followers + 1) if n != leader]
        await make_backlog_topic(scene, [leader, *others], partitions)
        for broker_id in others:
            scene.cluster.kill(f"broker-{broker_id}")
        await fill_backlog(scene, partitions, 12 * MIB)
        for broker_id in others:
            disk = scene.node(broker_id).disk
            disk.slow_path = lambda name, _: slow_disk_s * (name == "append")
            scene.cluster.network.set_links(
                [f"broker-{leader}"], [f"broker-{broker_id}"], bytes_per_s=10e6
            )
            scene.cluster.start(f"broker-{broker_id}")
        most = [0, 0]

        async def watch() -> None:
            while True:
                for node in scene.cluster.brokers:
                    if isinstance(node.server, BrokerServer) and node.has_started:
                        most[:] = map(max, most, node.server.replication_bytes)
                await asyncio.sleep(0.002)

        watching = asyncio.create_task(watch())
        await scene.until(
            lambda: all(len(one.isr) == followers + 1 for one in backlog(scene)),
            "all are in sync",
            within_s=300,
        )
        watching.cancel()
        print(f"at most {most[0] / MIB:.1f} MiB out and {most[1] / MIB:.1f} MiB held")
        assert MIB < most[0] <= limit + of_slow_disks
        assert 0 < most[1] <= limit

    play(
        story,
        replicas=2,
        brokers=followers + 1,
        configs={"min.insync.replicas": "1"},
        broker_settings={"replica_queued_max_bytes": limit},
    )
