"""A move of 2 GiB while a producer runs at half of its full rate: what its records wait longer."""

from __future__ import annotations

import asyncio
import itertools
import time
from functools import partial

from bench.replication.cluster import PATIENCE_S, Figures, cluster_of
from bench.voters import ask
from quorate import Admin, Delivery, Producer, TopicPartition
from quorate_cli.local import LocalCluster

MOVED, LOADED = "moved", "loaded"
#: The topic that is moved: one replica of each partition, from broker 0 to broker 3.
MOVED_PARTITIONS = 4
FILL_BYTES = 64 << 10
#: The producer's records, on all brokers, with three replicas and acks=all.
PARTITIONS = 8
VALUE = bytes(range(256)) * 4
FULL_RECORDS = 60_000
BASELINE_S = 10.0
TICK_S = 0.005
#: One record of so many is timed: to time each would make the producer the limit.
TIMED_OF = 50
TARGETS = {"p99 during the move, to p99 before: median": 2.0}


async def _fill(servers: str, megabytes: int) -> None:
    value = bytes(range(256)) * (FILL_BYTES // 256)
    async with Producer(
        bootstrap_servers=servers, acks=1, delivery_timeout_ms=int(PATIENCE_S * 1000)
    ) as producer:
        for number in range((megabytes << 20) // FILL_BYTES):
            await producer.send(MOVED, value, partition=number % MOVED_PARTITIONS)


async def _full_rate(producer: Producer) -> float:
    """Return the records a second that one producer writes as fast as it can."""
    began = time.perf_counter()
    for number in range(FULL_RECORDS):
        await producer.send(LOADED, VALUE, partition=number % PARTITIONS)
    await producer.flush()
    return FULL_RECORDS / (time.perf_counter() - began)


class _Paced:
    """A producer at a steady rate, and how long its records waited for its acknowledgement."""

    def __init__(self, producer: Producer, records_per_s: float) -> None:
        self._producer = producer
        self._records_per_s = records_per_s
        self.waits: list[float] = []
        self.failed = 0

    async def run(self, until: asyncio.Event) -> None:
        began = time.perf_counter()
        for number in itertools.count():
            due = began + number / self._records_per_s
            await self._wait(due, until)
            if until.is_set():
                return
            delivery = await self._producer.send(LOADED, VALUE, partition=number % PARTITIONS)
            if number % TIMED_OF == 0:
                delivery.add_done_callback(partial(self._acked, due))

    async def _wait(self, due: float, until: asyncio.Event) -> None:
        while time.perf_counter() < due and not until.is_set():  # noqa: ASYNC110  (a clock)
            await asyncio.sleep(TICK_S)

    def _acked(self, due: float, delivery: Delivery) -> None:
        # the wait counts from the time at which the record was due, also if `send` had no room
        self.waits.append(time.perf_counter() - due)
        self.failed += delivery.exception() is not None

    def take(self) -> list[float]:
        """Return the waits since the last call, sorted."""
        found, self.waits = sorted(self.waits), []
        return found


async def _moved(admin: Admin) -> float:
    """Move the topic to broker 3. Return the seconds until it is there alone."""
    began = time.perf_counter()
    keys = [TopicPartition(MOVED, number) for number in range(MOVED_PARTITIONS)]
    refused = await admin.reassign_partitions({key: [3] for key in keys})
    assert not any(refused.values()), refused
    while await admin.list_reassignments(keys):  # noqa: ASYNC110  (asks the cluster)
        await asyncio.sleep(0.1)
    return time.perf_counter() - began


async def _move(cluster: LocalCluster, megabytes: int) -> Figures:
    servers = cluster.bootstrap_servers
    async with Admin(bootstrap_servers=servers) as admin:
        await admin.create_topic(MOVED, assignments=[[0]] * MOVED_PARTITIONS)
        await admin.create_topic(LOADED, PARTITIONS, 3)
        await _fill(servers, megabytes)
        async with Producer(bootstrap_servers=servers) as producer:
            await _full_rate(producer)
            full = await _full_rate(producer)
            paced, stop = _Paced(producer, full / 2), asyncio.Event()
            running = asyncio.create_task(paced.run(stop))
            await asyncio.sleep(2.0)
            paced.take()
            await asyncio.sleep(BASELINE_S)
            before = paced.take()
            move_s = await _moved(admin)
            during = paced.take()
            stop.set()
            await running
    at = (0.5, 0.99)
    p50, p99 = ([waits[int(len(waits) * one)] * 1000 for waits in (before, during)] for one in at)
    return {
        "full rate, records/s": [full],
        "p50 before the move, ms": [p50[0]],
        "p50 during the move, ms": [p50[1]],
        "p99 before the move, ms": [p99[0]],
        "p99 during the move, ms": [p99[1]],
        "p99 during the move, to p99 before": [p99[1] / p99[0]],
        "move, s": [move_s],
        "move, MB/s": [(megabytes << 20) / 1e6 / move_s],
        "records that failed in the move": [float(paced.failed)],
    }


def move(runs: int, megabytes: int) -> Figures:
    """Move a topic of one replica, in a new cluster of four brokers each time."""
    figures: Figures = {}
    for _ in range(runs):
        with cluster_of(4) as cluster:
            for name, values in ask(_move(cluster, megabytes)).items():
                figures.setdefault(name, []).extend(values)
    return figures
