"""The sentence about too few replicas in sync: it names some of the others, with the reasons."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from quorate_broker.replica.too_few_replicas import NAMED_MAX, too_few_replicas
from quorate_quorum.metadata.history import extended
from quorate_quorum.metadata.partitions import PartitionImage, ReplicaImage
from quorate_quorum.v1 import events_pb2 as ev

NOW_MS = 100_000


def replica(*, count: int, history: bytes = b"") -> Any:
    """Replica 0 leads partition invoice/3 of so many replicas, alone in the ISR."""
    state = PartitionImage(
        leader=0,
        replicas=tuple(ReplicaImage(b, b"d" * 16) for b in range(count)),
        isr=(0,),
        history=history,
    )
    environment = SimpleNamespace(wall_clock_ms=lambda: NOW_MS)
    return SimpleNamespace(
        topic="invoice", partition=3, state=state, host=SimpleNamespace(environment=environment)
    )


def left(*, count: int, at_ms: int) -> bytes:
    """The history in which all but replica 0 fell silent at that time."""
    ids = list(range(count))
    before = ev.PastChange(offset=1, time_ms=1, isr=ids, replicas=ids)
    causes = [ev.Cause(kind=ev.CAUSE_KIND_BROKER_SILENT, broker_id=b, ms=3_000) for b in ids[1:]]
    after = ev.PastChange(offset=2, time_ms=at_ms, isr=[0], replicas=ids, causes=causes)
    return extended(extended(b"", before), after)


@pytest.mark.parametrize(
    ("at_ms", "how_long"), [(NOW_MS - 12_000, "12 s"), (NOW_MS + 5_000, "0 ms")],
    ids=["12 s ago", "the clock of the controller is ahead"],
)  # fmt: skip
def test_it_says_how_many_are_in_sync_and_why_another_is_not(at_ms: int, how_long: str) -> None:
    found = replica(count=2, history=left(count=2, at_ms=at_ms))
    assert too_few_replicas(found, (0,), 2) == (
        "partition invoice/3 has 1 in-sync replica (broker 0), and 2 are needed"
        f" (min.insync.replicas); broker 1 has been out of the ISR for {how_long}, because it was"
        " fenced: no heartbeat for 3.0 s; `quorate explain invoice/3` tells more"
    )


def test_it_names_so_many_and_counts_the_others() -> None:
    said = too_few_replicas(replica(count=9, history=left(count=9, at_ms=1_000)), (0,), 5)
    assert said.count("has been out of the ISR") == NAMED_MAX
    assert f"; {8 - NAMED_MAX} others are out of the ISR, too; " in said


def test_without_a_history_it_claims_no_time_and_no_cause() -> None:
    said = too_few_replicas(replica(count=2), (0,), 2)
    assert (
        "broker 1 has been out of the ISR, because the event that took it out is not kept" in said
    )
