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
    QuorumUnavailableError,
    UnknownTopicError,
    to_wire,
)
from quorate.v1 import admin_pb2 as admin
from quorate_broker.listeners.kafka import errors as codes
from quorate_broker.listeners.kafka.call import Call, Client
from quorate_broker.listeners.kafka.messages import alter_partition_reassignments as alter
from quorate_broker.listeners.kafka.messages import list_partition_reassignments as listing
from quorate_broker.listeners.kafka.reassignments import ReassignmentRequests

RESULTS: list[tuple[QuorateError | None, int]] = [
    (None, codes.NONE),
    (InvalidReplicaAssignmentError("no"), codes.INVALID_REPLICA_ASSIGNMENT),
    (NoReassignmentInProgressError("no"), codes.NO_REASSIGNMENT_IN_PROGRESS),
    (UnknownTopicError("no"), codes.UNKNOWN_TOPIC_OR_PARTITION),
]
CLIENT = Client("a", "kafka")


class Controller:
    """Notes what it is asked, and gives the answer of the test."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[Any] = []

    async def forward(self, method: Any, request: Any, principal: Any, **timeouts: int) -> Any:
        self.asked.append(request)
        if isinstance(self.answer, QuorateError):
            raise self.answer
        return self.answer


def requests(controller: Controller) -> Any:
    operations: Any = SimpleNamespace(admin=controller)
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


def listed(
    controller: Controller, named: list[tuple[str, list[int]]] | None
) -> listing.ListPartitionReassignmentsResponse:
    topics = None
    if named is not None:
        topics = [listing.ListPartitionReassignmentsTopics(*one) for one in named]
    request = listing.ListPartitionReassignmentsRequest(topics=topics)
    found: listing.ListPartitionReassignmentsResponse = asyncio.run(
        requests(controller).list(Call(request, 0, CLIENT))
    )
    return found


def test_what_is_being_moved_is_listed_by_the_controller() -> None:
    answer = admin.ListReassignmentsResponse()
    answer.topics.add(topic="orders").partitions.add(
        partition=0, replicas=[3, 1, 0, 2], adding=[3], removing=[0, 2]
    )
    moved = listing.OngoingPartitionReassignment(0, [3, 1, 0, 2], [3], [0, 2])
    named = [("orders", [0, 1, -1]), ("still", [0])]
    for asked_for, sent in ((None, []), (named, named)):
        controller = Controller(answer)
        found = listed(controller, asked_for)
        assert found.error_code == codes.NONE
        assert [(one.name, one.partitions) for one in found.topics] == [("orders", [moved])]
        [request] = controller.asked
        assert [(one.topic, list(one.partitions)) for one in request.topics] == sent


def test_no_topic_is_not_all_topics() -> None:
    controller = Controller(admin.ListReassignmentsResponse())
    assert listed(controller, []).topics == []
    assert controller.asked == []


def test_without_a_controller_nothing_is_listed_and_that_is_said() -> None:
    found = listed(Controller(QuorumUnavailableError("no")), None)
    assert found.error_code != codes.NONE
    assert found.error_message == "no"
