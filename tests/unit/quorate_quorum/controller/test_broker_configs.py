"""The settings of one broker that change while it runs."""

from __future__ import annotations

from typing import Any

import pytest

from quorate.v1 import admin_pb2 as admin
from quorate_quorum.controller.decisions.brokers import register
from quorate_quorum.metadata.delta import replayed
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.v1 import controller_pb2 as wire
from quorate_quorum.v1 import events_pb2 as ev
from tests.harness.addresses import listening_at
from tests.unit.quorate_quorum.metadata.builders import (
    alter_configs,
    brokers,
    context,
    directory_id,
    incarnation,
)

THREE = brokers(range(3))
RATE = "leader.replication.throttled.rate"


def altered_of_broker(
    image: MetadataImage, broker_id: int, **asked: Any
) -> tuple[MetadataImage, str]:
    outcome = alter_configs(image, admin.AlterConfigsRequest(broker_id=broker_id, **asked))
    return replayed(image, outcome.events), outcome.response.error.message


def test_a_broker_has_configs_of_its_own_and_keeps_them_when_it_registers_again() -> None:
    image, _ = altered_of_broker(THREE, 1, set={RATE: "7"})
    assert {b.id: b.configs for b in image.sorted_brokers()} == {0: (), 1: ((RATE, "7"),), 2: ()}
    image, _ = altered_of_broker(image, 1, set={RATE: "7"})
    request = wire.RegisterRequest(
        broker_id=1,
        incarnation=incarnation(1, run=2),
        **listening_at("b1:9092"),
        directories=[ev.Directory(directory_id=directory_id(1))],
    )
    outcome = register(image, request, context(image), session_lives=lambda _: False)
    image = replayed(image, outcome.events)
    assert image.brokers[1].incarnation == incarnation(1, run=2)
    assert image.brokers[1].configs == ((RATE, "7"),)
    image, said = altered_of_broker(image, 1, remove=[RATE, RATE])
    assert (image.brokers[1].configs, said) == ((), "")


@pytest.mark.parametrize(
    ("broker_id", "asked", "said"),
    [
        (9, {"set": {RATE: "7"}}, "broker 9 is not registered; [0, 1, 2] are"),
        (1, {"set": {RATE: "0"}}, f"{RATE} must be a whole number, 1 or more, not '0'"),
        (1, {"set": {"retention.ms": "7"}}, "retention.ms can't be set on one broker"),
        (1, {"remove": ["num.partitions"]}, "num.partitions can't be set on one broker"),
        (1, {"set": {"nothing": "7"}}, "no configuration is named"),
        (1, {"topic": "t", "set": {RATE: "7"}}, "a topic or a broker, not both"),
    ],
)
def test_a_wrong_config_of_a_broker_is_refused(
    broker_id: int, asked: dict[str, Any], said: str
) -> None:
    image, found = altered_of_broker(THREE, broker_id, **asked)
    assert said in found
    assert image.brokers == THREE.brokers
