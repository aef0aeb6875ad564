"""What a decision of the controller returns: events to propose, and the answer to the caller.

Decisions are pure functions of the pending image (committed plus proposed). If the caller did
something wrong, the response says so and there are no events. A broken invariant is an assertion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from quorate_quorum.v1.events_pb2 import MetadataEvent

R = TypeVar("R")

#: Most bytes of one batch of the metadata log.
BATCH_BYTES_MAX = 4 * 1024 * 1024
#: The bytes that a batch's header, and each record around its event, add at most.
_BATCH_OVERHEAD = 61
_RECORD_OVERHEAD = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a decision may know besides the image and the request."""

    now_ms: int
    #: Where the first event of this Outcome will stand in the log.
    next_offset: int
    #: Returns 16 fresh random bytes.
    new_id: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class Outcome(Generic[R]):
    """A decision. Without events nothing changes, and the response may leave when everything that
    was proposed before it is committed.
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

    Nearly every Outcome is one batch, applied atomically. A larger one is cut between events. If
    the controller dies between two batches, the next controller completes the change by a sweep.
    A single larger event is a batch of its own.
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
