"""The batches of one partition on their way, in order, and what became of each.

Values of the accumulator, which decides over them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from quorate.errors import QuorateError
from quorate.record.batch import BatchBuilder


@dataclass(frozen=True, slots=True)
class ProducerIdentity:
    """Under which id and epoch a partition's batches are numbered."""

    producer_id: int
    producer_epoch: int


class Batch:
    """Records of one partition that travel together, and what became of them."""

    __slots__ = (
        "append_time_ms",
        "attempts",
        "base_offset",
        "base_sequence",
        "builder",
        "bytes",
        "callbacks",
        "deadline",
        "done",
        "encoded",
        "error",
        "number",
        "observed",
        "opened_at",
        "queue",
        "refusal",
        "sent_at",
        "urgent",
    )

    def __init__(
        self, queue: PartitionQueue, builder: BatchBuilder, now: float, deadline: float
    ) -> None:
        self.queue = queue
        #: Counts the batches of a partition: their order, whatever their sequences.
        self.number = queue.batches_opened
        self.builder = builder
        self.bytes = 0
        self.opened_at = now
        self.deadline = deadline
        self.sent_at = 0.0
        self.attempts = 0
        self.base_sequence = -1
        self.encoded: bytes | None = None
        self.urgent = False
        self.done = False
        self.observed = 0
        self.error: QuorateError | None = None
        #: Why it had to be sent again, the last time.
        self.refusal: QuorateError | None = None
        self.base_offset = -1
        self.append_time_ms = -1
        self.callbacks: list[Callable[[], object]] = []

    @property
    def count(self) -> int:
        """Records in the batch."""
        return self.builder.count


class PartitionQueue:
    """The batches of one partition, in order: in flight, then ready, then the open one."""

    __slots__ = (
        "batches_opened",
        "carrier",
        "has_gap",
        "identity",
        "in_flight",
        "next_sequence",
        "open",
        "partition",
        "ready",
        "retry_at",
        "topic",
        "topic_id",
    )

    def __init__(self, topic: str, topic_id: bytes, partition: int) -> None:
        self.topic = topic
        self.topic_id = topic_id
        self.partition = partition
        self.batches_opened = 0
        #: A broker proved that a sequence is missing: nothing is sent until nothing is in flight.
        self.has_gap = False
        self.open: Batch | None = None
        self.ready: deque[Batch] = deque()
        self.in_flight: list[Batch] = []
        #: Whose stream carries what is in flight; a new leader waits until the old one's is back.
        self.carrier: object = None
        self.retry_at = 0.0
        self.identity: ProducerIdentity | None = None
        self.next_sequence = 0

    def batches(self) -> Iterator[Batch]:
        """Every batch that is not done, oldest first."""
        yield from self.in_flight
        yield from self.ready
        if self.open is not None:
            yield self.open

    @property
    def is_retrying(self) -> bool:
        """A batch that was sent before waits to be sent again."""
        return bool(self.ready) and self.ready[0].attempts > 0


def comes_after(one: Batch, other: Batch) -> bool:
    """Whether `one` follows `other` in their partition."""
    return one.number > other.number
