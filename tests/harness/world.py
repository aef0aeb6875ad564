"""One seed: a cluster, an idempotent producer, a consumer, faults, and the judgement of it."""

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

from quorate_broker.replica.partition import Partition
from quorate_broker.server import BrokerServer
from quorate_testing.simulated.chaos import RESTART_S, Fault
from quorate_testing.simulated.cluster import ClusterShape, SimulatedCluster, SimulatedNode
from quorate_testing.simulated.loop import SimulatedLoop, current_process, simulate
from tests.harness.cluster_admins import Administrators
from tests.harness.cluster_clients import CONSUMER, PRODUCER, TOPIC, Clients
from tests.harness.cluster_damage import Damages
from tests.harness.cluster_faults import Nemesis, draw_plan
from tests.harness.cluster_history import judge, must_be_seen
from tests.harness.cluster_operator import Operator
from tests.harness.cluster_shape import FLAGS, Shape, draw_shape
from tests.harness.invariants import Invariants, Violation, has_started
from tests.harness.partition_rules import PartitionRules, duplicates_counted
from tests.harness.topic_view import TopicView

USUAL = Shape()
#: A small map of keys, as a run has few: to clear 64 MiB took a third of its time.
SETTINGS = {
    "log_retention_check_interval_ms": 1000,
    "log_cleaner_backoff_ms": 500,
    "log_cleaner_dedupe_buffer_size": 1 << 20,
}
FAULTS_S = 14.0
SIMULATED_S = 20.0
RECOVERY_S = 120.0
#: Time after which a reader is taken for stopped by damage; a whole topic is read in a second.
READING_S = 15.0


@dataclass(slots=True)
class Outcome:
    """The counts of a seed's run."""

    seed: int
    shape: str = ""
    sent: int = 0
    acked: int = 0
    failed: int = 0
    read: int = 0
    elections: int = 0
    leader_changes: int = 0
    checks: int = 0
    #: Other counts; they are added up over seeds.
    counters: Counter[str] = field(default_factory=Counter)
    injected: Counter[str] = field(default_factory=Counter)
    #: A digest of which process ran when: the same for the same seed, in any Python process.
    trace: str = ""


def plan_of(seed: int) -> list[Fault]:
    """Return the faults that a seed stands for."""
    return draw_plan(random.Random(f"plan {seed}"), FAULTS_S)


def shape_of(seed: int) -> Shape:
    """Return the shape that a seed stands for."""
    return draw_shape(random.Random(f"shape {seed}"))


def run_seed(
    seed: int,
    plan: list[Fault] | None = None,
    *,
    shape: Shape | None = None,
    verbose: bool = False,
) -> Outcome:
    """Run a seed, or with another plan or shape; raise Violation, or SimulationError."""
    faults = plan_of(seed) if plan is None else plan
    return run_faults(
        lambda world: world.nemesis.run(faults),
        seed,
        verbose=verbose,
        shape=shape_of(seed) if shape is None else shape,
    )


def run_faults(
    faults: Callable[[World], Awaitable[None]],
    seed: int,
    *,
    verbose: bool = False,
    simulated_s: float = SIMULATED_S,
    shape: Shape = USUAL,
) -> Outcome:
    """Run the world with the given faults, while records are produced and consumed."""

    def program(loop: SimulatedLoop) -> Coroutine[Any, Any, Outcome]:
        return World(loop, seed, faults, simulated_s, shape, verbose=verbose).run()

    with logs(verbose=verbose):
        return simulate(program, seed)


