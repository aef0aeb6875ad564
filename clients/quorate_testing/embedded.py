"""A cluster inside of a test: the servers of production, in this process, with real sockets.

    with EmbeddedCluster() as cluster:              # on an event loop in a thread
        confluent_kafka.Producer({"bootstrap.servers": cluster.kafka_bootstrap_servers})

    async with EmbeddedCluster(brokers=3) as cluster:       # on the running event loop
        await cluster.crash_broker(0)

Without a folder the disks are in memory, and a machine that loses its power forgets what it has not
synced. Clients that block need the first form: in the second they would block the nodes too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Final, Self, TypeVar

from quorate import Admin
from quorate.admin.new_topic import NEW_NAME, PARTITIONS, Configs, ConfigValue
from quorate.errors import ClosedError, InvalidReplicationFactorError, InvalidRequestError
from quorate.net.grpc_network import GrpcNetwork
from quorate.object_rules import ByName, FilePath
from quorate.settings import INT32_MAX, TOPIC, Flag, Names, Whole, checked, refused
from quorate.sync.background import Background, background
from quorate_broker.server import BrokerServer
from quorate_cli.embedded import AnyServer, EmbeddedNodes
from quorate_cli.local import LocalCluster
from quorate_cli.local_nodes import Node, plan, settings_of
from quorate_cli.local_shape import (
    ANY_PORT,
    BROKERS_MAX,
    MEMORY,
    NO_PORT,
    VOTERS_MAX,
    EndpointTakenError,
    Shape,
    placed,
    remembered,
)
from quorate_cli.node_disks import format_broker, format_voters
from quorate_quorum.disk import Disk
from quorate_quorum.log.real_disk import RealDisk
from quorate_quorum.node.config import BrokerConfig, CannotListen, QuorumConfig
from quorate_quorum.node.config_sources import from_values
from quorate_quorum.node.environment import Environment
from quorate_quorum.node.programs import RealPrograms
from quorate_quorum.server import QuorumServer
from quorate_testing.logs import log_where_the_program_does
from quorate_testing.simulated.disk import SimulatedDisk

T = TypeVar("T")

#: The longest wait for a start, a stop or a fault. Each takes a fraction of a second.
PATIENCE_S: Final = 60.0
#: Free ports are chosen before the nodes listen: another program may take one meanwhile.
PORT_ATTEMPTS: Final = 5
#: No replica count is named: one for each broker, up to this many.
REPLICAS_MAX: Final = 3
#: How errors name the source of a setting.
SOURCE: Final = "configs of EmbeddedCluster"

BROKER_ID: Final = Whole(0, INT32_MAX, "a broker of this cluster")
REPLICAS: Final = Whole(
    1,
    INT32_MAX,
    allowed="a whole number from 1 to the number of brokers (None: all, up to three)",
    error=InvalidReplicationFactorError,
)


class AsyncEmbeddedCluster:
    """A cluster on the running event loop, as `async with EmbeddedCluster(...)` gives it."""

    def __init__(
        self, shape: Shape, folder: Path | None, configs: Mapping[str, object] | None
    ) -> None:
        self._shape = shape
        self._folder = folder
        self._configs = dict(configs or {})
        self._disks: dict[int, Disk] = {}
        self._nodes = EmbeddedNodes([], self._server)
        #: An admin that is connected, and that no call uses.
        self._idle_admin: Admin | None = None

    @property
    def bootstrap_servers(self) -> str:
        """The host:port of every broker for Quorate's client, separated by commas."""
        return ",".join(node.endpoint for node in self._brokers())

    @property
    def kafka_bootstrap_servers(self) -> str:
        """The host:port of every broker for Kafka clients, separated by commas.

        Raises InvalidRequestError if the cluster was made with kafka=False.
        """
        if self._shape.kafka_port == NO_PORT:
            raise InvalidRequestError(
                "this cluster has no listeners for Kafka clients, because it was made with "
                "kafka=False: leave that out, or use bootstrap_servers and Quorate's own clients"
            )
        return ",".join(node.kafka for node in self._brokers() if node.kafka)

    async def start(self) -> None:
        """Start every node that does not run: at first, and after lose_power().

        Return when all brokers may lead partitions. Raises ConfigError.
        """
        if self._nodes.nodes:
            await self._nodes.start()
            return
        for attempt in range(1, PORT_ATTEMPTS + 1):
            self._nodes = EmbeddedNodes(await self._formatted(), self._server)
            try:
                await self._nodes.start()
            except CannotListen:
                await self.close()
                if attempt == PORT_ATTEMPTS or self._folder is not None:
                    raise
            except BaseException:
                await self.close()
                raise
            else:
                return

    async def close(self) -> None:
        """Stop every node cleanly, and forget the disks in memory."""
        await self._stop_idle_admin()
        await self._nodes.stop()
        for disk in self._disks.values():
            if isinstance(disk, RealDisk):
                disk.close()
        self._disks.clear()

    @checked
    async def start_broker(self, broker_id: Annotated[int, BROKER_ID]) -> None:
        """Start a broker that does not run, and wait until it may lead partitions."""
        self._check(broker_id)
        if broker_id not in self._nodes.running:
            await self._nodes.start_nodes([broker_id])

    @checked
    async def stop_broker(self, broker_id: Annotated[int, BROKER_ID]) -> None:
        """Stop a broker cleanly, as by SIGTERM. It hands its leaderships over first."""
        self._check(broker_id)
        await self._stop_idle_admin()
        await self._nodes.stop_nodes([broker_id])

    @checked
    async def crash_broker(self, broker_id: Annotated[int, BROKER_ID]) -> None:
        """Crash a broker, as by kill -9. Nothing that it had written to files is lost."""
        self._check(broker_id)
        await self._stop_idle_admin()
        self._crash_disks([broker_id])
        await self._nodes.crash_nodes([broker_id], "a test crashed it")

    @checked
    async def lose_power(self, broker_id: Annotated[int | None, BROKER_ID] = None) -> None:
        """Cut the power of a broker's machine; None: of every node's.

        Any part of what was not synced is lost. The nodes stay down until start_broker() or
        start(). Raises ValueError if the cluster has a folder: a test cannot cut that disk's power.
        """
        if self._folder is not None:
            raise ValueError(
                f"lose_power() needs a cluster whose disks are in memory, and this one is in"
                f" {self._folder}; leave `folder` out, or use crash_broker()"
            )
        if broker_id is not None:
            self._check(broker_id)
        await self._stop_idle_admin()
        lost = list(self._nodes.nodes) if broker_id is None else [broker_id]
        self._crash_disks(lost)
        await self._nodes.crash_nodes(lost, "a test cut its power")
        for node_id in lost:
            disk = self._disks[node_id]
            assert isinstance(disk, SimulatedDisk)
            disk.lose_power()

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
        async with self._admin() as admin:
            await admin.create_topic(name, num_partitions, replicas, configs)

    @checked
    async def delete_topic(self, name: Annotated[str, TOPIC]) -> None:
        """Delete a topic. Raises what Admin.delete_topics raises."""
        async with self._admin() as admin:
            await admin.delete_topics([name])

    # -- inside

    @contextlib.asynccontextmanager
    async def _admin(self) -> AsyncIterator[Admin]:
        """Give an admin to one call. After a success it is kept for the next call.

        It takes longer to connect than to create a topic, and each test may create one.
        """
        admin = self._idle_admin or Admin(bootstrap_servers=self.bootstrap_servers)
        self._idle_admin = None
        try:
            await admin.start()
            yield admin
        except BaseException:
            await admin.stop()
            raise
        if self._idle_admin is None and self._nodes.running:
            self._idle_admin = admin
        else:
            await admin.stop()

    async def _stop_idle_admin(self) -> None:
        admin, self._idle_admin = self._idle_admin, None
        if admin is not None:
            await admin.stop()

    def _brokers(self) -> list[Node]:
        return [node for node in self._nodes.nodes.values() if node.kind == "broker"]

    def _check(self, broker_id: int) -> None:
        if not self._nodes.nodes:
            raise ClosedError("this EmbeddedCluster does not run; use it as a context manager")
        ids = [node.id for node in self._brokers()]
        if broker_id not in ids:
            raise ValueError(f"there is no broker {broker_id!r}; the brokers are {ids}")

    def _crash_disks(self, node_ids: Iterable[int]) -> None:
        """From now on no node writes what a crashed process could not have written."""
        for node_id in node_ids:
            disk = self._disks[node_id]
            if isinstance(disk, SimulatedDisk) and node_id in self._nodes.running:
                disk.crash_process()

    async def _formatted(self) -> list[Node]:
        """Choose ports, and format the disks. Return the nodes."""
        if self._folder is not None:
            _check_kept(self._folder, self._shape)
            local = LocalCluster(self._folder, self._shape)
            try:
                # it runs an event loop of its own for a moment
                await asyncio.get_running_loop().run_in_executor(None, local.prepare)
            except EndpointTakenError as error:
                raise ValueError(
                    f"EmbeddedCluster: folder {self._folder} has a cluster that listens on "
                    f"{error.endpoint}, where a process listens already: stop it if it is this "
                    "cluster, or name another folder"
                ) from None
            nodes = list(local.nodes.values())
            self._disks = {node.id: RealDisk() for node in nodes}
            return nodes
        nodes = plan(Path("/"), placed(self._shape))
        memory = {node.id: SimulatedDisk(random.Random(node.id)) for node in nodes}
        self._disks = dict(memory)
        cluster_id = str(uuid.uuid4())
        voters = [node for node in nodes if node.kind == "voter"]
        await format_voters(
            cluster_id,
            [(node.id, node.endpoint, node.data) for node in voters],
            disk_of=lambda node_id: memory[node_id],
        )
        for node in nodes:
            if node.kind == "broker":
                await memory[node.id].make_directory(node.data)
                await format_broker(cluster_id, node.id, [node.data], disk=memory[node.id])
        return nodes

    def _server(self, node: Node) -> AnyServer:
        disk = self._disks[node.id]
        programs = RealPrograms() if isinstance(disk, RealDisk) else None
        environment = Environment(network=GrpcNetwork(), disk=disk, programs=programs)
        voters = [one for one in self._nodes.nodes.values() if one.kind == "voter"]
        settings = settings_of(node, voters)
        if node.kind == "voter":
            voter = from_values(QuorumConfig, settings, SOURCE)
            return QuorumServer(voter, environment)
        broker = from_values(BrokerConfig, {**settings, **self._configs}, SOURCE)
        return BrokerServer(broker, environment)


