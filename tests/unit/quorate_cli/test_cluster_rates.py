"""What two samples of a cluster say: rates, lag, leaders, and what is not known."""

from __future__ import annotations

from typing import Any

import pytest

from quorate import (
    BrokerDescription,
    ClusterDescription,
    LogDirDescription,
    PartitionDescription,
    ReplicaSize,
    TopicDescription,
    TopicPartition,
)
from quorate_cli.cluster_rates import GroupSample, LogSample, Sample, logs_of, view, written

KEY, OTHER = TopicPartition("t", 0), TopicPartition("t", 1)
BROKERS = tuple(
    BrokerDescription(number, f"R{number}", "host", f"host:{number}", number == 3, 1)
    for number in (3, 1, 2)
)


def topic(
    *isrs: tuple[int, ...], name: str = "t", topic_id: str = "first", **fields: Any
) -> TopicDescription:
    """A topic whose replicas are all on 1, 2, 3; the first of an ISR leads."""
    partitions = tuple(
        PartitionDescription(number, isr[0] if isr else -1, 7, (1, 2, 3), isr)
        for number, isr in enumerate(isrs)
    )
    return TopicDescription(name, topic_id, partitions, **fields)


def sample(at_s: float, *topics: TopicDescription, **fields: Any) -> Sample:
    cluster = ClusterDescription("c", 100, BROKERS)
    return Sample(at_s, cluster, {one.name: one for one in topics}, **fields)


WHOLE = topic((1, 2, 3))


@pytest.mark.parametrize(
    ("before", "now", "records", "size"),
    [
        (LogSample(1, 100, 0, 10), LogSample(1, 100, 0, 10), 0, 0),
        (LogSample(1, 100, 0, 10), LogSample(1, 300, 0, 14), 4, 200),
        # retention deleted the first segment: four records of ten bytes
        (LogSample(1, 100, 0, 10), LogSample(1, 80, 6, 14), 4, 40),
        # all is deleted
        (LogSample(1, 100, 0, 10), LogSample(1, 0, 14, 14), 4, 0),
        # another broker leads, whose log has another size
        (LogSample(1, 900, 0, 10), LogSample(2, 140, 0, 14), 4, 40),
        # ... and has less
        (LogSample(1, 900, 0, 10), LogSample(2, 80, 0, 8), 0, 0),
        # compaction made the log smaller
        (LogSample(1, 900, 0, 10), LogSample(1, 200, 0, 20), 10, 100),
        (LogSample(1, 0, 0, 0), LogSample(1, 50, 0, 1), 1, 50),
    ],
)
def test_what_was_written_between_two_samples(
    before: LogSample, now: LogSample, records: int, size: int
) -> None:
    assert written(before, now) == (records, size)


def test_rates_are_by_the_seconds_between_the_samples() -> None:
    before = sample(10.0, WHOLE, logs={KEY: LogSample(1, 100, 0, 10)})
    now = sample(14.0, WHOLE, logs={KEY: LogSample(1, 500, 0, 30)})
    shown = view(before, now)
    (row,) = shown.topics
    assert (shown.seconds, row.records_per_s, row.bytes_per_s) == (4.0, 5.0, 100.0)
    assert (row.records, row.size) == (30, 500)


@pytest.mark.parametrize(
    "before",
    [
        None,
        sample(9.0, logs={KEY: LogSample(1, 100, 0, 10)}),
        sample(9.0, WHOLE),
        sample(9.0, topic((1, 2, 3), topic_id="second"), logs={KEY: LogSample(1, 100, 0, 10)}),
        sample(10.0, WHOLE, logs={KEY: LogSample(1, 100, 0, 10)}),
    ],
    ids=["the first sample", "a new topic", "no leader then", "another topic", "no time between"],
)
def test_a_rate_that_is_not_known_is_none(before: Sample | None) -> None:
    now = sample(10.0, WHOLE, logs={KEY: LogSample(1, 500, 0, 30)})
    (row,) = view(before, now).topics
    assert (row.records_per_s, row.bytes_per_s) == (None, None)
    assert row.records == 30


