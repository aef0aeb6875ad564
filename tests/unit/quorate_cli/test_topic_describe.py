"""quorate topic describe: what it warns of."""

from __future__ import annotations

from quorate.model import LogDirDescription, ReplicaSize
from quorate_cli.topic import compaction_failures


def test_each_replica_whose_compaction_fails_is_named_with_its_broker_and_the_reason() -> None:
    failing = ReplicaSize("t", 3, 0, 0, 0, is_leader=False, compaction_failure="the disk is odd")
    sound = ReplicaSize("t", 3, 0, 0, 0, is_leader=True)
    log_dirs = [
        LogDirDescription(1, "/a", "", "", 0, (sound,)),
        LogDirDescription(2, "/b", "", "", 0, (failing,)),
    ]
    assert compaction_failures(log_dirs) == ["compaction of t-3 fails on broker 2: the disk is odd"]
