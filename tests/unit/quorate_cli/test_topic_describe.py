"""quorate topic describe: what it warns of."""

from __future__ import annotations

from quorate.model import LogDirDescription, ReplicaSize
from quorate_cli.topic import compaction_failures, troubles


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
