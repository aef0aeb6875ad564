"""Moves that cannot be, asked for in three ways: each is refused, with what is, and none begins."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quorate import ClusterDescription, TopicPartition
from quorate.sync import Admin
from quorate_broker.listeners.kafka import errors as codes
from quorate_broker.listeners.kafka.codec import RequestHeader
from quorate_broker.listeners.kafka.messages import alter_partition_reassignments as alter
from quorate_broker.listeners.kafka.versions import ALTER_PARTITION_REASSIGNMENTS
from quorate_testing import EmbeddedCluster
from tests.cluster.support import run_here
from tests.harness.kafka_messages import decode_response, encode_request

TOPIC = "placed"
KEY = TopicPartition(TOPIC, 0)
#: Brokers 0 and 1 have the replicas. Broker 2 is drained, 3 is fenced, and 4 could take one.
REPLICAS = [0, 1]
#: Name, target, and what the refusal says: what was asked, what was found.
BAD_TARGETS: list[tuple[str, list[int], str]] = [
    ("empty", [], "the target names no broker"),
    ("a broker twice", [0, 1, 1], "the target [0, 1, 1] names a broker twice"),
    ("unknown", [0, 9], "names brokers [9], which are not registered; [0, 1, 2, 3, 4] are"),
    ("drained", [0, 2], "broker 2 of the target [0, 2] is drained"),
    ("fenced", [0, 3], "broker 3 of the target [0, 3] is fenced"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[EmbeddedCluster]:
    with EmbeddedCluster(brokers=5) as cluster:
        with Admin(bootstrap_servers=cluster.bootstrap_servers) as admin:
            admin.create_topic(TOPIC, assignments=[REPLICAS])
            admin.drain_broker(2)
            cluster.crash_broker(3)
            deadline = time.monotonic() + 60
            while not next(b for b in admin.describe_cluster().brokers if b.id == 3).fenced:
                assert time.monotonic() < deadline, "broker 3 is fenced"
                time.sleep(0.05)
        yield cluster


@pytest.fixture
def admin(cluster: EmbeddedCluster) -> Iterator[Admin]:
    with Admin(bootstrap_servers=cluster.bootstrap_servers) as admin:
        yield admin


@pytest.fixture(autouse=True)
def _nothing_changes(admin: Admin) -> Iterator[None]:
    def found() -> tuple[int, Any]:
        described: ClusterDescription = admin.describe_cluster()
        return described.image_offset, admin.describe_topics([TOPIC])[TOPIC].partitions

    before = found()
    yield
    assert found() == before
    assert admin.list_reassignments() == {}


@pytest.mark.parametrize(
    ("target", "told"), [row[1:] for row in BAD_TARGETS], ids=[row[0] for row in BAD_TARGETS]
)
class TestTargets:
    def test_by_the_api(self, admin: Admin, target: list[int], told: str) -> None:
        error = admin.reassign_partitions({KEY: target})[KEY]
        assert type(error).__name__ == "InvalidReplicaAssignmentError"
        assert told in str(error)

    def test_by_the_command(
        self,
        cluster: EmbeddedCluster,
        capfd: pytest.CaptureFixture[str],
        tmp_path: Path,
        target: list[int],
        told: str,
    ) -> None:
        part = {"topic": TOPIC, "partition": 0, "replicas": target}
        said = planned(cluster, capfd, tmp_path, part)
        assert said.status == 1
        assert told in said.out
        assert "INVALID_REPLICA_ASSIGNMENT" in said.out

    def test_by_the_kafka_listener(
        self, cluster: EmbeddedCluster, target: list[int], told: str
    ) -> None:
        part = alter.ReassignablePartition(0, target)
        request = alter.AlterPartitionReassignmentsRequest(
            topics=[alter.ReassignableTopic(TOPIC, [part])]
        )
        found = kafka(cluster, ALTER_PARTITION_REASSIGNMENTS, 1, request)
        assert found.error_code == codes.NONE
        ((result,),) = [topic.partitions for topic in found.responses]
        assert result.error_code == codes.INVALID_REPLICA_ASSIGNMENT
        assert told in result.error_message


def test_a_plan_of_yesterday_is_refused_by_the_api(admin: Admin) -> None:
    error = admin.reassign_partitions({KEY: [0, 4]}, expected={KEY: [1, 0]})[KEY]
    assert "the replicas are [0, 1] now, and the plan was made when they were [1, 0]" in str(error)


def test_a_plan_of_yesterday_is_refused_by_the_command(
    cluster: EmbeddedCluster, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The plan is one that `quorate cluster rebalance -o json` has printed."""
    part = {"topic": TOPIC, "partition": 0, "replicas": [0, 4], "expected": [1, 0]}
    said = planned(cluster, capfd, tmp_path, part)
    assert said.status == 1
    assert "the replicas are [0, 1] now, and the plan was made when they were [1, 0]" in said.out


def test_a_drain_of_an_unknown_broker_is_refused(
    cluster: EmbeddedCluster, capfd: pytest.CaptureFixture[str]
) -> None:
    said = run_here(["cluster", "drain", "9", "--bootstrap", cluster.bootstrap_servers], capfd, b"")
    assert said.status == 1
    assert "broker 9 is not registered; [0, 1, 2, 3, 4] are" in said.err


def planned(
    cluster: EmbeddedCluster,
    capfd: pytest.CaptureFixture[str],
    folder: Path,
    part: dict[str, object],
) -> Any:
    plan = folder / "plan.json"
    plan.write_text(json.dumps({"partitions": [part]}))
    arguments = ["partition", "move", "--plan", str(plan)]
    return run_here([*arguments, "--bootstrap", cluster.bootstrap_servers], capfd, b"")


def kafka(cluster: EmbeddedCluster, api_key: int, version: int, request: Any) -> Any:
    """Return the answer to one request on a connection of its own."""
    host, _, port = cluster.kafka_bootstrap_servers.partition(",")[0].rpartition(":")
    data = b"".join(encode_request(RequestHeader(api_key, version, 1, "me"), request))
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(struct.pack(">i", len(data)) + data)
        with connection.makefile("rb") as answers:
            size = int.from_bytes(answers.read(4), "big")
            return decode_response(api_key, version, answers.read(size))[1]
