"""quorate cluster rebalance: the plan that it prints, what it begins, and its exit status."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quorate import (
    Admin,
    BrokerDescription,
    ClusterDescription,
    LogDirDescription,
    PartitionDescription,
    Reassignment,
    ReplicaSize,
    TopicDescription,
    TopicPartition,
)
from quorate.errors import InvalidReplicaAssignmentError, QuorateError
from tests.cluster.support import Answer, run_here

T0 = TopicPartition("t", 0)


def to(*target: int) -> Reassignment:
    """A move from broker 0 to these."""
    return Reassignment((*target, 0), target, (0,), (0,), 0)


def topic(name: str, topic_id: str, *replicas: Sequence[int]) -> TopicDescription:
    return TopicDescription(
        name,
        topic_id,
        tuple(
            PartitionDescription(number, ids[0], 0, tuple(ids), tuple(ids))
            for number, ids in enumerate(replicas)
        ),
    )


class Cluster:
    """Two brokers; one of them has both partitions, 100 and 300 bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[Any, Any]] = []
        self.moving: dict[TopicPartition, Reassignment] = {}
        self.throttle = -1
        self.brokers = tuple(BrokerDescription(b, "", f"h{b}", f"h{b}:1", False, b) for b in (0, 1))
        self.topics = {"t": topic("t", "id", [0], [0])}
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

    async def list_reassignments(
        self, partitions: Iterable[TopicPartition] | None = None
    ) -> dict[TopicPartition, Reassignment]:
        if partitions is None:
            return self.moving
        return {key: self.moving[key] for key in partitions if key in self.moving}

    async def describe_cluster(self) -> ClusterDescription:
        return ClusterDescription("c", 100, self.brokers, image_offset=77)

    async def describe_topics(self) -> dict[str, TopicDescription]:
        return self.topics

    async def describe_log_dirs(self) -> list[LogDirDescription]:
        sizes = tuple(ReplicaSize("t", n, 100 + 200 * n, 0, 9, True) for n in (0, 1))
        return [LogDirDescription(0, "/d", "", "", 9, sizes)]

    async def reassign_partitions(
        self,
        targets: Mapping[TopicPartition, Sequence[int]],
        *,
        expected: Mapping[TopicPartition, Sequence[int]],
        throttle: int = 0,
    ) -> dict[TopicPartition, QuorateError | None]:
        self.throttle = throttle
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
        "by the metadata of offset 77: 1 partition changes, 1 replica is copied: 100 B",
        "nothing was moved: --apply begins these moves",
    ]
    assert cluster.asked == []


