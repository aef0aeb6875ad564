"""The nodes of a cluster in this process, on one event loop; `quorate up --embedded`."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable, Sequence

from quorate.net.grpc_network import GrpcNetwork
from quorate_broker.server import BrokerServer
from quorate_cli.local import LocalCluster
from quorate_cli.local_nodes import Node
from quorate_quorum.log.real_disk import RealDisk
from quorate_quorum.node.config import BrokerConfig, QuorumConfig
from quorate_quorum.node.config_sources import load
from quorate_quorum.node.environment import Environment
from quorate_quorum.node.logs import set_up_logs
from quorate_quorum.node.process import LOGS_WAIT_S, Server, run
from quorate_quorum.node.programs import RealPrograms
from quorate_quorum.node.resources import collect_garbage_in_parts, keep_freed_memory
from quorate_quorum.node.server import NodeFailed
from quorate_quorum.server import QuorumServer

AnyServer = QuorumServer | BrokerServer


class EmbeddedNodes:
    """Voters and brokers, each started and stopped alone or with all others.

    Together they are a server as quorate_quorum.node.process runs it.
    """

    def __init__(self, nodes: Sequence[Node], server_of: Callable[[Node], AnyServer]) -> None:
        self.nodes = {node.id: node for node in nodes}
        self._server_of = server_of
        #: The nodes that run, by id.
        self.running: dict[int, AnyServer] = {}

    async def start(self) -> None:
        """Start every node that does not run, and wait until all brokers may lead.

        The voters start first: a broker that finds no voter waits before it tries again.
        """
        for kind in ("voter", "broker"):
            await self.start_nodes(
                one.id
                for one in self.nodes.values()
                if one.kind == kind and one.id not in self.running
            )

    async def start_nodes(self, node_ids: Iterable[int]) -> None:
        """Start nodes of one kind at once. If one fails, stop all others that were started."""
        made = {one: self._server_of(self.nodes[one]) for one in node_ids}
        starts = [asyncio.ensure_future(_started(server)) for server in made.values()]
        try:
            await asyncio.gather(*starts)
        except BaseException:
            await asyncio.gather(*(one.stop() for one in made.values()), return_exceptions=True)
            await asyncio.gather(*starts, return_exceptions=True)
            raise
        self.running.update(made)

    async def stop_nodes(self, node_ids: Iterable[int]) -> None:
        """Stop nodes cleanly, at once. One that does not run stays so."""
        stopped = [self.running.pop(one) for one in node_ids if one in self.running]
        await asyncio.gather(*(server.stop() for server in stopped))

    async def stop(self) -> None:
        """Stop every node cleanly: the brokers first, and then the voters."""
        for kind in ("broker", "voter"):
            await self.stop_nodes([one.id for one in self.nodes.values() if one.kind == kind])

    async def crash_nodes(self, node_ids: Iterable[int], reason: str) -> None:
        """Stop nodes at once, not cleanly, and wait until they have ended."""
        crashed = [self.running.pop(one) for one in node_ids if one in self.running]
        for server in crashed:
            server.fail(reason)
        for server in crashed:
            with contextlib.suppress(NodeFailed):
                await server.stopped()

    def fail(self, reason: str) -> None:
        """Stop every node at once, and not cleanly."""
        for server in self.running.values():
            server.fail(reason)

    async def stopped(self) -> None:
        """Wait until every node has stopped. If one fails, stop the others and raise NodeFailed."""
        waits = [asyncio.ensure_future(server.stopped()) for server in self.running.values()]
        try:
            await asyncio.gather(*waits)
        except NodeFailed as error:
            self.fail(f"another node of this process failed: {error.reason}")
            raise
        finally:
            await asyncio.gather(*waits, return_exceptions=True)


async def _started(server: AnyServer) -> None:
    await server.start()
    if isinstance(server, BrokerServer):
        await server.unfenced()


def run_embedded(cluster: LocalCluster, announce: Callable[[], None]) -> None:
    """Run until SIGINT or SIGTERM. If a node failed, end the command with status 1.

    `announce` is called when every node is ready.
    """
    # Import it here, because a program that embeds nodes needs no command line.
    from quorate_cli.output import SAID_NO, fail

    async def start() -> Server:
        nodes = EmbeddedNodes(list(cluster.nodes.values()), _server)
        await nodes.start()
        announce()
        return nodes

    # standard output is for announce(), so the logs go to this file
    with (cluster.folder / "output.log").open("a") as output:
        writer = set_up_logs("info", output)
        keep_freed_memory()
        collect_garbage_in_parts()
        status = run(start)
        writer.drain(LOGS_WAIT_S)
        if status:
            fail(f"it ended with status {status}:\n{_end_of(cluster)}", SAID_NO)


def _end_of(cluster: LocalCluster) -> str:
    return (cluster.folder / "output.log").read_text()[-2000:]


def _server(node: Node) -> AnyServer:
    environment = Environment(network=GrpcNetwork(), disk=RealDisk(), programs=RealPrograms())
    config = str(node.folder / "config.toml")
    if node.kind == "voter":
        return QuorumServer(load(QuorumConfig, config, os.environ), environment)
    return BrokerServer(load(BrokerConfig, config, os.environ), environment)
