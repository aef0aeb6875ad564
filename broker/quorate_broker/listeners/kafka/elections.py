"""ElectLeaders: the controller decides, and this broker passes the request on (KIP-460)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from quorate.errors import InvalidRequestError, QuorateError, from_wire, raise_if_error
from quorate.net.methods import ELECT_LEADERS
from quorate.v1 import admin_pb2 as admin
from quorate_broker.listeners.kafka import versions
from quorate_broker.listeners.kafka.call import Call, Handler
from quorate_broker.listeners.kafka.errors import NONE, code_of
from quorate_broker.listeners.kafka.messages.elect_leaders import (
    ElectLeadersRequest,
    ElectLeadersResponse,
    PartitionResult,
    ReplicaElectionResult,
)
from quorate_broker.operations.admin import Admin
from quorate_broker.operations.partitions import check_count
from quorate_broker.replicas.replicas import Replicas

#: Kafka's number of the election of a partition's first replica, and that of the election of a
#: leader for a partition without one, which may lose acknowledged records.
PREFERRED: Final = 0
UNCLEAN: Final = 1


class ElectionRequests:
    """Answers ElectLeaders. Without topics, it is about all partitions that need an election."""

    def __init__(self, operation: Admin, replicas: Replicas, partitions_max: int) -> None:
        self._admin = operation
        self._replicas = replicas
        self._partitions_max = partitions_max

    def handlers(self) -> Mapping[int, Handler]:
        return {versions.ELECT_LEADERS: self.elect_leaders}

    async def elect_leaders(self, call: Call[ElectLeadersRequest]) -> ElectLeadersResponse:
        request = call.request
        asked = request.topic_partitions or ()
        check_count(sum(len(one.partitions) for one in asked), self._partitions_max, self._replicas)
        try:
            response = await self._admin.forward(
                ELECT_LEADERS,
                _asked(request),
                call.client.principal,
                timeout_ms=max(0, request.timeout_ms),
                caller_timeout_ms=0,
            )
            raise_if_error(response.error)
        except QuorateError as error:
            return _failed(request, error)
        return ElectLeadersResponse(error_code=NONE, replica_election_results=_results(response))


def _asked(request: ElectLeadersRequest) -> admin.ElectLeadersRequest:
    if request.election_type not in (PREFERRED, UNCLEAN):
        raise InvalidRequestError(
            f"election_type {request.election_type}: 0 (preferred) and 1 (unclean) are"
        )
    return admin.ElectLeadersRequest(
        topics=[
            admin.ElectionTopic(topic=one.topic, partitions=one.partitions)
            for one in request.topic_partitions or ()
        ],
        all_topics=request.topic_partitions is None,
        unclean=request.election_type == UNCLEAN,
        timeout_ms=max(0, request.timeout_ms),
    )


def _results(response: admin.ElectLeadersResponse) -> list[ReplicaElectionResult]:
    by_topic: dict[str, list[PartitionResult]] = {}
    for one in response.topics:
        by_topic.setdefault(one.topic, []).extend(map(_result, one.partitions))
    return [ReplicaElectionResult(topic, found) for topic, found in by_topic.items()]


def _result(one: admin.ElectedPartition) -> PartitionResult:
    if not one.error.code:
        return PartitionResult(one.partition, NONE, None)
    return PartitionResult(one.partition, code_of(from_wire(one.error)), one.error.message)


def _failed(request: ElectLeadersRequest, error: QuorateError) -> ElectLeadersResponse:
    """Return the answer to a request that failed as a whole.

    Each partition has the error, too: version 0 has no other place for it.
    """
    code = code_of(error)
    return ElectLeadersResponse(
        error_code=code,
        replica_election_results=[
            ReplicaElectionResult(
                one.topic, [PartitionResult(index, code, str(error)) for index in one.partitions]
            )
            for one in request.topic_partitions or ()
        ],
    )
