"""kill -9 of one broker, of a broker with many leaders, and of a whole rack."""

from __future__ import annotations

import asyncio
import time

from bench.replication.cluster import PATIENCE_S, Figures, cluster_of
from bench.replication.load import load
from bench.voters import ask
from quorate import Admin, Consumer, TopicPartition
from quorate_cli.local import LocalCluster

PARTITIONS = 6
RECORDS_PER_S = 600.0
#: Partitions of the broker with many leaders: each of three brokers leads a third.
MANY = 3000
#: The partitions that the load writes to, in the benches of many leaders.
WATCHED = 12
TARGETS = {
    "failover of a leader, s: median": 0.3,
    "failover of a leader, s: worst": 1.5,
    "failover of 1,000 leaders until all are led, s: median": 2.0,
    "failover of a rack until all are led, s: median": 2.0,
}


async def leaders_of(admin: Admin, topic: str) -> list[int]:
    return [one.leader for one in (await admin.describe_topics([topic]))[topic].partitions]


async def balanced(admin: Admin, topic: str, cluster: LocalCluster) -> None:
    """Wait until all brokers are alive and each partition is led by its preferred replica."""
    await cluster.wait_ready(timeout=PATIENCE_S)
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = (await admin.describe_topics([topic]))[topic].partitions
            if all(len(one.isr) == len(one.replicas) for one in found):
                break
            await asyncio.sleep(0.1)
        await admin.elect_leaders()
        while True:
            found = (await admin.describe_topics([topic]))[topic].partitions
            if all(one.leader == one.replicas[0] for one in found):
                return
            await asyncio.sleep(0.1)


async def _gap(cluster: LocalCluster, topic: str, victims: list[int], led: list[int]) -> float:
    """Kill the victims under load. Return the longest gap on the partitions that they led."""
    running = ",".join(node.endpoint for node in cluster.brokers if node.id not in victims)
    async with load(running, topic, PARTITIONS, RECORDS_PER_S) as found:
        at = found.now
        cluster.kill(*victims)
        await asyncio.wait_for(found.until_all_acked_since(found.now + 0.05, led), PATIENCE_S)
        await asyncio.sleep(1.0)
        gap = max(found.gaps(led, at - 0.05, found.now - 0.5))
    if found.acks.failed:
        raise SystemExit(f"{len(found.acks.failed)} records failed: {found.acks.failed[0]}")
    return gap


async def _failovers(cluster: LocalCluster, runs: int) -> list[float]:
    gaps = []
    async with Admin(bootstrap_servers=cluster.bootstrap_servers) as admin:
        await admin.create_topic("failover", PARTITIONS, 3)
        for number in range(runs):
            await balanced(admin, "failover", cluster)
            leaders = await leaders_of(admin, "failover")
            victim = sorted(set(leaders))[number % len(set(leaders))]
            led = [index for index, leader in enumerate(leaders) if leader == victim]
            gaps.append(await _gap(cluster, "failover", [victim], led))
            cluster.start([victim])
    return gaps


def failover(runs: int) -> Figures:
    """Kill a leader under load, `runs` times, in a cluster of six brokers."""
    with cluster_of(6) as cluster:
        return {"failover of a leader, s": ask(_failovers(cluster, runs))}


async def _until_led(servers: str, topics: dict[str, int], since: float) -> float:
    """Return the seconds since `since` when the leader of each partition has answered."""
    keys = [TopicPartition(name, one) for name, count in topics.items() for one in range(count)]
    async with Consumer(bootstrap_servers=servers) as consumer:
        await consumer.end_offsets(keys)
    return time.perf_counter() - since


async def _many(cluster: LocalCluster, victims: list[int]) -> tuple[float, float, int]:
    """Kill brokers with many leaders. Return the time until all are led, the gap, and how many."""
    survivors = ",".join(node.endpoint for node in cluster.brokers if node.id not in victims)
    async with Admin(bootstrap_servers=cluster.bootstrap_servers) as admin:
        await admin.create_topic("many", MANY, 3)
        await admin.create_topic("watched", WATCHED, 3)
        await balanced(admin, "many", cluster)
        lost = sum(leader in victims for leader in await leaders_of(admin, "many"))
        leaders = await leaders_of(admin, "watched")
        led = [index for index, leader in enumerate(leaders) if leader in victims]
    async with load(survivors, "watched", WATCHED, RECORDS_PER_S) as found:
        at, began = found.now, time.perf_counter()
        cluster.kill(*victims)
        led_s = await _until_led(survivors, {"many": MANY, "watched": WATCHED}, began)
        await asyncio.wait_for(found.until_all_acked_since(found.now, led), PATIENCE_S)
        await asyncio.sleep(1.0)
        gap = max(found.gaps(led, at - 0.05, found.now - 0.5))
    return led_s, gap, lost


def leaders(runs: int) -> Figures:
    """Kill a broker that leads a thousand partitions; each time in a new cluster of three."""
    figures: Figures = {}
    for _ in range(runs):
        with cluster_of(3) as cluster:
            led_s, gap, lost = ask(_many(cluster, [2]))
        figures.setdefault("failover of 1,000 leaders until all are led, s", []).append(led_s)
        figures.setdefault("failover of 1,000 leaders, longest gap, s", []).append(gap)
        figures.setdefault("failover of 1,000 leaders, leaders lost", []).append(lost)
    return figures


def rack(runs: int) -> Figures:
    """Kill one of three racks, two brokers of six; each time in a new cluster."""
    figures: Figures = {}
    for _ in range(runs):
        with cluster_of(6, racks=("a", "b", "c")) as cluster:
            led_s, gap, lost = ask(_many(cluster, [4, 5]))
        figures.setdefault("failover of a rack until all are led, s", []).append(led_s)
        figures.setdefault("failover of a rack, longest gap, s", []).append(gap)
        figures.setdefault("failover of a rack, leaders lost", []).append(lost)
    return figures
