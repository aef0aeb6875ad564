"""Each fault that a test names has its effect, and is undone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from quorate import Consumer, Producer, TopicPartition
from quorate.errors import InvalidRequestError, QuorateError
from quorate_testing import ClusterFaults, SimulatedCluster

TOPIC = "orders"


async def send(cluster: SimulatedCluster, value: bytes, timeout_ms: int = 5_000) -> float:
    """Send a record, and return the virtual seconds that it took."""
    began_s = cluster.clock.now
    async with Producer(
        bootstrap_servers=cluster.bootstrap_servers, delivery_timeout_ms=timeout_ms
    ) as producer:
        await producer.send_and_wait(TOPIC, value)
    return cluster.clock.now - began_s


def run(
    main: Callable[[SimulatedCluster], Coroutine[Any, Any, None]], brokers: int = 3, seed: int = 11
) -> None:
    with SimulatedCluster(seed=seed, voters=3, brokers=brokers) as cluster:
        cluster.create_topic(TOPIC, configs={"min.insync.replicas": min(2, brokers)})
        cluster.run(main, cluster)


async def kill(cluster: SimulatedCluster, leader: int) -> None:
    cluster.faults.kill(leader)


async def lose_power(cluster: SimulatedCluster, leader: int) -> None:
    cluster.faults.lose_power(leader)


async def stop(cluster: SimulatedCluster, leader: int) -> None:
    await cluster.faults.stop(leader)


async def pause(cluster: SimulatedCluster, leader: int) -> None:
    cluster.faults.pause(leader)


async def cut(cluster: SimulatedCluster, leader: int) -> None:
    cluster.network.cut({leader})


async def cut_one_way(cluster: SimulatedCluster, leader: int) -> None:
    cluster.network.cut(leader, one_way=True)


async def fail_disk(cluster: SimulatedCluster, leader: int) -> None:
    cluster.faults.fail_disk(leader)


@pytest.mark.parametrize("fault", [kill, lose_power, stop, pause, cut, cut_one_way, fail_disk])
def test_a_leader_in_trouble_is_replaced_and_comes_back(
    fault: Callable[[SimulatedCluster, int], Awaitable[None]],
) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        await send(cluster, b"1")
        leader = cluster.leader_of(TOPIC)
        assert leader is not None
        await fault(cluster, leader)
        await send(cluster, b"2", timeout_ms=60_000)
        assert cluster.leader_of(TOPIC) != leader
        cluster.faults.heal()
        await cluster.clock.advance_until(lambda: len(cluster.isr_of(TOPIC)) == 3)
        assert cluster.running == (100, 101, 102, 0, 1, 2)

    run(main)


def test_the_controller_is_replaced_and_a_quorum_without_majority_has_none() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        first = cluster.controller
        assert first is not None
        cluster.faults.kill(first)
        await cluster.clock.advance_until(lambda: cluster.controller not in (None, first))
        second = cluster.controller
        assert second is not None
        cluster.faults.pause(second)
        await cluster.clock.advance(30)
        assert cluster.controller == second  # it does not know better yet
        cluster.faults.kill(second)
        assert cluster.controller is None
        cluster.faults.start(first)
        cluster.faults.start(first)
        await cluster.clock.advance_until(lambda: cluster.controller is not None)

    run(main)


def test_a_program_that_is_cut_off_or_paused_waits() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        cluster.network.cut("test", {0, 1, 2})
        with pytest.raises(QuorateError):
            await send(cluster, b"1")
        cluster.network.heal("test")
        assert await send(cluster, b"2") < 1

        async def count() -> None:
            while True:
                await asyncio.sleep(1)
                ticks.append(cluster.clock.now)

        ticks: list[float] = []
        cluster.spawn(count, name="counter")
        await cluster.clock.advance(3.5)
        cluster.faults.pause("counter")
        await cluster.clock.advance(10)
        assert len(ticks) == 3
        cluster.faults.resume("counter")
        await cluster.clock.advance(2.5)
        assert len(ticks) == 6
        cluster.faults.kill("counter")
        with pytest.raises(InvalidRequestError, match="counter does not run"):
            cluster.faults.pause("counter")

    run(main)


def test_links_are_slow_until_they_are_healed() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        usual_s = await send(cluster, b"1")
        cluster.network.slow("test", delay_ms=100)
        assert await send(cluster, b"2") > usual_s + 0.2
        cluster.network.heal("test")
        assert await send(cluster, b"3") < 0.3
        cluster.network.slow(delay_ms=1, loss=0.3)
        assert await send(cluster, b"4", timeout_ms=60_000) > 0.1
        cluster.network.heal()
        await cluster.clock.advance(5)  # what was lost is repeated
        assert await send(cluster, b"5") < 0.3
        assert cluster.network.break_connections({0}, {100, 101, 102}) > 0
        assert await send(cluster, b"6", timeout_ms=60_000) < 5

    run(main)


def test_a_slow_disk_is_slow_until_it_is_mended() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        usual_s = await send(cluster, b"1")
        cluster.faults.slow_disk(0, 1.0)
        assert await send(cluster, b"2") > usual_s + 0.9
        cluster.faults.mend_disk(0)
        await cluster.clock.advance(2)
        assert await send(cluster, b"3") < 0.3

    run(main, brokers=1)


def test_a_full_disk_refuses_records_and_a_mended_one_takes_them() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        await send(cluster, b"1")
        cluster.faults.fill_disk(0)
        with pytest.raises(QuorateError, match=r"No space|disk is full"):
            await send(cluster, b"x" * 10_000)
        cluster.faults.mend_disk(0)
        if 0 not in cluster.running:
            assert cluster.why_stopped(0)
        await cluster.start_broker(0)
        await send(cluster, b"2", timeout_ms=60_000)

    run(main, brokers=1)


def test_a_voter_whose_disk_fails_stops_and_says_why() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        controller = cluster.controller
        assert controller is not None
        assert cluster.why_stopped(controller) is None
        cluster.faults.fail_disk(controller)
        cluster.faults.kill(0)  # an event to write
        await cluster.clock.advance_until(lambda: controller not in cluster.running)
        assert "Errno 5" in (cluster.why_stopped(controller) or "")
        await cluster.clock.advance_until(lambda: cluster.controller is not None)

    run(main)


def test_a_power_loss_of_all_takes_what_was_not_synced() -> None:
    """Without flush.on.ack, as docs/guarantees.md says. With it nothing is lost."""
    lost = {True: 0, False: 0}
    for syncs in (True, False):
        for seed in range(4):
            with SimulatedCluster(seed=seed) as cluster:
                cluster.create_topic(TOPIC, configs={"flush.on.ack": syncs})
                cluster.run(send, cluster, b"1")
                cluster.lose_power()
                cluster.start()
                lost[syncs] += 1 - cluster.run(end_offset, cluster)
    assert lost[True] == 0
    assert lost[False] > 0


async def end_offset(cluster: SimulatedCluster) -> int:
    partition = TopicPartition(TOPIC, 0)
    async with Consumer(bootstrap_servers=cluster.bootstrap_servers) as consumer:
        return (await consumer.end_offsets([partition]))[partition]


def test_clocks_jump_together_or_alone() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        async def stamp() -> int:
            async with Producer(bootstrap_servers=cluster.bootstrap_servers) as producer:
                return (await producer.send_and_wait(TOPIC, b"1")).timestamp_ms

        began_ms, began_s = cluster.clock.wall_ms, cluster.clock.now
        cluster.clock.jump(86_400)
        assert cluster.clock.now == began_s
        assert cluster.clock.wall_ms == began_ms + 86_400_000
        assert abs(await stamp() - cluster.clock.wall_ms) < 1000
        cluster.faults.kill(0)
        await cluster.start_broker(0)
        behind = cluster.spawn(stamp, name="behind")
        cluster.faults.jump_clock("behind", -3600)
        assert abs(await behind - cluster.clock.wall_ms + 3_600_000) < 1000
        cluster.clock.jump(-86_400)
        assert cluster.clock.wall_ms < began_ms + 60_000

    run(main, brokers=1)


@pytest.mark.parametrize("seed", range(2))
def test_random_faults_lose_nothing_that_was_acknowledged(seed: int) -> None:
    async def main(cluster: SimulatedCluster) -> None:
        chaos = asyncio.create_task(cluster.faults.random(8))
        async with Producer(bootstrap_servers=cluster.bootstrap_servers) as producer:
            for number in range(15):
                sent = await producer.send_and_wait(TOPIC, b"%d" % number)
                assert sent.offset == number
                await asyncio.sleep(0.5)
        await chaos
        assert len(cluster.running) == 6
        assert cluster.faults.history[-1].endswith("all faults are undone")
        await cluster.clock.advance_until(lambda: len(cluster.isr_of(TOPIC)) == 3)

    run(main, seed=seed)


def test_random_faults_of_some_kinds_are_of_these_kinds() -> None:
    async def main(cluster: SimulatedCluster) -> None:
        await cluster.faults.random(5, ["cut", "delay"])
        told = [line.split("s  ", 1)[1] for line in cluster.faults.history[:-1]]
        assert told
        assert all(line.strip().startswith(("cut", "delay")) for line in told)
        for kinds in ("cut", ["fire"], [], 5):
            with pytest.raises((TypeError, ValueError), match=r"kinds must be .*some of kill, "):
                await cluster.faults.random(5, kinds)  # type: ignore[arg-type]

    run(main)
    assert {"kill", "cut", "power loss"} <= set(ClusterFaults.KINDS)
