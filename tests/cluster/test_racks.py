"""kill -9 of a whole rack: what has min.insync.replicas in the other one goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from quorate import Admin, Producer
from quorate_cli.local import LocalCluster
from quorate_cli.local_shape import Shape, free_port
from tests.cluster.support import PATIENCE_S, create, describe, read, started, until, whole

PARTITIONS = 10
#: Topic -> replicas and min.insync.replicas. The first is that of the demo.
TOPICS = {"invoice": (3, 1), "invoice-3": (3, 2), "invoice-4": (4, 2)}

Key = tuple[str, int]
ALL = [(topic, partition) for topic in TOPICS for partition in range(PARTITIONS)]


@dataclass
class Writers:
    """One writer for each partition, each with one record under way."""

    cluster: LocalCluster
    acked: dict[Key, list[bytes]] = field(default_factory=lambda: {key: [] for key in ALL})
    #: When the last acknowledged record was sent, and when it was acknowledged.
    last: dict[Key, tuple[float, float]] = field(default_factory=dict)
    is_over: bool = False

    async def run(self) -> None:
        servers = self.cluster.bootstrap_servers
        async with Producer(bootstrap_servers=servers, linger_ms=0) as producer:
            await asyncio.gather(*(self._write(producer, key) for key in ALL))

    async def _write(self, producer: Producer, key: Key) -> None:
        acked = self.acked[key]
        while not self.is_over:
            value, sent_s = b"%d-%d" % (key[1], len(acked)), time.monotonic()
            await producer.send_and_wait(key[0], value, partition=key[1])
            acked.append(value)
            self.last[key] = (sent_s, time.monotonic())
            await asyncio.sleep(0.05)

    async def gone_on(self, keys: Collection[Key], since_s: float) -> float:
        """Wait for a record of each that was sent after a time. Return how long the last took."""
        found: dict[Key, float] = {}

        def look() -> bool:
            for key in keys:
                sent_s, acked_s = self.last.get(key, (-1.0, 0.0))
                if sent_s > since_s:
                    found.setdefault(key, acked_s - since_s)
            return len(found) == len(keys)

        await until(look, f"records of {len(keys)} partitions", every=0.005)
        return max(found.values())


async def that_go_on(cluster: LocalCluster, dead: Collection[int]) -> set[Key]:
    """Return the partitions that have min.insync.replicas in sync without these brokers."""
    return {
        (name, one.partition)
        for name, (_, min_isr) in TOPICS.items()
        for one in (await describe(cluster, name)).partitions
        if len(set(one.isr) - set(dead)) >= min_isr
    }


def test_a_rack_that_is_killed_stops_only_what_lacks_replicas_elsewhere(tmp_path: Path) -> None:
    shape = Shape(brokers=6, racks=("R1", "R2"), port=free_port(6))
    with started(tmp_path, shape) as cluster:
        asyncio.run(_kill_racks(cluster))


async def _kill_racks(cluster: LocalCluster) -> None:
    for name, (replicas, min_isr) in TOPICS.items():
        await create(cluster, name, PARTITIONS, replicas=replicas, min_insync_replicas=str(min_isr))
        await whole(cluster, name)
    writers = Writers(cluster)
    writing = asyncio.create_task(writers.run())
    await writers.gone_on(ALL, 0.0)
    for rack in ("R1", "R2"):
        dead = {node.id for node in cluster.brokers if node.rack == rack}
        alive = await that_go_on(cluster, dead)
        assert {key for key in ALL if key[0] != "invoice-3"} <= alive
        assert len(alive) == 2.5 * PARTITIONS, "half of invoice-3 has two replicas elsewhere"
        killed_s = time.monotonic()
        cluster.kill(*dead)
        took_s = await writers.gone_on(alive, killed_s)
        print(f"rack {rack} killed: {len(alive)} partitions go on within {took_s:.2f} s")
        cluster.died()
        cluster.start(dead)
        await cluster.wait_ready(timeout=PATIENCE_S)
        for name in TOPICS:
            await whole(cluster, name)
        await writers.gone_on(ALL, time.monotonic())
        async with Admin(bootstrap_servers=cluster.bootstrap_servers) as admin:
            await admin.elect_leaders()
    writers.is_over = True
    await writing
    for name in TOPICS:
        found = await read(cluster, name)
        acked = [value for key in ALL if key[0] == name for value in writers.acked[key]]
        assert found == acked, f"{name}: every acknowledged record once, in order"