@contextlib.contextmanager
def logs(*, verbose: bool) -> Iterator[None]:
    """Set up logging: no lines, or each line with the virtual time and its process."""
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
    """A cluster under faults, and its clients; see run_seed and run_faults."""

    def __init__(
        self,
        loop: SimulatedLoop,
        seed: int,
        faults: Callable[[World], Awaitable[None]],
        simulated_s: float,
        shape: Shape,
        *,
        verbose: bool,
    ) -> None:
        self.loop = loop
        self.faults = faults
        self.simulated_s = simulated_s
        self.shape = shape
        self.trace = hashlib.sha256()
        self.seed = seed
        self.verbose = verbose
        self.chance = self._chance()
        self.cluster = SimulatedCluster(
            loop,
            ClusterShape(
                brokers=shape.brokers,
                racks=("R1", "R2"),
                log_dirs=shape.log_dirs,
                broker_settings=SETTINGS,
                voter_settings={"unclean_recovery_wait_ms": 5000},
            ),
        )
        self.clients = Clients(self.cluster, shape, self._chance())
        self.history = self.clients.history
        self.admins = Administrators(self.clients, self._chance())
        self.operator = Operator(self.clients, self._chance())
        self.view = TopicView(
            self.cluster, TOPIC, shape.replication_factor, lambda: self.clients.partitions
        )
        self.damages = Damages(shape, self.view.is_in_sync, loop.time)
        self.nemesis = Nemesis(self.cluster, TOPIC, self.damages, self.tell, self._hosts)
        self.invariants = Invariants(self.cluster, self.nemesis.is_excused)
        self.rules = PartitionRules(self.cluster, TOPIC, self._is_intact)
        self.clients.is_damaged = lambda: bool(self.damages.hurt)
        self.clients.is_loss_possible = lambda: self.may_lose
        self.clients.on_acknowledged = self.rules.acknowledged
        self.admins.on_delete = self.rules.topic_goes
        #: A voter became a quorum of its own (`quorum recover`).
        self.has_recovered = False

    @property
    def may_lose(self) -> bool:
        """Whether acknowledged records may be lost, if that is told."""
        return self.damages.exceeded or self.shape.unclean

    def _chance(self) -> random.Random:
        return random.Random(self.loop.chance.getrandbits(64))

    def _hosts(self) -> list[str]:
        """Return the hosts between which the network may fail."""
        clients = self.clients.names if self.shape.clients_cut else []
        return [*self.cluster.nodes, *clients]

    def tell(self, what: str) -> None:
        if self.verbose:
            print(f"{self.loop.time():10.3f}  {what}", flush=True)

    async def run(self) -> Outcome:
        self.tell(str(self.shape))
        await self.cluster.format()
        self.cluster.start_all()
        self.loop.on_instant = self._instant_ends
        try:
            with duplicates_counted(self.rules.counts):
                return await self._run()
        except BaseException as error:
            error.add_note(f"at {self.loop.time():.6f} s, {self.shape}")
            raise
        finally:
            self.loop.on_instant = None

    def _instant_ends(self) -> None:
        self.trace.update(f"{self.loop.time()!r} {' '.join(self.loop.ran)}\n".encode())
        self.invariants.check()
        self.rules.check()

    async def _run(self) -> Outcome:
        cluster, clients = self.cluster, self.clients
        await self._until(self.view.are_all_unfenced, "the brokers are not unfenced", every_s=0.01)
        await cluster.spawn_client(self.admins.create_topic, "admin")
        self.tell("topic created")
        clients.start(PRODUCER)
        clients.start(CONSUMER)
        working = self._administrate(self.loop.time() + FAULTS_S)
        await self.faults(self)
        self.nemesis.heal()
        self.tell("healed")
        supervising = asyncio.create_task(self._supervise())
        if self.may_lose:
            cluster.spawn_client(self.operator.rescue, "rescuer")
        for name, task in working.items():
            await self._within(task, f"the {name} does not come to its end")
        if self.shape.configures:
            resetting = cluster.spawn_client(self.admins.configure_at_last, "configurator")
            await self._within(resetting, "the topic can't be configured")
        await asyncio.sleep(max(0.0, self.simulated_s - 4 - self.loop.time()))
        clients.stop = True
        for task in clients.tasks(PRODUCER):
            await self._within(task, "a producer does not come to its end")
        self.tell("producers done")
        consuming = clients.tasks(CONSUMER)
        try:
            await self._recovers(consuming)
        except Violation:
            if not (self.damages.exceeded and self.damages.is_any_there()):
                raise
            self.tell("the only copy stays damaged in an old segment, where no start looks")
            return self._outcome()
        finally:
            for task in (*consuming, supervising):
                task.cancel()
        for found in await asyncio.gather(*consuming, return_exceptions=True):
            if isinstance(found, Exception):  # the error that ended it, not its cancellation
                raise found
        await asyncio.sleep(max(0.0, self.simulated_s - self.loop.time()))
        await self.invariants.check_logs_match(self._is_intact, compacts=self.shape.compacts)
        self._judge()
        return self._outcome()

    async def _supervise(self) -> None:
        """Start again the nodes that stop themselves, as a broker with a new disk may do.

        A broker that goes on without a log directory is restarted once, as an operator does when
        the disk works again. Without that the replicas in it stay offline.
        """
        restarted: set[str] = set()
        while True:
            await asyncio.sleep(RESTART_S)
            lacking = {node.name for node in self.cluster.brokers if _lacks_a_directory(node)}
            for name in sorted(lacking - restarted):
                self.tell(f"{name} is restarted: a log directory failed")
                self.cluster.kill(name)
            restarted |= lacking
            self.cluster.start_all()

    def _administrate(self, until_s: float) -> dict[str, asyncio.Task[None]]:
        """Start the programs that the shape has beside its producers and consumers."""
        shape, admins = self.shape, self.admins
        programs = {
            "churn": (shape.recreates, admins.churn),
            "grower": (shape.grows, admins.grow),
            "trimmer": (shape.trims, admins.trim),
            "configurator": (shape.configures, admins.configure),
            "operator": (shape.moves, self.operator.work),
        }
        spawn = self.cluster.spawn_client
        working = {
            name: spawn(partial(main, until_s), name)
            for name, (is_there, main) in programs.items()
            if is_there
        }
        if shape.clients_die:
            working["reaper"] = asyncio.create_task(self.clients.die(until_s))
        return working

    async def _recovers(self, consuming: list[asyncio.Task[None]]) -> None:
        """Wait until all replicas are in place and in sync, and all readers have read all."""
        if self.shape.moves:
            resting = self.cluster.spawn_client(self.operator.come_to_rest, "operator")
            if self.damages.exceeded:
                await asyncio.wait([resting], timeout=READING_S)
                if not resting.done():
                    self._restart_brokers()
            await self._within(resting, "the moves do not come to their end")
        if self.damages.exceeded:
            await self._restart_brokers_if_stuck()
        await self._until(self.view.is_in_sync, "replicas are not in sync again")
        self.tell("in sync")
        # A quorum that has just started knows no topic before its leader has committed a record.
        await self._until(lambda: self.view.image() is not None, "no voter knows the topic")
        await self._read_all()
        await self._until(
            lambda: (
                bool(self.view.told_lost())
                or any(task.done() for task in consuming)
                or self._has_seen_all()
            ),
            "a consumer has not seen all",
        )

    def _has_seen_all(self) -> bool:
        """Whether the consumers that run all the time have seen what was read at the end.

        A record that retention has deleted since then cannot be seen any more.
        """
        starts = self.view.log_starts()
        history = self.history
        for (partition, offset), value in history.final_at.items():
            if offset < starts.get(partition, 0):
                for seen in history.live:
                    seen.setdefault(value, None)
        wanted = must_be_seen(history, compacts=self.shape.compacts)
        return all(wanted <= seen.keys() for seen in history.live)

    async def _restart_brokers_if_stuck(self) -> None:
        for _ in range(150):
            if self.view.is_in_sync():
                return
            await asyncio.sleep(0.1)
        self._restart_brokers()

    async def _read_all(self) -> None:
        """Read the whole topic; again after a restart if a damaged only copy stops the reader."""
        reading = self.cluster.spawn_client(self.clients.read_all, "reader")
        if self.damages.exceeded:
            done, _ = await asyncio.wait([reading], timeout=READING_S)
            if not done:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
                self._restart_brokers()
                await self._until(self.view.is_in_sync, "replicas are not in sync again")
                reading = self.cluster.spawn_client(self.clients.read_all, "reader")
        await self._within(reading, "the topic can't be read to its end")

    def _restart_brokers(self) -> None:
        """Restart all brokers, as an operator does if the only copy of a record is damaged.

        The restart cuts the damaged record off, and the loss is told.
        """
        self.tell("brokers are restarted")
        for node in self.cluster.brokers:
            self.cluster.kill(node.name)
        self.cluster.start_all()

    async def _within(self, task: Any, otherwise: str) -> None:
        done, _ = await asyncio.wait([task], timeout=RECOVERY_S)
        if not done:
            raise Violation(f"{otherwise} within {RECOVERY_S} s of the last fault")
        task.result()

    async def _until(
        self, holds: Callable[[], bool], otherwise: str, *, every_s: float = 0.1
    ) -> None:
        until_s = self.loop.time() + RECOVERY_S
        while not holds():
            if self.loop.time() > until_s:
                raise Violation(f"{otherwise} within {RECOVERY_S} s of the last fault")
            await asyncio.sleep(every_s)

    def _is_intact(self, node: SimulatedNode, partition: Partition) -> bool:
        return not self.damages.is_damaged(node, partition.log.compaction.directory)

    def _judge(self) -> None:
        told_lost = self.view.told_lost()
        if self.has_recovered and not self.may_lose:
            told_lost = set()  # a recovered quorum elects all leaders anew, and loses no record
        if told_lost and not self.may_lose:
            raise Violation(f"a lossy election in {told_lost}, and too little was damaged for that")
        judge(
            self.history,
            told_lost,
            recreates=self.shape.recreates,
            compacts=self.shape.compacts,
            # A broker tells the age of a topic by its own clock and the controller's.
            clocks_agree=not self.nemesis.injected["clock jump"],
            kept_since_s=self._kept_since_s(),
            keeps_starts=not self.damages.hurt,
            is_patient=self.shape.is_patient and self.shape.min_isr < self.shape.replication_factor,
        )

    def _kept_since_s(self) -> float:
        """Return the second since which retention must have kept all records."""
        retention_ms = self.shape.retention_ms
        if not retention_ms:
            return 0.0
        if self.nemesis.injected["clock jump"]:  # old by the clock of one broker
            return self.loop.time()
        return self.loop.time() - retention_ms / 1000

    def _outcome(self) -> Outcome:
        history, shape = self.history, self.shape
        counters = Counter(
            {
                f"shape: rf {shape.replication_factor} min {shape.min_isr}": 1,
                "shape: whole cluster": int(shape.is_whole),
                "shape: two log directories": int(len(shape.log_dirs) > 1),
                "shape: flush on ack": int(shape.syncs_on_ack),
                "shape: short delivery timeout": int(not shape.is_patient),
                "shape: retention": int(bool(shape.retention_ms)),
                **{f"shape: {name}": int(getattr(shape, name)) for name in FLAGS},
                "records compacted away": history.compacted,
                "offsets below the start of a log": sum(history.starts.values()),
                "calls cancelled": self.clients.cancelled,
                "clients killed": self.clients.deaths,
                "records given up": len(history.unsure),
                "more damaged than promised": int(self.damages.exceeded),
                "batches compared": self.rules.batches.compared,
                **{f"consumer was told {name}": n for name, n in history.told.items()},
            }
        )
        counters += self.operator.done + self.admins.done + self.rules.counts
        return Outcome(
            self.seed,
            str(self.shape),
            sent=len(history.sent),
            acked=len(history.acked),
            failed=len(history.failed),
            read=history.reads,
            elections=len(self.invariants.quorum_leaders),
            leader_changes=len(self.invariants.leaders),
            checks=self.invariants.checks,
            counters=counters,
            injected=self.nemesis.injected,
            trace=self.trace.hexdigest(),
        )


def _lacks_a_directory(node: SimulatedNode) -> bool:
    server = node.server
    if not isinstance(server, BrokerServer) or not has_started(server):
        return False
    return bool(server.replicas.failed_directories)