def test_a_plan_is_applied_to_the_replicas_that_it_was_made_from(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    said = run(capfd, "--apply")
    assert said.status == 0
    assert said.out.splitlines()[-1].startswith("1 move begun")
    assert cluster.asked == [({T0: [1]}, {T0: (0,)})]


def test_a_cluster_that_has_changed_refuses_the_plan(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    cluster.refusal = InvalidReplicaAssignmentError("the replicas are [1] now")
    said = run(capfd, "--apply")
    assert said.status == 1
    assert "1 of 1 move was refused; t/0: the replicas are [1] now" in said.err
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
    cluster.moving = {T0: to(5)}
    said = run(capfd, "--apply")
    assert (said.status, cluster.asked) == (1, [])
    assert "1 partition is being moved" in said.err


def test_dry_run_and_apply_together_are_wrong_usage(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(capfd, "--apply", "--dry-run").status == 2


def test_the_moves_of_a_plan_have_a_throttle(
    cluster: Cluster, capfd: pytest.CaptureFixture[str], saved: Path
) -> None:
    for more in ([], ["--plan", str(saved)]):
        assert run(capfd, "--apply", "--throttle", "10MiB", *more).status == 0
        assert cluster.throttle == 10 << 20
        assert run(capfd, "--apply", *more).status == 0
        assert cluster.throttle == 0
    asked = len(cluster.asked)
    assert run(capfd, "--throttle", "10MiB").status == 2
    assert run(capfd, "--apply", "--throttle", "fast").status == 2
    assert len(cluster.asked) == asked


# A plan of an earlier time.


@pytest.fixture
def saved(cluster: Cluster, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Path:
    """The plan of the cluster: t/0 goes from broker 0 to broker 1."""
    path = tmp_path / "plan.json"
    path.write_text(run(capfd, "-o", "json").out)
    return path


def same(cluster: Cluster) -> None:
    """Change nothing."""


def other_topics_and_leaders(cluster: Cluster) -> None:
    """t/1 got replicas, t/0 another leader and ISR; another topic, and a third broker."""
    partitions = (
        PartitionDescription(0, -1, 9, (0,), ()),
        PartitionDescription(1, 1, 3, (1, 0), (1,)),
    )
    cluster.topics = {"t": TopicDescription("t", "id", partitions), "u": topic("u", "x", [1])}
    new = BrokerDescription(2, "R9", "h2", "h2:1", False, 2)
    cluster.brokers = (*cluster.brokers, new)


def other_partitions_move(cluster: Cluster) -> None:
    cluster.moving = {TopicPartition("t", 1): to(5)}


def giver_is_dead(cluster: Cluster) -> None:
    """Its replica is made anew from the others; it takes none."""
    cluster.brokers = (replace(cluster.brokers[0], fenced=True), cluster.brokers[1])


@pytest.mark.parametrize(
    "change", [same, other_topics_and_leaders, other_partitions_move, giver_is_dead]
)
def test_a_saved_plan_is_carried_out_whatever_changed_that_it_does_not_depend_on(
    cluster: Cluster,
    capfd: pytest.CaptureFixture[str],
    saved: Path,
    change: Callable[[Cluster], None],
) -> None:
    change(cluster)
    said = run(capfd, "--apply", "--plan", str(saved))
    assert (said.status, said.out) == (
        0,
        "1 move begun: `quorate partition list-moves` shows what goes on\n",
    )
    assert cluster.asked == [({T0: [1]}, {T0: [0]})]


def begun(cluster: Cluster) -> None:
    """A part of the plan was begun before, and the answer was lost."""
    cluster.moving = {T0: to(1)}
    cluster.topics = {"t": topic("t", "id", [1, 0], [0])}


def ended(cluster: Cluster) -> None:
    cluster.topics = {"t": topic("t", "id", [1], [0])}


def test_a_saved_plan_that_is_carried_out_already_says_so(
    cluster: Cluster, capfd: pytest.CaptureFixture[str], saved: Path
) -> None:
    """Also if its brokers have changed meanwhile: there is nothing left to do."""
    ended(cluster)
    taker_is(rack="R7")(cluster)
    said = run(capfd, "--apply", "--plan", str(saved))
    assert (said.status, said.out) == (0, "the plan is carried out already\n")
    assert run(capfd, "--apply", "--plan", str(saved), "-o", "json").json == []
    assert cluster.asked == []


def test_a_saved_plan_that_was_begun_before_goes_on(
    cluster: Cluster, capfd: pytest.CaptureFixture[str], saved: Path
) -> None:
    begun(cluster)
    assert run(capfd, "--apply", "--plan", str(saved)).status == 0
    assert cluster.asked == [({T0: [1]}, {T0: [0]})]


def deleted(cluster: Cluster) -> None:
    cluster.topics = {}


def made_again(cluster: Cluster) -> None:
    cluster.topics = {"t": topic("t", "other", [0], [0])}


def replicas_changed(cluster: Cluster) -> None:
    cluster.topics = {"t": topic("t", "id", [0, 1], [0])}


def is_moving(cluster: Cluster) -> None:
    cluster.moving = {T0: to(5)}


def taker_is(**fields: Any) -> Callable[[Cluster], None]:
    def change(cluster: Cluster) -> None:
        cluster.brokers = (cluster.brokers[0], replace(cluster.brokers[1], **fields))

    return change


def taker_is_gone(cluster: Cluster) -> None:
    cluster.brokers = cluster.brokers[:1]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (deleted, "topic 't' was deleted."),
        (made_again, "topic 't' was deleted and made again"),
        (replicas_changed, "t/0 has the replicas [0, 1], not [0]"),
        (is_moving, "t/0 is being moved to [5]"),
        (taker_is(fenced=True), "broker 1 is not alive"),
        (taker_is(drained=True), "broker 1 is drained"),
        (taker_is(rack="R7"), "broker 1 is in rack 'R7' on host 'h1', not in '' on 'h1'"),
        (taker_is(host="h0"), "broker 1 is in rack '' on host 'h0', not in '' on 'h1'"),
        (taker_is_gone, "broker 1 was unregistered"),
    ],
)
def test_a_saved_plan_is_refused_as_a_whole_if_what_it_depends_on_has_changed(
    cluster: Cluster,
    capfd: pytest.CaptureFixture[str],
    saved: Path,
    change: Callable[[Cluster], None],
    told: str,
) -> None:
    change(cluster)
    said = run(capfd, "--apply", "--plan", str(saved))
    assert (said.status, said.out, cluster.asked) == (1, "", [])
    assert "since the plan was made (metadata offset 77, now 77), and nothing was moved" in said.err
    assert told in said.err


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"partitions": [{"topic": "t", "partition": 0, "replicas": [1]}]}',
        '{"image_offset": 7, "brokers": [], "topic_ids": {"t": "id"}, "partitions":'
        ' [{"topic": "t", "partition": 0, "replicas": [1], "expected": [0]}]}',
        '{"image_offset": 7, "brokers": [], "topic_ids": {}, "partitions":'
        ' [{"topic": "t", "partition": true, "replicas": [1], "expected": [0]}]}',
    ],
)
def test_a_file_that_is_no_plan_is_wrong_usage(
    cluster: Cluster, capfd: pytest.CaptureFixture[str], tmp_path: Path, text: str
) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text)
    said = run(capfd, "--apply", "--plan", str(path))
    assert (said.status, cluster.asked) == (2, [])
    assert str(path) in said.err


