"""The cluster of EmbeddedCluster in virtual time, under a seed, with faults that a test names.

    async def main():
        await cluster.create_topic("invoice")
        async with Producer(bootstrap_servers=cluster.bootstrap_servers) as producer:
            cluster.faults.kill(cluster.leader_of("invoice"))
            await producer.send_and_wait("invoice", b"9.50")

    with SimulatedCluster(seed=7, voters=3, brokers=3) as cluster:
        cluster.run(main)

The nodes are the servers of production, and the clients are those of `quorate`. The event loop, the
network and the disks are simulated, so the same seed gives the same run.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Annotated, Any, Final, Self, TypeVar, TypeVarTuple

from quorate.admin.new_topic import NEW_NAME, PARTITIONS, Configs, ConfigValue
from quorate.errors import ClosedError, InvalidRequestError
from quorate.object_rules import ByName
from quorate.settings import INT32_MAX, TOPIC, Names, Text, Whole, checked, refused
from quorate_cli.local_shape import BROKERS_MAX, VOTERS_MAX
from quorate_quorum.node.config import BrokerConfig
from quorate_quorum.node.config_sources import from_values
from quorate_testing.logs import log_where_the_program_does
from quorate_testing.seeds import SEED, new_seed
from quorate_testing.simulated.cluster import (
    ClusterShape,
)
from quorate_testing.simulation.clock import SECONDS, ClusterClock
from quorate_testing.simulation.faults import ClusterFaults
from quorate_testing.simulation.hosts import TEST
from quorate_testing.simulation.network import ClusterNetwork
from quorate_testing.simulation.running import RunningCluster
from quorate_testing.simulation.world import (
    World,
    check_no_loop_runs,
    running_world,
    takes_time,
)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

#: The virtual seconds of one run(), without those that it passes with the cluster's clock.
TIME_LIMIT_S: Final = 600.0
#: The longest virtual time of a start.
START_S: Final = 60.0
#: No replica count is named: one for each broker, up to this many.
REPLICAS_MAX: Final = 3
#: How errors name the source of a setting.
SOURCE: Final = "configs of SimulatedCluster"
#: Settings that the cluster makes for each node.
OF_NODES: Final = (
    "node.id", "listeners", "log.dirs", "quorum.bootstrap.servers", "broker.rack",
    "allow.insecure.listeners",
)  # fmt: skip

PROGRAM: Final = Text("the name of a program", chars_max=100)
REPLICAS: Final = Whole(1, INT32_MAX, "None: one for each broker, up to three")


class SimulatedCluster:
    """Voters and brokers in virtual time, and the programs of a test that use them.

    `seed`: decides everything that is left to chance; None: that of `pytest --quorate-seed`, or a
    new one, which the note of an error names. `voters` is 1 to 9, with the ids 100, 101, ...;
    `brokers` 1 to 99, with the ids 0, 1, ...; calls take ids, and the history and errors name the
    host of node 0 broker-0, that of node 100 voter-100. `racks` are dealt to the brokers in runs.
    `configs`: settings of every broker, by dotted name (docs/configuration.md). `time_limit_s`: the
    virtual seconds after which one run() fails, besides those that it passes with `clock`.

    Use it in a `with` statement, and run() the program. In an event loop in virtual time
    (run_simulated, or a test with the marker `quorate_simulation`) use it in `async with`. Methods
    that take virtual time are awaited in a run; outside of a run they block.

    Raises ValueError, TypeError or ConfigError for a wrong argument.
    """

    @checked
    def __init__(
        self,
        *,
        seed: Annotated[int | None, SEED] = None,
        voters: Annotated[int, Whole(1, VOTERS_MAX)] = 1,
        brokers: Annotated[int, Whole(1, BROKERS_MAX)] = 1,
        racks: Annotated[Sequence[str], Names(what="racks")] = (),
        configs: Annotated[Mapping[str, object] | None, ByName()] = None,
        time_limit_s: Annotated[float, SECONDS] = TIME_LIMIT_S,
    ) -> None:
        if len(racks) > brokers:
            allowed = f"at most as many as there are brokers ({brokers})"
            raise ValueError(refused("SimulatedCluster", "racks", allowed, racks))
        self._shape = ClusterShape(
            voters=voters,
            brokers=brokers,
            racks=tuple(racks),
            broker_settings=_settings(configs or {}),
        )
        self._asked_seed = seed
        self._time_limit_s = time_limit_s
        self._found: RunningCluster | None = None
        self._leaving = contextlib.ExitStack()

    # -- what there is

    @property
    def seed(self) -> int:
        """The seed of this run."""
        return self._world.seed

    @property
    def trace(self) -> str:
        """A digest of which process ran at which moment so far: the same for the same run."""
        return self._world.trace

    @property
    def clock(self) -> ClusterClock:
        """The virtual time."""
        return self._open.clock

    @property
    def network(self) -> ClusterNetwork:
        """The links between nodes and programs, to cut and to slow."""
        return self._open.network

    @property
    def faults(self) -> ClusterFaults:
        """Faults of nodes, programs and disks, by name or at random."""
        return self._open.faults

    @property
    def bootstrap_servers(self) -> str:
        """The addresses of all brokers, for the clients of `quorate` in this simulation."""
        return self._open.nodes.bootstrap_servers

    @property
    def controller(self) -> int | None:
        """The id of the voter that is the controller now; None: there is none."""
        found = self._open.nodes.controller()
        return None if found is None else found.node_id

    @property
    def running(self) -> tuple[int, ...]:
        """The ids of the nodes that run now, also of those that are paused."""
        return tuple(node.node_id for node in self._open.nodes.nodes.values() if node.is_running)

    @checked
    def leader_of(
        self, topic: Annotated[str, TOPIC], partition: Annotated[int, Whole(0, INT32_MAX)] = 0
    ) -> int | None:
        """Return the broker that leads a partition, as the voters know; None: there is none."""
        found = self._open.partition(topic, partition)
        return None if found is None or found.leader < 0 else found.leader

    @checked
    def isr_of(
        self, topic: Annotated[str, TOPIC], partition: Annotated[int, Whole(0, INT32_MAX)] = 0
    ) -> tuple[int, ...]:
        """Return the brokers that are in sync with a partition's leader, as the voters know."""
        found = self._open.partition(topic, partition)
        return () if found is None else found.isr

    def why_stopped(self, node: int) -> str | None:
        """Return why a node stopped itself, in words; None: it runs, or a test stopped it."""
        return self._open.hosts.node("SimulatedCluster.why_stopped", "node", node).failure

    # -- programs

    def run(self, main: Callable[[*Ts], Coroutine[Any, Any, T]], *arguments: *Ts) -> T:
        """Run an asynchronous function in virtual time, and return its result.

        What it raises gets a note with the seed and the faults. Raises SimulationError if it passes
        the time limit, if nothing can ever happen any more, if a task failed that nobody awaits,
        and if something is used that is not simulated: threads, sockets, real sleeps. Tasks that
        it leaves behind go on in the next run(), and are cancelled at the end.
        """
        open_ = self._open
        _check_main("SimulatedCluster.run", main)
        return open_.world.run(lambda: open_.nodes.spawn_client(lambda: main(*arguments), TEST))

    @checked
    def spawn(
        self,
        main: Callable[..., Coroutine[Any, Any, T]],
        *arguments: object,
        name: Annotated[str, PROGRAM],
    ) -> asyncio.Task[T]:
        """Start an asynchronous function as a program of its own, and return its task.

        It has its own host and clock, and faults reach it by `name`. A program that has ended or
        was killed may be started again. Raises InvalidRequestError if one of this name runs.
        """
        _check_main("SimulatedCluster.spawn", main)
        return self._open.spawn(lambda: main(*arguments), name)

    # -- as EmbeddedCluster has it

    @takes_time
    async def start(self) -> None:
        """Start every node that does not run: after lose_power().

        Return when all brokers may lead partitions.
        """
        self._world.do(self._open.nodes.start_all)
        await self._open.all_may_lead(self._open.nodes.brokers)

    @takes_time
    async def start_broker(self, broker_id: int) -> None:
        """Start a broker that does not run, and wait until it may lead partitions."""
        node = self._open.broker("start_broker", broker_id)
        self.faults.start(broker_id)
        await self._open.all_may_lead([node])

    @takes_time
    async def stop_broker(self, broker_id: int) -> None:
        """Stop a broker cleanly, as by SIGTERM. It hands its leaderships over first."""
        self._open.broker("stop_broker", broker_id)
        await self.faults.stop(broker_id)

    @takes_time
    async def crash_broker(self, broker_id: int) -> None:
        """Crash a broker, as by kill -9. Nothing that it had written to files is lost."""
        self._open.broker("crash_broker", broker_id)
        self.faults.kill(broker_id)

    @takes_time
    async def lose_power(self, broker_id: int | None = None) -> None:
        """Cut the power of a broker's machine; None: of every node's.

        Any part of what was not synced is lost. The nodes stay down until start_broker() or
        start().
        """
        if broker_id is not None:
            self._open.broker("lose_power", broker_id)
        for node in self._open.nodes.nodes.values():
            if broker_id in (None, node.node_id):
                self.faults.lose_power(node.node_id)

    @takes_time
    @checked
    async def create_topic(
        self,
        name: Annotated[str, NEW_NAME],
        num_partitions: Annotated[int, PARTITIONS] = 1,
        *,
        replication_factor: Annotated[int | None, REPLICAS] = None,
        configs: Annotated[Mapping[str, ConfigValue] | None, Configs()] = None,
    ) -> None:
        """Create a topic; without a `replication_factor` on every broker, up to three.

        Raises what Admin.create_topic raises.
        """
        replicas = replication_factor or min(REPLICAS_MAX, self._shape.brokers)

        await self._open.as_operator(
            lambda admin: admin.create_topic(name, num_partitions, replicas, configs)
        )

    @takes_time
    @checked
    async def delete_topic(self, name: Annotated[str, TOPIC]) -> None:
        """Delete a topic. Raises what Admin.delete_topics raises."""
        await self._open.as_operator(lambda admin: admin.delete_topics([name]))

    # -- begin and end

    def __enter__(self) -> Self:
        self._check_is_new()
        check_no_loop_runs()
        log_where_the_program_does()
        seed = new_seed() if self._asked_seed is None else self._asked_seed
        world = World(seed, self._time_limit_s)
        try:
            self._found = RunningCluster(world, self._shape)
            world.carry_out(self._found.nodes.format, "format")
            self.start()
        except BaseException as error:
            self._found = None
            world.close(error)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        world, self._found = self._world, None
        world.close(error)

    async def __aenter__(self) -> Self:
        self._check_is_new()
        world = running_world()
        if self._asked_seed is not None:
            raise InvalidRequestError(
                "SimulatedCluster: leave seed out in `async with`: the event loop has one already"
                " (run_simulated(main, seed=...), or @pytest.mark.quorate_simulation(seed=...))"
            )
        log_where_the_program_does()
        self._found = RunningCluster(world, self._shape)
        try:
            await self._found.nodes.format()
            self._leaving.enter_context(self._found.as_test())
            await self.start()
        except BaseException:
            self._leave()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave()

    # -- inside

    @property
    def _open(self) -> RunningCluster:
        if self._found is None:
            raise ClosedError("this SimulatedCluster does not run; use it as a context manager")
        return self._found

    @property
    def _world(self) -> World:
        return self._open.world

    def _leave(self) -> None:
        open_, self._found = self._open, None
        self._leaving.close()
        open_.end()

    def _check_is_new(self) -> None:
        if self._found is not None:
            raise InvalidRequestError("this SimulatedCluster runs already; make another one")


