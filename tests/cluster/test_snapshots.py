"""Snapshots among real processes: taken, downloaded over gRPC, checked, given to brokers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from quorate_cli.local import LocalCluster
from quorate_cli.local_shape import Shape, free_port
from tests.cluster.support import (
    PATIENCE_S,
    create,
    describe,
    read,
    run_process,
    until,
    whole,
    write,
)

SETTINGS = "metadata.log.max.record.bytes.between.snapshots = 3000\n"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[LocalCluster]:
    """A cluster whose voters take snapshots all the time."""
    cluster = LocalCluster(tmp_path / "cluster", Shape(port=free_port(3)))
    cluster.prepare()
    for voter in cluster.voters:
        with (voter.folder / "config.toml").open("a") as config:
            config.write(SETTINGS)
    cluster.start()
    try:
        yield cluster
    finally:
        cluster.stop()


def log_start(cluster: LocalCluster, node_id: int) -> int:
    """Return where a voter's metadata log begins, by the names of its segments."""
    directory = cluster.nodes[node_id].folder / "data" / "__cluster_metadata-0"
    return min(int(path.stem) for path in directory.glob("*.log"))


async def test_a_voter_and_a_broker_that_were_away_go_on_by_a_snapshot(small: LocalCluster) -> None:
    await small.wait_ready(timeout=PATIENCE_S)
    await create(small, "kept")
    voter, broker = small.voters[0].id, small.brokers[0].id
    small.kill(voter, broker)
    small.died()
    others = [one.id for one in small.voters if one.id != voter]
    number = 0
    while min(log_start(small, one) for one in others) == 0:
        await create(small, f"more-{number}", 1, replicas=2)
        number += 1
        assert number < 200, "nothing is cut"
    assert log_start(small, voter) == 0

    small.start([voter, broker])
    await until(lambda: log_start(small, voter) > 0, "the voter's log begins at a snapshot")
    await small.wait_ready(timeout=PATIENCE_S)
    await whole(small, "kept")

    # With another voter gone the one that came back must count.
    small.kill(others[0])
    small.died()
    await create(small, "after", 1)
    await write(small, "after", [b"1", b"2"])
    assert await read(small, "after") == [b"1", b"2"]
    assert (await describe(small, f"more-{number - 1}")).partitions
    answer = run_process("storage", "verify", str(small.nodes[voter].folder / "data"))
    assert answer.status == 0, answer.out + answer.err
