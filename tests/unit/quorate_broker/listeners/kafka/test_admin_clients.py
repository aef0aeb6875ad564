"""The admin clients of three libraries administer topics, configs and the cluster.

Each library writes other versions of the requests: aiokafka the oldest, kafka-python the newest.
"""

from __future__ import annotations

import asyncio
import itertools
import warnings
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.admin import NewPartitions as AioNewPartitions
from aiokafka.admin import NewTopic as AioNewTopic
from aiokafka.admin.config_resource import ConfigResource as AioResource
from aiokafka.admin.config_resource import ConfigResourceType as AioResourceType
from aiokafka.structs import TopicPartition as AioPartition
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka import TopicPartition as ConfluentPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewPartitions,
    NewTopic,
)

from quorate.sync import Admin
from quorate_broker.listeners.kafka.errors import (
    ELECTION_NOT_NEEDED,
    UNKNOWN_TOPIC_OR_PARTITION,
)
from quorate_testing import EmbeddedCluster
from tests.harness.kafka_clients import WAIT_S, Sent, kafka_python, produce

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from kafka import admin as kafka_python_admin
    from kafka import errors as kafka_python_errors

_names = itertools.count()
DEFAULT = ConfigSource.DEFAULT_CONFIG.value


@pytest.fixture(scope="module")
def cluster() -> Iterator[EmbeddedCluster]:
    with EmbeddedCluster(brokers=2) as cluster:
        yield cluster


@pytest.fixture
def topic() -> str:
    """The name of a topic that does not exist yet."""
    return f"admin-{next(_names)}"


# confluent-kafka


@pytest.fixture
def confluent(cluster: EmbeddedCluster) -> AdminClient:
    return AdminClient({"bootstrap.servers": cluster.kafka_bootstrap_servers})


def result(futures: dict[Any, Any]) -> Any:
    """Return the result of the only future."""
    (future,) = futures.values()
    return future.result(WAIT_S)


def code_of(act: Callable[[], Any]) -> int:
    """Return the code with which a call fails."""
    with pytest.raises(KafkaException) as caught:
        act()
    code: int = caught.value.args[0].code()
    return code


def configs_of(client: AdminClient, kind: Any, name: str) -> dict[str, Any]:
    found: dict[str, Any] = result(client.describe_configs([ConfigResource(kind, name)]))
    return found


def test_confluent_creates_a_topic_by_the_defaults_of_the_cluster(
    confluent: AdminClient, topic: str
) -> None:
    given = {"retention.ms": "1234567", "cleanup.policy": "compact", "preallocate": "false"}
    result(confluent.create_topics([NewTopic(topic, -1, -1, config=given)]))
    described = result(confluent.describe_topics(TopicCollection([topic])))
    assert len(described.partitions) == 1
    assert len(described.partitions[0].replicas) == 2
    configs = configs_of(confluent, ConfigResource.Type.TOPIC, topic)
    assert configs["retention.ms"].value == "1234567"
    assert configs["retention.ms"].source == ConfigSource.DYNAMIC_TOPIC_CONFIG.value
    assert [one.name for one in configs["retention.ms"].synonyms.values()] == [
        "retention.ms",
        "log.retention.ms",
    ]
    assert configs["cleanup.policy"].value == "compact"
    assert configs["segment.bytes"].source == DEFAULT
    assert configs["preallocate"].value == "false"
    assert [name for name, one in configs.items() if one.source != DEFAULT] == sorted(
        ("cleanup.policy", "retention.ms")
    )


@pytest.mark.parametrize(
    ("new", "code"),
    [
        (NewTopic("no spaces", 1, 1), KafkaError.TOPIC_EXCEPTION),
        (NewTopic("__consumer_offsets", 1, 1), KafkaError.TOPIC_EXCEPTION),
        (NewTopic("x", 1, 9), KafkaError.INVALID_REPLICATION_FACTOR),
        (NewTopic("x", 20_000, 1), KafkaError.INVALID_PARTITIONS),
        (NewTopic("x", 1, 1, config={"retention.ms": "soon"}), KafkaError.INVALID_CONFIG),
        (NewTopic("x", 1, 1, config={"no.such": "1"}), KafkaError.INVALID_CONFIG),
        (NewTopic("x", 1, 1, config={"preallocate": "true"}), KafkaError.INVALID_CONFIG),
        (NewTopic("x", 1, replica_assignment=[[7]]), KafkaError.INVALID_REPLICA_ASSIGNMENT),
        (NewTopic("x", 1, replica_assignment=[[101, 101]]), KafkaError.INVALID_REPLICA_ASSIGNMENT),
    ],
)
def test_a_topic_that_cannot_be_created(confluent: AdminClient, new: NewTopic, code: int) -> None:
    assert code_of(lambda: result(confluent.create_topics([new]))) == code


