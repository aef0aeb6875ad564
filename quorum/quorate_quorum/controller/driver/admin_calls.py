"""Answers the admin calls that brokers pass on: checks the original principal's rights first.

A call on topics is authorized topic by topic. The controller decides the allowed ones. The answer
has a refusal in the place of each refused topic's result. Any other call is refused as a whole.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from quorate.errors import AuthorizationError, to_wire
from quorate.net.methods import (
    ADD_VOTER,
    ALTER_CONFIGS,
    CREATE_PARTITIONS,
    CREATE_TOPICS,
    DELETE_TOPICS,
    DESCRIBE_FEATURES,
    DESCRIBE_HEALTH,
    DESCRIBE_QUORUM,
    DRAIN_BROKER,
    ELECT_LEADERS,
    LIST_REASSIGNMENTS,
    REASSIGN_PARTITIONS,
    REMOVE_VOTER,
    TRANSFER_LEADERSHIP,
    UNREGISTER_BROKER,
    UPDATE_FEATURE,
)
from quorate.net.network import Method
from quorate.v1.admin_pb2 import (
    AlterConfigsRequest,
    AlterConfigsResponse,
    CreatedTopic,
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreateTopicsRequest,
    CreateTopicsResponse,
    DeleteTopicsRequest,
    DeleteTopicsResponse,
    DescribeHealthRequest,
    DescribeHealthResponse,
    ListReassignmentsRequest,
    ListReassignmentsResponse,
)
from quorate_quorum.controller.decisions.config_change import ConfigChange
from quorate_quorum.controller.driver.active import ActiveController, check_named
from quorate_quorum.controller.driver.reign import Decided
from quorate_quorum.node.authorizer import (
    ALTER_CLUSTER,
    DESCRIBE_CLUSTER,
    DESCRIBE_TOPIC,
    Caller,
    Operation,
    Required,
    ResourceType,
)

Q = TypeVar("Q")
R = TypeVar("R")

CREATE: Final = Required(Operation.CREATE, ResourceType.TOPIC)
DELETE: Final = Required(Operation.DELETE, ResourceType.TOPIC)
ALTER: Final = Required(Operation.ALTER, ResourceType.TOPIC)
ALTER_THEIR_CONFIGS: Final = Required(Operation.ALTER_CONFIGS, ResourceType.TOPIC)


@dataclass(frozen=True, slots=True)
class AdminCall(Generic[Q, R]):
    """A forwarded method, the permission that it requires, and the function that answers it.

    `answer` checks the caller's permission, then lets the active controller decide.
    """

    method: Method[Q, R]
    required: Required
    answer: Callable[[Caller, ActiveController, Q], Awaitable[Decided[R]]]


def _whole(
    method: Method[Q, R],
    required: Required,
    answer: Callable[[ActiveController, Q], Awaitable[Decided[R]]],
) -> AdminCall[Q, R]:
    """Return a call that is refused or answered as a whole."""

    def judged(caller: Caller, active: ActiveController, request: Q) -> Awaitable[Decided[R]]:
        caller.check(required)
        return answer(active, request)

    return AdminCall(method, required, judged)


async def _create_topics(
    caller: Caller, active: ActiveController, request: CreateTopicsRequest
) -> Decided[CreateTopicsResponse]:
    """Create topics. The right CREATE on the cluster permits every topic, as in Kafka."""
    check_named(len(request.topics))
    if caller.may(CREATE):
        return await active.create_topics(request)
    refusals = [caller.refusal(CREATE, topic.name) for topic in request.topics]
    allowed = CreateTopicsRequest()
    allowed.CopyFrom(request)
    del allowed.topics[:]
    allowed.topics.extend(
        topic for topic, refusal in zip(request.topics, refusals, strict=True) if refusal is None
    )
    decided = Decided(CreateTopicsResponse(), 0)
    if allowed.topics:
        decided = await active.create_topics(allowed)
    results = iter(decided.response.topics)
    answered = [
        next(results)
        if refusal is None
        else CreatedTopic(name=topic.name, topic_id=topic.topic_id, error=to_wire(refusal))
        for topic, refusal in zip(request.topics, refusals, strict=True)
    ]
    return Decided(CreateTopicsResponse(topics=answered), decided.apply_offset)


async def _create_partitions(
    caller: Caller, active: ActiveController, request: CreatePartitionsRequest
) -> Decided[CreatePartitionsResponse]:
    """Give a topic more partitions."""
    caller.check(ALTER, request.topic)
    return await active.create_partitions(request)


async def _delete_topics(
    caller: Caller, active: ActiveController, request: DeleteTopicsRequest
) -> Decided[DeleteTopicsResponse]:
    """Delete topics. The decision checks the rights, because only it knows the name of each id."""

    def refusal(name: str, topic_id: bytes) -> AuthorizationError | None:
        if topic_id:
            return caller.refusal_by_id(DELETE, name, topic_id)
        return caller.refusal(DELETE, name)

    return await active.delete_topics(request, refusal)


async def _alter_configs(
    caller: Caller, active: ActiveController, request: AlterConfigsRequest
) -> Decided[AlterConfigsResponse]:
    """Alter the configs of a topic; if none is named, of a broker or of the cluster."""
    caller.check(ALTER_THEIR_CONFIGS, request.topic or None)
    change = ConfigChange(request)
    end = await active.reign.run_in_turns(change.next, change.proposed)
    return Decided(change.response, end)


async def _describe_health(
    caller: Caller, active: ActiveController, request: DescribeHealthRequest
) -> Decided[DescribeHealthResponse]:
    """Describe the cluster. Name only partitions whose topics the caller may describe."""
    caller.check(DESCRIBE_CLUSTER)
    return await active.describe_health(lambda topic: caller.may(DESCRIBE_TOPIC, topic))


async def _list_reassignments(
    caller: Caller, active: ActiveController, request: ListReassignmentsRequest
) -> Decided[ListReassignmentsResponse]:
    """List the reassignments of partitions whose topics the caller may describe."""
    caller.check(DESCRIBE_CLUSTER)
    return await active.list_reassignments(request, lambda topic: caller.may(DESCRIBE_TOPIC, topic))


_CALLS: Sequence[AdminCall[Any, Any]] = (
    AdminCall(CREATE_TOPICS, CREATE, _create_topics),
    AdminCall(CREATE_PARTITIONS, ALTER, _create_partitions),
    AdminCall(DELETE_TOPICS, DELETE, _delete_topics),
    AdminCall(ALTER_CONFIGS, ALTER_THEIR_CONFIGS, _alter_configs),
    _whole(DESCRIBE_QUORUM, DESCRIBE_CLUSTER, ActiveController.describe_quorum),
    AdminCall(DESCRIBE_HEALTH, DESCRIBE_CLUSTER, _describe_health),
    _whole(DESCRIBE_FEATURES, DESCRIBE_CLUSTER, ActiveController.describe_features),
    _whole(UPDATE_FEATURE, ALTER_CLUSTER, ActiveController.update_feature),
    _whole(ELECT_LEADERS, ALTER_CLUSTER, ActiveController.elect_leaders),
    _whole(REASSIGN_PARTITIONS, ALTER_CLUSTER, ActiveController.reassign_partitions),
    AdminCall(LIST_REASSIGNMENTS, DESCRIBE_CLUSTER, _list_reassignments),
    _whole(DRAIN_BROKER, ALTER_CLUSTER, ActiveController.drain_broker),
    _whole(UNREGISTER_BROKER, ALTER_CLUSTER, ActiveController.unregister_broker),
    _whole(TRANSFER_LEADERSHIP, ALTER_CLUSTER, ActiveController.transfer_leadership),
    _whole(ADD_VOTER, ALTER_CLUSTER, ActiveController.add_voter),
    _whole(REMOVE_VOTER, ALTER_CLUSTER, ActiveController.remove_voter),
)

#: The admin calls, by the path of the method. A broker passes on each call of the Admin service
#: that it does not answer itself. So a new call is added here, and nowhere in the broker.
ADMIN_CALLS: Mapping[str, AdminCall[Any, Any]] = {call.method.path: call for call in _CALLS}
