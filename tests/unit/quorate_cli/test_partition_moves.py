"""quorate partition move, list-moves, cancel: what they ask for, what they say, their status."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from quorate import (
    Admin,
    BrokerDescription,
    ClusterDescription,
    ConfigDescription,
    LogDirDescription,
    Reassignment,
    ReplicaSize,
    TopicPartition,
)
from quorate.errors import (
    InvalidReplicaAssignmentError,
    NoReassignmentInProgressError,
    QuorateError,
)
from quorate_cli import partition_moves
from tests.cluster.support import Answer, run_here

T0, T1 = TopicPartition("t", 0), TopicPartition("t", 1)
MOVE = Reassignment(replicas=(3, 1, 2), adding=(3,), removing=(2,), isr=(1, 2), leader=1)


class Cluster:
    """Stands for the cluster: topic t has two partitions."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[dict[TopicPartition, Any], bool]] = []
        self.refusals: dict[TopicPartition, QuorateError] = {}
        #: What the next looks at the moves find; the last one stays.
        self.moves: list[dict[TopicPartition, Reassignment]] = [{}]
        self.min_isr = "2"
        self.replicas: tuple[int, ...] = (1, 2)
        self.adding: tuple[int, ...] = ()
        self.sizes = {1: 1000, 2: 1000, 3: 250}
        self.dead: set[int] = set()
        monkeypatch.setattr(partition_moves, "LOOK_S", 0)
        for name in ("start", "describe_topics", "reassign_partitions", "list_reassignments"):
            monkeypatch.setattr(Admin, name, getattr(self, name))
        for name in ("describe_log_dirs", "describe_configs", "describe_cluster"):
            monkeypatch.setattr(Admin, name, getattr(self, name))

    async def start(self) -> None:
        return None

    async def describe_topics(self, names: Iterable[str]) -> dict[str, Any]:
        one = SimpleNamespace(replicas=self.replicas, adding=self.adding)
        return {name: SimpleNamespace(partitions=[one, one]) for name in names}

    async def describe_configs(self, topic: str) -> list[ConfigDescription]:
        return [ConfigDescription("min.insync.replicas", self.min_isr, "topic")]

    async def reassign_partitions(
        self,
        targets: Mapping[TopicPartition, Sequence[int] | None],
        *,
        expected: Mapping[TopicPartition, Sequence[int]] | None = None,
        keep_replication_factor: bool = False,
        throttle: int = 0,
    ) -> dict[TopicPartition, QuorateError | None]:
        self.throttle = throttle
        self.asked.append((dict(targets), keep_replication_factor))
        return {key: self.refusals.get(key) for key in targets}

    async def list_reassignments(self) -> dict[TopicPartition, Reassignment]:
        return self.moves.pop(0) if len(self.moves) > 1 else self.moves[0]

    async def describe_cluster(self) -> ClusterDescription:
        brokers = (BrokerDescription(b, "", "", "", b in self.dead, 1) for b in (1, 2, 3))
        return ClusterDescription("c", 1, tuple(brokers))

    async def describe_log_dirs(self, topics: Iterable[str]) -> list[LogDirDescription]:
        assert list(topics) == ["t"]
        return [
            LogDirDescription(b, "/d", "", "", 9, (ReplicaSize("t", 0, size, 0, 9, b == 1),))
            for b, size in self.sizes.items()
        ]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(monkeypatch)


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> Answer:
    return run_here(["partition", *arguments], capfd, b"")