def test_a_topic_that_exists(confluent: AdminClient, topic: str) -> None:
    result(confluent.create_topics([NewTopic(topic, 1, 1)]))
    again = code_of(lambda: result(confluent.create_topics([NewTopic(topic, 1, 1)])))
    assert again == KafkaError.TOPIC_ALREADY_EXISTS


def test_a_topic_is_only_validated(confluent: AdminClient, topic: str) -> None:
    new = NewTopic(topic, 2, 2, config={"retention.ms": "1"})
    result(confluent.create_topics([new], validate_only=True))
    assert topic not in confluent.list_topics(timeout=WAIT_S).topics


def test_replicas_are_placed_by_hand(confluent: AdminClient, topic: str) -> None:
    brokers = sorted(confluent.list_topics(timeout=WAIT_S).brokers)
    placed = [brokers, brokers[::-1], brokers]
    result(confluent.create_topics([NewTopic(topic, 3, replica_assignment=placed)]))
    described = result(confluent.describe_topics(TopicCollection([topic])))
    assert [[one.id for one in each.replicas] for each in described.partitions] == placed


def test_confluent_gives_a_topic_more_partitions(confluent: AdminClient, topic: str) -> None:
    result(confluent.create_topics([NewTopic(topic, 1, 1)]))
    result(confluent.create_partitions([NewPartitions(topic, 4)], validate_only=True))
    result(confluent.create_partitions([NewPartitions(topic, 3)]))
    described = result(confluent.describe_topics(TopicCollection([topic])))
    assert len(described.partitions) == 3
    fewer = code_of(lambda: result(confluent.create_partitions([NewPartitions(topic, 2)])))
    assert fewer == KafkaError.INVALID_PARTITIONS
    unknown = code_of(lambda: result(confluent.create_partitions([NewPartitions("none", 2)])))
    assert unknown == KafkaError.UNKNOWN_TOPIC_OR_PART


def alter(client: AdminClient, topic: str, *changes: tuple[str, str | None, Any]) -> None:
    entries = [
        ConfigEntry(name, value, incremental_operation=operation)
        for name, value, operation in changes
    ]
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=entries)
    result(client.incremental_alter_configs([resource]))


def test_confluent_changes_some_configs(confluent: AdminClient, topic: str) -> None:
    result(confluent.create_topics([NewTopic(topic, 1, 1, config={"retention.ms": "5000"})]))
    alter(
        confluent,
        topic,
        ("segment.ms", "9000", AlterConfigOpType.SET),
        ("retention.ms", None, AlterConfigOpType.DELETE),
        ("cleanup.policy", "compact", AlterConfigOpType.APPEND),
        ("preallocate", "false", AlterConfigOpType.SET),
    )
    configs = configs_of(confluent, ConfigResource.Type.TOPIC, topic)
    assert configs["segment.ms"].value == "9000"
    assert configs["retention.ms"].source == DEFAULT
    assert set(configs["cleanup.policy"].value.split(",")) == {"compact", "delete"}
    alter(confluent, topic, ("cleanup.policy", "delete", AlterConfigOpType.SUBTRACT))
    configs = configs_of(confluent, ConfigResource.Type.TOPIC, topic)
    assert configs["cleanup.policy"].value == "compact"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (("retention.ms", "1", AlterConfigOpType.APPEND), KafkaError.INVALID_CONFIG),
        (("retention.ms", "soon", AlterConfigOpType.SET), KafkaError.INVALID_CONFIG),
        (("preallocate", "true", AlterConfigOpType.SET), KafkaError.INVALID_CONFIG),
        (("flush.on.ack", "true", AlterConfigOpType.SET), KafkaError.POLICY_VIOLATION),
    ],
)
def test_a_change_that_is_refused(
    confluent: AdminClient, topic: str, change: tuple[str, str, Any], code: int
) -> None:
    result(confluent.create_topics([NewTopic(topic, 1, 1)]))
    assert code_of(lambda: alter(confluent, topic, change)) == code