def test_a_partition_without_a_leader_takes_no_part_in_the_rates() -> None:
    two = topic((1, 2, 3), ())
    before = sample(0.0, two, logs={KEY: LogSample(1, 0, 0, 0), OTHER: LogSample(2, 0, 0, 0)})
    now = sample(1.0, two, logs={KEY: LogSample(1, 10, 0, 2)})
    (row,) = view(before, now).topics
    assert (row.records_per_s, row.offline, row.under_replicated) == (2.0, 1, 1)


def test_lag_counts_the_partitions_that_exist() -> None:
    gone = TopicPartition("deleted", 0)
    logs = {KEY: LogSample(1, 100, 0, 10), OTHER: LogSample(2, 100, 0, 20)}
    groups = [
        GroupSample("behind", "Stable", 2, {KEY: 4, OTHER: 20, gone: 1}),
        # committed more than the leader's log has: the offsets were of a log that was cut
        GroupSample("ahead", "Empty", 0, {KEY: 12}),
        GroupSample("nothing", "Empty", 0, {gone: 5}),
    ]
    before = sample(
        0.0,
        topic((1,), (2,)),
        logs=logs,
        groups=[GroupSample("behind", "Stable", 2, {KEY: 2, OTHER: 20}), groups[1]],
    )
    shown = view(before, sample(2.0, topic((1,), (2,)), logs=logs, groups=groups)).groups
    assert [(row.group, row.lag, row.records_per_s) for row in shown] == [
        ("behind", 6, 1.0),
        ("ahead", 0, 0.0),
        ("nothing", None, None),
    ]


def test_brokers_are_shown_with_what_they_lead_and_lack() -> None:
    shown = view(None, sample(0.0, topic((1, 2, 3), (1, 2), (2,)), disks={1: 500, 2: 0}))
    assert [
        (row.broker, row.fenced, row.leaders, row.replicas, row.in_sync, row.out_of_sync, row.size)
        for row in shown.brokers
    ] == [
        (1, False, 2, 3, 2, 1, 500),
        (2, False, 1, 3, 3, 0, 0),
        (3, True, 0, 3, 1, 2, None),
    ]


def test_partitions_in_trouble_are_named_those_without_a_leader_first() -> None:
    shown = view(None, sample(0.0, topic((1, 2, 3), (1, 2), ()), topic((2, 3), name="a")))
    assert [(row.topic, row.partition, row.leader, row.isr) for row in shown.troubled] == [
        ("t", 2, -1, ()),
        ("a", 0, 2, (2, 3)),
        ("t", 1, 1, (1, 2)),
    ]


def test_the_busiest_topic_and_the_group_that_is_most_behind_come_first() -> None:
    names = ("idle", "busy", "unknown")
    topics = [topic((1,), name=name) for name in names]
    keys = {name: TopicPartition(name, 0) for name in names}
    before = sample(
        0.0, *topics, logs={keys[name]: LogSample(1, 0, 0, 0) for name in ("idle", "busy")}
    )
    now = sample(
        1.0,
        *topics,
        logs={key: LogSample(1, 9 if key.topic == "busy" else 0, 0, 1) for key in keys.values()},
    )
    assert [row.topic for row in view(before, now).topics] == ["busy", "idle", "unknown"]


def test_logs_are_those_of_leaders_and_disks_those_that_answered() -> None:
    replica = ReplicaSize("t", 0, 70, 1, 9, True)
    follower = ReplicaSize("t", 1, 30, 0, 9, False)
    logs, disks = logs_of(
        [
            LogDirDescription(1, "/a", "x", "", 5, (replica, follower)),
            LogDirDescription(1, "/b", "y", "", 5, ()),
            LogDirDescription(2, "", "", "it does not answer", -1, ()),
        ]
    )
    assert logs == {KEY: LogSample(1, 70, 1, 9)}
    assert disks == {1: 100}
