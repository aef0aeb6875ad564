"""Groups of real Kafka clients (the classic protocol) against a cluster in this process."""

from __future__ import annotations

import asyncio
import itertools
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from confluent_kafka import Consumer as ConfluentConsumer
from confluent_kafka import ConsumerGroupTopicPartitions
from confluent_kafka import TopicPartition as ConfluentPartition
from confluent_kafka.admin import AdminClient

from quorate import Admin, Consumer, TopicPartition
from quorate_testing import EmbeddedCluster
from tests.harness.kafka_clients import PARTITIONS, WAIT_S, Sent, kafka_python, produce

COUNT = 60
RECORDS = [
    Sent(b"k%d" % i, b"v%d" % i, i % PARTITIONS, 1_790_000_000_000 + i) for i in range(COUNT)
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[EmbeddedCluster]:
    with EmbeddedCluster(brokers=2) as cluster:
        yield cluster


_names = itertools.count()


@pytest.fixture
def topic(cluster: EmbeddedCluster) -> str:
    name = f"grouped-{next(_names)}"
    cluster.create_topic(name, PARTITIONS)
    produce("confluent", cluster.kafka_bootstrap_servers, name, RECORDS)
    return name


def confluent(cluster: EmbeddedCluster, group: str, **more: Any) -> ConfluentConsumer:
    return ConfluentConsumer(
        {
            "bootstrap.servers": cluster.kafka_bootstrap_servers,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "session.timeout.ms": 6000,
            "heartbeat.interval.ms": 500,
            **{name.replace("_", "."): value for name, value in more.items()},
        }
    )


def until(condition: Callable[[], bool], poll: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        poll()


def values(messages: list[Any]) -> set[bytes]:
    return {one.value() for one in messages}


def test_members_share_the_partitions_and_commits_are_where_the_next_one_begins(
    cluster: EmbeddedCluster, topic: str
) -> None:
    group = f"g-{topic}"
    first, second = confluent(cluster, group), confluent(cluster, group)
    read: list[Any] = []

    def poll() -> None:
        for consumer in (first, second):
            message = consumer.poll(0.05)
            if message is not None:
                assert message.error() is None, message.error()
                read.append(message)

    first.subscribe([topic])
    second.subscribe([topic])
    until(lambda: bool(first.assignment()) and bool(second.assignment()), poll)
    owned = [{(one.topic, one.partition) for one in c.assignment()} for c in (first, second)]
    assert owned[0] | owned[1] == {(topic, number) for number in range(PARTITIONS)}
    assert not owned[0] & owned[1]
    until(lambda: values(read) == {one.value for one in RECORDS}, poll)
    first.commit(asynchronous=False)
    second.commit(asynchronous=False)
    second.close()
    produce("quorate", cluster.bootstrap_servers, topic, [Sent(b"k", b"new", 0, 1_790_000_001_000)])
    read.clear()

    def poll_first() -> None:
        message = first.poll(0.05)
        if message is not None:
            assert message.error() is None, message.error()
            read.append(message)

    until(lambda: len(first.assignment()) == PARTITIONS, poll_first)
    until(lambda: b"new" in values(read), poll_first)
    assert values(read) == {b"new"}
    first.close()


def test_a_static_member_keeps_its_partitions_over_a_restart(
    cluster: EmbeddedCluster, topic: str
) -> None:
    group = f"g-{topic}"
    other = confluent(cluster, group, group_instance_id="other")
    one = confluent(cluster, group, group_instance_id="one")
    both = [other, one]

    def poll() -> None:
        for consumer in both:
            consumer.poll(0.05)

    lost: list[object] = []
    other.subscribe([topic], on_revoke=lambda _, partitions: lost.append(partitions))
    one.subscribe([topic])
    until(lambda: all(consumer.assignment() for consumer in both), poll)
    owned = {each.partition for each in one.assignment()}
    lost.clear()
    one.close()  # a static member does not leave
    again = confluent(cluster, group, group_instance_id="one")
    both[1] = again
    again.subscribe([topic])
    until(lambda: bool(again.assignment()), poll)
    assert {each.partition for each in again.assignment()} == owned
    assert lost == []
    for consumer in both:
        consumer.close()


async def test_aiokafka_in_a_group(cluster: EmbeddedCluster, topic: str) -> None:
    group = f"g-{topic}"

    def consumer() -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            topic,
            bootstrap_servers=cluster.kafka_bootstrap_servers,
            group_id=group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            session_timeout_ms=6000,
        )

    found: set[bytes] = set()
    async with asyncio.timeout(WAIT_S):
        one = consumer()
        await one.start()
        while len(found) < COUNT:
            for batch in (await one.getmany(timeout_ms=200)).values():
                found |= {record.value for record in batch}
        await one.commit()
        await one.stop()
        two = consumer()
        await two.start()
        assert len(two.assignment()) == PARTITIONS
        assert [await two.position(each) for each in two.assignment()] == [
            COUNT // PARTITIONS
        ] * PARTITIONS
        await two.stop()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_kafka_python_in_a_group_and_its_administration(
    cluster: EmbeddedCluster, topic: str
) -> None:
    group = f"g-{topic}"
    consumer = kafka_python.KafkaConsumer(
        topic,
        bootstrap_servers=cluster.kafka_bootstrap_servers,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=6000,
    )
    found: set[bytes] = set()

    def poll() -> None:
        for batch in consumer.poll(timeout_ms=200).values():
            found.update(record.value for record in batch)

    until(lambda: len(found) == COUNT, poll)
    consumer.commit()
    admin = kafka_python.KafkaAdminClient(bootstrap_servers=cluster.kafka_bootstrap_servers)
    described = admin.describe_groups([group])[group]
    assert described["group_state"] == "Stable"
    offsets = admin.list_group_offsets(group)
    by_partition = offsets.get(group, offsets)
    assert by_partition[kafka_python.TopicPartition(topic, 0)].offset == COUNT // PARTITIONS
    consumer.close()
    admin.delete_groups([group])
    assert group not in {
        one[0] if isinstance(one, tuple) else one["group_id"] for one in admin.list_groups()
    }
    admin.close()


PAGE = Path(__file__).parents[5] / "docs/kafka-clients.md"
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.parametrize("program", PROGRAMS, ids=["confluent-kafka", "aiokafka", "kafka-python"])
def test_a_program_of_the_documentation_works(
    cluster: EmbeddedCluster, tmp_path: Path, program: str
) -> None:
    name = f"documented-{next(_names)}"  # the program creates the topic by writing to it
    file = tmp_path / "program.py"
    file.write_text(program)
    done = subprocess.run(
        [sys.executable, str(file), cluster.kafka_bootstrap_servers.split(",")[0], name],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    values = {line.split(maxsplit=2)[2] for line in done.stdout.splitlines()}
    assert values == {f"invoice {i}" for i in range(10)}


def test_groups_are_listed_described_altered_and_deleted(
    cluster: EmbeddedCluster, topic: str
) -> None:
    group = f"g-{topic}"
    consumer = confluent(cluster, group)
    consumer.subscribe([topic])
    until(lambda: len(consumer.assignment()) == PARTITIONS, lambda: consumer.poll(0.05))
    consumer.commit(offsets=[ConfluentPartition(topic, 0, 7)], asynchronous=False)
    admin = AdminClient({"bootstrap.servers": cluster.kafka_bootstrap_servers})
    listed = admin.list_consumer_groups().result()
    assert group in {one.group_id for one in listed.valid}
    described = admin.describe_consumer_groups([group], include_authorized_operations=True)[
        group
    ].result()
    assert len(described.authorized_operations) == 5
    assert [len(one.assignment.topic_partitions) for one in described.members] == [PARTITIONS]
    asked = [ConsumerGroupTopicPartitions(group)]
    offsets = admin.list_consumer_group_offsets(asked)[group].result()
    assert [(one.partition, one.offset) for one in offsets.topic_partitions] == [(0, 7)]
    consumer.close()
    altered = [ConsumerGroupTopicPartitions(group, [ConfluentPartition(topic, 1, 3)])]
    admin.alter_consumer_group_offsets(altered)[group].result()
    offsets = admin.list_consumer_group_offsets(asked)[group].result()
    assert {(one.partition, one.offset) for one in offsets.topic_partitions} == {(0, 7), (1, 3)}
    admin.delete_consumer_groups([group])[group].result()
    assert group not in {one.group_id for one in admin.list_consumer_groups().result().valid}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_negative_offsets_are_read_back_and_quorates_own_clients_have_none_committed(
    cluster: EmbeddedCluster, topic: str
) -> None:
    """KafkaJS commits -2 for "the beginning", for example, and reads it as "none"."""
    group = f"g-{topic}"
    admin = kafka_python.KafkaAdminClient(bootstrap_servers=cluster.kafka_bootstrap_servers)
    committed = dict(enumerate((-2, -(2**63), 7)))
    asked = {
        kafka_python.TopicPartition(topic, number): kafka_python.OffsetAndMetadata(offset, "x", -1)
        for number, offset in committed.items()
    }

    def is_taken() -> bool:
        return {one.errno for one in admin.alter_group_offsets(group, asked).values()} == {0}

    until(is_taken, lambda: None)  # the first commit of a cluster makes __consumer_offsets
    told = admin.list_group_offsets(group)
    told = told.get(group, told)
    assert {key.partition: value.offset for key, value in told.items()} == committed
    admin.close()
    asyncio.run(_reads_all_but_what_was_committed(cluster, topic, group))


async def _reads_all_but_what_was_committed(
    cluster: EmbeddedCluster, topic: str, group: str
) -> None:
    servers = cluster.bootstrap_servers
    async with Admin(bootstrap_servers=servers) as admin:
        found = await admin.list_group_offsets(group)
        assert {key.partition: value.offset for key, value in found.items()} == {2: 7}
        named = await admin.list_group_offsets(group, [TopicPartition(topic, n) for n in (0, 1)])
        assert named == {}
    async with Consumer(
        topic, bootstrap_servers=servers, group_id=group, auto_offset_reset="earliest"
    ) as consumer:
        positions = [await consumer.position(TopicPartition(topic, n)) for n in range(PARTITIONS)]
        assert positions == [0, 0, 7]