def test_a_topic_stands_for_all_its_partitions(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    said = run(capfd, "move", "t", "u/7", "--to", "3, 1", "--keep-replication-factor")
    assert said.status == 0, said.err
    assert cluster.asked == [({T0: [3, 1], T1: [3, 1], TopicPartition("u", 7): [3, 1]}, True)]
    assert [line.split() for line in said.out.splitlines()][1:] == [
        ["t/0", "begun"],
        ["t/1", "begun"],
        ["u/7", "begun"],
    ]


def test_a_plan_is_what_kafka_s_tool_reads(
    cluster: Cluster, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    plan = tmp_path / "plan.json"
    parts = [
        {"topic": "t", "partition": 1, "replicas": [2, 0], "log_dirs": ["any", "any"]},
        {"topic": "t", "partition": 0, "replicas": [1]},
    ]
    plan.write_text(json.dumps({"version": 1, "partitions": parts}))
    assert run(capfd, "move", "--plan", str(plan)).status == 0
    assert cluster.asked == [({T1: [2, 0], T0: [1]}, False)]


def test_a_plan_may_name_the_directories_in_which_the_replicas_are(
    cluster: Cluster, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Kafka's tool prints them before a move. Broker 1 has the replica; 2 has one directory."""
    plan = tmp_path / "plan.json"
    part = {"topic": "t", "partition": 0, "replicas": [1, 2, 3], "log_dirs": ["/d", "/d", "any"]}
    later = {"topic": "t", "partition": 1, "replicas": [2], "log_dirs": ["/d"]}
    plan.write_text(json.dumps({"version": 1, "partitions": [part, later]}))
    assert run(capfd, "move", "--plan", str(plan)).status == 0
    assert cluster.asked == [({T0: [1, 2, 3], T1: [2]}, False)]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "is no JSON"),
        ("[]", 'must be {"partitions"'),
        ('{"partitions": [{"topic": "t"}]}', "found"),
        ('{"partitions": [{"topic": "t", "partition": 0, "replicas": ["1"]}]}', "found"),
        (
            '{"partitions": [{"topic": "t", "partition": 0, "replicas": [1]},'
            ' {"topic": "t", "partition": 0, "replicas": [2]}]}',
            "names t/0 twice",
        ),
        ('{"version": 2, "partitions": []}', "only version 1 is known"),
        ('{"version": "1", "partitions": []}', 'has version "1"'),
        (
            '{"partitions": [{"topic": "t", "partition": 0, "replicas": [1],'
            ' "log_dirs": ["/disk2"]}]}',
            "into the log directory '/disk2', and the replica is in '/d': a move can't choose",
        ),
        (
            '{"partitions": [{"topic": "t", "partition": 1, "replicas": [9], "log_dirs": ["/d"]}]}',
            "into the log directory '/d', and the broker has []",
        ),
        (
            '{"partitions": [{"topic": "t", "partition": 0, "replicas": [1], "log_dirs": [1]}]}',
            "one log directory for each of the 1 replicas of t/0",
        ),
        (
            '{"partitions": [{"topic": "t", "partition": 0, "replicas": [1],'
            ' "log_dirs": ["any", "any"]}]}',
            "one log directory for each of the 1 replicas of t/0",
        ),
        (
            '{"partitions": [{"topic": "t", "partition": 0, "replicas": [1], "log_dirs": "any"}]}',
            'found "any"',
        ),
    ],
)
def test_a_wrong_plan_is_wrong_usage(
    cluster: Cluster,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    content: str,
    told: str,
) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text(content)
    said = run(capfd, "move", "--plan", str(plan))
    assert (said.status, cluster.asked) == (2, [])
    assert told in said.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("move",),
        ("move", "t"),
        ("move", "--to", "1"),
        ("move", "t", "--to", "1,x"),
        ("move", "t", "--to", ""),
        ("move", "t", "--to", "1", "--plan", "f"),
        ("move", "--plan", "/nowhere/plan.json"),
        ("move", "t/x", "--to", "1"),
        ("cancel",),
        ("cancel", "t", "--all"),
    ],
)
def test_wrong_usage_asks_for_nothing(
    cluster: Cluster, capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert (run(capfd, *arguments).status, cluster.asked) == (2, [])


def test_a_refusal_is_told_with_its_code(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    cluster.refusals[T1] = InvalidReplicaAssignmentError("broker 9 is not registered")
    said = run(capfd, "move", "t", "--to", "9")
    assert said.status == 1
    assert "broker 9 is not registered [INVALID_REPLICA_ASSIGNMENT]" in said.out
    assert "1 of 2" in said.err
    said = run(capfd, "move", "t", "--to", "9", "-o", "json")
    assert [one["error"] for one in said.json] == [None, "INVALID_REPLICA_ASSIGNMENT"]


def test_the_command_waits_for_the_end(cluster: Cluster, capfd: pytest.CaptureFixture[str]) -> None:
    cluster.moves = [{T0: MOVE, T1: MOVE}, {T1: MOVE}, {}]
    cluster.replicas, cluster.adding = (3, 1), (3,)
    said = run(capfd, "move", "t", "--to", "3,1", "--wait", "60")
    assert (said.status, said.out.splitlines()[-1]) == (0, "2 moved")
    assert cluster.moves == [{}]


def test_a_move_that_was_cancelled_meanwhile_has_not_moved(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    cluster.moves = [{T0: MOVE, T1: MOVE}, {}]
    said = run(capfd, "move", "t", "--to", "3,1", "--wait", "60")
    assert said.status == 1
    assert "2 of 2 moves were cancelled or replaced meanwhile: t/0 has other replicas" in said.err
    assert "moved" not in said.out


def test_moves_that_go_on_after_the_wait_are_told(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    cluster.moves = [{T0: MOVE}]
    cluster.replicas, cluster.adding = (3, 1), (3,)
    said = run(capfd, "move", "t", "--to", "3,1", "--wait", "0.01")
    assert said.status == 1
    assert "1 of 2 moves goes on after 0.01 s" in said.err


def test_a_move_to_the_replicas_that_are_there_has_nothing_to_do(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    said = run(capfd, "move", "t/0", "--to", "1,2", "--wait", "9")
    assert [line.split(maxsplit=1) for line in said.out.splitlines()[1:]] == [
        ["t/0", "has these replicas already"]
    ]
    assert (said.status, said.err) == (0, "")
    [document] = run(capfd, "move", "t/0", "--to", "1,2", "-o", "json").json
    assert (document["done"], document["error"]) == ("has these replicas already", None)
    cluster.adding = (2,)
    assert "begun" in run(capfd, "move", "t/0", "--to", "1,2").out, "another throttle, perhaps"
    cluster.adding = ()
    assert "begun" in run(capfd, "move", "t/0", "--to", "2,1").out, "another preferred leader"


def test_moves_are_listed_with_the_bytes_that_were_copied(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    cluster.moves = [{T0: MOVE}]
    header, row = run(capfd, "list-moves", "-i", "0.1").out.splitlines()
    assert header.split("  ")[-3:] == ["throttle", "speed", "time left"]
    assert row.split() == [
        *("t/0", "3,1", "3", "2", "1,2", "250", "B", "of", "1000", "B", "(25", "%)"),
        *("-", "0", "B/s", "nothing", "copied", "for", "1", "s"),
    ]
    cluster.moves = [{T0: MOVE._replace(throttle=10 << 20)}]
    assert run(capfd, "list-moves", "-i", "0.1", "-o", "json").json == [
        {
            "topic": "t",
            "partition": 0,
            "target": [3, 1],
            "adding": [3],
            "removing": [2],
            "isr": [1, 2],
            "leader": 1,
            "copied_bytes": 250,
            "total_bytes": 1000,
            "throttle": 10 << 20,
            "bytes_per_second": None,
            "seconds_left": 750 / (10 << 20),
            "hindrance": None,
        }
    ]


def test_a_move_to_a_broker_that_is_not_alive_is_listed_with_what_to_do(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    cluster.moves, cluster.dead = [{T0: MOVE}], {3}
    told = "broker 3 is not alive: start it, or cancel the move"
    assert run(capfd, "list-moves", "-i", "0.1").out.rstrip().endswith(told)
    [document] = run(capfd, "list-moves", "-i", "0.1", "-o", "json").json
    assert (document["hindrance"], document["seconds_left"]) == (told, None)


def test_nothing_is_copied_without_a_leader(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    cluster.moves = [{T0: MOVE._replace(isr=(), leader=-1)}]
    _, row = run(capfd, "list-moves", "-i", "0.1").out.splitlines()
    assert "all copied" not in row
    assert row.split()[4:] == ["-", "-", "-", "-", "no", "leader:", "nothing", "is", "copied"]
    [found] = run(capfd, "list-moves", "-i", "0.1", "-o", "json").json
    unknown = ("copied_bytes", "total_bytes", "bytes_per_second", "seconds_left")
    assert [found[name] for name in unknown] == [None] * 4


def test_a_leader_that_does_not_answer_has_not_copied_all(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    del cluster.sizes[1]
    cluster.moves = [{T0: MOVE}]
    _, row = run(capfd, "list-moves", "-i", "0.1").out.splitlines()
    assert row.endswith("the leader does not tell its bytes")


def test_moves_are_watched_until_nothing_is_moved(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    looks = [{T0: MOVE}, {T0: MOVE}, {T0: MOVE}, {}]
    cluster.moves = list(looks)
    said = run(capfd, "list-moves", "--watch", "-i", "0.1")
    lines = said.out.splitlines()
    assert [line.split()[0] for line in lines] == ["partition", "t/0"] * 2 + ["nothing"]
    cluster.moves = list(looks)
    said = run(capfd, "list-moves", "--watch", "-i", "0.1", "-o", "json")
    documents = [json.loads(line) for line in said.out.splitlines()]
    assert [len(one) for one in documents] == [1, 1, 0]


@pytest.mark.parametrize(
    ("given", "throttle"),
    [("500000", 500_000), ("10MiB", 10 << 20), ("1.5 kB", 1500), ("64KiB/s", 64 << 10)],
)
def test_a_move_has_a_throttle(
    cluster: Cluster, capfd: pytest.CaptureFixture[str], given: str, throttle: int
) -> None:
    assert run(capfd, "move", "t", "--to", "3,1", "--throttle", given).status == 0
    assert cluster.throttle == throttle


@pytest.mark.parametrize("given", ["0", "0.1", "-5", "fast", "10 miles", "1e6", "9" * 30])
def test_a_throttle_is_a_size(
    cluster: Cluster, capfd: pytest.CaptureFixture[str], given: str
) -> None:
    said = run(capfd, "move", "t", "--to", "3,1", "--throttle", given)
    assert (said.status, cluster.asked) == (2, [])
    assert "--throttle is a size of 1 byte or more, as 500000, 64KiB or 10MiB; not" in said.err


def test_without_moves_the_list_is_empty(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(capfd, "list-moves", "-o", "json").json == []
    assert run(capfd, "list-moves").out == "nothing is being moved\n"
    for arguments in (("cancel", "--all"), ("cancel", "t")):
        said = run(capfd, *arguments)
        assert (said.status, said.out, said.err) == (0, "nothing is being moved\n", "")


def test_a_move_that_is_not_waited_for_says_where_it_is_shown(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    assert "`quorate partition list-moves` shows" in run(capfd, "move", "t", "--to", "3,1").err
    cluster.replicas, cluster.adding = (3, 1), (3,)
    for more in (("-o", "json"), ("--wait", "9")):
        assert run(capfd, "move", "t", "--to", "3,1", *more).err == ""


def test_another_number_of_replicas_is_told_and_too_few_are_warned_of(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    said = run(capfd, "move", "t/0", "--to", "3,1,2")
    assert said.out.splitlines()[1].split() == ["t/0", "begun,", "2", "→", "3", "replicas"]
    assert "warning" not in said.err
    said = run(capfd, "move", "t", "--to", "3")
    assert [line.split()[1:] for line in said.out.splitlines()[1:]] == [
        ["begun,", "2", "→", "1", "replicas"]
    ] * 2
    told = "warning: t: min.insync.replicas=2 is above the number of replicas, and counts as 1"
    assert said.err.count(told) == 1
    cluster.min_isr = "1"
    assert "warning" not in run(capfd, "move", "t", "--to", "3").err


def test_the_same_move_with_another_throttle_changes_no_number_of_replicas(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    cluster.replicas, cluster.adding = (1, 2, 3), (3,)
    said = run(capfd, "move", "t/0", "--to", "2,3", "--throttle", "20MiB")
    assert said.out.splitlines()[1].split() == ["t/0", "begun"]
    said = run(capfd, "move", "t/0", "--to", "1,2,3")
    assert said.out.splitlines()[1].split() == ["t/0", "begun,", "2", "→", "3", "replicas"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("t",), "give the brokers of the replicas, as --to 3,4,5, or give --plan FILE"),
        (("--to", "1"), "name one or more TOPIC or TOPIC/PARTITION, or give --plan FILE"),
        (("--to", "1", "--plan", "f"), "give --plan or --to, not both"),
        (("t/1", "--plan", "f"), "give --plan or the partition 't/1', not both"),
    ],
)
def test_what_is_missing_or_too_much_is_named(
    cluster: Cluster, capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], told: str
) -> None:
    said = run(capfd, "move", *arguments)
    assert (said.status, cluster.asked) == (2, [])
    assert told in said.err


def test_moves_are_cancelled_by_name_or_all(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    cluster.moves = [{T0: MOVE}]
    assert run(capfd, "cancel", "t").status == 0
    assert run(capfd, "cancel", "--all").status == 0
    assert run(capfd, "cancel", "t/1").status == 0
    assert [targets for targets, _ in cluster.asked] == [{T0: None}, {T0: None}, {T1: None}]


def test_nothing_to_cancel_is_told_and_is_no_failure(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    cluster.refusals[T0] = NoReassignmentInProgressError("none is moved")
    said = run(capfd, "cancel", "t/0")
    assert said.status == 0
    assert "none is moved [NO_REASSIGNMENT_IN_PROGRESS]" in said.out
    cluster.moves = [{}]
    assert run(capfd, "cancel", "--all", "-o", "json").json == []
