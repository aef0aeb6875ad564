"""Hostile requests of Kafka clients: a short run of `make fuzz-kafka`, and that it sees faults."""

from __future__ import annotations

import time
from typing import Any

import pytest

from quorate_broker.listeners.kafka.offsets import OffsetRequests
from tests.harness.kafka_fuzz import run_world

pytestmark = pytest.mark.simulation

SEED = 20_261_130


def test_a_broker_bears_hostile_requests() -> None:
    # how fast it is, `make fuzz-kafka` judges: a busy machine must not fail a test
    outcome = run_world(SEED, 2000, cpu_ms_per_kib=1000)
    assert outcome.faults == []
    assert outcome.counts["answered"] > 500, "good enough to reach the handlers"
    assert outcome.counts["closed"] > 500


def test_an_error_that_a_handler_did_not_foresee_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: Any) -> None:
        raise KeyError("not foreseen")

    monkeypatch.setattr(OffsetRequests, "list_offsets", fails)
    faults = run_world(SEED, 100).faults
    assert "KeyError" in faults[0]
    assert "at ListOffsets" in faults[0]


def test_a_request_that_takes_long_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    async def takes_long(*_: Any) -> None:
        began = time.thread_time()
        while time.thread_time() - began < 0.011:
            pass

    monkeypatch.setattr(OffsetRequests, "list_offsets", takes_long)
    faults = run_world(SEED, 60).faults
    assert "ms of CPU a KiB" in faults[0]
    assert "at ListOffsets" in faults[0]


def test_the_same_seed_sends_the_same_requests() -> None:
    assert run_world(SEED, 50).counts == run_world(SEED, 50).counts