def test_a_plan_without_apply_and_a_file_that_is_not_there_are_wrong_usage(
    cluster: Cluster, capfd: pytest.CaptureFixture[str], saved: Path
) -> None:
    assert run(capfd, "--plan", str(saved)).status == 2
    assert run(capfd, "--apply", "--plan", "/no/such").status == 2


def test_racks_and_hosts_with_several_brokers_are_shown_each(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    cluster.brokers = tuple(
        BrokerDescription(b, "R1" if b < 2 else "R2", f"h{b // 2}", f"h{b}:1", False, b)
        for b in range(3)
    )
    cluster.topics = {"t": topic("t", "id", [0, 1], [1, 0])}
    said = run(capfd)
    lines = [" ".join(line.split()) for line in said.out.splitlines()]
    assert "rack brokers replicas preferred leaders bytes" in lines
    assert "R1 2 4 -> 2 2 -> 1 800 B -> 400 B" in lines
    assert "R2 1 0 -> 2 0 -> 1 0 B -> 400 B" in lines
    assert "R1 h0 2 4 -> 2 2 -> 1 800 B -> 400 B" in lines
    assert (
        "fewest to most of a broker: replicas 0 to 2 -> 1 to 2, preferred leaders 0 to 1" in lines
    )


def test_what_stays_on_dead_and_drained_brokers_is_told(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    dead, other = cluster.brokers
    third = BrokerDescription(2, "", "h2", "h2:1", False, 2)
    cluster.brokers = (replace(dead, fenced=True), replace(other, drained=True), third)
    cluster.topics = {"t": topic("t", "id", [0, 1, 2], [2, 0])}
    said = run(capfd)
    assert said.status == 0
    assert "broker 0 is not alive, and keeps its 2 replicas" in said.out
    assert "broker 1 is drained, and keeps 1 replica: each broker that is alive and" in said.out


def test_that_no_broker_can_take_replicas_is_told_once(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    cluster.brokers = tuple(replace(one, drained=True) for one in cluster.brokers)
    said = run(capfd)
    told = "all brokers are drained or not alive, so no replica can move: `quorate cluster undrain"
    assert (said.status, said.out.count("drained"), told in said.out) == (0, 1, True)


def test_bytes_that_are_not_known_are_not_shown_as_none(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    """The only replica of t/2 is on a dead broker: its bytes were shown as 0."""
    dead = BrokerDescription(2, "", "h2", "h2:1", True, 2)
    cluster.brokers = (*cluster.brokers, dead)
    cluster.topics = {"t": topic("t", "id", [0], [1], [2])}
    assert ["2", "-", "h2", "1", "1", "-"] in [line.split() for line in run(capfd).out.splitlines()]
    document = run(capfd, "-o", "json").json
    assert [one["after"]["size"] for one in document["brokers"]] == [100, 300, None]
    assert document["skew"]["size"]["after"] == {"min": 100, "max": 300}, "of those that take some"


# `quorate topic alter -r`.


@pytest.fixture
def asked_for(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What `topic alter` asks for about partitions and settings."""
    asked: list[tuple[Any, ...]] = []

    async def create_partitions(name: str, count: int, *, validate_only: bool = False) -> None:
        asked.append(("partitions", count, validate_only))

    async def alter_configs(name: str, **changes: Any) -> tuple[str, ...]:
        asked.append(("configs", changes))
        return ()

    async def describe_topics(names: Sequence[str] | None = None) -> dict[str, TopicDescription]:
        return cluster.topics

    monkeypatch.setattr(Admin, "create_partitions", staticmethod(create_partitions))
    monkeypatch.setattr(Admin, "alter_configs", staticmethod(alter_configs))
    monkeypatch.setattr(Admin, "describe_topics", staticmethod(describe_topics))
    return asked


def alter(capfd: pytest.CaptureFixture[str], *arguments: str) -> Answer:
    return run_here(["topic", "alter", "t", *arguments], capfd, b"")


def test_a_factor_that_is_out_of_reach_is_refused_before_anything_is_changed(
    cluster: Cluster, capfd: pytest.CaptureFixture[str], asked_for: list[tuple[Any, ...]]
) -> None:
    said = alter(capfd, "-p", "5", "-r", "3", "-c", "retention.ms=1")
    assert said.status == 1
    assert (
        "t/0 has replicas on brokers [0], and brokers [0, 1] are alive and not drained" in said.err
    )
    assert asked_for == [("partitions", 5, True)], "it only validated"
    assert cluster.asked == []


def test_a_factor_is_not_changed_while_partitions_of_the_topic_move(
    cluster: Cluster, capfd: pytest.CaptureFixture[str], asked_for: list[tuple[Any, ...]]
) -> None:
    cluster.moving = {T0: to(5)}
    said = alter(capfd, "-r", "2")
    assert (said.status, cluster.asked) == (1, [])
    assert "partitions [0] of topic 't' are being moved" in said.err
    assert "quorate partition cancel" in said.err
    cluster.moving = {TopicPartition("u", 0): to(5)}
    assert alter(capfd, "-r", "2").status == 0
    keys = [T0, TopicPartition("t", 1)]
    assert cluster.asked == [({key: [0, 1] for key in keys}, dict.fromkeys(keys, (0,)))]


def test_a_lower_factor_keeps_what_has_all_records_and_what_serves(
    cluster: Cluster, capfd: pytest.CaptureFixture[str], asked_for: list[tuple[Any, ...]]
) -> None:
    """t/0 has no leader, and its ELR is broker 1; the disk of t/1 on broker 0 has failed."""
    partitions = (
        PartitionDescription(0, -1, 9, (0, 1), (), elr=(1,), offline=(1,)),
        PartitionDescription(1, 1, 9, (0, 1), (0, 1), offline=(0,)),
    )
    cluster.topics = {"t": TopicDescription("t", "id", partitions)}
    assert alter(capfd, "-r", "1").status == 0
    keys = [T0, TopicPartition("t", 1)]
    assert cluster.asked == [({key: [1] for key in keys}, dict.fromkeys(keys, (0, 1)))]


def test_a_factor_that_the_topic_has_already_changes_nothing(
    cluster: Cluster, capfd: pytest.CaptureFixture[str], asked_for: list[tuple[Any, ...]]
) -> None:
    said = alter(capfd, "-r", "1")
    assert (said.status, said.out) == (0, "t: each partition has 1 replica already\n")
    assert cluster.asked == []


@pytest.mark.usefixtures("cluster", "asked_for")
def test_what_was_altered_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ("-p", "5", "-r", "2", "-c", "retention.ms=1", "--remove", "segment.ms")
    said = alter(capfd, *arguments)
    assert said.out.splitlines() == [
        "t: set retention.ms = 1",
        "t: segment.ms has its default again",
        "t: it has 5 partitions now",
        "t: 2 moves begun, after which each partition has 2 replicas: `quorate partition"
        " list-moves` shows what goes on",
    ]
    assert alter(capfd, *arguments, "-o", "json").json == {
        "altered": "t",
        "partitions": 5,
        "replication_factor": 2,
        "moves_begun": 2,
    }