def test_configs_of_what_does_not_exist(confluent: AdminClient) -> None:
    topics, brokers = ConfigResource.Type.TOPIC, ConfigResource.Type.BROKER
    change = ("retention.ms", "1", AlterConfigOpType.SET)
    unknown = KafkaError.UNKNOWN_TOPIC_OR_PART
    assert code_of(lambda: configs_of(confluent, topics, "none")) == unknown
    assert code_of(lambda: alter(confluent, "none", change)) == unknown
    entries = [ConfigEntry("log.retention.ms", "1", incremental_operation=AlterConfigOpType.SET)]
    broker = str(min(confluent.list_topics(timeout=WAIT_S).brokers))
    resource = ConfigResource(brokers, broker, incremental_configs=entries)
    refused = code_of(lambda: result(confluent.incremental_alter_configs([resource])))
    assert refused == KafkaError.INVALID_REQUEST


THROTTLE = "follower.replication.throttled.rate"
#: What Kafka has and Quorate has not; kafka-reassign-partitions --verify lifts it, too.
OF_DIRECTORIES = "replica.alter.log.dirs.io.max.bytes.per.second"


def throttle(
    broker: str, operation: AlterConfigOpType, *names: str, value: str = "1000"
) -> ConfigResource:
    entries = [ConfigEntry(name, value, incremental_operation=operation) for name in names]
    return ConfigResource(ConfigResource.Type.BROKER, broker, incremental_configs=entries)


def test_the_throttles_of_a_broker_are_set_and_lifted(
    cluster: EmbeddedCluster, confluent: AdminClient
) -> None:
    """As kafka-reassign-partitions does. A broker's own value beats that of all brokers."""
    broker = str(min(confluent.list_topics(timeout=WAIT_S).brokers))

    def alter(change: ConfigResource) -> None:
        result(confluent.incremental_alter_configs([change]))

    def seen() -> tuple[str | None, int, bool]:
        found = configs_of(confluent, ConfigResource.Type.BROKER, broker)[THROTTLE]
        return found.value, found.source, found.is_read_only

    set_to, delete = AlterConfigOpType.SET, AlterConfigOpType.DELETE
    assert seen() == (str((1 << 63) - 1), 5, False)
    with Admin(bootstrap_servers=cluster.bootstrap_servers) as admin:
        admin.alter_configs(set={THROTTLE: 2000})
    assert seen() == ("2000", 3, False)
    alter(throttle(broker, set_to, THROTTLE))
    assert seen() == ("1000", 2, False)
    alter(throttle(broker, delete, THROTTLE, OF_DIRECTORIES))
    assert seen() == ("2000", 3, False)
    with Admin(bootstrap_servers=cluster.bootstrap_servers) as admin:
        admin.alter_configs(remove=[THROTTLE])
    assert seen() == (str((1 << 63) - 1), 5, False)


@pytest.mark.parametrize(
    ("operation", "name", "value", "code"),
    [
        (AlterConfigOpType.SET, THROTTLE, "0", KafkaError.INVALID_CONFIG),
        (AlterConfigOpType.APPEND, THROTTLE, "1", KafkaError.INVALID_CONFIG),
        (AlterConfigOpType.SET, OF_DIRECTORIES, "1", KafkaError.INVALID_REQUEST),
        (AlterConfigOpType.DELETE, "node.id", "1", KafkaError.INVALID_REQUEST),
        (AlterConfigOpType.SET, "num.partitions", "1", KafkaError.INVALID_REQUEST),
    ],
)
def test_a_wrong_throttle_of_a_broker_is_refused(
    confluent: AdminClient, operation: AlterConfigOpType, name: str, value: str, code: int
) -> None:
    broker = str(min(confluent.list_topics(timeout=WAIT_S).brokers))
    change = throttle(broker, operation, name, value=value)
    assert code_of(lambda: result(confluent.incremental_alter_configs([change]))) == code


def test_the_throttled_replicas_of_a_topic_are_a_list(confluent: AdminClient, topic: str) -> None:
    name = "leader.replication.throttled.replicas"
    kind = ConfigResource.Type.TOPIC
    result(confluent.create_topics([NewTopic(topic, 1, 1)]))
    for operation, value, after in (
        (AlterConfigOpType.SET, "0:0", "0:0"),
        (AlterConfigOpType.APPEND, "0:1", "0:0,0:1"),
        (AlterConfigOpType.SUBTRACT, "0:0", "0:1"),
        (AlterConfigOpType.SET, "*", "*"),
        (AlterConfigOpType.DELETE, "", ""),
    ):
        entry = ConfigEntry(name, value, incremental_operation=operation)
        change = ConfigResource(kind, topic, incremental_configs=[entry])
        result(confluent.incremental_alter_configs([change]))
        assert configs_of(confluent, kind, topic)[name].value == after


