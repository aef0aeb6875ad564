"""Every error has a code of Kafka's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from quorate import errors
from quorate_broker.listeners.kafka.errors import (
    BY_ID,
    CODES,
    NOT_LEADER_OR_FOLLOWER,
    OF_PRODUCE,
    OFFSET_OUT_OF_RANGE,
    REQUEST_TIMED_OUT,
    code_of,
)
from quorate_broker.replica.divergence import Divergence
from quorate_broker.replica.leader_replica import DivergedError


def below(kind: type[errors.QuorateError]) -> Iterator[type[errors.QuorateError]]:
    yield kind
    for one in kind.__subclasses__():
        yield from below(one)


IN_TREE: set[type[errors.QuorateError]] = {
    one for one in below(errors.QuorateError) if one.__module__.startswith("quorate.errors")
}


@pytest.mark.parametrize("kind", sorted(IN_TREE, key=str))
def test_every_error_class_has_a_code(kind: type[errors.QuorateError]) -> None:
    assert kind in CODES


def test_an_unknown_outcome_never_says_that_nothing_was_written() -> None:
    """Librdkafka reports 6 as "not persisted", and 7 as "possibly persisted"."""
    assert code_of(errors.OutcomeUnknownError(""), OF_PRODUCE) == REQUEST_TIMED_OUT
    assert code_of(errors.StoppingError(""), OF_PRODUCE) == NOT_LEADER_OR_FOLLOWER


def test_the_code_may_depend_on_the_request() -> None:
    assert code_of(errors.InvalidRequestError("")) == 42
    assert code_of(errors.InvalidRequestError(""), OF_PRODUCE) == 87
    assert code_of(errors.RecordTooLargeError(""), OF_PRODUCE) == 10
    assert code_of(errors.UnknownTopicError(""), BY_ID) == 100


def test_a_class_outside_the_tree_has_the_code_of_its_base() -> None:
    assert code_of(DivergedError("", Divergence(1, 2))) == OFFSET_OUT_OF_RANGE
