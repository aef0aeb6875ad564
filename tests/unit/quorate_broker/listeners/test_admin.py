"""The Admin service: reads from the image, writes forwarded with the caller's principal."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

import pytest
from rpds import HashTrieMap

from quorate.errors import (
    InvalidRequestError,
    OutcomeUnknownError,
    OverloadedError,
    PeerRefusedError,
    QuorateError,
    QuorumUnavailableError,
    RequestTimedOutError,
)
from quorate.net.methods import (
    ADD_VOTER,
    ALTER_CONFIGS,
    CREATE_TOPICS,
    DELETE_TOPICS,
    DESCRIBE_QUORUM,
    REMOVE_VOTER,
    TRANSFER_LEADERSHIP,
)
from quorate.net.network import Method, Peer
from quorate.net.principal import Principal
from quorate.v1.admin_pb2 import (
    AddVoterRequest,
    AlterConfigsRequest,
    AlterConfigsResponse,
    CreatedTopic,
    CreateTopicsRequest,
    CreateTopicsResponse,
    DeleteTopicsRequest,
    DescribeClusterRequest,
    DescribeConfigsRequest,
    DescribeQuorumRequest,
    DescribeTopicsRequest,
    MetadataRequest,
    NewTopic,
    RemoveVoterRequest,
    TransferLeadershipRequest,
)
from quorate.v1.common_pb2 import ErrorCode
from quorate_broker.listeners.grpc.admin import AdminService
from quorate_broker.operations.admin import TIMEOUT_MS, TIMEOUT_MS_MAX
from quorate_broker.operations.metadata import TOPICS_MAX
from quorate_quorum.metadata.brokers import BrokerImage
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.partitions import PartitionImage, ReplicaImage
from quorate_quorum.metadata.topics import TopicImage
from quorate_quorum.node.listeners import parse
from tests.unit.quorate_broker.operations.builders import FakeReplicas, config, operations

Q = TypeVar("Q")
R = TypeVar("R")
ANN = Principal("User", "ann")
PEER = Peer("test", ANN)
A, B = b"a" * 16, b"b" * 16


def broker(broker_id: int, *, fenced: bool = False) -> BrokerImage:
    return BrokerImage(
        broker_id,
        10 + broker_id,
        b"i" * 16,
        (parse(f"h{broker_id}:7092"),),
        "grpc",
        "R1",
        "h",
        (),
        fenced,
        False,
    )


def topic(topic_id: bytes, name: str, configs: dict[str, str] | None = None) -> TopicImage:
    partition = PartitionImage(
        replicas=(ReplicaImage(0, b"d" * 16), ReplicaImage(1, b"e" * 16)),
        isr=(0,),
        elr=(1,),
        leader=0,
        leader_epoch=4,
        partition_epoch=9,
    )
    return TopicImage(
        topic_id,
        name,
        (partition, partition),
        HashTrieMap(configs or {}),
        created_ms=1_700_000_000_000,
    )


IMAGE = MetadataImage(
    offset=77,
    brokers=HashTrieMap({1: broker(1, fenced=True), 0: broker(0)}),
    topics=HashTrieMap(
        {B: topic(B, "__transaction_state"), A: topic(A, "zoo", {"retention.ms": "5"})}
    ),
    topic_ids=HashTrieMap({"zoo": A, "__transaction_state": B}),
    configs=HashTrieMap({"min.insync.replicas": "3", "flush.on.ack": "true"}),
)


class FakeClient:
    leader_id = 100
    quorum_generation = 2
    image = IMAGE

    def __init__(self) -> None:
        self.forwarded: list[tuple[str, object, Principal, int]] = []
        self.answer: Any = None

    async def forward(
        self, method: Method[Any, Any], request: Any, *, principal: Principal, timeout_ms: int
    ) -> Any:
        self.forwarded.append((method.path, request, principal, timeout_ms))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class FakePublisher:
    def __init__(self) -> None:
        self.waited: list[int] = []
        self.error: Exception | None = None

    async def wait_applied(self, offset: int, *, timeout_ms: int) -> None:
        self.waited.append(offset)
        if self.error is not None:
            raise self.error


class Fixture:
    def __init__(self, *, ready: bool = True) -> None:
        self.client = FakeClient()
        self.publisher = FakePublisher()
        self.ready = asyncio.Event()
        if ready:
            self.ready.set()
        made = operations(
            FakeReplicas(),
            config(),
            client=self.client,
            publisher=self.publisher,
            ready=self.ready,
        )
        self.service = AdminService(made, "cluster-1", lambda: 1_700_000_005_000)

    async def call(self, method: Method[Q, R], request: Q) -> R:
        """Call a method of the service as the listener does."""
        answer: R = await self.service.handlers()[method](request, PEER)
        return answer


class TestReads:
    async def test_metadata_names_unfenced_brokers_and_what_was_asked_for(self) -> None:
        response = await Fixture().service.metadata(
            MetadataRequest(topics=["zoo", "no"], topic_ids=[B, b"x" * 16, b"short"]), PEER
        )
        assert (response.cluster_id, response.controller, response.image_offset) == (
            "cluster-1",
            100,
            77,
        )
        assert [one.broker_id for one in response.brokers] == [0]
        assert response.now_ms - response.topics[0].created_ms == 5_000
        found = [(one.name, one.topic_id, one.error.code) for one in response.topics]
        assert found == [
            ("zoo", A, ErrorCode.ERROR_CODE_NONE),
            ("no", b"", ErrorCode.ERROR_CODE_UNKNOWN_TOPIC),
            ("__transaction_state", B, ErrorCode.ERROR_CODE_NONE),
            ("", b"x" * 16, ErrorCode.ERROR_CODE_UNKNOWN_TOPIC),
            ("", b"short", ErrorCode.ERROR_CODE_INVALID_REQUEST),
        ]
        second = response.topics[0].partitions[1]
        assert (second.partition, second.leader, second.leader_epoch) == (1, 0, 4)
        assert (list(second.replicas), list(second.isr), list(second.elr)) == ([0, 1], [0], [1])

    async def test_metadata_of_all_topics_and_of_none(self) -> None:
        service = Fixture().service
        everything = await service.metadata(MetadataRequest(all_topics=True), PEER)
        assert [(one.name, one.internal) for one in everything.topics] == [
            ("__transaction_state", True),
            ("zoo", False),
        ]
        nothing = await service.metadata(MetadataRequest(), PEER)
        assert not nothing.topics
        assert nothing.brokers

    async def test_reads_wait_until_the_broker_has_caught_up(self) -> None:
        fixture = Fixture(ready=False)
        waiting = asyncio.create_task(fixture.service.metadata(MetadataRequest(), PEER))
        await asyncio.sleep(0)
        assert not waiting.done()
        fixture.ready.set()
        assert (await waiting).image_offset == 77

    async def test_a_broker_that_never_catches_up_says_so(self) -> None:
        fixture = Fixture(ready=False)
        hurried = Peer("test", ANN, timeout_ms=1)
        with pytest.raises(QuorumUnavailableError, match="caught up"):
            await fixture.service.metadata(MetadataRequest(), hurried)
        configs = await fixture.service.describe_configs(DescribeConfigsRequest(), hurried)
        assert configs.error.code == ErrorCode.ERROR_CODE_QUORUM_UNAVAILABLE

    async def test_describe_topics(self) -> None:
        service = Fixture().service
        response = await service.describe_topics(DescribeTopicsRequest(), PEER)
        assert [one.topic.name for one in response.topics] == ["__transaction_state", "zoo"]
        assert dict(response.topics[1].configs) == {"retention.ms": "5"}
        response = await service.describe_topics(DescribeTopicsRequest(topics=["no"]), PEER)
        assert response.topics[0].topic.error.code == ErrorCode.ERROR_CODE_UNKNOWN_TOPIC

    async def test_describe_configs_says_where_each_value_comes_from(self) -> None:
        service = Fixture().service
        response = await service.describe_configs(DescribeConfigsRequest(topic="zoo"), PEER)
        found = {one.name: (one.value, one.source) for one in response.entries}
        assert found["retention.ms"] == ("5", "topic")
        assert found["min.insync.replicas"] == ("3", "cluster")
        assert found["segment.bytes"][1] == "default"
        assert found["flush.on.ack"] == ("false", "default")  # fixed when the topic was created
        assert "num.partitions" not in found
        cluster = await service.describe_configs(DescribeConfigsRequest(), PEER)
        assert "num.partitions" in {one.name for one in cluster.entries}
        unknown = await service.describe_configs(DescribeConfigsRequest(topic="no"), PEER)
        assert unknown.error.code == ErrorCode.ERROR_CODE_UNKNOWN_TOPIC

    async def test_describe_cluster_names_fenced_brokers_too(self) -> None:
        response = await Fixture().service.describe_cluster(DescribeClusterRequest(), PEER)
        assert [(one.broker_id, one.fenced) for one in response.brokers] == [(0, False), (1, True)]
        assert response.quorum_generation == 2

    async def test_a_topic_that_is_named_twice_is_refused(self) -> None:
        service = Fixture().service
        for request in (MetadataRequest(topics=["a", "a"]), MetadataRequest(topic_ids=[A, A])):
            with pytest.raises(InvalidRequestError, match="twice; name each"):
                await service.metadata(request, PEER)
        with pytest.raises(InvalidRequestError, match="a twice; name each"):
            await service.describe_topics(DescribeTopicsRequest(topics=["a", "a"]), PEER)

    async def test_requests_that_name_too_much_are_refused(self) -> None:
        fixture = Fixture()
        names = [str(number) for number in range(TOPICS_MAX)]
        with pytest.raises(InvalidRequestError, match="10001 topics"):
            await fixture.service.metadata(MetadataRequest(topics=names, topic_ids=[A]), PEER)
        with pytest.raises(InvalidRequestError):
            await fixture.service.describe_topics(DescribeTopicsRequest(topics=[*names, "b"]), PEER)
        topics = [NewTopic(name=name) for name in (*names, "b")]
        created = await fixture.call(CREATE_TOPICS, CreateTopicsRequest(topics=topics))
        assert created.topics[0].error.code == ErrorCode.ERROR_CODE_INVALID_REQUEST


class TestWrites:
    async def test_create_goes_to_the_controller_and_waits_for_this_broker(self) -> None:
        fixture = Fixture()
        fixture.client.answer = CreateTopicsResponse(topics=[CreatedTopic(name="n")])
        request = CreateTopicsRequest(topics=[NewTopic(name="n")], timeout_ms=1500)
        response = await fixture.call(CREATE_TOPICS, request)
        assert response.topics[0].name == "n"
        assert fixture.client.forwarded == [(CREATE_TOPICS.path, request, ANN, 1500)]
        assert fixture.publisher.waited == [77]

    async def test_a_slow_broker_does_not_hide_what_was_decided(self) -> None:
        fixture = Fixture()
        fixture.publisher.error = RequestTimedOutError("slow")
        fixture.client.answer = CreateTopicsResponse(topics=[CreatedTopic(name="n")])
        response = await fixture.call(CREATE_TOPICS, CreateTopicsRequest())
        assert response.topics[0].name == "n"

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (QuorumUnavailableError("none"), ErrorCode.ERROR_CODE_QUORUM_UNAVAILABLE),
            (PeerRefusedError("gone"), ErrorCode.ERROR_CODE_QUORUM_UNAVAILABLE),
            (OutcomeUnknownError("sent"), ErrorCode.ERROR_CODE_OUTCOME_UNKNOWN),
            (OverloadedError("too many"), ErrorCode.ERROR_CODE_OVERLOADED),
        ],
    )
    async def test_failures_are_in_the_response(self, error: QuorateError, code: int) -> None:
        fixture = Fixture()
        fixture.client.answer = error
        created = await fixture.call(
            CREATE_TOPICS, CreateTopicsRequest(topics=[NewTopic(name="n", topic_id=A)])
        )
        assert [(one.name, one.topic_id, one.error.code) for one in created.topics] == [
            ("n", A, code)
        ]
        deleted = await fixture.call(
            DELETE_TOPICS, DeleteTopicsRequest(topics=["n"], topic_ids=[B])
        )
        assert [(one.name, one.topic_id, one.error.code) for one in deleted.topics] == [
            ("n", b"", code),
            ("", B, code),
        ]
        assert (await fixture.call(ALTER_CONFIGS, AlterConfigsRequest())).error.code == code
        # A question changes nothing: without an answer, no outcome is unknown.
        unanswered = (
            ErrorCode.ERROR_CODE_QUORUM_UNAVAILABLE
            if code == ErrorCode.ERROR_CODE_OUTCOME_UNKNOWN
            else code
        )
        quorum = await fixture.call(DESCRIBE_QUORUM, DescribeQuorumRequest())
        assert (quorum.error.code, quorum.leader) == (unanswered, -1)
        moved = await fixture.call(TRANSFER_LEADERSHIP, TransferLeadershipRequest(voter_id=7))
        assert (moved.error.code, moved.leader) == (code, -1)
        added = await fixture.call(ADD_VOTER, AddVoterRequest(voter_id=7))
        gone = await fixture.call(REMOVE_VOTER, RemoveVoterRequest(voter_id=7))
        assert (added.error.code, gone.error.code) == (code, code)
        assert [path for path, *_ in fixture.client.forwarded] == [
            CREATE_TOPICS.path,
            DELETE_TOPICS.path,
            ALTER_CONFIGS.path,
            DESCRIBE_QUORUM.path,
            TRANSFER_LEADERSHIP.path,
            ADD_VOTER.path,
            REMOVE_VOTER.path,
        ]

    async def test_timeouts_are_bounded(self) -> None:
        fixture = Fixture()
        fixture.client.answer = AlterConfigsResponse()
        await fixture.call(ALTER_CONFIGS, AlterConfigsRequest())
        fixture.client.answer = CreateTopicsResponse()
        request = CreateTopicsRequest(timeout_ms=4_000_000_000)
        await fixture.call(CREATE_TOPICS, request)
        waits = [timeout for *_, timeout in fixture.client.forwarded]
        assert waits == [TIMEOUT_MS, TIMEOUT_MS_MAX]