def test_the_configs_of_a_broker(confluent: AdminClient) -> None:
    brokers = confluent.list_topics(timeout=WAIT_S).brokers
    broker = str(min(brokers))
    configs = configs_of(confluent, ConfigResource.Type.BROKER, broker)
    assert configs["node.id"].value == broker
    assert configs["node.id"].is_read_only
    # It is not configured, and a topic gets what the brokers can give.
    assert configs["default.replication.factor"].value == str(len(brokers))
    assert configs["log.retention.ms"].value == str(7 * 24 * 3600 * 1000)
    assert configs["delete.topic.enable"].value == "true"


def test_the_configs_of_a_group_are_those_of_the_broker(confluent: AdminClient) -> None:
    """A group has none of its own. In Kafka, too, every group has configs, also one to come."""
    kind = ConfigResource.Type.GROUP
    configs = configs_of(confluent, kind, "any group")
    assert {name: one.value for name, one in configs.items()} == {
        "consumer.assignment.interval.ms": "100",
        "consumer.heartbeat.interval.ms": "5000",
        "consumer.session.timeout.ms": "45000",
    }
    assert all(one.is_read_only and one.is_default for one in configs.values())


def test_confluent_deletes_records_and_topics(
    cluster: EmbeddedCluster, confluent: AdminClient, topic: str
) -> None:
    result(confluent.create_topics([NewTopic(topic, 1, 2)]))
    records = [Sent(b"k", b"v", 0, 1_790_000_000_000 + i) for i in range(10)]
    produce("confluent", cluster.kafka_bootstrap_servers, topic, records)
    kept = result(confluent.delete_records([ConfluentPartition(topic, 0, 4)]))
    assert kept.low_watermark == 4
    for beyond in (99, -2):
        asked = [ConfluentPartition(topic, 0, beyond)]
        code = code_of(lambda asked=asked: result(confluent.delete_records(asked)))  # type: ignore[misc]
        assert code == KafkaError.OFFSET_OUT_OF_RANGE
    result(confluent.delete_topics([topic]))
    code = code_of(lambda: result(confluent.delete_topics([topic])))
    assert code == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_confluent_describes_the_cluster(confluent: AdminClient) -> None:
    described = confluent.describe_cluster().result(WAIT_S)
    assert len(described.nodes) == 2
    assert described.controller.id in {node.id for node in described.nodes}


def test_confluent_is_told_what_it_may_do(confluent: AdminClient, topic: str) -> None:
    result(confluent.create_topics([NewTopic(topic, 1, 1)]))
    on_cluster = confluent.describe_cluster(include_authorized_operations=True).result(WAIT_S)
    (on_topic,) = confluent.describe_topics(
        TopicCollection([topic]), include_authorized_operations=True
    ).values()
    counts = [len(on_cluster.authorized_operations)]
    counts.append(len(on_topic.result(WAIT_S).authorized_operations))
    assert counts == [7, 8]


# kafka-python


@pytest.fixture
def older(cluster: EmbeddedCluster) -> Iterator[Any]:
    client = kafka_python_admin.KafkaAdminClient(bootstrap_servers=cluster.kafka_bootstrap_servers)
    yield client
    client.close()


def test_kafka_python_administers_a_topic(cluster: EmbeddedCluster, older: Any, topic: str) -> None:
    new = kafka_python_admin.NewTopic(topic, -1, -1, topic_configs={"retention.ms": "7000"})
    older.create_topics([new])
    older.create_partitions({topic: kafka_python_admin.NewPartitions(2)})
    (described,) = older.describe_topics([topic])
    assert len(described["partitions"]) == 2
    records = [Sent(b"k", b"v", 1, 1_790_000_000_000 + i) for i in range(5)]
    produce("kafka-python", cluster.kafka_bootstrap_servers, topic, records)
    partition = kafka_python.TopicPartition(topic, 1)
    assert older.delete_records({partition: 3})[partition]["low_watermark"] == 3
    older.delete_topics([topic])
    with pytest.raises(kafka_python_errors.UnknownTopicOrPartitionError):
        older.delete_topics([topic])


def test_kafka_python_alters_configs(older: Any, topic: str) -> None:
    older.create_topics([kafka_python_admin.NewTopic(topic, 1, 1)])
    resource = kafka_python_admin.ConfigResource
    kinds = kafka_python_admin.ConfigResourceType
    older.alter_configs([resource(kinds.TOPIC, topic, configs={"retention.ms": "8000"})])
    found = older.describe_configs([resource(kinds.TOPIC, topic)])
    assert "8000" in str(found)
    bad = [resource(kinds.TOPIC, topic, configs={"retention.ms": "soon"})]
    assert "retention.ms must be" in str(older.alter_configs(bad))


