"""Leaders that change on purpose, under load: a clean stop, a drain, a preferred election."""

from __future__ import annotations

import asyncio
import signal

from bench.replication.cluster import Figures, cluster_of
from bench.replication.failover import balanced, leaders_of
from bench.replication.load import Load, load
from bench.voters import ask
from quorate import Admin
from quorate_cli.local import LocalCluster

TOPIC = "handovers"
PARTITIONS = 12
#: A hundred records a second for each partition: a gap is seen to 10 ms.
RECORDS_PER_S = 100.0 * PARTITIONS
#: The time after a change in which gaps still count as its own.
AFTER_S = 1.0
TARGETS = {
    f"gap of {kind}, ms: worst": 100.0
    for kind in ("a clean stop", "a drain", "a preferred election")
} | {"records that failed: worst": 0.0}


class _Rounds:
    """The changes of one cluster, and the gaps in the acknowledgements of every partition."""

    def __init__(self, cluster: LocalCluster, admin: Admin, running: Load) -> None:
        self._cluster = cluster
        self._admin = admin
        self._load = running
        self.figures: Figures = {}

    def note(self, kind: str, began: float) -> None:
        gaps = self._load.gaps(range(PARTITIONS), began, self._load.now)
        self.figures.setdefault(f"gap of {kind}, ms", []).append(max(gaps) * 1000)

    async def round(self, victim: int) -> None:
        """Change the leaders of one broker, in each way."""
        began = self._load.now
        await asyncio.sleep(AFTER_S)
        self.note("an idle second", began)

        began = self._load.now
        await self._admin.drain_broker(victim)
        await asyncio.sleep(AFTER_S)
        self.note("a drain", began)
        if victim in await leaders_of(self._admin, TOPIC):
            raise SystemExit(f"broker {victim} is drained, and leads")
        await self._admin.undrain_broker(victim)

        began = self._load.now
        await self._admin.elect_leaders()
        await asyncio.sleep(AFTER_S)
        self.note("a preferred election", began)

        began = self._load.now
        self._cluster.signal(victim, signal.SIGTERM)
        while self._cluster.processes[victim].poll() is None:  # noqa: ASYNC110  (a process)
            await asyncio.sleep(0.01)
        status = self._cluster.processes.pop(victim).returncode
        await asyncio.sleep(AFTER_S)
        self.note("a clean stop", began)
        if status:
            raise SystemExit(f"broker {victim} ended with {status}")
        self._cluster.start([victim])
        await balanced(self._admin, TOPIC, self._cluster)


async def _handovers(cluster: LocalCluster, runs: int) -> Figures:
    async with Admin(bootstrap_servers=cluster.bootstrap_servers) as admin:
        await admin.create_topic(TOPIC, PARTITIONS, 3)
        async with load(cluster.bootstrap_servers, TOPIC, PARTITIONS, RECORDS_PER_S) as running:
            rounds = _Rounds(cluster, admin, running)
            for number in range(runs):
                await rounds.round(number % len(cluster.brokers))
        failed = running.acks.failed
        for error in failed[:3]:
            print(f"failed: {error!r}")
        return rounds.figures | {"records that failed": [float(len(failed))]}


def handovers(runs: int) -> Figures:
    """Drain, prefer and stop each of three brokers in turn, `runs` times in all."""
    with cluster_of(3) as cluster:
        return ask(_handovers(cluster, runs))
