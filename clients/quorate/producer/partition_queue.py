"""The batches of one partition that have no outcome yet, in order.

The accumulator decides what happens to the batches.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from quorate.errors import QuorateError
from quorate.record.batch import HEADER_BYTES, SEQUENCE_MAX
from quorate.record.column_builder import ColumnBuilder

PRODUCER_EPOCH_MAX = 32767


@dataclass(frozen=True, slots=True)
class ProducerIdentity:
    """The producer id and epoch in a partition's batches. Sequences count within them."""

    producer_id: int
    producer_epoch: int


@dataclass(slots=True, eq=False)
class Batch:
    """Records of one partition that are sent together, and their outcome.

    `done` means that the batch has its outcome, or that it was split. After a split, `parts` are
    the batches that have its records. A batch that is done keeps no bytes, so a Delivery that a
    user keeps costs little memory.
    """

    queue: PartitionQueue
    builder: ColumnBuilder
    opened_at: float
    deadline: float
    #: The place among the partition's batches, independent of sequences. A part's number extends
    #: that of the split batch: 7, 7.0, 7.1, 8.
    number: tuple[int, ...]
    encoded: bytes | None = None
    #: A record that would make the batch larger begins the next batch.
    bytes_max: int = field(init=False)
    attempts: int = 0
    first_sent_at: float = 0.0
    #: Whether an attempt has ended without proof that it wrote nothing.
    is_uncertain: bool = False
    base_sequence: int = -1
    urgent: bool = False
    #: Whether it is never split, so that all its records are written or none. Its delivery is that
    #: of all its records.
    is_whole: bool = False
    done: bool = False
    #: Indexes of the records whose outcome a task asked for before the batch had it.
    observed: set[int] | None = None
    error: QuorateError | None = None
    #: The last error after which the batch had to be sent again.
    refusal: QuorateError | None = None
    base_offset: int = -1
    append_time_ms: int = -1
    #: Called when the batch is done, each once. It is a dict, so that a waiter that gives up can
    #: remove its callback cheaply.
    callbacks: dict[Callable[[], object], None] = field(default_factory=dict)
    #: Called before `callbacks`. After a split, each part calls it instead.
    on_end: Callable[[Batch], object] | None = None
    #: After a split: the batches that have the records now, and the index of each one's first
    #: record.
    parts: Sequence[Batch] = ()
    _part_starts: Sequence[int] = ()

    def __post_init__(self) -> None:
        self.bytes_max = self.queue.batch_bytes_max

    @property
    def count(self) -> int:
        """Number of records in the batch."""
        return self.builder.count

    @property
    def bytes(self) -> int:
        """Upper bound of the records' bytes, as they count against the buffer."""
        return self.builder.size - HEADER_BYTES

    def settle(self) -> int:
        """Encode the records that wait. Return by how many bytes this makes `bytes` smaller."""
        return 0 if self.encoded is not None else self.builder.settle()

    def encode(self) -> int:
        """Set `encoded` if it is None. Return its size."""
        if self.encoded is None:
            self.encoded = self.builder.build()
        return len(self.encoded)

    def holder(self, index: int) -> tuple[Batch, int]:
        """Return the batch that has a record now, and the record's index in that batch."""
        batch = self
        while batch.parts:
            part = bisect_right(batch._part_starts, index) - 1
            index -= batch._part_starts[part]
            batch = batch.parts[part]
        return batch, index

    def replace_by(self, parts: Sequence[Batch]) -> None:
        """Note that the batch was split into `parts`, which have its records from now on."""
        self.parts = parts
        self._part_starts = [0, *accumulate(part.count for part in parts[:-1])]

    def take_callbacks(self) -> list[Callable[[], object]]:
        """Return the callbacks, and forget them. The caller must call them now."""
        told = list(self.callbacks)
        self.callbacks.clear()
        return told


