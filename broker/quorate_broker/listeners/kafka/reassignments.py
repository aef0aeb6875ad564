"""AlterPartitionReassignments and ListPartitionReassignments (KIP-455, KIP-860)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from quorate.errors import QuorateError, from_wire, raise_if_error
from quorate.net.methods import REASSIGN_PARTITIONS
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
from quorate_broker.operations.partitions import PARTITIONS_A_TURN, check_count
from quorate_broker.replicas.replicas import Replicas


class ReassignmentRequests:
    """Passes reassignments on to the controller, and lists those of this broker's image."""

    def __init__(self, operations: Operations, replicas: Replicas, partitions_max: int) -> None:
        self._admin = operations.admin
        self._metadata = operations.metadata
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
        """List the reassignments of the named partitions, or all of them."""
        asked = call.request.topics
        check_count(
            sum(len(one.partition_indexes) for one in asked or ()),
            self._partitions_max,
            self._replicas,
        )
        named = (
            None
            if asked is None
            else [(one.name, index) for one in asked for index in one.partition_indexes]
        )
        principal = call.client.principal
        try:
            image = await self._metadata.cluster(principal, 0)
        except QuorateError as error:
            return ListPartitionReassignmentsResponse(
                error_code=code_of(error), error_message=str(error)
            )
        by_topic: dict[str, list[OngoingPartitionReassignment]] = {}
        found = self._metadata.reassigned(image, principal, named)
        for count, (topic, index, state) in enumerate(found, 1):
            by_topic.setdefault(topic.name, []).append(
                OngoingPartitionReassignment(index, state.broker_ids, state.adding, state.removing)
            )
            if count % PARTITIONS_A_TURN == 0:
                await asyncio.sleep(0)
        return ListPartitionReassignmentsResponse(
            error_message=None,
            topics=[OngoingTopicReassignment(name, found) for name, found in by_topic.items()],
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
