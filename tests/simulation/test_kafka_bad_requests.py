"""Requests that are well formed and ask for too much: Kafka's own answer, or a closed connection.

Bytes that are no request stand in tests/unit/quorate_broker/listeners/kafka/test_bad_input.py, and
clients that do not read in test_transport.py and test_connection.py beside it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
import structlog

from quorate_broker.listeners.kafka.messages.consumer_group_describe import (
    ConsumerGroupDescribeRequest,
)
from quorate_broker.listeners.kafka.messages.create_topics import (
    CreatableTopic,
    CreateTopicsRequest,
)
from quorate_broker.listeners.kafka.messages.delete_groups import DeleteGroupsRequest
from quorate_broker.listeners.kafka.messages.describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
)
from quorate_broker.listeners.kafka.messages.describe_groups import DescribeGroupsRequest
from quorate_broker.listeners.kafka.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from quorate_broker.listeners.kafka.messages.find_coordinator import FindCoordinatorRequest
from quorate_broker.listeners.kafka.messages.join_group import (
    JoinGroupRequest,
    JoinGroupRequestProtocol,
)
from quorate_broker.listeners.kafka.messages.leave_group import LeaveGroupRequest
from quorate_broker.listeners.kafka.messages.list_groups import ListGroupsRequest
from quorate_broker.listeners.kafka.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from quorate_broker.listeners.kafka.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
)
from quorate_broker.listeners.kafka.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopics,
)
from quorate_broker.listeners.kafka.messages.produce import (
    PartitionProduceData,
    ProduceRequest,
    TopicProduceData,
)
from quorate_broker.listeners.kafka.messages.sync_group import (
    SyncGroupRequest,
    SyncGroupRequestAssignment,
)
from quorate_broker.listeners.kafka.versions import (
    CONSUMER_GROUP_DESCRIBE,
    CREATE_TOPICS,
    DELETE_GROUPS,
    DESCRIBE_CONFIGS,
    DESCRIBE_GROUPS,
    FETCH,
    FIND_COORDINATOR,
    JOIN_GROUP,
    LEAVE_GROUP,
    LIST_GROUPS,
    OFFSET_COMMIT,
    OFFSET_DELETE,
    OFFSET_FETCH,
    PRODUCE,
    SYNC_GROUP,
)
from quorate_broker.operations import group_steps
from quorate_testing.simulated.loop import SimulatedLoop, simulate
from tests.harness.kafka_direct import DirectConnection, KafkaCluster

pytestmark = pytest.mark.simulation

SEED = 20_261_130
TOPIC = "zoo"
GROUP = "g"
MANY = 10_000
UNKNOWN_TOPIC_OR_PARTITION = 3
INVALID_REQUEST = 42
NON_EMPTY_GROUP = 68
GROUP_ID_NOT_FOUND = 69
INVALID_RECORD = 87
UNKNOWN_SERVER_ERROR = -1
MIB = 1 << 20

Use = Callable[[DirectConnection], Awaitable[None]]


def with_broker(use: Use) -> None:
    """Let a client use a broker that has one topic of one partition; the broker must bear it."""

    async def run(loop: SimulatedLoop) -> None:
        cluster = KafkaCluster(loop)
        await cluster.begin()
        client = cluster.connect()
        await client.ask(CREATE_TOPICS, 5, CreateTopicsRequest([CreatableTopic(TOPIC, 1, 1)], 9000))
        await use(client)
        client.close()
        await cluster.is_up()
        cluster.end()

    def program(loop: SimulatedLoop) -> Coroutine[Any, Any, None]:
        return run(loop)

    simulate(program, SEED)


async def in_group(client: DirectConnection, metadata: bytes) -> Any:
    """Join the group as its one member, as soon as its coordinator has loaded it."""
    code, joined = 15, None
    while code in (14, 15):
        await client.ask(FIND_COORDINATOR, 3, FindCoordinatorRequest(GROUP))
        protocols = [JoinGroupRequestProtocol("range", metadata)]
        request = JoinGroupRequest(GROUP, 10_000, 10_000, "", None, "consumer", protocols)
        joined = await client.ask(JOIN_GROUP, 3, request)
        code = joined.error_code
    return joined


def test_ten_thousand_partitions_in_one_produce_request_are_answered_each() -> None:
    async def use(client: DirectConnection) -> None:
        data = [PartitionProduceData(number, b"") for number in range(MANY)]
        topics = [TopicProduceData(name, partition_data=data[: MANY // 2]) for name in "ab"]
        answer = await client.ask(PRODUCE, 9, ProduceRequest(None, -1, 1000, topics))
        codes = [one.error_code for topic in answer.responses for one in topic.partition_responses]
        assert codes == [UNKNOWN_TOPIC_OR_PARTITION] * MANY
        topics = [TopicProduceData(TOPIC, partition_data=data)]
        answer = await client.ask(PRODUCE, 9, ProduceRequest(None, -1, 1000, topics))
        codes = [one.error_code for one in answer.responses[0].partition_responses]
        assert codes == [INVALID_RECORD] * MANY

    with_broker(use)


def test_ten_thousand_partitions_in_one_fetch_request_are_answered_each() -> None:
    async def use(client: DirectConnection) -> None:
        partitions = [FetchPartition(number, partition_max_bytes=1000) for number in range(MANY)]
        request = FetchRequest(max_wait_ms=10, topics=[FetchTopic(TOPIC, partitions=partitions)])
        answer = await client.ask(FETCH, 12, request)
        codes = [one.error_code for one in answer.responses[0].partitions]
        assert codes == [0] + [UNKNOWN_TOPIC_OR_PARTITION] * (MANY - 1)

    with_broker(use)


def test_a_member_may_have_a_megabyte_of_metadata() -> None:
    async def use(client: DirectConnection) -> None:
        joined = await in_group(client, b"m" * MIB)
        assert len(joined.members[0].metadata) == MIB
        assignments = [SyncGroupRequestAssignment(joined.member_id, b"all")]
        request = SyncGroupRequest(
            GROUP, joined.generation_id, joined.member_id, assignments=assignments
        )
        assert (await client.ask(SYNC_GROUP, 3, request)).assignment == b"all"

    with_broker(use)


def test_metadata_that_no_record_can_hold_are_answered_as_kafka_does() -> None:
    async def use(client: DirectConnection) -> None:
        assert (await in_group(client, b"m" * 20 * MIB)).error_code == UNKNOWN_SERVER_ERROR
        assert (await in_group(client, b"m")).error_code == 0

    with_broker(use)


@pytest.mark.parametrize(
    ("named", "reason"),
    [
        ([GROUP] * 12, "11 groups that it names already; 10 are allowed"),
        ([f"g{number}" for number in range(1001)], "1000 are allowed"),
    ],
    ids=["again", "1,001"],
)
def test_an_offset_fetch_does_not_name_too_many_groups(named: list[str], reason: str) -> None:
    """A request of 250,000 groups would hold the event loop for ten seconds."""

    async def use(client: DirectConnection) -> None:
        request = OffsetFetchRequest(
            groups=[OffsetFetchRequestGroup(one, topics=None) for one in named]
        )
        with (
            structlog.testing.capture_logs() as lines,
            pytest.raises(AssertionError, match="the broker closed"),
        ):
            await client.ask(OFFSET_FETCH, 8, request)
        (ended,) = [one for one in lines if one["event"] == "kafka connection ended"]
        assert reason in ended["reason"]

    with_broker(use)


def test_a_resource_is_not_described_many_times() -> None:
    """A request of 50 KB would get all configs of a broker ten thousand times: 90 MB, in 27 s."""

    async def use(client: DirectConnection) -> None:
        named = [DescribeConfigsResource(4, "0", None)]
        told = await client.ask(DESCRIBE_CONFIGS, 4, DescribeConfigsRequest(named * 2))
        assert [one.error_code for one in told.results] == [0, 0]
        with (
            structlog.testing.capture_logs() as lines,
            pytest.raises(AssertionError, match="the broker closed"),
        ):
            await client.ask(DESCRIBE_CONFIGS, 4, DescribeConfigsRequest(named * MANY))
        (ended,) = [one for one in lines if one["event"] == "kafka connection ended"]
        assert "9999 resources that it names already" in ended["reason"]

    with_broker(use)


def test_a_group_that_is_named_twice_is_answered_twice() -> None:
    """Kafka 4.3 does so. A deletion is answered once."""

    async def use(client: DirectConnection) -> None:
        joined = await in_group(client, b"m")
        twice = [GROUP, "none", GROUP, "none"]
        find = FindCoordinatorRequest(coordinator_keys=twice)
        found = await client.ask(FIND_COORDINATOR, 4, find)
        assert [one.key for one in found.coordinators] == twice
        assert [one.error_code for one in found.coordinators] == [0] * 4
        fetch = OffsetFetchRequest(
            groups=[OffsetFetchRequestGroup(one, topics=None) for one in twice]
        )
        fetched = await client.ask(OFFSET_FETCH, 8, fetch)
        assert [(one.group_id, one.error_code) for one in fetched.groups] == [
            (one, 0) for one in twice
        ]
        described = await client.ask(DESCRIBE_GROUPS, 5, DescribeGroupsRequest(twice))
        assert [(one.group_id, len(one.members)) for one in described.groups] == [
            (GROUP, 1),
            ("none", 0),
        ] * 2
        request = ConsumerGroupDescribeRequest(twice)
        told = await client.ask(CONSUMER_GROUP_DESCRIBE, 0, request)
        assert [(one.group_id, one.error_code) for one in told.groups] == [
            (one, GROUP_ID_NOT_FOUND) for one in twice
        ]
        assert {one.group_state for one in told.groups} == {""}
        gone = await client.ask(DELETE_GROUPS, 2, DeleteGroupsRequest(twice))
        assert [(one.group_id, one.error_code) for one in gone.results] == [
            (GROUP, NON_EMPTY_GROUP),
            ("none", GROUP_ID_NOT_FOUND),
        ]
        leave = LeaveGroupRequest(GROUP, joined.member_id)
        assert (await client.ask(LEAVE_GROUP, 1, leave)).error_code == 0
        gone = await client.ask(DELETE_GROUPS, 2, DeleteGroupsRequest(twice))
        assert [one.error_code for one in gone.results] == [0, GROUP_ID_NOT_FOUND]

    with_broker(use)


def test_a_partition_that_is_named_many_times_is_refused() -> None:
    """A small request would get one long piece of metadata ten thousand times."""

    async def use(client: DirectConnection) -> None:
        await in_group(client, b"m")
        topics = [OffsetFetchRequestTopics(TOPIC, partition_indexes=[0] * MANY)]
        named = [OffsetFetchRequestGroup(one, topics=topics) for one in ("alone", GROUP)]
        fetched = await client.ask(OFFSET_FETCH, 8, OffsetFetchRequest(groups=named))
        assert [(one.error_code, one.topics) for one in fetched.groups] == [
            (INVALID_REQUEST, [])
        ] * 2

    with_broker(use)


def test_a_partition_that_is_named_twice_is_answered_twice_and_its_last_commit_counts() -> None:
    async def use(client: DirectConnection) -> None:
        await in_group(client, b"m")
        partitions = [OffsetCommitRequestPartition(0, offset) for offset in (8, 9)]
        topics = [OffsetCommitRequestTopic(TOPIC, partitions=partitions)]
        commit = OffsetCommitRequest("alone", -1, "", topics=topics)
        committed = await client.ask(OFFSET_COMMIT, 7, commit)
        assert [one.error_code for one in committed.topics[0].partitions] == [0, 0]
        named = [OffsetFetchRequestTopics(TOPIC, partition_indexes=[0, 0])] * 2
        asked = OffsetFetchRequest(groups=[OffsetFetchRequestGroup("alone", topics=named)])
        (told,) = (await client.ask(OFFSET_FETCH, 8, asked)).groups
        offsets = [[one.committed_offset for one in topic.partitions] for topic in told.topics]
        assert offsets == [[9, 9], [9, 9]]
        deleted = OffsetDeleteRequest(
            "alone",
            [OffsetDeleteRequestTopic(TOPIC, [OffsetDeleteRequestPartition(0)] * 2)],
        )
        gone = await client.ask(OFFSET_DELETE, 0, deleted)
        assert [one.error_code for one in gone.topics[0].partitions] == [0, 0]

    with_broker(use)


def test_a_member_is_described_with_the_host_as_java_writes_it() -> None:
    async def use(client: DirectConnection) -> None:
        await in_group(client, b"m")
        described = await client.ask(DESCRIBE_GROUPS, 5, DescribeGroupsRequest([GROUP]))
        (member,) = described.groups[0].members
        assert member.client_host.startswith("/")

    with_broker(use)


def test_a_group_with_more_offsets_than_one_step_tells_them_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(group_steps, "PARTITIONS_A_STEP", 1)

    async def use(client: DirectConnection) -> None:
        await in_group(client, b"m")
        await client.ask(CREATE_TOPICS, 5, CreateTopicsRequest([CreatableTopic("two", 1, 1)], 9000))
        topics = [
            OffsetCommitRequestTopic(name, partitions=[OffsetCommitRequestPartition(0, 7)])
            for name in (TOPIC, "two")
        ]
        commit = OffsetCommitRequest("many", -1, "", topics=topics)
        committed = await client.ask(OFFSET_COMMIT, 7, commit)
        assert [one.partitions[0].error_code for one in committed.topics] == [0, 0]
        asked = OffsetFetchRequest(groups=[OffsetFetchRequestGroup("many", topics=None)])
        answer = await client.ask(OFFSET_FETCH, 8, asked)
        told = answer.groups[0].topics
        assert [(one.name, one.partitions[0].committed_offset) for one in told] == [
            ("two", 7),
            (TOPIC, 7),
        ]

    with_broker(use)


def test_the_type_of_a_group_is_listed_in_small_letters_as_by_kafka() -> None:
    async def use(client: DirectConnection) -> None:
        await in_group(client, b"m")
        for types in ([], ["Classic"]):
            (one,) = (await client.ask(LIST_GROUPS, 5, ListGroupsRequest([], types))).groups
            assert (one.group_id, one.group_type) == (GROUP, "classic")

    with_broker(use)