@dataclass(slots=True, eq=False)
class PartitionQueue:
    """The batches of one partition, in order: those in flight, the ready ones, the open one."""

    topic: str
    topic_id: bytes
    partition: int
    #: Size limit of a batch. It is the configured limit, until a broker refuses a batch as too
    #: large.
    batch_bytes_max: int
    #: How many partitions the topic had when the last record was sent to it; -1: not known.
    partition_count: int = -1
    batches_opened: int = 0
    #: A broker proved that a sequence is missing. No batch is sent until all in flight are
    #: answered.
    has_gap: bool = False
    #: The broker has forgotten the producer. Then the gap does not prove that earlier attempts
    #: wrote nothing.
    is_forgotten: bool = False
    open: Batch | None = None
    ready: deque[Batch] = field(default_factory=deque)
    in_flight: list[Batch] = field(default_factory=list)
    #: The stream that sent the batches in flight. While one of them has no answer, the stream to a
    #: new leader sends no batch of this partition.
    carrier: object = None
    retry_at: float = 0.0
    identity: ProducerIdentity | None = None
    next_sequence: int = 0
    #: The time at which the topic was first missing in the metadata; None: it is not missing.
    gone_at: float | None = None
    #: Why the leader cannot be reached; None if it can. For the errors of batches that expire.
    hindrance: QuorateError | None = None
    #: The queue of the deleted topic of the same name. Its batches in flight may come back, and are
    #: sent before those of this queue.
    predecessor: PartitionQueue | None = None

    def batches(self) -> Iterator[Batch]:
        """Yield every batch that has no outcome, oldest first."""
        yield from self.in_flight
        yield from self.ready
        if self.open is not None:
            yield self.open

    @property
    def is_retrying(self) -> bool:
        """Whether the next batch was sent before and waits to be sent again."""
        return bool(self.ready) and self.ready[0].attempts > 0

    @property
    def is_empty(self) -> bool:
        """Whether the queue has no batches."""
        return not self.in_flight and not self.ready and self.open is None

    # -- out -----------------------------------------------------------------------------------

    def may_send(self, now: float, in_flight_max: int) -> bool:
        """Return whether the next batch may be sent without overtaking one that may come back."""
        if self.has_gap or self.retry_at > now or len(self.in_flight) >= in_flight_max:
            return False
        if self.predecessor is not None:
            if self.predecessor.in_flight:
                return False
            self.predecessor = None
        return not (self.is_retrying and self.in_flight and not self._is_same_run)

    @property
    def _is_same_run(self) -> bool:
        """Whether all batches in flight come before the next one, so that the order is kept."""
        following = self.ready[0]
        return self.identity is not None and all(
            comes_after(following, batch) for batch in self.in_flight
        )

    def waits_until(self, now: float, linger_s: float) -> float | None:
        """Return the time at which the next batch may be sent, at the end of its linger or backoff.

        None if this does not depend on time.
        """
        if self.ready or self.has_gap:
            return self.retry_at if self.retry_at > now else None
        if self.open is None:
            return None
        return max(self.open.opened_at + linger_s, self.retry_at)

    def take_next(self, lingers_since: float | None) -> Batch | None:
        """Take out the next batch. An open batch is taken only if it was opened by `lingers_since`.

        None if there is no such batch. `lingers_since` None: no batch lingers.
        """
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

    def begin(self, batch: Batch) -> bool:
        """Open a batch. Return whether the open batch became ready, because there was one."""
        completed = self.complete()
        self.open = batch
        self.batches_opened += 1
        return completed

    def complete(self) -> bool:
        """Move the open batch to the ready ones. Return whether there was one."""
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
        """Take over the batches that a deleted topic's queue has opened since `made_at`.

        Return whether there were any. A batch that may have been written to the deleted topic stays
        in `old`. In the new topic it would be written a second time.
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
        """Take a batch out of the queue."""
        if batch in self.in_flight:
            self.in_flight.remove(batch)
        elif batch is self.open:
            self.open = None
        elif batch in self.ready:
            self.ready.remove(batch)

    # -- sequences -----------------------------------------------------------------------------

    def number(self, batch: Batch, identity: ProducerIdentity | None) -> None:
        """Give a batch the next sequences. A queue without an identity takes `identity`."""
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
        """Take back the sequences of the batch that got them last, if it was never sent."""
        if batch.base_sequence >= 0 and not batch.attempts:
            self.next_sequence = batch.base_sequence
            batch.base_sequence = -1
        batch.encoded = None

    def restart(self) -> bool:
        """Continue with the next epoch from sequence 0, because no batch after the gap was written.

        No earlier batch is open. So the gap proves that the batch before it was lost (it expired,
        or failed for good), and that no later batch was written. The broker refuses the batches in
        flight behind the gap, too; call this method when all of them have come back. If the broker
        has forgotten the producer, the proof holds only for batches that no earlier attempt may
        have written; the others stay uncertain, and must not be sent again. Returns False if the
        producer id has no epoch left.
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
    """Return whether `one` comes after `other` in the order of their partition."""
    return one.number > other.number
