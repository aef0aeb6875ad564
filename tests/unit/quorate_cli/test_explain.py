"""quorate explain, and what topic describe says of replicas that are not in the ISR."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from quorate import (
    Admin,
    OutOfSyncReplica,
    PartitionDescription,
    PartitionEvent,
    PartitionExplanation,
    TopicDescription,
)
from tests.cluster.support import Answer, run_here

OUT = OutOfSyncReplica(2, 1_700_000_003_000, 12_000, "it was fenced: no heartbeat for 3.0 s")
STATE = PartitionDescription(3, 1, 5, (1, 2, 3), (1, 3), (2,), out_of_sync=(OUT,))
MADE = PartitionEvent(
    7, 1_700_000_000_000, "the controller did, because it was asked to", ("topic_created",),
    1, 0, (1, 2, 3), (), (1, 2, 3),
)  # fmt: skip
FOUND = PartitionExplanation("orders", STATE, 2, (MADE,), complete=True)


class Cluster:
    """Stands for the cluster: partition orders/3 has one replica out of sync."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[str, int]] = []
        self.found = FOUND
        monkeypatch.setattr(Admin, "start", self._nothing)
        monkeypatch.setattr(Admin, "explain_partition", self._explain)
        monkeypatch.setattr(Admin, "describe_topics", self._describe)
        monkeypatch.setattr(Admin, "describe_log_dirs", self._log_dirs)

    async def _nothing(self) -> None:
        return None

    async def _explain(self, topic: str, partition: int) -> PartitionExplanation:
        self.asked.append((topic, partition))
        return self.found

    async def _describe(self, names: Iterable[str]) -> dict[str, TopicDescription]:
        return {name: TopicDescription(name, "id", (STATE,)) for name in names}

    async def _log_dirs(self, _: Iterable[str]) -> list[Any]:
        return []


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(monkeypatch)


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> Answer:
    return run_here([*arguments], capfd, b"")


def test_a_partition_is_explained_in_sentences(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    said = run(capfd, "explain", "orders/3")
    assert cluster.asked == [("orders", 3)]
    assert (said.status, said.err) == (0, "")
    assert said.out.splitlines() == [
        "orders/3: broker 1 leads in leader epoch 5; replicas 1,2,3; ISR 1,3; ELR 2; min ISR 2",
        "broker 2: out of the ISR since 2023-11-14T22:13:23Z (12 s), because it was fenced: no"
        " heartbeat for 3.0 s",
        "",
        "At 2023-11-14T22:13:20Z (offset 7) the controller did, because it was asked to.",
    ]


def test_it_is_told_what_a_partition_without_a_leader_waits_for(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    state = replace(STATE, leader=-1)
    cluster.found = replace(FOUND, state=state, waits_for="waits for broker 2, which is away")
    lines = run(capfd, "explain", "orders/3").out.splitlines()
    assert lines[0].startswith("orders/3: no broker leads")
    assert lines[1] == "orders/3 waits for broker 2, which is away"


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (PartitionExplanation("orders", STATE, 2, (MADE,), False), "Earlier events are not kept."),
        (
            PartitionExplanation("orders", STATE, 2, (), False),
            "No event is kept: the metadata log was written by an older release.",
        ),
    ],
    ids=["a long history", "none"],
)
def test_what_is_not_kept_is_said(
    found: PartitionExplanation,
    line: str,
    cluster: Cluster,
    capfd: pytest.CaptureFixture[str],
) -> None:
    cluster.found = found
    assert line in run(capfd, "explain", "orders/3").out.splitlines()


def test_the_newest_events_may_be_asked_for_alone(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    events = tuple(replace(MADE, offset=offset) for offset in range(5))
    cluster.found = replace(FOUND, events=events)
    lines = run(capfd, "explain", "orders/3", "--last", "2").out.splitlines()
    assert [line.split(")")[0] for line in lines[3:]] == [
        "Earlier events are not shown.",
        "At 2023-11-14T22:13:20Z (offset 3",
        "At 2023-11-14T22:13:20Z (offset 4",
    ]
    document = run(capfd, "explain", "orders/3", "--last", "2", "-o", "json").json
    assert (len(document["events"]), document["complete"]) == (2, False)
    assert run(capfd, "explain", "orders/3", "--last", "5", "-o", "json").json["complete"]
    assert run(capfd, "explain", "orders/3", "--last", "0").status == 2


def test_the_document_has_the_state_and_the_events(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    said = run(capfd, "explain", "orders/3", "-o", "json")
    document = json.loads(said.out)
    assert document["topic"] == "orders"
    assert document["partition"] == 3
    assert (document["leader"], document["isr"], document["min_isr"]) == (1, [1, 3], 2)
    assert document["out_of_sync"][0]["reason"] == OUT.reason
    [event] = document["events"]
    assert (event["offset"], event["causes"]) == (7, ["topic_created"])
    assert document["complete"] is True


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("orders", "explain takes TOPIC/PARTITION, as in orders/0; not 'orders'"),
        (
            "invoice-2",
            "as in invoice-2/0; not 'invoice-2': did you mean invoice/2?",
        ),
        ("orders/", "a partition is TOPIC/NUMBER"),
        ("orders/x", "a partition is TOPIC/NUMBER"),
        ("orders/-1", "a partition is TOPIC/NUMBER"),
        ("/3", "a partition is TOPIC/NUMBER"),
        ("a/3/4", "a partition is TOPIC/NUMBER"),
        ("orders/99999999999", "a partition is TOPIC/NUMBER"),
    ],
)
def test_what_names_no_partition_is_wrong_usage(
    given: str, says: str, cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    said = run(capfd, "explain", given)
    assert said.status == 2
    assert says in said.err
    assert cluster.asked == []


@pytest.mark.usefixtures("cluster")
def test_a_description_tells_why_a_replica_is_out_of_the_isr(
    capfd: pytest.CaptureFixture[str],
) -> None:
    said = run(capfd, "topic", "describe", "orders")
    line = (
        "orders/3: broker 2: out of the ISR since 2023-11-14T22:13:23Z (12 s), because it was"
        " fenced: no heartbeat for 3.0 s"
    )
    assert line in said.out.splitlines()
    document = json.loads(run(capfd, "topic", "describe", "orders", "-o", "json").out)
    assert document["partitions"][0]["out_of_sync"] == [
        {
            "broker_id": 2,
            "since_ms": 1_700_000_003_000,
            "for_ms": 12_000,
            "reason": "it was fenced: no heartbeat for 3.0 s",
        }
    ]
