"""A broker whose files may not grow, as on a full disk: it says so, runs on, loses nothing."""

from __future__ import annotations

import asyncio
import resource
from pathlib import Path

from quorate import Admin, Producer
from quorate.errors import QuorateError
from quorate_cli.local import LocalCluster
from quorate_cli.local_shape import Shape, free_port
from tests.cluster.support import read, started

LIMIT = 1 << 20  # bytes a file of the broker may have


def limit(cluster: LocalCluster, size: int) -> None:
    """Let no file of the broker grow beyond that size: the write fails with EFBIG."""
    resource.prlimit(
        cluster.processes[0].pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY)
    )


async def fill(cluster: LocalCluster) -> tuple[list[bytes], QuorateError]:
    """Write until a write fails; return the acknowledged records, and the error."""
    acked: list[bytes] = []
    async with Producer(
        bootstrap_servers=cluster.bootstrap_servers,
        delivery_timeout_ms=6000,
        request_timeout_ms=3000,
    ) as producer:
        for number in range(400):
            value = b"%06d" % number + bytes(50_000)
            try:
                await producer.send_and_wait("full", value)
            except QuorateError as error:
                return acked, error
            acked.append(value)
    raise AssertionError("the limit was never reached")


def test_a_full_disk_is_told_to_the_producer_and_loses_nothing(tmp_path: Path) -> None:
    with started(tmp_path, Shape(voters=1, brokers=1, port=free_port(1))) as cluster:

        async def scene() -> list[bytes]:
            await create_one(cluster)
            limit(cluster, LIMIT)
            acked, error = await fill(cluster)
            assert acked
            assert "the disk is full" in str(error), error
            return acked

        acked = asyncio.run(scene())
        # A failed write is no failed sync: the broker runs on, and the log refuses records.
        assert cluster.processes[0].poll() is None
        assert "no room" in cluster.last_words(0)
        cluster.kill(0)
        cluster.died()
        cluster.start([0])  # there is room again
        asyncio.run(cluster.wait_ready())
        found = asyncio.run(read(cluster, "full"))
        assert found[: len(acked)] == acked
        asyncio.run(write_more(cluster))


async def create_one(cluster: LocalCluster) -> None:
    async with Admin(bootstrap_servers=cluster.bootstrap_servers) as admin:
        await admin.create_topic("full", 1, 1)


async def write_more(cluster: LocalCluster) -> None:
    async with Producer(bootstrap_servers=cluster.bootstrap_servers) as producer:
        await producer.send_and_wait("full", b"more")
