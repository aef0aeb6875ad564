"""AlterPartitionReassignments and ListPartitionReassignments (KIP-455, KIP-860)."""

from __future__ import annotations

from collections.abc import Mapping

from quorate.errors import QuorateError, from_wire, raise_if_error
from quorate.net.methods import LIST_REASSIGNMENTS, REASSIGN_PARTITIONS
from quorate.v1 import admin_pb2 as admin
from quorate_broker.listeners.kafka import versions
from quorate_broker.listeners.kafka.call import Call, Handler
from quorate_broker.listeners.kafka.errors import NONE, code_of
from quorate_broker.listeners.kafka.messages.alter_partition_reassignments import (
    AlterPartitionReassignmentsRequest,
    AlterPartitionReassignmentsResponse,
    ReassignablePartitionResponse,
    ReassignableTopicResponse,
)
from quorate_broker.listeners.kafka.messages.list_partition_reassignments import (
    ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse,
    OngoingPartitionReassignment,
    OngoingTopicReassignment,
)
from quorate_broker.operations.operations import Operations
from quorate_broker.operations.partitions import check_count
from quorate_broker.replicas.replicas import Replicas


class ReassignmentRequests:
    """Passes reassignments, and the question which are under way, on to the controller."""

    def __init__(self, operations: Operations, replicas: Replicas, partitions_max: int) -> None:
        self._admin = operations.admin
        self._replicas = replicas
        self._partitions_max = partitions_max

    def handlers(self) -> Mapping[int, Handler]:
        return {
            versions.ALTER_PARTITION_REASSIGNMENTS: self.alter,
            versions.LIST_PARTITION_REASSIGNMENTS: self.list,
        }

    async def alter(
        self, call: Call[AlterPartitionReassignmentsRequest]
    ) -> AlterPartitionReassignmentsResponse:
        """Begin reassignments. A partition without replicas in the request is cancelled."""
        request = call.request
        named = sum(len(one.partitions) for one in request.topics)
        check_count(named, self._partitions_max, self._replicas)
        try:
            response = await self._admin.forward(
                REASSIGN_PARTITIONS,
                _asked(request),
                call.client.principal,
                timeout_ms=max(0, request.timeout_ms),
                caller_timeout_ms=0,
            )
            raise_if_error(response.error)
        except QuorateError as error:
            return AlterPartitionReassignmentsResponse(
                error_code=code_of(error),
                error_message=str(error),
                allow_replication_factor_change=request.allow_replication_factor_change,
            )
        return AlterPartitionReassignmentsResponse(
            error_code=NONE,
            error_message=None,
            allow_replication_factor_change=request.allow_replication_factor_change,
            responses=_results(response),
        )

    async def list(
        self, call: Call[ListPartitionReassignmentsRequest]
    ) -> ListPartitionReassignmentsResponse:
        """List the reassignments of the named partitions, or all of them, at most 10,000."""
        asked = call.request.topics
        check_count(
            sum(len(one.partition_indexes) for one in asked or ()),
            self._partitions_max,
            self._replicas,
        )
        if asked is not None and not asked:
            return ListPartitionReassignmentsResponse(error_message=None)
        request = admin.ListReassignmentsRequest(
            topics=[
                admin.ElectionTopic(topic=one.name, partitions=one.partition_indexes)
                for one in asked or ()
            ]
        )
        try:
            found = await self._admin.forward(
                LIST_REASSIGNMENTS,
                request,
                call.client.principal,
                timeout_ms=max(0, call.request.timeout_ms),
                caller_timeout_ms=0,
            )
            raise_if_error(found.error)
        except QuorateError as error:
            return ListPartitionReassignmentsResponse(
                error_code=code_of(error), error_message=str(error)
            )
        return ListPartitionReassignmentsResponse(
            error_message=None,
            topics=[
                OngoingTopicReassignment(
                    topic.topic,
                    [
                        OngoingPartitionReassignment(
                            one.partition, list(one.replicas), list(one.adding), list(one.removing)
                        )
                        for one in topic.partitions
                    ],
                )
                for topic in found.topics
            ],
        )


def _asked(request: AlterPartitionReassignmentsRequest) -> admin.ReassignPartitionsRequest:
    return admin.ReassignPartitionsRequest(
        topics=[
            admin.ReassignedTopic(
                topic=topic.name,
                partitions=[
                    admin.ReassignedPartition(
                        partition=one.partition_index,
                        replicas=one.replicas or (),
                        cancel=one.replicas is None,
                    )
                    for one in topic.partitions
                ],
            )
            for topic in request.topics
        ],
        keep_replication_factor=not request.allow_replication_factor_change,
        timeout_ms=max(0, request.timeout_ms),
    )


def _results(response: admin.ReassignPartitionsResponse) -> list[ReassignableTopicResponse]:
    by_topic: dict[str, list[ReassignablePartitionResponse]] = {}
    for one in response.topics:
        by_topic.setdefault(one.topic, []).extend(map(_result, one.partitions))
    return [ReassignableTopicResponse(topic, found) for topic, found in by_topic.items()]


def _result(one: admin.ReassignedPartitionResult) -> ReassignablePartitionResponse:
    if not one.error.code:
        return ReassignablePartitionResponse(one.partition, NONE, None)
    return ReassignablePartitionResponse(
        one.partition, code_of(from_wire(one.error)), one.error.message
    )
