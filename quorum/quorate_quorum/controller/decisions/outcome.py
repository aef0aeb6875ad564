"""The result of a decision of the controller: events to propose, and the answer to the caller.

Decisions are pure functions of the pending image (committed and proposed events). If a request is
wrong, the response says so, and there are no events. A broken invariant fails an assertion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from quorate_quorum.controller.decisions.free_space import FreeSpace
from quorate_quorum.v1.events_pb2 import MetadataEvent

R = TypeVar("R")

#: The most bytes of one batch of the metadata log.
BATCH_BYTES_MAX = 4 * 1024 * 1024
#: The most bytes that a batch's header takes, and that a record takes besides its event.
_BATCH_OVERHEAD = 61
_RECORD_OVERHEAD = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The inputs of a decision besides the image and the request."""

    now_ms: int
    #: The offset that the first event of the Outcome will get.
    next_offset: int
    #: A function that returns 16 fresh random bytes.
    new_id: Callable[[], bytes]
    #: The free bytes of the brokers' log directories. A decision that places replicas counts them.
    free_space: FreeSpace = field(default_factory=FreeSpace)


@dataclass(frozen=True, slots=True)
class Outcome(Generic[R]):
    """A decision: events and a response.

    Without events the decision changes nothing. In this case the response may be sent as soon as
    all events proposed before are committed.
    """

    events: tuple[MetadataEvent, ...]
    response: R


def size_of(event: MetadataEvent) -> int:
    """Return the most bytes that an event may take in a batch."""
    return event.ByteSize() + _RECORD_OVERHEAD


def split(
    events: Sequence[MetadataEvent], bytes_max: int = BATCH_BYTES_MAX
) -> Iterator[list[MetadataEvent]]:
    """Yield the events in order, as batches of at most `bytes_max` encoded bytes.

    Nearly every Outcome is one batch, which is applied atomically. A larger Outcome is split
    between events. If the controller dies between two batches, a sweep of the next controller
    completes the change. An event above the bound gets a batch of its own.
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
