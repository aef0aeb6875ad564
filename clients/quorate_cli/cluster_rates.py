"""What `quorate top` shows: the rows that two samples of a cluster give.

Two samples tell how much was written in between. The end offset of a partition tells its records.
The size of its leader's log tells its bytes, if no old segment was deleted and the leader is the
same. Otherwise the records count with the average size of those in the log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from quorate import (
    BrokerDescription,
    ClusterDescription,
    LogDirDescription,
    TopicDescription,
    TopicPartition,
)


@dataclass(frozen=True, slots=True)
class LogSample:
    """The log of a partition's leader."""

    broker: int
    size: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class GroupSample:
    """A consumer group and its committed offsets."""

    group: str
    state: str
    members: int
    committed: Mapping[TopicPartition, int]


@dataclass(frozen=True, slots=True)
class Sample:
    """A cluster at one time. `at_s` is of a clock that only runs forward."""

    at_s: float
    cluster: ClusterDescription
    topics: Mapping[str, TopicDescription]
    logs: Mapping[TopicPartition, LogSample] = field(default_factory=dict)
    #: The bytes of the logs of each broker that answered.
    disks: Mapping[int, int] = field(default_factory=dict)
    groups: Sequence[GroupSample] = ()
    #: What could not be asked, and why.
    missing: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class TopicRow:
    """A topic. Rates are None if they are not known: in the first sample, or without a leader."""

    topic: str
    internal: bool
    partitions: int
    records_per_s: float | None
    bytes_per_s: float | None
    records: int
    size: int
    under_replicated: int
    offline: int


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A consumer group. `lag` is None if it has no committed offset of a topic that exists."""

    group: str
    state: str
    members: int
    lag: int | None
    records_per_s: float | None


@dataclass(frozen=True, slots=True)
class BrokerRow:
    """A broker: the partitions that it leads and those of which it has a replica.

    `out_of_sync` replicas are not in the ISR. `size` is None if the broker did not answer.
    """

    broker: int
    rack: str
    fenced: bool
    leaders: int
    replicas: int
    in_sync: int
    out_of_sync: int
    size: int | None


@dataclass(frozen=True, slots=True)
class PartitionRow:
    """A partition that is under-replicated, or has no leader (-1)."""

    topic: str
    partition: int
    leader: int
    replicas: tuple[int, ...]
    isr: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class View:
    """All that is shown of a cluster. `seconds` lie between the samples; None: there is one."""

    cluster_id: str
    controller: int
    seconds: float | None
    brokers: tuple[BrokerRow, ...]
    #: The topic with the most bytes a second first.
    topics: tuple[TopicRow, ...]
    #: The group with the longest lag first.
    groups: tuple[GroupRow, ...]
    #: Those without a leader first.
    troubled: tuple[PartitionRow, ...]
    missing: tuple[str, ...]


def view(before: Sample | None, now: Sample) -> View:
    """Return the rows of the newer sample, with the rates since the one before."""
    if before is not None and now.at_s <= before.at_s:
        before = None
    topics = [_topic(before, now, one) for one in now.topics.values()]
    groups = [_group(before, now, one) for one in now.groups]
    troubled = [
        PartitionRow(topic.name, one.partition, one.leader, one.replicas, one.isr)
        for topic in now.topics.values()
        for one in topic.partitions
        if one.is_under_replicated or one.leader < 0
    ]
    return View(
        cluster_id=now.cluster.cluster_id,
        controller=now.cluster.controller,
        seconds=None if before is None else now.at_s - before.at_s,
        brokers=_brokers(now),
        topics=tuple(sorted(topics, key=lambda row: (-(row.bytes_per_s or 0), row.topic))),
        groups=tuple(sorted(groups, key=lambda row: (-(row.lag or 0), row.group))),
        troubled=tuple(
            sorted(troubled, key=lambda row: (row.leader >= 0, row.topic, row.partition))
        ),
        missing=tuple(now.missing),
    )


def logs_of(
    log_dirs: Iterable[LogDirDescription],
) -> tuple[dict[TopicPartition, LogSample], dict[int, int]]:
    """Return the leaders' logs, and the bytes of each broker that answered."""
    logs: dict[TopicPartition, LogSample] = {}
    disks: Counter[int] = Counter()
    for found in log_dirs:
        if not found.path:
            continue  # the broker did not answer
        disks[found.broker_id] += found.size
        for one in found.replicas:
            if one.is_leader:
                logs[TopicPartition(one.topic, one.partition)] = LogSample(
                    found.broker_id, one.size, one.log_start_offset, one.log_end_offset
                )
    return logs, dict(disks)


