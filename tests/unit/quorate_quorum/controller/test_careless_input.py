"""One careless setting, address or frame must not bring the controller down."""

from __future__ import annotations

import pytest

from quorate.errors import InvalidRequestError, from_wire
from quorate.net.grpc_network import GrpcNetwork
from quorate.net.network import NoAnswer
from quorate_quorum.controller.decisions import brokers as decide
from quorate_quorum.metadata.delta import replayed
from tests.unit.quorate_quorum.controller.builders import create, new, request
from tests.unit.quorate_quorum.metadata.builders import (
    brokers,
    config_event,
    context,
    raised,
    topic_id,
)


def test_internal_topics_are_raised_as_far_as_there_are_brokers() -> None:
    """A default replication factor above the number of brokers must not stop the controller."""
    image, _ = create(brokers([0]), new("__consumer_offsets"), internal=True)
    image = brokers([1], on=image)
    image = replayed(image, [config_event("default.replication.factor", "5")])
    (partition,) = raised(image).topics[topic_id(1)].partitions
    assert sorted(partition.broker_ids) == [0, 1]


@pytest.mark.parametrize(
    "endpoint", ["", "b0", "b0:", ":9092", "b0:0", "b0:99999", "b0:x", "b 0:1"]
)
def test_a_broker_that_names_no_address_is_refused(endpoint: str) -> None:
    image = brokers([1])
    given = request(0)
    given.listeners[0].endpoint = endpoint
    outcome = decide.register(image, given, context(image), session_lives=lambda _: False)
    assert outcome.events == ()
    assert isinstance(from_wire(outcome.response.error), InvalidRequestError)


@pytest.mark.parametrize("endpoint", ["b0", "a..b:80", "x" * 100 + ":80", "\0:80"])
async def test_an_address_that_cannot_be_does_not_answer(endpoint: str) -> None:
    network = GrpcNetwork()
    assert await network.probe(endpoint, timeout_ms=200) == NoAnswer()
    await network.close()
