"""One seed of Kafka clients that read from followers in their rack, while brokers suffer (KIP-392).

The rules, of every answer of a follower: no record in it is at or above the follower's own high
watermark, and the follower was in the ISR not long before. At the end each reader has read
every record of the log, in order, and all acknowledged ones are among them.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any
from unittest.mock import patch

from quorate import Admin
from quorate.errors import QuorateError
from quorate.record.batch import split
from quorate_broker.replica.fetched import Fetched
from quorate_broker.replica.follower_reads import FollowerReads
from quorate_broker.server import BrokerServer
from quorate_testing.simulated.cluster import ClusterShape
from quorate_testing.simulated.loop import SimulatedLoop, simulate
from tests.harness.invariants import Violation
from tests.harness.kafka_cluster import TOPIC, KafkaCluster, read, until
from tests.harness.kafka_producer import KafkaProducer
from tests.harness.kafka_reader import KafkaReader
from tests.harness.world import logs

RACKS = ("R1", "R2")
FAULTS = 7
RECOVERY_S = 60.0
#: replica.lag.time.max.ms: a follower that does not hear its leader for longer serves nobody.
LAG_MS = 1_500
#: How long after its removal from the ISR a follower may still serve. One that does not learn of
#: the removal may have heard the leader just before, and counts from there.
LATE_S = LAG_MS / 1000 + 0.2
POLL_S = 0.02


def run_reads(seed: int, *, verbose: bool = False) -> Counter[str]:
    """Run a seed, and return what happened how often. Raise Violation, or SimulationError."""

    def program(loop: SimulatedLoop) -> Coroutine[Any, Any, Counter[str]]:
        return ReadsWorld(loop, verbose=verbose).run()

    with logs(verbose=verbose):
        return simulate(program, seed)


class ReadsWorld:
    """Three brokers in two racks, a producer, a reader in each rack, and faults of chance."""

    def __init__(self, loop: SimulatedLoop, *, verbose: bool = False) -> None:
        self.loop = loop
        self.verbose = verbose
        self.chance = random.Random(loop.chance.getrandbits(64))
        settings = {"replica_lag_time_max_ms": LAG_MS}
        self.cluster = KafkaCluster(loop, ClusterShape(racks=RACKS, broker_settings=settings))
        self.producer = KafkaProducer(
            self.cluster.ports, self.cluster.kafka_endpoints, TOPIC, 0, self._chance()
        )
        self.readers = [
            KafkaReader(
                self.cluster.ports, self.cluster.kafka_endpoints, TOPIC, 0, rack, self._chance()
            )
            for rack in RACKS
        ]
        #: Since when brokers are not in the ISR, as the controller knows it.
        self.out_since: dict[int, float] = {}
        #: What a broken rule says. A server would take an exception for a failed request.
        self.broken: list[str] = []
        self.counts: Counter[str] = Counter()

    def _chance(self) -> random.Random:
        return random.Random(self.loop.chance.getrandbits(64))

    async def run(self) -> Counter[str]:
        plain = FollowerReads.fetch

        async def watched(reads: FollowerReads, offset: int, **limits: Any) -> Fetched:
            found = await plain(reads, offset, **limits)
            self._served(reads, found)
            return found

        with patch.object(FollowerReads, "fetch", watched):
            await self._run()
        for name in list(self.cluster.nodes):
            self.cluster.kill(name)
        for one in self.readers:
            self.counts += one.counts
        return self.counts

    async def _run(self) -> None:
        cluster, producer = self.cluster, self.producer
        await cluster.begin(1, **{"min.insync.replicas": 2})
        watching = asyncio.create_task(self._watch_isr())
        writing = cluster.spawn_client(producer.run)
        reading = [cluster.spawn_client(one.run) for one in self.readers]
        await self._break_things()
        producer.is_stopped = True
        async with asyncio.timeout(RECOVERY_S):
            await writing
            log = await read(cluster, 0)
            await until(lambda: self._have_read(len(log)) or any(one.done() for one in reading))
        watching.cancel()
        for task in reading:
            if task.done():
                task.result()  # raises what ended it
            task.cancel()
        await asyncio.gather(watching, *reading, return_exceptions=True)
        if self.broken:
            raise Violation("; ".join(self.broken[:3]))
        if producer.acked != log:
            raise Violation("the log is not what the producer was told")
        for one in self.readers:
            if one.read != log:
                raise Violation(f"the reader in {one.rack} has read something else than the log")
        self.counts["acknowledged"] += len(log)

    def _have_read(self, count: int) -> bool:
        return all(len(one.read) >= count for one in self.readers)

    # The rules of an answer.

    def _served(self, reads: FollowerReads, found: Fetched) -> None:
        """Check an answer of a follower, at the moment at which it is made."""
        broker_id = reads._replica.broker_id
        server = self.cluster.nodes[f"broker-{broker_id}"].server
        assert isinstance(server, BrokerServer)
        [partition] = [one for one in server.replicas.all() if one.topic == TOPIC]
        end = max((header.end_offset for header, _ in split(found.batches)), default=0)
        if end > partition.high_watermark:
            self.broken.append(
                f"broker {broker_id} gave records up to {end}, above its high watermark "
                f"{partition.high_watermark}"
            )
        now_s = self.loop.time()
        since_s = self.out_since.get(broker_id, now_s)
        if now_s - since_s > LATE_S:
            self.broken.append(
                f"broker {broker_id} served at {now_s:.3f} s, and is out of the ISR since "
                f"{since_s:.3f} s"
            )

    async def _watch_isr(self) -> None:
        while True:
            state = self.cluster.state(0)
            for broker_id in range(len(self.cluster.brokers)):
                if state is None:
                    continue
                if broker_id in state.isr:
                    self.out_since.pop(broker_id, None)
                elif broker_id not in self.out_since:
                    self.out_since[broker_id] = self.loop.time()
                    self.counts["left the ISR"] += 1
            await asyncio.sleep(POLL_S)

    def _tell(self, what: str) -> None:
        if self.verbose:
            print(f"{self.loop.time():10.3f}  {what}", flush=True)

    # The faults.

    async def _break_things(self) -> None:
        await asyncio.sleep(1.0)
        kinds = (
            self._kill,
            self._pause,
            self._cut_from_leader,
            self._cut_off,
            self._cut_off,
            self._slow,
            self._elect,
        )
        for _ in range(FAULTS):
            kind: Callable[[str], Coroutine[Any, Any, None]] = self.chance.choice(kinds)
            victim = self._victim()
            if self.chance.random() < 0.1:
                kind, victim = self._kill, self.cluster.controller().name
            name = kind.__name__.lstrip("_")
            self.counts[f"fault: {name}"] += 1
            self._tell(f"{name} {victim}")
            await kind(victim)
            self._tell(f"{name} {victim} is over")
            await asyncio.sleep(self.chance.uniform(0.1, 2.0))
        self.cluster.network.heal()
        self.cluster.start_all()

    def _victim(self) -> str:
        """Return a broker: often a follower that is read from."""
        in_use = [one.replica for one in self.readers if one.replica >= 0]
        if in_use and self.chance.random() < 0.8:
            return f"broker-{self.chance.choice(in_use)}"
        return f"broker-{self.chance.randrange(len(self.cluster.brokers))}"

    async def _some_time(self) -> None:
        await asyncio.sleep(self.chance.choice((0.5, 2.0, 5.0, 8.0)) * self.chance.uniform(0.5, 1))

    async def _kill(self, victim: str) -> None:
        self.cluster.kill(victim)
        await self._some_time()
        self.cluster.start(victim)

    async def _pause(self, victim: str) -> None:
        self.cluster.pause(victim)
        await self._some_time()
        self.cluster.resume(victim)

    async def _cut_from_leader(self, victim: str) -> None:
        """Its clients reach it, and so does the controller."""
        leader = self.cluster.leader(0).name
        if leader != victim:
            self.cluster.network.cut([victim], [leader])
        await self._some_time()
        self.cluster.network.heal()

    async def _cut_off(self, victim: str) -> None:
        """Only its clients reach it."""
        others = [one for one in self.cluster.nodes if one != victim]
        self.cluster.network.cut([victim], others)
        await self._some_time()
        self.cluster.network.heal()

    async def _slow(self, victim: str) -> None:
        """Its disk takes so long that it falls behind, though it hears the leader."""
        disk = self.cluster.nodes[victim].disk
        disk.slow = self.chance.uniform(0.5, 2.5)
        await asyncio.sleep(self.chance.uniform(4, 8))
        disk.slow = 0.0

    async def _elect(self, _: str) -> None:
        """The preferred leader leads again."""

        async def elect() -> None:
            async with Admin(bootstrap_servers=self.cluster.bootstrap_servers) as admin:
                await admin.elect_leaders()

        try:
            async with asyncio.timeout(5):
                await self.cluster.spawn_client(elect)
        except (QuorateError, TimeoutError):
            self.counts["elections that failed"] += 1
