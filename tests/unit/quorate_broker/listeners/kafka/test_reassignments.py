"""AlterPartitionReassignments and ListPartitionReassignments, with Kafka's codes."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from quorate.errors import (
    ClusterAuthorizationFailedError,
    InvalidReplicaAssignmentError,
    InvalidRequestError,
    NoReassignmentInProgressError,
    QuorateError,
    UnknownTopicError,
    to_wire,
)
from quorate.v1 import admin_pb2 as admin
from quorate_broker.listeners.kafka import errors as codes
from quorate_broker.listeners.kafka.call import Call, Client
from quorate_broker.listeners.kafka.messages import alter_partition_reassignments as alter
from quorate_broker.listeners.kafka.messages import list_partition_reassignments as listing
from quorate_broker.listeners.kafka.reassignments import ReassignmentRequests
from quorate_broker.operations.metadata import Metadata
from quorate_quorum.controller.decisions.reassignment import Reassignments
from quorate_quorum.metadata.delta import replayed
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.node.authorizer import AllowAll
from tests.unit.quorate_quorum.metadata.builders import brokers, context, with_partition

RESULTS: list[tuple[QuorateError | None, int]] = [
    (None, codes.NONE),
    (InvalidReplicaAssignmentError("no"), codes.INVALID_REPLICA_ASSIGNMENT),
    (NoReassignmentInProgressError("no"), codes.NO_REASSIGNMENT_IN_PROGRESS),
    (UnknownTopicError("no"), codes.UNKNOWN_TOPIC_OR_PARTITION),
]
CLIENT = Client("a", "kafka")


class Controller:
    """Notes what it is asked, and gives the answer of the test."""

    def __init__(self, answer: admin.ReassignPartitionsResponse | QuorateError) -> None:
        self.answer = answer
        self.asked: list[admin.ReassignPartitionsRequest] = []

    async def forward(self, method: Any, request: Any, principal: Any, **timeouts: int) -> Any:
        self.asked.append(request)
        if isinstance(self.answer, QuorateError):
            raise self.answer
        return self.answer


def requests(controller: Controller | None = None, image: MetadataImage | None = None) -> Any:
    ready = asyncio.Event()
    ready.set()
    client: Any = SimpleNamespace(image=image)
    metadata = Metadata(client, ready, AllowAll())
    operations: Any = SimpleNamespace(admin=controller, metadata=metadata)
    replicas: Any = SimpleNamespace(held=0)
    return ReassignmentRequests(operations, replicas, 100)


def change(
    controller: Controller, request: alter.AlterPartitionReassignmentsRequest
) -> alter.AlterPartitionReassignmentsResponse:
    found: alter.AlterPartitionReassignmentsResponse = asyncio.run(
        requests(controller).alter(Call(request, 1, CLIENT))
    )
    return found


def asked(count: int = 1) -> alter.AlterPartitionReassignmentsRequest:
    parts = [alter.ReassignablePartition(n, [1, 2]) for n in range(count)]
    return alter.AlterPartitionReassignmentsRequest(topics=[alter.ReassignableTopic("t", parts)])


def test_each_result_has_its_code_and_message() -> None:
    answer = admin.ReassignPartitionsResponse()
    topic = answer.topics.add(topic="t")
    for number, (error, _) in enumerate(RESULTS):
        topic.partitions.add(partition=number, error=to_wire(error) if error else None)
    found = change(Controller(answer), asked(len(RESULTS)))
    assert found.error_code == codes.NONE
    [told] = found.responses
    assert [(p.partition_index, p.error_code) for p in told.partitions] == [
        (number, code) for number, (_, code) in enumerate(RESULTS)
    ]
    assert [p.error_message for p in told.partitions] == [None, "no", "no", "no"]


def test_a_partition_without_replicas_is_cancelled() -> None:
    controller = Controller(admin.ReassignPartitionsResponse())
    parts = [alter.ReassignablePartition(0, None), alter.ReassignablePartition(1, [])]
    request = alter.AlterPartitionReassignmentsRequest(
        timeout_ms=-1,
        allow_replication_factor_change=False,
        topics=[alter.ReassignableTopic("t", parts)],
    )
    found = change(controller, request)
    assert not found.allow_replication_factor_change
    [sent] = controller.asked
    assert sent.keep_replication_factor
    assert [(p.cancel, list(p.replicas)) for p in sent.topics[0].partitions] == [
        (True, []),
        (False, []),  # the controller refuses an empty target
    ]


def test_a_request_that_fails_has_one_code() -> None:
    found = change(Controller(ClusterAuthorizationFailedError("no")), asked())
    assert (found.error_code, found.responses) == (codes.CLUSTER_AUTHORIZATION_FAILED, [])


def test_a_request_that_names_too_many_partitions_is_refused() -> None:
    controller = Controller(admin.ReassignPartitionsResponse())
    with pytest.raises(InvalidRequestError):
        change(controller, asked(101))
    assert controller.asked == []


def test_what_is_being_moved_is_listed() -> None:
    image = with_partition(brokers(range(5)), [0, 1, 2])
    image = with_partition(image, [0], number=2, name="still")
    request = admin.ReassignPartitionsRequest()
    request.topics.add(
        topic="orders", partitions=[admin.ReassignedPartition(partition=0, replicas=[3, 1])]
    )
    image = replayed(image, Reassignments(request).next(image, context(image)).events)

    def listed(named: list[tuple[str, list[int]]] | None) -> list[Any]:
        topics = None
        if named is not None:
            topics = [listing.ListPartitionReassignmentsTopics(*one) for one in named]
        call = Call(listing.ListPartitionReassignmentsRequest(topics=topics), 0, CLIENT)
        found = asyncio.run(requests(image=image).list(call))
        assert found.error_code == codes.NONE
        return [(topic.name, topic.partitions) for topic in found.topics]

    moved = listing.OngoingPartitionReassignment(0, (3, 1, 0, 2), (3,), (0, 2))
    assert listed(None) == [("orders", [moved])]
    assert listed([("orders", [0, 1, -1]), ("still", [0]), ("nothing", [0])]) == [
        ("orders", [moved])
    ]
    assert listed([("still", [0])]) == []
