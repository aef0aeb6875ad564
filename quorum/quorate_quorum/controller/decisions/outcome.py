"""What a decision of the controller is: events to propose, and the answer once they commit.

Decisions are pure functions of the pending image (committed plus proposed). What a caller did
wrong comes back in the response, with no events; broken invariants are assertions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from quorate_quorum.v1.events_pb2 import MetadataEvent

R = TypeVar("R")
S = TypeVar("S")

#: Most bytes of one batch of the metadata log.
BATCH_BYTES_MAX = 4 * 1024 * 1024
#: What a batch's header, and a record's own lengths and deltas, add at most.
_BATCH_OVERHEAD = 61
_RECORD_OVERHEAD = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a decision may know beside the image and the request."""

    now_ms: int
    #: Where the first event of this Outcome will stand in the log.
    next_offset: int
    #: Returns 16 fresh random bytes.
    new_id: Callable[[], bytes]
    #: unclean.recovery.wait.ms.
    unclean_recovery_wait_ms: int = 60_000


@dataclass(frozen=True, slots=True)
class Outcome(Generic[R]):
    """A decision. No events: nothing changes, and the response may leave when all that was
    proposed before it has committed.
    """

    events: tuple[MetadataEvent, ...]
    response: R


def size_of(event: MetadataEvent) -> int:
    """Return the bytes that an event takes in a batch, at most."""
    return event.ByteSize() + _RECORD_OVERHEAD


def split(
    events: Sequence[MetadataEvent], bytes_max: int = BATCH_BYTES_MAX
) -> Iterator[list[MetadataEvent]]:
    """Yield the events in order, as batches of at most `bytes_max` encoded bytes.

    Nearly every Outcome is one batch, applied atomically. A larger one is cut at event borders;
    if the controller dies between two batches, the next one completes it from the image
    (brokers.settle). A single larger event goes alone.
    """
    batch: list[MetadataEvent] = []
    size = _BATCH_OVERHEAD
    for event in events:
        added = size_of(event)
        if batch and size + added > bytes_max:
            yield batch
            batch, size = [], _BATCH_OVERHEAD
        batch.append(event)
        size += added
    if batch:
        yield batch
