"""`quorate topic trim` and `quorate cluster disks` as an operator sees them; a deleted topic."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from quorate import Producer
from quorate_cli.local import LocalCluster
from tests.cluster.support import Answer, create, read, until, whole, write

Command = Callable[..., Answer]
DAY_MS = 24 * 3600 * 1000
#: 2026-01-01T00:00:00 UTC.
NEW_YEAR_MS = 1_767_225_600_000


def table(out: str) -> list[list[str]]:
    """Return the cells of an aligned table, by its lines."""
    return [
        [cell.strip() for cell in line.split("  ") if cell.strip()] for line in out.splitlines()
    ]


def starts(quorate: Command, topic: str) -> list[int]:
    """Return where each partition begins."""
    found = quorate("topic", "describe", topic, "-o", "json").json
    return [one["log_start_offset"] for one in found["partitions"]]


async def write_at(cluster: LocalCluster, topic: str, timestamps_ms: Sequence[int]) -> None:
    """Write a record of each timestamp to partition 0, one batch each."""
    async with Producer(bootstrap_servers=cluster.bootstrap_servers) as producer:
        for number, at_ms in enumerate(timestamps_ms):
            value = b"%d" % number
            await producer.send_and_wait(topic, value, partition=0, timestamp_ms=at_ms)


def test_records_are_trimmed_by_offset(quorate: Command, cluster: LocalCluster) -> None:
    asyncio.run(create(cluster, "by-offset", 2))
    asyncio.run(write(cluster, "by-offset", [b"%d" % n for n in range(10)], partition=0))
    trim = ("topic", "trim", "by-offset", "--partition", "0", "--before")
    said = quorate(*trim, "7")
    assert (said.status, said.out) == (0, "by-offset/0 begins at offset 7\n")
    assert asyncio.run(read(cluster, "by-offset")) == [b"7", b"8", b"9"]
    # below the start: done, and nothing moves
    said = quorate(*trim, "3")
    assert (said.status, said.out, said.err) == (0, "by-offset/0 begins at offset 7\n", "")
    # above the high watermark: refused, and nothing moves
    said = quorate(*trim, "11")
    assert (said.status, said.out) == (1, "")
    assert "below offset 11 cannot be deleted" in said.err
    assert "the high watermark is 10; nothing was deleted" in said.err
    assert starts(quorate, "by-offset") == [7, 0]
    described = table(quorate("topic", "describe", "by-offset").out)
    assert described[0][-3:] == ["start", "end", "bytes"]
    assert described[1][-3:-1] == ["7", "10"]
    assert quorate(*trim, "end", "-o", "json").json == {"topic": "by-offset", "starts": {"0": 10}}


def test_records_are_trimmed_by_time(quorate: Command, cluster: LocalCluster) -> None:
    asyncio.run(create(cluster, "by-time", 1))
    days = [NEW_YEAR_MS + day * DAY_MS for day in range(4)]
    asyncio.run(write_at(cluster, "by-time", days))
    said = quorate("topic", "trim", "by-time", "--before", "2026-01-03T00:00:00")
    assert (said.status, said.out) == (0, "by-time/0 begins at offset 2\n")
    said = quorate("topic", "trim", "by-time", "--before", "2025-01-01T00:00:00")
    assert (said.status, said.out) == (0, "by-time/0 begins at offset 2\n"), "nothing is so old"
    said = quorate("topic", "trim", "by-time", "--before", "2026-01-20T00:00:00")
    assert (said.status, said.out) == (0, "by-time/0 begins at offset 4\n"), "all are older"


@pytest.mark.parametrize("before", ["-1", "soon", ""])
def test_a_trim_that_means_nothing_is_refused(
    quorate: Command, cluster: LocalCluster, before: str
) -> None:
    if "still-whole" not in quorate("topic", "list", "-o", "json").json:
        asyncio.run(create(cluster, "still-whole", 1))
        asyncio.run(write(cluster, "still-whole", [b"a"], partition=0))
    said = quorate("topic", "trim", "still-whole", f"--before={before}")
    assert (said.status, said.out) == (2, "")
    assert "--before takes an offset, a time" in said.err
    assert f"not {before!r}" in said.err
    assert starts(quorate, "still-whole") == [0]


def test_the_disks_of_all_brokers_are_shown(quorate: Command, cluster: LocalCluster) -> None:
    asyncio.run(create(cluster, "on-disks", 1))
    asyncio.run(write(cluster, "on-disks", [bytes(500_000)] * 4, partition=0))
    asyncio.run(whole(cluster, "on-disks"))
    said = quorate("cluster", "disks")
    assert said.status == 0
    lines = table(said.out)
    assert lines[0] == ["broker", "directory", "logs", "share", "free", "replicas", "state"]
    for node, line in zip(cluster.brokers, lines[1:4], strict=True):
        assert line[:2] == [str(node.id), str(node.folder / "data")]
        assert line[2].endswith("MiB")
        assert line[3].endswith("%")
        assert line[-1] == "in use"
    assert lines[4] == ["topic", "all replicas", "share"]
    (topic,) = [line for line in lines[5:] if line[0] == "on-disks"]
    assert topic[1] == "5.7 MiB"
    documents = quorate("cluster", "disks", "-o", "json").json
    assert [one["path"] for one in documents] == [str(n.folder / "data") for n in cluster.brokers]
    for one in documents:
        (replica,) = [found for found in one["replicas"] if found["topic"] == "on-disks"]
        assert replica["size"] > 2_000_000
        assert one["size"] >= replica["size"]
        assert one["free_bytes"] > 0
        assert one["failure"] == ""


def test_a_deleted_topic_gives_its_disk_back(
    quorate: Command, cluster: LocalCluster, capfd: pytest.CaptureFixture[str]
) -> None:
    asyncio.run(create(cluster, "deleted", 8))
    for partition in range(8):
        asyncio.run(write(cluster, "deleted", [bytes(500_000)] * 10, partition=partition))
    asyncio.run(whole(cluster, "deleted"))
    assert sum(bytes_of(cluster, "deleted")) > 3 * 40_000_000
    started = time.perf_counter()
    assert quorate("topic", "delete", "deleted").status == 0
    answered = time.perf_counter()
    asyncio.run(until(lambda: bytes_of(cluster, "deleted") == [0, 0, 0], "the files are gone"))
    taken_ms = {
        "answered": round((answered - started) * 1000),
        "120 MB given back": round((time.perf_counter() - started) * 1000),
    }
    with capfd.disabled():
        print(f"\na deletion of 24 replicas, in ms: {taken_ms}")
    rows = table(quorate("cluster", "disks").out)
    assert not [row for row in rows if row[0] == "deleted"]


def bytes_of(cluster: LocalCluster, topic: str) -> list[int]:
    """Return the bytes of all files of a topic, on each broker."""
    return [bytes_under(node.folder / "data", f"{topic}-") for node in cluster.brokers]


def bytes_under(data: Path, prefix: str) -> int:
    """Return the bytes of the files in directories of this prefix, which may go meanwhile."""
    found = 0
    for name in os.listdir(data):
        if name.startswith(prefix):
            for folder, _, files in os.walk(data / name):
                for file in files:
                    with contextlib.suppress(FileNotFoundError):
                        found += os.stat(f"{folder}/{file}").st_size
    return found
