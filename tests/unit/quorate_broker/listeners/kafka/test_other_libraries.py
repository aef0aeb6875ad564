"""Every message in every version is the same for us, for kio and for kafka-python."""

from __future__ import annotations

import random

import msgspec
import pytest

from proto.kafka.notation import Api
from tests.unit.quorate_broker.listeners.kafka.others import (
    KAFKA_PYTHON,
    KafkaPython,
    Kio,
    difference,
)
from tests.unit.quorate_broker.listeners.kafka.random_messages import ALL, Case, cases_of

ROUNDS = 3


def assert_same(case: Case, library: Kio | KafkaPython, seed: int) -> None:
    """Our bytes mean the same to the library, its bytes are ours, and mean the same to us."""
    message = case.draw(random.Random(seed))
    if case.struct.name == "ApiVersionsResponse":
        # kafka-python reads every version of an error as version 0, which such an answer has.
        message = msgspec.structs.replace(message, error_code=0)
    data = case.encode(message)
    theirs = library.decode(data)
    assert difference(message, theirs, library.hidden) == "", f"{case}, seed {seed}"
    assert library.encode(theirs).hex() == data.hex(), f"{case}, seed {seed}"


@pytest.mark.parametrize("api", ALL, ids=lambda api: api.name)
def test_kio_reads_and_writes_the_same(api: Api) -> None:
    for case in cases_of(api):
        for seed in range(ROUNDS):
            assert_same(case, Kio(case), seed)


@pytest.mark.parametrize(
    "api", [api for api in ALL if api.request.name in KAFKA_PYTHON], ids=lambda api: api.name
)
def test_kafka_python_reads_and_writes_the_same(api: Api) -> None:
    for case in cases_of(api):
        for seed in range(ROUNDS):
            assert_same(case, KafkaPython(case), seed)
