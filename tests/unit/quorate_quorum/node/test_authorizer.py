"""Principals, what a call requires, and the refusal that names both."""

from __future__ import annotations

from typing import cast

import pytest
from structlog.testing import capture_logs

from quorate.errors import (
    ClusterAuthorizationFailedError,
    InvalidRequestError,
    TopicAuthorizationFailedError,
    from_wire,
    to_wire,
)
from quorate.net.principal import Principal
from quorate_quorum.node.authorizer import (
    ALLOW_ALL,
    ALTER_CLUSTER,
    CLUSTER,
    Authorizer,
    Caller,
    Operation,
    Required,
    Resource,
    ResourceType,
)

ANN = Principal("User", "ann")
WRITE = Required(Operation.WRITE, ResourceType.TOPIC)


class Rules:
    """Allows what the test names, and remembers what was asked."""

    def __init__(self, *allowed: tuple[Principal, Operation, Resource]) -> None:
        self.allowed = allowed
        self.asked: list[tuple[Principal, Operation, Resource]] = []

    def authorize(self, principal: Principal, operation: Operation, resource: Resource) -> bool:
        self.asked.append((principal, operation, resource))
        return self.asked[-1] in self.allowed


def test_the_default_allows_all() -> None:
    caller = Caller(ANN, ALLOW_ALL)
    caller.check(WRITE, "zoo")
    caller.check(ALTER_CLUSTER)


def test_the_authorizer_is_asked_for_the_operation_on_the_topic_or_on_the_cluster() -> None:
    zoo = Resource(ResourceType.TOPIC, "zoo")
    rules = Rules((ANN, Operation.WRITE, zoo))
    caller = Caller(ANN, rules)
    caller.check(WRITE, "zoo")
    with pytest.raises(TopicAuthorizationFailedError, match=r"User:ann .* WRITE on topic 'ark'"):
        caller.check(WRITE, "ark")
    with pytest.raises(ClusterAuthorizationFailedError, match="ALTER on the cluster"):
        caller.check(ALTER_CLUSTER)
    assert rules.asked[0] == (ANN, Operation.WRITE, zoo)
    assert rules.asked[2] == (ANN, Operation.ALTER, CLUSTER)


class Broken:
    """An authorizer whose directory of users does not answer."""

    def authorize(self, principal: Principal, operation: Operation, resource: Resource) -> bool:
        raise ConnectionError(f"no answer about {resource.name}")


def test_an_authorizer_that_raises_refuses_the_call_and_is_logged_once() -> None:
    caller = Caller(ANN, Broken())
    for required, topic, refused in (
        (WRITE, "zoo", TopicAuthorizationFailedError),
        (ALTER_CLUSTER, None, ClusterAuthorizationFailedError),
    ):
        with capture_logs() as logs:
            assert not caller.may(required, topic)
        (line,) = logs
        assert (line["event"], line["log_level"]) == ("authorizer_failed", "error")
        assert line["repeats"]
        assert "zoo" not in str(line), "a line for each topic of a request is not the same line"
        with pytest.raises(refused):
            caller.check(required, topic)


def test_an_answer_that_is_not_true_allows_nothing() -> None:
    """The coroutine of an `async def authorize` counts as true in an `if`."""

    class Waiting:
        def authorize(self, *asked: object) -> object:
            return object()

    assert not Caller(ANN, cast("Authorizer", Waiting())).may(ALTER_CLUSTER)


def test_a_refusal_by_id_names_the_topic_only_to_a_caller_that_may_describe_it() -> None:
    zoo = Resource(ResourceType.TOPIC, "zoo")
    blind = Caller(ANN, Rules()).refusal_by_id(WRITE, "zoo", b"\xab" * 16)
    assert "zoo" not in str(blind)
    assert f"WRITE on the topic of id {'ab' * 16}" in str(blind)
    seeing = Caller(ANN, Rules((ANN, Operation.DESCRIBE, zoo)))
    assert "WRITE on topic 'zoo'" in str(seeing.refusal_by_id(WRITE, "zoo", b"\xab" * 16))
    allowed = Caller(ANN, Rules((ANN, Operation.WRITE, zoo)))
    assert allowed.refusal_by_id(WRITE, "zoo", b"\xab" * 16) is None


@pytest.mark.parametrize(
    "error", [TopicAuthorizationFailedError("t"), ClusterAuthorizationFailedError("c")]
)
def test_a_refusal_keeps_its_class_on_the_wire(error: Exception) -> None:
    assert type(from_wire(to_wire(error))) is type(error)


@pytest.mark.parametrize("text", ["", "ann", "User:", ":ann", "User:" + "x" * 1000])
def test_a_text_that_is_no_principal_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="type:name"):
        Principal.parse(text)


def test_a_principal_is_read_as_it_was_written() -> None:
    assert Principal.parse(str(Principal("User", "CN=ann:b"))) == Principal("User", "CN=ann:b")
