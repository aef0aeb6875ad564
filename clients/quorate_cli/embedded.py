"""`quorate up --embedded`: every node of a local cluster in this process, on one event loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from quorate.net.grpc_network import GrpcNetwork
from quorate_broker.server import BrokerServer
from quorate_cli.local import LocalCluster, Node
from quorate_cli.output import SAID_NO, fail
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


class EmbeddedNodes:
    """All servers of a local cluster, as one server.

    The brokers stop first, and then the voters.
    """

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        self.servers: list[QuorumServer | BrokerServer] = []

    async def start(self) -> None:
        """Start every node, and wait until all are registered.

        The voters start first: a broker that finds no voter waits before it tries again.
        """
        voters = [_server(node) for node in self.cluster.voters]
        brokers = [_server(node) for node in self.cluster.brokers]
        self.servers = [*voters, *brokers]
        for servers in (voters, brokers):
            await asyncio.gather(*(server.start() for server in servers))
        await asyncio.gather(
            *(one.unfenced() for one in self.servers if isinstance(one, BrokerServer))
        )

    async def stop(self) -> None:
        """Stop every node cleanly."""
        for kind in (BrokerServer, QuorumServer):
            mine = [server for server in self.servers if isinstance(server, kind)]
            await asyncio.gather(*(server.stop() for server in mine))

    def fail(self, reason: str) -> None:
        """Stop every node at once, and not cleanly."""
        for server in self.servers:
            server.fail(reason)

    async def stopped(self) -> None:
        """Wait until every node has stopped. If one fails, stop the others and raise NodeFailed."""
        waits = [asyncio.ensure_future(server.stopped()) for server in self.servers]
        try:
            await asyncio.gather(*waits)
        except NodeFailed as error:
            self.fail(f"another node of this process failed: {error.reason}")
            raise
        finally:
            await asyncio.gather(*waits, return_exceptions=True)


def run_embedded(cluster: LocalCluster, announce: Callable[[], None]) -> None:
    """Run until SIGINT or SIGTERM. If a node failed, end the command with status 1.

    `announce` is called when every node is ready.
    """

    async def start() -> Server:
        nodes = EmbeddedNodes(cluster)
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


def _server(node: Node) -> QuorumServer | BrokerServer:
    environment = Environment(network=GrpcNetwork(), disk=RealDisk(), programs=RealPrograms())
    config = str(node.folder / "config.toml")
    if node.kind == "voter":
        return QuorumServer(load(QuorumConfig, config, os.environ), environment)
    return BrokerServer(load(BrokerConfig, config, os.environ), environment)
