"""Principals, what a call requires, and the refusal that names both."""

from __future__ import annotations

import pytest

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
