"""One seed: a cluster, an idempotent producer, a consumer, faults, and what must come of it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog

from quorate import Admin, Consumer, Delivery, Producer, TopicPartition
from quorate.errors import QuorateError
from quorate_broker.server import BrokerServer
from quorate_testing.simulated.cluster import ClusterShape, SimulatedCluster
from quorate_testing.simulated.loop import SimulatedLoop, current_process, simulate
from tests.harness.invariants import Invariants, Violation, partitions_of
from tests.harness.nemesis import Nemesis

TOPIC = "events"
PARTITIONS = 3
FAULTS_S = 44.0
SIMULATED_S = 60.0
RECOVERY_S = 120.0


@dataclass(slots=True)
class History:
    """What the producer was told and the consumer has seen."""

    sent: dict[bytes, Delivery] = field(default_factory=dict)
    order: dict[int, list[bytes]] = field(default_factory=dict)
    acked: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    failed: dict[bytes, QuorateError] = field(default_factory=dict)
    #: What lies at (partition, offset), by whoever read it first.
    seen: dict[tuple[int, int], bytes] = field(default_factory=dict)
    reads: int = 0
    #: Seconds at which something was acknowledged.
    acked_at: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Outcome:
    """What a seed did."""

    seed: int
    sent: int = 0
    acked: int = 0
    failed: int = 0
    read: int = 0
    elections: int = 0
    leader_changes: int = 0
    checks: int = 0
    injected: Counter[str] = field(default_factory=Counter)
    #: A digest of who ran when: the same for the same seed, in any process.
    trace: str = ""


def run_seed(seed: int, *, verbose: bool = False) -> Outcome:
    """Run one seed; raise Violation, or SimulationError if something failed unseen."""
    return run_faults(lambda world: world.nemesis.run(FAULTS_S), seed, verbose=verbose)


def run_faults(
    faults: Callable[[World], Awaitable[None]],
    seed: int,
    *,
    verbose: bool = False,
    simulated_s: float = SIMULATED_S,
    syncs_on_ack: bool | None = None,
) -> Outcome:
    """Run the same world with faults of one's own, while records are produced and consumed."""

    def program(loop: SimulatedLoop) -> Coroutine[Any, Any, Outcome]:
        return World(loop, seed, faults, simulated_s, syncs_on_ack, verbose=verbose).run()

    with logs(verbose=verbose):
        return simulate(program, seed)


@contextlib.contextmanager
def logs(*, verbose: bool) -> Iterator[None]:
    """Silence, or each line with the virtual time and the process that speaks."""
    before = structlog.get_config()

    def stamp(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
        event["event"] = f"{asyncio.get_event_loop().time():10.3f}  {event['event']}"
        process = current_process()
        event["on"] = "world" if process is None else process.name
        return event

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.INFO if verbose else logging.CRITICAL
        ),
        processors=[stamp, structlog.dev.ConsoleRenderer(colors=False)],
    )
    try:
        yield
    finally:
        structlog.configure(**before)


