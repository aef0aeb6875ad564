"""Brokers with several disks, as real processes on small file systems in memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from quorate import Admin, LogDirDescription
from quorate_cli.local import LocalCluster, Shape, free_port
from quorate_cli.node_disks import format_broker
from tests.cluster.mounts import mounted
from tests.cluster.support import PATIENCE_S, create, read, until, write


def use_disks(cluster: LocalCluster, broker: int, disks: Sequence[Path]) -> None:
    """Let a broker of a prepared cluster use these log directories."""
    config = cluster.nodes[broker].folder / "config.toml"
    named = json.dumps([str(disk) for disk in disks])
    config.write_text(
        re.sub(r"^log\.dirs = .*$", f"log.dirs = {named}", config.read_text(), flags=re.MULTILINE)
    )
    asyncio.run(format_broker(cluster.cluster_id, broker, [str(disk) for disk in disks]))


@contextlib.contextmanager
def with_disks(folder: Path, *sizes: str, brokers: int = 1) -> Iterator[LocalCluster]:
    """Yield a running cluster. Each broker has a log directory on a disk of each size.

    The log directories of broker 0 are called 0-0, 0-1 and so on, those of broker 1 1-0.
    """
    cluster = LocalCluster(folder, Shape(voters=1, brokers=brokers, port=free_port(brokers)))
    with contextlib.ExitStack() as stack:
        cluster.prepare()
        for node in cluster.brokers:
            disks = [
                stack.enter_context(mounted(folder / f"{node.id}-{number}", size))
                for number, size in enumerate(sizes)
            ]
            use_disks(cluster, node.id, disks)
        cluster.start()
        stack.callback(cluster.stop)
        asyncio.run(cluster.wait_ready(timeout=PATIENCE_S))
        yield cluster


async def log_dirs(cluster: LocalCluster) -> list[LogDirDescription]:
    """Return the log directories of all brokers, by broker and path."""
    async with Admin(bootstrap_servers=cluster.bootstrap_servers) as admin:
        return sorted(await admin.describe_log_dirs(), key=lambda one: (one.broker_id, one.path))


async def directories_of(cluster: LocalCluster, topic: str) -> dict[tuple[int, int], str]:
    """Return the name of the log directory of each replica, by broker and partition."""
    return {
        (found.broker_id, one.partition): Path(found.path).name
        for found in await log_dirs(cluster)
        for one in found.replicas
        if one.topic == topic
    }


def test_new_replicas_go_to_the_disk_with_most_space_and_a_restart_finds_them(
    tmp_path: Path,
) -> None:
    with with_disks(tmp_path, "16m", "64m") as cluster:

        async def has_told() -> bool:
            """Whether the controller knows which disk has most space."""
            async with Admin(bootstrap_servers=cluster.bootstrap_servers) as admin:
                await admin.create_topic("probe", 1, 1)
                found = await directories_of(cluster, "probe")
                await admin.delete_topics(["probe"])
            return set(found.values()) == {"0-1"}

        asyncio.run(until(has_told, "a new replica on the larger disk"))
        asyncio.run(create(cluster, "t", 20, replicas=1))
        values = [b"%d" % number for number in range(100)]
        asyncio.run(write(cluster, "t", values))
        placed = asyncio.run(directories_of(cluster, "t"))
        assert 3 <= Counter(placed.values())["0-0"] <= 5, placed
        cluster.kill(0)
        cluster.died()
        cluster.start([0])
        asyncio.run(cluster.wait_ready())
        assert asyncio.run(directories_of(cluster, "t")) == placed
        assert sorted(asyncio.run(read(cluster, "t"))) == sorted(values)
