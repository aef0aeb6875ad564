"""quorate topic describe: what it warns of."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from quorate import Admin, BrokerDescription, ClusterDescription, TopicDescription
from quorate.model import LogDirDescription, PartitionDescription, ReplicaSize
from quorate_cli.topic import compaction_failures, troubles
from tests.cluster.support import run_here


def test_each_replica_whose_compaction_fails_is_named_with_its_broker_and_the_reason() -> None:
    failing = ReplicaSize("t", 3, 0, 0, 0, is_leader=False, compaction_failure="the disk is odd")
    sound = ReplicaSize("t", 3, 0, 0, 0, is_leader=True)
    log_dirs = [
        LogDirDescription(1, "/a", "", "", 0, (sound,)),
        LogDirDescription(2, "/b", "", "", 0, (failing,)),
    ]
    assert compaction_failures(log_dirs) == ["compaction of t/3 fails on broker 2: the disk is odd"]


def test_each_replica_with_a_trouble_is_named_with_its_broker_and_the_reason() -> None:
    damaged = ReplicaSize("t", 3, 0, 0, 0, is_leader=False, trouble="a batch is damaged: at byte 7")
    log_dirs = [LogDirDescription(2, "/b", "", "", 0, (damaged,))]
    assert troubles(log_dirs) == ["t/3 on broker 2: a batch is damaged: at byte 7"]


def test_why_a_log_is_not_known_and_which_broker_a_move_waits_for_are_said(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Both were a dash alone."""
    partitions = (
        PartitionDescription(0, 1, 0, (1, 2), (1, 2)),
        PartitionDescription(1, 2, 0, (2, 1), (2, 1)),
        PartitionDescription(2, 2, 0, (3, 2), (2,), offline=(3,), adding=(3,)),
        PartitionDescription(3, -1, 0, (3,), (), offline=(3,)),
    )
    log = ReplicaSize("t", 0, 7, 0, 9, is_leader=True)

    class Cluster(Admin):
        async def start(self) -> None:
            return None

        async def describe_topics(
            self, names: Iterable[str] | None = None
        ) -> dict[str, TopicDescription]:
            return {"t": TopicDescription("t", "id", partitions)}

        async def describe_log_dirs(
            self, topics: Iterable[str] | None = None
        ) -> list[LogDirDescription]:
            return [
                LogDirDescription(1, "/d", "", "", 9, (log,)),
                LogDirDescription(2, "", "", "no answer: it is busy", -1, ()),
            ]

        async def describe_cluster(self) -> ClusterDescription:
            brokers = (BrokerDescription(b, "", "", "", b == 3, 1) for b in (1, 2, 3))
            return ClusterDescription("c", 1, tuple(brokers))

    for name in ("start", "describe_topics", "describe_log_dirs", "describe_cluster"):
        monkeypatch.setattr(Admin, name, getattr(Cluster, name))
    said = run_here(["topic", "describe", "t"], capfd, b"")
    assert said.status == 0
    assert said.err.splitlines() == [
        "quorate: warning: t/2: broker 3 is not alive: start it, or cancel the move",
        "quorate: warning: start, end and bytes of partitions 1, 2 are not known: broker 2 does not"
        " answer",
        "quorate: warning: start, end and bytes of partition 3 are not known: no broker leads",
    ]
