"""The batches of one partition that have no outcome yet, in order.

The accumulator decides about them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from quorate.errors import QuorateError
from quorate.record.batch import SEQUENCE_MAX, BatchBuilder

PRODUCER_EPOCH_MAX = 32767


@dataclass(frozen=True, slots=True)
class ProducerIdentity:
    """The producer id and epoch under which a partition's batches are numbered."""

    producer_id: int
    producer_epoch: int


@dataclass(slots=True, eq=False)
class Batch:
    """Records of one partition that are sent together, and their outcome.

    A batch that was too large is done, and has `parts`: batches that carry its records now. A batch
    that is done keeps no bytes, so a Delivery that a user keeps costs little memory.
    """

    queue: PartitionQueue
    builder: BatchBuilder
    opened_at: float
    deadline: float
    #: The place among the partition's batches, independent of sequences. A part's number
    #: extends that of its batch: 7, 7.0, 7.1, 8.
    number: tuple[int, ...]
    encoded: bytes | None = None
    #: Bytes of the records, as they count against the buffer.
    bytes: int = 0
    #: Size at which the next batch begins.
    bytes_max: int = field(init=False)
    attempts: int = 0
    first_sent_at: float = 0.0
    #: An attempt ended without proof that nothing was written.
    is_uncertain: bool = False
    base_sequence: int = -1
    urgent: bool = False
    done: bool = False
    #: Indexes of the records whose outcome a task asked for before the end.
    observed: set[int] | None = None
    error: QuorateError | None = None
    #: The error for which it had to be sent again, the last time.
    refusal: QuorateError | None = None
    base_offset: int = -1
    append_time_ms: int = -1
    #: Called when the batch is done, each once. A dict, so that a waiter that gives up can
    #: remove its callback cheaply.
    callbacks: dict[Callable[[], object], None] = field(default_factory=dict)
    #: Called before the callbacks. After a split the parts have it instead.
    on_end: Callable[[Batch], object] | None = None
    #: After a split: the batches that carry the records, and the first record of each.
    parts: Sequence[Batch] = ()
    _part_starts: Sequence[int] = ()

    def __post_init__(self) -> None:
        self.bytes_max = self.queue.batch_bytes_max

    @property
    def count(self) -> int:
        """Records in the batch."""
        return self.builder.count

    def holder(self, index: int) -> tuple[Batch, int]:
        """Return the batch that carries a record now, and the record's index there."""
        batch = self
        while batch.parts:
            part = bisect_right(batch._part_starts, index) - 1
            index -= batch._part_starts[part]
            batch = batch.parts[part]
        return batch, index

    def replace_by(self, parts: Sequence[Batch]) -> None:
        """Let `parts` carry the records from now on."""
        self.parts = parts
        self._part_starts = [0, *accumulate(part.count for part in parts[:-1])]

    def take_callbacks(self) -> list[Callable[[], object]]:
        """Return the callbacks that the caller must call now, and forget them."""
        told = list(self.callbacks)
        self.callbacks.clear()
        return told


