"""quorate cluster rebalance: the plan that it prints, what it begins, and its exit status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from quorate import (
    Admin,
    BrokerDescription,
    ClusterDescription,
    LogDirDescription,
    PartitionDescription,
    ReplicaSize,
    TopicDescription,
    TopicPartition,
)
from quorate.errors import InvalidReplicaAssignmentError, QuorateError
from tests.cluster.support import Answer, run_here

T0 = TopicPartition("t", 0)


class Cluster:
    """Two brokers; one of them has both partitions, 100 and 300 bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[Any, Any]] = []
        self.moving: dict[TopicPartition, object] = {}
        self.refusal: QuorateError | None = None
        for name in (
            "start",
            "list_reassignments",
            "describe_cluster",
            "describe_topics",
            "describe_log_dirs",
            "reassign_partitions",
        ):
            monkeypatch.setattr(Admin, name, getattr(self, name))

    async def start(self) -> None:
        return None

    async def list_reassignments(self) -> dict[TopicPartition, object]:
        return self.moving

    async def describe_cluster(self) -> ClusterDescription:
        brokers = tuple(BrokerDescription(b, "", f"h{b}", f"h{b}:1", False, b) for b in (0, 1))
        return ClusterDescription("c", 100, brokers, image_offset=77)

    async def describe_topics(self) -> dict[str, TopicDescription]:
        partitions = tuple(PartitionDescription(n, 0, 0, (0,), (0,)) for n in (0, 1))
        return {"t": TopicDescription("t", "id", partitions)}

    async def describe_log_dirs(self) -> list[LogDirDescription]:
        sizes = tuple(ReplicaSize("t", n, 100 + 200 * n, 0, 9, True) for n in (0, 1))
        return [LogDirDescription(0, "/d", "", "", 9, sizes)]

    async def reassign_partitions(
        self,
        targets: Mapping[TopicPartition, Sequence[int]],
        *,
        expected: Mapping[TopicPartition, Sequence[int]],
    ) -> dict[TopicPartition, QuorateError | None]:
        self.asked.append((dict(targets), dict(expected)))
        return dict.fromkeys(targets, self.refusal)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(monkeypatch)


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> Answer:
    return run_here(["cluster", "rebalance", *arguments], capfd, b"")


@pytest.mark.parametrize("arguments", [(), ("--dry-run",)])
def test_a_plan_is_printed_and_nothing_is_moved(
    cluster: Cluster, capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    said = run(capfd, *arguments)
    assert said.status == 0
    lines = [" ".join(line.split()) for line in said.out.splitlines()]
    assert lines[1:3] == [
        "0 - h0 2 -> 1 2 -> 1 400 B -> 300 B",
        "1 - h1 0 -> 1 0 -> 1 0 B -> 100 B",
    ]
    assert "t/0 0 1" in lines
    assert lines[-2:] == [
        "by the metadata of offset 77: 1 partitions change, 1 replicas of 100 B are copied",
        "nothing was moved: --apply begins these moves",
    ]
    assert cluster.asked == []


def test_a_plan_is_applied_to_the_replicas_that_it_was_made_from(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    said = run(capfd, "--apply")
    assert said.status == 0
    assert said.out.splitlines()[-1].startswith("1 moves begun")
    assert cluster.asked == [({T0: [1]}, {T0: (0,)})]


def test_a_cluster_that_has_changed_refuses_the_plan(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    cluster.refusal = InvalidReplicaAssignmentError("the replicas are [1] now")
    said = run(capfd, "--apply")
    assert said.status == 1
    assert "1 of 1 moves were refused; t/0: the replicas are [1] now" in said.err
    document = run(capfd, "--apply", "-o", "json").json
    assert document["partitions"] == [
        {
            "topic": "t",
            "partition": 0,
            "replicas": [1],
            "expected": [0],
            "begun": False,
            "error": "INVALID_REPLICA_ASSIGNMENT",
        }
    ]
    assert document["image_offset"] == 77


def test_no_plan_is_made_while_moves_are_under_way(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    cluster.moving = {T0: object()}
    said = run(capfd, "--apply")
    assert (said.status, cluster.asked) == (1, [])
    assert "1 partitions are being moved" in said.err


def test_dry_run_and_apply_together_are_wrong_usage(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(capfd, "--apply", "--dry-run").status == 2