def run_simulated(
    main: Callable[[*Ts], Coroutine[Any, Any, T]],
    *arguments: *Ts,
    seed: int | None = None,
    time_limit_s: float = TIME_LIMIT_S,
) -> T:
    """Run an asynchronous function in virtual time, as asyncio.run() does in real time.

    In it, use `async with SimulatedCluster() as cluster`. The arguments are those of
    SimulatedCluster, and it raises what SimulatedCluster.run() raises.
    """
    call = "run_simulated"
    _check_main(call, main)
    time_limit_s = SECONDS.check(call, "time_limit_s", time_limit_s)
    check_no_loop_runs()
    world = World(new_seed() if seed is None else SEED.check(call, "seed", seed), time_limit_s)
    try:
        result = world.run(lambda: world.loop.process(TEST).spawn(main(*arguments), name=TEST))
    except BaseException as error:
        world.close(error)
        raise
    world.close()
    return result


def _settings(configs: Mapping[str, object]) -> dict[str, Any]:
    """Return the fields of BrokerConfig that these dotted names set."""
    for name in OF_NODES:
        if name in configs:
            allowed = f"settings without {', '.join(OF_NODES)}, which the cluster itself makes"
            raise ValueError(refused("SimulatedCluster", "configs", allowed, name))
    needed = {
        "node.id": 0,
        "listeners": ["broker-0:7092"],
        "log.dirs": ["/data"],
        "quorum.bootstrap.servers": ["voter-100:7092"],
        "allow.insecure.listeners": True,
    }
    config = from_values(BrokerConfig, {**needed, **configs}, SOURCE)
    fields = [name.replace(".", "_") for name in configs]
    return {field: getattr(config, field) for field in fields}


def _check_main(call: str, main: object) -> None:
    if not callable(main) or inspect.iscoroutine(main):
        allowed = "an asynchronous function (without the parentheses of a call)"
        raise TypeError(refused(call, "main", allowed, main))