@dataclass(slots=True, eq=False)
class PartitionQueue:
    """The batches of one partition, in order: in flight, then ready, then the open one."""

    topic: str
    topic_id: bytes
    partition: int
    #: Size limit of a batch: as configured, and smaller after a broker refused a batch as too
    #: large.
    batch_bytes_max: int
    #: Number of the topic's partitions when the last record was sent to it; -1: not known.
    partition_count: int = -1
    batches_opened: int = 0
    #: A broker proved that a sequence is missing. No batch is sent while others are in flight.
    has_gap: bool = False
    #: The broker has forgotten the producer: the gap does not prove that earlier attempts wrote
    #: nothing.
    is_forgotten: bool = False
    open: Batch | None = None
    ready: deque[Batch] = field(default_factory=deque)
    in_flight: list[Batch] = field(default_factory=list)
    #: The stream that carries the batches in flight. A new leader's stream sends nothing before
    #: all of them are answered.
    carrier: object = None
    retry_at: float = 0.0
    identity: ProducerIdentity | None = None
    next_sequence: int = 0
    #: When the topic was first missing in the metadata; None: it is there.
    gone_at: float | None = None
    #: Why the leader cannot be reached, for the errors of batches that expire meanwhile.
    hindrance: QuorateError | None = None
    #: The queue of the deleted topic of the same name. Its batches in flight may come back, and
    #: then go first.
    predecessor: PartitionQueue | None = None

    def batches(self) -> Iterator[Batch]:
        """Yield every batch that is not done, oldest first."""
        yield from self.in_flight
        yield from self.ready
        if self.open is not None:
            yield self.open

    @property
    def is_retrying(self) -> bool:
        """Whether a batch that was sent before waits to be sent again."""
        return bool(self.ready) and self.ready[0].attempts > 0

    @property
    def is_empty(self) -> bool:
        """Whether the queue has no batches."""
        return not self.in_flight and not self.ready and self.open is None

    # -- out -----------------------------------------------------------------------------------

    def may_send(self, now: float, in_flight_max: int) -> bool:
        """Whether the next batch may be sent: it must not overtake one that may come back."""
        if self.has_gap or self.retry_at > now or len(self.in_flight) >= in_flight_max:
            return False
        if self.predecessor is not None:
            if self.predecessor.in_flight:
                return False
            self.predecessor = None
        return not (self.is_retrying and self.in_flight and not self._is_same_run)

    @property
    def _is_same_run(self) -> bool:
        """Whether all batches in flight come before the next one: resending keeps the order."""
        following = self.ready[0]
        return self.identity is not None and all(
            comes_after(following, batch) for batch in self.in_flight
        )

    def waits_until(self, now: float, linger_s: float) -> float | None:
        """Return when the next batch may be sent, at the end of its linger or its backoff.

        None if that does not depend on time.
        """
        if self.ready or self.has_gap:
            return self.retry_at if self.retry_at > now else None
        if self.open is None:
            return None
        return max(self.open.opened_at + linger_s, self.retry_at)

    def take_next(self, lingers_since: float | None) -> Batch | None:
        """Take the next batch, but not an open one that was opened after `lingers_since`."""
        if self.ready:
            return self.ready.popleft()
        batch = self.open
        if batch is None:
            return None
        if lingers_since is not None and not batch.urgent and lingers_since < batch.opened_at:
            return None
        self.open = None
        return batch

    # -- in ------------------------------------------------------------------------------------

    def complete(self) -> bool:
        """Move the open batch to the ready ones; return whether there was one."""
        batch, self.open = self.open, None
        if batch is None:
            return False
        self.ready.append(batch)
        return True

    def put_back(self, batch: Batch) -> None:
        """Insert a batch among the ready ones, at its place in the order."""
        index = 0
        for waiting in self.ready:
            if comes_after(waiting, batch):
                break
            index += 1
        self.ready.insert(index, batch)

    def take_over(self, old: PartitionQueue, made_at: float) -> bool:
        """Take over the batches since `made_at` of a deleted topic's queue; return if any.

        A batch that may have been written to the deleted topic stays there: here it would be
        written twice.
        """
        has_taken = False
        for batch in list(old.batches()):
            if batch in old.in_flight or batch.is_uncertain or batch.opened_at < made_at:
                continue
            old.remove(batch)
            batch.queue = self
            batch.attempts = 0
            batch.base_sequence = -1
            batch.encoded = None
            self.put_back(batch)
            has_taken = True
        return has_taken

    def remove(self, batch: Batch) -> None:
        """Take out a batch."""
        if batch in self.in_flight:
            self.in_flight.remove(batch)
        elif batch is self.open:
            self.open = None
        elif batch in self.ready:
            self.ready.remove(batch)

    # -- sequences -----------------------------------------------------------------------------

    def number(self, batch: Batch, identity: ProducerIdentity | None) -> None:
        """Give a batch the next sequences, under `identity` if the queue has none yet."""
        if self.identity is None:
            self.identity = identity
            self.next_sequence = 0
        assert self.identity is not None
        batch.base_sequence = self.next_sequence
        self.next_sequence = (self.next_sequence + batch.count) & SEQUENCE_MAX
        builder = batch.builder
        builder.producer_id = self.identity.producer_id
        builder.producer_epoch = self.identity.producer_epoch
        builder.base_sequence = batch.base_sequence
        batch.encoded = None

    def unnumber(self, batch: Batch) -> None:
        """Take back the sequences of the batch that was numbered last, if it was never sent."""
        if batch.base_sequence >= 0 and not batch.attempts:
            self.next_sequence = batch.base_sequence
            batch.base_sequence = -1
        batch.encoded = None

    def restart(self) -> bool:
        """Continue with the next epoch from sequence 0: no batch after the gap was written.

        No earlier batch is open. So the gap proves that the batch before it was lost (it expired,
        or failed for good), and that no later batch was written either. Batches in flight behind
        the gap meet the same gap and come back first. If the broker has forgotten the producer,
        this holds only for batches that no earlier attempt may have written. The others stay
        uncertain, and must not be sent again. Returns False if the producer id has no epoch left.
        """
        assert self.has_gap, "only a gap proves that nothing was written"
        assert not self.in_flight, "what is in flight behind a gap comes back first"
        assert self.identity is not None, "a gap was answered to a batch without a sequence"
        self.has_gap = False
        self.next_sequence = 0
        for waiting in self.ready:
            waiting.base_sequence = -1
            waiting.encoded = None
            waiting.is_uncertain &= self.is_forgotten
        self.is_forgotten = False
        used = self.identity
        if used.producer_epoch >= PRODUCER_EPOCH_MAX:
            self.identity = None
            return False
        self.identity = ProducerIdentity(used.producer_id, used.producer_epoch + 1)
        return True


def comes_after(one: Batch, other: Batch) -> bool:
    """Return whether `one` follows `other` in their partition."""
    return one.number > other.number
