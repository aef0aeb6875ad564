"""Brokers with several disks, as real processes on small file systems in memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from quorate import Admin, LogDirDescription, Producer, TopicDescription
from quorate.errors import DeliveryTimeoutError, QuorateError, StorageError
from quorate_cli.local import LocalCluster
from quorate_cli.local_shape import Shape, free_port
from quorate_cli.node_disks import format_broker
from tests.cluster.mounts import mounted, remount, unmount
from tests.cluster.support import (
    PATIENCE_S,
    Answer,
    create,
    describe,
    read,
    run_here,
    until,
    whole,
    write,
)


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


def test_a_disk_that_is_taken_away_costs_only_its_replicas_and_the_last_one_the_broker(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with with_disks(tmp_path, "32m", "32m", brokers=2) as cluster:

        def command(*words: str) -> Answer:
            return run_here([*words, "--bootstrap", cluster.bootstrap_servers], capfd, b"")

        asyncio.run(create(cluster, "t", 8, replicas=2, min_insync_replicas="1"))
        for number in range(8):
            asyncio.run(write(cluster, "t", [b"before"], partition=number))
        asyncio.run(whole(cluster, "t"))
        placed = asyncio.run(directories_of(cluster, "t"))
        gone = [number for (broker, number), at in placed.items() if at == "0-1" and broker == 0]
        assert gone
        unmount(tmp_path / "0-1")

        async def is_told() -> bool:
            return offline_in(await describe(cluster, "t")) == gone

        asyncio.run(until(is_told, "the replicas on the disk that is gone are offline"))
        for number in range(8):
            asyncio.run(write(cluster, "t", [b"after"], partition=number))
        for one in asyncio.run(describe(cluster, "t")).partitions:
            assert one.leader != 0 or one.partition not in gone
            assert set(one.isr) == ({1} if one.partition in gone else {0, 1})
        disks = command("cluster", "disks")
        assert disks.status == 0
        (row,) = [line for line in disks.out.splitlines() if str(tmp_path / "0-1") in line]
        assert "meta.properties any more: was it unmounted?" in row
        assert "1 of 2 log directories failed" in command("cluster", "info").out
        assert "log directories" in command("cluster", "health").out
        table = command("topic", "describe", "t").out.splitlines()
        assert "offline" in table[0]
        (tmp_path / "0-0" / "meta.properties").unlink()
        assert cluster.processes[0].wait(PATIENCE_S) == 70
        assert "the last log directory failed" in cluster.last_words(0)
        assert asyncio.run(read(cluster, "t")) == [b"before", b"after"] * 8


def offline_in(topic: TopicDescription) -> list[int]:
    """Return the partitions with an offline replica."""
    return [one.partition for one in topic.partitions if one.offline]


async def fill(cluster: LocalCluster, topic: str) -> tuple[list[bytes], QuorateError]:
    """Write records until a write fails. Return the acknowledged ones, and the error."""
    acked: list[bytes] = []
    async with Producer(
        bootstrap_servers=cluster.bootstrap_servers,
        delivery_timeout_ms=4000,
        request_timeout_ms=2000,
    ) as producer:
        for number in range(2000):
            value = b"%06d" % number + bytes(50_000)
            try:
                await producer.send_and_wait(topic, value)
            except QuorateError as error:
                return acked, error
            acked.append(value)
    raise AssertionError("the disk was never full")


async def write_one(cluster: LocalCluster, topic: str) -> None:
    """Write a record. The producer tries on as long as the disk is full."""
    async with Producer(
        bootstrap_servers=cluster.bootstrap_servers, delivery_timeout_ms=30_000
    ) as producer:
        await producer.send_and_wait(topic, b"more")


def test_a_full_disk_refuses_records_serves_others_is_freed_and_heals(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with with_disks(tmp_path, "12m") as cluster:

        def command(*words: str) -> Answer:
            found = run_here([*words, "--bootstrap", cluster.bootstrap_servers], capfd, b"")
            assert found.status == 0, found
            return found

        for topic, segment in (("t", "1048576"), ("whole", "1073741824")):
            asyncio.run(create(cluster, topic, 1, replicas=1, segment_bytes=segment))
        asyncio.run(write(cluster, "whole", [bytes(100_000)] * 30))
        acked, error = asyncio.run(fill(cluster, "t"))
        assert len(acked) > 100
        assert isinstance(error, DeliveryTimeoutError)
        assert isinstance(error.__cause__, StorageError)
        assert "the disk is full" in str(error)
        assert asyncio.run(read(cluster, "t")) == acked, "reading goes on"
        assert cluster.processes[0].poll() is None

        cluster.kill(0)
        cluster.died()
        cluster.start([0])
        asyncio.run(cluster.wait_ready(timeout=PATIENCE_S))
        assert asyncio.run(read(cluster, "t")) == acked, "a restart on the full disk"

        trimmed = command("topic", "trim", "t", "--before", str(len(acked) // 2)).out
        assert trimmed == f"t/0 begins at offset {len(acked) // 2}\n"
        asyncio.run(write_one(cluster, "t"))
        _, error = asyncio.run(fill(cluster, "t"))
        assert "the disk is full" in str(error)

        command("topic", "alter", "t", "-c", "retention.bytes=2097152")
        asyncio.run(write_one(cluster, "t"))
        _, error = asyncio.run(fill(cluster, "whole"))
        assert "the disk is full" in str(error)

        command("topic", "trim", "whole", "--before", "end")
        asyncio.run(write_one(cluster, "whole"))
        _, error = asyncio.run(fill(cluster, "whole"))
        assert "the disk is full" in str(error)

        remount(tmp_path / "0-0", "size=64m")
        asyncio.run(write_one(cluster, "whole"))
        assert asyncio.run(read(cluster, "whole"))[-1] == b"more"
