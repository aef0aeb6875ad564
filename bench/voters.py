"""Voters as real processes, and the one client that asks them: what the quorum's benches share."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from quorate.aio.loops import loop_factory
from quorate.errors import QuorateError
from quorate.net.grpc_network import GrpcNetwork
from quorate.net.methods import ALTER_CONFIGS
from quorate.net.principal import ANONYMOUS
from quorate.v1.admin_pb2 import AlterConfigsRequest
from quorate_cli.local import LocalCluster
from quorate_cli.local_shape import Shape, free_port
from quorate_quorum.client.client import QuorumClient
from quorate_quorum.log.real_disk import RealDisk
from quorate_quorum.node.config import BrokerConfig
from quorate_quorum.node.environment import Environment

PATIENCE_S = 60.0
#: Setting it is one small event of the metadata log: a put of one key in etcd's benches.
SETTING = "retention.ms"


class Voters(LocalCluster):
    """The voters of a cluster whose brokers are never started."""

    def start_voters(self) -> None:
        """Start all voters that do not run."""
        running = {node_id for node_id, one in self.processes.items() if one.poll() is None}
        self.start([voter.id for voter in self.voters if voter.id not in running])

    @property
    def endpoints(self) -> list[str]:
        """Where the voters listen."""
        return [voter.endpoint for voter in self.voters]


T = TypeVar("T")
V = TypeVar("V", bound=Voters)


@contextlib.contextmanager
def running(kind: type[V], count: int = 3) -> Iterator[V]:
    """Run `count` voters in a folder of their own, with real syncs; stop them at the end."""
    with tempfile.TemporaryDirectory(prefix="quorate-bench-", ignore_cleanup_errors=True) as folder:
        cluster = kind(Path(folder), Shape(voters=count, brokers=1, port=free_port(count)))
        cluster.prepare()
        cluster.start_voters()
        try:
            yield cluster
        finally:
            cluster.stop()


def ask(program: Coroutine[Any, Any, T]) -> T:
    """Run the client's program on an event loop of the kind that brokers have.

    All calls use one loop: gRPC fails in a process that has used another loop before.
    """
    return _runner().run(program)


@functools.cache
def _runner() -> asyncio.Runner:
    runner = asyncio.Runner(loop_factory=loop_factory())
    atexit.register(runner.close)
    return runner


@asynccontextmanager
async def new_client(cluster: Voters) -> AsyncIterator[QuorumClient]:
    """Yield a client of the quorum that is not started: its image is empty."""
    network = GrpcNetwork()
    config = BrokerConfig(
        node_id=0,
        listeners=("127.0.0.1:0",),
        log_dirs=("/nowhere",),
        quorum_bootstrap_servers=tuple(cluster.endpoints),
    )
    client = QuorumClient(
        config,
        Environment(network=network, disk=RealDisk()),
        cluster_id=cluster.cluster_id,
        fail=_failed,
    )
    try:
        yield client
    finally:
        await client.stop()
        await network.close()


@asynccontextmanager
async def door(cluster: Voters) -> AsyncIterator[QuorumClient]:
    """Yield a started client of the quorum, as brokers have, once the quorum answers it."""
    async with new_client(cluster) as client:
        await client.start()
        async with asyncio.timeout(PATIENCE_S):
            await _answered(client)
        yield client


def _failed(reason: str) -> None:
    raise RuntimeError(f"the door to the quorum failed: {reason}")


async def _answered(client: QuorumClient) -> None:
    """Ask until there is an answer: a quorum that has just started has no leader yet."""
    while True:
        try:
            await set_once(client, 1)
        except QuorateError:
            await asyncio.sleep(0.05)
        else:
            return


async def set_once(client: QuorumClient, value: int, *, timeout_ms: int = 10_000) -> None:
    """Set one of the cluster's configs: one event, one batch, decided, synced and committed."""
    request = AlterConfigsRequest(set={SETTING: str(3_600_000 + value)})
    await client.forward(ALTER_CONFIGS, request, principal=ANONYMOUS, timeout_ms=timeout_ms)
