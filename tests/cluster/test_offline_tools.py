"""storage dump and verify on the disks of real nodes: while they run, stopped, and damaged."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from quorate import Admin, Producer
from quorate_cli.local import LocalCluster
from quorate_cli.local_shape import Shape, free_port
from tests.cluster.support import PATIENCE_S, Answer, run_here, until

#: Small, so that a voter takes snapshots and cuts its log within this test.
SMALL = (
    "metadata.log.max.record.bytes.between.snapshots = 1500\nmetadata.log.segment.bytes = 2048\n"
)


def last(disk: Path, pattern: str, size_min: int = 1) -> Path:
    """Return the last matching file of at least that size: a new segment is still empty."""
    return [path for path in sorted(disk.glob(pattern)) if path.stat().st_size >= size_min][-1]


def flip(pattern: str, position: int) -> Callable[[Path], Path]:
    """Return a function that flips a bit in the last matching file, and returns its path."""

    def damage(disk: Path) -> Path:
        path = last(disk, pattern, position + 1)
        data = bytearray(path.read_bytes())
        data[position] ^= 1
        path.write_bytes(data)
        return path

    return damage


def cut(pattern: str) -> Callable[[Path], Path]:
    """Return a function that cuts the last matching file in half, and returns its path."""

    def damage(disk: Path) -> Path:
        path = last(disk, pattern)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        return path

    return damage


def without(pattern: str) -> Callable[[Path], Path]:
    """Return a function that removes the last matching file, and returns its directory."""

    def damage(disk: Path) -> Path:
        path = sorted(disk.glob(pattern))[-1]
        path.unlink()
        return path.parent

    return damage


#: (damage, whether it is a fault: if not, a start builds the file again), of voters and brokers.
VOTER = [
    (flip("__*/*.log", 100), True),
    (flip("__*/*.log", 14), True),  # an epoch, outside the CRC
    (flip("__*/*-*.snapshot", 700), True),
    (flip("__*/*-*.snapshot", 14), True),
    (flip("__*/quorum-state", 3), True),
    (cut("__*/*.log"), True),
    (cut("__*/*-*.snapshot"), True),
    (without("__*/*-*.snapshot"), True),
    (without("__*/*.index"), False),
]
BROKER = [
    (flip("orders-0/*.log", 300), True),
    (flip("run", 5), True),
    (cut("orders-0/*.log"), True),
    (without("orders-0/*.index"), False),
]


async def fill(cluster: LocalCluster, voter: Path) -> None:
    """Make topics until a snapshot was taken and the log was cut, and write some records."""
    async with Admin(bootstrap_servers=cluster.bootstrap_servers) as admin:
        await admin.create_topic("orders", 1, 1)
        for number in range(30):
            await admin.create_topic(f"more-{number}", 4, 1)

    def is_cut() -> bool:
        return not any(voter.glob("__*/00000000000000000000.log"))

    await until(is_cut, "a snapshot and a log that begins at it")
    async with Producer(bootstrap_servers=cluster.bootstrap_servers) as producer:
        for number in range(50):
            # A log of a few KiB gets no index at a stop.
            await producer.send_and_wait("orders", b"record %d" % number + bytes(400))


def test_what_they_say_of_real_disks_is_true(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def storage(verb: str, path: Path) -> Answer:
        return run_here(["storage", verb, str(path), "-o", "json"], capfd, b"")

    cluster = LocalCluster(tmp_path / "c", Shape(voters=1, brokers=1, port=free_port(1)))
    cluster.prepare()
    config = cluster.voters[0].folder / "config.toml"
    config.write_text(config.read_text() + SMALL)
    voter, broker = (node.folder / "data" for node in (*cluster.voters, *cluster.brokers))
    cluster.start()
    try:
        asyncio.run(cluster.wait_ready(timeout=PATIENCE_S))
        asyncio.run(fill(cluster, voter))
        for disk in (voter, broker):
            for verb in ("dump", "verify"):
                found = storage(verb, disk)
                assert (found.status, "a running node holds this" in found.err) == (0, True)
            assert [row["kind"] for row in found.lines] == ["verified"]
            assert found.lines[0]["locked"]
        servers = ["--bootstrap", cluster.bootstrap_servers]
        features = run_here(["cluster", "features", "-o", "json", *servers], capfd, b"")
        assert [one["level"] for one in features.json["features"]] == [2]
        assert run_here(["cluster", "features", "--upgrade", "2", *servers], capfd, b"").status == 0
        assert run_here(["cluster", "features", "--upgrade", "9", *servers], capfd, b"").status == 1
    finally:
        cluster.stop()

    for disk, damages in ((voter, VOTER), (broker, BROKER)):
        stopped = storage("verify", disk)
        assert (stopped.status, len(stopped.lines)) == (0, 1), stopped.out
        assert (storage("dump", disk).status, stopped.lines[0]["locked"]) == (0, False)
        for number, (damage, is_fault) in enumerate(damages):
            copy = tmp_path / f"{disk.parent.name}-{number}"
            shutil.copytree(disk, copy)
            path = damage(copy)
            found = storage("verify", copy)
            faults = [row["file"] for row in found.lines if row["kind"] == "fault"]
            assert found.status == int(is_fault), (path, found.out)
            assert (str(path) in faults) == is_fault, (path, found.out)
            assert storage("dump", copy).status in (0, int(is_fault))
