"""Builders: the command against an embedded cluster, and the records of a topic."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import Sequence
from typing import Any

import pytest

from quorate import Consumer, Producer, Record
from quorate_testing import EmbeddedCluster
from tests.cluster.support import PATIENCE_S, Answer, run_here

AnyRecord = Record[Any, Any]


class Quorate:
    """Runs the command against a cluster; makes topics, writes and reads them."""

    def __init__(self, cluster: EmbeddedCluster, capfd: pytest.CaptureFixture[str]) -> None:
        self.cluster = cluster
        self._capfd = capfd

    @property
    def servers(self) -> str:
        return self.cluster.bootstrap_servers

    def __call__(self, *arguments: str, stdin: bytes = b"", bootstrap: str = "") -> Answer:
        servers = bootstrap or self.servers
        return run_here([*arguments, "--bootstrap", servers], self._capfd, stdin)

    def topic(self, partitions: int = 1, **configs: str | int) -> str:
        """Create a topic, and return its name."""
        name = f"t-{uuid.uuid4().hex[:8]}"
        named = {key.replace("_", "."): value for key, value in configs.items()}
        self.cluster.create_topic(name, partitions, configs=named)
        return name

    def write(self, topic: str, records: Sequence[dict[str, Any]]) -> None:
        """Write records, one after another. Each dict has arguments of Producer.send."""

        async def main() -> None:
            async with Producer(bootstrap_servers=self.servers) as producer:
                for one in records:
                    await producer.send_and_wait(topic, **one)

        asyncio.run(main())

    def read(self, topic: str) -> list[AnyRecord]:
        """Return all records of a topic, partition by partition."""

        async def main() -> list[AnyRecord]:
            found: list[AnyRecord] = []
            async with (
                asyncio.timeout(PATIENCE_S),
                Consumer(
                    topic, bootstrap_servers=self.servers, auto_offset_reset="earliest"
                ) as consumer,
            ):
                ends = await consumer.end_offsets(consumer.assignment())
                while any([await consumer.position(key) < end for key, end in ends.items()]):
                    many = await consumer.getmany(timeout_ms=500)
                    found.extend(itertools.chain.from_iterable(many.values()))
            return sorted(found, key=lambda record: (record.partition, record.offset))

        return asyncio.run(main())
