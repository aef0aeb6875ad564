"""ConsumerGroupHeartbeat and ConsumerGroupDescribe over members and groups that a test decides."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from quorate import errors
from quorate.net.principal import Principal
from quorate_broker.groups.machine.values import (
    DescribedGroup,
    DescribedMember,
    Heartbeat,
    MemberState,
    Subscription,
)
from quorate_broker.listeners.kafka.call import Call, Client
from quorate_broker.listeners.kafka.consumer_groups import ConsumerGroupRequests
from quorate_broker.listeners.kafka.errors import (
    COORDINATOR_LOAD_IN_PROGRESS,
    FENCED_INSTANCE_ID,
    FENCED_MEMBER_EPOCH,
    GROUP_ID_NOT_FOUND,
    GROUP_MAX_SIZE_REACHED,
    INVALID_REGULAR_EXPRESSION,
    INVALID_REQUEST,
    NONE,
    NOT_COORDINATOR,
    OF_COMMITS,
    OF_READS,
    STALE_MEMBER_EPOCH,
    UNKNOWN_MEMBER_ID,
    UNRELEASED_INSTANCE_ID,
    UNSUPPORTED_ASSIGNOR,
    code_of,
)
from quorate_broker.listeners.kafka.messages.consumer_group_describe import (
    ConsumerGroupDescribeRequest,
)
from quorate_broker.listeners.kafka.messages.consumer_group_heartbeat import (
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatRequestTopicPartitions,
    ConsumerGroupHeartbeatResponse,
)
from quorate_broker.operations.rights import Rights
from quorate_quorum.node.authorizer import ALLOW_ALL
from tests.unit.quorate_broker.listeners.kafka.families import NAME, World

JOIN = ConsumerGroupHeartbeatRequest(
    "g", "m", 0, rebalance_timeout_ms=60_000, subscribed_topic_names=[NAME], topic_partitions=[]
)
OTHER = b"o" * 16


class Machine:
    """Answers each heartbeat as it is told."""

    def __init__(self) -> None:
        self.heard: list[Heartbeat] = []
        self.answer: MemberState | errors.QuorateError = MemberState(3, 1, 5_000)
        self.described: list[Any] = []

    async def heartbeat(self, principal: Principal, heartbeat: Heartbeat) -> MemberState:
        self.heard.append(heartbeat)
        if isinstance(self.answer, errors.QuorateError):
            raise self.answer
        return self.answer

    async def describe_groups_raw(self, principal: Principal, ids: Sequence[str]) -> list[Any]:
        return self.described


class Desk:
    def __init__(self) -> None:
        self.machine = Machine()
        machine: Any = self.machine
        self.world = World()
        self.requests = ConsumerGroupRequests(
            machine, machine, self.world.replicas, Rights(ALLOW_ALL), lambda name: f"{name}-made"
        )
        self.client = Client("10.0.0.9", "kafka")

    def beat(
        self, request: ConsumerGroupHeartbeatRequest = JOIN, version: int = 1
    ) -> ConsumerGroupHeartbeatResponse:
        call = Call(request, version, self.client, "program")
        return asyncio.run(self.requests.consumer_group_heartbeat(call))


def changed(**fields: Any) -> ConsumerGroupHeartbeatRequest:
    known = {name: getattr(JOIN, name) for name in JOIN.__struct_fields__}
    return ConsumerGroupHeartbeatRequest(**{**known, **fields})


def test_a_heartbeat_says_what_the_request_says() -> None:
    d = Desk()
    topics = [ConsumerGroupHeartbeatRequestTopicPartitions(OTHER, [0, 2])]
    d.beat(
        ConsumerGroupHeartbeatRequest(
            "g",
            "m",
            7,
            instance_id="i",
            rack_id="r",
            subscribed_topic_regex="x.*",
            server_assignor="range",
            topic_partitions=topics,
        )
    )
    (heard,) = d.machine.heard
    assert heard.conversation is not None
    assert replace(heard, conversation=None) == Heartbeat(
        "g",
        "m",
        7,
        instance_id="i",
        rack="r",
        client_id="program",
        client_host="10.0.0.9",
        pattern="x.*",
        assignor="range",
        owned=frozenset({(OTHER, 0), (OTHER, 2)}),
    )


def test_the_answer_has_the_state() -> None:
    d = Desk()
    d.machine.answer = MemberState(3, 1, 500, frozenset({(OTHER, 1), (OTHER, 0)}))
    told = d.beat()
    assert (told.error_code, told.member_id, told.member_epoch) == (NONE, "m", 3)
    assert told.heartbeat_interval_ms == 500
    assert told.assignment is not None
    assert [(one.topic_id, one.partitions) for one in told.assignment.topic_partitions] == [
        (OTHER, [0, 1])
    ]
    d.machine.answer = MemberState(3, 1, 500)
    assert d.beat().assignment is None


def test_a_member_of_version_0_without_an_id_gets_one() -> None:
    d = Desk()
    assert d.beat(changed(member_id=""), 0).member_id == "program-made"
    d.beat(changed(member_id=""), 1)
    assert [one.member_id for one in d.machine.heard] == ["program-made", ""]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"rebalance_timeout_ms": -1}, INVALID_REQUEST),
        ({"topic_partitions": None}, INVALID_REQUEST),
        (
            {"topic_partitions": [ConsumerGroupHeartbeatRequestTopicPartitions(OTHER, [0])]},
            INVALID_REQUEST,
        ),
        ({"instance_id": ""}, INVALID_REQUEST),
        ({"rack_id": ""}, INVALID_REQUEST),
        ({"member_epoch": -2}, INVALID_REQUEST),
        ({"server_assignor": ""}, UNSUPPORTED_ASSIGNOR),
    ],
)
def test_what_kafka_does_not_allow_is_refused(fields: dict[str, Any], code: int) -> None:
    d = Desk()
    assert d.beat(changed(**fields)).error_code == code
    assert d.machine.heard == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UnknownMemberIdError, UNKNOWN_MEMBER_ID),
        (errors.FencedMemberEpochError, FENCED_MEMBER_EPOCH),
        (errors.FencedInstanceIdError, FENCED_INSTANCE_ID),
        (errors.UnreleasedInstanceIdError, UNRELEASED_INSTANCE_ID),
        (errors.UnsupportedAssignorError, UNSUPPORTED_ASSIGNOR),
        (errors.InvalidPatternError, INVALID_REGULAR_EXPRESSION),
        (errors.GroupMaxSizeError, GROUP_MAX_SIZE_REACHED),
        (errors.InvalidGroupIdError, INVALID_REQUEST),
        (errors.InvalidRequestError, INVALID_REQUEST),
        (errors.CoordinatorLoadingError, COORDINATOR_LOAD_IN_PROGRESS),
        (errors.NotCoordinatorError, NOT_COORDINATOR),
    ],
)
def test_errors_have_kafkas_codes(error: type[errors.QuorateError], code: int) -> None:
    d = Desk()
    d.machine.answer = error("why")
    told = d.beat()
    assert (told.error_code, told.error_message) == (code, "why")


def test_a_member_that_is_fenced_reads_it_as_a_stale_epoch_in_calls_about_offsets() -> None:
    error = errors.FencedMemberEpochError("x")
    assert code_of(error, OF_COMMITS) == code_of(error, OF_READS) == STALE_MEMBER_EPOCH


def test_an_error_and_another_connection_begin_another_conversation() -> None:
    d = Desk()
    d.beat()
    d.beat()
    d.machine.answer = errors.CoordinatorLoadingError("x")
    d.beat()
    d.beat()
    d.client.close()
    d.client = Client("10.0.0.9", "kafka")
    d.beat()
    told = [one.conversation for one in d.machine.heard]
    assert told[0] == told[1] == told[2]
    assert told == sorted(told, key=lambda one: one or (0, 0))
    assert len({*told}) == 3


def test_groups_are_described_and_what_is_no_consumer_group_is_not_found() -> None:
    d = Desk()
    topic_id = next(iter(d.world.replicas.image.topics))
    member = DescribedMember(
        "m",
        "",
        "c",
        "h",
        "",
        3,
        Subscription(frozenset({NAME}), "x.*"),
        frozenset({(OTHER, 0), (topic_id, 1), (topic_id, 0)}),
        frozenset(),
    )
    d.machine.described = [
        DescribedGroup("g", "Stable", "consumer", 4, 3, "uniform", (member,)),
        DescribedGroup("h", "Empty", "", 0, 0, "uniform", ()),
        errors.GroupNotFoundError("none"),
    ]
    asked = ConsumerGroupDescribeRequest(["g", "h", "i"], include_authorized_operations=True)
    call = Call(asked, 1, d.client)
    told = asyncio.run(d.requests.consumer_group_describe(call)).groups
    everything = sum(1 << code for code in (3, 6, 8, 10, 11))
    unasked = -(1 << 31)
    assert [one.authorized_operations for one in told] == [everything, unasked, unasked]
    assert [one.error_code for one in told] == [NONE, GROUP_ID_NOT_FOUND, GROUP_ID_NOT_FOUND]
    assert (told[0].group_state, told[0].group_epoch, told[0].assignment_epoch) == ("Stable", 4, 3)
    (found,) = told[0].members
    assert (found.instance_id, found.rack_id, found.subscribed_topic_regex) == (None, None, "x.*")
    assert [one.partitions for one in found.assignment.topic_partitions] == [[0, 1]]
