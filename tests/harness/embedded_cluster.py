"""A cluster in this process, on an event loop in a thread of its own, with real sockets.

Clients of other libraries need sockets, and block.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from quorate import Admin
from quorate_cli.embedded import EmbeddedNodes
from quorate_cli.local import LocalCluster
from quorate_cli.local_shape import ANY_PORT, Shape
from quorate_quorum.node.process import loop_factory

START_S = 30.0


class EmbeddedCluster:
    """Voters and brokers, with listeners for both protocols."""

    def __init__(self, folder: Path, *, brokers: int = 1, racks: tuple[str, ...] = ()) -> None:
        shape = Shape(voters=1, brokers=brokers, racks=racks, port=ANY_PORT, kafka_port=ANY_PORT)
        self._cluster = LocalCluster(folder, shape)
        self._nodes = EmbeddedNodes(self._cluster)
        self._started: Future[None] = Future()
        self._stopping: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._live, name="embedded cluster")

    @property
    def bootstrap_servers(self) -> str:
        """The addresses for Quorate's own client."""
        return self._cluster.bootstrap_servers

    @property
    def kafka_servers(self) -> str:
        """The addresses for Kafka clients, as these clients take them."""
        return ",".join(node.kafka for node in self._cluster.brokers)

    def create_topic(self, name: str, partitions: int = 1, **configs: str) -> None:
        """Create a topic with one replica a partition on each broker, up to three."""

        async def create() -> None:
            async with Admin(bootstrap_servers=self.bootstrap_servers) as admin:
                await admin.create_topic(
                    name,
                    num_partitions=partitions,
                    replication_factor=min(3, len(self._cluster.brokers)),
                    configs={key.replace("_", "."): value for key, value in configs.items()},
                )

        asyncio.run(create())

    def __enter__(self) -> Self:
        self._cluster.prepare()
        self._thread.start()
        with ExitStack() as stack:
            stack.callback(self._thread.join, START_S)
            self._started.result(START_S)
            stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._loop is not None
        assert self._stopping is not None
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(START_S)
        assert not self._thread.is_alive(), "the cluster does not stop"

    def _live(self) -> None:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            try:
                runner.run(self._run())
            except BaseException as error:
                if not self._started.done():
                    self._started.set_exception(error)
                raise

    async def _run(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        await self._nodes.start()
        self._started.set_result(None)
        await self._stopping.wait()
        await self._nodes.stop()