class World:
    """A cluster under faults, and those who use it; see run_seed and run_faults."""

    def __init__(
        self,
        loop: SimulatedLoop,
        seed: int,
        faults: Callable[[World], Awaitable[None]],
        simulated_s: float,
        syncs_on_ack: bool | None,
        *,
        verbose: bool,
    ) -> None:
        self.loop = loop
        self.faults = faults
        self.simulated_s = simulated_s
        self.trace = hashlib.sha256()
        self.seed = seed
        self.verbose = verbose
        self.chance = random.Random(loop.chance.getrandbits(64))
        self.cluster = SimulatedCluster(loop, ClusterShape(racks=("R1", "R2")))
        self.history = History()
        self.invariants = Invariants(self.cluster)
        drawn = self.chance.random() < 0.4
        self.syncs_on_ack = drawn if syncs_on_ack is None else syncs_on_ack
        self.nemesis = Nemesis(
            self.cluster,
            random.Random(loop.chance.getrandbits(64)),
            brokers_may_all_lose_power=self.syncs_on_ack,
            told=self.tell,
            all_in_sync=self._all_in_sync,
        )
        self.stop = False

    def tell(self, what: str) -> None:
        if self.verbose:
            print(f"{self.loop.time():10.3f}  {what}", flush=True)

    async def run(self) -> Outcome:
        await self.cluster.format()
        self.cluster.start_all()
        self.loop.on_instant = self._instant_ends
        try:
            return await self._run()
        finally:
            self.loop.on_instant = None

    def _instant_ends(self) -> None:
        self.trace.update(f"{self.loop.time()!r} {' '.join(self.loop.ran)}\n".encode())
        self.invariants.check()

    async def _run(self) -> Outcome:
        await self._all_unfenced()
        await self.cluster.spawn_client(self._create_topic, "admin")
        self.tell("topic created")
        producing = self.cluster.spawn_client(self._produce, "producer")
        consuming = self.cluster.spawn_client(self._consume, "consumer")
        await self.faults(self)
        self.nemesis.heal()
        self.tell("healed")
        await asyncio.sleep(max(0.0, self.simulated_s - 4 - self.loop.time()))
        self.stop = True
        async with asyncio.timeout(RECOVERY_S):
            await producing
        self.tell("producer done")
        async with asyncio.timeout(RECOVERY_S):
            await self.cluster.spawn_client(self._read_all, "reader")
        consuming.cancel()
        await asyncio.gather(consuming, return_exceptions=True)
        await asyncio.sleep(max(0.0, self.simulated_s - self.loop.time()))
        await self.invariants.check_logs_match()
        self._judge()
        return self._outcome()

    async def _all_unfenced(self) -> None:
        while True:
            servers = [node.server for node in self.cluster.brokers]
            if all(isinstance(one, BrokerServer) and not one.is_fenced for one in servers):
                return
            await asyncio.sleep(0.01)

    async def _create_topic(self) -> None:
        # min.insync.replicas is the cluster's default, 2.
        configs = {"flush.on.ack": "true"} if self.syncs_on_ack else {}
        async with Admin(bootstrap_servers=self.cluster.bootstrap_servers) as admin:
            while True:
                try:
                    await admin.create_topic(TOPIC, PARTITIONS, 3, configs)
                    return
                except QuorateError as error:
                    if not error.retriable:
                        raise
                    await asyncio.sleep(0.1)

    async def _produce(self) -> None:
        history = self.history
        async with Producer(
            bootstrap_servers=self.cluster.bootstrap_servers, delivery_timeout_ms=60_000
        ) as producer:
            number = 0
            while not self.stop:
                for _ in range(self.chance.choice((1, 1, 3, 10))):
                    partition = self.chance.randrange(PARTITIONS)
                    value = b"%d" % number
                    number += 1
                    delivery = await producer.send(TOPIC, value, partition=partition)
                    history.sent[value] = delivery
                    history.order.setdefault(partition, []).append(value)
                    delivery.add_done_callback(partial(self._noted, value))
                await asyncio.sleep(self.chance.uniform(0.0, 0.15))
            await producer.flush()
        await asyncio.sleep(0)

    def _noted(self, value: bytes, delivery: Delivery) -> None:
        try:
            metadata = delivery.result()
        except QuorateError as error:
            self.history.failed[value] = error
            return
        self.history.acked[value] = (metadata.partition, metadata.offset)
        self.history.acked_at.append(self.loop.time())

    async def _consume(self) -> None:
        last: dict[int, int] = {}
        async with Consumer(
            TOPIC, bootstrap_servers=self.cluster.bootstrap_servers, auto_offset_reset="earliest"
        ) as consumer:
            async for record in consumer:
                if record.offset <= last.get(record.partition, -1):
                    raise Violation(
                        f"the consumer of {TOPIC}-{record.partition} went from offset "
                        f"{last[record.partition]} to {record.offset}"
                    )
                last[record.partition] = record.offset
                assert record.value is not None
                self._saw(record.partition, record.offset, record.value)

    def _saw(self, partition: int, offset: int, value: bytes) -> None:
        self.history.reads += 1
        before = self.history.seen.setdefault((partition, offset), value)
        if before != value:
            raise Violation(f"{TOPIC}-{partition} offset {offset} was {before!r}, now {value!r}")

    async def _read_all(self) -> None:
        async with Consumer(
            TOPIC, bootstrap_servers=self.cluster.bootstrap_servers, auto_offset_reset="earliest"
        ) as consumer:
            ends = await consumer.end_offsets(
                [TopicPartition(TOPIC, number) for number in range(PARTITIONS)]
            )
            found: dict[int, list[bytes]] = {number: [] for number in range(PARTITIONS)}
            while any([await consumer.position(p) < end for p, end in sorted(ends.items())]):
                for partition, records in (await consumer.getmany(timeout_ms=1000)).items():
                    for record in records:
                        assert record.value is not None
                        self._saw(record.partition, record.offset, record.value)
                        found[partition.partition].append(record.value)
        self.final = found

    def _judge(self) -> None:
        """Nothing acknowledged is missing, doubled, elsewhere or out of order."""
        history = self.history
        for partition, values in self.final.items():
            if len(set(values)) != len(values):
                doubled = [v for v, n in Counter(values).items() if n > 1]
                raise Violation(f"{TOPIC}-{partition}: {doubled[:5]} were written twice")
            numbers = [int(value) for value in values]
            if numbers != sorted(numbers):
                raise Violation(f"{TOPIC}-{partition}: records are out of order")
        final = {value: partition for partition, values in self.final.items() for value in values}
        for value, (partition, offset) in history.acked.items():
            if final.get(value) != partition:
                raise Violation(
                    f"{value!r} was acknowledged at {TOPIC}-{partition} offset {offset}, "
                    f"and is lost"
                )
            if history.seen.get((partition, offset)) != value:
                raise Violation(f"{value!r} was acknowledged at another offset than {offset}")
        if not history.acked:
            raise Violation("nothing was committed")
        if history.failed and len(history.failed) > len(history.acked):
            first = next(iter(history.failed.values()))
            raise Violation(f"more failed than was acknowledged: {first!r}")

    def _all_in_sync(self) -> bool:
        """Whether every broker knows every ISR as whole, its own incarnation in it.

        What only a leader knows is not enough: it may not have heard yet that a broker came back
        as another incarnation, and is in no ISR.
        """
        whole = 0
        for node in self.cluster.brokers:
            if not isinstance(node.server, BrokerServer) or node.server.is_fenced:
                return False
            whole += sum(len(one.isr) == 3 for one in partitions_of(node.server))
        return whole == 3 * PARTITIONS

    def _outcome(self) -> Outcome:
        history = self.history
        return Outcome(
            self.seed,
            sent=len(history.sent),
            acked=len(history.acked),
            failed=len(history.failed),
            read=history.reads,
            elections=len(self.invariants.quorum_leaders),
            leader_changes=len(self.invariants.leaders),
            checks=self.invariants.checks,
            injected=self.nemesis.injected,
            trace=self.trace.hexdigest(),
        )
