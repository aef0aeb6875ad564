"""ElectLeaders: the controller decides, and a Kafka client gets Kafka's codes."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from quorate.errors import (
    ClusterAuthorizationFailedError,
    ElectionNotNeededError,
    EligibleLeadersNotAvailableError,
    PreferredLeaderNotAvailableError,
    QuorateError,
    UnknownTopicError,
    to_wire,
)
from quorate.v1 import admin_pb2 as admin
from quorate_broker.listeners.kafka import errors as codes
from quorate_broker.listeners.kafka.call import Call, Client
from quorate_broker.listeners.kafka.elections import ElectionRequests
from quorate_broker.listeners.kafka.messages.elect_leaders import (
    ElectLeadersRequest,
    ElectLeadersResponse,
    TopicPartitions,
)

RESULTS: list[tuple[QuorateError | None, int]] = [
    (None, codes.NONE),
    (ElectionNotNeededError("it leads"), codes.ELECTION_NOT_NEEDED),
    (PreferredLeaderNotAvailableError("no"), codes.PREFERRED_LEADER_NOT_AVAILABLE),
    (EligibleLeadersNotAvailableError("no"), codes.ELIGIBLE_LEADERS_NOT_AVAILABLE),
    (UnknownTopicError("no"), codes.UNKNOWN_TOPIC_OR_PARTITION),
]


class Controller:
    """Notes what it is asked, and gives the answer of the test."""

    def __init__(self, answer: admin.ElectLeadersResponse | QuorateError) -> None:
        self.answer = answer
        self.asked: list[admin.ElectLeadersRequest] = []

    async def forward(self, method: Any, request: Any, principal: Any, **timeouts: int) -> Any:
        self.asked.append(request)
        if isinstance(self.answer, QuorateError):
            raise self.answer
        return self.answer


def ask(controller: Controller, request: ElectLeadersRequest) -> ElectLeadersResponse:
    operation: Any = controller
    replicas: Any = SimpleNamespace(held=0)
    call = Call(request, 2, Client("a", "kafka"))
    return asyncio.run(ElectionRequests(operation, replicas, 100).elect_leaders(call))


def test_each_result_has_its_code_and_message() -> None:
    answer = admin.ElectLeadersResponse()
    for index, (error, _) in enumerate(RESULTS):
        result = answer.topics.add(topic=f"t{index % 2}").partitions.add(partition=index)
        if error is not None:
            result.error.CopyFrom(to_wire(error))
    controller = Controller(answer)
    asked = [TopicPartitions("t0", [0, 2, 4]), TopicPartitions("t1", [1, 3])]
    found = ask(controller, ElectLeadersRequest(1, asked, 500))
    assert {
        one.partition_id: one.error_code
        for topic in found.replica_election_results
        for one in topic.partition_result
    } == {index: code for index, (_, code) in enumerate(RESULTS)}
    assert [one.topic for one in found.replica_election_results] == ["t0", "t1"]
    [request] = controller.asked
    assert (request.unclean, request.all_topics, request.timeout_ms) == (True, False, 500)
    assert [(one.topic, list(one.partitions)) for one in request.topics] == [
        ("t0", [0, 2, 4]),
        ("t1", [1, 3]),
    ]


def test_without_topics_all_are_meant_and_an_empty_list_means_none() -> None:
    controller = Controller(admin.ElectLeadersResponse())
    nothing: list[TopicPartitions] = []
    for asked in (None, nothing):
        found = ask(controller, ElectLeadersRequest(0, asked))
        assert (found.error_code, list(found.replica_election_results)) == (codes.NONE, [])
    assert [one.all_topics for one in controller.asked] == [True, False]


@pytest.mark.parametrize("is_raised", [True, False])
def test_a_failure_of_the_whole_is_told_of_each_partition_too(is_raised: bool) -> None:
    """Version 0 of the answer has no other place for it."""
    error = ClusterAuthorizationFailedError("no")
    answer = admin.ElectLeadersResponse(error=to_wire(error))
    found = ask(
        Controller(error if is_raised else answer),
        ElectLeadersRequest(0, [TopicPartitions("t", [3])]),
    )
    assert found.error_code == codes.CLUSTER_AUTHORIZATION_FAILED
    [result] = found.replica_election_results[0].partition_result
    assert (result.partition_id, result.error_code) == (3, codes.CLUSTER_AUTHORIZATION_FAILED)


def test_another_kind_of_election_is_refused() -> None:
    controller = Controller(admin.ElectLeadersResponse())
    assert ask(controller, ElectLeadersRequest(2, None)).error_code == codes.INVALID_REQUEST
    assert controller.asked == []
