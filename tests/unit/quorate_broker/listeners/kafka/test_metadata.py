"""Metadata: which brokers and topics a client is told."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from quorate.errors import InvalidRequestError
from quorate.net.principal import Principal
from quorate_broker.listeners.kafka.auto_creation import AutoCreation
from quorate_broker.listeners.kafka.messages.metadata import (
    MetadataRequest,
    MetadataRequestTopic,
    MetadataResponse,
)
from quorate_broker.listeners.kafka.metadata import MetadataRequests
from quorate_broker.listeners.kafka.recently_fenced import NAMED_S, RecentlyFenced
from quorate_broker.operations.metadata import TOPICS_MAX, Metadata
from quorate_broker.operations.rights import Rights
from quorate_quorum.metadata.delta import MetadataDelta
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.node.authorizer import ALLOW_ALL, Authorizer, Operation, Resource
from tests.unit.quorate_broker.listeners.kafka.families import (
    NAME,
    broker,
    call,
    image_of,
    partition,
)
from tests.unit.quorate_broker.operations.builders import TOPIC

IMAGE = image_of(
    [
        broker(0, rack="R1"),
        broker(1, "grpc://b1:7092"),
        broker(2, fenced=True),
        broker(3, "grpc://b3:7092", "kafka://[::1]:9092"),
    ],
    zoo=[partition(0, 0, 1, 2), partition(1, 1, 0), partition(-1, 2), partition(3, 3)],
    aviary=[partition(0)],
)
#: Nothing is created: no request of these tests asks for it.
NO_CREATION: AutoCreation = None  # type: ignore[assignment]


async def told(
    version: int, *names: str, ids: tuple[bytes, ...] = (), image: MetadataImage = IMAGE
) -> MetadataResponse:
    topics = [MetadataRequestTopic(name=name) for name in names]
    topics += [MetadataRequestTopic(topic_id=one, name=None) for one in ids]
    return await answered(version, MetadataRequest(topics), image)


async def answered(
    version: int,
    request: MetadataRequest,
    image: MetadataImage = IMAGE,
    recently_fenced: RecentlyFenced | None = None,
    authorizer: Authorizer = ALLOW_ALL,
) -> MetadataResponse:
    ready = asyncio.Event()
    ready.set()
    client = SimpleNamespace(image=image, leader_id=100, quorum_generation=1)
    metadata = Metadata(client, ready, authorizer)  # type: ignore[arg-type]
    without_creation = replace(request, allow_auto_topic_creation=False)
    fenced = recently_fenced or RecentlyFenced(lambda: 0.0)
    handlers = MetadataRequests(metadata, NO_CREATION, fenced, Rights(authorizer), "cluster-id", 3)
    return await handlers.metadata(call(without_creation, version))


@pytest.mark.parametrize(
    ("version", "topics", "names"),
    [
        (0, [], ["aviary", NAME]),  # version 0 cannot say null
        (1, [], []),
        (1, None, ["aviary", NAME]),
        (13, [], []),
        (13, None, ["aviary", NAME]),
    ],
)
async def test_null_asks_for_all_topics_and_an_empty_list_for_none(
    version: int, topics: list[MetadataRequestTopic] | None, names: list[str]
) -> None:
    response = await answered(version, MetadataRequest(topics))
    assert [one.name for one in response.topics] == names


async def test_a_client_is_told_the_addresses_of_its_own_listener() -> None:
    response = await told(13)
    assert [(one.node_id, one.host, one.port, one.rack) for one in response.brokers] == [
        (0, "k0", 9092, "R1"),
        (3, "::1", 9092, None),
    ]
    assert response.cluster_id == "cluster-id"


async def test_the_controller_is_a_broker_that_speaks_kafka() -> None:
    assert (await told(13)).controller_id == 3


@pytest.mark.parametrize(("version", "error"), [(13, 72), (6, 72), (5, 5), (0, 5)])
async def test_a_leader_without_the_listener_of_the_client_is_named_as_an_error(
    version: int, error: int
) -> None:
    (topic,) = (await told(version, NAME)).topics
    found = [(one.partition_index, one.error_code, one.leader_id) for one in topic.partitions]
    assert found == [(0, 0, 0), (1, error, -1), (2, 5, -1), (3, 0, 3)]


async def test_a_topic_has_its_replicas_isr_and_those_that_are_offline() -> None:
    (topic,) = (await told(13, NAME)).topics
    first = topic.partitions[0]
    assert (topic.name, topic.topic_id, topic.is_internal) == (NAME, TOPIC, False)
    assert (tuple(first.replica_nodes), tuple(first.isr_nodes)) == ((0, 1, 2), (0, 1, 2))
    assert (list(first.offline_replicas), first.leader_epoch) == ([2], 4)
    assert topic.topic_authorized_operations == -2147483648


class DescribeAndRead:
    """An authorizer for those who may describe topics, and read some."""

    def authorize(self, principal: Principal, operation: Operation, resource: Resource) -> bool:
        if operation is Operation.READ:
            return resource.name == NAME
        return operation in (Operation.DESCRIBE, Operation.CREATE)


async def test_a_client_that_asks_is_told_what_it_may_do() -> None:
    """The bits are the codes of Kafka's AclOperation (KIP-430)."""
    asked = MetadataRequest(
        None, include_cluster_authorized_operations=True, include_topic_authorized_operations=True
    )
    response = await answered(10, asked)
    everything = sum(1 << code for code in (3, 4, 5, 6, 7, 8, 10, 11))
    assert [one.topic_authorized_operations for one in response.topics] == [everything] * 2
    assert response.cluster_authorized_operations == sum(
        1 << code for code in (5, 7, 8, 9, 10, 11, 12)
    )
    response = await answered(10, asked, authorizer=DescribeAndRead())
    assert [one.topic_authorized_operations for one in response.topics] == [
        1 << 5 | 1 << 8,
        1 << 3 | 1 << 5 | 1 << 8,
    ]
    assert response.cluster_authorized_operations == 1 << 5 | 1 << 8
    unasked = await answered(10, MetadataRequest(None))
    assert {one.topic_authorized_operations for one in unasked.topics} == {-(1 << 31)}
    assert unasked.cluster_authorized_operations == -(1 << 31)