def _check_kept(folder: Path, shape: Shape) -> None:
    """Raise ValueError if the folder has a cluster with another number of voters or brokers."""
    if not (folder / MEMORY).exists():
        return
    kept = remembered(folder, Shape())
    if shape.racks not in ((), kept.racks):
        raise ValueError(
            f"EmbeddedCluster: racks of the cluster in {folder} are {list(kept.racks)}, and cannot "
            f"become {list(shape.racks)}: leave racks out, or name another folder"
        )
    if (kept.voters, kept.brokers) != (shape.voters, shape.brokers):
        raise ValueError(
            f"the cluster in {folder} has voters={kept.voters}, brokers={kept.brokers}, and not "
            f"voters={shape.voters}, brokers={shape.brokers}: ask for those, or name another folder"
        )


class EmbeddedCluster:
    """Voters and brokers in this process, for tests.

    `voters` is 1 to 9, `brokers` 1 to 99; `racks` are dealt to the brokers in runs. `folder`: where
    the data are, and stay; None: in memory. `configs`: settings of every broker, by dotted name
    (docs/configuration.md). `kafka`: whether Kafka clients can connect too.

    As a context manager it has the cluster on the event loop of quorate.sync, in a thread, and its
    methods block. As an asynchronous one it gives an AsyncEmbeddedCluster, and its methods are
    awaited.
    The nodes log with structlog, or, in a program that has not configured structlog, with
    `logging`.

    Raises ValueError: the shape is impossible, or the folder has a cluster of another shape.
    """

    @checked
    def __init__(
        self,
        *,
        voters: Annotated[int, Whole(1, VOTERS_MAX)] = 1,
        brokers: Annotated[int, Whole(1, BROKERS_MAX)] = 1,
        racks: Annotated[Sequence[str], Names(what="racks")] = (),
        folder: Annotated[str | os.PathLike[str] | None, FilePath()] = None,
        configs: Annotated[Mapping[str, object] | None, ByName()] = None,
        kafka: Annotated[bool, Flag("listeners for Kafka clients")] = True,
    ) -> None:
        if len(racks) > brokers:
            allowed = f"at most as many as there are brokers ({brokers})"
            raise ValueError(refused("EmbeddedCluster", "racks", allowed, racks))
        shape = Shape(
            voters=voters,
            brokers=brokers,
            racks=tuple(racks),
            port=ANY_PORT,
            kafka_port=ANY_PORT if kafka else NO_PORT,
        )
        place = None if folder is None else Path(folder)
        if place is not None and place.exists() and not place.is_dir():
            raise ValueError(refused("EmbeddedCluster", "folder", "no file", str(folder)))
        self._cluster = AsyncEmbeddedCluster(shape, place, configs)
        self._background: Background | None = None

    @property
    def bootstrap_servers(self) -> str:
        """The host:port of every broker for Quorate's client, separated by commas."""
        return self._cluster.bootstrap_servers

    @property
    def kafka_bootstrap_servers(self) -> str:
        """The host:port of every broker for Kafka clients, separated by commas.

        Raises InvalidRequestError if the cluster was made with kafka=False.
        """
        return self._cluster.kafka_bootstrap_servers

    def start(self) -> None:
        """Start every node that does not run: after lose_power()."""
        self._do(self._cluster.start)

    @checked
    def start_broker(self, broker_id: Annotated[int, BROKER_ID]) -> None:
        """Start a broker that does not run, and wait until it may lead partitions."""
        self._do(lambda: self._cluster.start_broker(broker_id))

    @checked
    def stop_broker(self, broker_id: Annotated[int, BROKER_ID]) -> None:
        """Stop a broker cleanly, as by SIGTERM. It hands its leaderships over first."""
        self._do(lambda: self._cluster.stop_broker(broker_id))

    @checked
    def crash_broker(self, broker_id: Annotated[int, BROKER_ID]) -> None:
        """Crash a broker, as by kill -9. Nothing that it had written to files is lost."""
        self._do(lambda: self._cluster.crash_broker(broker_id))

    @checked
    def lose_power(self, broker_id: Annotated[int | None, BROKER_ID] = None) -> None:
        """Cut the power of a broker's machine; None: of every node's. See AsyncEmbeddedCluster."""
        self._do(lambda: self._cluster.lose_power(broker_id))

    @checked
    def create_topic(
        self,
        name: Annotated[str, NEW_NAME],
        num_partitions: Annotated[int, PARTITIONS] = 1,
        *,
        replication_factor: Annotated[int | None, REPLICAS] = None,
        configs: Annotated[Mapping[str, ConfigValue] | None, Configs()] = None,
    ) -> None:
        """Create a topic; without a `replication_factor` on every broker, up to three."""
        self._do(
            lambda: self._cluster.create_topic(
                name, num_partitions, replication_factor=replication_factor, configs=configs
            )
        )

    @checked
    def delete_topic(self, name: Annotated[str, TOPIC]) -> None:
        """Delete a topic."""
        self._do(lambda: self._cluster.delete_topic(name))

    def __enter__(self) -> Self:
        if self._background is not None:
            raise InvalidRequestError("this EmbeddedCluster runs already; make another one")
        log_where_the_program_does()
        self._background = background()
        try:
            self.start()
        except BaseException:
            self._background = None
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._do(self._cluster.close)
        finally:
            self._background = None

    async def __aenter__(self) -> AsyncEmbeddedCluster:
        log_where_the_program_does()
        await self._cluster.start()
        return self._cluster

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._cluster.close()

    def _do(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        if self._background is None:
            raise ClosedError("this EmbeddedCluster does not run; use it as a context manager")
        self._background.check("EmbeddedCluster")

        async def bounded() -> T:
            async with asyncio.timeout(PATIENCE_S):
                return await work()

        return self._background.run(bounded)