def written(before: LogSample, now: LogSample) -> tuple[int, float]:
    """Return the records and the bytes that were written between two samples of a log.

    >>> written(LogSample(0, 100, 0, 10), LogSample(0, 150, 0, 15))
    (5, 50)

    Retention deleted a segment, or another broker leads: 5 records of 12 bytes.

    >>> written(LogSample(0, 100, 0, 10), LogSample(0, 60, 10, 15))
    (5, 60.0)

    The log was cut, or compacted.

    >>> written(LogSample(0, 100, 0, 10), LogSample(1, 80, 0, 8))
    (0, 0.0)
    """
    records = max(0, now.end - before.end)
    if now.broker == before.broker and now.start == before.start and now.size >= before.size:
        return records, now.size - before.size
    held = now.end - now.start
    return records, records * now.size / held if held else 0.0


def _topic(before: Sample | None, now: Sample, topic: TopicDescription) -> TopicRow:
    keys = [TopicPartition(topic.name, one.partition) for one in topic.partitions]
    logs = [now.logs[key] for key in keys if key in now.logs]
    records_per_s = bytes_per_s = None
    if before is not None and _is_same(before, topic):
        pairs = [(before.logs[key], now.logs[key]) for key in keys if _in_both(key, before, now)]
        if pairs:
            sums = [written(*pair) for pair in pairs]
            seconds = now.at_s - before.at_s
            records_per_s = sum(records for records, _ in sums) / seconds
            bytes_per_s = sum(size for _, size in sums) / seconds
    return TopicRow(
        topic=topic.name,
        internal=topic.internal,
        partitions=len(topic.partitions),
        records_per_s=records_per_s,
        bytes_per_s=bytes_per_s,
        records=sum(one.end - one.start for one in logs),
        size=sum(one.size for one in logs),
        under_replicated=sum(one.is_under_replicated for one in topic.partitions),
        offline=sum(one.leader < 0 for one in topic.partitions),
    )


def _is_same(before: Sample, topic: TopicDescription) -> bool:
    """Whether the topic was there: not another one of the same name."""
    was = before.topics.get(topic.name)
    return was is not None and was.topic_id == topic.topic_id


def _in_both(key: TopicPartition, before: Sample, now: Sample) -> bool:
    return key in before.logs and key in now.logs


def _group(before: Sample | None, now: Sample, group: GroupSample) -> GroupRow:
    lags = [
        max(0, now.logs[key].end - offset)
        for key, offset in group.committed.items()
        if key in now.logs
    ]
    was = None if before is None else _group_of(before, group.group)
    records_per_s = None
    if before is not None and was is not None:
        moved = sum(
            max(0, offset - was.committed[key])
            for key, offset in group.committed.items()
            if key in was.committed
        )
        records_per_s = moved / (now.at_s - before.at_s)
    return GroupRow(
        group.group, group.state, group.members, sum(lags) if lags else None, records_per_s
    )


def _group_of(sample: Sample, name: str) -> GroupSample | None:
    return next((one for one in sample.groups if one.group == name), None)


def _brokers(now: Sample) -> tuple[BrokerRow, ...]:
    leaders: Counter[int] = Counter()
    replicas: Counter[int] = Counter()
    in_sync: Counter[int] = Counter()
    for topic in now.topics.values():
        for one in topic.partitions:
            leaders[one.leader] += 1
            replicas.update(one.replicas)
            in_sync.update(one.isr)
    return tuple(
        _broker(one, leaders[one.id], replicas[one.id], in_sync[one.id], now.disks.get(one.id))
        for one in sorted(now.cluster.brokers, key=lambda one: one.id)
    )


def _broker(
    broker: BrokerDescription, leaders: int, replicas: int, in_sync: int, size: int | None
) -> BrokerRow:
    return BrokerRow(
        broker=broker.id,
        rack=broker.rack,
        fenced=broker.fenced,
        leaders=leaders,
        replicas=replicas,
        in_sync=in_sync,
        out_of_sync=replicas - in_sync,
        size=size,
    )