async def test_topics_that_are_not_there_are_errors_by_name_and_by_id() -> None:
    response = await told(13, "nope", NAME, ids=(b"?" * 16, TOPIC))
    assert [(one.error_code, one.name, one.topic_id) for one in response.topics] == [
        (3, "nope", bytes(16)),
        (0, NAME, TOPIC),
        (100, None, b"?" * 16),
        (0, NAME, TOPIC),
    ]


async def test_a_topic_that_is_named_twice_is_told_once() -> None:
    assert [one.name for one in (await told(9, NAME, NAME)).topics] == [NAME]


async def test_the_topics_of_a_request_are_bounded() -> None:
    topics = [MetadataRequestTopic(name=f"t{i}") for i in range(TOPICS_MAX + 1)]
    with pytest.raises(InvalidRequestError):
        await answered(9, MetadataRequest(topics))


# brokers that were fenced a moment ago


def image_with(*fenced: int) -> MetadataImage:
    """Return an image of three brokers, some of them fenced. The lowest other one leads a topic."""
    brokers = [broker(one, fenced=one in fenced) for one in range(3)]
    leader = min({0, 1, 2} - set(fenced))
    return image_of(brokers, zoo=[partition(leader, 0, 1, 2)])


async def test_a_broker_that_was_just_fenced_is_named_for_some_seconds_and_leads_nothing() -> None:
    now = 100.0
    fenced = RecentlyFenced(lambda: now)
    before, after = image_with(), image_with(0)
    fenced.image_changed(MetadataDelta.between(before, after), after)
    request = MetadataRequest([MetadataRequestTopic(name=NAME)])
    for seconds, named in ((0.0, [1, 2, 0]), (NAMED_S, [1, 2, 0]), (NAMED_S + 0.1, [1, 2])):
        now = 100.0 + seconds
        response = await answered(9, request, after, fenced)
        assert [one.node_id for one in response.brokers] == named
        assert response.topics[0].partitions[0].leader_id == 1


async def test_a_broker_that_is_back_is_named_once() -> None:
    fenced = RecentlyFenced(lambda: 0.0)
    before, after = image_with(), image_with(0)
    fenced.image_changed(MetadataDelta.between(before, after), after)
    fenced.image_changed(MetadataDelta.between(after, before), before)
    response = await answered(9, MetadataRequest([]), before, fenced)
    assert [one.node_id for one in response.brokers] == [0, 1, 2]
    fenced.image_changed(MetadataDelta.between(image_with(2), after), after)
    response = await answered(9, MetadataRequest([]), after, fenced)
    assert [one.node_id for one in response.brokers] == [1, 2, 0]


async def test_a_broker_that_was_fenced_at_the_start_is_not_named() -> None:
    fenced = RecentlyFenced(lambda: 0.0)
    old, new = image_with(0), image_with(0, 1)
    fenced.image_changed(MetadataDelta.between(old, new), new)
    response = await answered(9, MetadataRequest([]), new, fenced)
    assert [one.node_id for one in response.brokers] == [2, 1]
