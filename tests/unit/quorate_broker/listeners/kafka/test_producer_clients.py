"""Which producers write to a partition, as a real Kafka client is told."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator

import pytest

from quorate_testing import EmbeddedCluster
from tests.harness.kafka_clients import Sent, kafka_python, produce

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # kafka-python warns about its own resources when imported
    from kafka import admin as kafka_python_admin
    from kafka import errors as kafka_python_errors

COUNT = 7
#: Apache Kafka tells this of a producer that has no transaction.
NO_TRANSACTION = -1


@pytest.fixture(scope="module")
def cluster() -> Iterator[EmbeddedCluster]:
    with EmbeddedCluster(brokers=2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def admin(cluster: EmbeddedCluster) -> Iterator[kafka_python_admin.KafkaAdminClient]:
    admin = kafka_python_admin.KafkaAdminClient(bootstrap_servers=cluster.kafka_bootstrap_servers)
    yield admin
    admin.close()


def test_the_idempotent_producers_of_a_partition_are_told(
    cluster: EmbeddedCluster, admin: kafka_python_admin.KafkaAdminClient
) -> None:
    cluster.create_topic("told", 2)
    first, second = (kafka_python.TopicPartition("told", number) for number in (0, 1))
    began_ms = int(time.time() * 1000)
    for number in range(2):
        records = [Sent(b"k", b"v", number, began_ms)] * COUNT
        for _ in range(2 - number):
            produce(
                "confluent", cluster.kafka_bootstrap_servers, "told", records, is_idempotent=True
            )
    produce("confluent", cluster.kafka_bootstrap_servers, "told", [Sent(b"k", b"v", 1, began_ms)])
    told = admin.describe_producers([first, second])
    assert [len(told[one].active_producers) for one in (first, second)] == [2, 1]
    every = [one for state in told.values() for one in state.active_producers]
    assert len({one.producer_id for one in every}) == 3
    for one in every:
        assert (one.producer_epoch, one.last_sequence) == (0, COUNT - 1)
        assert began_ms <= one.last_timestamp <= time.time() * 1000
        assert one.coordinator_epoch == one.current_transaction_start_offset == NO_TRANSACTION


def test_only_the_leader_tells_its_producers(
    cluster: EmbeddedCluster, admin: kafka_python_admin.KafkaAdminClient
) -> None:
    cluster.create_topic("led", 1)
    partition = kafka_python.TopicPartition("led", 0)
    (topic,) = admin.describe_topics(["led"])
    (state,) = topic["partitions"]
    leader = state["leader_id"]
    (follower,) = {*state["replica_nodes"]} - {leader}
    assert admin.describe_producers([partition], leader)[partition].active_producers == []
    with pytest.raises(kafka_python_errors.NotLeaderForPartitionError):
        admin.describe_producers([partition], follower)


@pytest.mark.parametrize(("topic", "number"), [("none", 0), ("one", 1), ("one", -1)])
def test_a_partition_that_does_not_exist(
    cluster: EmbeddedCluster, admin: kafka_python_admin.KafkaAdminClient, topic: str, number: int
) -> None:
    if topic == "one" and topic not in admin.list_topics():
        cluster.create_topic(topic)
    with pytest.raises(kafka_python_errors.UnknownTopicOrPartitionError):
        admin.describe_producers([kafka_python.TopicPartition(topic, number)], 0)