def test_kafka_python_describes_the_cluster(older: Any, topic: str) -> None:
    assert len(older.describe_cluster()["brokers"]) == 2
    quorum = older.describe_metadata_quorum()
    assert "__cluster_metadata" in str(quorum)
    older.create_topics([kafka_python_admin.NewTopic(topic, 2, 1)])
    assert topic in str(older.describe_log_dirs())
    assert older.list_partition_reassignments() == {}
    assert set(map(tuple, older.list_transactions().values())) == {()}
    assert not older.describe_user_scram_credentials()
    elected = older.elect_leaders(0, {topic: [0, 7]}, raise_errors=False)
    results = elected.replica_election_results[0].partition_result
    codes = {one.partition_id: one.error_code for one in results}
    assert codes == {0: ELECTION_NOT_NEEDED, 7: UNKNOWN_TOPIC_OR_PARTITION}


def test_kafka_python_lists_what_has_configs(older: Any, topic: str) -> None:
    older.create_topics([kafka_python_admin.NewTopic(topic, 1, 1)])
    told = older.list_config_resources()
    assert topic in told["topic"]
    assert sorted(told["broker"]) == ["0", "1"]
    assert older.list_config_resources(["CLIENT_METRICS", "GROUP"]) == {}


def test_partitions_are_told_in_portions(older: Any, topic: str) -> None:
    other = f"{topic}-other"
    older.create_topics(
        [kafka_python_admin.NewTopic(topic, 3, 1), kafka_python_admin.NewTopic(other, 2, 1)]
    )
    found: list[tuple[str, int]] = []
    cursor, portions = None, 0
    while portions == 0 or cursor is not None:
        told = older.describe_topic_partitions([other, topic], 2, cursor)
        for one in told["topics"]:
            found += [(one["name"], each["partition_index"]) for each in one["partitions"]]
        cursor, portions = told["next_cursor"], portions + 1
    assert found == [*((topic, index) for index in range(3)), (other, 0), (other, 1)]
    assert portions == 3


# aiokafka


def run(cluster: EmbeddedCluster, act: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    """Run a program with aiokafka's client."""

    async def program() -> None:
        client = AIOKafkaAdminClient(bootstrap_servers=cluster.kafka_bootstrap_servers)
        await client.start()
        try:
            await asyncio.wait_for(act(client), WAIT_S)
        finally:
            await client.close()

    asyncio.run(program())


def test_aiokafka_administers_a_topic(cluster: EmbeddedCluster, topic: str) -> None:
    async def act(client: Any) -> None:
        new = AioNewTopic(topic, 1, 2, topic_configs={"retention.ms": "7000"})
        created = await client.create_topics([new])
        assert created.topic_errors[0][:2] == (topic, 0)
        again = await client.create_topics([new])
        assert again.topic_errors[0][:2] == (topic, KafkaError.TOPIC_ALREADY_EXISTS)
        grown = await client.create_partitions({topic: AioNewPartitions(3)})
        assert grown.topic_errors[0][:2] == (topic, 0)
        (described,) = await client.describe_topics([topic])
        assert len(described["partitions"]) == 3
        records = [Sent(b"k", b"v", 2, 1_790_000_000_000 + i) for i in range(5)]
        await asyncio.to_thread(
            produce, "aiokafka", cluster.kafka_bootstrap_servers, topic, records
        )
        partition = AioPartition(topic, 2)
        found = await client.delete_records({partition: RecordsToDelete(before_offset=2)})
        assert found == {partition: 2}
        deleted = await client.delete_topics([topic])
        assert deleted.topic_error_codes == [(topic, 0)]

    run(cluster, act)


def test_aiokafka_replaces_all_configs(cluster: EmbeddedCluster, topic: str) -> None:
    async def act(client: Any) -> None:
        configs = {"retention.ms": "7000", "segment.ms": "6000"}
        await client.create_topics([AioNewTopic(topic, 1, 1, topic_configs=configs)])
        resource = AioResource(AioResourceType.TOPIC, topic, configs={"retention.ms": "8000"})
        (altered,) = await client.alter_configs([resource])
        assert altered.resources[0][0] == 0
        (described,) = await client.describe_configs([AioResource(AioResourceType.TOPIC, topic)])
        values = {one[0]: one[1] for one in described.resources[0][4]}
        assert (values["retention.ms"], values["segment.ms"]) == ("8000", str(7 * 86_400_000))

    run(cluster, act)
